"""The schema of a machine file, version 1: which keys there are and what each takes.

Every field's description says what it is; its example is what a message proposes. Checks that concern several keys at
once are in build.py.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from simulator.arithmetic.accumulators import Accumulator
from simulator.arithmetic.criterion import LADDERS

from . import checks
from .quantities import Quantity
from .technology import BANDS


class Section(BaseModel):
    """A mapping of the file: frozen, and no other keys than its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def without(words: str) -> dict[str, Any]:
    """Say what holds where a key is left out and its default is no plain value."""
    return {"without": words}


_EnergyPerBit = Annotated[
    Quantity | None,
    BeforeValidator(checks.quantity("energy per bit", least=0, most=1e-6, example="0.18 pJ/bit", auto=True)),
]
_Bandwidth = Annotated[
    Quantity,
    BeforeValidator(checks.quantity("bandwidth", "bandwidth per cycle", least=1e-3, most=1e18, example="25.6 GB/s")),
]


class TechnologySection(Section):
    node: (
        Annotated[Quantity, BeforeValidator(checks.quantity("length", least=1e-10, most=1e-5, example="7 nm"))] | None
    ) = Field(
        default=None,
        description="process node; picks the table, or is that of the chip where `table` is of another",
        examples=["7 nm"],
        json_schema_extra=without("of the table, else 7 nm"),
    )
    frequency: Annotated[
        Quantity, BeforeValidator(checks.quantity("frequency", least=1e3, most=1e12, example="1 GHz"))
    ] = Field(
        default=Quantity(Fraction(10**9), "frequency"), description="clock of everything on chip", examples=["1 GHz"]
    )
    table: Annotated[str, BeforeValidator(checks.table)] | None = Field(
        default=None,
        description="technology table: energies and areas; a path of a table of your own is that from this file",
        examples=["jouppi2021_7nm"],
        json_schema_extra=without("of the node"),
    )
    overrides: Annotated[dict[str, Any], BeforeValidator(checks.overrides)] = Field(
        default={},
        description="entries of the table with values of your own",
        examples=["{adder_j_per_bit: 1.2 fJ/bit}"],
        json_schema_extra=without("none"),
    )
    given_class: Annotated[str, BeforeValidator(checks.choice(*BANDS))] = Field(
        default="user",
        description="class, and with it the band, of all energies, powers and entries that this file gives",
        examples=["assumed"],
    )
    leakage: Annotated[Quantity, BeforeValidator(checks.quantity("power", least=0, most=1e4, example="10 mW"))] = Field(
        default=Quantity(Fraction(0), "power"), description="static power of the chip", examples=["10 mW"]
    )


class ArraySection(Section):
    rows: Annotated[int, BeforeValidator(checks.count(16))] = Field(description="rows R of PEs", examples=[16])
    columns: Annotated[int, BeforeValidator(checks.count(16))] = Field(description="columns C of PEs", examples=[16])
    copies: Annotated[int, BeforeValidator(checks.count(4))] = Field(
        default=1, description="arrays that share the folds of an operation and the memory", examples=[4]
    )
    dataflow: Annotated[str, BeforeValidator(checks.choice("ws", "is", "os", "best", "dot"))] = Field(
        default="ws",
        description="what stays in the PEs of a systolic array; dot: dot-product units, operands broadcast to them",
        examples=["ws"],
    )
    load: Annotated[str, BeforeValidator(checks.choice("overlapped", "exposed"))] | None = Field(
        default=None,
        description="load of stationary operands (ws, is)",
        examples=["overlapped"],
        json_schema_extra=without("overlapped; none for os and dot, which load nothing"),
    )
    drain: Annotated[str, BeforeValidator(checks.choice("overlapped", "exposed", "none"))] = Field(
        default="overlapped", description="skew or drain at the end of a fold; none: os only", examples=["overlapped"]
    )
    latency: Annotated[
        Quantity, BeforeValidator(checks.quantity("cycles", least=1, most=1024, example="1 cycle", whole=True))
    ] = Field(default=Quantity(Fraction(1), "cycles"), description="latency p of one MAC", examples=["1 cycle"])
    interleave: Annotated[int, BeforeValidator(checks.count(1, most=1024))] = Field(
        default=1, description="partial sums q that take turns in one PE (os); joined at the end", examples=[1]
    )
    compat: Annotated[str, BeforeValidator(checks.choice("none", "scalesim3"))] = Field(
        default="none",
        description="scalesim3: cycles and traffic as SCALE-Sim 3.0.0 counts them, artefacts included; a `memory` then "
        "takes no part, which every result says",
        examples=["scalesim3"],
    )


