"""What a search is for: numbers of a record to make large or small, and bounds that they must keep."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from numbers import Integral
from typing import Any, NamedTuple

from simulator.errors import InputError, unknown
from simulator.hardware.quantities import describe
from simulator.report.names import constraint, name_of, parted
from simulator.result import FLOAT32, MODES, PRICED_MODES

from .grid import is_number

DIRECTIONS = ("max", "min")
_HOW = {"max": "largest", "min": "smallest"}


class Objective(NamedTuple):
    """A number that a search may be for.

    Args:
        direction: the better one. unit: "share" of 1; empty for another pure number.
        within: the part of a record that has it, by name and mode; empty for one that has it by mode itself.
        of_bills: whether points that are only priced have it too. of_labels: whether it needs labels that are classes.
        modes: in which it is known.
    """

    direction: str
    unit: str = ""
    within: str = ""
    of_bills: bool = False
    of_labels: bool = False
    modes: tuple[str, ...] = MODES


_AREA = "area_mm2"  # of the machine, the same in all modes
_OF_METRICS = (FLOAT32, *MODES)
OBJECTIVES: Mapping[str, Objective] = {
    "accuracy": Objective("max", "share", of_labels=True),
    "agreement": Objective("max", "share"),
    "forward_error": Objective("min"),
    **dict.fromkeys(("top1", "top5"), Objective("max", "share", "metrics", of_labels=True, modes=_OF_METRICS)),
    "cosine": Objective("max", within="metrics", modes=_OF_METRICS),
    "sqnr_db": Objective("max", "dB", "metrics", modes=(FLOAT32, *PRICED_MODES)),  # that of the exact run is infinite
    "kl": Objective("min", "nats", "metrics", modes=_OF_METRICS),
    "mse": Objective("min", within="metrics", modes=_OF_METRICS),
    "perplexity": Objective("min", within="metrics", of_labels=True, modes=_OF_METRICS),
    "cycles": Objective("min", "cycles", "totals", True, modes=PRICED_MODES),
    "latency_s": Objective("min", "s", "totals", True, modes=PRICED_MODES),
    "energy_j": Objective("min", "J", "totals", True, modes=PRICED_MODES),
    "accumulation_cost": Objective("min", within="totals", modes=PRICED_MODES),
    _AREA: Objective("min", "mm²", of_bills=True, modes=()),
}


def own_mode(record: Mapping[str, Any]) -> str:
    """Return the mode of a point's own machine: two passes if it has them, or else the low one."""
    parts = (record.get(name) or {} for name in ("totals", "agreement"))
    return "two_pass" if any(part.get("two_pass") is not None for part in parts) else "low"


def objective(name: str) -> Objective:
    """Return what is known of NAME, or of NAME_MODE.

    Raises:
        InputError: nothing is.
    """
    stem, mode = parted(name)
    known = OBJECTIVES.get(stem)
    if known is None:
        near = difflib.get_close_matches(stem, [one for one in OBJECTIVES if one != stem], n=1)
        meant = "" if not near else f'; did you mean "{near[0] if mode is None else f"{near[0]}_{mode}"}"?'
        raise InputError(
            f"search: {name}: unknown number; expected one of {', '.join(OBJECTIVES)}, or one of these with a mode "
            f"behind it, as in energy_j_high{meant or '; take one'}"
        )
    if mode not in (None, *known.modes):
        others = f", alone or with one of {', '.join(known.modes)} behind it" if known.modes else " alone"
        raise InputError(f"search: {name}: unknown in this mode; expected {stem}{others}; take one")
    return known


def value(record: Mapping[str, Any], name: str) -> float | None:
    """Return the number that NAME or NAME_MODE names in a record; None where it has none that is finite."""
    stem, mode = parted(name)
    known, found = OBJECTIVES[stem], None
    mode = mode or own_mode(record)
    if stem == _AREA:
        um2 = record.get("area_um2")
        found = None if um2 is None else um2 * 1e-6
    elif known.within == "totals":
        found = ((record.get("totals") or {}).get(mode) or {}).get(stem)
    else:
        parts = record.get(known.within) or {} if known.within else record
        found = (parts.get(stem) or {}).get(mode)
    return float(found) if found is not None and math.isfinite(found) else None


