"""An Op on the engine: in one pass or several, with scaled operands or plain ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from formats import Use
from simulator.arithmetic.convolution import terms
from simulator.arithmetic.criterion import Account
from simulator.arithmetic.engine import Accumulation, RandomKey, Ready, random_key
from simulator.arithmetic.ladder import ladder
from simulator.arithmetic.scaling import scaled as scaled_sums
from simulator.arithmetic.scores import OF_LOGITS, Sensitivity
from simulator.arithmetic.spec import MacSpec
from simulator.arithmetic.stats import Stats
from simulator.arithmetic.zeros import zero_macs

from .consumers import Consumer
from .layer_arithmetic import Arithmetic
from .ops import Block, Op
from .scaled import Scaled


class Outcome(NamedTuple):
    """What an Op gave.

    Args:
        outputs: (gemms, M, N), 0 in columns that were not asked for. overflows: outputs with an overflow in the first
            pass.
        flags: of each pass after the first, (gemms, M, N): what it computed.
    """

    outputs: NDArray[Any]
    overflows: int
    flags: tuple[NDArray[np.bool_], ...] = ()


@dataclass(frozen=True)
class Place:
    """Where in a run an Op is, which picks its random words, and how many threads compute it, which picks none.

    Args:
        seed: of the run. site: number of the layer. first_row: rows of it computed before.
        threads: at most so many; None for all processors. accounts: of a budget, by product of the layer.
    """

    seed: int
    site: int
    first_row: int
    threads: int | None
    accounts: dict[int, Account] = field(default_factory=dict)

    def row(self, op: Op, block: Block) -> int:
        """Return the row of a block in the whole run, so that random words do not depend on how samples are batched."""
        return self.first_row + (block.gemm * op.m if op.batched else block.gemm << 32) + block.rows.start

    def matrix(self, op: Op, block: Block) -> int:
        """Return the number of a block's matrix b in the whole run."""
        return self.row(op, block) // op.m if op.batched else block.gemm


# Takes (operand b of a block, the number of its product, the number of the part of K, its format) and makes it ready.
MakeReady = Callable[[NDArray[Any], int, int, Use], Ready]


# Some columns of an Op's products, (gemms, N), None for all; and those of a block, (N,) or the slice of all.
Columns = NDArray[np.bool_] | None
Chosen = NDArray[np.bool_] | slice


def execute(
    op: Op,
    arithmetic: Arithmetic,
    consumer: Consumer,
    place: Place,
    scaled: Scaled | None,
    ready: MakeReady,
    columns: Columns = None,
) -> Outcome:
    """Compute an Op.

    Args:
        arithmetic: with a MAC. consumer: what the score of a second pass looks at.
        scaled: the same Op with its operands over their scales, or None.
        ready: makes an operand ready that has a format, or finds it ready from an earlier time.
        columns: that are computed, of an Op in one pass; each has the bits that it has beside all others.
    """
    assert arithmetic.low is not None
    if arithmetic.high is not None:
        assert columns is None
        return _in_passes(op, arithmetic, consumer, place, scaled, ready)
    spec = op.on(arithmetic.low)
    if scaled is None:
        return _one_pass(op, spec, place, ready, columns)
    return _by_parts(op, spec, place, scaled, ready, columns)


def zeros_of(
    op: Op, spec: MacSpec, place: Place, scaled: Scaled | None, ready: MakeReady, columns: Columns = None
) -> int:
    """Return how many MACs of an Op have a zero operand, as its first pass has quantised them. Exact.

    Args:
        spec: of the first pass. The others are those of `execute`.
    """
    spec, zeros = op.on(spec), 0
    for block, chosen in _blocks(op if scaled is None else scaled.op, spec, columns):
        for i, part in enumerate((slice(None),) if scaled is None else scaled.parts):
            own = block if scaled is None else _part(block, part)
            prepared = _sums(op, spec, place, _with_ready_b(own._replace(c=None), spec, ready, i), part=i)
            zeros += zero_macs(prepared.a, prepared.b[:, chosen])
    return zeros


def _blocks(op: Op, spec: MacSpec, columns: Columns) -> Iterator[tuple[Block, Chosen]]:
    """Yield the blocks in which there are such columns, with what picks these."""
    for block in op.blocks(spec):
        if columns is None:
            yield block, slice(None)
        elif columns[block.gemm].any():
            yield block, columns[block.gemm]