class ModeSection(Section):
    accumulator: Annotated[Accumulator, BeforeValidator(checks.read_accumulator)] = Field(
        description="what one PE does with a product", examples=["fma(fp16)"]
    )
    operands: Annotated[str | list[str], BeforeValidator(checks.operands)] | None = Field(
        default=None,
        description="formats of activations and weights",
        examples=["fp8_e4m3"],
        json_schema_extra=without("as given, priced as fp32"),
    )
    output: Annotated[str, BeforeValidator(checks.output)] | None = Field(
        default=None,
        description="format of the stored result",
        examples=["fp8_e4m3/sat"],
        json_schema_extra=without("of the accumulator"),
    )
    stored: Annotated[str, BeforeValidator(checks.vector_format)] | None = Field(
        default=None,
        description="format of results in memory, into which they are converted behind the array; the bits are those "
        "of `output`, since the next layer quantises its operands to it anyway",
        examples=["bf16"],
        json_schema_extra=without("of the result"),
    )
    rate: (
        Annotated[
            Quantity,
            BeforeValidator(checks.quantity("MAC rate", least=1, most=1024, example="4 MAC/cycle", whole=True)),
        ]
        | None
    ) = Field(
        default=None,
        description="MACs per PE and cycle; of a composed mode before it is slowed",
        examples=["4 MAC/cycle"],
        json_schema_extra=without("1 MAC/cycle; composed: that of `mac.low`"),
    )
    energy: Annotated[
        Quantity | None, BeforeValidator(checks.quantity("energy", least=0, most=1e-6, example="0.40 pJ", auto=True))
    ] = Field(default=None, description="energy of one MAC", examples=["auto"])


class MacSection(Section):
    low: Annotated[ModeSection, BeforeValidator(checks.mode)] = Field(
        description="the only mode, or that of the first pass", examples=["fp8_e4m3 -> fma(fp16)"]
    )
    high: Annotated[ModeSection, BeforeValidator(checks.mode)] | None = Field(
        default=None,
        description="mode of the second pass, or of the last",
        examples=["fp8_e4m3 -> fma(fp16)"],
        json_schema_extra=without("none: one mode"),
    )
    middle: dict[str, Annotated[ModeSection, BeforeValidator(checks.mode)]] = Field(
        default={},
        description="modes of the passes between, by names of your own, in the order in which they run: a ladder of "
        "precisions",
        examples=["{fp16: fp8_e4m3 -> fma(fp16)}"],
        json_schema_extra=without("none: two passes"),
    )
    datapath: Annotated[str, BeforeValidator(checks.choice("multi_mode", "pair", "composed"))] | None = Field(
        default=None,
        description="one datapath for both modes, two, or the high mode composed of several passes of the low one",
        examples=["multi_mode"],
        json_schema_extra=without("multi_mode, with two modes"),
    )
    zero_gating: Annotated[bool, BeforeValidator(checks.switch)] = Field(
        default=False, description="whether a MAC with a zero operand rests", examples=["true"]
    )


class DramSection(Section):
    bandwidth: _Bandwidth = Field(description="of the channel, both directions together", examples=["25.6 GB/s"])
    latency: Annotated[
        Quantity, BeforeValidator(checks.quantity("time", "cycles", least=0, most=1e9, example="100 ns"))
    ] = Field(default=Quantity(Fraction(0), "time"), description="of the first access", examples=["100 ns"])
    energy: _EnergyPerBit = Field(default=None, description="energy per bit moved", examples=["auto"])


