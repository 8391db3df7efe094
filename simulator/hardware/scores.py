"""The scores that a policy can have, and the hardware that each can be computed with."""

from __future__ import annotations

from simulator.arithmetic.scores import registered

# The score of an output, and the hardware that it can be computed with: from the finished output; a running sum of
# |a w| beside that of a w; another low pass over |a| and |w|; the norms of the rows of A and the columns of W.
SIDE_METRICS = {
    "kappa_prime": ("output", "norm_bound"),
    "kappa_full": ("abs_sum", "second_pass"),
    "norm1": ("norm_bound",),
    "norm2": ("norm_bound",),
    "norm_inf": ("norm_bound",),
    "random": ("output",),
    "sensitivity": ("output",),
    "largest": ("output",),
    "smallest": ("output",),
    "lamp": ("output",),
    "lamp_absolute": ("norm_bound",),
}


def score_names() -> tuple[str, ...]:
    """Return the names of all scores that a policy can have, those that `scores.register` has added last."""
    return *SIDE_METRICS, *registered()


def fitting_metrics(score: str) -> tuple[str, ...]:
    """Return the hardware that a score can be computed with; of a registered one its user says what it takes."""
    return SIDE_METRICS.get(score, ("output", "norm_bound", "second_pass"))
