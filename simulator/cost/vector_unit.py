"""The price of what is no product: elementary operations on the lanes of a vector unit, and the data they pass over.

A lane adds, multiplies, or does both at once (a fused multiply-add), one of the three in a cycle. What else there is
consists of these: functions are polynomials and Newton steps, whose numbers are assumed. Each pass over the data reads
it from the on-chip buffer at the width of its port. Tensors that do not fit on the chip together come from the DRAM and
go back to it, once. What the unit does to the results of a product on their way out moves nothing of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from formats import Format
from simulator.errors import InputError
from simulator.hardware import Machine
from simulator.hardware.technology import BANDS
from simulator.result import EnergyItem

from .energy import Ledger, lane_energies
from .energy_items import memory_charges
from .folds import ceil_div
from .traffic import transfer_cycles

# Fused multiply-adds of a function, and of a reciprocal or reciprocal root from a small table (assumed): a polynomial
# of degree 5 or 6 behind a reduction of the argument, and two Newton steps. Libraries for float32 take about as many.
POLYNOMIAL, NEWTON = 8, 4
# Parts of an energy.
VECTOR_PARTS = ("vector unit", "sram", "dram", "leak")
# Class of an energy of steps that the table gives: their numbers are assumed.
UNCERTAINTY = "assumed"


@dataclass(frozen=True)
class Steps:
    """Elementary operations: additions (subtractions, comparisons, selections), multiplications, both fused."""

    add: int = 0
    multiply: int = 0
    fma: int = 0

    @property
    def total(self) -> int:
        return self.add + self.multiply + self.fma

    def plus(self, other: Steps, times: int = 1) -> Steps:
        """Return the sum with so many times another."""
        return Steps(self.add + times * other.add, self.multiply + times * other.multiply, self.fma + times * other.fma)


_WORDS = {
    **dict.fromkeys(("add", "subtract", "maximum", "minimum", "compare", "select"), Steps(add=1)),
    "multiply": Steps(multiply=1),
    "fma": Steps(fma=1),
    **dict.fromkeys(("exp", "log", "erf", "polynomial"), Steps(fma=POLYNOMIAL)),
    **dict.fromkeys(("reciprocal", "rsqrt"), Steps(fma=NEWTON)),
}


@dataclass(frozen=True)
class Kind:
    """A kind of operation.

    Args:
        element, row: steps for each element, and for each result of the sums and maxima within.
        passes: how often the data is read. kept: results of an element that a pass leaves in the buffer for the next.
    """

    element: Steps
    row: Steps = Steps()
    passes: int = 1
    kept: int = 0


def _kind(element: str, row: str = "", passes: int = 1, kept: int = 0) -> Kind:
    return Kind(_steps(element), _steps(row), passes, kept)


def _steps(words: str) -> Steps:
    total = Steps()
    for word in words.split():
        total = total.plus(_WORDS[word])
    return total


_TANH = "multiply exp add reciprocal fma"  # 1 - 2/(exp(2x) + 1)
_SIGMOID = "exp add reciprocal"

# Each kind in the words of its formula.
KINDS = {
    "move": _kind(""),
    "elementwise": _kind("add"),
    "multiply": _kind("multiply"),
    "multiply_add": _kind("fma"),
    "divide": _kind("reciprocal multiply"),
    "square_root": _kind("rsqrt multiply"),
    "function": _kind("polynomial"),
    "power": _kind("log multiply exp"),
    "relu": _kind("maximum"),
    "clamp": _kind("minimum maximum"),
    "leaky_relu": _kind("multiply select"),
    "hardswish": _kind("add minimum maximum multiply multiply"),
    "sigmoid": _kind(_SIGMOID),
    "tanh": _kind(_TANH),
    "silu": _kind(f"{_SIGMOID} multiply"),
    "gelu": _kind("multiply erf multiply fma"),
    "elu": _kind("exp subtract multiply select"),
    "softplus": _kind("exp add log select"),
    "mish": _kind(f"exp add log {_TANH} multiply"),
    "sigmoid_backward": _kind("subtract multiply multiply"),
    "tanh_backward": _kind("fma multiply"),
    "silu_backward": _kind(f"{_SIGMOID} subtract fma multiply multiply"),
    "gelu_backward": _kind("multiply erf fma multiply multiply exp multiply fma multiply"),
    "mish_backward": _kind(f"exp add log {_TANH} {_SIGMOID} multiply fma fma multiply"),
    "dropout": _kind("compare multiply"),
    "sum": _kind("add"),
    "mean": _kind("add", row="multiply"),
    "maximum": _kind("maximum"),
    "product": _kind("multiply"),
    "norm": _kind("fma", row="rsqrt multiply"),
    "variance": _kind("add subtract fma", row="multiply multiply", passes=2),
    "log_sum_exp": _kind("maximum subtract exp add", row="log add", passes=2),
    "softmax": _kind("maximum subtract exp add multiply", row="reciprocal", passes=3, kept=1),
    "log_softmax": _kind("maximum subtract exp add subtract", row="log add", passes=3),
    "softmax_backward": _kind("fma subtract multiply", passes=3),
    "log_softmax_backward": _kind("add exp fma", passes=2),
    "scale_and_shift": _kind("fma"),
    "normalisation": _kind("add subtract fma fma fma", row="multiply fma rsqrt multiply", passes=3),
    "rms_norm": _kind("fma multiply multiply", row="fma rsqrt", passes=2),
    "normalisation_backward": _kind("fma multiply add fma fma fma multiply fma add", passes=3),
    "weight_norm": _kind("fma multiply", row="rsqrt multiply", passes=2),
    "max_pool": _kind("maximum"),
    "average_pool": _kind("add", row="multiply"),
    "interpolation": _kind("fma"),
}  # fmt: skip


# Kinds that make of each element one element, whatever the others are.
ELEMENTWISE = frozenset({
    "elementwise", "multiply", "multiply_add", "divide", "square_root", "function", "power", "relu", "clamp",
    "leaky_relu", "hardswish", "sigmoid", "tanh", "silu", "gelu", "elu", "softplus", "mish", "sigmoid_backward",
    "tanh_backward", "silu_backward", "gelu_backward", "mish_backward", "dropout", "scale_and_shift",
})  # fmt: skip


@dataclass(frozen=True)
class VectorOperation:
    """An operation of the network that is no product, all samples of a run in one batch.

    Args:
        kind: one of KINDS. elements: for which the steps of an element are done: of a pooling, all in all windows.
        rows: results of the sums and maxima within.
        inputs, outputs: elements of its operands and results in memory, each counted once.
        parameters: elements of operands that all samples share.
    """

    kind: str
    elements: int
    rows: int
    inputs: int
    outputs: int
    parameters: int = 0

    def joined(self, other: VectorOperation) -> VectorOperation:
        """Return both as one operation on the samples of both."""
        return VectorOperation(
            self.kind, self.elements + other.elements, self.rows + other.rows, self.inputs + other.inputs,
            self.outputs + other.outputs, max(self.parameters, other.parameters),
        )  # fmt: skip

    @property
    def steps(self) -> Steps:
        """Elementary operations in all (assumed)."""
        kind = KINDS[self.kind]
        return Steps().plus(kind.element, self.elements).plus(kind.row, self.rows)


@dataclass(frozen=True)
class VectorCost:
    """What an operation costs on the vector unit (estimates, of steps that are assumed).

    Args:
        cycles: of lanes, ports and DRAM the slowest, and the latency of the DRAM. roofline_cycles: without latencies, a
            lower bound for these steps and bits. latency_s: cycles over the clock.
        energy_j: of the steps, on-chip and off-chip memory and leakage. energy_low_j, energy_high_j: bounds by the
            bands of their classes. energy_basis: class and band of the steps, in words.
        steps: elementary operations. traffic_bits: dram, and NAME_reads, NAME_writes of each on-chip level.
        ledger: of which energy_items are made.
    """

    cycles: int
    roofline_cycles: int
    latency_s: float
    energy_j: float
    energy_low_j: float
    energy_high_j: float
    energy_basis: str
    steps: Steps
    traffic_bits: dict[str, int]
    ledger: Ledger = field(repr=False, compare=False)

    @property
    def energy_items(self) -> tuple[EnergyItem, ...]:
        """What was counted, one record each; their energies add up to energy_j."""
        return self.ledger.items()


def vector_price(machine: Machine, operation: VectorOperation, form: Format) -> VectorCost:
    """Price an operation on the vector unit of a machine, its values in a format.

    Returns:
        The cost: cycles, seconds, joules and bits, all estimates of a stated model; roofline_cycles leave the latency
        of the DRAM out.
    Raises:
        InputError: the unit is not priced, or not in this format; `why_unpriced` says so beforehand.
    """
    reason = why_unpriced(machine, form)
    if reason:
        raise InputError(f"{machine.source}: vector_unit: {reason}")
    steps, unit = operation.steps, machine.vector_unit
    assert unit.lanes is not None
    ledger = Ledger(VECTOR_PARTS)
    _add_steps(machine, steps, form, ledger)
    bound, traffic = _memory(machine, operation, form.bits, ledger)
    bound = max(bound, ceil_div(steps.total, unit.lanes))
    cycles = bound
    if traffic["dram"]:
        assert machine.memory is not None
        cycles += 2 * machine.memory.dram.latency_cycles
    technology = machine.technology
    latency_s = cycles / technology.frequency_hz
    ledger.add("leak", "static power", latency_s, technology.given(technology.leakage_w, "s"))
    totals = ledger.totals()
    uncertainty = _uncertainty(machine)
    return VectorCost(
        cycles=cycles,
        roofline_cycles=bound,
        latency_s=latency_s,
        energy_j=sum(totals.parts_j.values()),
        energy_low_j=totals.low_j,
        energy_high_j=totals.high_j,
        energy_basis=f"vector unit {uncertainty} x/÷ {BANDS[uncertainty]:g}",
        steps=steps,
        traffic_bits=traffic,
        ledger=ledger,
    )


def why_unpriced(machine: Machine, form: Format) -> str:
    """Return why the vector unit has no price in a format, and what to do; empty if it has one."""
    unit = machine.vector_unit
    if unit.lanes is None:
        return "the machine gives no lanes; add vector_unit.lanes"
    if unit.energy_j is None and lane_energies(machine.technology.table, form) is None:
        return f"the energy model has no price for {form}; add vector_unit.energy"
    return ""


def _memory(machine: Machine, operation: VectorOperation, bits: int, ledger: Ledger) -> tuple[int, dict[str, int]]:
    """Return the cycles of the slowest memory port and the bits moved by level, and add their energies.

    The unit works on the buffer of activations. What is too large for a level comes through it from the next one
    further out, and goes back, once.
    """
    kind = KINDS[operation.kind]
    loads, stores = bits * (operation.inputs + operation.parameters), bits * operation.outputs
    reads = loads + bits * (kind.passes - 1) * operation.elements
    writes = stores + bits * kind.kept * operation.elements
    memory = machine.memory
    if memory is None:
        return 0, {"dram": 0, "sram_reads": reads, "sram_writes": writes}
    bound, traffic, (on_chip, dram) = 0, {"dram": 0}, memory_charges(machine)
    through = True
    for level in (memory.buffer("a"), *reversed(memory.staging)):
        bound = max(
            bound,
            transfer_cycles(reads, level.read_bits_per_cycle),
            transfer_cycles(writes, level.write_bits_per_cycle),
        )
        through = through and loads + stores > level.size_bits
        outwards, inwards = (stores, loads) if through else (0, 0)
        for way, moved, (what, energy) in zip(
            ("reads", "writes"), (reads + outwards, writes + inwards), on_chip[level.name], strict=True
        ):
            traffic[f"{level.name}_{way}"] = moved
            ledger.add("sram", what, moved, energy)
        reads, writes = inwards, outwards
    traffic["dram"] = reads + writes
    ledger.add("dram", "dram reads and writes", traffic["dram"], dram)
    return max(bound, transfer_cycles(traffic["dram"], memory.dram.bandwidth_bits_per_cycle)), traffic


def _uncertainty(machine: Machine) -> str:
    return UNCERTAINTY if machine.vector_unit.energy_j is None else machine.technology.given_class


def _add_steps(machine: Machine, steps: Steps, form: Format, ledger: Ledger) -> None:
    given = machine.vector_unit.energy_j
    if given is not None:
        ledger.add("vector unit", "steps", steps.total, machine.technology.given(given, "step"))
        return
    found = lane_energies(machine.technology.table, form)
    assert found is not None
    add, multiply = (replace(entry, uncertainty=UNCERTAINTY) for entry in found)
    ledger.add("vector unit", "additions", steps.add + steps.fma, add)
    ledger.add("vector unit", "multiplications", steps.multiply + steps.fma, multiply)
