"""Scores and how much they recompute, side by side: what two-pass accumulation makes of a network.

Each score at each tolerance or budget is a point: forward errors of the logits and of every layer against exact
accumulation, recomputed shares, costs, accuracy. Beside it stand two controls that recompute as much of each layer:
outputs at random, with several seeds, and the largest ones; and a static plan of the same cost, chosen by the same
score on the samples that calibrate. All points are those of sweeps in one store, so that a study that was killed goes
on from there. Source of the rule and of its cost: arXiv 2503.15568.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import math
import os
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from simulator.errors import InputError
from simulator.explore import Plan, Point, sweep
from simulator.explore.cluster import Cluster
from simulator.explore.work import Inputs, Loaded, load
from simulator.hardware import Machine, load_hardware
from simulator.hardware.load import read_machine
from simulator.hardware.scores import fitting_metrics, score_names
from simulator.hardware.template import Template
from simulator.progress import Progress
from simulator.report.directories import write_file

from .directory import check_study_directory
from .intervals import wilson

_OF_GRADIENTS = "sensitivity"
SCORES = ("kappa_prime", "norm2", _OF_GRADIENTS)
BUDGETS = (0.05, 0.1, 0.2)
CONTROLS = ("random", "largest")
STATIC = "static"
# Samples that calibrate, if nothing says how many.
CALIBRATION = 128
# Samples along which condition numbers are looked at.
_CONDITION_SAMPLES = 64
_NO_GRADIENT = (
    "no gradient of the network's outputs comes back to a layer, as through rounding, argmax or detach, so that no "
    "layer has a sensitivity"
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Level:
    """How much is recomputed.

    Args:
        tolerance: what is above it is recomputed. budget: at most this share, the largest scores first; None for all.
        over: what the budget is a share of, network (of its MACs) or layer (of its outputs).
    """

    tolerance: float
    budget: float | None = None
    over: str = "layer"


@dataclass(frozen=True)
class TwoPassStudy:
    """What a study found.

    Args:
        hardware, model: names. samples: how many ran. calibration: how many others calibrated scores and budgets.
        baselines: rows of the uniform modes, by mode.
        points: a row for each score and level, see `row_of`; of controls `control_of` names the score whose shares of
            each layer they recompute, of a static plan the score that chose its columns, for the same cost.
        conditions: condition numbers by layer, see network.condition_numbers.
        computed: how many points this call computed. warnings: what the reader must know. by: tolerance or budget.
    """

    hardware: str
    model: str
    samples: int
    calibration: int
    baselines: Mapping[str, Row]
    points: Sequence[Row]
    conditions: Sequence[Row]
    computed: int
    warnings: Sequence[str]
    by: str

    def to_dict(self) -> dict[str, Any]:
        """Return the study as plain data."""
        return {"study": "two-pass", **asdict(self)}

    def control(self, point: Row, name: str) -> list[Row]:
        """Return the rows of a control of a point, one for each seed."""
        return [
            row for row in self.points
            if row["score"] == name and row["control_of"] == point["score"]
            and (row["tolerance"], row["budget"]) == (point["tolerance"], point["budget"])
        ]  # fmt: skip

    @property
    def own(self) -> list[Row]:
        """The rows that are no controls."""
        return [row for row in self.points if row["control_of"] is None]


def two_pass_study(
    hw: str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    scores: Sequence[str] | None = None,
    tolerances: Sequence[float] | None = None,
    budgets: Sequence[float] | None = None,
    over: str = "network",
    model: str = "mlp",
    weights: str | None = None,
    allow_code: bool = False,
    data: str | None = None,
    samples: int | None = None,
    calibration: int | None = None,
    seeds: int = 3,
    controls: bool = True,
    static: bool = True,
    workers: int | None = None,
    scheduler: str | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> TwoPassStudy:
    """Run a network with each score at each tolerance or budget, and with controls that recompute as much.

    Args:
        hw: machine file or bundled name, with two MACs. out: directory of the store.
        scores: names, as policy.score takes them; None: SCORES, without sensitivity, and with a warning that says so,
            where no gradient of the outputs reaches a layer, as behind the roundings of a quantised network.
        tolerances, or budgets: one of the two; budgets of BUDGETS and everything that a score can flag if both are left
            out. over: what budgets are a share of, network or layer.
        model, weights, allow_code, data: as the main job takes them. calibration: so many samples, from the first,
            calibrate scores and budgets and do not run; None: CALIBRATION, or half of all if that is less.
            samples: how many of those behind them run; None for all.
        seeds: of the control random, from 0. controls, static: whether to run them, and static plans.
        workers, scheduler, threads, progress: as for explore.sweep.
    Raises:
        InputError: what cannot be run. MissingLibraryError: torch or dask is not installed.
    """
    machine = load_hardware(hw)
    if machine.policy is None or machine.mac.high is None:
        raise InputError(
            f"study: {machine.name} runs in one pass; expected a machine with mac.high and a policy; give another"
        )
    if machine.mac.middle:
        raise InputError(
            f"study: {machine.name} has mac.middle, whose passes have no controls that compute as much; expected low "
            "and high; leave it out"
        )
    known = [name for name in score_names() if name not in CONTROLS]
    for score in scores or ():
        if score not in known:
            raise InputError(f"study: scores: got {score!r}; expected some of {', '.join(known)}; correct it")
    levels = list(dict.fromkeys(_levels(tolerances, budgets, over)))
    for name, number in (("scores", 1 if scores is None else len(scores)), ("seeds", seeds)):
        if number < 1:
            raise InputError(f"study: {name}: got {number or 'none'}; expected at least one; give some")
    in_file = read_machine(hw).document.data.get("layers") or {}
    own_rules = {
        pattern: {"mac": rule} if isinstance(rule, str) else {key: of for key, of in rule.items() if key != "policy"}
        for pattern, rule in in_file.items()
    }
    cluster = {"workers": workers, "scheduler": scheduler, "threads": threads}
    # Refused before anything runs.
    Cluster(**cluster)  # type: ignore[arg-type]
    check_study_directory(out, "two-pass")
    if calibration is None:
        calibration = _calibration(Inputs(model, weights, data, allow_code=allow_code))
    inputs = Inputs(model, weights, data, samples, 0, calibration, allow_code)
    Plan("two-pass", os.fspath(hw), {"seed": [0]}, inputs)  # which says what is wrong with them
    asked, left_out = list(dict.fromkeys(SCORES if scores is None else scores)), []
    if _OF_GRADIENTS in asked and not _has_gradients(load(inputs)):
        if scores is not None:
            raise InputError(f"study: scores: got {_OF_GRADIENTS}, and {_NO_GRADIENT}; expected others; leave it out")
        asked.remove(_OF_GRADIENTS)
        left_out.append(f"the score {_OF_GRADIENTS} is left out: {_NO_GRADIENT}")

    def run(name: str, wanted: list[_Wanted]) -> tuple[list[Point], int]:
        points_of = [{**one.changes(machine, own_rules), "seed": one.seed} for one in wanted]
        rows = [list(changes.values()) for changes in points_of]
        plan = Plan(name, os.fspath(hw), {", ".join(points_of[0]): rows}, inputs)
        found = sweep(plan=plan, out=out, progress=progress, **cluster)  # type: ignore[arg-type]
        points = [point for _, point in found.points if point is not None and point.record is not None]
        if len(points) < len(wanted):
            place, point = next((p, q) for p, q in found.first(len(wanted)) if q is None or q.record is None)
            raise InputError(f"study: a point failed: {place.error if point is None else point.error}")
        return points, found.computed

    wanted = [_Wanted(score, level) for score in asked for level in levels]
    points, computed = run("two-pass", wanted)
    rows = [one.row(point) for one, point in zip(wanted, points, strict=True)]
    if controls:
        again = [control for one, point in zip(wanted, points, strict=True)
                 for control in _controls(one, _record(point), own_rules, seeds)]  # fmt: skip
        own, more = run("two-pass controls", again)
        rows += [one.row(point) for one, point in zip(again, own, strict=True)]
        computed += more
    if static:
        template = Template(hw)
        records = [_record(point) for point in points]
        costs = [(one, record["totals"], template.machine(one.changes(machine, own_rules))) for one, record in
                 zip(wanted, records, strict=True)]  # fmt: skip
        plans = _plans(costs, inputs, Path(out) / "plans")
        if plans:
            own, more = run("two-pass static", plans)
            rows += [one.row(point) for one, point in zip(plans, own, strict=True)]
            computed += more
    first = _record(points[0])
    return TwoPassStudy(
        machine.name, model, first["samples"], calibration, _baselines(first), rows, _conditions(inputs, machine),
        computed,
        (*left_out, *_warnings(machine, in_file), *dict.fromkeys(w for p in points for w in _record(p)["warnings"])),
        "budget" if tolerances is None else "tolerance",
    )  # fmt: skip


def _warnings(machine: Machine, rules: Mapping[str, Any]) -> list[str]:
    """Return what of a machine's file a study does not take."""
    found = []
    if machine.policy is not None and machine.policy.sign_safe is not None:
        found.append("policy.sign_safe is left out: scores are compared without it")
    own = [name for name, rule in rules.items() if isinstance(rule, dict) and "policy" in rule]
    if own:
        found.append(f"layers: {', '.join(own)}: their own policy is left out: all layers have the score and the level")
    return found


