"""Precision tracking: how many digits of every value and gradient are real."""

from __future__ import annotations

from .array import Tracked, tracked
from .calibration import Calibration, calibrate
from .comparison import compare
from .labels import GUARANTEES, LABELS, MEANINGS
from .reading import Reading
from .report import Report, read
from .track import Tracker, UntrackedOperation, track

__all__ = ["GUARANTEES", "LABELS", "MEANINGS", "Calibration", "Reading", "Report", "Tracked", "Tracker",
           "UntrackedOperation", "calibrate", "compare", "read", "track", "tracked"]  # fmt: skip
