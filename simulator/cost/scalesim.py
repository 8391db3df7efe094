"""What SCALE-Sim 3.0.0 reports for a layer, its artefacts included: for comparison with it, never the model used here.

Its cycles are the index of the last one, so one less than there are; an output-stationary array drains for free, and
its writes are counted R + C too many a fold; partial sums of a weight-stationary one all go to DRAM, and none is read
back. Words are one byte.
Source: reports of SCALE-Sim 3.0.0 (tests/vectors/scalesim) and the formulas that reproduce them all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .folds import ceil_div


@dataclass(frozen=True)
class ScaleSimLayer:
    """A layer as SCALE-Sim reports it; names are those of its columns in tests/vectors/scalesim.

    Args:
        layer: name. M, N, K: of the product O[M x N] = A[M x K] W[K x N].
        dataflow: ws, os or is. rows, cols: of the array.
        total_cycles: index of the last cycle; exact without stalls, with them a lower bound. stall_cycles: of these.
        overall_util_pct, mapping_eff_pct, compute_util_pct: in per cent.
        sram_a_reads, sram_w_reads, sram_o_writes, dram_a_reads, dram_w_reads, dram_o_writes: words. Exact, but for
            dram_o_writes, of which the tool counts up to cols - 1 more.
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
    layer: str, m: int, n: int, k: int, dataflow: str, rows: int, cols: int, bandwidth: int | None = None
) -> ScaleSimLayer:
    """Return what SCALE-Sim reports for a product.

    Args:
        m, n, k: at least 1. dataflow: ws, os or is. rows, cols: of the array.
        bandwidth: words a cycle of each of its three private DRAM channels; None for no stalls (its mode CALC).
    """
    if dataflow == "is":  # the weight-stationary array with the operands exchanged
        other = scalesim_layer(layer, n, m, k, "ws", rows, cols, bandwidth)
        return replace(
            other, M=m, N=n, dataflow="is", sram_a_reads=other.sram_w_reads, sram_w_reads=other.sram_a_reads,
            dram_a_reads=other.dram_w_reads, dram_w_reads=other.dram_a_reads,
        )  # fmt: skip
    along_rows, along_cols, streamed = (m, n, k) if dataflow == "os" else (k, n, m)
    down, across = ceil_div(along_rows, rows), ceil_div(along_cols, cols)
    folds = down * across
    lines = streamed + rows + cols - 2 + (0 if dataflow == "os" else rows)
    cycles = folds * lines - 1
    stationary = dataflow == "os"
    o_writes = m * n if stationary else down * m * n
    words = {"a": m * k, "w": k * n, "o": o_writes}
    stalled = cycles if bandwidth is None else max(cycles, ceil_div(max(words.values()), bandwidth))
    macs, places = m * n * k, rows * cols
    return ScaleSimLayer(
        layer=layer, M=m, N=n, K=k, dataflow=dataflow, rows=rows, cols=cols,
        total_cycles=stalled, stall_cycles=stalled - cycles,
        overall_util_pct=100 * macs / (stalled * places) if stalled else 0.0,
        mapping_eff_pct=100 * along_rows * along_cols / (folds * places),
        compute_util_pct=100 * macs / (folds * (lines + (0 if stationary else cols - 1)) * places),
        sram_a_reads=across * m * k, sram_w_reads=(down if stationary else 1) * k * n,
        sram_o_writes=o_writes + (folds * (rows + cols) if stationary else 0),
        dram_a_reads=words["a"], dram_w_reads=words["w"], dram_o_writes=words["o"],
    )  # fmt: skip


def scalesim_convolution(
    height: int, width: int, kernel_height: int, kernel_width: int, channels: int, filters: int, stride: int
) -> tuple[int, int, int]:
    """Return (M, N, K) that SCALE-Sim makes of a convolution: an output too many where the stride leaves a rest."""
    rows = ceil_div(height - kernel_height + stride, stride)
    columns = ceil_div(width - kernel_width + stride, stride)
    return rows * columns, filters, kernel_height * kernel_width * channels
