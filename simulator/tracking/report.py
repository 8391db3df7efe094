"""What became of the bits of a run: a record with tables, step by step, each number with its label and guarantee."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator import notebook
from simulator.errors import InputError, first_line, missing
from simulator.versions import versions

from .labels import GUARANTEES, MEANINGS, SAFE
from .statistics import GRADIENT, OF_PARAMETER, PARAMETER, SAMPLE, VALUE, Row, Update

if TYPE_CHECKING:
    import pandas

    from .track import Tracker

Table = tuple[Mapping[str, Any], ...]
# Tensors that are asked together which of them is the first to have few bits.
GROUPS = {"values": (VALUE,), "gradients": (GRADIENT, OF_PARAMETER), "parameters": (PARAMETER,)}
TABLES = ("steps", "tensors", "gradient_noise", "updates", "first_below", "shadowed")


@dataclass(frozen=True)
class Report(notebook.Shown):
    """What is known of the bits of a run. Bits and shares are of up to `sample` elements of each tensor.

    Every row with bits names its label and what that guarantees: safe, an upper bound of the error; expected,
    statistical; certain_noise, an estimate. A share of noise is thus at most that of safe.

    Args:
        model: class of the network. hardware: machine on which it ran; None: torch as it is.
        numbers, roundings, restart, every: as `track` was called. meanings: what each number claims. sample: elements
            of a tensor that are looked at.
        bits: below which `first_below` looks.
        steps: of each step its seconds, those of tracking among them, the largest memory of noise that was seen
            (noise_bytes), and how many elements were computed by a branch that the bounds do not decide (undecided:
            at most so many could have gone the other way; None without safe).
        tensors: by step, tensor and label: kind (value | gradient | gradient of parameter | parameter), name, order
            within the step, elements, sampled, most bits of the type, min and median bits, noise_share (share without a
            bit), counts (sampled elements by bits from 0).
        gradient_noise: by step and label the share of the entries of all gradients of parameters that have no bit;
            tensors count by their elements.
        updates: by step, parameter and label the share of its elements that moved by less than it is off (below_noise),
            and that of elements with a gradient that did not change at all (lost; exact but for the sample).
        first_below: by label, for values, gradients and parameters, the first tensor with a median below so many bits
            (fewer_than: `bits`, and 1: nothing is left); step None if there is none.
        shadowed: operations without a rule, followed by a shadow in float64: no safe bound; times that they ran.
        read_as_numbers: how often the program read values with noise as plain numbers, exact from there on.
        versions: what it stood on.
    """

    model: str
    hardware: str | None
    numbers: tuple[str, ...]
    meanings: Mapping[str, str]
    roundings: str
    restart: str
    every: int
    sample: int
    bits: float
    steps: Table
    tensors: Table
    gradient_noise: Table
    updates: Table
    first_below: Table
    shadowed: Table
    read_as_numbers: int
    versions: Mapping[str, str]

    @classmethod
    def of(cls, tracker: Tracker, bits: float = 8) -> Report:
        """Return the report of a tracker.

        Raises:
            InputError: bits that no tensor could be below.
        """
        if not (isinstance(bits, int | float) and 0 < bits < math.inf):
            raise InputError(f"track: report: bits: got {bits!r}; expected a number above 0; give e.g. 8")
        kept = tracker.statistics
        counted = SAFE in tracker.numbers
        return cls(
            model=type(tracker.model).__name__,
            hardware=tracker.hardware,
            numbers=tracker.numbers,
            meanings={label: MEANINGS[label] for label in tracker.numbers},
            roundings="bounded" if tracker.bounded else "measured",
            restart=tracker.restart,
            every=kept.every,
            sample=SAMPLE,
            bits=bits,
            steps=tuple({**step._asdict(), "undecided": step.undecided if counted else None} for step in kept.steps),
            tensors=tuple(map(_tensor, kept.rows)),
            gradient_noise=tuple(_gradient_noise(kept.rows)),
            updates=tuple(row for update in kept.updates for row in _update(update)),
            first_below=tuple(_first_below(kept.rows, tracker.numbers, (bits, 1))),
            shadowed=tuple(
                {"operation": s.name, "module": s.path, "times": n}
                for s, n in tracker._interpreter.shadowed.items()
            ),
            read_as_numbers=tracker.read_as_numbers,
            versions=versions(),
        )  # fmt: skip

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], where: str = "track: report") -> Report:
        """Return the report that plain data hold; fields of others are left out.

        Raises:
            InputError: there is none in it.
        """
        names = [field.name for field in fields(cls)]
        lacking = [name for name in names if name not in record] if isinstance(record, Mapping) else names
        if lacking:
            raise InputError(
                f"{where}: holds no report of bits, it lacks {lacking[0]}; expected what `track` writes; give its "
                "track.json"
            )
        held: dict[str, Any] = {name: tuple(v) if isinstance(v := record[name], list) else v for name in names}
        return cls(**held)

    @property
    def undecided(self) -> int | None:
        """Elements computed by a branch that the bounds do not decide, in all steps; upper bound. None without safe."""
        return None if SAFE not in self.numbers else sum(step["undecided"] for step in self.steps)

    @property
    def seconds(self) -> float:
        """Wall time of all steps."""
        return float(sum(step["seconds"] for step in self.steps))

    @property
    def tracking_seconds(self) -> float:
        """Of these, those in rules of tracking and in what it keeps; the dispatcher's part is not counted."""
        return float(sum(step["tracking_seconds"] for step in self.steps))

    @property
    def noise_bytes(self) -> int:
        """Largest memory of noise that was seen."""
        return max((step["noise_bytes"] for step in self.steps), default=0)

    def rows(self, table: str = "tensors", **having: Any) -> list[dict[str, Any]]:
        """Return rows of a table that have these values, e.g. rows("tensors", label="safe", step=0).

        Raises:
            InputError: no such table.
        """
        if table not in TABLES:
            raise InputError(
                f"track: report: got the table {table!r}; expected one of {', '.join(TABLES)}; give one of them"
            )
        return [dict(row) for row in getattr(self, table) if all(row.get(key) == at for key, at in having.items())]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, as track.json holds it."""
        return asdict(self)

    def to_frame(self, table: str = "tensors") -> pandas.DataFrame:
        """Return a table as a DataFrame without its histograms; needs pandas, whose to_csv and to_parquet write it."""
        try:
            import pandas
        except ImportError:
            raise missing("report.to_frame", "pandas", "report") from None
        return pandas.DataFrame(flat(self.rows(table)))

    def _view(self) -> notebook.View:
        from simulator.report.bits import last_step, notes

        record = self.to_dict()
        tables = [notebook.Table("First tensor of whose elements half have fewer bits", self.rows("first_below"))]
        last = last_step(record)
        if last is not None:
            names = ("kind", "name", "label", "guarantee", "elements", "min", "median", "noise_share")
            tables.append(notebook.Table(f"Bits in step {last.step:,}", self.rows("tensors", step=last.step), names))
        where = "" if self.hardware is None else f" on {self.hardware}"
        return notebook.View(f"Bits of {self.model}{where}, roundings {self.roundings}", notes(record), tables)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write track.json, bits.csv, updates.csv and track.html, in place of earlier ones in a directory, all or none.

        Returns:
            The absolute path of the directory.
        Raises:
            InputError: it holds something else, or cannot be written.
        """
        from simulator.report.tracking import save_tracking

        return save_tracking(self.to_dict(), directory)

    def __str__(self) -> str:
        from simulator.report.bits import views
        from simulator.report.console import text_of

        return text_of(views(self.to_dict()))


