"""The machine as frozen records; units are suffixes of the field names."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

from formats import Format, Use, get
from simulator.arithmetic.spec import MacSpec
from simulator.errors import InputError
from simulator.notebook import Shown, View, frame
from simulator.result import Setting

from .checks import fits_tolerance
from .document import Keys
from .hashing import remembers_hash
from .layer_rules import LayerRule
from .static_plan import StaticPlan
from .technology import Entry, TechnologyTable
from .widths import partial_sum_bits, state_bits, stored_bits

if TYPE_CHECKING:
    from formats.notebook import DataFrame

_FP32 = Use.parse("fp32")


@dataclass(frozen=True)
class Technology:
    """The process: technology table (with its node), clock and static power.

    Args:
        table: energies and areas of the node, with source and class.
        frequency_hz: clock of everything on chip. leakage_w: static power of the chip, 0 if the file gives none.
        given_class: of the energies and the power that the file gives.
    """

    table: TechnologyTable
    frequency_hz: float
    leakage_w: float
    given_class: str = "user"

    def given(self, value: float, unit: str) -> Entry:
        """Return an energy or a power of the file as an entry."""
        return Entry(value, self.given_class, "machine file", unit)


@remembers_hash
@dataclass(frozen=True)
class Array:
    """Arrays of rows x columns processing elements (PEs).

    Args:
        rows, columns: PEs of an array.
        dataflow: of a systolic array ws | is | os | best (the least cycles per operation); dot: of dot-product units,
            to which operands are broadcast and which keep their sums.
        load: of stationary operands, overlapped | exposed. drain: overlapped | exposed | none (os only).
        latency_cycles: p, of one MAC. interleave: q, partial sums that take turns in one PE.
        copies: arrays that share the folds of an operation and the memory.
        compat: none | scalesim3 (cycles and words as SCALE-Sim 3.0.0 counts them, its artefacts included).
    """

    rows: int
    columns: int
    dataflow: str = "ws"
    load: str = "overlapped"
    drain: str = "overlapped"
    latency_cycles: int = 1
    interleave: int = 1
    copies: int = 1
    compat: str = "none"

    @property
    def like_scalesim(self) -> bool:
        """Whether cycles and words are counted as SCALE-Sim does."""
        return self.compat == "scalesim3"

    @property
    def pes(self) -> int:
        """PEs of all arrays."""
        return self.rows * self.columns * self.copies


@remembers_hash
@dataclass(frozen=True)
class MacMode:
    """One mode of the MAC unit.

    Args:
        spec: its arithmetic, with the order of summation that follows from the array.
        rate: MACs that a PE takes together. energy_j: of one MAC as the file gives it, None: from the technology table.
        passes: cycles in which it takes them: more than one where it is composed of a narrower multiplier.
        stored: format into which results are converted on their way to memory, None: that of the result. It changes
            no result: the next layer quantises its operands to it.
    """

    spec: MacSpec
    rate: int = 1
    energy_j: float | None = None
    passes: int = 1
    stored: Format | None = None

    @cached_property
    def operand_formats(self) -> tuple[Format, Format]:
        """Formats of activations and weights as stored; operands taken as given are priced as fp32."""
        if self.spec.operands is None:
            return get("fp32"), get("fp32")
        return self.spec.operands[0].format, self.spec.operands[1].format

    @cached_property
    def operand_bits(self) -> tuple[int | Fraction, int | Fraction]:
        """Stored bits of an activation and of a weight, with their shares of the scales of blocks."""
        a, w = self.operand_formats
        return stored_bits(a), stored_bits(w)

    @cached_property
    def accumulator_bits(self) -> int:
        """Width of the state to which a product is added."""
        return state_bits(self.spec.accumulator, self.operand_formats)

    @cached_property
    def partial_sum_bits(self) -> int:
        """Width of the sums kept between the runs of a chunked order; the state itself otherwise."""
        return partial_sum_bits(self.spec.accumulator, self.operand_formats)

    @cached_property
    def output_bits(self) -> int:
        """Width of a result in memory."""
        return (self.spec.result.format if self.stored is None else self.stored).bits


@dataclass(frozen=True)
class Mac:
    """The MAC unit of a PE: one mode, two, or a ladder of them.

    Args:
        low, high: the modes; high is None for a machine with one MAC.
        middle: (name, mode) of those of a ladder between, in rising precision.
        datapath: multi_mode (one datapath for both) | pair (two of them) | composed (that of the low mode, several
            times for a product of the high one); None with one mode.
        zero_gating: whether a MAC with a zero operand rests.
    """

    low: MacMode
    high: MacMode | None
    datapath: str | None
    zero_gating: bool = False
    middle: tuple[tuple[str, MacMode], ...] = ()

    @property
    def modes(self) -> dict[str, MacMode]:
        """All modes in rising precision, by the path of keys of a machine file."""
        between = {f"mac.middle.{name}": mode for name, mode in self.middle}
        return {"mac.low": self.low} | between | ({} if self.high is None else {"mac.high": self.high})

    def first(self, mode: str) -> MacMode:
        """Return what the first or only pass runs on where the machine runs in `mode`: low | high | two_pass."""
        chosen = self.high if mode == "high" else self.low
        assert chosen is not None
        return chosen

    @property
    def pass_names(self) -> tuple[str, ...]:
        """The names of the modes of the passes after the first."""
        return (*(name for name, _ in self.middle), *(() if self.high is None else ("high",)))

    @property
    def further(self) -> tuple[MacMode, ...]:
        """The modes of the passes after the first."""
        return tuple(self.modes.values())[1:]


@dataclass(frozen=True)
class Dram:
    """Off-chip memory on one channel shared by all transfers.

    Args:
        bandwidth_bits_per_cycle: of the channel, both directions together.
        latency_cycles: of the first access. energy_j_per_bit: None: from the technology table.
    """

    bandwidth_bits_per_cycle: Fraction
    latency_cycles: int
    energy_j_per_bit: float | None


# What an on-chip level holds: operands a and w, outputs o. Partial sums have a level of their own, or that of o.
TENSORS = ("a", "w", "o")


@dataclass(frozen=True)
class Level:
    """An on-chip memory of operands and outputs.

    Args:
        name: in the file. size_bits: capacity. holds: which of a, w, o.
        buffers: copies of a tile (2: double buffering).
        read_bits_per_cycle, write_bits_per_cycle: of its ports to the array, or to the level further in.
        banks: interleaved by word; None: no two accesses are in conflict. ports: accesses that a bank takes in a cycle.
            Only the event fidelity looks at these two.
        read_j_per_bit, write_j_per_bit: None: from the technology table, by size.
    """

    name: str
    size_bits: int
    holds: tuple[str, ...]
    buffers: int
    read_bits_per_cycle: Fraction
    write_bits_per_cycle: Fraction
    banks: int | None = None
    ports: int = 1
    read_j_per_bit: float | None = None
    write_j_per_bit: float | None = None

    def exchanged(self) -> Level:
        """Return the level with the operands exchanged."""
        other = {"a": "w", "w": "a", "o": "o"}
        return replace(self, holds=tuple(other[tensor] for tensor in self.holds))


@dataclass(frozen=True)
class AccumulatorBuffer:
    """On-chip buffer of partial sums at the edge of the array, as wide as the array.

    Args:
        size_bits: capacity. name: in the file.
        read_j_per_bit, write_j_per_bit: None: from the technology table, by size.
    """

    size_bits: int
    read_j_per_bit: float | None = None
    write_j_per_bit: float | None = None
    name: str = "accumulators"


@remembers_hash
@dataclass(frozen=True)
class Memory:
    """Memory levels.

    Args:
        dram: off chip. buffers: the innermost levels, each of a, w and o in one of them.
        accumulators: of partial sums; None: they live in the buffer of the outputs.
        staging: levels between the DRAM and the buffers, outermost first; each holds a, w and o.
    """

    dram: Dram
    buffers: tuple[Level, ...]
    accumulators: AccumulatorBuffer | None = None
    staging: tuple[Level, ...] = ()

    def buffer(self, tensor: str) -> Level:
        """Return the buffer of a, w or o."""
        return next(level for level in self.buffers if tensor in level.holds)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The on-chip levels of operands and outputs, outermost first."""
        return (*self.staging, *self.buffers)

    @property
    def on_chip_bits(self) -> int:
        """Capacity of all on-chip levels, that of partial sums included."""
        sums = 0 if self.accumulators is None else self.accumulators.size_bits
        return sum(level.size_bits for level in self.levels) + sums

    def exchanged(self) -> Memory:
        """Return the memory with the operands exchanged."""
        return replace(self, buffers=tuple(level.exchanged() for level in self.buffers))


