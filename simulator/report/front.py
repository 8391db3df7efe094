"""The points of a sweep or a search as one page: the Pareto front, and every number against every parameter."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from simulator.report import figures as signs
from simulator.report.front_plots import STYLES, front_figures, kinds
from simulator.report.html import embed, plotly_js, template
from simulator.report.names import constraint, heading_of, name_of, term_of, written

Record = Mapping[str, Any]
ROWS_SHOWN = 500  # of the table of all points
FAILURES_SHOWN = 20  # each with the points that it keeps from a result
VALUES_SHOWN = 5  # in a message about several
NUMBER = re.compile(r"(?<![\w.])\d[\d.,]*(?:e[+-]?\d+)?(?:x\d+)*")
REFUSED = re.compile(r"(.*: got )(.*?)(; expected .*)", re.DOTALL)


def render_front(record: Record) -> str:
    """Return the page of many points, given as plain data.

    Args:
        record: `name`, `store`; `objectives`, what the front is of: by name max or min; `numbers`, all that are shown,
            by name their unit; `constraints`: by name an interval {from, to}; `points`: each `parameters`, `values` by
            name (None for what it lacks), `error`, `feasible` and `on_front`; `search`: None of a sweep, else `grid`,
            of how many points they were chosen, and `hypervolumes`, after each of them.
    """
    library = plotly_js()
    numbers = record["numbers"]
    done = [point for point in record["points"] if point["error"] is None]
    groups = front_figures(record, done) if library else {}
    front = sorted((point for point in done if point["on_front"]), key=lambda point: _first(record, point))
    terms = {name: term for name in numbers if (term := term_of(name))}
    reasons = failures(point for point in record["points"] if point["error"] is not None)
    return template("front.html.j2").render(
        record=record,
        front=front,
        done=done,
        shown=done[:ROWS_SHOWN],
        reasons=reasons[:FAILURES_SHOWN],
        other_reasons=reasons[FAILURES_SHOWN:],
        parameters=list(dict.fromkeys(key for point in record["points"] for key in point["parameters"])),
        names={name: name_of(name) for name in numbers},
        headings={name: heading_of(name) for name in numbers},
        terms=terms,
        about=["front", *(["hypervolume"] if record["search"] else []), *terms.values()],
        show=lambda name, value: written(name, numbers[name], value),
        constraints=[constraint(name, numbers[name], interval) for name, interval in record["constraints"].items()],
        legend=[(STYLES[kind]["color"], kind, STYLES[kind]["glyph"]) for kind in kinds(record, done)],
        figures=groups,
        data=embed([figure for group in groups.values() for figure in group]),
        library=library,
        q=signs,
    )


def failures(points: Iterable[Record]) -> list[tuple[int, str]]:
    """Return why points have no result, the most frequent reason first, each with the number of its points.

    Messages that differ in the value of the parameter that is wrong are one, with these values in it. So are those that
    differ in other numbers, as of what a machine of these parameters needs: the first of them, and that it is one of
    several.
    """
    found: dict[str, list[tuple[str, str, str]]] = {}
    for point in points:
        before, value, behind = _reason(point)
        found.setdefault(NUMBER.sub("0", f"{before}{behind}"), []).append((before, value, behind))
    return sorted(((len(reasons), _in_one(reasons)) for reasons in found.values()), key=lambda one: -one[0])


def _in_one(reasons: Sequence[tuple[str, str, str]]) -> str:
    (before, _, behind), *_ = reasons
    alike = len({(one, other) for one, _, other in reasons})
    more = f" (and {signs.counted(alike - 1, 'such message')} with other numbers)" if alike > 1 else ""
    return f"{before}{_listed(value for _, value, _ in reasons)}{behind}{more}"


def _reason(point: Record) -> tuple[str, str, str]:
    """Return a point's message without the values that end it, in parts around the value of a parameter that is wrong;
    without such a one, all of it and nothing twice."""
    message, own = str(point["error"]), point["parameters"]
    said, _, values = message.rpartition(" (with ")
    if said and values.startswith(tuple(f"{key}: " for key in own)):
        message = said
    refused = REFUSED.fullmatch(message)
    if refused and refused[1].endswith(tuple(f"{key}: got " for key in own)):
        return refused[1], refused[2], refused[3]
    return message, "", ""


def _listed(values: Iterable[str]) -> str:
    """Return values once each, of many the first."""
    once = list(dict.fromkeys(values))
    more = f" and {len(once) - VALUES_SHOWN} others" if len(once) > VALUES_SHOWN else ""
    return f"{', '.join(once[:VALUES_SHOWN])}{more}"


def _first(record: Record, point: Record) -> float:
    """Return the first objective of a point of the front, by which the table is sorted, the best first."""
    name, way = next(iter(record["objectives"].items()))
    value: float = point["values"][name]
    return -value if way == "max" else value
