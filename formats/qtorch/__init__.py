"""Posits and floats computed by the packages qtorch-plus 0.2.0 and qtorch 0.3.0 (extra `ulpsim[qtorch]`).

    name := "qtorch_posit" N ("e" ES)? | "qtorch_e" X "m" Y

Arrays are rounded by the C++ code of those packages. It is compiled when a format is first used, from where they are
installed, into a folder of its own; their Python modules, which compile at import, are never imported. Codes and
decoding come from a native format with the same values, and so does the exact projection of posits. docs/qtorch.md
says how the results differ from those of the native formats.
"""

from __future__ import annotations

import re

from ..format import Format
from ..posit import STANDARD_ES
from .extension import require
from .wrapped import PREFIX, QtorchFloat, QtorchFormat, QtorchPosit

__all__ = ["QtorchFloat", "QtorchFormat", "QtorchPosit", "from_name"]


def from_name(base: str) -> Format | None:
    """Return the format of a `qtorch_*` name under its canonical name, None for any other name.

    Raises:
        ValueError: the name is none of the grammar, or the package is wrong for these parameters.
        ImportError: something that the format needs is not installed; one sentence says what to install.
    """
    if not base.startswith(PREFIX):
        return None
    fmt: QtorchFormat
    if match := re.fullmatch(r"qtorch_posit([1-9]\d*)(?:e(0|[1-9]\d*))?", base):
        n, es = int(match[1]), STANDARD_ES if match[2] is None else int(match[2])
        fmt = QtorchPosit(f"qtorch_posit{n}" + (f"e{es}" if es != STANDARD_ES else ""), n, es)
    elif match := re.fullmatch(r"qtorch_e([1-9]\d*)m(0|[1-9]\d*)", base):
        fmt = QtorchFloat(base, int(match[1]), int(match[2]))
    else:
        raise ValueError(f"format {base!r} is unknown; expected qtorch_positN, qtorch_positNeES or qtorch_eXmY")
    require(fmt.package, fmt.name)
    return fmt