@dataclass(frozen=True)
class SideEngine:
    """An engine beside the array, whose MACs are all of the high mode.

    Args:
        lanes: MACs that it takes in a cycle.
        array: its PEs, where it is a second systolic array; None where it is a dot-product engine.
        queue: flagged outputs that can wait for it, beyond which the first pass stalls; None: any number. Only the
            event fidelity looks at it.
    """

    lanes: int
    array: Array | None = None
    queue: int | None = None

    @property
    def kind(self) -> str:
        """dot | array."""
        return "dot" if self.array is None else "array"


@dataclass(frozen=True)
class VectorUnit:
    """What computes all but products: `lanes` elementary operations at a time, on an adder and a multiplier each.

    Args:
        format: of its operands and results. lanes: elementary operations per cycle, None: the unit is not priced.
        energy_j: of one elementary operation as the file gives it, None: from the technology table, by the format.
    """

    format: Use = _FP32
    lanes: int | None = None
    energy_j: float | None = None


@dataclass(frozen=True)
class Policy:
    """The two-pass policy.

    Args:
        tolerance: largest score that is kept, >= 0, may be infinite.
        gather: what is recomputed for a flag: element | row | coltile (a row within as many columns as the unit has) |
            tile (as many rows and columns as it has).
        overlap: none (second pass after the first) | tile (the side engine follows the first pass tile by tile).
        weights: operands of modes that differ in format: high_only (stored wide, rounded on load) | both | sliced (the
            narrow part first, the rest where it is needed).
        recompute_nonfinite, recompute_saturated: whether such results of the first pass are flagged.
        score: what decides; side_metric: the hardware it needs, see scores.SIDE_METRICS.
        runs_on: what recomputes, array | side_engine.
        side_format: of the running sum of the side metric abs_sum; None with another.
        budget: largest share that is recomputed, 0..1; None: the tolerance decides alone.
        budget_over: layer (of each row's outputs) | network (of all MACs that run in two passes, shared out among the
            layers by calibration).
        sign_safe: before relu what is not positive is kept only if its magnitude is above so many upper bounds of its
            numerator; None: by its score.
        plan: which columns of what would run in two passes have the high MAC, in place of flags; None: flags decide.
        ladder: climb | jump, see arithmetic.criterion; None with two modes.
        further: of a ladder the tolerances of the modes between; None: they follow from that of the first.
    """

    tolerance: float
    gather: str
    overlap: str
    weights: str
    recompute_nonfinite: bool
    recompute_saturated: bool
    score: str = "kappa_prime"
    side_metric: str = "output"
    runs_on: str = "side_engine"
    side_format: Use | None = None
    budget: float | None = None
    budget_over: str = "layer"
    plan: StaticPlan | None = None
    sign_safe: float | None = None
    ladder: str | None = None
    further: tuple[float, ...] | None = None


