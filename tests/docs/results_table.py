"""The tables of docs/reference/results.md: `python -m tests.docs.results_table RunResult`."""

from __future__ import annotations

import inspect
import re
import sys

from simulator import result

ENTRY = re.compile(r"^    (\w+(?:, \w+)*): (.*(?:\n {8}.*)*)", re.M)


def described(record: type) -> dict[str, str]:
    """Return what the docstring of a record says of its fields, by the field or by several of them."""
    return {names: " ".join(text.split()) for names, text in ENTRY.findall(inspect.getdoc(record) or "")}


def rows(record: type) -> list[str]:
    lines = ["| field | meaning |", "|---|---|"]
    for names, text in described(record).items():
        meaning = text.replace("|", "\\|").replace("*", "\\*")
        lines.append(f"| {', '.join(f'`{name}`' for name in names.split(', '))} | {meaning} |")
    return lines


if __name__ == "__main__":
    print("\n".join(rows(getattr(result, sys.argv[1]))))
