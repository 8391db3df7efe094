"""Rules of softmax, its logarithm, and normalisations."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from simulator.errors import InputError

from .bounded import Bounded
from .graph import Node, Ref
from .moves import sum_factor
from .outward import above, below, grown
from .roundings import Rounding
from .rule import Gradients, Interval, Read, Rule, Step, Unit, operand
from .sums import factor_of


class Softmax(Rule):
    """(B27) softmax, computed as exp(x - max) over the sum of these, of n values in any order. With
    D = max (d_i + |t_i| u + (d_i + max d) u), t = x - max, and R = (1 + c u)(1 + u) / ((1 - c u)(1 - (n - 1) u)):
    e = exp(2 D) R - 1, and d = G D + (R - 1) y, G = max 2 y (1 - y), y at most min(1, y_hi exp(2 D)).
    """

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        x, dim, r = read(node.args[0].number), int(node.args[1]), unit.vector(node.path)
        lo, hi = probabilities(x.lo, x.hi, dim)
        d, e = softmax_bounds(x, x.d, lo, hi, dim, r, unit.library)
        box = probabilities(*x.box, dim)
        local, _ = softmax_bounds(x, torch.zeros_like(x.d), *box, dim, r, unit.library)
        underflow = (x.lo.shape[dim] + 1) * r.eta
        if r.eta:
            e = torch.full_like(e, torch.inf)
        return [Step(Bounded(lo, hi, grown(d + underflow), e), grown(local + underflow))]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        number, dim = node.args[0].number, int(node.args[1])
        g = grads[node.outputs[0]]  # type: ignore[index]
        lo, hi = probabilities(*read(number).box, dim)
        weighted = g.times(lo, hi)
        # sum_i g_i y_i is a mean of g with weights y, and so between its ends too.
        off = weighted.magnitude.sum(dim, keepdim=True) * 2.0**-36
        total = Interval(
            torch.maximum(weighted.lo.sum(dim, keepdim=True) - off, g.lo.amin(dim, keepdim=True)),
            torch.minimum(weighted.hi.sum(dim, keepdim=True) + off, g.hi.amax(dim, keepdim=True)),
        )
        slack = g.magnitude.amax(dim, keepdim=True) * 2.0**-36
        rest = Interval(g.lo - total.hi - slack, g.hi - total.lo + slack)
        return [(number, rest.times(lo, hi))]


def softmax_bounds(
    x: Bounded, d: Tensor, lo: Tensor, hi: Tensor, dim: int, r: Rounding, c: float
) -> tuple[Tensor, Tensor]:
    """Return absolute and relative bounds of a softmax where inputs are off by d, and exact results in [lo, hi]."""
    n, u = x.lo.shape[dim], r.u
    top, most = (x.box[1].amax(dim, keepdim=True), x.d.amax(dim, keepdim=True))
    spread = top - x.box[0]  # at least |t|, computed ones too
    each = d + (spread + d + most) * u
    reach = grown(each.amax(dim, keepdim=True))
    adds = sum_factor(r, n - 1)
    if c * u >= 1 or adds >= 1:
        return torch.full_like(d, torch.inf), torch.full_like(d, torch.inf)
    ratio = (1.0 + c * u) * (1.0 + u) / ((1.0 - c * u) * (1.0 - adds)) * (1.0 + 2.0**-40)
    stretch = above(torch.exp(2.0 * reach))
    e = grown(stretch * ratio - 1.0)
    low, high = lo / stretch, (hi * stretch).clamp(max=1.0)
    middle = torch.full_like(low, 0.5).maximum(low).minimum(high)
    g = 2.0 * middle * (1.0 - middle)
    return grown(g * reach + (ratio - 1.0) * high), e


class LogSoftmax(Rule):
    """(B28) x - max - log(sum exp(x - max)): of inputs off by d the result is off by d_i + max d; the evaluation by
    that of the two differences, and of the sum, whose relative error becomes an absolute one.
    """

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        x, dim, r = read(node.args[0].number), int(node.args[1]), unit.vector(node.path)
        lo, hi = probabilities(x.lo, x.hi, dim)
        n, u, c = x.lo.shape[dim], r.u, unit.library
        spread = x.box[1].amax(dim, keepdim=True) - x.box[0]
        adds = sum_factor(r, n - 1)
        shift = grown(spread.amax(dim, keepdim=True) * u)
        each = torch.expm1(shift) + c * u * shift.exp()
        relative = each + adds * (1.0 + each) + n * r.eta
        of_sum = -torch.log1p(-grown(relative).clamp(max=1.0)) * (1.0 + c * u) + c * u * math.log(n)
        off = grown(spread * u + of_sum + (spread + math.log(n) + of_sum) * (2.0 * u) + 3.0 * r.eta)
        moved = x.d + x.d.amax(dim, keepdim=True)
        return [Step(Bounded(below(lo.log()), above(hi.log()).clamp(max=TOP), grown(moved + off)), off)]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        number, dim = node.args[0].number, int(node.args[1])
        g = grads[node.outputs[0]]  # type: ignore[index]
        lo, hi = probabilities(*read(number).box, dim)
        total = Interval(g.lo.sum(dim, keepdim=True), g.hi.sum(dim, keepdim=True))
        slack = g.magnitude.sum(dim, keepdim=True) * 2.0**-36
        part = Interval(total.lo - slack, total.hi + slack).times(lo, hi)
        return [(number, g.plus(Interval(-part.hi, -part.lo)))]


TOP = 2.0**-30  # a logarithm of a probability is at most 0


def probabilities(lo: Tensor, hi: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Return what encloses the softmax over a box: each is least where its own value is and the others are largest."""
    top = hi.amax(dim, keepdim=True)
    low, high = torch.exp(lo - top), torch.exp(hi - top)
    found = []
    for own, others, sign in ((low, high, 1.0), (high, low, -1.0)):
        total = others.sum(dim, keepdim=True)
        rest = (total - others + sign * 2.0**-40 * total).clamp(min=0)
        found.append(own / (own + rest))
    return below(found[0]).clamp(min=0), above(found[1]).clamp(max=1)


