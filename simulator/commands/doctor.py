"""`python -m simulator doctor`: what this machine and this installation have, and checks of them that may say no."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from simulator.errors import first_line
from simulator.report.console import plain_table, print_view, standard_output
from simulator.report.figures import counted, printable
from simulator.versions import NUMERICS, version_of

from .extras import Extra, extras
from .records import print_record

if TYPE_CHECKING:
    from simulator.arithmetic.self_check import Checked


@dataclass(frozen=True)
class Engine:
    """The compiled engine.

    Args:
        problem: why it does not load or cannot be used; None if it can. isa: instruction set in force; isas: those
            that this build and this processor have. processors: that this process may use, and so many threads it
            takes unless told otherwise.
        units: one for each kernel, with how many of its outputs are not the bits of the definition.
    """

    problem: str | None
    isa: str | None = None
    isas: Sequence[str] = ()
    processors: int | None = None
    units: Sequence[Checked] = ()


@dataclass(frozen=True)
class Examined:
    """What there is: the processors of the machine, the engine, and the libraries, those needed in any case first."""

    ulpsim: str
    numerics: int
    python: str
    platform: str
    processors: int | None
    engine: Engine
    extras: Sequence[Extra]

    def problems(self) -> Iterator[str]:
        """Yield what a check said no to, each with what to do."""
        if self.engine.problem is not None:
            yield f"the engine cannot be used: {self.engine.problem}"
        for one in self.engine.units:
            if one.wrong:
                yield (
                    f"{one.unit}: {one.wrong} of {one.outputs} outputs of the kernel {one.kernel} ({self.engine.isa}) "
                    "are not the bits of the definition; build the engine anew, or set ULPSIM_ISA to another "
                    "instruction set, and report it"
                )
        if not self.extras:
            yield "ulpsim is not installed, so that nothing tells what it needs; run `pip install -e .` in the checkout"
        told: set[str] = set()  # of an extra that others include
        for extra in self.extras:
            needed = set(extra.unfit if extra.name else (*extra.unfit, *extra.missing)) - told
            told |= needed
            if needed:
                of = f"the extra {extra.name}" if extra.name else "ulpsim"
                yield f"{of} needs {', '.join(sorted(needed))}, and has other versions or none; run {extra.install}"


def examine() -> Examined:
    """Look at the machine, check the engine, and find the libraries."""
    return Examined(
        version_of("ulpsim"), NUMERICS, platform.python_version(), f"{platform.system()} {platform.machine()}",
        os.cpu_count(), _engine(), extras(),
    )  # fmt: skip


def _engine() -> Engine:
    try:
        import native
        from simulator.arithmetic.engine import available_processors
        from simulator.arithmetic.self_check import self_check

        return Engine(None, native.isa(), native.available_isas(), available_processors(), self_check())
    except (ImportError, ValueError) as error:  # not built, or an instruction set forced that there is not
        return Engine(first_line(error))


def show(found: Examined, json: bool) -> None:
    """Print what was found, and then what is wrong."""
    problems = list(found.problems())
    if json:
        libraries = [{**asdict(extra), "install": extra.install} for extra in found.extras]
        record = {"ok": not problems, **asdict(found), "extras": libraries, "problems": problems}
        print_record(record)
        return
    ends = [Text(f"No: {printable(text)}", style="bold") for text in problems] or [Text("All is well.", style="bold")]
    print_view(standard_output(), *_views(found), Text(), *ends)


def _views(found: Examined) -> Iterator[RenderableType]:
    engine = found.engine
    yield Text(f"ulpsim {found.ulpsim}, numerics {found.numerics}, Python {found.python}, {found.platform}")
    if engine.problem is None:
        yield Text(
            f"{counted(engine.processors or 0, 'processor')} of {found.processors or 'an unknown number'}, and as many "
            f"threads unless --threads says less"
        )
        yield Text(f"instruction set {engine.isa}, of {', '.join(engine.isas)}; ULPSIM_ISA forces one")
        yield Text()
        yield _units(engine.units)
    if found.extras:
        yield Text()
        yield _libraries(found.extras)


def _units(units: Sequence[Checked]) -> Table:
    table = plain_table(("unit", "its kernel", "bits of the definition"))
    for one in units:
        table.add_row(one.unit, one.kernel, "yes" if not one.wrong else f"no: {one.wrong} of {one.outputs} outputs")
    return table


def _libraries(several: Sequence[Extra]) -> Table:
    table = plain_table(("extra", "found", "missing", "to install"))
    by_name = {extra.name: extra for extra in several}
    for extra in several:
        shown = {name for other in extra.includes for name in by_name[other].found}
        found = [f"those of {', '.join(extra.includes)}"] if extra.includes else []
        found += [f"{name} {version}" for name, version in extra.found.items() if name not in shown]
        missing = ", ".join((*extra.missing, *extra.unfit))
        table.add_row(extra.name or "always", ", ".join(found) or "nothing", missing, extra.install or "")
    return table
