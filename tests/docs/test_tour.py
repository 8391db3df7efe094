"""The tour names every module, in the section of its directory, and no other."""

import re
from pathlib import Path

from tests.docs.pages import ROOT

HEADING = re.compile(r"^## (\S+): ", re.M)


def named() -> dict[str, set[str]]:
    """Return the Python files that the tour names in backticks, by the directory that its heading starts with."""
    _, *parts = HEADING.split((ROOT / "docs" / "tour.md").read_text(encoding="utf-8"))
    return {room: set(re.findall(r"`(\w+\.py)`", text)) for room, text in zip(parts[::2], parts[1::2], strict=True)}


def modules(rooms: set[str]) -> dict[str, set[str]]:
    """Return the Python files of the packages, by the room that holds them most closely."""
    found: dict[str, set[str]] = {room: set() for room in rooms}
    for path in (path for package in ("formats", "native", "simulator") for path in (ROOT / package).rglob("*.py")):
        if path.name != "__init__.py":
            inside = path.relative_to(ROOT).parents
            found[next(str(room) for room in map(Path.as_posix, inside) if room in rooms)].add(path.name)
    return found


def test_the_tour_names_every_module_and_no_other():
    tour = named()
    there = modules(set(tour))
    missing = {room: sorted(there[room] - tour[room]) for room in tour if there[room] - tour[room]}
    assert not missing, f"docs/tour.md does not name in the sections of these directories: {missing}"
    gone = {room: sorted(tour[room] - there[room]) for room in tour if tour[room] - there[room]}
    assert not gone, f"docs/tour.md names in the sections of these directories what is not there: {gone}"
