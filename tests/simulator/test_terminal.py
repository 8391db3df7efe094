"""In a terminal: colours where they are wanted, and a shell that completes."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLOUR = re.compile(r"\x1b\[(?:\d;)*(?:[34][0-8]|9[0-7]|10[0-7])[;m]")
WITHOUT = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")}


def run(*arguments, cwd, output=subprocess.PIPE, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "simulator", *arguments], cwd=cwd, stdout=output, stderr=output,
        env={**WITHOUT, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **environment},
    )  # fmt: skip


def on_a_terminal(*arguments, cwd, **environment):
    ours, its = pty.openpty()
    job = run(*arguments, cwd=cwd, output=its, **environment)
    os.close(its)
    text = b""
    try:
        while some := os.read(ours, 1 << 16):
            text += some
    except OSError:  # which is how Linux says that the other end is closed
        pass
    os.close(ours)
    assert job.wait() == 0, text.decode()
    return text.decode()


@pytest.mark.parametrize("environment, colours, styles", [
    ({}, True, True), ({"NO_COLOR": "1"}, False, True), ({"TERM": "dumb"}, False, False),
])  # fmt: skip
def test_a_terminal_gets_colours_unless_it_says_otherwise(tmp_path, environment, colours, styles):
    """NO_COLOR takes the colours and leaves bold and dim (no-color.org); a dumb terminal gets plain text."""
    pytest.importorskip("torch")
    text = on_a_terminal("--hw", "npu", "--samples", "40", cwd=tmp_path, **environment)
    assert "uniform high" in text
    assert (COLOUR.search(text) is not None, "\x1b" in text) == (colours, styles)


def test_quiet_shows_a_terminal_nothing(tmp_path):
    pytest.importorskip("torch")
    assert on_a_terminal("--hw", "npu", "--samples", "40", "--quiet", cwd=tmp_path) == ""
    assert (tmp_path / "out" / "summary.json").is_file()


def test_a_pipe_gets_plain_text(tmp_path):
    out, err = run("formats", "fp16", cwd=tmp_path).communicate()
    assert b"65504" in out and b"\x1b" not in out + err


def test_what_is_typed_can_be_completed(tmp_path):
    """By the shell, of the installed script; `python -m simulator` prints the same script of it."""
    # The shell is found by what called the program; `true` keeps it from making way for it, here and in zsh below.
    shown = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m simulator --show-completion; true"], cwd=tmp_path, capture_output=True,
        env={**WITHOUT, "PYTHONPATH": str(ROOT)}, check=True,
    )  # fmt: skip
    assert b"_ULPSIM_COMPLETE=complete_bash" in shown.stdout and shown.stdout.rstrip().endswith(b"ulpsim")
    assert shown.stderr == b""
    for typed, found in (("ulpsim stu", "study"), ("ulpsim study two", "two-pass"), ("ulpsim show --sch", "--schema")):
        words = typed.split()
        environment = {"COMP_WORDS": typed, "COMP_CWORD": str(len(words) - 1), "_ULPSIM_COMPLETE": "complete_bash"}
        out, err = run(cwd=tmp_path, **environment).communicate()
        assert out.decode().split() == [found], err


def test_zsh_completes_what_is_installed_from_it(tmp_path):
    """Its first Tab only loads the completion, as docs/reference/command-line.md says; so there are two."""
    zsh = shutil.which("zsh") or pytest.skip("no zsh here; Debian's package zsh has it")
    program = tmp_path / "bin" / "ulpsim"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m simulator "$@"\n')
    program.chmod(0o755)
    environment = {
        **{name: value for name, value in WITHOUT.items() if name != "ZDOTDIR"}, "HOME": str(tmp_path), "TERM": "dumb",
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    subprocess.run([zsh, "-c", "ulpsim --install-completion; true"], env=environment, check=True, capture_output=True)
    ours, its = pty.openpty()
    shell = subprocess.Popen(
        [zsh, "-i"], stdin=its, stdout=its, stderr=its, env=environment, cwd=tmp_path, start_new_session=True
    )
    os.close(its)
    os.write(ours, b"ulpsim study two\t\t")
    seen = b""
    while b"-pass" not in seen and select.select([ours], [], [], 60)[0]:
        seen += os.read(ours, 1 << 16)
    shell.kill()
    shell.wait()
    os.close(ours)
    assert b"-pass" in seen, seen.decode()
