"""What this machine and this installation have: doctor."""

from __future__ import annotations

import typer

from .exit_codes import SAID_NO
from .options import JsonRecord, Quiet
from .progress import shown


def examine_installation(json: JsonRecord = False, quiet: Quiet = False) -> None:
    """Tell what this machine and this installation have, and check the engine; exit with 3 if a check said no.

    The engine is checked kernel by kernel against the definition. A library of an extra that is missing is no fault:
    the command that installs it is shown.
    """
    from simulator.commands import doctor

    found = doctor.examine()
    with shown(json, quiet):
        doctor.show(found, json)
    if any(found.problems()):
        raise typer.Exit(SAID_NO)
