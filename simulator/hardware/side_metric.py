"""The hardware that a score is computed with, and the format of its running sum, of a policy or of a layer's rule."""

from __future__ import annotations

from formats import Use

from .document import Keys, Report, dotted
from .scores import SIDE_METRICS, fitting_metrics


def side_metric(
    score: str, metric: str | None, sum_format: str | None, report: Report, at: Keys
) -> tuple[str, Use | None]:
    """Return the side metric of a score and, of a running sum, the format.

    Args:
        score: one of score_names. metric, sum_format: as written, None: left out. report: notes what is wrong. at:
            keys of the section that they are in.
    """
    fitting = fitting_metrics(score)
    found = metric or fitting[0]
    place = dotted(at)
    if found not in fitting:
        scores = [score for score, metrics in SIDE_METRICS.items() if found in metrics]
        report(
            (*at, "side_metric"),
            f"got {found} with {place}.score: {score}, which is computed with {' or '.join(fitting)}; "
            f"expected {' or '.join(fitting)}, or {place}.score: {' or '.join(scores)}; change one of the two",
        )
    if found == "abs_sum":
        return found, Use.parse(sum_format or "uint16")
    if sum_format is not None:
        report(
            (*at, "side_format"),
            f"got {sum_format} with {place}.side_metric: {found}, which keeps no running sum; expected none; remove it",
        )
    return found, None