_Size = Annotated[
    Quantity, BeforeValidator(checks.quantity("size", least=8, most=2**50, example="256 KiB", whole=True))
]


class LevelSection(Section):
    size: _Size = Field(description="capacity", examples=["256 KiB"])
    holds: Annotated[list[str], BeforeValidator(checks.tensors)] | None = Field(
        default=None,
        description="operands a and w, outputs o; or psum alone, the partial sums of ws, is and dot",
        examples=["[a, w, o]"],
        json_schema_extra=without("a, w and o in `sram`, psum in `accumulators`, else required"),
    )
    read: _Bandwidth | None = Field(
        default=None,
        description="bandwidth to the array, or to the level further in",
        examples=["1024 bit/cycle"],
        json_schema_extra=without("required; none with psum"),
    )
    write: _Bandwidth | None = Field(
        default=None,
        description="bandwidth from there",
        examples=["512 bit/cycle"],
        json_schema_extra=without("required; none with psum"),
    )
    buffers: Annotated[int, BeforeValidator(checks.count(2, most=16))] | None = Field(
        default=None,
        description="copies of a tile; 2 is double buffering",
        examples=[2],
        json_schema_extra=without("2; none with psum"),
    )
    banks: Annotated[int, BeforeValidator(checks.count(8, most=4096))] | None = Field(
        default=None,
        description="banks, interleaved by word; only the event fidelity looks at them",
        examples=[8],
        json_schema_extra=without("none: no conflicts"),
    )
    ports: Annotated[int, BeforeValidator(checks.count(1, most=16))] | None = Field(
        default=None,
        description="accesses that a bank takes in a cycle",
        examples=[1],
        json_schema_extra=without("1; none with psum"),
    )
    read_energy: _EnergyPerBit = Field(default=None, description="energy per bit read", examples=["auto"])
    write_energy: _EnergyPerBit = Field(default=None, description="energy per bit written", examples=["auto"])


class MemorySection(Section):
    """The DRAM, then on-chip levels by names of the user's own, outermost first."""

    model_config = ConfigDict(frozen=True, extra="allow", arbitrary_types_allowed=True)
    __pydantic_extra__: dict[str, LevelSection] = Field(init=False)

    dram: DramSection = Field(description="off-chip memory on one shared channel", examples=["{bandwidth: 25.6 GB/s}"])

    @property
    def levels(self) -> dict[str, LevelSection]:
        """The on-chip levels by name, in the order of the file."""
        return self.__pydantic_extra__


class SideEngineSection(Section):
    kind: Annotated[str, BeforeValidator(checks.choice("dot", "array"))] = Field(
        default="dot", description="a dot-product engine, or a second array of the same dataflow", examples=["dot"]
    )
    lanes: Annotated[int, BeforeValidator(checks.count(64))] | None = Field(
        default=None,
        description="MACs per cycle of a dot-product engine",
        examples=[64],
        json_schema_extra=without("required with dot; none with array"),
    )
    rows: Annotated[int, BeforeValidator(checks.count(8))] | None = Field(
        default=None,
        description="rows of PEs of an array; in ws and is they divide array.rows, for the same order of sums",
        examples=[8],
        json_schema_extra=without("required with array; none with dot"),
    )
    columns: Annotated[int, BeforeValidator(checks.count(8))] | None = Field(
        default=None,
        description="columns of PEs of an array",
        examples=[8],
        json_schema_extra=without("required with array; none with dot"),
    )
    mac: Annotated[str, BeforeValidator(checks.choice("high"))] = Field(
        default="high", description="mode of its MACs", examples=["high"]
    )
    queue: Annotated[int, BeforeValidator(checks.count(64))] | None = Field(
        default=None,
        description="flagged outputs that can wait for it; only the event fidelity looks at it",
        examples=[64],
        json_schema_extra=without("none: any number"),
    )


