"""Everything that a format's few parameters imply, in one record."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

from .block import BlockFormat
from .codebook import CodebookFormat
from .exact import Ends, Number, ends, exponent_of, log2
from .families import Family, family_of, source_of
from .fixed import FixedFormat
from .floats import FloatFormat
from .format import Format
from .posit import PositFormat
from .qtorch import QtorchFormat
from .registry import available, get
from .table import Specials, specials
from .takum import TakumFormat


@dataclass(frozen=True)
class Facts:
    """The derived numbers of a format, all exact but for the logarithms.

    Args:
        name: canonical name. family: its family. source: of its definition.
        bits: of a code; of an element in block formats. precision: significand bits p, the hidden one included; of the
            values around 1 where precision tapers; None where it is not a matter of significands.
        tapers: whether the precision is lower away from 1.
        max, min: largest and lowest finite value. smallest_normal, smallest_subnormal: positive; the former is None
            where every value is subnormal. These four are Fractions where float64 does not hold them.
        specials: special codes; None for block formats, whose element and scale have them.
        default_overflow: overflow mode of a use that names none.
        details: what only this family has, by words joined with underscores.
    """

    name: str
    family: Family
    source: str
    bits: int
    precision: int | None
    tapers: bool
    max: Number
    min: Number
    smallest_normal: Number | None
    smallest_subnormal: Number
    specials: Specials | None
    default_overflow: str
    details: dict[str, Any]

    @property
    def unit_roundoff(self) -> float | None:
        """Largest relative error of rounding to nearest between smallest_normal and max, around 1 if that tapers."""
        if self.precision is None or self.smallest_normal is None:
            return None
        return math.ldexp(1.0, -self.precision)

    @property
    def range_binades(self) -> float:
        """Dynamic range log2(max / smallest positive value)."""
        return log2(self.max) - log2(self.smallest_subnormal)

    @property
    def range_decades(self) -> float:
        """Dynamic range log10(max / smallest positive value)."""
        return self.range_binades * math.log10(2)


def facts_of(fmt: Format) -> Facts:
    """Return the derived numbers of a format."""
    precision, tapers = _precision(fmt)
    found = _ends(fmt)
    return Facts(
        name=fmt.name,
        family=family_of(fmt),
        source=source_of(fmt),
        bits=fmt.bits,
        precision=precision,
        tapers=tapers,
        max=found.largest,
        min=found.lowest,
        smallest_normal=found.smallest_normal,
        smallest_subnormal=found.smallest,
        specials=None if isinstance(fmt, BlockFormat) else specials(fmt),
        default_overflow=fmt.default_overflow,
        details=_details(fmt),
    )


def facts_of_available() -> tuple[list[Facts], dict[str, str]]:
    """Return the derived numbers of every available format, and why plug-ins that cannot be loaded cannot, by name."""
    known, problems = [], {}
    for name in available():
        try:
            known.append(facts_of(get(name)))
        except ValueError as error:
            problems[name] = str(error)
    return known, problems


# --- what differs by family -----------------------------------------------------------------------------------------


def _ends(fmt: Format) -> Ends:
    if isinstance(fmt, BlockFormat):
        normal = None if ends(fmt.element).smallest_normal is None else fmt.smallest_normal
        return Ends(-fmt.max, fmt.smallest_subnormal, normal, fmt.max)
    return ends(fmt)


@functools.singledispatch
def _precision(fmt: Format) -> tuple[int | None, bool]:
    """Return (significand bits, whether they taper)."""
    return None, False


_precision.register(FloatFormat, lambda fmt: (fmt.precision, False))
_precision.register(PositFormat, lambda fmt: (fmt.precision, True))
_precision.register(TakumFormat, lambda fmt: (fmt.precision, True))
_precision.register(BlockFormat, lambda fmt: _precision(fmt.element))
_precision.register(QtorchFormat, lambda fmt: _precision(fmt.record))


@functools.singledispatch
def _details(fmt: Format) -> dict[str, Any]:
    return {}


@_details.register
def _(fmt: FloatFormat) -> dict[str, Any]:
    return {
        "exponent_bits": fmt.exponent_bits,
        "fraction_bits": fmt.fraction_bits,
        "bias": fmt.bias,
        "emin": fmt.min_exponent,
        "emax": exponent_of(ends(fmt).largest),
        "dialect": f"{fmt.dialect}: {fmt.rules.meaning}",
        "subnormals": fmt.exact_ends[0] != fmt.exact_ends[1],
    }


@_details.register
def _(fmt: PositFormat) -> dict[str, Any]:
    return {
        "exponent_bits": fmt.es,
        "useed": fmt.useed,
        "quire_bits": 16 * fmt.n if fmt.es == 2 else None,
    }


@_details.register
def _(fmt: TakumFormat) -> dict[str, Any]:
    return {"characteristics": "-255 to 254"}


@_details.register
def _(fmt: FixedFormat) -> dict[str, Any]:
    return {"fraction_bits": fmt.fraction_bits, "quantum": fmt.quantum, "signed": fmt.signed}


@_details.register
def _(fmt: CodebookFormat) -> dict[str, Any]:
    boundaries = "means of neighbours" if fmt.boundaries is None else "of its own"
    return {"values": len(fmt.values), "boundaries": boundaries}


@_details.register
def _(fmt: BlockFormat) -> dict[str, Any]:
    return {
        "block_size": fmt.size,
        "element": fmt.element.name,
        "scale": fmt.scale.name,
        "scale_mode": fmt.mode,
        "bits_per_element": fmt.bits_per_element,
        "amax": None if fmt.amax is None else fmt.amax.name,
        "symmetric_elements": fmt.symmetric,
        "levels": "2: a float32 of the whole array, and block scales" if fmt.two_level else 1,
    }


@_details.register
def _(fmt: QtorchFormat) -> dict[str, Any]:
    return {"rounded_by": fmt.package, "native_twin": fmt.native_name, **_details(fmt.record)}