@dataclass(frozen=True)
class Goal:
    """What a search is for.

    Args:
        objectives: names, each with max or min; a list takes the better direction of each.
        constraints: names, each with an interval {from, to}, ends included, either of which may be left out.
        points: how many are chosen; None: a quarter of the grid.
        seed: of the choice. at_once: how many are chosen before the results of the first of them are looked at, which
            no number of workers changes; more workers than that are of no use.
    Raises:
        InputError: a value that one of these cannot have.
    """

    objectives: Mapping[str, str]
    constraints: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    points: int | None = None
    seed: int = 0
    at_once: int = 8

    def __post_init__(self) -> None:
        given: Any = self.objectives
        if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
            twice = next((name for i, name in enumerate(given) if name in given[:i]), None)
            if twice is not None:
                raise InputError(f"search: objectives: got {twice} twice; expected each name once; remove one")
            given = {name: objective(name).direction for name in given}
            object.__setattr__(self, "objectives", given)
        if not isinstance(given, Mapping) or not given:
            raise InputError(
                f"search: objectives: got {describe(given)}; expected names, at least one; write e.g. "
                "{accuracy: max, energy_j: min}"
            )
        for name, direction in given.items():
            objective(str(name))
            if direction not in DIRECTIONS:
                raise InputError(
                    f"search: objectives: {name}: got {describe(direction)}; expected max or min; write one"
                )
        if not isinstance(self.constraints, Mapping):
            raise _no_interval("", self.constraints)
        intervals = {name: _interval(str(name), given) for name, given in self.constraints.items()}
        object.__setattr__(self, "constraints", intervals)
        for name, least in (("points", 1), ("seed", 0), ("at_once", 1)):
            count: Any = getattr(self, name)
            if count is None and name == "points":
                continue
            if isinstance(count, bool) or not isinstance(count, Integral) or not least <= int(count) < 1 << 32:
                raise InputError(
                    f"search: {name}: got {describe(count)}; expected a whole number from {least} to 2**32 - 1; write "
                    "e.g. 100"
                )
            object.__setattr__(self, name, int(count))

    @property
    def names(self) -> tuple[str, ...]:
        """All numbers that are looked at: the objectives first."""
        return tuple(dict.fromkeys((*self.objectives, *self.constraints)))

    def values(self, record: Mapping[str, Any]) -> dict[str, float] | None:
        """Return the numbers of a record by name; None if it lacks one."""
        found = {name: value(record, name) for name in self.names}
        known = {name: number for name, number in found.items() if number is not None}
        return known if len(known) == len(found) else None

    def lacks(self, record: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the numbers that a record lacks."""
        return tuple(name for name in self.names if value(record, name) is None)

    def losses(self, values: Mapping[str, float]) -> list[float]:
        """Return the objectives, turned so that less is better."""
        return [-values[name] if way == "max" else values[name] for name, way in self.objectives.items()]

    def excesses(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return by name by how much each constraint is broken: 0 where it is kept."""
        return {
            name: max(0.0, interval.get("from", -math.inf) - values[name], values[name] - interval.get("to", math.inf))
            for name, interval in self.constraints.items()
        }

    def broken(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return of the constraints that are broken by how much, in shares of the bound that is."""
        shares = {}
        for name, excess in self.excesses(values).items():
            if excess:
                interval = self.constraints[name]
                end = interval["from"] if values[name] < interval.get("from", -math.inf) else interval["to"]
                shares[name] = excess / (abs(end) or 1.0)
        return shares

    @property
    def sought(self) -> str:
        """The objectives in words."""
        return ", ".join(f"{_HOW[way]} {name_of(name)}" for name, way in self.objectives.items())

    @property
    def bounds(self) -> str:
        """The constraints in words; empty where there are none."""
        of = self.constraints.items()
        return " and ".join(constraint(name, objective(name).unit, interval) for name, interval in of)

    def check_priced(self) -> None:
        """Refuse objectives and constraints that points which are only priced do not have."""
        for name in self.names:
            if not objective(name).of_bills:
                known = ", ".join(name for name, one in OBJECTIVES.items() if one.of_bills)
                raise InputError(
                    f"search: {name}: is not known where points are only priced; expected of these only {known}; "
                    "remove it, or remove cost"
                )

    def check_unlabelled(self, source: str) -> None:
        """Refuse objectives and constraints that samples from a source without labels do not have."""
        for name in self.names:
            if objective(name).of_labels:
                raise InputError(
                    f"search: {name}: needs labels, classes in whole numbers, which {source} does not have; expected "
                    "labels, or another name such as agreement or forward_error; give samples with labels, or take one"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the goal as plain data."""
        return asdict(self)


def goal_of(goal: Goal | None, **given: Any) -> Goal:
    """Return the goal that the arguments of search make, of which None is as left out.

    Raises:
        InputError: an argument beside a goal, which says all; a value that a goal cannot have.
    """
    said = {key: value for key, value in given.items() if value is not None}
    if goal is not None and not isinstance(goal, Goal):
        raise InputError(
            f"search: goal: got {describe(goal)}; expected a Goal; make one, or give objectives and constraints"
        )
    if goal is None:
        try:
            return Goal(**{"objectives": (), **said})
        except InputError as error:  # seed is that of the runs, for a caller
            raise InputError(str(error).replace("search: seed:", "search: search_seed:", 1)) from None
    if said:
        raise InputError(
            f"search: {next(iter(said))}: given beside goal, which says all; expected one of the two; remove one"
        )
    return goal


def _in_units(name: str) -> str:
    unit = objective(name).unit
    return {"": "", "share": " from 0 to 1"}.get(unit, f" in {unit}")


def _interval(name: str, given: Any) -> dict[str, float]:
    """Return the interval of a constraint.

    Raises:
        InputError: it is none, or nothing is known by the name.
    """
    objective(name)
    if not isinstance(given, Mapping) or not given:
        raise _no_interval(f" {name}:", given)
    at = f"search: constraints: {name}:"
    other = next((str(end) for end in given if end not in ("from", "to")), None)
    if other is not None:
        raise InputError(f"{at} {other}: unknown key; {unknown(other, ('from', 'to'))}")
    for end, number in given.items():
        beyond = objective(name).unit == "share" and is_number(number) and not 0 <= number <= 1
        if not is_number(number) or not math.isfinite(number) or beyond:
            raise InputError(
                f"{at} {end}: got {describe(number)}; expected a finite number{_in_units(name)}; write one, or leave "
                f"{end} out"
            )
    if given.get("from", -math.inf) > given.get("to", math.inf):
        raise InputError(f"{at} got from {given['from']:g} to {given['to']:g}; expected from below to; exchange them")
    return {end: number if isinstance(number, int) else float(number) for end, number in given.items()}


def _no_interval(at: str, given: Any) -> InputError:
    return InputError(
        f"search: constraints:{at} got {describe(given)}; expected an interval for each name; write e.g. "
        "{area_mm2: {to: 5}, accuracy: {from: 0.9}}"
    )
