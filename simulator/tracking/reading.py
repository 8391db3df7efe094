"""What is known of a tensor: its values, the bits that each number claims, and how it prints."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .apart import apart
from .labels import CERTAIN_NOISE, EXPECTED, LABELS, MEANINGS, SAFE, bits_of, precision

_DIGIT = math.log10(2.0)
_SHOWN = 8  # elements of an axis that are printed


class Reading:
    """A tensor with its reliable bits; `print` shows digits that are not claimed as ?.

    Args:
        values: the tensor, without its graph. noise: amplitude by label, None where all is exact.
    """

    def __init__(self, values: Tensor, noise: dict[str, Tensor | None]) -> None:
        self.values, self.noise = values, noise
        most = precision(values.dtype)
        assert most is not None
        self.most = most

    def bits(self, label: str) -> Tensor:
        """Return uint8 bits of a label: safe, expected or certain_noise, each with the meaning in MEANINGS."""
        self._check(label)
        with apart():
            return bits_of(label, self.values, self.noise[label], self.most)

    @property
    def safe(self) -> Tensor:
        """Bits that are surely right, uint8: |value - exact| <= 2**-bits |exact|. Upper bound of the error."""
        return self.bits(SAFE)

    @property
    def expected(self) -> Tensor:
        """Bits within two standard deviations of the error, uint8. Statistical."""
        return self.bits(EXPECTED)

    @property
    def certain_noise(self) -> Tensor:
        """Bits beyond which all is noise even by an optimistic count, uint8. Estimate."""
        return self.bits(CERTAIN_NOISE)

    @property
    def bound(self) -> Tensor:
        """Upper bound of |value - exact|, of the safe number; infinite where there is none."""
        self._check(SAFE)
        found = self.noise[SAFE]
        with apart():
            if found is None:
                return torch.zeros_like(self.values)
            return torch.nan_to_num(found.expand(self.values.shape), nan=math.inf, posinf=math.inf)

    def _check(self, label: str) -> None:
        if label not in self.noise:
            kept = ", ".join(self.noise)
            raise AttributeError(f"track: {label!r} was not tracked; expected one of {kept}; give it in numbers=")

    def __repr__(self) -> str:
        label = next(name for name in LABELS if name in self.noise)
        return self.shown(label)

    def shown(self, label: str) -> str:
        """Return the values in decimal, with ? for digits that the label does not claim, under a line that names it."""
        bits = self.bits(label)
        head = f"digits claimed by {label} ({MEANINGS[label].split(':')[0]}); ? is not claimed"
        with apart():
            return head + "\n" + _table(self.values.detach(), bits, self.most)


def _table(x: Tensor, bits: Tensor, most: int) -> str:
    if x.dim() == 0:
        return digits(float(x), int(bits), most)
    if x.dim() == 1:
        shown = [digits(float(v), int(b), most) for v, b in zip(x[:_SHOWN], bits[:_SHOWN], strict=True)]
        return "[" + ", ".join(shown) + (", ..." if len(x) > _SHOWN else "") + "]"
    rows = [_table(row, b, most) for row, b in zip(x[:_SHOWN], bits[:_SHOWN], strict=True)]
    return "[" + ",\n ".join(rows) + (",\n ..." if len(x) > _SHOWN else "") + "]"


def digits(x: float, bits: int, most: int) -> str:
    """Return a number in scientific notation with as many digits as its type has, those beyond `bits` as ?."""
    if not math.isfinite(x):
        return str(x)
    whole = max(1, math.floor(most * _DIGIT) + 1)
    text = f"{x:.{whole - 1}e}"
    significand, exponent = text.split("e")
    claimed = whole if bits >= most else math.floor(bits * _DIGIT)
    out, seen = "", 0
    for character in significand:
        if character.isdigit():
            seen += 1
            out += character if seen <= claimed else "?"
        else:
            out += character
    return f"{out}e{exponent}"
