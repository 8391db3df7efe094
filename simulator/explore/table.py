"""The points of a sweep or a search in a store, as the rows of a table."""

from __future__ import annotations

from typing import Any

from .found import found_of
from .rows import columns
from .search import goal_in
from .store import Store


def rows_of(store: Store, sweep: str) -> list[dict[str, Any]]:
    """Return a row for each point of a sweep or a search, see `rows.columns`.

    Those of a search say whether the point keeps its constraints, `feasible`, and is on its Pareto front, `on_front`;
    what can be no point is none of them.
    """
    stored = list(store.of_sweep(sweep))
    rows = [columns(place, point) for place, point in stored]
    said = store.goal(sweep)
    if said is None:
        return rows
    found = found_of(goal_in(said), stored)
    return [
        {**row, "feasible": one.feasible, "on_front": one.on_front}
        for row, one in zip(rows, found, strict=True)
        if not one.refused
    ]
