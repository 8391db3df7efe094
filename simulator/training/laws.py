"""How the error of stored weights grows on its way forward and backward, predicted from rounding, bits and depth.

Laws (3), of the forward error, and (4), of masks that flip and of the gradient; (5) to (8) are in predict.py. Derived
for this project, for ReLU, random weights and significands s that are spread as 1/s between 1 and 2. Cutting a
significand after m bits loses t/s with t uniform in [0, 2^-m): C1 2^-m in the mean, with a deviation of C2 2^-m. To
nearest, t is uniform around 0 and its deviation C3 2^-m; stochastically its variance is twice that in the mean.
Estimates, none of them a bound; `simulator.training.errors` measures beside them.
"""

from __future__ import annotations

import math

from .updates import C1

C2 = math.sqrt(1.0 / (8.0 * math.log(2.0)) - C1 * C1)
C3 = math.sqrt(1.0 / (32.0 * math.log(2.0)))
# Part of a relative error that is the same for all weights of a layer, and that which differs from weight to weight;
# in units of 2^-m.
COHERENT = {"rz": C1, "rne": 0.0, "sr": 0.0}
INCOHERENT = {"rz": C2, "rne": C3, "sr": math.sqrt(2.0) * C3}
# What a flipped mask puts into a gradient: of random gradients of the outputs, all being different.
RANDOM_OUTPUT_GRADIENT = 2.0


def forward_error(rounding: str, bits: int, depth: int) -> float:
    """Return ||computed - true|| / ||true|| behind so many layers with ReLU; (3). Estimate.

    What is common to all weights of a layer adds up, linear in the depth; the rest adds in squares.

    Args:
        rounding: of the stored weights, rz, rne or sr. bits: stored significand bits. depth: layers with weights.
    """
    return 2.0**-bits * math.hypot(COHERENT[rounding] * depth, INCOHERENT[rounding] * math.sqrt(depth))


def flip_probability(rounding: str, bits: int, layer: int) -> float:
    """Return the share of units of a layer whose ReLU opens or closes against a run without rounding; (4). Estimate.

    Two normal numbers of correlation cos(theta) differ in sign with probability theta / pi; the coherent part of an
    error changes no sign.

    Args:
        layer: counted from 1.
    """
    return math.atan(2.0**-bits * INCOHERENT[rounding] * math.sqrt(layer)) / math.pi


def gradient_error(rounding: str, bits: int, masks: int, flipped: float = RANDOM_OUTPUT_GRADIENT) -> float:
    """Return ||computed - true|| / ||true||, as a root mean square, of the gradient of the inputs; (4). Estimate.

    Masks that flip outweigh the errors of the weights, and make it a multiple of 2^(-m/2).

    Args:
        masks: layers with ReLU. flipped: squared error that one flipped unit brings, relative to a unit's share: 2 for
            a random gradient of the outputs, about 1 for one whose entries are equal.
    """
    return math.sqrt(flipped * sum(flip_probability(rounding, bits, layer) for layer in range(1, masks + 1)))
