"""Where a share lies that was measured on samples."""

from __future__ import annotations

import math

from simulator.network.metrics import NORMAL_95


def wilson(share: float, samples: int) -> tuple[float, float]:
    """Return an interval that holds the share behind a measured one with about 95 %. Statistical.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    z = NORMAL_95 / math.sqrt(samples)
    middle = share + z * z / 2
    half = z * math.sqrt(share * (1 - share) + z * z / 4)
    return max(0.0, (middle - half) / (1 + z * z)), min(1.0, (middle + half) / (1 + z * z))
