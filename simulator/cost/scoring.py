"""What the score takes beside the first pass: the side metric of the policy.

`output` looks at the finished output alone. `abs_sum` keeps a second running sum, of |a w|, which goes wherever the sum
goes. `second_pass` is another low pass over |a| and |w|, before the first one, whose results come back for the scores.
`norm_bound` takes the norms of the rows of A and the columns of W once, beside their way to the array.
"""

from __future__ import annotations

from formats import FixedFormat, FloatFormat, Use
from simulator.hardware import Machine
from simulator.hardware.technology import Entry, TechnologyTable

from .datapath import lane_components
from .energy import component_energy
from .one_pass import Pass
from .traffic import ArrayBits, Traffic, Transfer, memory_bound


def side_bits(machine: Machine) -> int:
    """Return the bits of the second running sum, 0 without one."""
    use = _running_sum(machine)
    return 0 if use is None else use.format.bits


def low_passes(machine: Machine) -> int:
    """Return how many passes the array makes in the low mode."""
    return 2 if machine.policy is not None and machine.policy.side_metric == "second_pass" else 1


def low_cycles(machine: Machine, first: Pass, outputs: int) -> int:
    """Return the cycles of the low passes of one GEMM with so many outputs."""
    if low_passes(machine) == 1:
        return first.cycles
    with_scores = first.traffic.plus(numerators(machine, outputs))
    return first.cycles + max(first.cycles, memory_bound(machine.memory, with_scores))


def low_traffic(machine: Machine, first: Pass, outputs: int) -> Traffic:
    """Return the bits that the low passes of one GEMM move, with what the scores fetch of the other pass."""
    passes = low_passes(machine)
    return first.traffic if passes == 1 else first.traffic.plus(first.traffic).plus(numerators(machine, outputs))


def numerators(machine: Machine, outputs: int) -> Traffic:
    """Return the bits of the results of the pass over |a| and |w| on their way back, which is that of operands."""
    bits, memory = outputs * machine.mac.low.output_bits, machine.memory
    levels = 0 if memory is None else len(memory.staging) + 1
    return Traffic(ArrayBits(a_reads=bits), (Transfer(bits, 0, 0),) * levels)


def mask_bits(machine: Machine) -> int:
    """Return the bits that say of an output which pass computes it: one of two, or which of a ladder."""
    return len(machine.mac.further).bit_length()


def side_add(table: TechnologyTable, use: Use) -> Entry:
    """Return the energy of adding one |a w| to the second running sum."""
    adder, _ = lane_components(use.format)
    return component_energy(table, adder, "MAC")


def relative_extra(machine: Machine) -> float:
    """Return e, what the score accumulates in units of a low pass, by bits of the accumulator.

    1 for `second_pass`; the bits of the second running sum over those of the first for `abs_sum`; 0 otherwise: norms
    are (M + N)*K operations beside M*N*K.
    """
    if machine.policy is not None and machine.policy.side_metric == "second_pass":
        return 1.0
    return side_bits(machine) / machine.mac.low.accumulator_bits


def scoring_warnings(machine: Machine, k: int) -> list[str]:
    """Return whether the second running sum is too narrow for sums of K terms.

    Rounded to nearest, a sum of equal terms stops growing after about 2**m of them, m its significand bits: with m of
    at least ceil(log2 K) + 1 that is beyond its end.
    """
    use = _running_sum(machine)
    if use is None:
        return []
    bits, needed = sum_significand_bits(use), (k - 1).bit_length() + 1
    if bits >= needed:
        return []
    return [
        f"policy.side_format: {use} has {bits} significand bits, with less than {needed} of which a sum of {k} terms "
        "may stop growing, so that scores are too low; take a wider format"
    ]


def sum_significand_bits(use: Use) -> int:
    """Return the bits of a sum of numbers that are not negative."""
    fmt = use.format
    if isinstance(fmt, FixedFormat):
        return fmt.total_bits - fmt.signed
    assert isinstance(fmt, FloatFormat)  # the loader takes no other
    return int(fmt.precision)


def _running_sum(machine: Machine) -> Use | None:
    return None if machine.policy is None else machine.policy.side_format
