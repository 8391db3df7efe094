"""Rigorous error bounds of networks: whether an answer can change on a MAC unit, and how many bits it needs.

    simulator.bounds.certify(model, x, mac="fma(fp16)").certified
    simulator.bounds.required_precision(model, x).quantiles()

The system of arXiv 2002.03869 rebuilt, with the order and the formats of the unit, partial sums, and adjoint bounds.
docs/theory/bounds.md has the rules by number.
"""

from .certify import METHODS, Certified, certify
from .required import RequiredPrecision, required_precision

__all__ = ["METHODS", "Certified", "RequiredPrecision", "certify", "required_precision"]
