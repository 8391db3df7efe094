"""What to say about an unknown name: the names of ours that were probably meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

# What others call formats of ours: suggested, never guessed.
FOREIGN = {
    "half": "fp16", "float16": "fp16", "f16": "fp16", "binary16": "fp16",
    "single": "fp32", "float": "fp32", "float32": "fp32", "f32": "fp32", "binary32": "fp32",
    "double": "fp64", "float64": "fp64", "f64": "fp64", "binary64": "fp64",
    "bfloat16": "bf16", "tensorfloat32": "tf32", "tf19": "tf32",
    "float8_e4m3": "e4m3:ieee or fp8_e4m3 (OCP)", "float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2",
    "float8_e3m4": "fp8_e3m4", "float8_e4m3fnuz": "fp8_e4m3fnuz", "float8_e5m2fnuz": "fp8_e5m2fnuz",
    "float8_e4m3b11fnuz": "fp8_e4m3b11fnuz", "float8_e8m0fnu": "e8m0", "float6_e3m2fn": "fp6_e3m2",
    "float6_e2m3fn": "fp6_e2m3", "float4_e2m1fn": "fp4_e2m1", "fp22": "e8m13", "mxfp4_e2m1": "mxfp4",
}  # fmt: skip

# By the letters in front: how the names of a family look.
FAMILIES = {
    "e": "eXmY, such as e5m7",
    "binary": "binaryKpP and se, sf, ue or uf, such as binary8p4se",
    "posit": "positN or positNeES, such as posit16 or posit16e1",
    "takum": "takumN, such as takum16",
    "fix": "fixN.F, such as fix16.8",
    "ufix": "ufixN.F, such as ufix16.8",
    "int": "intN, such as int8",
    "uint": "uintN, such as uint8",
    "block": "block(ELEMENT,SIZE,scale=FORMAT,mode=MODE), such as block(fp4_e2m1,16,scale=e8m0,mode=floor)",
    "qtorch": "qtorch_positN, qtorch_positNeES or qtorch_eXmY, such as qtorch_posit16e1",
}
_EXAMPLES = ("e5m7", "binary8p4se", "posit16", "takum16", "fix16.8", "ufix16.8", "int8", "uint8")


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return the end of the message about an unknown name.

    Args:
        name: the unknown name. known: all names that stand for a format by themselves.
    """
    lower = name.strip().lower()
    if lower in FOREIGN:
        return f"did you mean {FOREIGN[lower]}?"
    longer = [other for other in known if len(lower) > 1 and other.startswith(lower)]
    if longer:
        return f"did you mean {' or '.join(longer)}?"
    letters = re.match(r"[a-z]+", lower)
    if letters and letters[0] in FAMILIES:
        return f"names of that family are {FAMILIES[letters[0]]}"
    near = difflib.get_close_matches(lower, [*known, *_EXAMPLES], n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known are {', '.join(known)}, and the families of {', '.join(_EXAMPLES)} and block(...)"
