"""The outputs within what a model returned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from simulator.errors import InputError


def further_outputs(result: Any) -> dict[str, Tensor]:
    """Return the outputs of a model beside that of output_of: tensors of floats, by key, or by place as "1".

    What it nests further, as caches of attention are, is none.
    """
    if isinstance(result, Mapping):
        named = {str(key): value for key, value in result.items()}
    elif isinstance(result, tuple | list):
        named = {str(place): value for place, value in enumerate(result)}
    else:
        return {}
    first = output_of(result)
    return {
        name: value for name, value in named.items()
        if isinstance(value, Tensor) and value is not first and value.is_floating_point()
    }  # fmt: skip


def output_of(result: Any) -> Tensor:
    """Return the outputs within what a model returned: `.logits`, "logits", or the first tensor, of floats if one is.

    A classifier that has its answers first, as integers, has its scores behind them.

    Raises:
        InputError: there is no tensor.
    """
    logits = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    values = result.values() if isinstance(result, Mapping) else result
    within = values if isinstance(result, Mapping | tuple | list) else [result]
    tensors = [value for value in within if isinstance(value, Tensor)]
    for value in (*(value for value in tensors if value.is_floating_point()), *tensors):
        return value
    raise InputError(
        f"the model returned {type(result).__name__}; expected a tensor, something with .logits, or a tuple, list or "
        "mapping with a tensor in it; wrap it in a module that returns its outputs"
    )
