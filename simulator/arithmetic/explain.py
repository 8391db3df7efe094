"""explain: which kernel a MAC unit's product runs on, why its bits are those of the definition, and what it costs."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

import native
from formats import BlockFormat, FixedFormat, FloatFormat, Format, Use
from formats.notebook import Shown, View
from native import matmul as engine

from .accumulators import Accumulator, walk
from .engine import Accumulation, available_processors, check_shapes, check_threads, numbers
from .grammar import names_of
from .kernels import Kernel, choose
from .lowering import lower
from .order import in_words
from .presets import PRESETS
from .situation import Situation
from .spec import MacSpec
from .spec import mac as make_spec  # `mac` is the public name of an argument

TIMED_SECONDS = 0.02  # that the timed product takes at least, unless it is the whole
AS_GIVEN = "fp32"  # what operands without a format are taken for where none are at hand


@dataclass(frozen=True)
class Refusal:
    """A cheaper kernel, and the clauses of its condition that do not hold."""

    kernel: str
    clauses: tuple[str, ...]


@dataclass(frozen=True)
class Explanation(Shown):
    """How a product would be computed, and why that is right.

    Args:
        spec: canonical string. shape: (M, N, K). operands: what the argument knows of them, in words.
        kernel: that is chosen. argument: clauses of its condition, which prove that it equals the definition.
        spared: why it may leave work out of each step.
        refused: cheaper kernels, cheapest first. order: of summation, in words.
        presets: units that this accumulator, or a part of it, is: name, evidence label, what is not tested.
        isa: instruction set. threads: at most so many.
        ns_per_mac: estimate, measured on this machine just now with this kernel on a part of the work, one thread, with
            random operands. seconds: the same for the whole product on all threads.
    """

    spec: str
    shape: tuple[int, int, int]
    operands: str
    kernel: str
    argument: tuple[str, ...]
    spared: tuple[str, ...]
    refused: tuple[Refusal, ...]
    order: tuple[str, ...]
    presets: tuple[str, ...]
    isa: str
    threads: int
    ns_per_mac: float
    seconds: float

    def __str__(self) -> str:
        m, n, k = self.shape
        lines = [self.spec, f"  ({m} x {k}) x ({k} x {n}), {self.operands}", "order"]
        lines += [f"  {line}" for line in self.order]
        lines += [f"kernel {self.kernel}, instruction set {self.isa}", "  equals the definition because"]
        lines += [f"    {clause}" for clause in self.argument]
        if self.spared:
            lines += ["  leaves work out of each step because", *(f"    {clause}" for clause in self.spared)]
        if self.refused:
            lines.append("  cheaper ones do not:")
        for refusal in self.refused:
            lines.append(f"    {refusal.kernel}: {refusal.clauses[0]}")
            lines += [f"    {' ' * len(refusal.kernel)}  {clause}" for clause in refusal.clauses[1:]]
        if self.presets:
            lines += ["hardware", *(f"  {line}" for line in self.presets)]
        plural = "s" if self.threads > 1 else ""
        lines.append(
            f"time about {two_digits(self.ns_per_mac)} ns a MAC, {duration(self.seconds)} in all on {self.threads} "
            f"thread{plural} (estimate, measured just now)"
        )
        return "\n".join(lines)

    def _view(self) -> View:
        from .shown import explanation_view

        return explanation_view(self)


def explain(
    spec: str | Mapping[str, Any] | MacSpec | Accumulator,
    shape: tuple[int, int, int] | None = None,
    a: ArrayLike | None = None,
    b: ArrayLike | None = None,
    c: ArrayLike | None = None,
    threads: int | None = None,
) -> Explanation:
    """Explain how a MAC unit's matrix product is computed.

    Args:
        spec: MacSpec or its string or YAML form.
        shape: (M, N, K); left out where operands are given.
        a, b, c: operands (M, K) and (K, N) and addend, whose values decide as they would in matmul. Without them any
            values of the operand formats (fp32 where the spec names none) are reckoned with, and no addend.
        threads: at most so many; None for all processors available.
    Returns:
        Explanation; print it, or read its fields. The argument is a proof, the time an estimate.
    Raises:
        ValueError: a spec or shape that is none, operands without each other. TypeError: operands that are no numbers.
    """
    mac = make_spec(spec)
    threads = check_threads(threads)
    if (a is None) != (b is None) or (a is None) == (shape is None):
        raise ValueError("explain: expected a shape (M, N, K), or the operands a and b")
    if a is not None and b is not None:
        a, b = numbers(a, "a"), numbers(b, "b")
        check_shapes("explain", a, b)
        work = Accumulation(mac, a, b, c, threads)
        m, n, k = *work.shape, work.a.shape[1]
        situation, known = work.situation, "these operands"
    else:
        assert shape is not None
        m, n, k = _checked(shape)
        uses = mac.operands or (Use.parse(AS_GIVEN),) * 2
        situation = _worst(mac, uses, k)
        known = f"any {uses[0]} by {uses[1]}" if uses[0] != uses[1] else f"any {uses[0]}"
    kernel, tried = choose(situation)
    ns = _measured(mac, kernel, (m, n, k))
    shortcuts = kernel.shortcuts(situation)
    return Explanation(
        spec=str(mac), shape=(m, n, k), operands=known, kernel=kernel.name,
        argument=tuple(clause.text for clause in tried[-1][1]),
        spared=tuple(clause.text for clause in shortcuts or () if clause.holds),
        refused=tuple(
            Refusal(one.name, tuple(clause.text for clause in clauses if not clause.holds))
            for one, clauses in tried[:-1]
            if one.runs(situation.leaf.kind)
        ),
        order=tuple(in_words(mac.accumulator)),
        presets=tuple(known_as(mac)),
        isa="none" if kernel.name == "definition" else native.isa(),
        threads=threads, ns_per_mac=ns, seconds=ns * 1e-9 * m * n * k / min(threads, available_processors()),
    )  # fmt: skip


def known_as(mac: MacSpec) -> list[str]:
    """Return lines on the units of real hardware that the accumulator, or a part of it, is."""
    lines = []
    for part in walk(mac.accumulator):
        for one in names_of(part, mac.operands):
            whole = "" if part == mac.accumulator else f", its {part}"
            lines.append(f"{one.preset} with output {one.output}{whole}: {' '.join((one.label, one.but)).strip()}")
            lines += [f"  not tested: {text}" for text in PRESETS[one.preset].untested]
    return lines


def _checked(shape: Any) -> tuple[int, int, int]:
    whole = isinstance(shape, tuple | list) and all(isinstance(s, int) and not isinstance(s, bool) for s in shape)
    if not whole or len(shape) != 3 or min(shape) < 0:
        raise ValueError(f"explain: the shape is (M, N, K), three whole numbers from 0; got {shape!r}")
    return shape[0], shape[1], shape[2]


def _worst(mac: MacSpec, uses: tuple[Use, Use], k: int) -> Situation:
    """Return what has to be reckoned with if operands can be any finite values of their formats."""
    a, b = (_profile_of(use.format) for use in uses)
    wide_operands = not (a.within_float32 and b.within_float32)
    return Situation(lower(mac.accumulator, mac.operands), a, b, None, k, wide_operands)


def _profile_of(fmt: Format) -> engine.Profile:
    """Return a profile that every array of a format's finite values keeps within."""
    if not fmt.has_blocks and fmt.bits <= 16:
        values = fmt.table()
        found = engine.profile(values[np.isfinite(values)].reshape(1, -1))
        return found._replace(square=math.inf)  # a row may hold the largest value any number of times
    highest, lowest = math.frexp(fmt.max)[1] - 1, math.frexp(fmt.smallest_subnormal)[1] - 1
    return engine.Profile(highest, lowest, _significant_bits(fmt), True, True)


