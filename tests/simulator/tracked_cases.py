"""Operands that are hard, with errors that are really applied, and whether a safe bound claims too much of them."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor

import simulator
from tests.simulator.tracked_programs import Program

# What operands are like.
KINDS = ("normal", "cancelling", "ties", "kinks", "tiny", "huge", "wild", "exact", "strided")


class Found(NamedTuple):
    """What a check saw.

    Args:
        elements: compared. wrong: whose error is above its bound. same: whether the run is that of no tracking, bit for
            bit. shadowed: operations without a rule. finite: share of elements that have a bound. note: the worst.
        closest: the largest error, as a share of its bound.
    """

    elements: int
    wrong: int
    same: bool
    shadowed: set[str]
    finite: float
    note: str
    closest: float = 0.0


def operand(shape: tuple[int, ...], kind: str, domain: str, g: torch.Generator, wide: bool) -> Tensor:
    """Return values in float64, of a kind, in a domain; wide: of a format with many exponents."""
    x = torch.randn(shape, generator=g, dtype=torch.float64)
    if kind == "cancelling":
        x = 1.0 + x * 2.0**-9
        x *= torch.randint(0, 2, shape, generator=g) * 2 - 1
    elif kind == "ties":
        x = torch.randint(-2, 3, shape, generator=g).double() / 2
    elif kind == "kinks":
        x = torch.tensor([-3.0, -1.0, -0.5, 0.0, 0.3, 0.5, 0.7, 1.0, 3.0, 6.0, 20.0])[
            torch.randint(0, 11, shape, generator=g)] + x * 2.0**-8  # fmt: skip
    elif kind == "tiny":
        x = x * 2.0 ** torch.randint(-150, -60, shape, generator=g)
    elif kind == "huge":
        x = x * 2.0 ** torch.randint(0, 60 if wide else 12, shape, generator=g)
    elif kind == "wild":
        x = x * 2.0 ** torch.randint(-40, 8, shape, generator=g)
    if domain in ("positive", "share", "unit"):
        x = x.abs() + (0.0 if kind == "tiny" else 2.0**-20)
    if domain == "share":
        x = x / (1 + x)
    if domain == "unit":
        x = x / (1 + x) * (torch.randint(0, 2, shape, generator=g) * 2 - 1)
    return x


def errors(x: Tensor, kind: str, g: torch.Generator) -> Tensor:
    """Return how far values may be off: many sizes, some 0, large ones where pieces of functions meet."""
    if kind == "exact":
        return torch.zeros_like(x)
    bits = torch.randint(2, 22, x.shape, generator=g).to(x.dtype)
    size = x.abs() * 2.0**-bits
    if kind in ("kinks", "ties", "wild"):
        size = torch.where(torch.rand(x.shape, generator=g) < 0.3, (1.0 + x.abs()) * 2.0 ** -(bits / 3), size)
    return torch.where(torch.rand(x.shape, generator=g) < 0.2, 0.0, size)


def results(program: Program, xs: list[Tensor], gs: list[Tensor] | None) -> list[Tensor]:
    """Return the outputs of a program, and its gradients for operands that have one."""
    leaves = [x.detach().requires_grad_(program.gradients) for x in xs]
    out = program.run(*leaves)
    outs = [y for y in (out if isinstance(out, tuple | list) else (out,)) if y.is_floating_point()]
    found = [y.detach() for y in outs]
    depend = [y for y in outs if y.requires_grad]
    if gs is None or not depend:
        return found
    at = [i for i, y in enumerate(outs) if y.requires_grad]
    gradients = torch.autograd.grad(depend, leaves, [gs[i] for i in at], allow_unused=True)
    return found + [d for d in gradients if d is not None]


def check(program: Program, dtype: torch.dtype, kind: str, seed: int = 0, trials: int = 6) -> Found:
    """Return whether the bounds of a program hold: operands moved within their errors, results in float64.

    Args:
        dtype: of the run, float32 or narrower. trials: the run itself, all up, all down, and others at random.
    """
    g = torch.Generator().manual_seed(seed)
    domains = (program.domain,) * len(program.shapes) if isinstance(program.domain, str) else program.domain
    wide = dtype != torch.float16
    xs = [operand(s, kind, d, g, wide).to(dtype) for s, d in zip(program.shapes, domains, strict=True)]
    if kind == "strided":
        xs = [torch.stack([x, x], -1)[..., 0] for x in xs]
    try:
        plain = results(program, xs, None)
    except (NotImplementedError, RuntimeError) as error:
        if dtype != torch.float32 and ("not implemented for" in str(error) or "expected scalar type" in str(error)):
            return Found(0, 0, True, set(), 1.0, "torch has no kernel")
        raise
    gs = [
        (operand(tuple(y.shape), "ties" if kind in ("tiny", "huge") else kind, "any", g, wide)).to(y.dtype)
        for y in plain
    ]
    plain = results(program, xs, gs)
    given = [*xs, *gs]
    sizes = [errors(x.double(), kind, g).float() for x in given]
    # A declared error is one of what is given: never out of the domain.
    low = {"positive": 0.0, "share": 0.0, "unit": -1.0}
    high = {"share": 1.0, "unit": 1.0}
    for i, d in enumerate(domains):
        for edge in (low.get(d), high.get(d)):
            if edge is not None:
                room = (xs[i].double() - edge).abs() * 0.99
                sizes[i] = torch.minimum(sizes[i], room.float())
    # Copies, that a program which returns its operand does not declare it twice.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with simulator.track(None, numbers=("safe",)) as bits:
            for x, e in zip(given, sizes, strict=True):
                bits.declare(x, error=e)
            run = results(program, xs, gs)
    same = len(plain) == len(run) and all(torch.equal(_raw(a), _raw(b)) for a, b in zip(plain, run, strict=True))
    bounds = [bits.of(y).bound.double() for y in run]
    elements = wrong = 0
    finite = 0
    note, closest = "", 0.0
    for trial in range(trials):
        moved = [_moved(x.double(), e.double(), trial, g) for x, e in zip(given, sizes, strict=True)]
        exact = results(program, moved[: len(xs)], moved[len(xs) :])
        for i, (y, z, bound) in enumerate(zip(run, exact, bounds, strict=True)):
            y, z = y.double(), z.double()
            off = (y - z).abs()
            known = torch.isfinite(y) & torch.isfinite(z)
            # float64 rounds too: a bound that is closer to its own errors than this is not looked at.
            over = known & (off > bound * (1 + 2.0**-20) + z.abs() * 2.0**-49)
            elements += int(known.sum())
            shares = torch.where(known & (bound > z.abs() * 2.0**-40), off / bound, 0.0)
            closest = max(closest, float(shares.max()) if shares.numel() else 0.0)
            finite += int((known & torch.isfinite(bound)).sum())
            wrong += int(over.sum())
            if over.any() and not note:
                at = int(torch.where(over, off, 0.0).argmax())
                note = (f"result {i} trial {trial} at {at}: run {y.flatten()[at]:.9g} exact {z.flatten()[at]:.9g} "
                        f"bound {bound.flatten()[at]:.9g}")  # fmt: skip
    names = {name.split(" in ")[0] for name in bits.shadowed}
    return Found(elements, wrong, same, names, finite / max(1, elements), note, closest)


def _moved(x: Tensor, size: Tensor, trial: int, g: torch.Generator) -> Tensor:
    """Return values moved within their errors: not at all, up, down, to corners, or anywhere."""
    if trial == 0:
        return x
    if trial < 3:
        return x + size * (3 - 2 * trial)
    shift = torch.rand(x.shape, generator=g, dtype=torch.float64) * 2 - 1
    return x + size * (shift.sign() if trial % 2 else shift)


def _raw(x: Tensor) -> Tensor:
    kinds: dict[torch.dtype, Any] = {torch.float64: torch.int64, torch.float32: torch.int32}
    return x.contiguous().view(kinds.get(x.dtype, torch.int16))
