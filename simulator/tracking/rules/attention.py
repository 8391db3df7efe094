"""Rules of attention: sums of products whose factors are a softmax, however a kernel divides them up."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..values import Trace, Value
from .activations import gelu, relu
from .normal import layer_norm, softmax_of
from .reductions import logsumexp
from .registry import rule


def _scores(q: Value, k: Value, mask: Any, causal: bool, scale: float | None) -> Value:
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = q.matmul(k.moved(lambda n: n.transpose(-1, -2))) * factor
    if causal:
        rows, columns = scores.shape[-2:]
        mask = torch.ones(rows, columns, dtype=torch.bool).tril()
    if mask is None:
        return scores
    if isinstance(mask, Value):
        return scores + mask
    # What is shut is exactly minus infinity, whatever the score.
    found = scores.moved(lambda n: n.masked_fill(~mask, 0.0))
    return Value(q.trace, found.x.masked_fill(~mask, -math.inf), found.noise)


@rule("_scaled_dot_product_flash_attention_for_cpu")
def attention(
    t: Trace, q: Value, k: Value, v: Value, dropout: float = 0.0, causal: bool = False, *, attn_mask: Any = None,
    scale: float | None = None,
) -> Any:  # fmt: skip
    """softmax(scale q k^T + mask) v, and the logarithms of its sums."""
    if dropout:
        raise NotImplementedError
    k, v = (_for_all_heads(x, q) for x in (k, v))
    scores = _scores(q, k, attn_mask, causal, scale)
    return softmax_of(scores, -1).matmul(v), logsumexp(t, scores, [-1])


@rule("_scaled_dot_product_flash_attention_for_cpu_backward")
def attention_backward(
    t: Trace, g: Value, q: Value, k: Value, v: Value, out: Value, logs: Value, dropout: float, causal: bool, *,
    attn_mask: Any = None, scale: float | None = None,
) -> Any:  # fmt: skip
    """Gradients of q, k and v."""
    if dropout:
        raise NotImplementedError
    shared = k.shape[1]
    k, v = (_for_all_heads(x, q) for x in (k, v))
    factor = 1.0 / math.sqrt(q.shape[-1]) if scale is None else scale
    p = softmax_of(_scores(q, k, attn_mask, causal, scale), -1)
    turned = lambda x: x.moved(lambda n: n.transpose(-1, -2))  # noqa: E731
    to_p = g.matmul(turned(v))
    to_scores = p * (to_p - (g * out).sum([-1], keep=True)) * factor
    return to_scores.matmul(k), *(_of_shared(x, shared) for x in (turned(to_scores).matmul(q), turned(p).matmul(g)))


def _for_all_heads(x: Value, q: Value) -> Value:
    """Return keys or values for each head of the queries, several of which may share them."""
    return x if x.shape[1] == q.shape[1] else x.moved(lambda n: n.repeat_interleave(q.shape[1] // x.shape[1], 1))


def _of_shared(g: Value, heads: int) -> Value:
    """Return the sum of the gradients of heads that share keys or values."""
    return g if g.shape[1] == heads else g.moved(lambda n: n.unflatten(1, (heads, -1))).sum([2])


# Layers that torch computes whole when it only infers.


def _linear(x: Value, weight: Value, bias: Value | None) -> Value:
    product = x.matmul(weight.moved(lambda n: n.t()))
    return product if bias is None else product + bias


@rule("_native_multi_head_attention")
def multi_head_attention(
    t: Trace, query: Value, key: Value, value: Value, size: int, heads: int, weight: Value, bias: Value, out: Value,
    out_bias: Value, mask: Any = None, weights: bool = True, average: bool = True, mask_type: int | None = None,
) -> Any:  # fmt: skip
    """Attention with its four linear layers, and the shares, averaged over the heads if it is said."""
    parts = []
    for i, x in enumerate((query, key, value)):
        rows = slice(i * size, (i + 1) * size)
        part = _linear(x, weight.moved(lambda n, rows=rows: n[rows]), bias.moved(lambda n, rows=rows: n[rows]))  # type: ignore[misc]
        parts.append(part.moved(lambda n: n.unflatten(-1, (heads, -1)).transpose(1, 2)))
    q, k, v = parts
    if mask is not None:
        shut = mask.x != 0 if isinstance(mask, Value) else mask  # torch takes what is not 0 for shut
        if not isinstance(shut, Tensor) or shut.dtype != torch.bool or mask_type not in (0, 1, 2):
            raise NotImplementedError
        mask = ~(shut[:, None, None, :] if mask_type == 1 else shut)
    shares = softmax_of(_scores(q, k, mask, False, None), -1)
    found = shares.matmul(v).moved(lambda n: n.transpose(1, 2).flatten(2))
    shown = (shares.mean([1]) if average else shares) if weights else None
    return _linear(found, out, out_bias), shown


@rule("_transformer_encoder_layer_fwd")
def encoder_layer(
    t: Trace, x: Value, size: int, heads: int, weight: Value, bias: Value, out: Value, out_bias: Value, use_gelu: bool,
    norm_first: bool, eps: float, scale_1: Value, shift_1: Value, scale_2: Value, shift_2: Value, first: Value,
    first_bias: Value, second: Value, second_bias: Value, mask: Any = None, mask_type: int | None = None,
) -> Value:  # fmt: skip
    """Attention and two linear layers, each with a sum and a normalisation before or behind."""

    def attend(n: Value) -> Value:
        found: Value = multi_head_attention(t, n, n, n, size, heads, weight, bias, out, out_bias, mask, False, True,
                                            mask_type)[0]  # fmt: skip
        return found

    def feed(n: Value) -> Value:
        inner = _linear(n, first, first_bias)
        return _linear(gelu(t, inner) if use_gelu else relu(t, inner), second, second_bias)

    for scale, shift, step in ((scale_1, shift_1, attend), (scale_2, shift_2, feed)):
        if norm_first:
            x = x + step(layer_norm(t, x, [size], scale, shift, eps)[0])
        else:
            x = layer_norm(t, x + step(x), [size], scale, shift, eps)[0]
    return x
