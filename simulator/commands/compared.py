"""What two machines make of one network, or what two saved runs are: each figure of both and their ratio."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from simulator.hardware import Machine
from simulator.report.comparison import flagged_share, layers_by_mode, shown_mode
from simulator.report.side_by_side import Pair, differences, pair
from simulator.result import PRICED_MODES, RunResult, in_mm2

_Value = TypeVar("_Value")

OWN = "own"  # the way a machine runs by its policy: two passes, or its one MAC


@dataclass(frozen=True)
class LayerPair:
    """A layer as each machine runs it.

    Args:
        name, title, phase, op, m, n, k, gemms: as in LayerResult. figures: by field of LayerResult, and flagged, the
            share of its MACs that are those of flagged outputs.
    """

    name: str
    title: str
    phase: str
    op: str
    m: int
    n: int
    k: int
    gemms: int
    figures: Mapping[str, Pair]


@dataclass(frozen=True)
class Difference:
    """A key whose values differ; None where a machine has no such key, or no value."""

    key: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Side:
    """What one of two runs is of.

    Args:
        hardware, model, samples, seed, fidelity, complete: as in RunResult.
    """

    hardware: str
    model: str
    samples: int
    seed: int
    fidelity: str
    complete: bool


@dataclass(frozen=True)
class Comparison:
    """Two machines, a and b, on the same samples of one network; or two runs that were saved.

    Args:
        a, b: names of the machines, or their files where the names are the same; of saved runs the ends of their
            directories' paths. model, samples, seed: of both runs, None where saved ones differ in it.
        runs: in which mode each runs by its policy: "low" or "two_pass".
        machines: peak_macs_per_s in the low and the high mode, and on_chip_bits, both of which saved runs do not tell;
            and area_mm2, an estimate between area_low_mm2 and area_high_mm2.
        modes: figures of the modes that one of them has, "own" being that of `runs`. Accuracy is against the labels;
            agreement and forward_error of each machine are against its own exact run. Energies are estimates, between
            energy_low_j and energy_high_j; macs are those of the first pass, flagged the share that a second repeats.
        layers: of the own mode. configuration: keys of the expanded files whose values differ.
        energy_basis, warnings: of a and of b. of: what each is a run of.
    """

    a: str
    b: str
    model: str | None
    samples: int | None
    seed: int | None
    runs: tuple[str, str]
    machines: Mapping[str, Pair]
    modes: Mapping[str, Mapping[str, Pair]]
    layers: tuple[LayerPair, ...]
    configuration: tuple[Difference, ...]
    energy_basis: tuple[str, str]
    warnings: tuple[tuple[str, ...], tuple[str, ...]]
    of: tuple[Side, Side]


COSTS = ("cycles", "latency_s", "energy_j", "energy_low_j", "energy_high_j")
OF_LAYER = (*COSTS, "utilisation", "roofline_cycles", "median_rel_error", "max_rel_error", "sqnr_db", "overflows")


def compared(machines: tuple[Machine, Machine], runs: tuple[RunResult, RunResult]) -> Comparison:
    """Return the comparison of two runs of one network on the same samples."""
    return _compared(names_of(machines), runs, _peaks(machines))


def compared_runs(saved: Mapping[str, RunResult]) -> Comparison:
    """Return the comparison of two saved runs, given by the names that it has for them."""
    (first, a), (second, b) = saved.items()
    return _compared((first, second), (a, b), {})


def _compared(names: tuple[str, str], runs: tuple[RunResult, RunResult], peaks: Mapping[str, Pair]) -> Comparison:
    a, b = runs
    own = shown_mode(a), shown_mode(b)
    modes = {OWN: _figures(runs, own)}
    modes |= {mode: _figures(runs, (mode, mode)) for mode in PRICED_MODES if any(one.totals.get(mode) for one in runs)}
    return Comparison(
        a=names[0], b=names[1], model=_same(a.model, b.model), samples=_same(a.samples, b.samples),
        seed=_same(a.seed, b.seed), runs=own, machines={**peaks, **_areas(runs)}, modes=modes, layers=_layers(runs),
        configuration=tuple(Difference(key, *values) for key, values in differences([a.machine, b.machine])),
        energy_basis=(a.energy_basis, b.energy_basis), warnings=(a.warnings, b.warnings),
        of=(_side(a), _side(b)),
    )  # fmt: skip


def _same(a: _Value, b: _Value) -> _Value | None:
    return a if a == b else None


def _side(run: RunResult) -> Side:
    return Side(run.hardware, run.model, run.samples, run.seed, run.fidelity, run.complete)


def names_of(machines: tuple[Machine, Machine]) -> tuple[str, str]:
    """Return the names of two machines, or their files where the names are the same."""
    a, b = machines
    return (a.name, b.name) if a.name != b.name else (a.source, b.source)


def _peaks(machines: tuple[Machine, Machine]) -> dict[str, Pair]:
    def peaks(mode: str) -> Pair:
        units = [getattr(one.mac, mode) for one in machines]
        a, b = (None if unit is None else one.peak_macs_per_s(unit) for one, unit in zip(machines, units, strict=True))
        return pair(a, b)

    memory = [None if one.memory is None else one.memory.on_chip_bits for one in machines]
    return {
        "peak_macs_per_s_low": peaks("low"),
        "peak_macs_per_s_high": peaks("high"),
        "on_chip_bits": pair(*memory),
    }


def _areas(runs: tuple[RunResult, RunResult]) -> dict[str, Pair]:
    um2 = {
        "area_mm2": [one.area_um2 for one in runs],
        "area_low_mm2": [one.area_low_um2 for one in runs],
        "area_high_mm2": [one.area_high_um2 for one in runs],
    }
    return {name: pair(*map(in_mm2, areas)) for name, areas in um2.items()}


def _figures(runs: tuple[RunResult, RunResult], modes: tuple[str, str]) -> dict[str, Pair]:
    """Return the figures of a mode of each run by name."""
    found = []
    for one, mode in zip(runs, modes, strict=True):
        totals = one.totals.get(mode) or {}
        scores = {"accuracy": (one.accuracy or {}).get(mode), "agreement": one.agreement.get(mode)}
        scores["forward_error"] = one.forward_error.get(mode)
        layers = layers_by_mode(one).get(mode, ())
        work = {
            "macs": sum(layer.macs for layer in layers) if layers else None,
            "flagged": flagged_share(layers) if mode == "two_pass" else None,
        }
        found.append(scores | {name: totals.get(name) for name in COSTS} | work)
    return {name: pair(found[0][name], found[1][name]) for name in found[0]}


def _layers(runs: tuple[RunResult, RunResult]) -> tuple[LayerPair, ...]:
    # Of saved runs, layers of one name may be of other shapes: these are rows of their own.
    a, b = ({(layer.title, layer.m, layer.n, layer.k): layer for layer in one.layers} for one in runs)
    pairs = []
    for at in dict.fromkeys((*a, *b)):
        of = a.get(at), b.get(at)
        one = of[0] or of[1]
        assert one is not None
        figures = {name: pair(*(None if layer is None else getattr(layer, name) for layer in of)) for name in OF_LAYER}
        figures["flagged"] = pair(*(None if layer is None else flagged_share([layer]) for layer in of))
        pairs.append(LayerPair(one.name, one.title, one.phase, one.op, one.m, one.n, one.k, one.gemms, figures))
    return tuple(pairs)
