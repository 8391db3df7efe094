"""What SCALE-Sim 3.0.0 reports for a layer, its artefacts included: for comparison with it, never the model used here.

Its cycles are the index of the last one, so one less than there are; an output-stationary array drains for free, and
its writes are counted R + C too many a fold; partial sums of a weight-stationary one all go to DRAM, and none is read
back. Words are one byte.
Source: reports of SCALE-Sim 3.0.0 (tests/vectors/scalesim) and the formulas that reproduce them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from simulator.hardware import Array

from .folds import ceil_div
from .one_pass import Pass, uniform_pass
from .problem import Problem
from .traffic import ArrayBits, Traffic, Transfer, level_bits


@dataclass(frozen=True)
class ScaleSimLayer:
    """A layer as SCALE-Sim reports it; names are those of its columns in tests/vectors/scalesim.

    Args:
        layer: name. M, N, K: of the product O[M x N] = A[M x K] W[K x N].
        dataflow: ws, os or is. rows, cols: of the array.
        total_cycles: index of the last cycle; exact without stalls, with them a lower bound. stall_cycles: of these.
        overall_util_pct, mapping_eff_pct, compute_util_pct: in per cent.
        sram_a_reads, sram_w_reads, sram_o_writes, dram_a_reads, dram_w_reads, dram_o_writes: words; those of DRAM
            without stalls. Exact, but for dram_o_writes, of which the tool counts up to cols - 1 more.
    """

    layer: str
    M: int
    N: int
    K: int
    dataflow: str
    rows: int
    cols: int
    total_cycles: int
    stall_cycles: int
    overall_util_pct: float
    mapping_eff_pct: float
    compute_util_pct: float
    sram_a_reads: int
    sram_w_reads: int
    sram_o_writes: int
    dram_a_reads: int
    dram_w_reads: int
    dram_o_writes: int


def scalesim_layer(
    layer: str,
    m: int,
    n: int,
    k: int,
    dataflow: str,
    rows: int,
    cols: int,
    bandwidth: int | None = None,
    input_words: int | None = None,
) -> ScaleSimLayer:
    """Return what SCALE-Sim reports for a product.

    Args:
        m, n, k: at least 1. dataflow: ws, os or is. rows, cols: of the array.
        bandwidth: words a cycle of each of its three private DRAM channels; None for no stalls (its mode CALC).
        input_words: distinct words of A, of a convolution those of its image; None for M * K.
    """
    stationary_outputs, exchanged = dataflow == "os", dataflow == "is"
    # An input-stationary array is a weight-stationary one with the operands exchanged.
    streamed, held = (n, m) if exchanged else (m, n)
    along_rows, along_cols, length = (m, n, k) if stationary_outputs else (k, held, streamed)
    down, across = ceil_div(along_rows, rows), ceil_div(along_cols, cols)
    folds = down * across
    lines = length + rows + cols - 2 + (0 if stationary_outputs else rows)
    cycles = folds * lines - 1
    reads = across * streamed * k, (down if stationary_outputs else 1) * held * k
    a_reads, w_reads = reversed(reads) if exchanged else reads
    o_writes = m * n if stationary_outputs else down * m * n
    a_words = m * k if input_words is None else input_words
    busiest = max(a_words, k * n, o_writes)
    stalled = cycles if bandwidth is None else max(cycles, ceil_div(busiest, bandwidth))
    macs, places = m * n * k, rows * cols
    return ScaleSimLayer(
        layer=layer, M=m, N=n, K=k, dataflow=dataflow, rows=rows, cols=cols,
        total_cycles=stalled, stall_cycles=stalled - cycles,
        overall_util_pct=100 * macs / (stalled * places) if stalled else 0.0,
        mapping_eff_pct=100 * along_rows * along_cols / (folds * places),
        compute_util_pct=100 * macs / (folds * (lines + (0 if stationary_outputs else cols - 1)) * places),
        sram_a_reads=a_reads, sram_w_reads=w_reads,
        sram_o_writes=o_writes + (folds * (rows + cols) if stationary_outputs else 0),
        dram_a_reads=a_words, dram_w_reads=k * n, dram_o_writes=o_writes,
    )  # fmt: skip


def scalesim_pass(array: Array, problem: Problem) -> Pass:
    """Return a product on a machine with `compat: scalesim3`, counted as SCALE-Sim does: without a memory that stalls.

    Its cycles are the index of the last one, and so is the roofline; bits are words of one byte.

    Args:
        array: as SCALE-Sim has it: stationary operands load before each fold, os drains for free, one MAC a PE.
    """
    own = uniform_pass(array, None, array.dataflow, problem)
    m, n, k = problem.m, problem.n, problem.k
    layer = scalesim_layer("", m, n, k, array.dataflow, array.rows, array.columns)
    words = ArrayBits(layer.sram_a_reads, layer.sram_w_reads, layer.sram_o_writes)
    dram = Transfer(8 * layer.dram_a_reads, 8 * layer.dram_w_reads, 8 * layer.dram_o_writes)
    traffic = Traffic(ArrayBits().plus(words, 8), (dram,))
    return replace(
        own,
        run=own.run._replace(compute=own.run.compute - 1),
        roofline=own.roofline - 1,
        traffic=traffic,
        level_bits=level_bits(None, traffic),
    )


def scalesim_artefacts(dataflow: str) -> str:
    """Return in words what of the figures of `scalesim_pass` is SCALE-Sim's and no array's."""
    outputs = "every partial sum goes to DRAM, and none is read back"
    if dataflow == "os":
        outputs = "outputs drain for free, and R + C writes too many are counted in each fold"
    return (
        "array.compat: scalesim3: cycles and traffic are those of SCALE-Sim 3.0.0, artefacts included: cycles are the "
        f"index of the last one, {outputs}, words have one byte, nothing stalls; the energy is that of the array "
        "alone, without memory"
    )


def scalesim_convolution(
    height: int, width: int, kernel_height: int, kernel_width: int, channels: int, filters: int, stride: int
) -> tuple[int, int, int]:
    """Return (M, N, K) that SCALE-Sim makes of a convolution: an output too many where the stride leaves a rest."""
    outputs = _outputs(height, kernel_height, stride) * _outputs(width, kernel_width, stride)
    return outputs, filters, kernel_height * kernel_width * channels


def scalesim_input_words(
    height: int, width: int, kernel_height: int, kernel_width: int, channels: int, filters: int, stride: int
) -> int:
    """Return the distinct words of the image that SCALE-Sim's convolution reads, with the arguments of the same."""
    return _covered(height, kernel_height, stride) * _covered(width, kernel_width, stride) * channels


def _outputs(size: int, kernel: int, stride: int) -> int:
    return ceil_div(size - kernel + stride, stride)


def _covered(size: int, kernel: int, stride: int) -> int:
    """Places along an axis under a window; the last window may stand beyond the end in part or as a whole."""
    before = _outputs(size, kernel, stride) - 1
    return before * min(stride, kernel) + max(min(kernel, size - before * stride), 0)
