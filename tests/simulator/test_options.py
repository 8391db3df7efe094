"""Options mean the same whatever the command: what holds of all of them is read from the tree of commands itself."""

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.command_tree import COMMANDS, options, words

SHARED = ("--hw", "--model", "--weights", "--allow-code", "--data", "--samples", "--seed", "--threads", "--out",
          "--json", "--quiet")  # fmt: skip
WITH_NETWORK = [name for name in COMMANDS if "--model" in options(name)]


def test_the_tree_is_what_help_lists(command):
    assert len(COMMANDS) > 15 and {"", "formats", "bounds", "bounds check", "study two-pass"} < set(COMMANDS)
    for name in COMMANDS:
        code, out, _ = command(*words(name, "--help"))
        assert code == 0 and out.startswith(f"Usage: {' '.join(['ulpsim', *words(name)])} [OPTIONS]")
        assert all(option in out for option in options(name))


@pytest.mark.parametrize("option", SHARED)
def test_an_option_takes_the_same_wherever_it_is(option):
    kinds = defaultdict(list)
    for name in COMMANDS:
        if (one := options(name).get(option)) is not None:
            kinds[one.metavar, one.nargs, one.multiple, one.is_flag].append(name)
    if option == "--out":  # where results go: a directory, and of commands that write one file, that file
        assert kinds.pop(("FILE.json", 1, False, False)) == ["plan"]
        assert kinds.pop(("FILE.html", 1, False, False)) == ["compare", "report"]
    assert len(kinds) == 1, dict(kinds)
    assert len(next(iter(kinds.values()))) > 1, f"{option} is of one command only"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_its_result_as_json(name):
    assert "--json" in options(name)


@pytest.mark.parametrize("name", WITH_NETWORK)
def test_every_command_with_a_network_takes_what_one_may_need(name):
    assert {"--weights", "--allow-code", "--data"} <= set(options(name))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_be_quiet(name):
    assert "--quiet" in options(name)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name):
    assert [option for option, one in options(name).items() if not one.help] == []


def test_a_learning_rate_that_is_not_given_is_that_of_the_help():
    torch = pytest.importorskip("torch")
    from simulator.network.samples import Samples
    from simulator.tracking.program import OPTIMISERS, Program
    from simulator.training.job import Job

    (told,) = {options(name)["--lr"].help for name in COMMANDS if "--lr" in options(name)}
    assert told == "Learning rate. Default: 0.1 of sgd, 0.001 of the others."
    samples = Samples(torch.zeros(64, 4), torch.zeros(64, dtype=torch.int64), "zeros")
    for name in OPTIMISERS:
        rate = 0.1 if name == "sgd" else 0.001
        assert Program(samples, train=1, optimiser=name).settings()["lr"] == Job(optimizer=name).rate == rate


@pytest.mark.parametrize("option", ["--workers", "--scheduler", "--threads", "--seed", "--allow-code", "--json"])
def test_an_option_of_many_commands_has_one_default(option):
    defaults = {name: one.default for name in COMMANDS if (one := options(name).get(option)) is not None}
    if option == "--seed":
        assert defaults.pop("search") is None  # as its file says, or 0
    assert len(set(defaults.values())) == 1, defaults


# --- what they do, in commands that take no time --------------------------------------------------------------------

PLAN = ("plan", "--hw", "npu", "--out", "plan.json", "--samples", 8, "--budget", 0.2)
SWEEP = "hw: npu\nmodel: mlp\ncost: {}\nsweep:\n  array.rows: [8, 16]\n"
QUIET = {
    "main job": (("--hw", "npu", "--samples", 2), "out/summary.json"),
    "formats": (("formats", "fp16", "--plot", "p.html"), "p.html"),
    "estimate": (
        ("estimate", "--hw", "npu", "--gemm", 8, 8, 8, "--fidelity", "event", "--trace", "t.json"), "t.json",
    ),
    "plan": (PLAN, "plan.json"),
    "bounds": (("bounds", "--samples", 2, "--out", "b"), "b/bounds.json"),
    "track": (("track", "--samples", 4, "--batch-size", 4, "--out", "t"), "t/track.json"),
    "train": (("train", "--epochs", 1, "--data", "x.npz", "--storage", "e8m6"), "train/history.json"),
    "sweep": (("sweep", "sweep.yaml"), "sweep/runs.sqlite"),
    "study points": (("study", "points", "--points", "gradient=e8m4/rz", "--workers", 1), "points/study.json"),
}  # fmt: skip


