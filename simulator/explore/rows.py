"""Points as rows: nested, as JSON has them, and flat, as tables have them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from simulator.report.tables import as_json, as_written, frame_of
from simulator.result import in_mm2

from .objectives import OBJECTIVES, own_mode
from .store import Place, Point

if TYPE_CHECKING:
    import pandas

# What of a record a sweep shows of each point; all of it is in the store.
_OF_RUN = ("hardware", "model", "samples", "seed", "tolerance", "fidelity", "complete")
_BY_MODE = ("accuracy", "agreement", "forward_error")
_RESULTS = (*_OF_RUN, *_BY_MODE, "forward_error_interval", "metrics", "totals", "warnings")
_AREAS = {"area_mm2": "area_um2", "area_low_mm2": "area_low_um2", "area_high_mm2": "area_high_um2"}


def row(place: Place, point: Point | None) -> dict[str, Any]:
    """Return a point with its parameters as plain data."""
    record = {} if point is None or point.record is None else point.record
    return {
        "parameters": as_json(place.parameters, as_written),
        **_state(place, point),
        **({"mode": own_mode(record)} if record else {}),
        **as_json(_areas(record)),
        **{name: as_json(record[name]) for name in _RESULTS if name in record},
    }


def columns(place: Place, point: Point | None) -> dict[str, Any]:
    """Return a point as flat columns.

    These are its parameters, what it is a run of, the mode of its own machine with the numbers that it has in that mode
    under their names alone, as objectives have them, and then NAME_MODE of what a record says by mode.
    """
    record = {} if point is None or point.record is None else point.record
    start = {**flat(place.parameters), **_state(place, point)}
    if not record:
        return start
    by_mode = {name: record.get(name) or {} for name in _BY_MODE} | record.get("metrics", {})
    found = {f"{name}_{mode}": value for name, values in by_mode.items() for mode, value in values.items()}
    for mode, ends in record.get("forward_error_interval", {}).items():
        found |= {f"forward_error_{end}_{mode}": at for end, at in zip(("from", "to"), ends or (), strict=False)}
    for mode, totals in record.get("totals", {}).items():
        found |= {f"{name}_{mode}": value for name, value in (totals or {}).items()}
    mode = own_mode(record)
    own = {name: found[f"{name}_{mode}"] for name in OBJECTIVES if f"{name}_{mode}" in found}
    of_run = {name: record[name] for name in _OF_RUN if name in record and name not in place.parameters}
    warnings = {"warnings": "\n".join(record.get("warnings", ())) or None}
    return {**start, **of_run, "mode": mode, **own, **_areas(record), **found, **warnings}


def _areas(record: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the area of a point's machine and its bounds in mm², as far as a record has them."""
    return {name: in_mm2(record[field]) for name, field in _AREAS.items() if field in record}


def flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as cells of a table: lists and mappings as JSON."""
    return {key: value if _scalar(value) else json.dumps(value) for key, value in parameters.items()}


def _state(place: Place, point: Point | None) -> dict[str, Any]:
    """Return by what a point is found, what is wrong with it, how long it took, and which numerics computed it."""
    if point is None:
        return {"key": place.key, "error": place.error, "seconds": None, "numerics": None}
    return {"key": place.key, "error": point.error, "seconds": point.seconds, "numerics": point.numerics}


def frame(points: Iterable[tuple[Place, Point | None]]) -> pandas.DataFrame:
    """Return points as a DataFrame; needs pandas."""
    return frame_of([columns(place, point) for place, point in points])


def _scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
