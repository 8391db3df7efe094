"""How pages of the documentation are executed.

A page is run in an empty directory. In the order of the page:

    ```python                 a block of Python, run; all blocks of a page share one process and its names
    <!-- file: NAME -->       the next fenced block, of whatever language, is written to NAME instead
    <!-- output -->           the next fenced block is what the Python block before it prints
    <!-- output: COMMAND -->  the next fenced block is what COMMAND prints; commands run after the Python blocks
    <!-- run -->              each line of the next fenced block is a command, whatever it prints
    <!-- not run -->          the next fenced block is only shown

Fenced blocks of other languages are only shown. Files are written first; a pyproject.toml among them counts as
installed: its entry points are found.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A marker, if there is one, stands in the line before the fence.
FENCE = re.compile(r"^(?:<!-- (?P<marker>[^\n]*?) -->\n+)?```(?P<language>\w*)[^\n]*\n(?P<text>.*?)^```$", re.M | re.S)
RUNNER = """
import contextlib, io, json, sys
names, printed = {"__name__": "__main__"}, []
sys.path.insert(0, "")
for where, source in json.load(sys.stdin):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(source, where, "exec"), names)
    printed.append(out.getvalue())
json.dump(printed, sys.stdout)
"""


@dataclass
class Page:
    """What a page wants done: (place, source) of Python blocks; files; (index of block, text); (command, text).

    None for the text of a command: any.
    """

    blocks: list[tuple[str, str]] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    outputs: list[tuple[int, str]] = field(default_factory=list)
    commands: list[tuple[str, str | None]] = field(default_factory=list)


def read(path: Path) -> Page:
    """Read a page; ValueError names a marker that is none of the above."""
    text, page = path.read_text(encoding="utf-8"), Page()
    for found in FENCE.finditer(text):
        marker, body = found["marker"] or "", found["text"]
        where = f"{path.name}:{text.count(chr(10), 0, found.start('text')) + 1}"
        if marker.startswith("file: "):
            page.files[marker.removeprefix("file: ")] = body
        elif marker == "output":
            page.outputs.append((len(page.blocks) - 1, body))
        elif marker.startswith("output: "):
            page.commands.append((marker.removeprefix("output: "), body))
        elif marker == "run":
            page.commands += [(line, None) for line in body.splitlines()]
        elif marker not in ("", "not run"):
            raise ValueError(f"{where}: marker {marker!r} is unknown; see tests/docs/pages.py")
        elif found["language"] == "python" and not marker:
            page.blocks.append((where, body))
    return page


def run(page: Page, directory: Path) -> None:
    """Do what a page says in an empty directory; AssertionError shows the first thing that is not so."""
    for name, text in page.files.items():
        (directory / name).write_text(text, encoding="utf-8")
    if "pyproject.toml" in page.files:
        _install(tomllib.loads(page.files["pyproject.toml"]), directory)
    environment = {"PYTHONPATH": f"{ROOT}:{directory}", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps(page.blocks), cwd=directory, env=environment,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    for block, shown in page.outputs:
        assert printed[block] == shown, f"{page.blocks[block][0]} prints\n{printed[block]}and the page shows\n{shown}"
    for command, shown in page.commands:
        words = [sys.executable if word == "python" else word for word in shlex.split(command, comments=True)]
        done = subprocess.run(words, cwd=directory, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        if shown is not None:
            assert done.stdout.strip("\n") == shown.strip("\n"), f"{command} prints\n{done.stdout}"


def _install(project: dict, directory: Path) -> None:
    """Put beside the modules what an installer would: the name, the version and the entry points of a package."""
    name, version = project["project"]["name"], project["project"]["version"]
    metadata = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["project"].get("entry-points", {})
    lines = [f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
             for group, entries in groups.items()]  # fmt: skip
    (metadata / "entry_points.txt").write_text("\n".join(lines))
