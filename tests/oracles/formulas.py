"""Formulas of the bill, read from their text: numbers, + - x / ^ ( ) max ceil; units and other words mean nothing."""

import math
import re

_PREFIX = {"f": 1e-15, "p": 1e-12, "n": 1e-9, "": 1.0}
_WORDS = re.compile(r"\b(?!max\b|ceil\b)[A-Za-z][A-Za-z]+\b")


def evaluate(formula: str) -> float:
    """Return the value of a formula; of energies in joules."""
    text = formula.split(", through")[0]
    text = re.sub(r"\((?:[A-Za-z]+ ?)+\)", "", text)  # (further mode)
    text = re.sub(r"([\d.e-]+) ([fpn]?)J\b(?:/bit²?)?", lambda m: f"({m[1]} * {_PREFIX[m[2]]})", text)
    text = re.sub(r"µm²/bit²?", "", text)
    text = _WORDS.sub("", text.replace(" of a ", " "))
    text = re.sub(r"(?<=[\d)\s])x(?=[\s(\d])", "*", text).replace("^", "**")
    return eval(text, {"__builtins__": {}}, {"max": max, "ceil": math.ceil})