class LayerNorm(Rule):
    """(B29) g (x - mean) / sqrt(var + eps) + b over the last axes, of n values. To first order made rigorous by the
    Jacobian over the box, |d x~_i / d x_j| <= (1 + 1/n + ...): d_i <= (2 - 2/n + max |x~_i|) max d / min s. The
    evaluation in two passes, or by an algorithm that is no worse, with F(h) = (1 + u)**h - 1: the mean is off by F(n)
    mean |x|, the variance by F(n + 3) var + (1 + F(n + 3)) F(n)**2 (mean |x|)**2 <= F(2 n + 8) mean x**2 where F(n) <=
    1, and 1 / s by 2 t, relative, for t = F(2 n + 8) mean x**2 / (2 s**2) + 4 u <= 1/4. Each result then is off by x~
    times that, the mean's error over s, and 5 u (|x| + mean |x|) / s, as the mean is subtracted before or behind the
    division; and by 4 u of itself, as g and b join.
    """

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        x, r = read(node.args[0].number), unit.vector(node.path)
        dims, n, eps = self._axes(node)
        _no_refs(node, 2)
        g = operand(1.0 if node.args[2] is None else node.args[2], read, node.use)
        b = operand(0.0 if node.args[3] is None else node.args[3], read, node.use)
        center, radius = (x.lo + x.hi) / 2, grown((x.hi - x.lo) / 2)
        value, spread, _, _ = _normalised(center, radius, dims, n, eps)
        scale, shift = g.lo, b.lo
        lo, hi = Interval(below(value - spread), above(value + spread)).times(scale, scale)
        lo, hi = below(lo + shift), above(hi + shift)
        wide_center, wide_radius = (x.box[0] + x.box[1]) / 2, grown((x.box[1] - x.box[0]) / 2)
        at, around, least, _ = _normalised(wide_center, wide_radius, dims, n, eps)
        most = grown(at.abs() + around)
        moved = (2.0 - 2.0 / n + most) * x.d.amax(dims, keepdim=True) / least * scale.abs()
        magnitude = x.computed
        mean, square = magnitude.mean(dims, keepdim=True), magnitude.square().mean(dims, keepdim=True)
        u = r.u
        t = (factor_of(r, 2 * n + 8) * square + 2.0 * r.eta) / (2.0 * least.square()) + 4.0 * u
        of_s = torch.where(t < (0.25 if factor_of(r, n) <= 1.0 else 0.0), t * 2.0, torch.inf)
        of_mean = (factor_of(r, n) * mean + 5.0 * u * (magnitude + mean)) / least
        off = most * of_s + of_mean * (1.0 + of_s)
        # g.d and b.d are how far g and b are off as the unit reads them.
        size = grown((scale.abs() + g.d) * (most + off) + shift.abs() + b.d, n)
        off = scale.abs() * off + size * (4.0 * u) + 4.0 * r.eta * (1.0 + scale.abs()) + g.d * (most + off) + b.d
        off = grown(off, n)
        squares = square * (n * (1.0 + factor_of(r, 2 * n + 8)))
        off = torch.where((squares > r.largest) | (size + off > r.largest), torch.inf, off)
        step = Step(Bounded(lo, hi, grown(moved + off)), off)
        return [step, None, None]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        number = node.args[0].number
        dims, n, eps = self._axes(node)
        scale = operand(1.0 if node.args[2] is None else node.args[2], read).lo
        lo, hi = read(number).box
        value, spread, least, most = _normalised((lo + hi) / 2, grown((hi - lo) / 2), dims, n, eps)
        g = grads[node.outputs[0]].times(scale, scale)  # type: ignore[index]
        x = below(value - spread), above(value + spread)
        along = g.times(*x)
        mean = [Interval(part.lo.mean(dims, keepdim=True), part.hi.mean(dims, keepdim=True)) for part in (g, along)]
        back = mean[1].times(*x)
        slack = (g.magnitude + g.magnitude.mean(dims, keepdim=True) + back.magnitude) * 2.0**-36
        inner = Interval(g.lo - mean[0].hi - back.hi - slack, g.hi - mean[0].lo - back.lo + slack)
        return [(number, inner.times(below(1.0 / most), above(1.0 / least)))]

    @staticmethod
    def _axes(node: Node) -> tuple[tuple[int, ...], int, float]:
        shape = node.args[1]
        return tuple(range(-len(shape), 0)), math.prod(shape), float(node.args[4])


