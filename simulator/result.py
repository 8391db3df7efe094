"""Results: one record per layer and one per run, with units in the field names.

Every reporter, store and plot reads these and nothing else. Field names are part of the public surface: fields may be
added, never renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from .notebook import Bill, Shown, View

if TYPE_CHECKING:
    import pandas

PRICED_MODES = ("low", "high", "two_pass")  # in which a machine runs
MODES = ("exact", *PRICED_MODES)
FLOAT32 = "float32"  # the network as torch runs it, without a machine; of it there are metrics only
# What readers call the modes.
MODE_LABELS = {
    FLOAT32: "float32",
    "exact": "exact",
    "low": "uniform low",
    "high": "uniform high",
    "two_pass": "two-pass",
}
MAC_ARRAY, VECTOR_UNIT, MEMORY, TORCH = "MAC array", "vector unit", "memory", "torch"  # what computes an operation


@dataclass(frozen=True)
class EnergyItem:
    """What one kind of work of an operation costs: so many of it, and one costs so much (estimate).

    Args:
        part: of the energy, a key of energy_parts_j.
        what: the work.
        count: how often it is done; of static power the seconds.
        unit: what is counted, e.g. "MAC", "bit", "MAC and cycle" (a MAC that rests for a cycle).
        each_j: energy of one.
        energy_j: count times each_j; all items of an operation sum to its energy.
        uncertainty: class of each_j.
        band: factor either way within which each_j is taken to lie.
        formula: how each_j follows from the numbers of the technology table, empty where it is one of these.
        source: of the numbers.
    """

    part: str
    what: str
    count: float
    unit: str
    each_j: float
    energy_j: float
    uncertainty: str
    band: float
    formula: str
    source: str


@dataclass(frozen=True)
class AreaItem:
    """What one kind of circuit of a machine takes: so many of it, and one takes so much (estimate).

    Args:
        part: of the area, a key of area_parts_um2.
        what: the circuit, or the on-chip level.
        count: how many there are; of an on-chip level its bits.
        each_um2: area of one.
        area_um2: count times each_um2; all items of a machine sum to its area.
        uncertainty, band, formula, source: as for EnergyItem.
    """

    part: str
    what: str
    count: int
    each_um2: float
    area_um2: float
    uncertainty: str
    band: float
    formula: str
    source: str


@dataclass(frozen=True)
class CycleItem:
    """What one part of an operation's cycles is made of.

    Args:
        part: of the cycles, a key of cycle_parts.
        what: why they pass.
        formula: how they are counted, with the numbers.
        cycles: how many; all items of an operation sum to its cycles.
    """

    part: str
    what: str
    formula: str
    cycles: int


@dataclass(frozen=True)
class LayerResult(Bill):
    """One MAC-bearing operation of the network, over all samples of a run.

    Args:
        name: path of the module; a second call of the same module is `path#2`.
        op: aten operation, e.g. "linear", "conv2d", "mm", "bmm".
        m, n, k: rows, columns and inner length of one GEMM, all samples in one batch.
        a_words: distinct elements of its first operand, of all GEMMs together: of a convolution those of its image.
        gemms: how many GEMMs of that shape (groups, batch entries).
        mac: the arithmetic, in the string form of MacSpec; both passes where there are two.
        macs: multiply-accumulates of the first pass, gemms * m * n * k.
        recomputed_outputs, recomputed_macs: first names of flagged_outputs and flagged_macs, with the same values; what
            the machine recomputes for them is waste_factor as much.
        cycles, utilisation, latency_s, energy_j: the bill on the machine; None where nothing prices the layer.
        energy_low_j, energy_high_j: bounds of energy_j by the bands of its sources.
        energy_parts_j, cycle_parts: parts that sum to energy_j and cycles.
        roofline_cycles: lower bound of cycles.
        activation: activation whose condition number the score used.
        max_rel_error, mean_rel_error, median_rel_error: of |v - v*| / |v*| over outputs with v* not 0, v* from the
            exact run; the median is of a histogram of relative width 2**-12. None without an exact run.
        overflows: outputs with at least one overflowed or saturated step, in the first pass.
        phase: forward, input gradient or weight gradient.
        scales: of the operands a and b in words, empty for none.
        energy_items, cycle_items: what energy_j and cycles are sums of, with formulas; empty where nothing prices
            the layer.
        zero_macs: MACs with a zero operand, of the first pass; None where they are not counted, as on a machine without
            zero gating.
        rms_error: root mean square of v - v*; None without an exact run.
        sqnr_db: signal-to-quantisation-noise ratio, 10 log10(sum v*^2 / sum (v - v*)^2), in decibels; None without an
            exact run, or where either sum is 0 or not finite.
        waste_factor: gamma, outputs recomputed with their groups over outputs flagged, on this machine; None without a
            second pass.
        traffic_bits: bits moved by memory level: dram, and NAME_reads and NAME_writes of each on-chip level; empty
            where nothing prices the layer.
        pass_outputs: outputs that each pass after the first computed, by the name of its mode; empty without one.
        planned: "low" or "high" of the columns to which a static plan gives that MAC, of which n counts these; else
            empty.
        flagged_outputs, flagged_macs: outputs flagged for a pass after the first, and those times k.
    """

    name: str
    op: str
    m: int
    n: int
    k: int
    mac: str
    macs: int
    recomputed_outputs: int
    recomputed_macs: int
    cycles: int | None
    utilisation: float | None
    latency_s: float | None
    energy_j: float | None
    energy_parts_j: Mapping[str, float]
    max_rel_error: float | None
    mean_rel_error: float | None
    median_rel_error: float | None
    overflows: int
    gemms: int = 1
    a_words: int | None = None
    activation: str = "identity"
    cycle_parts: Mapping[str, int] = field(default_factory=dict)
    roofline_cycles: int | None = None
    phase: str = "forward"
    sqnr_db: float | None = None
    scales: str = ""
    energy_low_j: float | None = None
    energy_high_j: float | None = None
    energy_items: tuple[EnergyItem, ...] = ()
    cycle_items: tuple[CycleItem, ...] = ()
    zero_macs: int | None = None
    waste_factor: float | None = None
    traffic_bits: Mapping[str, int] = field(default_factory=dict)
    rms_error: float | None = None
    pass_outputs: Mapping[str, int] = field(default_factory=dict)
    planned: str = ""
    flagged_outputs: int = field(init=False)
    flagged_macs: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "flagged_outputs", self.recomputed_outputs)
        object.__setattr__(self, "flagged_macs", self.recomputed_macs)

    @property
    def title(self) -> str:
        """Its name, with the phase where that is not forward and what a static plan made of it."""
        phase = () if self.phase == "forward" else (self.phase,)
        return ", ".join((self.name, *phase, *((f"{self.planned} columns",) if self.planned else ())))

    def _view(self) -> View:
        from .report.notebook import layer_view

        return layer_view(self)


@dataclass(frozen=True)
class Conditions:
    """The condition numbers of a layer's outputs along an exact run.

    Args:
        layer: its name.
        activation: what consumes it.
        outputs: how many were looked at.
        active: share of them that the activation passes on, kappa' > 0; kappa and kappa_v are of these alone.
        kappa, kappa_v: percentiles by percent, with the activation and of the inner products; None where they are
            infinite, v being 0. See network.condition_numbers.
        numerator: mean of sum |a b| + |c|, of all outputs.
        numerator_variation: its standard deviation over the mean.
        rank_correlation: of kappa' with the relative error of a low pass over the same operands (Spearman); None where
            one of them is the same throughout.
    """

    layer: str
    activation: str
    outputs: int
    active: float
    kappa: Mapping[int, float | None]
    kappa_v: Mapping[int, float | None]
    numerator: float
    numerator_variation: float
    rank_correlation: float | None


@dataclass(frozen=True)
class GatherResult:
    """One way to gather the flagged outputs of what ran in two passes, priced with the flags of the run.

    Args:
        layer: name of the layer, with its phase where that is not forward; None for all layers together.
        gather: what is recomputed for a flag: element, row, coltile or tile.
        own: whether the policy of the machine gathers so; of the others the policy is replaced, and nothing else.
        runs_on: what recomputes, array or side_engine.
        overlap: none (second pass after the first) or tile (behind it, tile by tile).
        outputs, flagged_outputs, recomputed_outputs: all, those flagged, and those recomputed for them.
        waste_factor: gamma, outputs recomputed over outputs flagged; 1 without flags.
        cycles, energy_j: of both passes; analytic, whatever the fidelity of the run, and without the vector unit.
        cycles_vs_high, energy_vs_high: these as multiples of those of one pass in the high mode; two passes are worth
            it below 1.
        break_even_flagged: share of independent flags at which the MACs and scores of two passes take the energy of
            the MACs of one in the high mode, memory not counted (estimate).
        obstacle: why the machine cannot gather so, and all figures but the outputs are None; empty if it can.
    """

    layer: str | None
    gather: str
    own: bool
    runs_on: str
    overlap: str
    outputs: int
    flagged_outputs: int
    recomputed_outputs: int | None
    waste_factor: float | None
    cycles: int | None
    energy_j: float | None
    cycles_vs_high: float | None
    energy_vs_high: float | None
    break_even_flagged: float | None
    obstacle: str = ""


@dataclass(frozen=True)
class OperationResult:
    """One kind of operation of the network in one phase, and what computed it.

    Args:
        name: of the operation in torch, e.g. "addmm", "relu", "native_layer_norm".
        phase: forward, input gradient, weight gradient, or backward for what is neither.
        unit: what computed it: "MAC array", "vector unit", "memory" where values are only moved, or "torch" where it
            was not emulated at all.
        arithmetic: formats of the unit; of torch's and the memory's the type of the data.
        count: how often it ran.
        places: paths of the modules that it ran in, each once.
        work: elementary operations: two for a MAC, else one for each element of the largest tensor read or written
            (estimate).
        share: of the work of all operations of the run, in 0..1.
        cycles, latency_s, energy_j: the bill of the vector unit and of the memory (estimates); None for what has no
            price, and for the MAC array, whose bill is that of the layers.
        energy_items: what energy_j is the sum of, as in LayerResult.
    """

    name: str
    phase: str
    unit: str
    arithmetic: str
    count: int
    places: tuple[str, ...]
    work: int
    share: float
    cycles: int | None = None
    latency_s: float | None = None
    energy_j: float | None = None
    energy_items: tuple[EnergyItem, ...] = ()


@dataclass(frozen=True)
class Setting:
    """One key of the expanded machine file, or one number of its technology table.

    Args:
        key: path of keys, e.g. "memory.sram.size"; empty for the file as a whole.
        value: in effect, as a machine file would write it, with its unit; of an energy that the file leaves to the
            table its number. None for none, {} for a mapping, whose keys follow.
        origin: where the value is from: `FILE:LINE`, default, the keys that it is derived from, a technology table with
            class and band, or an argument of the run.
        source: the comment behind it in the file, what the table cites, or what holds where there is no value.
    """

    key: str
    value: Any
    origin: str
    source: str


@dataclass(frozen=True)
class RunResult(Shown):
    """One run of the main job.

    Args:
        hardware, model: names of the machine and of the network.
        samples: how many samples were run.
        accuracy: share of right top-1 answers by mode (exact, low, high, two_pass); None without labels.
        agreement: share of the top-1 answers that are those of the exact run, by mode; None where there are no classes.
        forward_error: root mean square over samples and outputs of computed minus exact logit, by mode.
        forward_error_interval: where that lies, (from, to), with a probability of about 95 % over samples like these
            (statistical: the normal distribution, by the spread of the samples' mean squares); None of one sample.
        totals: by mode (low, high, two_pass): cycles, latency_s, energy_j and its bounds energy_low_j, energy_high_j,
            of the layers and of all else that has a price, one after the other; vector_cycles, vector_latency_s,
            vector_energy_j, the part of all else; accumulation_cost (C/C_high with a = accumulator bits low over high).
            None: a mode that the machine lacks, or one with a layer that has no price.
        layers: the two-pass run (the low run on a machine with one MAC).
        baseline_layers: the same records for the uniform modes, by mode.
        tolerance: of the two-pass policy, None without one.
        energy_basis: class and band of the energy figures, in words.
        area_um2: of the machine (estimate), sum of area_parts_um2; None where a format of its MACs has no circuits in
            the model.
        area_parts_um2: mul, acc, register, side, engine (beside the array) and sram.
        area_low_um2, area_high_um2: bounds of area_um2 by the bands of its sources.
        area_items: what area_um2 is the sum of, with formulas.
        versions: of ulpsim and what it stood on.
        seed: of every random choice.
        warnings: what the reader must know.
        settings: what of the machine and the rules of layers decided on the bits besides its MACs, in words by topic:
            vector unit, batch normalisation, and each pattern of layers.
        metrics: by name of the metric, then by mode, before them float32: the network as torch runs it, without the
            machine. None for a mode that the machine lacks. See network.metrics.
        operations: all operations of the forward and backward passes, the emulated ones and the others.
        fidelity: how cycles were counted: roofline (a lower bound), analytic or event.
        complete: whether all samples asked for were run; an interrupted run has those of the batches that it finished.
        machine: the expanded machine file with the origin and source of each value, every number that the bill rests
            on; empty for a machine that was made or changed in Python, of which no file tells.
        gathers: the four ways to gather flagged outputs side by side, of all layers in two passes together, then of
            each; empty without such a layer.
        peak_macs_per_cycle: by the name of a mode, the MACs that all arrays take in a cycle at most.
        dram_bits_per_cycle: of the off-chip channel, both directions together; None on a machine without a memory.
        conditions: condition numbers of the layers of the forward pass, but for those with scaled operands, along an
            exact run of the first samples; empty where they were not asked for.
        condition_samples: of how many samples these are.
    """

    hardware: str
    model: str
    samples: int
    accuracy: Mapping[str, float | None] | None
    agreement: Mapping[str, float | None]
    forward_error: Mapping[str, float | None]
    totals: Mapping[str, Mapping[str, float] | None]
    layers: tuple[LayerResult, ...]
    baseline_layers: Mapping[str, tuple[LayerResult, ...]]
    tolerance: float | None
    energy_basis: str
    versions: Mapping[str, str]
    seed: int
    warnings: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    operations: tuple[OperationResult, ...] = ()
    complete: bool = True
    gathers: tuple[GatherResult, ...] = ()
    fidelity: str = "analytic"
    settings: Mapping[str, str] = field(default_factory=dict)
    machine: tuple[Setting, ...] = ()
    area_um2: float | None = None
    area_parts_um2: Mapping[str, float] = field(default_factory=dict)
    area_low_um2: float | None = None
    area_high_um2: float | None = None
    area_items: tuple[AreaItem, ...] = ()
    forward_error_interval: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    peak_macs_per_cycle: Mapping[str, float] = field(default_factory=dict)
    dram_bits_per_cycle: float | None = None
    conditions: tuple[Conditions, ...] = ()
    condition_samples: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain dicts, lists and numbers, as `summary.json` holds it."""
        return asdict(self)

    def to_frame(self) -> pandas.DataFrame:
        """Return the layers as a DataFrame with the columns of `layers.csv`; needs pandas."""
        from .report import layers_frame

        return layers_frame(self)

    def _view(self) -> View:
        from .report.notebook import run_view

        return run_view(self)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write `summary.json`, `layers.csv`, `report.html`, replacing an earlier run there whole; see report.save."""
        from .report import save

        return save(self, directory)


@overload
def in_mm2(um2: float) -> float: ...


@overload
def in_mm2(um2: None) -> None: ...


@overload
def in_mm2(um2: float | None) -> float | None: ...


def in_mm2(um2: float | None) -> float | None:
    """Return an area, which records have in µm², in mm², as readers have it."""
    return None if um2 is None else um2 * 1e-6


def summed(items: Iterable[Any], *sums: str) -> tuple[Any, ...]:
    """Return one record for all that differ in nothing but the fields that are summed."""
    alike: dict[Any, list[Any]] = {}
    for item in items:
        alike.setdefault(replace(item, **dict.fromkeys(sums, 0)), []).append(item)
    return tuple(
        replace(some[0], **{name: sum(getattr(item, name) for item in some) for name in sums})
        for some in alike.values()
    )
