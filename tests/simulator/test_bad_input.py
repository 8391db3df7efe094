"""Bad input, whatever the command: one message, exit code 2, nothing on standard output and nothing left behind.

What a command takes is read from the tree of commands, so that a new one, and a new option, are tried too.
"""

import os
import re
import shutil
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import simulator.__main__ as command_line
from simulator.command_line.exit_codes import BAD_INPUT
from tests.command_tree import COMMANDS, MAIN_JOB, arguments, options, words

pytest.importorskip("torch")

DATA = Path(__file__).parents[1] / "data"
WRITE = {"--out", "--export", "--plot", "--trace", "--certificate"}  # options that name what a command writes
NO_FILES = {("formats", "NAME"), ("explain", "SPEC")}  # arguments that name no file

# What each command needs beside what is tried, so that nothing else is wrong and little would run.
GIVEN = {
    MAIN_JOB: {"--hw": "npu", "--samples": 2},
    "explain": {"SPEC": "fma(fp16)"},
    "estimate": {"--hw": "npu", "--gemm": (8, 8, 8)},
    "compare": {"A": "npu", "B": "npu", "--samples": 2},
    "sweep": {"FILE.yaml": "sweep.yaml", "--workers": 1},
    "search": {"FILE.yaml": "search.yaml", "--workers": 1},
    "plan": {"--hw": "npu", "--out": "plan.json", "--samples": 8, "--budget": 0.2},
    "runs": {"DIR": "store"},
    "report": {"DIR...": "run"},
    "train": {"--epochs": 1, "--data": "x.npz", "--storage": "e8m6"},
    "bounds": {"--samples": 2},
    "bounds check": {"FILE.json": "certificate.json"},
    "track": {"--samples": 4, "--batch-size": 4},
    "track compare": {"A.json": "track/track.json", "B.json": "track/track.json"},
    "study two-pass": {"--hw": "npu", "--calibration": 4, "--workers": 1},
    "study truncation": {"--settings": "rz", "--bits": 8, "--seeds": 1, "--workers": 1},
    "study points": {"--points": "gradient=e8m4/rz", "--workers": 1},
    "study laws": {"--seeds": 1},
}
# Where an option that is tried goes with others than these: None for those left out.
BESIDE = {
    ("formats", "--plot"): {"NAME": "fp16"},
    ("estimate", "--topology"): {"--gemm": None},
    ("estimate", "--scalesim-cfg"): {"--hw": None, "--gemm": None, "--topology": DATA / "resnet50_gemm.csv"},
    ("estimate", "--trace"): {"--fidelity": "event"},
    ("estimate", "--out"): {
        "--hw": None, "--gemm": None, "--scalesim-cfg": "scale.cfg", "--topology": DATA / "resnet50_gemm.csv",
    },
    ("train", "--recipe"): {"--storage": None},
    ("bounds", "--certificate"): {"--mac": "fma(fp32)"},
    ("bounds check", "--weights"): {"--model": "mlp"},
    ("bounds check", "--data"): {"--model": "mlp"},
    ("study points", "--recipe"): {"--points": None},
}  # fmt: skip
SUFFIXES = {
    "--model": (".onnx", ".keras", ".pt2", ".pt"),
    "--weights": (".pt", ".pth", ".safetensors"),
    "--data": (".npz",),
    "--test": (".npz",),
}  # of files that are read by what their names end in

SCALESIM = """[architecture_presets]
ArrayHeight: 16
ArrayWidth: 16
Bandwidth: 10
Dataflow: ws
[run_presets]
InterfaceBandwidth: CALC
"""


def files_of(command):
    """Options and arguments of a command that name a file or a directory, each with its metavar."""
    named = {name: one for name, one in options(command).items() if re.search("FILE|DIR", one.metavar or "")}
    named |= {one.metavar: one for one in arguments(command) if (command, one.metavar) not in NO_FILES}
    return named


GROUPS = [MAIN_JOB, *dict.fromkeys(command.rpartition(" ")[0] for command in COMMANDS if " " in command)]
READ = [(command, name) for command in COMMANDS for name in files_of(command) if name not in WRITE]
WRITTEN = [(command, name) for command in COMMANDS for name in files_of(command) if name in WRITE]


def typed(command, tried=None, bad=None):
    """What is typed for a command with what it needs, and what is tried in its place."""
    given = {**GIVEN.get(command, {}), **BESIDE.get((command, tried), {}), **({tried: bad} if tried else {})}
    more = []
    for name, value in given.items():
        if value is not None and name.startswith("--"):
            more += [name, *value] if isinstance(value, tuple) else [name, value]
    return words(command, *more, *(given[one.metavar] for one in arguments(command) if one.metavar in given))


