"""What `--json` prints: a record, or a list with a record a line; files beside tables hold the same text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any


def json_text(record: Any) -> str:
    """Return a record as strict JSON in ASCII, ending in a newline.

    Raises:
        ValueError: a number that is not finite, which JSON does not have; the record has to say it otherwise.
    """
    return json.dumps(record, indent=2, allow_nan=False) + "\n"


def print_record(record: Any) -> None:
    """Print a record to standard output."""
    sys.stdout.write(json_text(record))


def print_records(several: Iterable[Any]) -> None:
    """Print a list of records, a line each."""
    sys.stdout.write("[\n" + ",\n".join(json.dumps(record, allow_nan=False) for record in several) + "\n]\n")
