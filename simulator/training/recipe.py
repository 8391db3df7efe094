"""A recipe: what is rounded where in training, and how the loss is scaled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from formats import Use
from simulator.arithmetic.spec import mac
from simulator.errors import InputError

from .points import POINTS, WEIGHT_STORE, parse_use

PRODUCTS = ("forward", "input_gradient", "weight_gradient")


def is_power_of_two(value: float) -> bool:
    """Whether a loss multiplied by it, and its gradients divided by it, keep their significands."""
    return value > 0 and math.isfinite(value) and math.frexp(value)[0] == 0.5


def parse_mac(unit: str) -> str:
    """Return a MAC unit in its own words; ValueError says what is wrong with it."""
    try:
        return str(mac(unit))
    except ValueError as error:
        raise ValueError(f"{error}; give e.g. 'fma(fp16)'") from None


@dataclass(frozen=True)
class LossScale:
    """Powers of two by which the loss is multiplied, and the gradients divided again before the optimiser reads them.

    Args:
        start: of the first step. dynamic: whether it halves after a step whose gradients are not finite, which is
            skipped, and doubles after so many good ones: `every`.
    """

    start: float = 1.0
    dynamic: bool = False
    every: int = 2000


@dataclass(frozen=True)
class Recipe:
    """Formats by quantisation point, all others being left as they are.

    Args:
        points: format in use by name of POINTS. loss_scale: of the loss. name: of the recipe. macs: the MAC units of
            the three products of each layer, by name of PRODUCTS; those not named are torch's own.
    """

    points: Mapping[str, Use] = field(default_factory=dict)
    loss_scale: LossScale = field(default_factory=LossScale)
    name: str = ""
    macs: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        points: Mapping[str, str | Use],
        loss_scale: LossScale | float | None = None,
        name: str = "",
        macs: Mapping[str, str] | None = None,
    ) -> Recipe:
        """Return a recipe from words, e.g. {"weight_store": "e8m6/rz"}.

        Raises:
            InputError: an unknown point, a format that is none, or a loss scale that is no power of two.
        """
        unknown = [point for point in points if point not in POINTS]
        if unknown:
            raise InputError(
                f"recipe: {unknown[0]}: unknown quantisation point; expected one of {', '.join(POINTS)}; correct it"
            )
        scale = loss_scale if isinstance(loss_scale, LossScale) else LossScale(float(loss_scale or 1.0))
        if not is_power_of_two(scale.start):
            raise InputError(f"recipe: loss_scale: got {scale.start}; expected a power of two; give e.g. 1024")
        units = {}
        for product, unit in (macs or {}).items():
            if product not in PRODUCTS:
                raise InputError(
                    f"recipe: mac: {product}: unknown product; expected one of {', '.join(PRODUCTS)}; correct it"
                )
            try:
                units[product] = parse_mac(unit)
            except ValueError as error:
                raise InputError(f"recipe: mac: {product}: {error}") from None
        found = {point: parse_use(use, f"recipe: {point}") for point, use in points.items()}
        return cls(found, scale, name, units)

    @classmethod
    def storage(cls, form: str | Use, rounding: str | None = None) -> Recipe:
        """Return the recipe of the paper: stored parameters alone."""
        return cls({WEIGHT_STORE: parse_use(form, "storage", rounding)})

    def without(self, point: str) -> Recipe:
        """Return it with a point switched off."""
        points = {name: use for name, use in self.points.items() if name != point}
        return replace(self, points=points, macs={name: unit for name, unit in self.macs.items() if name != point})

    def only(self, point: str) -> Recipe:
        """Return it with this point alone."""
        points = {name: use for name, use in self.points.items() if name == point}
        return replace(self, points=points, macs={name: unit for name, unit in self.macs.items() if name == point})

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the points and products that are on."""
        return (*self.points, *self.macs)

    def in_words(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "macs": dict(self.macs),
            "points": {name: str(use) for name, use in self.points.items()},
            "loss_scale": {"start": self.loss_scale.start, "dynamic": self.loss_scale.dynamic,
                           "every": self.loss_scale.every},
        }  # fmt: skip