def contents(directory):
    """All that a directory holds, by path: which file it is, how large, and when it was written."""
    found = {path: path.stat() for path in directory.rglob("*")}
    return {
        path: (one.st_ino, *((one.st_size, one.st_mtime_ns) if path.is_file() else ())) for path, one in found.items()
    }


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A directory with a good file of each kind that a command may need beside what is tried."""
    directory = tmp_path_factory.mktemp("good")
    rows = "hw: npu\ncost: {gemms: [[8, 8, 8]]}\nsweep:\n  array.rows: [8, 16]\n"
    (directory / "sweep.yaml").write_text(rows)
    (directory / "search.yaml").write_text(f"{rows}search:\n  objectives: [energy_j, area_mm2]\n")
    np.savez(directory / "x.npz", x=np.zeros((40, 1, 28, 28), np.uint8), y=np.arange(40) % 10)
    for given in (
        ["--hw", "npu", "--samples", "2", "--out", "run"],
        ["sweep", "sweep.yaml", "--out", "store"],
        ["bounds", "--mac", "fma(fp32)", "--samples", "1", "--certificate", "certificate.json"],
        ["track", "--samples", "4", "--batch-size", "4", "--out", "track"],
    ):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match="0"):
            patch.chdir(directory)
            patch.setattr(sys, "argv", ["ulpsim", *given, "--quiet"])
            command_line.main()
    (directory / "scale.cfg").write_text(SCALESIM)
    return directory


@pytest.fixture
def refused(command, tmp_path, good):
    """Type what is bad, and return what is said: one message, and nothing else happens."""
    shutil.copytree(good, tmp_path, copy_function=os.link, dirs_exist_ok=True)

    def call(*arguments):
        before = contents(tmp_path)
        code, out, err = command(*arguments)
        what = f"{arguments}: {code}\n{out[:1000]}\n{err[-3000:]}"
        assert (code, out) == (BAD_INPUT, ""), what
        assert err.startswith("ulpsim: error: ") and err.count("ulpsim: error: ") == 1, what
        assert re.search(r"expected .+(; |\. )\w+", err, re.DOTALL) and "Traceback" not in err, what
        assert contents(tmp_path) == before, what
        return err

    return call


@pytest.mark.parametrize("group", GROUPS)
def test_an_unknown_command(command, tmp_path, group):
    code, out, err = command(*words(group, "nonsense"))
    assert (code, out) == (BAD_INPUT, "")
    assert err.startswith(f"ulpsim: error: {f'{group}: ' if group else ''}nonsense: unknown command; expected one of ")
    assert err.endswith("; give one\n") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option(command, tmp_path, name):
    for bad in ("--tolerence", "-q"):
        code, out, err = command(*typed(name), bad)
        assert (code, out) == (BAD_INPUT, "")
        assert err.startswith(f"ulpsim: error: {f'{name}: ' if name else ''}{bad}: unknown option; ")
        assert (
            re.search(r'; (did you mean "--[a-z]+"\?|expected one of --.+; remove it)\n$', err) and err.count("\n") == 1
        )
    assert list(tmp_path.iterdir()) == []


KINDS = {"a directory": None, "an empty file": b"", "a list": b"- 1\n- [2, 3]\n", "noise": b"\x00\xff\xfe\n" * 40}


@pytest.mark.parametrize("name, one", READ)
def test_a_file_that_is_not_there(refused, tmp_path, name, one):
    (tmp_path / "file").write_text("mine")
    for bad in ("bad", "file/bad", "bad" * 100):  # the last is longer than a name may be
        bad += SUFFIXES.get(one, (".yaml",))[0]
        assert bad in refused(*typed(name, one, bad))


@pytest.mark.parametrize(
    "name, one", [pytest.param(*of, marks=pytest.mark.full if "--model" in options(of[0]) else ()) for of in READ]
)
def test_a_file_that_cannot_be_read(refused, tmp_path, name, one):
    """Where a record is asked for too, so that nothing comes in its place."""
    for suffix, content in product(SUFFIXES.get(one, (".yaml", "")), KINDS.values()):
        bad = tmp_path / f"bad{suffix}"
        if content is None:
            bad.mkdir()
        else:
            bad.write_bytes(content)
        assert bad.name in refused(*typed(name, one, bad), "--json")
        bad.unlink() if bad.is_file() else bad.rmdir()


@pytest.mark.parametrize("name, one", WRITTEN)
def test_what_cannot_be_written(refused, tmp_path, name, one):
    """Below a file, below what is no real directory, where something else is; as root, whom no right stops."""
    suffix = "".join(re.findall(r"\.\w+", options(name)[one].metavar))
    (tmp_path / "file").write_text("mine")
    (tmp_path / f"directory{suffix}").mkdir()
    of_a_file = "FILE" in options(name)[one].metavar
    for bad in ("file/out", "/proc/none", "out" * 100, f"directory{suffix}" if of_a_file else "file"):
        bad += "" if bad.endswith(suffix) else suffix
        said = refused(*typed(name, one, bad))
        assert bad in said, said