def _levels(tolerances: Sequence[float] | None, budgets: Sequence[float] | None, over: str) -> list[Level]:
    if tolerances is not None and budgets is not None:
        raise InputError("study: tolerances, budgets: got both; expected one of the two; leave one out")
    if over not in ("network", "layer"):
        raise InputError(f"study: over: got {over!r}; expected network or layer; choose one")
    if tolerances is not None:
        bad = [value for value in tolerances if not value >= 0]
        levels = [Level(tolerance) for tolerance in tolerances]
    else:
        budgets = BUDGETS if budgets is None else budgets
        bad = [value for value in budgets if not 0 <= value <= 1]
        levels = [*(Level(0.0, budget, over) for budget in budgets), Level(0.0)]
    if bad or not levels:
        name, ends = ("budgets", "0 to 1") if tolerances is None else ("tolerances", "0")
        found = f"{bad[0]:g}" if bad else "none"
        raise InputError(f"study: {name}: got {found}; expected numbers from {ends}; give e.g. 0.1")
    return levels


@dataclass(frozen=True)
class _Wanted:
    """A point to run. A control has the rules of layers with the shares that it recomputes, a static plan its file."""

    score: str
    level: Level
    control_of: str | None = None
    seed: int = 0
    layers: Mapping[str, Any] | None = None
    plan: str | None = None

    def changes(self, machine: Machine, own_rules: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a point changes in the machine's file, which has these rules of layers, by dotted key."""
        assert machine.policy is not None
        metrics, own = fitting_metrics(self.score), machine.policy.side_metric
        usual = "second_pass" if "second_pass" in metrics else metrics[0]
        budget = None if self.layers is not None or self.plan is not None else self.level.budget
        return {
            "policy.score": self.score,
            "policy.side_metric": own if own in metrics else usual,
            "policy.side_format": None if own not in metrics or own != "abs_sum" else str(machine.policy.side_format),
            "policy.tolerance": 0.0 if self.layers is not None else self.level.tolerance,
            "policy.budget": budget,
            "policy.budget_over": "layer" if budget is None else self.level.over,
            "policy.sign_safe": None,
            "policy.plan": self.plan,
            "layers": dict(own_rules) if self.layers is None else self.layers,
        }

    def row(self, point: Point) -> Row:
        """Return what a point found."""
        record = _record(point)
        own = {"score": self.score, "control_of": self.control_of, "seed": self.seed, **asdict(self.level)}
        if self.plan is None:
            return {**own, **row_of(record, "two_pass"), "key": point.key}
        share = _static_share(record["totals"])
        high: Row = {"recomputed_outputs_fraction": None, "recomputed_macs_fraction": share, "layers": []}
        return {**own, "score": STATIC, **row_of(record, "two_pass"), **high, "key": point.key}


def _record(point: Point) -> Mapping[str, Any]:
    assert point.record is not None
    return point.record


def row_of(record: Mapping[str, Any], mode: str) -> Row:
    """Return what a record says of a mode.

    Its keys: recomputed_outputs_fraction, recomputed_macs_fraction (of all layers); logit_error_rms against exact
    accumulation with logit_error_interval (95 %, statistical); accuracy with accuracy_interval (95 %, Wilson), None
    without labels; changed_decisions, the share of top-1 answers that differ from those of exact accumulation;
    accumulation_cost, as a multiple of the high mode, and accumulation_cost_vs_low; energy_j, cycles; saturated
    outputs of the first pass; layers.
    """
    layers = record["layers"] if mode == "two_pass" else record["baseline_layers"][mode]
    totals, outputs = record["totals"], [layer["gemms"] * layer["m"] * layer["n"] for layer in layers]
    accuracy = None if record["accuracy"] is None else record["accuracy"][mode]
    agreement = record["agreement"][mode]
    cost = totals[mode]["accumulation_cost"] if totals[mode] else None
    low = totals["low"]["accumulation_cost"] if totals["low"] else None
    return {
        "recomputed_outputs_fraction": sum(layer["recomputed_outputs"] for layer in layers) / max(1, sum(outputs)),
        "recomputed_macs_fraction": sum(layer["recomputed_macs"] for layer in layers)
        / max(1, sum(layer["macs"] for layer in layers)),
        "logit_error_rms": record["forward_error"][mode],
        "logit_error_interval": record["forward_error_interval"][mode],
        "accuracy": accuracy,
        "accuracy_interval": None if accuracy is None else wilson(accuracy, record["samples"]),
        "changed_decisions": None if agreement is None else 1.0 - agreement,
        "accumulation_cost": cost,
        "accumulation_cost_vs_low": cost / low if cost is not None and low else None,
        "energy_j": totals[mode]["energy_j"] if totals[mode] else None,
        "cycles": totals[mode]["cycles"] if totals[mode] else None,
        "saturated_outputs": sum(layer["overflows"] for layer in layers),
        "layers": [
            {
                "name": layer["name"],
                "recomputed_fraction": layer["recomputed_outputs"] / max(1, count),
                **{name: layer[name] for name in ("rms_error", "median_rel_error", "mean_rel_error", "sqnr_db")},
            }
            for layer, count in zip(layers, outputs, strict=True)
        ],
    }


def _baselines(record: Mapping[str, Any]) -> dict[str, Row]:
    found = {mode: row_of(record, mode) for mode in ("low", "high")}
    exact = {"accuracy": None if record["accuracy"] is None else record["accuracy"]["exact"]}
    return {**found, "exact": exact}


def _controls(of: _Wanted, record: Mapping[str, Any], own_rules: Mapping[str, Any], seeds: int) -> Iterator[_Wanted]:
    """Yield the controls of a point: they recompute the shares that it did, of each layer."""
    shares: dict[str, float] = {}
    for layer in record["layers"]:
        if layer["phase"] == "forward" and layer["waste_factor"] is not None:  # it ran in two passes
            shares[layer["name"]] = layer["recomputed_outputs"] / max(1, layer["gemms"] * layer["m"] * layer["n"])
    rules: dict[str, Any] = {}
    for name, share in shares.items():
        fitting: Any = next((rule for pattern, rule in own_rules.items() if fnmatch.fnmatchcase(name, pattern)), {})
        rules[glob.escape(name)] = {**fitting, "policy": {"tolerance": 0.0, "budget": share}}
    rules |= {pattern: rule for pattern, rule in own_rules.items() if pattern not in rules}
    for seed in range(seeds):
        yield _Wanted("random", of.level, of.score, seed, rules)
    yield _Wanted("largest", of.level, of.score, 0, rules)


def _static_share(totals: Mapping[str, Any]) -> float | None:
    """Return which share of MACs a static plan has in the high mode that costs as much; None if there is none."""
    if None in (totals["low"], totals["two_pass"]):
        return None
    low, cost = (totals[mode]["accumulation_cost"] for mode in ("low", "two_pass"))
    share: float = (cost - low) / (1 - low) if low < 1 else math.inf
    return share if share <= 1 + 1e-9 else None


def _plans(points: Sequence[tuple[_Wanted, Mapping[str, Any], Machine]], inputs: Inputs, folder: Path) -> list[_Wanted]:
    """Return the static plans that cost as much as points of two passes, and write their files, named by content.

    Args:
        points: with the totals of their records and their machines. inputs: whose samples for calibration choose.
    """
    from simulator.network.static_plan import static_plan

    loaded = load(inputs)
    assert loaded.calibration is not None
    args, kwargs = loaded.calibration.batch(slice(None))
    found = []
    for one, totals, machine in points:
        share = _static_share(totals)
        if share is None:
            continue
        rule: dict[str, Any] = {**kwargs, "budget": min(1.0, max(0.0, share))}
        plan = static_plan(loaded.model, machine, *args, **rule)
        text = plan.to_json()
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.resolve() / f"{one.score}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        write_file(path, text)
        found.append(replace(one, control_of=one.score, plan=str(path)))
    return found


def _calibration(inputs: Inputs) -> int:
    """Return how many samples calibrate if nothing says how many; whole batches of a network that takes fixed ones."""
    from simulator.network.batches import fixed_batch

    loaded = load(inputs)
    at_once = fixed_batch(loaded.model) or 1
    return max(1, min(CALIBRATION, loaded.samples.size // 2) // at_once) * at_once


def _has_gradients(loaded: Loaded) -> bool:
    """Return whether the network's outputs depend on those of its layers by gradients, on samples that calibrate."""
    from simulator.network.output_gradients import reaches_layers

    assert loaded.calibration is not None
    args, kwargs = loaded.calibration.batch(slice(None))
    return reaches_layers(loaded.model, args, kwargs)


def _conditions(inputs: Inputs, machine: Machine) -> list[Row]:
    from simulator.network.batches import fixed_batch
    from simulator.network.condition_numbers import condition_numbers

    loaded = load(inputs)
    at_once = fixed_batch(loaded.model) or 1
    some = slice(max(1, _CONDITION_SAMPLES // at_once) * at_once)
    return [asdict(one) for one in condition_numbers(loaded.model, machine, *loaded.samples.batch(some))]


def mean_of(rows: Sequence[Row], name: str) -> float | None:
    """Return the mean of a figure over rows, such as those of a control's seeds; None where one is not known."""
    values = [row[name] for row in rows]
    return statistics.fmean(values) if values and None not in values else None
