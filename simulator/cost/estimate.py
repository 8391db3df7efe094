"""What an operation would cost in each mode, without values; break-even of the two-pass policy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from simulator.errors import InputError
from simulator.hardware import Machine, load_hardware
from simulator.notebook import Shown, Table, View, frame
from simulator.result import MODE_LABELS, PRICED_MODES, GatherResult

from .area import Area, known_area
from .break_even import common_break_even
from .gathers import Gathered, energy_balance, gather_results, gathered
from .gemm import Gemm
from .price import Cost, price
from .scoring import relative_extra

if TYPE_CHECKING:
    from formats.notebook import DataFrame


@dataclass(frozen=True)
class Estimate(Shown):
    """The three modes of one operation side by side.

    Args:
        hardware: name of the machine. gemm: the operation. flagged: fraction of outputs flagged, of a ladder for each
            pass after the first, or one for all of them.
        low, high, two_pass: costs; None for a mode that the machine lacks.
        accumulation_cost: by mode, see `accumulation_cost`.
        break_even_flagged: fraction of flags at which the MACs and scores of two passes cost the energy of the MACs of
            one in the high mode, memory not counted (estimate); None without a two-pass policy, or with a ladder.
        area: of the machine; None where a format of its MACs has no circuits in the model.
        machine: that it was priced on. zeros: fraction of its MACs with a zero operand, on a machine with zero gating.
    """

    hardware: str
    gemm: Gemm
    flagged: float | Sequence[float]
    low: Cost
    high: Cost | None
    two_pass: Cost | None
    accumulation_cost: dict[str, float | None]
    break_even_flagged: float | None
    area: Area | None
    machine: Machine = field(repr=False, compare=False)
    zeros: float | None = None

    @property
    def modes(self) -> dict[str, Cost]:
        """Costs by mode, of those that the machine has."""
        of_all = {"low": self.low, "high": self.high, "two_pass": self.two_pass}
        return {mode: cost for mode, cost in of_all.items() if cost is not None}

    @cached_property
    def gathers(self) -> tuple[GatherResult, ...]:
        """The ways to gather flagged outputs side by side; empty without a two-pass policy, or with a ladder."""
        return gather_results(self.machine, [self.gathered]) if self.gathered else ()

    @cached_property
    def gathered(self) -> dict[str, Gathered]:
        """The operation with each kind of gather, of which gather_results makes sums."""
        if self.two_pass is None or self.machine.mac.middle:
            return {}
        assert not isinstance(self.flagged, Sequence)  # price takes one fraction only for one pass
        return gathered(self.machine, self.gemm, self.flagged, self.two_pass, self.zeros)

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain dicts, lists and numbers."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "machine"}
        plain |= {"gemm": asdict(self.gemm), "gathers": [asdict(one) for one in self.gathers]}
        own = (*PRICED_MODES, "area")
        return plain | {name: None if plain[name] is None else plain[name].to_dict() for name in own}

    def to_frame(self) -> DataFrame:
        """Return the bills of all modes as a DataFrame, see Cost.to_frame; needs pandas."""
        bills = {mode: cost.to_frame() for mode, cost in self.modes.items()}
        rows = [{"mode": mode, **row} for mode, bill in bills.items() for row in bill.to_dict("records")]
        return frame(rows)

    def _view(self) -> View:
        names = ("cycles", "utilisation", "latency_s", "energy_j", "energy_low_j", "energy_high_j", "flagged_outputs")
        modes = [
            {"mode": MODE_LABELS[mode], **{name: getattr(cost, name) for name in names},
             "accumulation_cost": self.accumulation_cost[mode]}
            for mode, cost in self.modes.items()
        ]  # fmt: skip
        parts = dict.fromkeys(part for cost in self.modes.values() for part in cost.energy_parts_j)
        energy = [
            {"part": part, **{f"energy_j_{mode}": cost.energy_parts_j.get(part) for mode, cost in self.modes.items()}}
            for part in parts
        ]
        gemm = self.gemm
        times = f"{gemm.gemms} times " if gemm.gemms > 1 else ""
        facts = ["The energies are estimates; by the bands of their sources they lie between those of from and to."]
        if self.break_even_flagged is not None:
            facts.append(f"Two passes break even with one at {100 * self.break_even_flagged:.1f} % of outputs flagged.")
        tables = [Table("Modes side by side", modes), Table("Energy by part", energy)]
        return View(f"{times}{gemm.m} x {gemm.n} x {gemm.k} on {self.hardware}", facts, tables)


def estimate(
    hw: Machine | str | os.PathLike[str],
    gemm: tuple[int, int, int] | Gemm,
    flagged: float | Sequence[float] = 0.0,
    zeros: float | None = None,
    fidelity: str = "analytic",
) -> Estimate:
    """Price an operation in every mode of a machine, with flags taken as independent.

    Args:
        hw: a machine, the path of its file, or the name of a bundled one. gemm: (M, N, K).
        flagged: fraction in 0..1, of a ladder for each pass after the first, or one for all of them.
        zeros: for a machine with zero gating, the fraction of MACs with a zero operand, 0..1; None: all work.
        fidelity: of the three costs, as price takes it; the gathers side by side are analytic.
    Raises:
        InputError: bad machine, shape or fraction.
    """
    machine = hw if isinstance(hw, Machine) else load_hardware(hw)
    if not isinstance(gemm, Gemm):
        if not isinstance(gemm, tuple | list) or len(gemm) != 3:
            raise InputError(f"gemm: got {gemm!r}; expected three whole numbers (M, N, K); give e.g. (64, 64, 64)")
        gemm = Gemm(*gemm)
    given = None if zeros is None else float(zeros)
    two_pass = None if machine.policy is None else price(machine, gemm, "two_pass", flagged, given, fidelity)
    outputs = gemm.gemms * gemm.m * gemm.n
    shares = () if two_pass is None else tuple(flags / outputs for flags in two_pass.flagged_by_pass)
    return Estimate(
        hardware=machine.name,
        gemm=gemm,
        flagged=flagged,
        low=price(machine, gemm, "low", None, given, fidelity),
        high=None if machine.mac.high is None else price(machine, gemm, "high", None, given, fidelity),
        two_pass=two_pass,
        accumulation_cost=accumulation_cost(machine, shares),
        break_even_flagged=None
        if two_pass is None or machine.mac.middle
        else common_break_even(*energy_balance(machine, gemm)),
        area=known_area(machine),
        machine=machine,
        zeros=given,
    )


def accumulation_cost(machine: Machine, shares: float | Sequence[float]) -> dict[str, float | None]:
    """Return C/C_high of equation (10): a(1 + e) + rho_MAC + sigma for two_pass, a for low, 1 for high.

    a is the ratio of accumulator widths in bits, low over high; e what the score accumulates beside the first pass, see
    relative_extra. The cost of scoring an output is far below a MAC, sigma = 0. Of a ladder the sum of a_k q_k over the
    passes after the first is in place of rho_MAC, with the ratio a_k of the mode and its share q_k.

    Args:
        machine: the accelerator. shares: rho_MAC, MACs of flagged outputs over all MACs of the first pass; of a ladder
            those that each pass after the first computed.
    Returns:
        By mode; with one MAC that MAC is the measure (low: 1) and the others are None.
    Source: arXiv 2503.15568 for the policy.
    """
    high = machine.mac.high
    if high is None:
        return {"low": 1.0, "high": None, "two_pass": None}
    a = machine.mac.low.accumulator_bits / high.accumulator_bits
    two_pass = None
    if machine.policy is not None:
        shares = shares if isinstance(shares, Sequence) else (shares,)
        further = zip(machine.mac.further, shares, strict=True)
        again = sum(mode.accumulator_bits / high.accumulator_bits * share for mode, share in further)
        two_pass = a * (1 + relative_extra(machine)) + again
    return {"low": a, "high": 1.0, "two_pass": two_pass}
