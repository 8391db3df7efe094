"""The README is true: its examples run, and the output it shows is what the command prints."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = re.findall(r"^python -m simulator .*$", README, re.MULTILINE)
OUTPUTS = re.findall(r"<!-- output: (.*?) -->\n```\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_runs(example, tmp_path):
    done = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_shown_output_is_what_the_command_prints(tmp_path):
    assert OUTPUTS, "the README shows no output"
    for command, shown in OUTPUTS:
        words = [sys.executable if word == "python" else word for word in shlex.split(command)]
        done = subprocess.run([*words, "--out", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        printed = done.stdout.rsplit("Results in", 1)[0]
        assert printed.strip() == shown.rsplit("Results in", 1)[0].strip()


@pytest.mark.full
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_does_what_it_says(command, tmp_path):
    (tmp_path / "tests").symlink_to(ROOT / "tests")  # files of the checkout that commands name
    words = [sys.executable if word == "python" else word for word in shlex.split(command, comments=True)]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    named = [word for word in words if word.endswith((".html", ".json"))]
    assert [name for name in named if not (tmp_path / name).exists()] == []


def test_every_link_into_the_repository_leads_somewhere():
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("http")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
