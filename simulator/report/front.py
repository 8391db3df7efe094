"""The points of a sweep or a search as one page: the Pareto front, and every number against every parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from simulator.report import figures as signs
from simulator.report.failures import failures
from simulator.report.front_plots import STYLES, alike, front_figures, kinds
from simulator.report.html import embed, plotly_js, template
from simulator.report.names import constraint, heading_of, name_of, term_of, written

Record = Mapping[str, Any]
ROWS_SHOWN = 500  # of the table of all points
FAILURES_SHOWN = 20  # each with the points that it keeps from a result


def render_front(record: Record) -> str:
    """Return the page of many points, given as plain data.

    Args:
        record: `name`, `store`; `objectives`, what the front is of: by name max or min; `numbers`, all that are shown,
            by name their unit; `constraints`: by name an interval {from, to}; `points`: each `parameters`, `values` by
            name (None for what it lacks), `error`, `refused` (whether it can be no point), `feasible` and `on_front`;
            `why_none`: why there is no front, or None; `missing`: how many points there are beside these that are not
            computed yet; `search`: None of a sweep, else `grid`, of how many points were `chosen`, the keys of
            the grid's `axes`, and `hypervolumes`, after each point chosen, None where the front has none.
    """
    library = plotly_js()
    numbers = record["numbers"]
    done = [point for point in record["points"] if point["error"] is None]
    points = points_of(record)
    groups = front_figures(record, done) if library else {}
    front = sorted((point for point in done if point["on_front"]), key=lambda point: _first(record, point))
    terms = {name: term for name in numbers if (term := term_of(name))}
    refused = [point for point in record["points"] if record["search"] is not None and point["refused"]]
    without = [("Without a result", "point", _reasons(points)), ("Can be no point", "combination", _reasons(refused))]
    return template("front.html.j2").render(
        record=record,
        front=front,
        done=done,
        shown=done[:ROWS_SHOWN],
        points=points,
        refused=refused,
        alike=[f"{name_of(name)} {written(name, numbers[name], value)}" for name, value in alike(record, done).items()],
        without=without,
        failures_shown=FAILURES_SHOWN,
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


def points_of(record: Record) -> list[Record]:
    """Return the points that count, without what can be none in a search, which takes another in its place."""
    return [point for point in record["points"] if record["search"] is None or not point["refused"]]


def _reasons(points: Sequence[Record]) -> list[tuple[int, str]]:
    return failures((point["parameters"], point["error"]) for point in points if point["error"] is not None)


def _first(record: Record, point: Record) -> float:
    """Return the first objective of a point of the front, by which the table is sorted, the best first."""
    name, way = next(iter(record["objectives"].items()))
    value: float = point["values"][name]
    return -value if way == "max" else value
