"""Precision tracking: how many digits of every value and gradient are real."""

from __future__ import annotations

from .array import Tracked, tracked
from .labels import LABELS, MEANINGS
from .reading import Reading
from .track import Tracker, UntrackedOperation, track

__all__ = ["LABELS", "MEANINGS", "Reading", "Tracked", "Tracker", "UntrackedOperation", "track", "tracked"]