def read(path: str | os.PathLike[str]) -> Report:
    """Return the report in a file that `save` or the command wrote.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected a track.json; correct the name"
        ) from None
    except ValueError as error:
        raise InputError(
            f"{path}: is no JSON ({first_line(error)}); expected what `track` writes; give its track.json"
        ) from None
    return Report.from_dict(record, str(path))


def flat(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows without their histograms, as tables hold them."""
    return [{key: value for key, value in row.items() if key != "counts"} for row in rows]


def _labelled(label: str) -> dict[str, str]:
    return {"label": label, "guarantee": GUARANTEES[label]}


def _tensor(row: Row) -> dict[str, Any]:
    return {
        "step": row.step, "kind": row.kind, "name": row.name, "order": row.order, "elements": row.elements,
        "sampled": row.sampled, "most": row.most, **_labelled(row.label), "min": row.least, "median": row.median,
        "noise_share": row.noise, "counts": row.counts[: row.most + 1].tolist(),
    }  # fmt: skip


def _gradient_noise(rows: Sequence[Row]) -> Iterable[dict[str, Any]]:
    """Yield by step and label the share of noise in the gradients of parameters."""
    found: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        if row.kind == OF_PARAMETER:
            found.setdefault((row.step, row.label), []).append(row)
    for (step, label), own in found.items():
        elements = sum(row.elements for row in own)
        yield {
            "step": step, **_labelled(label), "elements": elements, "sampled": sum(row.sampled for row in own),
            "share": sum(row.noise * row.elements for row in own) / elements,
        }  # fmt: skip


def _update(update: Update) -> Iterable[dict[str, Any]]:
    for label, less in update.changed_less.items():
        yield {
            "step": update.step, "name": update.name, "elements": update.elements, "sampled": update.sampled,
            **_labelled(label), "below_noise": less / update.sampled, "lost": update.lost / update.sampled,
        }  # fmt: skip


def _first_below(rows: Sequence[Row], numbers: Sequence[str], thresholds: Iterable[float]) -> Iterable[dict[str, Any]]:
    """Yield the first row with a lower median, by threshold, label and group; rows are in the order of the run."""
    for fewer in dict.fromkeys(thresholds):
        for label in numbers:
            for group, kinds in GROUPS.items():
                own = [row for row in rows if row.label == label and row.kind in kinds]
                if not own:
                    continue
                first = next((row for row in own if row.median < min(fewer, row.most)), None)
                yield {
                    **_labelled(label), "of": group, "fewer_than": fewer,
                    "step": None if first is None else first.step,
                    "name": None if first is None else first.name,
                    "median": None if first is None else first.median,
                }  # fmt: skip


__all__ = ["GROUPS", "TABLES", "Report", "flat", "read"]
