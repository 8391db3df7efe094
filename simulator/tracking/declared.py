"""What is said of given values: how far they are off."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from simulator.errors import InputError

from .labels import CERTAIN_NOISE, EXPECTED, SAFE, binade


def declared(x: Tensor, bits: Any, error: Any, where: str) -> dict[str, Tensor]:
    """Return the noise of values by label.

    Args:
        x: float32 or float64. bits: that are right, |error| <= 2**-bits |x|. error: absolute; one of both, a number or
            one for each value. where: what the caller is called in messages.
    Raises:
        InputError: neither or both, a negative error, or one of another shape.
    """
    if (bits is None) == (error is None):
        raise InputError(f"{where}: got neither or both of bits and error; expected one; give bits=11")
    given = torch.as_tensor(bits if error is None else error, dtype=x.dtype).detach()
    if given.dim() and given.shape != x.shape:
        raise InputError(
            f"{where}: got errors of shape {tuple(given.shape)}; expected one number, or the shape of the values, "
            f"{tuple(x.shape)}; give one for each element"
        )
    share = torch.pow(2.0, -given)
    size = x.abs() * share if error is None else given.expand(x.shape)
    optimistic = binade(x) * share if error is None else size
    if bool((size < 0).any()) or bool(size.isnan().any()):
        raise InputError(f"{where}: got a negative error; expected 0 or more; give its magnitude")
    size = size * (1.0 + 4.0 * torch.finfo(x.dtype).eps)
    # Two deviations are what the expected number claims.
    return {SAFE: size, EXPECTED: size / 2.0, CERTAIN_NOISE: optimistic}
