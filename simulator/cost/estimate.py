"""What an operation would cost in each mode, without values; break-even of the two-pass policy."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, fields
from typing import Any

from simulator.errors import InputError
from simulator.hardware import Machine, load_hardware

from .area import Area, known_area
from .bill import compare_energy, mode_energy
from .gemm import Gemm
from .price import MODES, Cost, price


@dataclass(frozen=True)
class Estimate:
    """The three modes of one operation side by side.

    Args:
        hardware: name of the machine. gemm: the operation. flagged: fraction of outputs flagged.
        low, high, two_pass: costs; None for a mode that the machine lacks.
        accumulation_cost: by mode, see `accumulation_cost`.
        break_even_flagged: fraction of flags at which the MACs of two passes cost the energy of one in the high mode,
            memory not counted (estimate); None without a two-pass policy.
        area: of the machine; None where a format of its MACs has no circuits in the model.
    """

    hardware: str
    gemm: Gemm
    flagged: float
    low: Cost
    high: Cost | None
    two_pass: Cost | None
    accumulation_cost: dict[str, float | None]
    break_even_flagged: float | None
    area: Area | None

    @property
    def modes(self) -> dict[str, Cost]:
        """Costs by mode, of those that the machine has."""
        of_all = {"low": self.low, "high": self.high, "two_pass": self.two_pass}
        return {mode: cost for mode, cost in of_all.items() if cost is not None}

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain dicts, lists and numbers."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)} | {"gemm": asdict(self.gemm)}
        own = (*MODES, "area")
        return plain | {name: None if plain[name] is None else plain[name].to_dict() for name in own}


def estimate(
    hw: Machine | str | os.PathLike[str],
    gemm: tuple[int, int, int] | Gemm,
    flagged: float = 0.0,
    zeros: float | None = None,
) -> Estimate:
    """Price an operation in every mode of a machine, with flags taken as independent.

    Args:
        hw: a machine, the path of its file, or the name of a bundled one. gemm: (M, N, K). flagged: fraction in 0..1.
        zeros: for a machine with zero gating, the fraction of MACs with a zero operand, 0..1; None: all work.
    Raises:
        InputError: bad machine, shape or fraction.
    """
    machine = hw if isinstance(hw, Machine) else load_hardware(hw)
    if not isinstance(gemm, Gemm):
        if not isinstance(gemm, tuple | list) or len(gemm) != 3:
            raise InputError(f"gemm: got {gemm!r}; expected three whole numbers (M, N, K); give e.g. (64, 64, 64)")
        gemm = Gemm(*gemm)
    given = None if zeros is None else float(zeros)
    two_pass = None if machine.policy is None else price(machine, gemm, "two_pass", flagged, given)
    share = 0.0 if two_pass is None else two_pass.flagged_outputs / (gemm.gemms * gemm.m * gemm.n)
    return Estimate(
        hardware=machine.name,
        gemm=gemm,
        flagged=flagged,
        low=price(machine, gemm, "low", zeros=given),
        high=None if machine.mac.high is None else price(machine, gemm, "high", zeros=given),
        two_pass=two_pass,
        accumulation_cost=accumulation_cost(machine, share),
        break_even_flagged=None if machine.policy is None else _break_even(machine, gemm),
        area=known_area(machine),
    )


def accumulation_cost(machine: Machine, recomputed_share: float) -> dict[str, float | None]:
    """Return C/C_high of equation (10): a(1 + e) + rho_MAC + sigma for two_pass, a for low, 1 for high.

    a is the ratio of accumulator widths in bits, low over high. kappa_prime is computed beside the output, so e = 0,
    and its cost per output is far below a MAC, sigma = 0.

    Args:
        machine: the accelerator. recomputed_share: rho_MAC, MACs of flagged outputs over all MACs of the first pass.
    Returns:
        By mode; with one MAC that MAC is the measure (low: 1) and the others are None.
    Source: arXiv 2503.15568 for the policy.
    """
    high = machine.mac.high
    if high is None:
        return {"low": 1.0, "high": None, "two_pass": None}
    a = machine.mac.low.accumulator_bits / high.accumulator_bits
    return {"low": a, "high": 1.0, "two_pass": None if machine.policy is None else a + recomputed_share}


def waste_factor(flagged: float, group: int) -> float:
    """Return gamma, outputs recomputed over outputs flagged, for independent flags recomputed in groups of `group`."""
    return (
        -math.expm1(group * math.log1p(-flagged)) / flagged
        if 0.0 < flagged < 1.0
        else (group if flagged == 0.0 else 1.0)
    )


def break_even(low_j: float, side_j: float, high_j: float, group: int = 1) -> float:
    """Return the fraction of independent flags at which two passes cost as much as one in the high mode.

    Args:
        low_j, side_j, high_j: energy per MAC of the first pass, of its scoring, of the high mode.
        group: outputs recomputed together.
    Returns:
        f with gamma(f) * f = x, x = 1 - (low + side)/high; 0 where the first pass alone costs more.
    """
    x = 1.0 - (low_j + side_j) / high_j
    return 1.0 - (1.0 - x) ** (1.0 / group) if x > 0.0 else 0.0


def _break_even(machine: Machine, gemm: Gemm) -> float:
    policy, high, array = machine.policy, machine.mac.high, machine.array
    assert policy is not None and high is not None
    group = {"element": 1, "row": gemm.n, "coltile": array.columns, "tile": array.rows * array.columns}[policy.gather]
    low_j = mode_energy(machine, machine.mac.low).mac_j
    high_j = mode_energy(machine, high, on_engine=machine.side_engine is not None).mac_j
    side_j = compare_energy(machine).value / gemm.k
    return break_even(low_j, side_j, high_j, group) if high_j else 0.0