def _significant_bits(fmt: Format) -> int:
    match fmt:
        case FloatFormat():
            return fmt.precision
        case FixedFormat():
            return fmt.bits
        case BlockFormat():
            return min(53, _significant_bits(fmt.element) + _significant_bits(fmt.scale))
    return min(53, fmt.bits)


def _measured(mac: MacSpec, kernel: Kernel, shape: tuple[int, int, int]) -> float:
    """Return nanoseconds a MAC of a kernel, one thread, on a part of a product of this shape that takes a while."""
    m, n, k = (min(size, most) for size, most in zip(shape, (2, 64, 64), strict=True))
    if not m * n * k:
        return 0.0
    rng = np.random.default_rng(0)
    while True:
        work = Accumulation(mac, rng.standard_normal((m, k)), rng.standard_normal((k, n)), None, threads=1)
        work.kernel = kernel
        began = time.perf_counter()
        work.dense()
        took = time.perf_counter() - began
        if took >= TIMED_SECONDS or (m, n, k) == shape:
            return took * 1e9 / (m * n * k)
        # Longer before wider before higher: what is done once a row or column then counts as it does in the whole.
        factor = max(2, min(16, math.ceil(TIMED_SECONDS / max(took, 1e-6))))
        if k < shape[2]:
            k = min(shape[2], k * factor)
        elif n < shape[1]:
            n = min(shape[1], n * factor)
        else:
            m = min(shape[0], m * factor)


def duration(seconds: float) -> str:
    """Return a time in words, with two digits."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1:
            return f"{two_digits(seconds * factor)} {unit}"
    return f"{two_digits(seconds * 1e9)} ns"


def two_digits(number: float) -> str:
    """Return a number rounded to two digits, without a power of ten where it can: 120 and not 1.2e+02."""
    return f"{float(f'{number:.2g}'):g}"