def _normalised(
    center: Tensor, radius: Tensor, dims: tuple[int, ...], n: int, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return (x - mean) / s at the center, its radius over the box, and the least and the largest s.

    The standard deviation is Lipschitz in x with 1 / sqrt(n) in the 2-norm, and so is s.
    """
    mean = center.mean(dims, keepdim=True)
    variance = (center - mean).square().mean(dims, keepdim=True)
    s = torch.sqrt(variance + eps)
    # What float64 makes of the mean, and so of all deviations from it.
    off = center.abs().mean(dims, keepdim=True) * ((n + 4) * 2.0**-52)
    reach = grown(radius.square().mean(dims, keepdim=True).sqrt() + 2.0 * off, n) + s * ((n + 16) * 2.0**-52)
    least = torch.maximum(s - reach, torch.full_like(s, math.sqrt(eps) * (1.0 - 2.0**-40)))
    value = (center - mean) / s
    # |x~ - x~_c| <= |dx - mean dx| / s + |x~_c| |s - s_c| / s
    slack = (center.abs() * 2.0**-50 + off) / s * 2.0
    spread = grown((radius + radius.mean(dims, keepdim=True) + value.abs() * reach) / least + slack, n)
    return value, spread, least, s + reach


class BatchNorm(Rule):
    """(B30) batch normalisation in eval mode: a x + b, a = g / sqrt(var + eps), b = beta - a mean, as torch computes it
    or with the mean subtracted first: no more than 8 roundings of what a multiplies, and 2 of beta.
    """

    def forward(self, node: Node, read: Read, unit: Unit) -> list[Step | None]:
        x, r = read(node.args[0].number), unit.vector(node.path)
        a, mean, beta, own = self._affine(node, x.lo.dim())
        b = beta - a * mean
        lo, hi = Interval(x.lo, x.hi).times(below(a), above(a))
        slack = (a * mean).abs() * 2.0**-40 + beta.abs() * 2.0**-50
        lo, hi = below(lo + b) - slack, above(hi + b) + slack
        size = x.computed + mean.abs()
        magnitude = a.abs() * size
        as_read = own[0] * size + own[1]  # how far g and beta are off as the unit reads them
        off = factor_of(r, 8) * (magnitude + own[0] * size) + factor_of(r, 2) * (beta.abs() + own[1])
        off = grown(as_read + off + r.eta * (4.0 + size))
        off = torch.where(magnitude + beta.abs() + off > r.largest, torch.inf, off)
        moved = grown(a.abs() * x.d)
        return [Step(Bounded(lo, hi, grown(moved + off)), off), None, None][: len(node.outputs)]

    def backward(self, node: Node, read: Read, grads: Gradients) -> list[tuple[int, Interval]]:
        number = node.args[0].number
        a, *_ = self._affine(node, read(number).lo.dim())
        return [(number, grads[node.outputs[0]].times(below(a), above(a)))]  # type: ignore[index]

    @staticmethod
    def _affine(node: Node, dims: int) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Return a, the mean and beta by channel, and how far a and beta are off as they are read."""
        weight, bias, mean, variance = node.args[1:5]
        with_training = node.kind == "native_batch_norm"
        if with_training and node.args[5]:
            raise InputError(
                f"bounds: {node.path}: mean and variance are taken of what is normalised, as by a batch normalisation "
                "in training mode or an instance normalisation: no rule; expected running statistics; call "
                "model.eval(), or give the layer track_running_stats=True and train it so"
            )
        eps = float(node.args[7] if with_training else node.args[6])
        _no_refs(node, 1)
        mean, variance = mean.double(), variance.double()
        inverse = 1.0 / torch.sqrt(variance + eps)
        g, beta = (
            Bounded.exactly(torch.full_like(mean, default)) if arg is None else operand(arg, _no_value, node.use)
            for arg, default in ((weight, 1.0), (bias, 0.0))
        )
        shape = (1, -1, *(1,) * (dims - 2))
        found = [x.reshape(shape) for x in (g.lo * inverse, mean, beta.lo, g.d * inverse, beta.d)]
        return found[0], found[1], found[2], (grown(found[3]), found[4])


def _no_value(number: int) -> Bounded:
    raise AssertionError(f"value {number} where only constants are")


def _no_refs(node: Node, first: int) -> None:
    if any(isinstance(arg, Ref) for arg in node.args[first:]):
        raise InputError(
            f"bounds: {node.path}: {node.kind} with weights that depend on the input: no rule; expected constants"
        )


RULES: dict[str, Rule] = {
    "_softmax": Softmax(), "_safe_softmax": Softmax(), "_log_softmax": LogSoftmax(),
    "native_layer_norm": LayerNorm(), "native_batch_norm": BatchNorm(),
    "_native_batch_norm_legit_no_training": BatchNorm(),
}  # fmt: skip
