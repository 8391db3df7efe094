"""Programs of a few operations each, for which tests of precision tracking know operands that are hard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

aten = torch.ops.aten


class Program(NamedTuple):
    """A program.

    Args:
        name: of it. run: of real tensors, in any type, to one real tensor or several. shapes: of its operands. domain:
            any | positive | unit (within -1 and 1) | share (within 0 and 1), of all or of each. gradients: whether
            they are looked at too. double: whether float64 is tried as well.
    """

    name: str
    run: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    domain: str | tuple[str, ...] = "any"
    gradients: bool = True


_VECTOR = ((3, 7),)
_TWO = ((3, 7), (3, 7))
_INDEX = torch.tensor([[0, 2, 1, 0, 2, 2, 1], [1, 1, 0, 2, 2, 0, 0]])
_CLASSES = torch.tensor([0, 3, 2, 2, 4, 1])
_SHUT = torch.tensor([[False, True, False, False, True], [False, False, False, True, True]] * 2).T[:4, :4]


def _unary() -> list[Program]:
    f: list[tuple[str, Any, str]] = [(name, getattr(torch, name), "any") for name in (
        "exp", "exp2", "expm1", "tanh", "sigmoid", "erf", "erfc", "sin", "cos", "atan", "abs", "neg", "square", "sign",
        "sinh", "cosh", "asinh", "tan", "reciprocal", "frac", "positive", "nan_to_num", "sinc", "deg2rad", "exp",
    )]  # fmt: skip
    f += [(name, getattr(torch, name), "positive") for name in (
        "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "reciprocal", "acosh", "lgamma", "digamma",
    )]  # fmt: skip
    f += [(name, getattr(torch, name), "unit") for name in ("asin", "acos", "atanh", "erfinv")]
    f += [("logit", torch.logit, "share"), ("logit_eps", lambda x: torch.logit(x, 0.01), "share")]
    f += [(name, getattr(F, name), "any") for name in (
        "relu", "relu6", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh", "hardsigmoid", "hardswish",
        "hardshrink", "softshrink", "tanhshrink", "softsign", "logsigmoid", "softplus", "leaky_relu",
    )]  # fmt: skip
    f += [(name, getattr(torch, name), "any") for name in ("floor", "ceil", "round", "trunc")]
    f += [
        ("gelu_tanh", lambda x: F.gelu(x, approximate="tanh"), "any"),
        ("softplus_sharp", lambda x: F.softplus(x, beta=3.0, threshold=4.0), "any"),
        ("leaky_relu_steep", lambda x: F.leaky_relu(x, 2.5), "any"),
        ("leaky_relu_down", lambda x: F.leaky_relu(x, -0.3), "any"),
        ("elu_alpha", lambda x: F.elu(x, 0.37), "any"),
        ("elu_in_place", lambda x: F.elu_(x * 1.5, 0.37), "any"),
        ("celu_alpha", lambda x: F.celu(x, 1.7), "any"),
        ("threshold", lambda x: F.threshold(x, 0.3, -2.0), "any"),
        ("hardtanh_other", lambda x: F.hardtanh(x, -0.4, 1.3), "any"),
        ("clamp", lambda x: x.clamp(-0.5, 0.7), "any"),
        ("clamp_min", lambda x: x.clamp(min=0.1), "any"),
        ("clamp_max", lambda x: x.clamp_max(0.1), "any"),
        ("glu", lambda x: F.glu(x[:, :6]), "any"),
        ("square_itself", lambda x: x * x, "any"),
        ("x_minus_x", lambda x: x - x, "any"),
        ("x_over_x", lambda x: x / x, "positive"),
        ("x_times_0", lambda x: x * 0, "any"),
        ("x_plus_1_minus_x", lambda x: (x + 1) - x, "any"),
        ("round_decimals", lambda x: torch.round(x, decimals=2), "any"),
    ]
    for p in (0, 1, 2, 3, 4, 5, -1, -2, -3):
        f.append((f"pow_{p}", lambda x, p=p: x**p, "any"))
    for p in (0.5, 1.5, 2.7, -0.5, -1.3, 0.3):
        f.append((f"pow_{p}", lambda x, p=p: x**p, "positive"))
    f += [("base_pow", lambda x: 1.7**x, "any"), ("log_of_log1p", lambda x: torch.log(torch.log1p(x)), "positive")]
    return [Program(name, run, _VECTOR, domain) for name, run, domain in f]


def _binary() -> list[Program]:
    f: list[tuple[str, Any, Any]] = [
        ("add", lambda x, y: x + y, "any"), ("sub", lambda x, y: x - y, "any"), ("mul", lambda x, y: x * y, "any"),
        ("div", lambda x, y: x / y, ("any", "positive")), ("maximum", torch.maximum, "any"),
        ("minimum", torch.minimum, "any"), ("fmax", torch.fmax, "any"), ("fmin", torch.fmin, "any"),
        ("add_alpha", lambda x, y: torch.add(x, y, alpha=0.3), "any"),
        ("add_alpha_two", lambda x, y: torch.add(x, y, alpha=-2), "any"),
        ("sub_alpha", lambda x, y: torch.sub(x, y, alpha=1.7), "any"),
        ("rsub", lambda x, y: torch.rsub(x, y, alpha=0.7), "any"),
        ("pow_of_tensors", torch.pow, ("positive", "any")), ("atan2", torch.atan2, "any"),
        ("hypot", torch.hypot, "any"), ("logaddexp", torch.logaddexp, "any"), ("logaddexp2", torch.logaddexp2, "any"),
        ("xlogy", torch.xlogy, ("any", "positive")), ("prelu", lambda x, y: F.prelu(x, y[0]), "any"),
        ("copysign", torch.copysign, "any"), ("dist", lambda x, y: torch.dist(x, y), "any"),
        ("floor_divide", lambda x, y: torch.div(x, y, rounding_mode="floor"), ("any", "positive")),
        ("trunc_divide", lambda x, y: torch.div(x, y, rounding_mode="trunc"), ("any", "positive")),
        ("fmod", torch.fmod, ("any", "positive")), ("remainder", torch.remainder, ("any", "positive")),
        ("where", lambda x, y: torch.where(x > y, x, 2 * y), "any"),
        ("where_jump", lambda x, y: torch.where(x > 0, x + 1, y), "any"),
        ("masked_fill", lambda x, y: x.masked_fill(y > 0.2, 3.0), "any"),
        ("mask_times", lambda x, y: x * (y > 0), "any"),
        ("lerp", lambda x, y: torch.lerp(x, y, 0.3), "any"), ("lerp_far", lambda x, y: torch.lerp(x, y, 0.9), "any"),
        ("cosine_similarity", lambda x, y: F.cosine_similarity(x, y, dim=1), "any"),
        ("pairwise_distance", lambda x, y: F.pairwise_distance(x, y), "any"),
        ("heaviside", lambda x, y: torch.heaviside(x.detach(), y.detach()) * x, "any"),
        ("float_power", torch.float_power, ("positive", "any")),
        ("addcmul_one", lambda x, y: torch.addcmul(x, y, x), "any"),
        ("clamp_tensor", lambda x, y: torch.clamp(x, min=y), "any"),
        ("in_place", lambda x, y: x.clone().add_(y).mul_(x).sub_(y, alpha=0.4).div_(1 + y * y), "any"),
        ("in_place_itself", lambda x, y: (x * 1.5).add_(y).mul_(2.5), "any"),
        ("aliased", lambda x, y: _aliased(x, y), "any"),
        ("aliased_alpha", lambda x, y: _aliased_alpha(x, y), "any"),
    ]  # fmt: skip
    found = [Program(name, run, _TWO, domain) for name, run, domain in f]
    found += [
        Program(f"{name}_{tag}", run, shapes, domain)
        for name, run, domain in f[:9] + f[15:17]
        for tag, shapes in (("broadcast", ((3, 7), (7,))), ("broadcast_both", ((3, 1), (1, 7))),
                            ("scalar", ((3, 7), ())), ("left", ((7,), (3, 7))))
    ]  # fmt: skip
    found += [
        Program("addcmul", lambda x, y, w: torch.addcmul(x, y, w, value=0.3), (*_TWO, (3, 7))),
        Program("addcmul_broadcast", lambda x, y, w: torch.addcmul(x, y, w, value=0.3), ((3, 7), (7,), (3, 1))),
        Program("addcdiv", lambda x, y, w: torch.addcdiv(x, y, w, value=-0.3), (*_TWO, (3, 7)),
                ("any", "any", "positive")),
        Program("lerp_tensor", torch.lerp, (*_TWO, (3, 7)), ("any", "any", "share")),
        Program("where_values", lambda x, y, w: torch.where(x > 0.1, y, w), (*_TWO, (3, 7))),
        Program("clamp_tensors", lambda x, y, w: torch.clamp(x, y, y + 0.5), (*_TWO, (3, 7))),
        Program("integers", lambda x: x * torch.tensor([16777217, 3, -33554435], dtype=torch.int64) + torch.arange(3),
                ((3,),)),
    ]  # fmt: skip
    return found


def _aliased(x: Tensor, y: Tensor) -> Tensor:
    z = x + y
    with torch.no_grad():
        z.mul_(z[:])  # the same memory by another tensor
        torch.mul(z, y.detach(), out=z)
    return z.detach() * x


def _aliased_alpha(x: Tensor, y: Tensor) -> Tensor:
    z = (x + y).detach()
    z.add_(z, alpha=-0.999)
    z.sub_(z.view(-1).view(z.shape), alpha=0.9)
    torch.add(z, z, alpha=-0.99, out=z)
    return z * y


def _reductions() -> list[Program]:
    f: list[tuple[str, Any, Any]] = [
        ("sum", lambda x: x.sum(), "any"), ("sum_axis", lambda x: x.sum(1), "any"),
        ("sum_keep", lambda x: x.sum((0, 2), keepdim=True), "any"), ("mean", lambda x: x.mean(), "any"),
        ("mean_axis", lambda x: x.mean(-1), "any"), ("var", lambda x: x.var(), "any"),
        ("var_axis", lambda x: x.var(1, unbiased=False), "any"), ("std", lambda x: x.std(2), "any"),
        ("var_mean", lambda x: torch.var_mean(x, 2), "any"), ("std_mean", lambda x: torch.std_mean(x, 2), "any"),
        ("amax", lambda x: x.amax(1), "any"), ("amin", lambda x: x.amin((0, 1)), "any"), ("max", torch.max, "any"),
        ("min", torch.min, "any"), ("max_axis", lambda x: x.max(1).values, "any"), ("aminmax", lambda x:
         tuple(torch.aminmax(x, dim=1)), "any"),
        ("norm", lambda x: torch.linalg.vector_norm(x), "any"), ("norm_axis", lambda x: x.norm(dim=1), "any"),
        ("norm_1", lambda x: torch.linalg.vector_norm(x, 1, dim=2), "any"),
        ("norm_inf", lambda x: torch.linalg.vector_norm(x, float("inf"), dim=2), "any"),
        ("norm_3", lambda x: torch.linalg.vector_norm(x, 3, dim=2), "any"),
        ("frobenius", lambda x: torch.linalg.matrix_norm(x), "any"), ("normalize", lambda x: F.normalize(x, dim=1),
                                                                      "any"),
        ("prod", lambda x: x[..., :4].prod(-1), "any"), ("prod_all", lambda x: x[0, :2].prod(), "any"),
        ("cumsum", lambda x: x.cumsum(1), "any"), ("cumprod", lambda x: x[..., :4].cumprod(2), "any"),
        ("logsumexp", lambda x: x.logsumexp(2), "any"), ("logsumexp_axes", lambda x: x.logsumexp((0, 2)), "any"),
        ("logcumsumexp", lambda x: x.logcumsumexp(2), "any"),
        ("cummax", lambda x: x.cummax(1).values, "any"), ("nansum", lambda x: torch.nansum(x, 1), "any"),
        ("sort", lambda x: x.sort(2).values, "any"), ("topk", lambda x: x.topk(3, 2).values, "any"),
        ("kthvalue", lambda x: x.kthvalue(2, 2).values, "any"), ("median", lambda x: x.median(2).values, "any"),
        ("median_all", lambda x: x.median(), "any"), ("diff", lambda x: x.diff(dim=1), "any"),
        ("trapezoid", lambda x: torch.trapezoid(x, dim=2), "any"), ("trace", lambda x: torch.trace(x[0]), "any"),
        ("cov", lambda x: torch.cov(x[0]), "any"), ("softmax", lambda x: x.softmax(2), "any"),
        ("softmin", lambda x: F.softmin(x, dim=1), "any"), ("log_softmax", lambda x: x.log_softmax(1), "any"),
        ("gumbel", lambda x: (x / 0.7).softmax(-1), "any"), ("dist_0", lambda x: torch.cdist(x[0], x[1]), "any"),
        ("renorm", lambda x: torch.renorm(x, 2, 0, 1.0), "any"),
    ]  # fmt: skip
    return [Program(name, run, ((2, 3, 5),), domain) for name, run, domain in f]


def _products() -> list[Program]:
    conv = F.conv2d
    return [
        Program("mm", torch.mm, ((4, 9), (9, 3))), Program("matmul", torch.matmul, ((2, 4, 9), (9, 3))),
        Program("bmm", torch.bmm, ((2, 4, 5), (2, 5, 3))), Program("mv", torch.mv, ((4, 9), (9,))),
        Program("dot", torch.dot, ((9,), (9,))), Program("addmm", torch.addmm, ((3,), (4, 9), (9, 3))),
        Program("addmm_factors", lambda c, a, b: torch.addmm(c, a, b, beta=0.3, alpha=1.7), ((4, 3), (4, 9), (9, 3))),
        Program("addmm_no_beta", lambda c, a, b: torch.addmm(c, a, b, beta=0), ((4, 3), (4, 9), (9, 3))),
        Program("baddbmm", torch.baddbmm, ((2, 4, 3), (2, 4, 5), (2, 5, 3))),
        Program("addbmm", torch.addbmm, ((4, 3), (2, 4, 5), (2, 5, 3))),
        Program("addmv", torch.addmv, ((4,), (4, 9), (9,))), Program("addr", torch.addr, ((4, 3), (4,), (3,))),
        Program("outer", torch.outer, ((4,), (3,))), Program("itself", lambda a: a @ a.T, ((4, 5),)),
        Program("linear", F.linear, ((2, 4, 9), (3, 9), (3,))),
        Program("linear_no_bias", F.linear, ((4, 9), (3, 9))),
        Program("linear_vector", F.linear, ((9,), (3, 9), (3,))),
        Program("bilinear", F.bilinear, ((2, 3), (2, 4), (5, 3, 4), (5,))),
        Program("einsum", lambda a, b: torch.einsum("bij,bjk->bik", a, b), ((2, 4, 5), (2, 5, 3))),
        Program("tensordot", lambda a, b: torch.tensordot(a, b, 2), ((4, 2, 5), (2, 5, 3))),
        Program("kron", torch.kron, ((2, 2), (3, 1))), Program("chain", lambda a, b: (a @ b) @ b.T, ((4, 9), (9, 3))),
        Program("conv1d", lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1), ((2, 4, 9), (6, 4, 3), (6,))),
        Program("conv2d", conv, ((2, 3, 6, 5), (4, 3, 3, 2), (4,))),
        Program("conv2d_no_bias", lambda x, w: conv(x, w, padding=1, dilation=2), ((2, 3, 7, 6), (4, 3, 3, 2))),
        Program("conv2d_groups", lambda x, w, b: conv(x, w, b, groups=2), ((2, 4, 6, 5), (6, 2, 3, 2), (6,))),
        Program("conv2d_depthwise", lambda x, w: conv(x, w, groups=4, padding="same"), ((2, 4, 6, 5), (4, 1, 3, 3))),
        Program("conv2d_unbatched", conv, ((3, 6, 5), (4, 3, 3, 2), (4,))),
        Program("conv3d", F.conv3d, ((1, 2, 4, 4, 3), (3, 2, 2, 2, 2), (3,))),
        Program("conv_transpose2d", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1),
                ((2, 3, 4, 3), (3, 4, 3, 2), (4,))),
        Program("conv_transpose2d_groups", lambda x, w: F.conv_transpose2d(x, w, groups=2, output_padding=1, stride=2),
                ((2, 4, 4, 3), (4, 3, 3, 2))),
        Program("unfold", lambda x: F.unfold(x, 2), ((2, 3, 4, 5),)),
        Program("fold", lambda x: F.fold(x, (3, 4), 2), ((2, 12, 6),)),
    ]  # fmt: skip


def _normalisations() -> list[Program]:
    def batch(x: Tensor, w: Tensor, b: Tensor, mean: Tensor, var: Tensor, training: bool = True) -> Any:
        mean, var = mean.detach().clone(), var.detach().clone()
        return F.batch_norm(x, mean, var, w, b, training, 0.1, 1e-3), mean, var

    def frozen(*operands: Tensor) -> Any:
        return batch(*operands, training=False)[0]

    four = ("any", "any", "any", "any", "positive")
    return [
        Program("layer_norm", lambda x, w, b: F.layer_norm(x, (5,), w, b), ((2, 3, 5), (5,), (5,))),
        Program("layer_norm_plain", lambda x: F.layer_norm(x, (3, 5), eps=1e-2), ((2, 3, 5),)),
        Program("layer_norm_whole", lambda x, w: F.layer_norm(x, (3, 5), w), ((3, 5), (3, 5))),
        Program("rms_norm", lambda x, w: F.rms_norm(x, (5,), w, 1e-5), ((2, 3, 5), (5,))),
        Program("rms_norm_plain", lambda x: F.rms_norm(x, (5,), eps=1e-3), ((2, 3, 5),)),
        Program("batch_norm", batch, ((4, 3, 2, 2), (3,), (3,), (3,), (3,)), four),
        Program("batch_norm_flat", batch, ((6, 3), (3,), (3,), (3,), (3,)), four),
        Program("batch_norm_eval", frozen, ((4, 3, 2, 2), (3,), (3,), (3,), (3,)), four),
        Program("batch_norm_no_statistics", lambda x: F.batch_norm(x, None, None, training=True), ((6, 3),)),
        Program("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), ((2, 4, 3), (4,), (4,))),
        Program("group_norm_plain", lambda x: F.group_norm(x, 2), ((2, 4, 3, 2),)),
        Program("instance_norm", lambda x: F.instance_norm(x), ((2, 3, 4, 2),)),
        Program("local_response", lambda x: F.local_response_norm(x, 3), ((2, 5, 3),)),
        Program("attention", F.scaled_dot_product_attention, ((1, 2, 4, 6),) * 3),
        Program("attention_causal", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
                ((1, 2, 4, 6),) * 3),
        Program("attention_shut", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=~_SHUT),
                ((1, 2, 4, 6),) * 3),
        Program("attention_mask", lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m, scale=0.3),
                (*((1, 2, 4, 6),) * 3, (4, 4))),
        Program("attention_minus_infinity", lambda q, k, v: F.scaled_dot_product_attention(
            q, k, v, attn_mask=torch.zeros(4, 4, dtype=q.dtype).masked_fill(_SHUT, -torch.inf)), ((1, 2, 4, 6),) * 3),
        Program("attention_grouped", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
                ((1, 4, 4, 6), (1, 2, 4, 6), (1, 2, 4, 6))),
        Program("attention_by_hand", lambda q, k, v: (
            q @ k.transpose(-1, -2) / 2.4 + torch.zeros(4, 4).to(q).masked_fill(_SHUT, -torch.inf)).softmax(-1) @ v,
            ((1, 2, 4, 6),) * 3),
    ]  # fmt: skip


def _pools() -> list[Program]:
    image = ((2, 2, 6, 5),)
    return [
        Program(name, run, shapes)
        for name, run, shapes in (
            ("max_pool2d", lambda x: F.max_pool2d(x, 2), image),
            ("max_pool2d_overlap", lambda x: F.max_pool2d(x, 3, 1, 1), image),
            ("max_pool2d_ceil", lambda x: F.max_pool2d(x, (3, 2), 2, ceil_mode=True), image),
            ("max_pool2d_dilated", lambda x: F.max_pool2d(x, 2, 1, dilation=2), image),
            ("max_pool1d", lambda x: F.max_pool1d(x, 3, 2), ((2, 3, 9),)),
            ("max_pool3d", lambda x: F.max_pool3d(x, 2), ((1, 2, 4, 4, 4),)),
            ("avg_pool2d", lambda x: F.avg_pool2d(x, 2), image),
            ("avg_pool2d_padded", lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), image),
            ("avg_pool2d_divisor", lambda x: F.avg_pool2d(x, 3, 1, divisor_override=7), image),
            ("avg_pool1d", lambda x: F.avg_pool1d(x, 3, 2), ((2, 3, 9),)),
            ("avg_pool3d", lambda x: F.avg_pool3d(x, 2), ((1, 2, 4, 4, 4),)),
            ("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, (4, 3)), image),
            ("adaptive_avg_pool2d_one", lambda x: F.adaptive_avg_pool2d(x, 1), image),
            ("adaptive_avg_pool1d", lambda x: F.adaptive_avg_pool1d(x, 4), ((2, 3, 9),)),
            ("adaptive_avg_pool3d", lambda x: F.adaptive_avg_pool3d(x, 2), ((1, 2, 3, 4, 5),)),
            ("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, (4, 3)), image),
            ("adaptive_max_pool1d", lambda x: F.adaptive_max_pool1d(x, 4), ((2, 3, 9),)),
            ("lp_pool2d", lambda x: F.lp_pool2d(x, 2, 2), image),
            ("nearest", lambda x: F.interpolate(x, scale_factor=2), image),
            ("nearest_exact", lambda x: F.interpolate(x, size=(7, 9), mode="nearest-exact"), image),
            ("bilinear_up", lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), image),
            ("bilinear_corners", lambda x: F.interpolate(x, (4, 9), mode="bilinear", align_corners=True), image),
            ("bicubic", lambda x: F.interpolate(x, scale_factor=1.5, mode="bicubic"), image),
            ("linear_up", lambda x: F.interpolate(x, scale_factor=2.0, mode="linear"), ((2, 3, 5),)),
            ("trilinear", lambda x: F.interpolate(x, scale_factor=2.0, mode="trilinear"), ((1, 2, 2, 3, 2),)),
            ("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), ((1, 4, 3, 2),)),
            ("pad", lambda x: F.pad(x, (1, 2, 0, 1), value=0.3), image),
            ("pad_reflect", lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"), image),
            ("pad_replicate", lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"), image),
            ("pad_circular", lambda x: F.pad(x, (1, 2, 2, 1), mode="circular"), image),
            ("pad_reflect1d", lambda x: F.pad(x, (1, 2), mode="reflect"), ((2, 3, 5),)),
            ("pad_replicate1d", lambda x: F.pad(x, (1, 2), mode="replicate"), ((2, 3, 5),)),
            ("pad_reflect3d", lambda x: F.pad(x, (1, 1, 1, 1, 1, 1), mode="reflect"), ((1, 2, 2, 3, 2),)),
            ("nearest1d", lambda x: F.interpolate(x, size=7), ((2, 3, 5),)),
            ("nearest3d", lambda x: F.interpolate(x, scale_factor=2), ((1, 2, 2, 3, 2),)),
            ("nearest_exact1d", lambda x: F.interpolate(x, size=7, mode="nearest-exact"), ((2, 3, 5),)),
            ("nearest_exact3d", lambda x: F.interpolate(x, scale_factor=2, mode="nearest-exact"), ((1, 2, 2, 3, 2),)),
            ("pad_replicate3d", lambda x: F.pad(x, (1, 1, 1, 1, 1, 1), mode="replicate"), ((1, 2, 2, 3, 2),)),
        )
    ]


def _losses() -> list[Program]:
    found = []
    for reduction in ("mean", "sum", "none"):
        r = {"reduction": reduction}
        found += [
            Program(f"{name}_{reduction}", run, shapes, domain)
            for name, run, shapes, domain in (
                ("cross_entropy", lambda x, r=r: F.cross_entropy(x, _CLASSES, **r), ((6, 5),), "any"),
                ("cross_entropy_weighted", lambda x, w, r=r: F.cross_entropy(x, _CLASSES, w.detach(), **r,
                                                                            ignore_index=2),
                 ((6, 5), (5,)), ("any", "positive")),
                ("cross_entropy_smooth", lambda x, w, r=r: F.cross_entropy(x, _CLASSES, w.detach(), **r,
                                                                          label_smoothing=0.1),
                 ((6, 5), (5,)), ("any", "positive")),
                ("cross_entropy_shares", lambda x, y, r=r: F.cross_entropy(x, y.detach(), **r), ((6, 5), (6, 5)),
                 ("any", "share")),
                ("nll", lambda x, r=r: F.nll_loss(x, _CLASSES, **r), ((6, 5),), "any"),
                ("nll_2d", lambda x, r=r: F.nll_loss(x, _CLASSES.view(2, 3, 1).repeat(1, 1, 2), **r),
                 ((2, 5, 3, 2),), "any"),
                ("mse", lambda x, y, r=r: F.mse_loss(x, y, **r), ((6, 5), (6, 5)), "any"),
                ("l1", lambda x, y, r=r: F.l1_loss(x, y, **r), ((6, 5), (6, 5)), "any"),
                ("smooth_l1", lambda x, y, r=r: F.smooth_l1_loss(x, y, **r, beta=0.5), ((6, 5), (6, 5)), "any"),
                ("huber", lambda x, y, r=r: F.huber_loss(x, y, **r, delta=0.7), ((6, 5), (6, 5)), "any"),
                ("bce", lambda x, y, r=r: F.binary_cross_entropy(x, y.detach(), **r), ((6, 5), (6, 5)), "share"),
                ("bce_weighted", lambda x, y, w, r=r: F.binary_cross_entropy(x, y.detach(), w.detach(), **r),
                 ((6, 5), (6, 5), (5,)), "share"),
                ("bce_with_logits", lambda x, y, w, r=r: F.binary_cross_entropy_with_logits(
                    x, y.detach(), w.detach(), **r, pos_weight=w.detach() + 1), ((6, 5), (6, 5), (5,)),
                 ("any", "share", "share")),
                ("kl_div", lambda x, y, r=r: F.kl_div(x, y, **r), ((6, 5), (6, 5)), ("any", "share")),
                ("kl_div_log", lambda x, y, r=r: F.kl_div(x, y, **r, log_target=True), ((6, 5), (6, 5)), "any"),
                ("soft_margin", lambda x, r=r: F.soft_margin_loss(x, (_CLASSES[:, None] > 1) * 2.0 - 1.0, **r),
                 ((6, 5),), "any"),
                ("hinge", lambda x, r=r: F.hinge_embedding_loss(x, (_CLASSES[:, None] > 1) * 2.0 - 1.0, **r),
                 ((6, 5),), "any"),
                ("margin_ranking", lambda x, y, r=r: F.margin_ranking_loss(x, y, torch.ones(6, 5), margin=0.1, **r),
                 ((6, 5), (6, 5)), "any"),
                ("cosine_embedding", lambda x, y, r=r: F.cosine_embedding_loss(x, y, (_CLASSES > 1) * 2 - 1, **r),
                 ((6, 5), (6, 5)), "any"),
                ("triplet", lambda x, y, r=r: F.triplet_margin_loss(x, y, y.flip(0), **r), ((6, 5), (6, 5)), "any"),
                ("gaussian_nll", lambda x, y, v, r=r: F.gaussian_nll_loss(x, y, v, **r), ((6, 5), (6, 5), (6, 5)),
                 ("any", "any", "positive")),
                ("poisson_nll", lambda x, y, r=r: F.poisson_nll_loss(x, y, **r), ((6, 5), (6, 5)),
                 ("any", "positive")),
            )
        ]  # fmt: skip
    return found


def _moves() -> list[Program]:
    index, flat = torch.tensor([1, 1, 0, 2]), torch.tensor([0, 5, 5, 11])
    return [
        Program(name, run, shapes)
        for name, run, shapes in (
            ("cat", lambda x, y: torch.cat([x, y, x], 1), _TWO), ("stack", lambda x, y: torch.stack([x, y], 1), _TWO),
            ("index", lambda x: x[index, [0, 0, 3, 6]], _VECTOR), ("index_rows", lambda x: x[index], _VECTOR),
            ("index_mask", lambda x: x[_INDEX.repeat(2, 1)[:3] > 0], _VECTOR),
            ("index_select", lambda x: x.index_select(1, index), _VECTOR),
            ("gather", lambda x: x.gather(0, _INDEX), _VECTOR), ("take", lambda x: torch.take(x, flat), _VECTOR),
            ("take_along_dim", lambda x: torch.take_along_dim(x, _INDEX, 0), _VECTOR),
            ("embedding", lambda x: F.embedding(_INDEX, x, padding_idx=1), _VECTOR),
            ("embedding_bag", lambda x: F.embedding_bag(_INDEX, x, mode="mean"), _VECTOR),
            ("embedding_bag_sum", lambda x: F.embedding_bag(_INDEX, x, mode="sum"), _VECTOR),
            ("flip", lambda x: x.flip(0), _VECTOR), ("roll", lambda x: x.roll(2, 1), _VECTOR),
            ("repeat", lambda x: x.repeat(2, 2), _VECTOR), ("tile", lambda x: x.tile(2, 2), _VECTOR),
            ("repeat_interleave", lambda x: x.repeat_interleave(2, 1), _VECTOR),
            ("expand", lambda x: x[:, None].expand(3, 4, 7) * 2, _VECTOR), ("tril", torch.tril, _VECTOR),
            ("triu", lambda x: x.triu(1), _VECTOR), ("diag", lambda x: torch.diag(x[0]), _VECTOR),
            ("diagonal", lambda x: x.diagonal() * 3, _VECTOR), ("view", lambda x: x.t().reshape(-1) * 3, _VECTOR),
            ("split", lambda x: x.split(3, 1)[1] * x.split(3, 1)[0], _VECTOR),
            ("unfold", lambda x: x.unfold(1, 3, 2) * 3, _VECTOR), ("clone", lambda x: x.clone(), _VECTOR),
            ("scatter", lambda x, y: x.scatter(0, _INDEX, y[:2]), _TWO),
            ("scatter_number", lambda x: x.scatter(0, _INDEX, 2.0), _VECTOR),
            ("scatter_add", lambda x, y: x.scatter_add(0, _INDEX, y[:2]), _TWO),
            ("scatter_reduce", lambda x, y: x.scatter_reduce(0, _INDEX, y[:2], "sum"), _TWO),
            ("index_add", lambda x, y: x.index_add(1, index, y[:, :4]), _TWO),
            ("index_copy", lambda x, y: x.index_copy(1, torch.tensor([3, 1]), y[:, :2]), _TWO),
            ("index_fill", lambda x: x.index_fill(1, index, 2.0), _VECTOR),
            ("index_put", lambda x, y: x.index_put((torch.tensor([0, 2]),), y[:2]), _TWO),
            ("index_put_add", lambda x, y: x.index_put((index,), y[index], accumulate=True), _TWO),
            ("masked_scatter", lambda x, y: x.masked_scatter(_INDEX.repeat(2, 1)[:3] > 0, y), _TWO),
            ("write_slice", lambda x, y: _write_slice(x, y), _TWO),
            ("select_scatter", lambda x, y: x.select_scatter(y[0], 0, 1), _TWO),
            ("slice_scatter", lambda x, y: x.slice_scatter(y[:2], 0, 1), _TWO),
            ("meshgrid", lambda x: torch.meshgrid(x[0], x[1], indexing="ij"), _VECTOR),
            ("to_half", lambda x: x.to(torch.float16).to(x.dtype) if x.dtype == torch.float32 else x, _VECTOR),
            ("to_double", lambda x: (x.double() * 3 + 1).to(x.dtype), _VECTOR),
            ("channels_last", lambda x: x.view(1, 3, 7, 1).contiguous(memory_format=torch.channels_last) * 3, _VECTOR),
            ("cartesian", lambda x: torch.cartesian_prod(x[0], x[1]), _VECTOR),
            ("real_of_decision", lambda x: (x > 0.2).to(x.dtype) * 3, _VECTOR),
            ("whole_numbers", lambda x: (x * 3).long().to(x.dtype) * x, _VECTOR),
            ("ceil_divide", lambda x: torch.ceil(x * 0.7) / 3, _VECTOR),
        )
    ]  # fmt: skip


def _write_slice(x: Tensor, y: Tensor) -> Tensor:
    z = x * 2
    z[:, 1:3] = y[:, :2]
    z[0] += y[1]
    z[:, 4].mul_(y[:, 5])
    return z * z


def _whole() -> list[Program]:
    """Operations that torch runs only in some circumstances, called by name, without gradients of their own."""

    def norm(x: Tensor, w: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> Any:
        return aten._native_batch_norm_legit_functional(x, w, b, mean, var, True, 0.1, 1e-3)[0]

    def legit(x: Tensor, w: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> Any:
        mean, var = mean.clone(), var.clone()
        return aten._native_batch_norm_legit(x, w, b, mean, var, True, 0.1, 1e-3)[0], mean, var

    def frozen(x: Tensor, w: Tensor, b: Tensor, mean: Tensor, var: Tensor) -> Any:
        return aten._native_batch_norm_legit_no_training(x, w, b, mean, var, 0.1, 1e-3)[0]

    four = ("any", "any", "any", "any", "positive")
    batch = ((6, 3), (3,), (3,), (3,), (3,))
    picks = torch.tensor([1, 1, 2])
    kept = torch.tensor([[True, False, True, True, False, True, True]] * 3)
    index = (torch.tensor([2, 0, 0]),)
    bags = (torch.tensor([0, 3]), torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([3, 3]))
    rows = torch.tensor([0, 1, 1, 2, 0, 2])
    found = [
        ("batch_norm_functional", norm, batch, four), ("batch_norm_legit", legit, batch, four),
        ("batch_norm_frozen", frozen, batch, four),
        ("vdot", torch.vdot, ((9,), (9,)), "any"), ("matmul_whole", aten.matmul, ((4, 9), (9, 3)), "any"),
        ("linear_whole", lambda x, w, b: aten.linear(x, w, b), ((4, 9), (3, 9), (3,)), "any"),
        ("softmax_whole", lambda x: torch.softmax(x, 1), _VECTOR, "any"),
        ("rad2deg", torch.rad2deg, _VECTOR, "any"), ("cummin", lambda x: x.cummin(1).values, _VECTOR, "any"),
        ("largest_by_place", lambda x: x.gather(1, x.argmax(1, keepdim=True)), _VECTOR, "any"),
        ("smallest_by_place", lambda x: x.gather(1, x.argmin(1, keepdim=True)), _VECTOR, "any"),
        ("filled", lambda x: torch.full_like(x, 0.3) + x.new_full((3, 7), 0.7) + torch.full((7,), 0.1, dtype=x.dtype),
         _VECTOR, "any"),
        ("decisions", lambda x, y: torch.where((x > 0) | (y > 0) ^ torch.logical_xor(x < 0.1, y < 0.1), x, y), _TWO,
         "any"),
        ("dropout_backward", lambda g: aten.native_dropout_backward(g, kept, 1.25), _VECTOR, "any"),
        ("put", lambda x, y: aten._index_put_impl_(x.clone(), index, y, True), _TWO, "any"),
        ("put_unsafe", lambda x, y: aten._unsafe_index_put(x, index, y, True), _TWO, "any"),
        ("embedding_bag_forward", lambda w: aten._embedding_bag_forward_only(w, rows, bags[0], False, 1)[0], _VECTOR,
         "any"),
        ("embedding_bag_dense", lambda g: aten._embedding_bag_dense_backward(
            g, rows, bags[1], bags[2], torch.empty(0, dtype=torch.long), 3, False, 1, None), ((2, 7),), "any"),
        ("adaptive_max_pool3d", lambda x: aten.adaptive_max_pool3d(x, [2, 1, 2])[0], ((1, 2, 3, 4, 5),), "any"),
        ("picked_and_sorted", lambda x: x[:, picks].sort(1, descending=True).values, _VECTOR, "any"),
    ]  # fmt: skip
    some = {"vdot", "rad2deg", "cummin", "decisions", "adaptive_max_pool3d", "picked_and_sorted", "largest_by_place"}
    return [Program(name, run, shapes, domain, name in some) for name, run, shapes, domain in found]


PROGRAMS = [
    *_whole(), *_unary(), *_binary(), *_reductions(), *_products(), *_normalisations(), *_pools(), *_losses(),
    *_moves(),
]  # fmt: skip
