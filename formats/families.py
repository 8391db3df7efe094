"""Which names there are: one record a family, with its grammar and its source, and where a given format comes from."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from .block import BlockFormat
from .block_names import BLOCKS
from .catalogue import FLOATS
from .codebook import CodebookFormat
from .fixed import FixedFormat
from .floats import FloatFormat
from .format import Format
from .posit import PositFormat
from .qtorch import QtorchFormat
from .registry import origin
from .takum import TakumFormat


@dataclass(frozen=True)
class Family:
    """A family of formats.

    Args:
        key: short name. beginnings: of its names. grammar: how they are written, "" where there are none.
        example: one of them. meaning: in words. source: of its definition.
    """

    key: str
    beginnings: tuple[str, ...]
    grammar: str
    example: str
    meaning: str
    source: str


FAMILIES: dict[str, Family] = {
    family.key: family
    for family in (
        Family(
            "float", ("e",), "eXmY[:ieee|fn|fnuz|finite][:bBIAS][:ftz]", "e5m7",
            "float of X exponent bits (1 to 11) and Y fraction bits (0 to 52); IEEE-like unless a dialect says what "
            "the special codes mean; b: another bias; ftz: no subnormals",
            "IEEE 754-2019, section 3.4; OCP 8-bit Floating Point Specification 1.0 (fn); AMD CDNA3 ISA, 2023 (fnuz); "
            "OCP Microscaling Formats 1.0 (finite)",
        ),
        Family(
            "P3109", ("binary",), "binaryKpP(s|u)(e|f)", "binary8p4se",
            "float of K bits, P of them significand; signed or unsigned, extended by infinities or finite",
            "IEEE P3109 interim report v4.0, June 2026 (a draft)",
        ),
        Family(
            "posit", ("posit",), "positN[eES]", "posit16",
            "posit of N bits (2 to 32) with ES exponent bits; ES = 2, the standard, where none is given",
            "Standard for Posit Arithmetic (2022); other ES: Gustafson and Yonemoto, Beating floating point at its own "
            "game, 2017",
        ),
        Family(
            "takum", ("takum",), "takumN", "takum16", "linear takum of N bits (2 to 32)",
            "Hunhold, Beating posits at their own game: takum arithmetic, arXiv 2404.18603",
        ),
        Family(
            "fixed point", ("fix", "ufix"), "[u]fixN.F", "fix16.8",
            "N bits (up to 53), F of them behind the point; two's complement unless u",
            "Q notation: ARM Q-format, TI IQmath",
        ),
        Family(
            "integer", ("int", "uint"), "[u]intN", "int8", "N bits (up to 53); two's complement unless u",
            "ISO/IEC 9899, section 6.2.6.2",
        ),
        Family(
            "block", ("block",), "block(ELEMENT,SIZE,scale=FORMAT,mode=MODE[,amax=FORMAT]), NAME:MODE",
            "block(int4,16,scale=e8m0,mode=ceil)",
            "SIZE elements that share a scale; MODE says how the scale is found, and changes that of a named one",
            "OCP Microscaling Formats 1.0, sections 5 and 6; scale modes: formats/block_scales.py",
        ),
        Family(
            "qtorch", ("qtorch",), "qtorch_positN[eES], qtorch_eXmY", "qtorch_posit16e1",
            "as the packages qtorch-plus and qtorch round it (extra ulpsim[qtorch])",
            "qtorch-plus 0.2.0, qtorch 0.3.0; docs/qtorch.md",
        ),
        Family(
            "codebook", (), "", "", "a list of up to 65,536 values, registered under a name of its own",
            "reference definition of this project, formats/codebook.py",
        ),
        Family("other", (), "", "", "a family of a plug-in", "its plug-in"),
    )
}  # fmt: skip


@functools.singledispatch
def _key(fmt: Format) -> str:
    return "other"


@_key.register
def _(fmt: FloatFormat) -> str:
    return "P3109" if fmt.rules.p3109 else "float"


@_key.register
def _(fmt: FixedFormat) -> str:
    return "fixed point" if fmt.fraction_bits else "integer"


_key.register(PositFormat, lambda fmt: "posit")
_key.register(TakumFormat, lambda fmt: "takum")
_key.register(CodebookFormat, lambda fmt: "codebook")
_key.register(BlockFormat, lambda fmt: "block")
_key.register(QtorchFormat, lambda fmt: "qtorch")


def family_of(fmt: Format) -> Family:
    """Return the family of a format."""
    return FAMILIES[_key(fmt)]


def source_of(fmt: Format) -> str:
    """Return where a format is defined: its line of the catalogue, its plug-in, or the source of its family."""
    named = {known.name: source for catalogue in (FLOATS, BLOCKS) for known, source in catalogue.items()}
    return named.get(fmt.name.split(":")[0]) or origin(fmt.name) or family_of(fmt).source
