"""The points of a sweep or a search in a store, as the rows of a table."""

from __future__ import annotations

from typing import Any

from .export import columns
from .found import as_found
from .search import as_search
from .store import Store


def rows_of(store: Store, sweep: str) -> list[dict[str, Any]]:
    """Return a row for each point of a sweep or a search, see `export.columns`.

    Those of a search say whether the point keeps its constraints, `feasible`, and is on its Pareto front, `on_front`.
    """
    stored = list(store.of_sweep(sweep))
    rows = [columns(place, point) for place, point in stored]
    said = store.searches().get(sweep)
    if said is None:
        return rows
    found = as_search(store.path, sweep, said, stored)
    front = {point.key for point in found.front}
    return [
        {**row, "feasible": as_found(found.goal, place, point).feasible, "on_front": place.key in front}
        for row, (place, point) in zip(rows, stored, strict=True)
    ]
