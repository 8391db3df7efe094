"""Rules of what only moves values: the noise goes where they go."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..values import Trace, Value
from .registry import Choice, functional, rule

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
    "detach_copy", "slice_copy", "alias_copy", "masked_scatter",
})  # fmt: skip

# What makes values of nothing: exact.
MAKES = frozenset({
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "zeros", "zeros_like", "new_zeros",
    "ones", "ones_like", "new_ones", "full", "full_like", "new_full", "arange", "linspace", "eye", "scalar_tensor",
    "rand", "rand_like", "randn", "randn_like", "randint", "randint_like", "randperm", "normal", "uniform", "bernoulli",
    "exponential", "random", "zero", "fill", "multinomial", "tril_indices", "triu_indices", "one_hot",
    "_efficientzerotensor", "log_normal", "geometric", "cauchy",
})  # fmt: skip


def moved(t: Trace, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], results: list[Any]) -> list[Any]:
    """Return the values of an operation of MOVES: the same operation on the noise."""
    given = [x for x in leaves((args, kwargs)) if isinstance(x, Value)]
    func = functional(func)
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


def leaves(x: Any) -> list[Any]:
    if isinstance(x, tuple | list) and not isinstance(x, Value | Choice):
        return [leaf for part in x for leaf in leaves(part)]
    if isinstance(x, dict):
        return leaves(tuple(x.values()))
    return [x]


def mapped(x: Any, f: Any) -> Any:
    if isinstance(x, tuple | list) and not isinstance(x, Value | Choice):
        return type(x)(mapped(part, f) for part in x)
    if isinstance(x, dict):
        return {key: mapped(part, f) for key, part in x.items()}
    return f(x)


@rule("constant_pad_nd")
def constant_pad(t: Trace, x: Value, pad: Any, value: float = 0) -> Value:
    """x with numbers around it."""
    found = x.moved(lambda n: torch.constant_pad_nd(n, pad, 0))
    return Value(t, torch.constant_pad_nd(x.x, pad, value), found.noise)


@rule("copy", "_to_copy", "to", "type_as", chooses=True)
def copy(t: Trace, *args: Any, **kwargs: Any) -> Any:
    """The values of another tensor, or of another type; what a conversion loses is measured."""
    source = args[1] if len(args) > 1 and isinstance(args[1], Value | Choice | Tensor) else args[0]
    if isinstance(source, Choice):
        return t.exact(source.x).either(source.undecided, source.undecided > 0)
    return t.value(source)


@rule("masked_fill_scalar", "index_fill")
def index_fill(t: Trace, x: Value, dim: int, index: Tensor, value: Any) -> Value:
    """x with a number in some places."""
    found = x.moved(lambda n: n.index_fill(dim, index, 0.0))
    number = float(value.x) if isinstance(value, Value) else float(value)
    return Value(t, x.x.index_fill(dim, index, number), found.noise)


@rule("scatter")
def scatter(t: Trace, x: Value, dim: int, index: Tensor, source: Any) -> Value:
    """x with other values in some places."""
    source = t.value(source)
    part = source.moved(lambda n: n.expand(index.shape)) if source.x.dim() == 0 else source
    z = x.x.scatter(dim, index, part.x)

    def noise(a: Any, i: int) -> Tensor | None:
        one, other = x.given(a, i), part.given(a, i)
        if one is None and other is None:
            return None
        one = torch.zeros_like(x.x) if one is None else one.expand(x.shape)
        return one.scatter(dim, index, torch.zeros_like(part.x) if other is None else other.expand(part.shape))

    return t.map(z, noise)
