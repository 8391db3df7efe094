"""A recipe: what is rounded where in training, and how the loss is scaled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from formats import Use
from simulator.arithmetic.spec import mac
from simulator.errors import InputError
from simulator.hardware.quantities import describe

from .points import POINTS, WEIGHT_STORE, parse_use

PRODUCTS = ("forward", "input_gradient", "weight_gradient")


def is_power_of_two(value: float) -> bool:
    """Whether a loss multiplied by it, and its gradients divided by it, keep their significands."""
    try:
        return value > 0 and math.isfinite(value) and math.frexp(value)[0] == 0.5 and float(value) == value
    except OverflowError:  # a whole number beyond all floats
        return False


def parse_mac(unit: str) -> str:
    """Return a MAC unit in its own words; ValueError says what is wrong with it."""
    try:
        return str(mac(unit))
    except ValueError as error:
        raise ValueError(f"{error}; give e.g. 'fma(fp16)'") from None


def _unit(product: str, unit: str) -> str:
    """Return the MAC unit of a product in its own words."""
    if product not in PRODUCTS:
        raise InputError(f"recipe: mac: {product}: unknown product; expected one of {', '.join(PRODUCTS)}; correct it")
    try:
        return parse_mac(unit)
    except (ValueError, TypeError) as error:
        raise InputError(f"recipe: mac: {product}: {error}") from None


@dataclass(frozen=True)
class LossScale:
    """Powers of two by which the loss is multiplied, and the gradients divided again before the optimiser reads them.

    Args:
        start: of the first step. dynamic: whether it halves after a step whose gradients are not finite, which is
            skipped, and doubles after so many good ones: `every`; from 2**-126 to 2**127 (or
            start), so that it stays a normal float32.
    Raises:
        InputError: a start that is no power of two, or an `every` that is no whole number from 1.
    """

    start: float = 1.0
    dynamic: bool = False
    every: int = 2000

    def __post_init__(self) -> None:
        start, every = self.start, self.every
        if isinstance(start, bool) or not isinstance(start, int | float) or not is_power_of_two(start):
            raise InputError(f"recipe: loss_scale: got {describe(start)}; expected a power of two; give e.g. 1024")
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(
                f"recipe: loss_scale: every: got {describe(every)}; expected a whole number from 1; give e.g. 2000"
            )


@dataclass(frozen=True)
class Recipe:
    """Formats by quantisation point, all others being left as they are.

    Args:
        points: format in use by name of POINTS. loss_scale: of the loss. name: of the recipe. macs: the MAC units of
            the three products of each layer, by name of PRODUCTS; those not named are torch's own.
    Raises:
        InputError: an unknown point or product, or what is no format, MAC unit or loss scale.
    """

    points: Mapping[str, Use] = field(default_factory=dict)
    loss_scale: LossScale = field(default_factory=LossScale)
    name: str = ""
    macs: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for point, use in self.points.items():
            if point not in POINTS:
                raise InputError(
                    f"recipe: {point}: unknown quantisation point; expected one of {', '.join(POINTS)}; correct it"
                )
            if not isinstance(use, Use):
                raise InputError(
                    f"recipe: {point}: got {describe(use)}; expected a format in use; call Recipe.of, which reads words"
                )
        if not isinstance(self.loss_scale, LossScale):
            raise InputError(
                f"recipe: loss_scale: got {describe(self.loss_scale)}; expected a LossScale; give e.g. LossScale(1024)"
            )
        for product, unit in self.macs.items():
            _unit(product, unit)

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
        if loss_scale is None:
            scale = LossScale()
        else:
            scale = loss_scale if isinstance(loss_scale, LossScale) else LossScale(loss_scale)
        units = {product: _unit(product, unit) for product, unit in (macs or {}).items()}
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