class PolicySection(Section):
    kind: Annotated[str, BeforeValidator(checks.choice("two_pass", "uniform"))] = Field(
        default="two_pass", description="what runs; uniform takes no other key", examples=["two_pass"]
    )
    score: Annotated[str, BeforeValidator(checks.score)] = Field(
        default="kappa_prime",
        description="what decides; random, largest and smallest are controls",
        examples=["kappa_prime"],
    )
    side_metric: (
        Annotated[str, BeforeValidator(checks.choice("output", "abs_sum", "norm_bound", "second_pass"))] | None
    ) = Field(
        default=None,
        description="hardware that the score is computed with",
        examples=["output"],
        json_schema_extra=without("output with kappa_prime, abs_sum with kappa_full, norm_bound with a norm"),
    )
    side_format: Annotated[str, BeforeValidator(checks.sum_format)] | None = Field(
        default=None,
        description="format of the running sum of abs_sum",
        examples=["uint16"],
        json_schema_extra=without("uint16 with abs_sum, else none"),
    )
    tolerance: Annotated[float | list[float], BeforeValidator(checks.tolerances)] = Field(
        default=0.5,
        description="largest score kept; of a ladder one for each mode but the last, or that of the first, from which "
        "the others follow by their unit roundoffs",
        examples=[0.5],
    )
    ladder: Annotated[str, BeforeValidator(checks.choice(*LADDERS))] | None = Field(
        default=None,
        description="climb: each pass is scored again; jump: the scores of the first one pick the mode of each output",
        examples=["climb"],
        json_schema_extra=without("climb with `mac.middle`, else none"),
    )
    budget: Annotated[float, BeforeValidator(checks.share)] | None = Field(
        default=None,
        description="largest share that is recomputed, those with the largest scores",
        examples=[0.1],
        json_schema_extra=without("none: the tolerance decides alone"),
    )
    budget_over: Annotated[str, BeforeValidator(checks.choice("layer", "network"))] = Field(
        default="layer",
        description="what the budget is a share of: each row's outputs, or all MACs, shared out by calibration",
        examples=["network"],
    )
    sign_safe: Annotated[float, BeforeValidator(checks.positive_share)] | None = Field(
        default=None,
        description="before relu, what is not positive is kept only above so many bounds of its numerator",
        examples=[0.04],
        json_schema_extra=without("none: kept by its score"),
    )
    plan: Annotated[str, BeforeValidator(checks.plan)] | None = Field(
        default=None,
        description="file of a static plan, from this file on: columns that are high, in place of flags",
        examples=["plan.json"],
        json_schema_extra=without("none: flags decide"),
    )
    gather: Annotated[str, BeforeValidator(checks.choice("element", "row", "coltile", "tile"))] | None = Field(
        default=None,
        description="what is recomputed for a flag; element needs a dot-product engine",
        examples=["element"],
        json_schema_extra=without("element with a dot-product engine, else coltile"),
    )
    runs_on: Annotated[str, BeforeValidator(checks.choice("array", "side_engine"))] | None = Field(
        default=None,
        description="what recomputes",
        examples=["array"],
        json_schema_extra=without("side_engine with element, or an engine that is an array; else array"),
    )
    overlap: Annotated[str, BeforeValidator(checks.choice("none", "tile"))] | None = Field(
        default=None,
        description="when the second pass runs; tile: behind the first, tile by tile, on a side engine",
        examples=["none"],
        json_schema_extra=without("tile on a side engine, else none"),
    )
    weights: Annotated[str, BeforeValidator(checks.choice("both", "high_only", "sliced"))] = Field(
        default="both",
        description="how operands of two formats are stored; high_only: rounded on load; sliced: the rest on demand",
        examples=["both"],
    )
    recompute_nonfinite: Annotated[bool, BeforeValidator(checks.switch)] = Field(
        default=True, description="whether infinities and NaN of the first pass are flagged", examples=["true"]
    )
    recompute_saturated: Annotated[bool, BeforeValidator(checks.switch)] = Field(
        default=True, description="whether saturated results of the first pass are flagged", examples=["true"]
    )


