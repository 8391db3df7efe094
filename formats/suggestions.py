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


def suggestion(name: str, known: Sequence[str]) -> str:
    """Return the end of the message about an unknown name.

    Args:
        name: the unknown name. known: all names that stand for a format by themselves.
    """
    from .families import FAMILIES  # which knows all families, and few runs need that

    lower = name.strip().lower()
    if lower in FOREIGN:
        return f"did you mean {FOREIGN[lower]}?"
    longer = [other for other in known if (len(lower) > 1 and other.startswith(lower)) or other.endswith("_" + lower)]
    if longer:
        return f"did you mean {' or '.join(longer)}?"
    letters = re.match(r"[a-z]*", lower)
    family = next((family for family in FAMILIES.values() if letters and letters[0] in family.beginnings), None)
    if family is not None:
        return f"names of this family are written {family.grammar}, such as {family.example}"
    near = difflib.get_close_matches(lower, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(near)}?"
    examples = [family.example for family in FAMILIES.values() if family.example]
    return f"expected one of {', '.join(known)}, or of the families of {', '.join(examples)}; take one"
