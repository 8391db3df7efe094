"""What has no rule is computed again in float64, and once more with its operands moved by their noise. Statistical."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .rules import Choice
from .rules.nested import leaves, mapped
from .rules.registry import functional
from .values import Value

# Of a run in float64 nothing wider is at hand: its own rounding is seen as one of each operand.
_OWN = 2.0**-53
_PROBES = 2


def deviations(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], place: int | None, results: list[Tensor]
) -> list[Tensor] | None:
    """Return standard deviations of the errors of real results, or None if it cannot be computed again.

    An operation that draws random numbers is not: others would be drawn, and from the generator of the run if it names
    one.

    Args:
        args, kwargs: with Values for real tensors. place: of the noise of the expected number in a Value; None: it is
            not kept.
        results: of the run.
    """
    again = functional(func)
    if again is None or torch.Tag.nondeterministic_seeded in func.tags:
        return None
    generator = torch.Generator().manual_seed(0)

    def exact(x: Any) -> Any:
        return x.x.double() if isinstance(x, Value) else x.x if isinstance(x, Choice) else x

    def probed(x: Any) -> Any:
        if not isinstance(x, Value):
            return exact(x)
        noise = None if place is None else x.noise[place]
        own = x.x.double().abs() * (_OWN if x.trace.dtype == torch.float64 else 0.0)
        size = own if noise is None else (own.square() + noise.double().square()).sqrt()
        sign = torch.randint(0, 2, x.shape, generator=generator, dtype=torch.float64) * 2.0 - 1.0
        return x.x.double() + sign * size

    try:
        with torch.random.fork_rng(devices=[]):  # the run's own random numbers stay as they are
            found = _real(again(*mapped(args, exact), **mapped(kwargs, exact)))
            squares = [(z.double() - f).square() for z, f in zip(results, found, strict=True)]
            if any(isinstance(x, Value) for x in leaves((args, kwargs))):
                for _ in range(_PROBES):
                    moved = _real(again(*mapped(args, probed), **mapped(kwargs, probed)))
                    squares = [s + (m - f).square() / _PROBES for s, m, f in zip(squares, moved, found, strict=True)]
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return None
    return [torch.nan_to_num(s.sqrt(), nan=math.inf) for s in squares]


def _real(out: Any) -> list[Tensor]:
    parts = out if isinstance(out, tuple | list) else (out,)
    return [part.double() for part in parts if isinstance(part, Tensor) and part.is_floating_point()]
