"""Rules of what only moves values: the noise goes where they go."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..values import Trace, Value
from .nested import leaves, mapped
from .registry import Choice, as_it_is, functional, rule

# Operations that give some of their operands' elements, each in one place, and zeros or numbers of the code.
MOVES = frozenset({
    "clone", "contiguous", "cat", "stack", "index", "index_select", "gather", "embedding", "flip", "roll", "repeat",
    "repeat_interleave", "tril", "triu", "slice_scatter", "select_scatter", "diagonal_scatter", "masked_select",
    "take", "take_along_dim", "slice_backward", "select_backward", "diagonal_backward", "pixel_shuffle",
    "pixel_unshuffle", "channel_shuffle", "reflection_pad1d", "reflection_pad2d", "replication_pad1d",
    "replication_pad2d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact2d",
    "im2col", "diag_embed", "index_copy", "unfold_copy", "split_with_sizes_copy", "lift_fresh", "lift_fresh_copy",
    "_reshape_copy", "reshape", "_unsafe_view", "_reshape_alias", "unsafe_chunk", "unsafe_split", "resolve_conj",
    "view_copy", "expand_copy", "permute_copy", "t_copy", "squeeze_copy", "unsqueeze_copy", "select_copy",
    "detach_copy", "slice_copy", "alias_copy", "masked_scatter", "reflection_pad3d", "replication_pad3d",
    "masked_scatter_backward", "_upsample_nearest_exact1d", "_upsample_nearest_exact3d",
})  # fmt: skip

# What makes values of nothing: exact.
MAKES = frozenset({
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "zeros", "zeros_like", "new_zeros",
    "ones", "ones_like", "new_ones", "eye",
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "normal", "uniform", "bernoulli",
    "exponential", "random", "zero", "multinomial", "tril_indices", "triu_indices", "one_hot",
    "_efficientzerotensor", "log_normal", "geometric", "cauchy",
})  # fmt: skip


def moved(t: Trace, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], results: list[Any]) -> list[Any] | None:
    """Return the values of an operation of MOVES: the same operation on the noise; None if it is only in place."""
    given = [x for x in leaves((args, kwargs)) if isinstance(x, Value)]
    func = functional(func)
    if func is None:
        return None
    found: list[list[Tensor | None]] = [[] for _ in results]
    for i in range(len(t.algebras)):
        if all(leaf.noise[i] is None for leaf in given):
            for part in found:
                part.append(None)
            continue

        def noise(x: Any, i: int = i) -> Any:
            if isinstance(x, Value):
                given = x.given(t.algebras[i], i)
                return torch.zeros_like(x.x) if given is None else given.expand(x.shape)
            return x

        out = func(*mapped(args, noise), **mapped(kwargs, noise))
        for part, n in zip(found, out if isinstance(out, tuple | list) else (out,), strict=True):
            part.append(n)
    return [Value(t, r, tuple(part)) for r, part in zip(results, found, strict=True)]


@rule("constant_pad_nd")
def constant_pad(t: Trace, x: Value, pad: Any, value: float = 0) -> Value:
    """x with numbers around it."""
    number = t.value(value)
    z = torch.constant_pad_nd(x.x, pad, float(number.x))

    def noise(a: Any, i: int) -> Tensor | None:
        n, own = x.given(a, i), number.noise[i]
        if n is None and own is None:
            return None
        n = torch.zeros_like(x.x) if n is None else n.expand(x.shape)
        return torch.constant_pad_nd(n, pad, 0.0 if own is None else float(own))

    return t.map(z, noise)


@rule("copy", "_to_copy", "to", "type_as", chooses=True)
def copy(t: Trace, *args: Any, **kwargs: Any) -> Any:
    """The values of another tensor, or of another type; what a conversion loses is measured."""
    source = args[1] if len(args) > 1 and isinstance(args[1], Value | Choice | Tensor) else args[0]
    return t.value(as_it_is(t, source))


@rule("index_fill")
def index_fill(t: Trace, x: Value, dim: int, index: Tensor, value: Any) -> Value:
    """x with a number in some places."""
    number = t.value(value)

    def noise(a: Any, i: int) -> Tensor | None:
        n, own = x.given(a, i), number.noise[i]
        if n is None and own is None:
            return None
        n = torch.zeros_like(x.x) if n is None else n.expand(x.shape)
        return n.index_fill(dim, index, 0.0 if own is None else own.reshape(()))

    return t.map(x.x.index_fill(dim, index, number.x.reshape(())), noise)
