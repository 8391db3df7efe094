"""Layers that have no rule as a whole, whatever operations they are made of: what they are, and what can be done."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

_RECURRENT = ("GRU", "LSTM", "RNN")  # as torch.export knows the layers that it has taken apart


def without_rule(path: str, modules: Mapping[str, nn.Module]) -> str:
    """Return the sentence that refuses the layer in which a module of this path lies; empty if it is none of these.

    Args:
        modules: all of the model, by path.
    """
    parts = path.split(".")
    for end in range(len(parts), 0, -1):
        own = ".".join(parts[:end])
        module = modules.get(own)
        if module is None:
            continue
        name = _name(module)
        if isinstance(module, nn.RNNBase) or getattr(module, "recurs", False) or name in _RECURRENT:
            return (
                f"bounds: {own}: {name}: recurrent layers have no rule, as their first state does not depend on the "
                "input; expected operations of docs/theory/bounds.md; leave it out of the model"
            )
        if getattr(module, "quantises", False):
            return (
                f"bounds: {own}: {name}: operators on quantised integers have no rule, as they round to whole numbers; "
                "expected products of floats; give the network as it was before it was quantised"
            )
    return ""


def _name(module: nn.Module) -> str:
    """Return the name of a layer as its framework has it, also of one that torch.export took apart."""
    exported = getattr(module, "_ty", None)
    return exported.rpartition(".")[2] if isinstance(exported, str) else module._get_name()