class VectorUnitSection(Section):
    format: Annotated[str, BeforeValidator(checks.vector_format)] = Field(
        default="fp32", description="format of its operands and results", examples=["bf16"]
    )
    lanes: Annotated[int, BeforeValidator(checks.count(16))] | None = Field(
        default=None,
        description="elementary operations per cycle",
        examples=[16],
        json_schema_extra=without("none: nothing of the unit, nor what only moves values, is priced"),
    )
    energy: Annotated[
        Quantity | None, BeforeValidator(checks.quantity("energy", least=0, most=1e-6, example="0.40 pJ", auto=True))
    ] = Field(default=None, description="energy of one elementary operation, with `lanes`", examples=["auto"])


class ScalingSection(Section):
    per: Annotated[str, BeforeValidator(checks.choice("tensor", "row", "channel", "block"))] = Field(
        default="tensor", description="what shares a scale", examples=["tensor"]
    )
    block: Annotated[int, BeforeValidator(checks.count(32))] | None = Field(
        default=None, description="input channels of a block", examples=[32], json_schema_extra=without("none")
    )
    method: Annotated[str, BeforeValidator(checks.choice("max", "percentile", "mse"))] = Field(
        default="max",
        description="what magnitude is put at `to`, or the scale of the least mean square error",
        examples=["max"],
    )
    percentile: Annotated[float, BeforeValidator(checks.percentile)] | None = Field(
        default=None,
        description="share of the magnitudes that do not saturate",
        examples=[99.9],
        json_schema_extra=without("99.9 with its method"),
    )
    to: Annotated[float, BeforeValidator(checks.magnitude)] | None = Field(
        default=None,
        description="where that magnitude is put, not with mse; less leaves a narrow accumulator room for its sums",
        examples=[448],
        json_schema_extra=without(
            "the largest value of the format; none for posits, takums and formats beyond 2^64, which need it"
        ),
    )
    when: Annotated[str, BeforeValidator(checks.choice("model", "dynamic", "calibrated"))] = Field(
        default="model",
        description="as a quantised model has it, else from the values at hand; from these always; or from samples "
        "seen before",
        examples=["dynamic"],
    )
    powers_of_two: Annotated[bool, BeforeValidator(checks.switch)] = Field(
        default=True, description="whether scales are powers of two", examples=["true"]
    )


class LayerPolicySection(Section):
    score: Annotated[str, BeforeValidator(checks.score)] | None = Field(
        default=None, description="what decides", examples=["norm2"], json_schema_extra=without("`policy.score`")
    )
    side_metric: (
        Annotated[str, BeforeValidator(checks.choice("output", "abs_sum", "norm_bound", "second_pass"))] | None
    ) = Field(
        default=None,
        description="hardware that this score is computed with",
        examples=["norm_bound"],
        json_schema_extra=without("of the score, as in `policy`"),
    )
    side_format: Annotated[str, BeforeValidator(checks.sum_format)] | None = Field(
        default=None,
        description="format of the running sum of abs_sum",
        examples=["uint16"],
        json_schema_extra=without("uint16 with abs_sum, else none"),
    )
    tolerance: Annotated[float, BeforeValidator(checks.tolerance)] | None = Field(
        default=None,
        description="largest score kept",
        examples=[0.5],
        json_schema_extra=without("`policy.tolerance`"),
    )
    budget: Annotated[float, BeforeValidator(checks.share)] | None = Field(
        default=None,
        description="largest share of a row's outputs that is recomputed",
        examples=[0.1],
        json_schema_extra=without("`policy.budget`"),
    )