@remembers_hash
@dataclass(frozen=True)
class Machine(Shown):
    """One accelerator, as its file describes it.

    Args:
        name: of the machine. technology, array, mac: see their records.
        memory: None where the file describes none: operands on chip, no stalls.
        side_engine: None without one. policy: None: every layer runs uniformly in one mode.
        source: path of the file.
        vector_unit: what computes all but products. fold_batch_norm: into the weights before it.
        layers: rules of some layers, the first that fits counts.
        configuration: the expanded file by path of keys, see configuration.py; empty for a machine that was made
            in Python, or by replace() from another, of which no file tells.
    """

    name: str
    technology: Technology
    array: Array
    mac: Mac
    memory: Memory | None
    side_engine: SideEngine | None
    policy: Policy | None
    source: str
    vector_unit: VectorUnit = VectorUnit()
    fold_batch_norm: bool = False
    layers: tuple[LayerRule, ...] = ()
    configuration: Mapping[Keys, Setting] = field(init=False, compare=False, repr=False, default_factory=dict)

    def peak_macs_per_s(self, mode: MacMode) -> float:
        """Return the MACs that the arrays do in a second in one of the modes, all PEs busy."""
        return self.array.pes * mode.rate / mode.passes * self.technology.frequency_hz

    def described(self, configuration: Mapping[Keys, Setting]) -> Machine:
        """Return a copy that tells of its file."""
        copy = replace(self)
        object.__setattr__(copy, "configuration", configuration)
        return copy

    def to_frame(self) -> DataFrame:
        """Return every key of its file as a DataFrame: value in effect, origin and source; needs pandas.

        Empty where no file tells of the machine.
        """
        from .shown import SETTING, setting_rows

        return frame(setting_rows(self), SETTING)

    def _view(self) -> View:
        from .shown import machine_view

        return machine_view(self)

    @property
    def recomputing_engine(self) -> SideEngine | None:
        """The side engine where it recomputes flagged outputs; None where the array does, or nothing."""
        on_engine = self.policy is not None and self.policy.runs_on == "side_engine"
        return self.side_engine if on_engine else None

    def with_plan(self, plan: StaticPlan) -> Machine:
        """Return the machine with a static plan in place of flags; its configuration is that of its file.

        Raises:
            ValueError: it has no two-pass policy, or a ladder.
        """
        if self.policy is None or self.mac.middle:
            found = "none" if self.policy is None else "a ladder of more than two modes"
            raise ValueError(f"{self.name}: a static plan needs a two-pass policy, and the machine has {found}")
        return replace(self, policy=replace(self.policy, plan=plan)).described(self.configuration)

    def with_tolerance(self, tolerance: float) -> Machine:
        """Return a copy with another tolerance (>= 0, may be infinite); of a ladder the others follow from it.

        Raises:
            InputError: without a two-pass policy, or with tolerances for each mode.
        """
        if self.policy is None:
            raise InputError(
                f"{self.source}: policy: got tolerance {tolerance} for a machine without a two-pass policy; "
                "expected a machine with mac.high; leave the tolerance out"
            )
        if self.policy.further is not None:
            raise InputError(
                f"{self.source}: policy.tolerance: got {tolerance} in place of one for each mode; expected one number "
                "there, from which those of the other modes follow; write it in the file, or leave this one out"
            )
        if not fits_tolerance(tolerance):
            raise InputError(f"tolerance: got {tolerance!r}; expected a number >= 0 or infinity; give e.g. 0.5")
        configuration = dict(self.configuration)
        if configuration:
            value = ".inf" if math.isinf(tolerance) else float(tolerance)
            at = ("policy", "tolerance")
            configuration[at] = replace(configuration[at], value=value, origin="argument of the run", source="")
        return replace(self, policy=replace(self.policy, tolerance=float(tolerance))).described(configuration)
