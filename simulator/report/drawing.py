"""A machine as a drawing: boxes for the memories and what computes, each number with the evidence that it has."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from simulator.report.figures import MISSING, priced, setting
from simulator.result import RunResult, Setting

WIDTH, GAP, LINE, HEAD = 226, 34, 18, 30  # of a box, between two, of a line in it, of its title
CELLS, CELL = 16, 7  # processing elements drawn a side at most, and the size of one
LONGEST = 24  # characters of a number in a box
DATAFLOWS = {"ws": "weight-stationary", "os": "output-stationary", "is": "input-stationary", "dot": "dot-product units",
             "best": "best dataflow a layer"}  # fmt: skip
CLASS = re.compile(r"\((\w+)(?: (x/÷ [\d.]+))?\)")


@dataclass(frozen=True)
class Number:
    """A number of the machine.

    Args:
        key: in its file. text: value with unit and what it is. evidence: where the number is from, in a word or two.
        source: what the file or the table cites.
    """

    key: str
    text: str
    evidence: str
    source: str


@dataclass(frozen=True)
class Box:
    """A part of the machine: its place, title, numbers, and the rows and columns of processing elements to draw."""

    x: int
    y: int
    height: int
    title: str
    numbers: tuple[Number, ...]
    cells: tuple[int, int] = (0, 0)

    @property
    def first_line(self) -> int:
        """Where the first number is written, below the processing elements if there are some."""
        return self.y + HEAD + (self.cells[0] * CELL + 8 if self.cells[0] else 0) + 12


@dataclass(frozen=True)
class Drawing:
    """Boxes, and lines between them as (x1, y1, x2, y2), in a picture of this size; what it shows in a sentence."""

    width: int
    height: int
    boxes: tuple[Box, ...]
    lines: tuple[tuple[int, int, int, int], ...]
    sentence: str


def drawing(run: RunResult) -> Drawing | None:
    """Return the drawing of a run's machine, memory on the left and the array on the right; None without its file."""
    settings = {one.key: one for one in run.machine}
    if not {"array.rows", "array.columns"} <= settings.keys():
        return None
    columns = [[_Part(title, numbers) for title, numbers in column] for column in _memories(settings)]
    columns.append(list(_computing(settings)))
    height = max(sum(part.height for part in column) + GAP * (len(column) - 1) for column in columns)
    boxes: list[list[Box]] = []
    for place, column in enumerate(columns):
        y, own = 1, []
        for part in column:
            own.append(Box(1 + place * (WIDTH + GAP), y, part.height, part.title, part.numbers, part.cells))
            y += part.height + GAP
        boxes.append(own)
    parts = [part.title for column in columns for part in column]
    return Drawing(
        width=2 + len(columns) * WIDTH + (len(columns) - 1) * GAP, height=height + 2,
        boxes=tuple(box for column in boxes for box in column), lines=tuple(_lines(boxes)),
        sentence=f"The machine {run.hardware}: {', '.join(parts)}. The table below has its numbers and their sources.",
    )  # fmt: skip


@dataclass(frozen=True)
class _Part:
    title: str
    numbers: tuple[Number, ...]
    cells: tuple[int, int] = (0, 0)

    @property
    def height(self) -> int:
        return HEAD + (self.cells[0] * CELL + 8 if self.cells[0] else 0) + LINE * len(self.numbers) + 6


def _memories(settings: Mapping[str, Setting]) -> Iterator[list[tuple[str, tuple[Number, ...]]]]:
    """Yield the columns of the memories: the DRAM, each level that holds everything, the buffers next to the array."""
    if "memory.dram.bandwidth" not in settings:
        return
    dram = (("bandwidth", ""), ("latency", "latency"), ("energy", ""))
    yield [("DRAM", _numbers(settings, "memory.dram", dram))]
    fields = (("size", ""), ("holds", "held"), ("read", "read"), ("write", "written"), ("read_energy", "read"),
              ("write_energy", "written"))  # fmt: skip
    levels = [key.split(".")[1] for key in settings if re.fullmatch(r"memory\.\w+\.size", key)]
    columns: list[list[str]] = []
    for name in levels:
        if columns and _beside(*(settings[f"memory.{level}.holds"].value for level in (columns[-1][0], name))):
            columns[-1].append(name)
        else:
            columns.append([name])
    for column in columns:
        yield [(name.replace("_", " "), _numbers(settings, f"memory.{name}", fields)) for name in column]


