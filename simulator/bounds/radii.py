"""Boxes around samples, of a radius for all inputs or for each, as the command line says them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from simulator.errors import InputError
from simulator.network.batches import Batch
from simulator.network.samples import Samples


def radii_of(given: Sequence[str]) -> dict[str, float]:
    """Return how far inputs may be from the samples, by name; under "" what holds for all others of floats.

    Raises:
        InputError: what is neither R nor NAME=R, or there twice.
    """
    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            radius = float(number)
        except ValueError:
            radius = -1.0
        if not 0 <= radius < math.inf or name in found or text.startswith("="):
            raise InputError(
                f"bounds: --radius: got {text}; expected a number from 0 for all inputs, or NAME=R for one, each once; "
                "give e.g. 0.01"
            )
        found[name] = radius
    return found


def around(samples: Samples, radii: Mapping[str, float]) -> Any:
    """Return samples, or boxes around them, as `certify` takes them.

    Args:
        radii: as of `radii_of`.
    Raises:
        InputError: a radius of what is no input, or of one that is exact.
    """
    args, kwargs = samples.batch(slice(None))
    named = Batch(args, kwargs).inputs
    real = [name for name, x in named.items() if x.is_floating_point() and x.dim()]
    unknown = [name for name, radius in radii.items() if radius and name and name not in real]
    if unknown or (radii.get("") and not real):
        what = f"{unknown[0]}={radii[unknown[0]]:g}" if unknown else f"{radii['']:g}"
        raise InputError(
            f"bounds: --radius: got {what}; expected it of inputs of floats ({', '.join(real) or 'there are none'}), "
            "as integers and numbers for all samples are exact; correct it, or leave it out"
        )
    boxes = {}
    for name, x in named.items():
        radius = radii.get(name, radii.get("", 0.0)) if name in real else 0.0
        boxes[name] = (x - radius, x + radius) if radius else x
    return boxes if kwargs else boxes["x"]