def _dense(
    op: Op, spec: MacSpec, place: Place, block: Block, chosen: Chosen, part: int = 0
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Compute columns of a block, whose operand b is ready if it has a format; return outputs and overflows."""
    if isinstance(chosen, slice) or spec.stochastic:  # a random word is that of a place beside all other columns
        y, stats = _sums(op, spec, place, block, part).dense("overflows")
        assert stats is not None
        return y[:, chosen], stats.overflowed[:, chosen]
    b = block.b.of_columns(chosen) if isinstance(block.b, Ready) else block.b[:, chosen]
    c = None if block.c is None else np.broadcast_to(block.c, (block.a.shape[0], op.n))[:, chosen]
    return _dense(op, spec, place, block._replace(b=b, c=c), slice(None), part)


def _part(block: Block, part: slice) -> Block:
    """Return part of the terms of every sum of a block, without its addend."""
    assert not isinstance(block.b, Ready)
    return block._replace(a=terms(block.a, part), b=block.b[part], c=None)


def _with_ready_b(block: Block, spec: MacSpec, ready: MakeReady, part: int = 0) -> Block:
    """Return a block with its operand b made ready, if that is the same for all rows."""
    use = spec.operands[1] if spec.operands else None
    if use is None or use.mode.stochastic or isinstance(block.b, Ready):
        return block
    return block._replace(b=ready(block.b, block.gemm, part, use))


def _one_pass(op: Op, spec: MacSpec, place: Place, ready: MakeReady, columns: Columns) -> Outcome:
    out = _room(op, spec.dtype, columns)
    overflows = 0
    for plain, chosen in _blocks(op, spec, columns):
        block = _with_ready_b(plain, spec, ready)
        if op.factors == (1.0, 1.0):
            out[block.gemm, block.rows][:, chosen], overflowed = _dense(op, spec, place, block, chosen)
            overflows += int(np.count_nonzero(overflowed))
        else:
            assert columns is None
            out[block.gemm, block.rows], stats = _with_factors(op, spec, place, block)
            overflows += stats.overflows if stats else 0
    return Outcome(out, overflows)


def _room(op: Op, dtype: np.dtype[Any] | type, columns: Columns) -> NDArray[Any]:
    """Return an array for the outputs of an Op."""
    return (np.empty if columns is None else np.zeros)((op.gemms, op.m, op.n), dtype)


def _with_factors(op: Op, spec: MacSpec, place: Place, block: Block) -> tuple[NDArray[Any], Stats | None]:
    """Return alpha times the sums plus beta times the addend, which the unit's epilogue computes; beta 0 reads none."""
    alpha, beta = op.factors
    c = op.addend_of(block) if beta else None
    key = _key(op, place, block)
    assert isinstance(block.a, np.ndarray)  # no convolution has factors
    return scaled_sums(spec, block.a, block.b, c, place.threads, key, "overflows", alpha, beta)


def _by_parts(op: Op, spec: MacSpec, place: Place, scaled: Scaled, ready: MakeReady, columns: Columns) -> Outcome:
    """Accumulate each part of K for itself; scales, sums of the parts and the addend are in float32."""
    out = _room(op, np.float32, columns)
    overflows = 0
    for block, chosen in _blocks(scaled.op, spec, columns):
        total: NDArray[Any] | None = None
        flags = np.zeros((block.a.shape[0], op.n), np.bool_)[:, chosen]
        for i, part in enumerate(scaled.parts):
            own = _with_ready_b(_part(block, part), spec, ready, i)
            sums, overflowed = _dense(op, spec, place, own, chosen, part=i)
            flags |= overflowed
            y = _unscaled(sums, scaled, block, i, chosen)
            total = y if total is None else total + y
        assert total is not None
        out[block.gemm, block.rows][:, chosen] = _with_addend(total, op, block, chosen)
        overflows += int(np.count_nonzero(flags))
    return Outcome(out, overflows)


def _in_passes(
    op: Op, arithmetic: Arithmetic, consumer: Consumer, place: Place, scaled: Scaled | None, ready: MakeReady
) -> Outcome:
    units = arithmetic.units
    low = units[0]
    dtype = np.result_type(*(unit.dtype for unit in units)) if scaled is None else np.dtype(np.float32)
    out = np.empty((op.gemms, op.m, op.n), dtype)
    flags = tuple(np.zeros(out.shape, np.bool_) for _ in units[1:])
    same = low.operands is not None and len({unit.operands and unit.operands[1] for unit in units}) == 1
    overflows = 0
    for block in (op if scaled is None else scaled.op).blocks(low):
        criterion = arithmetic.criterion
        if criterion is not None and isinstance(criterion.score, Sensitivity):
            criterion = replace(criterion, score=criterion.score.part(block.gemm, op.n))
        gemm, rows, a, b, c = _with_ready_b(block, low, ready) if same else block
        scale, shift = affine_of(op, block, consumer, scaled)
        r = ladder(
            a, b, units, activation=consumer.activation, c=c, seed=place.seed, threads=place.threads,
            criterion=criterion, scale=scale, shift=shift, site=place.site, first_row=place.row(op, block),
            matrix=place.matrix(op, block), keep_scores=False,
            logits=consumer.logits_of(op, block) if criterion is not None and criterion.score in OF_LOGITS else None,
            account=place.accounts.setdefault(0 if op.batched else gemm, Account()),
        )  # fmt: skip
        out[gemm, rows] = r.output if scaled is None else outputs_of(r.output, op, block, scaled)
        for own, computed in zip(flags, r.computed, strict=True):
            own[gemm, rows] = computed
        overflows += int(np.count_nonzero(r.saturated))
    return Outcome(out, overflows, flags)


def affine_of(op: Op, block: Block, consumer: Consumer, scaled: Scaled | None) -> tuple[Any, Any]:
    """Return scale and shift from the sums of a block to what its activation gets, as they broadcast to these.

    With scaled operands the sums are multiplied by the scales and have the addend before they are normalised.
    """
    scale: Any
    shift: Any
    scale, shift = (1.0, 0.0) if consumer.affine is None else (op.columns(x, block.gemm) for x in consumer.affine)
    if scaled is None:
        return scale, shift
    addend = op.addend_of(block)
    shift = shift if addend is None else scale * addend + shift
    return scale * (_left(scaled, block, 0) * _right(scaled, block, 0)), shift


def outputs_of(sums: NDArray[Any], op: Op, block: Block, scaled: Scaled) -> NDArray[Any]:
    """Return the outputs of a block from the sums of its scaled operands, float32."""
    return _with_addend(_unscaled(sums, scaled, block, 0), op, block)


def _sums(op: Op, spec: MacSpec, place: Place, block: Block, part: int = 0) -> Accumulation:
    """Return the accumulation of a block, ready to run."""
    return Accumulation(spec, block.a, block.b, block.c, place.threads, _key(op, place, block, part))


def _key(op: Op, place: Place, block: Block, part: int = 0) -> RandomKey:
    return random_key(place.seed, part, 2 * place.site, place.row(op, block), op.n, place.matrix(op, block))


def _unscaled(
    sums: NDArray[Any], scaled: Scaled, block: Block, part: int, chosen: Chosen = slice(None)
) -> NDArray[Any]:
    right = _right(scaled, block, part)
    with np.errstate(all="ignore"):
        return sums.astype(np.float32) * _left(scaled, block, part) * (right if right.size == 1 else right[chosen])


def _left(scaled: Scaled, block: Block, part: int) -> NDArray[Any]:
    left = scaled.left
    own = left[block.gemm if left.shape[0] > 1 else 0, :, part if left.shape[2] > 1 else 0]
    return (own if own.size == 1 else own[block.rows])[:, None]


def _right(scaled: Scaled, block: Block, part: int) -> NDArray[Any]:
    right = scaled.right
    return right[block.gemm if right.shape[0] > 1 else 0, part if right.shape[1] > 1 else 0]


def _with_addend(y: NDArray[Any], op: Op, block: Block, chosen: Chosen = slice(None)) -> NDArray[Any]:
    alpha, beta = (np.float32(factor) for factor in op.factors)
    addend = op.addend_of(block) if beta else None
    with np.errstate(all="ignore"):
        scaled = y * alpha
        return scaled if addend is None else scaled + addend[:, chosen].astype(np.float32) * beta