def _beside(before: Sequence[str], held: Sequence[str]) -> bool:
    """Whether a level is no further in than one before it: both hold some of a, w and o, or this one partial sums."""
    return "psum" in held or max(len(before), len(held)) < 3


def _computing(settings: Mapping[str, Setting]) -> Iterator[_Part]:
    """Yield the array, what is beside it, and the vector unit."""
    rows, columns, copies = (settings[f"array.{name}"].value if f"array.{name}" in settings else 1
                             for name in ("rows", "columns", "copies"))  # fmt: skip
    numbers = [_number(settings["array.rows"], f"{rows} × {columns} PEs", settings["array.columns"])]
    if copies != 1:
        numbers.append(_number(settings["array.copies"], f"{copies} such arrays"))
    if (dataflow := settings.get("array.dataflow")) is not None:
        numbers.append(_number(dataflow, DATAFLOWS.get(dataflow.value, str(dataflow.value))))
    if (clock := settings.get("technology.frequency")) is not None:
        numbers.append(_number(clock, setting(clock.value)))
    for key, one in settings.items():
        if (mode := re.fullmatch(r"mac\.(?:middle\.)?(\w+)\.rate", key)) and one.value is not None:
            numbers.append(_number(one, f"{mode[1]}: {setting(one.value)}"))
    yield _Part("array", tuple(numbers), (min(rows, CELLS), min(columns, CELLS)))
    engine = _numbers(settings, "side_engine", (("lanes", "lanes"), ("rows", "rows"), ("columns", "columns")))
    if engine:
        yield _Part("side engine", engine)
    vector = _numbers(settings, "vector_unit", (("lanes", "lanes"), ("format", ""), ("energy", "")))
    if vector:
        yield _Part("vector unit", vector)


def _numbers(settings: Mapping[str, Setting], path: str, fields: Iterable[tuple[str, str]]) -> tuple[Number, ...]:
    known = [(settings[f"{path}.{field}"], what) for field, what in fields if f"{path}.{field}" in settings]
    return tuple(
        _number(one, f"{priced(one.value)} {what}".rstrip()) for one, what in known if setting(one.value) != MISSING
    )


def _number(one: Setting, text: str, *others: Setting) -> Number:
    keys = ", ".join(setting.key for setting in (one, *others))
    return Number(keys, text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…", evidence(one), one.source)


def evidence(one: Setting) -> str:
    """Return where a number is from: class and band of a table, or one of the words that the page explains."""
    if found := CLASS.search(one.origin):
        return " ".join(filter(None, found.groups()))
    for word in ("default", "derived"):
        if one.origin.startswith(word):
            return word
    if one.source.startswith("assumed"):
        return "assumed"
    return "cited" if one.source else "given"


def _lines(columns: Sequence[Sequence[Box]]) -> Iterator[tuple[int, int, int, int]]:
    """Yield a bus between each column of memories and the next column, and lines down the last one."""
    for left, right in pairwise(columns):
        bus = right[0].x - GAP // 2
        heights = [box.y + HEAD // 2 for box in left]
        for y in heights:
            yield left[0].x + WIDTH, y, bus, y
        if len(heights) > 1:
            yield bus, heights[0], bus, heights[-1]
        yield bus, heights[0], right[0].x, heights[0]
    for above, below in pairwise(columns[-1]):
        yield above.x + WIDTH // 2, above.y + above.height, below.x + WIDTH // 2, below.y
