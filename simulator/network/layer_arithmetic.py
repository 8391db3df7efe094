"""How the products of a layer are computed: its MAC units, what a second pass recomputes, how operands are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from formats import Use
from simulator.arithmetic.accumulators import Exact
from simulator.arithmetic.criterion import Criterion
from simulator.arithmetic.spec import MacSpec, mac
from simulator.errors import InputError
from simulator.hardware import Machine, Scaling
from simulator.hardware.records import Policy

from .model_scales import ModelScales

Scalings = tuple[Scaling | ModelScales | None, Scaling | ModelScales | None]


@dataclass(frozen=True)
class Arithmetic:
    """How the products of a layer are computed.

    Args:
        label: "low", "high", "two_pass", "exact", "float32", or "custom" for what the machine does not have.
        low: the MAC unit, of the first pass if there are two; None for float32.
        high: the MAC unit of the second pass, or of the last. criterion: what it recomputes.
        scalings: of the two operands, of an Op also those that the model has; None: not scaled.
        policy: of two passes, if it is the layer's own and not the machine's.
        middle: the MAC units of the passes between.
    """

    label: str
    low: MacSpec | None = None
    high: MacSpec | None = None
    criterion: Criterion | None = None
    scalings: Scalings = (None, None)
    policy: Policy | None = None
    middle: tuple[MacSpec, ...] = ()

    @property
    def units(self) -> tuple[MacSpec, ...]:
        """The MAC units of all passes, in their order; none for float32."""
        return tuple(unit for unit in (self.low, *self.middle, self.high) if unit is not None)

    def with_units(self, units: Sequence[MacSpec], **changes: Any) -> Arithmetic:
        """Return a copy with other MAC units, of as many passes, and other fields."""
        high = None if self.high is None else units[-1]
        return replace(self, low=units[0], middle=tuple(units[1:-1]), high=high, **changes)

    def in_one_pass(self, mode: str) -> Arithmetic:
        """Return the arithmetic of the low or the high MAC alone, of what has both."""
        label = mode if self.label == "two_pass" else self.label
        return replace(self, label=label, low=getattr(self, mode), high=None, criterion=None, middle=())

    @property
    def scaled(self) -> bool:
        """Whether an operand is scaled."""
        return any(self.scalings)

    def scales_in_words(self, roles: tuple[int, int]) -> str:
        """Return how the two operands of an Op are scaled, empty if neither is."""
        found = [(name, self.scalings[role]) for name, role in zip("ab", roles, strict=True)]
        return "; ".join(f"{name} {scaling}" for name, scaling in found if scaling is not None)

    def __str__(self) -> str:
        return self.label if self.low is None else "; ".join(map(str, self.units))


def arithmetic(machine: Machine, name: str) -> Arithmetic:
    """Return the arithmetic that a name means on a machine: a mode of it, "exact", "float32", or a MAC string.

    "exact" takes the operands of the low mode and rounds each exact inner product once, to float32.

    Raises:
        InputError: the machine has no such mode, or the string is no MAC.
    """
    low, high, policy = machine.mac.low, machine.mac.high, machine.policy
    if name == "float32":
        return Arithmetic(name)
    if name == "exact":
        return Arithmetic(name, exact_unit(low.spec))
    if name == "low":
        return Arithmetic(name, low.spec)
    if name == "high" and high is not None:
        return Arithmetic(name, high.spec)
    if name == "two_pass" and high is not None and policy is not None:
        criterion = Criterion(
            policy.tolerance, policy.score, policy.recompute_nonfinite, policy.recompute_saturated,
            policy.side_format, policy.budget, policy.sign_safe, policy.further, policy.ladder or "climb",
        )  # fmt: skip
        middle = tuple(mode.spec for _, mode in machine.mac.middle)
        return Arithmetic(name, low.spec, high.spec, criterion, middle=middle)
    if name in ("high", "two_pass"):
        raise InputError(f"{machine.source}: mode {name!r}: the machine has one MAC; use low, exact or float32")
    try:
        return Arithmetic("custom", mac(name))
    except ValueError as error:
        raise InputError(f"arithmetic {name!r}: {error}; or use low, high, two_pass, exact or float32") from None


def exact_unit(spec: MacSpec) -> MacSpec:
    """Return a unit with the operands of another that rounds each exact inner product once, to float32."""
    return MacSpec(Exact(Use.parse("fp32")), spec.operands)