@pytest.mark.parametrize("arguments, file", QUIET.values(), ids=QUIET)
def test_quiet_writes_its_files_and_prints_nothing(command, tmp_path, monkeypatch, arguments, file):
    pytest.importorskip("torch")
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    np.savez(tmp_path / "x.npz", x=np.zeros((40, 1, 28, 28), np.uint8), y=np.arange(40) % 10)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)  # as where progress would be shown
    assert command(*arguments, "--quiet") == (0, "", "")
    assert (tmp_path / file).stat().st_size


@pytest.mark.parametrize("name, given", [
    ("doctor", ()), ("show", ("npu",)), ("explain", ("fma(fp16)",)), ("bounds check", ("c.json",)),
    ("track compare", ("t/track.json", "t/track.json")),
])  # fmt: skip
def test_a_quiet_command_that_only_prints_leaves_its_exit_code(command, name, given):
    pytest.importorskip("torch")
    if name == "bounds check":
        assert command("bounds", "--samples", 1, "--mac", "fma(fp32)", "--certificate", "c.json", "--quiet")[0] == 0
    if name == "track compare":
        assert command("track", "--samples", 4, "--batch-size", 4, "--out", "t", "--quiet")[0] == 0
    assert command(*words(name, *given))[1] != ""
    assert command(*words(name, *given, "--quiet")) == (0, "", "")


def test_quiet_still_says_what_is_wrong(command):
    code, out, err = command("--hw", "npu", "--samples", 0, "--quiet")
    assert (code, out) == (2, "") and err.startswith("ulpsim: error: --samples: got 0")


def test_quiet_leaves_the_record_that_json_asks_for(command, tmp_path):
    pytest.importorskip("torch")
    code, out, err = command("--hw", "npu", "--samples", 2, "--quiet", "--json")
    assert (code, err) == (0, "") and out == (tmp_path / "out" / "summary.json").read_text()


def test_a_plan_is_printed_as_it_is_in_its_file_with_its_agreement(command, tmp_path):
    pytest.importorskip("torch")
    code, out, err = command(*PLAN, "--check", 8, "--json")
    assert (code, err) == (0, "")
    record = json.loads(out)
    agreement = record.pop("agreement")
    assert record == json.loads((tmp_path / "plan.json").read_text())
    assert [one["layer"] for one in agreement] == list(record["layers"])
    assert all(one["precision"] == one["both"] / one["planned"] for one in agreement if one["planned"])


def test_a_plan_that_cannot_be_written_is_refused_before_anything_runs(command, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setattr("simulator.studies.planning.plan_for", lambda *a, **k: pytest.fail("it ran"))
    code, out, err = command("plan", "--hw", "npu", "--out", "none/plan.json")
    assert (code, out) == (2, "") and "none is no directory" in err


PICKLED = [name for name in WITH_NETWORK if name != "bounds check"]  # which needs a certificate first


@pytest.mark.parametrize("name", PICKLED)
def test_a_pickled_network_runs_with_allow_code_alone(command, tmp_path, name):
    """That a file may run code is said by the option and by nothing else, the same in every command."""
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 4))
    torch.save(net, tmp_path / "net.pt")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "x.npz", x=rng.random((12, 4, 4), np.float32), y=np.arange(12) % 4)
    short = {
        "": ("--hw", "npu"), "compare": ("npu", "npu"),
        "plan": ("--hw", "npu", "--out", "p.json", "--samples", 8, "--budget", 0.2),
        "bounds": ("--samples", 2), "track": ("--batch-size", 12), "train": ("--epochs", 1, "--storage", "e8m6"),
        "study two-pass": ("--hw", "npu", "--calibration", 4, "--budgets", "0.1", "--scores", "kappa_prime",
                           "--no-controls", "--no-static", "--workers", 1),
    }  # fmt: skip
    given = words(name, *short[name], "--model", "net.pt", "--data", "x.npz")
    code, out, err = command(*given)
    assert (code, out) == (2, "") and "--allow-code" in err
    if name != "study two-pass":  # whose workers take seconds to start; see the next test
        assert command(*given, "--allow-code")[0] == 0


def test_a_study_of_a_pickled_network_hands_it_on(command, monkeypatch, tmp_path):
    pytest.importorskip("torch")
    given = []
    monkeypatch.setattr("simulator.studies.two_pass.check_study_directory", lambda *a: None)
    monkeypatch.setattr("simulator.studies.two_pass.sweep", lambda plan, **k: given.append(plan) or exit(7))
    named = ("--hw", "npu", "--model", "net.pt", "--calibration", 4, "--scores", "norm2")
    assert command("study", "two-pass", *named, "--allow-code")[0] == 7
    assert given[0].inputs.allow_code and given[0].inputs.model == "net.pt"
    assert Path("study").exists() is False
