"""What commands generate in the documentation; `python -m tests.docs.generated` writes it anew.

In README.md, docs/presets.md and docs/reference/results.md a table stands below `<!-- formats: COMMAND -->`, or
`presets:` or `results:`, up to the next line that is no table row. docs/reference/formats.md, docs/reference/config.md,
docs/reference/command-line.md, docs/reference/onnx-operators.md, docs/reference/library/, docs/validation.md and
hwconfigs/schema.json are generated as a whole.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.docs import library_page

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PRESETS = ROOT / "docs" / "presets.md"
RESULTS = ROOT / "docs" / "reference" / "results.md"
LIBRARY = ROOT / "docs" / "reference" / "library"
CONFIG = ROOT / "docs" / "reference" / "config.md"
PAGES = {
    ROOT / "docs" / "reference" / "formats.md": "python -m simulator formats --markdown page",
    CONFIG: "python -m tests.docs.config_page",
    ROOT / "docs" / "reference" / "command-line.md": "python -m tests.docs.command_page",
    ROOT / "docs" / "reference" / "onnx-operators.md": "python -m tests.docs.operators_page",
    ROOT / "hwconfigs" / "schema.json": "python -m simulator show --schema",
    ROOT / "docs" / "validation.md": "python -m tests.docs.validation_page",
}
TABLE = re.compile(r"(<!-- (?:formats|presets|results): (?P<command>.*?) -->\n)(?:\|.*\n)*")


def printed(command: str) -> str:
    """Return what a command prints."""
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def contents() -> dict[Path, str]:
    """Return what the files should hold."""
    return {
        **{path: _with_tables(path) for path in (README, PRESETS, RESULTS)},
        **{page: printed(command) for page, command in PAGES.items()},
        **{LIBRARY / name: text for name, text in library_page.pages().items()},
    }


def _with_tables(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if not TABLE.search(text):
        raise ValueError(f"{path.name} has no marker such as <!-- formats: COMMAND -->")
    return TABLE.sub(lambda found: found[1] + printed(found["command"]), text)


if __name__ == "__main__":
    for path, text in contents().items():
        path.write_text(text, encoding="utf-8")
