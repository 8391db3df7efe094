"""The directory of a study: where its runs and its results go, and whose it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

from simulator.errors import InputError
from simulator.report.directories import check_enterable

RESULTS = "study.json"  # whose key `study` says which study it is of


def check_study_directory(out: str | os.PathLike[str], study: str) -> None:
    """Check, without changing anything, that a study can go into a directory, which is made if it is missing.

    Args:
        study: its name, as the command has it.
    Raises:
        InputError: no place where files can be made, or one with the results of another study.
    """
    check_enterable(out)
    path = Path(out) / RESULTS
    if not path.exists():
        return
    try:
        found = json.loads(path.read_text()).get("study")
    except (OSError, ValueError, AttributeError):
        found = None
    if found != study:
        of = f"is of the study {found}" if found else "does not say of which study it is"
        raise InputError(
            f"{path}: {of}; expected a directory without results, or with those of study {study}; name another, or "
            "move the file out of it"
        )
