"""Attention, as products and a softmax, and the rotation of positions into queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .registry import Declined, Node, operator
from .types import torch_type


def _heads(x: Tensor, count: int | None) -> Tensor:
    """Return (batch, heads, sequence, size) of that, or of (batch, sequence, heads size)."""
    if x.dim() == 4:
        return x
    if not count:
        raise Declined("operands of 3 axes without a number of heads")
    return x.reshape(*x.shape[:2], count, -1).transpose(1, 2)


@operator("Attention")
def attention(
    node: Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Return softmax(Q K^T scale + bias) V, the keys and values with the past ones before them, and the scores.

    Several heads of queries may share one of keys and values. A query that may see no key gives zeros. Q and K are each
    scaled by the root of the scale; the scores are those after the product, the soft cap, the bias or the softmax.
    """
    q = _heads(query, node.get("q_num_heads"))
    k, v = (_heads(x, node.get("kv_num_heads")) for x in (key, value))
    past = 0
    if past_key is not None and past_value is not None:
        past = past_key.shape[2]
        k, v = torch.cat([past_key, k], 2), torch.cat([past_value, v], 2)
    present = k, v
    shared = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(shared, 1) if shared > 1 else x for x in (k, v))
    root = torch.tensor(node.get("scale", 1 / math.sqrt(q.shape[-1]))).sqrt().to(q.dtype)
    scores = torch.matmul(q * root, (k * root).transpose(-2, -1))
    stages = [scores]
    cap = node.get("softcap", 0.0)
    stages.append(cap * torch.tanh(stages[-1] / cap) if cap else stages[-1])
    bias = _bias(node, q, k, mask, lengths, past)
    stages.append(stages[-1] if bias is None else stages[-1] + bias)
    precise = (
        stages[-1].to(torch_type(node.get("softmax_precision")))
        if "softmax_precision" in node.attributes
        else stages[-1]
    )
    weights = torch.softmax(precise, -1).to(q.dtype)
    if bias is not None:
        weights = torch.where((bias == -math.inf).all(-1, keepdim=True), 0, weights)
    stages.append(weights)
    result = torch.matmul(weights.to(v.dtype), v)
    if query.dim() == 3:
        result = result.transpose(1, 2).reshape(*query.shape[:2], -1)
    return result, *present, stages[node.get("qk_matmul_output_mode", 0)]


def _bias(node: Node, q: Tensor, k: Tensor, mask: Tensor | None, lengths: Tensor | None, past: int) -> Tensor | None:
    """Return what is added to the scores, -inf where a query may not see a key; None for nothing.

    The place of a query among the keys is counted from the past ones, or from the end of a sample's keys.
    """
    queries, keys = q.shape[2], k.shape[2]
    left, right = node.get("left_window_size", -1), node.get("right_window_size", -1)
    if node.get("is_causal", 0):
        right = 0
    first = torch.tensor([past]) if lengths is None or past else lengths - queries
    place = (first[:, None] + torch.arange(queries))[:, None, :, None]
    at = torch.arange(keys)
    allowed = torch.ones(1, 1, queries, keys, dtype=torch.bool)
    if left >= 0:
        allowed = allowed & (at >= place - left)
    if right >= 0:
        allowed = allowed & (at <= place + right)
    if lengths is not None:
        allowed = allowed & (at < lengths[:, None, None, None])
    bias = None
    if mask is not None:
        short = keys - mask.shape[-1]
        if mask.dtype == torch.bool:
            allowed = allowed & nn.functional.pad(mask, (0, short), value=False)
        else:
            bias = nn.functional.pad(mask.to(q.dtype), (0, short), value=-math.inf)
    if bool(allowed.all()):
        return bias
    hidden = torch.zeros(allowed.shape, dtype=q.dtype).masked_fill(~allowed, -math.inf)
    return hidden if bias is None else bias + hidden


@operator("RotaryEmbedding")
def rotary_embedding(node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
    """Return x with pairs of its elements turned by the angle of their position, one of each half or neighbours."""
    heads = _heads(x, node.get("num_heads"))
    if positions is not None:
        cos, sin = cos[positions], sin[positions]
    cos, sin = cos[:, None], sin[:, None]  # (batch, 1, sequence, pairs)
    turned, kept = heads.tensor_split([node.get("rotary_embedding_dim", 0) or heads.shape[-1]], -1)
    near = bool(node.get("interleaved", 0))
    a, b = (turned[..., ::2], turned[..., 1::2]) if near else turned.chunk(2, -1)
    pairs = cos * a - sin * b, sin * a + cos * b
    whole = torch.stack(pairs, -1).flatten(-2) if near else torch.cat(pairs, -1)
    result = torch.cat([whole, kept], -1)
    return result if x.dim() == 4 else result.transpose(1, 2).reshape(x.shape)


@operator("LinearAttention")
def linear_attention(
    node: Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return scale S^T q for each step, and the last state S (batch, heads, key size, value size).

    S' = e^g S + k u^T, with u = v, or u = beta (v - e^g S^T k) by a rule of delta, g = 0 by a rule without a gate, all
    in float32.
    """
    rule = node.get("update_rule", "gated_delta")
    heads, kv_heads = node.get("q_num_heads"), node.get("kv_num_heads")
    q, (k, v) = _heads(query, heads), (_heads(x, kv_heads) for x in (key, value))
    scale = node.get("scale", 0.0) or 1 / math.sqrt(q.shape[-1])
    stored = query.dtype if past is None else past.dtype
    state = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if past is None else past
    q, k, v, state = q.float(), k.float(), v.float(), state.float()
    gate = None if decay is None or "gated" not in rule else _heads(decay.float(), kv_heads).exp()[..., None]
    rate = None if beta is None or "delta" not in rule else _heads(beta.float(), beta.shape[-1])
    outputs = []
    for t in range(k.shape[2]):
        state = state if gate is None else gate[:, :, t] * state
        new = v[:, :, t : t + 1]
        if rate is not None:
            new = rate[:, :, t : t + 1] * (new - torch.matmul(k[:, :, t : t + 1], state))
        state = state + torch.matmul(k[:, :, t : t + 1].transpose(-2, -1), new)
        seen = state.repeat_interleave(heads // kv_heads, 1)
        outputs.append(scale * torch.matmul(q[:, :, t : t + 1], seen))
    result = torch.cat(outputs, 2).transpose(1, 2)
    return result.reshape(*query.shape[:2], -1).to(query.dtype), state.to(stored)
