"""The products of the layers in training, on the MAC units of a recipe."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from simulator.hardware import load_hardware
from simulator.network.emulation import Emulation

from .recipe import PRODUCTS


class OneThread:
    """A context in which torch's own operations take one thread, since the bits of their sums depend on how many do."""

    def __init__(self) -> None:
        self._before = 1

    def __enter__(self) -> None:
        self._before = torch.get_num_threads()
        torch.set_num_threads(1)

    def __exit__(self, *exception: Any) -> None:
        torch.set_num_threads(self._before)


class UnemulatedProduct(UserWarning):
    """What multiplies and adds, and is no product that a MAC unit takes; torch computed it."""


class Products(Emulation):
    """A context in which products of layers are those of MAC units, forward and backward; entered for each step.

    The engine takes as many threads as torch had when this was made, and torch within takes one. A product that no unit
    is named for is torch's own, of the operation as it is cut for the array: a recurrent layer is the products of its
    gates, attention its two products.

    Args:
        model: on the CPU. units: MAC strings by name of PRODUCTS, one at least. seed: key of stochastic roundings.
    Warns:
        UnemulatedProduct: once for each operation, when the context is left.
    """

    def __init__(self, model: nn.Module, units: Mapping[str, str], seed: int) -> None:
        forward, to_input, to_weight = (units.get(product, "float32") for product in PRODUCTS)
        rule = {"mac": forward, "gradients": to_input, "weight_gradients": to_weight}
        # Of the machine nothing counts here: each of the layers has a rule.
        machine, threads = load_hardware("npu"), torch.get_num_threads()
        super().__init__(model, machine, {"*": rule}, default="low", seed=seed, threads=threads)
        self._told: set[str] = set()
        self._one_thread = OneThread()

    def __enter__(self) -> Products:
        super().__enter__()
        self._one_thread.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self._one_thread.__exit__(*exception)
        super().__exit__(*exception)
        for operation, place in self.not_emulated:
            if operation not in self._told:
                self._told.add(operation)
                warnings.warn(
                    f"{operation} in {place}: not on a MAC unit of the recipe; torch computed it in its own arithmetic",
                    UnemulatedProduct,
                    stacklevel=3,
                )
