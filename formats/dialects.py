"""The dialects of floats: what a family of them does with its special codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Dialect:
    """What a family of floats does with its codes.

    Args:
        meaning: in words.
        signed: whether there is a sign bit.
        negative_zero: whether the code of -0 means -0; if not, it is the NaN ("nan"), or there is none (unsigned).
        reserved: what the largest codes of magnitude mean, from the top down ("inf", "nan"); "exponent" reserves the
            whole top exponent, its first code being the infinity.
        field_zero: "subnormal": exponent field 0 holds zero and the subnormals; "normal": its codes are normal values,
            but for code 0, which is zero; "no zero": normal values, all of them.
        bias_above: default bias minus (2**(X-1) - 1).
        overflow: default overflow mode.
        p3109: whether "ieee" means SatNone of IEEE P3109, whose formats may have up to 16 exponent bits, not 11.
    """

    meaning: str
    signed: bool = True
    negative_zero: bool = True
    reserved: tuple[str, ...] = ()
    field_zero: str = "subnormal"
    bias_above: int = 0
    overflow: str = "nan"
    p3109: bool = False


DIALECTS: Mapping[str, Dialect] = MappingProxyType({
    "ieee": Dialect("top exponent reserved for infinities and NaNs", reserved=("exponent",), overflow="ieee"),
    "fn": Dialect("no infinities; the code of all ones is NaN, in both signs", reserved=("nan",)),
    "fnuz": Dialect("no infinities; the code of negative zero is NaN", negative_zero=False, bias_above=1),
    "finite": Dialect("no infinities and no NaN: every code is a number", overflow="sat"),
    "se": Dialect(
        "P3109 signed, extended: the code of negative zero is NaN, the top code of each sign infinity",
        negative_zero=False, reserved=("inf",), bias_above=1, overflow="ieee", p3109=True,
    ),
    "sf": Dialect(
        "P3109 signed, finite: the code of negative zero is NaN",
        negative_zero=False, bias_above=1, p3109=True,
    ),
    "ue": Dialect(
        "P3109 unsigned, extended: the two top codes are NaN and infinity",
        signed=False, negative_zero=False, reserved=("nan", "inf"), bias_above=1, overflow="ieee", p3109=True,
    ),
    "uf": Dialect(
        "P3109 unsigned, finite: the top code is NaN",
        signed=False, negative_zero=False, reserved=("nan",), bias_above=1, p3109=True,
    ),
    "scale": Dialect(
        "powers of two without sign and zero; the top code is NaN",
        signed=False, negative_zero=False, reserved=("nan",), field_zero="no zero",
    ),
    "ufn": Dialect("no sign, no infinities; the top code is NaN", signed=False, negative_zero=False, reserved=("nan",)),
    "dlfloat": Dialect(
        "no subnormals: exponent field 0 is normal, but for zero; the code of all ones is infinity and NaN in one",
        reserved=("nan",), field_zero="normal",
    ),
})  # fmt: skip


def default_bias(exponent_bits: int, dialect: str) -> int:
    """Return the bias that a dialect has where none is given."""
    return (1 << (exponent_bits - 1)) - 1 + DIALECTS[dialect].bias_above