class LayerSection(Section):
    mac: Annotated[str, BeforeValidator(checks.layer_mac)] | None = Field(
        default=None,
        description="mode, MAC, exact or float32",
        examples=["high"],
        json_schema_extra=without("of the policy"),
    )
    operands: Annotated[str | list[str], BeforeValidator(checks.operands)] | None = Field(
        default=None,
        description="formats of activations and weights",
        examples=["int8"],
        json_schema_extra=without("of the MAC"),
    )
    output: Annotated[str, BeforeValidator(checks.output)] | None = Field(
        default=None,
        description="format of the stored result",
        examples=["fp8_e4m3/sat"],
        json_schema_extra=without("of the MAC"),
    )
    policy: LayerPolicySection | None = Field(
        default=None,
        description="two-pass policy of these layers",
        examples=["{tolerance: 0.1}"],
        json_schema_extra=without("`policy`"),
    )
    activations: Annotated[ScalingSection, BeforeValidator(checks.scaling)] | None = Field(
        default=None,
        description="scales of the first operand",
        examples=["{per: tensor}"],
        json_schema_extra=without("none: as given"),
    )
    weights: Annotated[ScalingSection, BeforeValidator(checks.scaling)] | None = Field(
        default=None,
        description="scales of the second operand; no `per: row`, never calibrated",
        examples=["{per: channel}"],
        json_schema_extra=without("none: as given"),
    )
    vector: Annotated[str, BeforeValidator(checks.vector_format)] | None = Field(
        default=None,
        description="format of the vector unit in these layers",
        examples=["bf16"],
        json_schema_extra=without("`vector_unit.format`"),
    )
    gradients: Annotated[str, BeforeValidator(checks.layer_mac)] | None = Field(
        default=None,
        description="MAC of the backward pass",
        examples=["high"],
        json_schema_extra=without("as forward; high of two passes"),
    )
    weight_gradients: Annotated[str, BeforeValidator(checks.layer_mac)] | None = Field(
        default=None,
        description="MAC of the gradients of weights, `gradients` being then that of the gradients of inputs",
        examples=["high"],
        json_schema_extra=without("as `gradients`"),
    )


class MachineFile(Section):
    """A machine file; only array.rows, array.columns and one MAC have no default."""

    version: Annotated[int, BeforeValidator(checks.version)] = Field(
        default=1, alias="schema", description="version of the schema", examples=[1]
    )
    name: Annotated[str, BeforeValidator(checks.name)] | None = Field(
        default=None,
        description="name of the machine",
        examples=["npu"],
        json_schema_extra=without("the name of the file"),
    )
    technology: TechnologySection = Field(
        default=TechnologySection(),
        description="process and clock",
        examples=["{frequency: 1 GHz}"],
        json_schema_extra=without("the defaults below"),
    )
    array: ArraySection = Field(description="the PEs", examples=["{rows: 16, columns: 16}"])
    mac: MacSection = Field(description="the MAC unit of a PE", examples=["{low: fp8_e4m3 -> fma(fp16)}"])
    memory: MemorySection | None = Field(
        default=None,
        description="memory levels, outermost first",
        examples=["{dram: ..., sram: ...}"],
        json_schema_extra=without("none: all operands on chip, no stalls and no memory energy"),
    )
    side_engine: SideEngineSection | None = Field(
        default=None,
        description="engine of the second pass, beside the array",
        examples=["{lanes: 64}"],
        json_schema_extra=without("none"),
    )
    policy: PolicySection | None = Field(
        default=None,
        description="which MAC runs",
        examples=["{kind: two_pass}"],
        json_schema_extra=without("two_pass with two modes, else uniform"),
    )
    vector_unit: VectorUnitSection = Field(
        default=VectorUnitSection(),
        description="what computes all but products",
        examples=["{format: bf16}"],
        json_schema_extra=without("the defaults below"),
    )
    batch_norm: Annotated[str, BeforeValidator(checks.choice("separate", "folded"))] = Field(
        default="separate",
        description="batch normalisation behind a product: computed by the vector unit, or folded into the weights",
        examples=["folded"],
    )
    layers: dict[str, Annotated[LayerSection, BeforeValidator(checks.layer)]] = Field(
        default={},
        description="layers of the network, by glob pattern on the path of a module; the first that fits counts",
        examples=["{'fc*': high}"],
        json_schema_extra=without("none"),
    )
