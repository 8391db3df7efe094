"""Studies: many runs that answer one question, with controls, from a store that they go on from."""

from .two_pass import TwoPassStudy, two_pass_study

__all__ = ["TwoPassStudy", "two_pass_study"]
