"""The named block-scaled formats, and from a name to a format.

block := NAME (":" MODE)? | "block(" ELEMENT "," SIZE ",scale=" FORMAT ",mode=" MODE (",amax=" FORMAT)? ")"
NAME  := mxfp8_e4m3 | mxfp8_e5m2 | mxfp6_e3m2 | mxfp6_e2m3 | mxfp4 | mxint8 | nvfp4

ELEMENT and FORMAT are names of formats, and may hold commas within parentheses. The modes stand in block_scales.py;
without one the MX formats take floor, and nvfp4 knows rne only.
"""

from __future__ import annotations

import re
from dataclasses import replace

from .block import BlockFormat
from .catalogue import FLOATS
from .fixed import FixedFormat
from .format import Format

_FLOATS = {fmt.name: fmt for fmt in FLOATS}
_MX = "OCP Microscaling Formats 1.0, table 1"


def _mx(name: str, element: Format, symmetric: bool = False) -> BlockFormat:
    return BlockFormat(name, element, 32, _FLOATS["e8m0"], "floor", symmetric=symmetric)


BLOCKS: dict[BlockFormat, str] = {
    _mx("mxfp8_e4m3", _FLOATS["fp8_e4m3"]): _MX,
    _mx("mxfp8_e5m2", _FLOATS["fp8_e5m2"]): _MX,
    _mx("mxfp6_e3m2", _FLOATS["fp6_e3m2"]): _MX,
    _mx("mxfp6_e2m3", _FLOATS["fp6_e2m3"]): _MX,
    _mx("mxfp4", _FLOATS["fp4_e2m1"]): _MX,
    # Integers times 2**-6. The code of -2 decodes, but elements clamp to the largest value, in both signs.
    _mx("mxint8", FixedFormat("fix8.6", 8, 6, True), symmetric=True): _MX,
    BlockFormat("nvfp4", _FLOATS["fp4_e2m1"], 16, _FLOATS["ue4m3"], "rne", two_level=True): "NVIDIA PTX ISA 8.7",
}


def from_name(text: str) -> BlockFormat | None:
    """Return the block-scaled format of a name of the grammar above; None if it is no such name.

    Raises:
        ValueError: it is one, and something in it is unknown or impossible.
    """
    text = text.strip()
    if re.match(r"block\s*\(", text):
        return _canonical(_parsed(text))
    base, colon, mode = text.partition(":")
    named = next((fmt for fmt in BLOCKS if fmt.name == base), None)
    if named is None or not colon:
        return named
    return _canonical(replace(named, name=text, mode=mode))


def _parsed(text: str) -> BlockFormat:
    from .registry import get  # which imports this module for the names above

    expected = "expected block(ELEMENT,SIZE,scale=FORMAT,mode=MODE), and perhaps amax=FORMAT before the end"
    if not text.endswith(")"):
        raise ValueError(f"format {text!r}: {expected}")
    element, size, *rest = [*_arguments(text[text.index("(") + 1 : -1]), ""]
    options: dict[str, str] = {}
    for argument in rest[:-1]:
        key, equals, value = (part.strip() for part in argument.partition("="))
        if not equals or key not in ("scale", "mode", "amax") or key in options:
            raise ValueError(f"format {text!r}: {argument.strip()!r} is not expected there, or not again; {expected}")
        options[key] = value
    if not re.fullmatch(r"\d+", size) or not {"scale", "mode"} <= options.keys():
        raise ValueError(f"format {text!r}: {expected}")
    scale = get(options["scale"])
    amax = get(options["amax"]) if "amax" in options else None
    # Other families than floats are refused where the record is built.
    return BlockFormat(text, get(element), int(size), scale, options["mode"], amax)  # type: ignore[arg-type]


def _arguments(text: str) -> list[str]:
    """Split at the commas outside of parentheses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _canonical(fmt: BlockFormat) -> BlockFormat:
    """Give a format its one name: that of the catalogue, with the mode if it is not the default, else in full."""
    for named in BLOCKS:
        # Formats with other scales have other modes, so that the replacement below would be refused.
        if (fmt.scale, fmt.two_level) == (named.scale, named.two_level) and fmt == replace(named, mode=fmt.mode):
            return named if fmt.mode == named.mode else replace(fmt, name=f"{named.name}:{fmt.mode}")
    amax = f",amax={fmt.amax}" if fmt.amax is not None else ""
    return replace(fmt, name=f"block({fmt.element},{fmt.size},scale={fmt.scale},mode={fmt.mode}{amax})")
