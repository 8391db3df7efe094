"""`python -m simulator train`: what it prints and writes, how it goes on, and what it refuses."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import simulator.training.job as job_module  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.network import bundled  # noqa: E402
from simulator.training.history import Epoch  # noqa: E402

ROOT = Path(__file__).parents[2]
FILES = ["checkpoint.pt", "history.csv", "history.json", "weights.pt"]
OWN = """
import torch
class Net(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(8, 3))
"""
FAILS = """
    def train(self, mode=True):
        assert not mode, "no"
        return self
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A network and samples of the user's own, and the arguments that name them."""
    (tmp_path / "own_nets.py").write_text(OWN)
    random = np.random.default_rng(0)
    y = random.integers(0, 3, 80)
    np.savez(tmp_path / "d.npz", x=random.standard_normal((3, 6))[y] + 0.3 * random.standard_normal((80, 6)), y=y)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    return ("train", "--model", "own_nets:Net", "--data", "d.npz", "--batch-size", 16)


def weights(directory):
    return {name: value.numpy().tobytes() for name, value in torch.load(directory / "weights.pt").items()}


def test_a_bundled_network_is_trained_anew_and_the_main_job_runs_what_it_learned(command, tmp_path):
    code, out, err = command(
        "train", "--model", "cnn", "--recipe", "truncated", "--epochs", 1, "--lr", 0.05, "--momentum", 0.9
    )
    assert code == 0, err
    assert "recipe truncated: weight_store e8m6/rz" in out.replace("\n", " ") and "Results in train" in out
    assert err.startswith("epoch 1 of 1: loss ") and "of updates lost" in err
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == FILES
    record = json.loads((tmp_path / "train" / "history.json").read_text())
    assert record["samples"] == 1200 and record["tested"] == 300 and record["steps"] == 38
    assert record["optimizer"] == {"name": "sgd", "lr": 0.05, "momentum": 0.9}
    assert record["recipe"]["points"] == {"weight_store": "e8m6/rz"} and 0 < record["epochs"][0]["lost_share"] < 1
    found = torch.load(tmp_path / "train" / "weights.pt")
    shipped = bundled.load("cnn").state_dict()
    assert not any(torch.equal(value, shipped[name]) for name, value in found.items())
    code, _, err = command(
        "--hw", "npu", "--model", "cnn", "--weights", "train/weights.pt", "--samples", 3, "--out", "run"
    )
    assert code == 0, err


def test_the_record_is_json_alone_and_the_table_has_a_row_for_each_epoch(command, tmp_path, own):
    code, out, err = command(
        *own, "--recipe", "sr_storage", "--epochs", 3, "--optimizer", "adam", "--json", "--out", "a", "--test", 0.25,
    )  # fmt: skip
    assert code == 0, err
    record = json.loads(out)
    assert (tmp_path / "a" / "history.json").read_text() == out
    assert (record["samples"], record["tested"], record["optimizer"]) == (60, 20, {"name": "adam", "lr": 0.001})
    rows = list(csv.DictReader((tmp_path / "a" / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    for row, epoch in zip(rows, record["epochs"], strict=True):
        assert float(row["loss"]) == epoch["loss"] and float(row["lost_share"]) == epoch["lost_share"]
        values = sum(counts["values"] for counts in epoch["counts"]["weight_store"].values())
        assert int(row["weight_store_values"]) == values > 0


def test_the_same_seed_gives_the_same_bits_and_storage_is_a_recipe(command, tmp_path, own):
    stored = ("--storage", "e8m4", "--rounding", "sr", "--epochs", 1)
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        assert command(*own, *stored, "--seed", seed, "--out", name)[0] == 0
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert a == b != c


def test_a_file_of_its_own_is_what_accuracy_is_of(command, tmp_path, own):
    np.savez(tmp_path / "t.npz", x=np.load(tmp_path / "d.npz")["x"][:7], y=np.load(tmp_path / "d.npz")["y"][:7])
    code, out, err = command(*own, "--test", "t.npz", "--epochs", 1, "--json")
    assert code == 0, err
    assert (json.loads(out)["samples"], json.loads(out)["tested"]) == (80, 7)


def test_real_targets_have_no_accuracy_and_weights_are_a_start(command, tmp_path, own):
    values = np.random.default_rng(1).standard_normal((20, 3))
    np.savez(tmp_path / "r.npz", x=np.load(tmp_path / "d.npz")["x"][:20], y=values)
    assert command(*own, "--epochs", 1, "--out", "a")[0] == 0
    code, out, err = command(
        "train", "--model", "own_nets:Net", "--data", "r.npz", "--weights", "a/weights.pt", "--epochs", 1,
        "--lr", 1e-30, "--out", "b",
    )  # fmt: skip
    assert code == 0, err
    assert weights(tmp_path / "b") == weights(tmp_path / "a")
    code, out, err = command("train", "--model", "own_nets:Net", "--data", "r.npz", "--epochs", 1, "--out", "c")
    assert code == 0 and "–" in out, err


def test_a_training_goes_on_with_the_same_bits(command, tmp_path, own):
    settings = ("--recipe", "sr_storage", "--momentum", 0.9)
    assert command(*own, *settings, "--epochs", 4, "--out", "whole")[0] == 0
    assert command(*own, *settings, "--epochs", 2, "--out", "parts")[0] == 0
    code, _, err = command(*own, *settings, "--epochs", 4, "--out", "parts", "--resume")
    assert code == 0 and err.startswith("epoch 3 of 4: "), err
    assert weights(tmp_path / "parts") == weights(tmp_path / "whole")
    for name in ("history.json", "history.csv"):
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()


def test_a_training_is_neither_replaced_nor_mixed_with_another(command, tmp_path, own):
    assert command(*own, "--epochs", 1)[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "train").iterdir()}
    code, out, err = command(*own, "--epochs", 1)
    assert (code, out) == (2, "") and "train: holds a training; expected a new or empty directory; give --resume" in err
    code, _, err = command(*own, "--epochs", 2, "--lr", 0.2, "--recipe", "truncated", "--resume")
    assert code == 2 and "lr is 0.1 there and 0.2 here" in err
    assert "recipe: weight_store is not set there and e8m6/rz here" in err
    assert {path.name: path.read_bytes() for path in (tmp_path / "train").iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume",), "--resume: train: holds no checkpoint.pt; expected the directory of a training"),
        (("--recipe", "fp8"), "no bundled recipe; expected one of "),
        (("--recipe", "truncated", "--storage", "e8m6"), "--recipe: got truncated beside --storage or --rounding"),
        (("--recipe", "empty.yaml"), "the file is empty; expected a mapping; write 'key: value' lines"),
        (("--storage", "e8m"), "storage: "),
        (("--rounding", "rz"), "--rounding: got rz without --storage; expected the format"),
        (("--optimizer", "adam", "--momentum", 0.9), "adam: "),
        (("--lr", -1), "lr: got -1.0"),
        (("--lr", "nan"), "lr: got nan"),
        (("--epochs", -1), "--epochs: got -1; expected at least 1"),
        (("--epochs", 0), "--epochs: got 0; expected at least 1"),
        (("--batch-size", 0), "batch_size: got 0"),
        (("--threads", 0), "threads: got 0; expected 1 to 1024"),
        (("--seed", -1), "seed"),
        (("--test", 1.5), "--test: got 1.5; expected a share between 0 and 1, or a file"),
        (("--test", 0.001), "--test: got 0.001 of 80 samples, which is 0"),
        (("--test", "lost.npz"), "lost.npz"),
        (("--data", "lost.npz"), "lost.npz"),
        (("--data", "no_y.npz"), "--data: no_y.npz: holds no y; expected labels to train on"),
        (("--model", "own_nets:Lost"), "own_nets"),
        (("--model", "mpl"), "did you mean 'mlp'"),
        (("--weights", "lost.pt"), "lost.pt"),
        (("--model", "mlp", "--allow-code"), "--allow-code: given with --model mlp"),
        (("--out", "."), "found the current directory"),
        (("--out", "d.npz"), "found a file"),
        (
            ("--out", "mine"),
            "found notes.txt, which is not a training; expected a new or empty directory; move",
        ),
        (("--out", "old"), "old: holds a training; expected a new or empty directory; give another name"),
        (("--resume", "--weights", "w.pt"), "--weights: got w.pt beside --resume; expected one"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(command, tmp_path, own, arguments, message):
    np.savez(tmp_path / "no_y.npz", x=np.zeros((4, 6)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "weights.pt").write_text("mine")
    (tmp_path / "empty.yaml").write_text("")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = command(*own, *arguments)
    assert (code, out) == (2, "") and message in err and err.startswith("ulpsim: error: ")
    after = [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts]
    assert after == before


def test_a_network_that_fails_in_training_is_named(command, tmp_path, own):
    (tmp_path / "own_nets.py").write_text(OWN + FAILS)
    before = sorted(tmp_path.rglob("*"))
    code, _, err = command(*own, "--out", "deep/train")
    assert code == 2 and "train: the network Net fails in training (AssertionError: no)" in err
    assert [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts] == before


@pytest.mark.parametrize(("ended", "left"), [(0, []), (1, ["deep", "deep/train", "deep/train/checkpoint.pt"])])
@pytest.mark.parametrize("error", [InputError("no"), KeyboardInterrupt("stop")])
def test_a_failure_leaves_what_an_epoch_came_to_and_no_empty_directory(tmp_path, own, monkeypatch, ended, left, error):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def fails(*args, checkpoint, observe, **kwargs):
        if ended or isinstance(error, InputError):
            checkpoint.write_text("state")
        for number in range(ended):
            observe(Epoch(number, 0.0, None))
        raise error

    monkeypatch.setattr(job_module, "fit", fails)
    with pytest.raises(type(error), match=str(error)):
        job_module.train(job_module.Job("own_nets:Net", data="d.npz"), "deep/train")
    found = [path for path in sorted(tmp_path.rglob("*")) if "__pycache__" not in path.parts and path not in before]
    assert [str(path.relative_to(tmp_path)) for path in found] == left


def test_causes_are_beside_the_history_and_change_no_bit(command, tmp_path, own):
    settings = (*own, "--recipe", "sr_storage")
    code, out, err = command(*settings, "--epochs", 2, "--causes", "--out", "a")
    assert code == 0 and "causes.json, causes.csv" in " ".join(out.split()), err
    rows = json.loads((tmp_path / "a" / "causes.json").read_text())["rows"]
    assert {row["epoch"] for row in rows} == {0, 1} and any(row["forward_error"] for row in rows)
    assert (tmp_path / "a" / "causes.csv").read_text().startswith("epoch,point,layer,tensor,")
    code, out, err = command(*settings, "--epochs", 2, "--out", "b")
    assert code == 0 and "causes" not in out, err
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == FILES
    assert command(*settings, "--epochs", 3, "--causes", "--out", "a", "--resume")[0] == 0
    rows = json.loads((tmp_path / "a" / "causes.json").read_text())["rows"]
    assert {row["epoch"] for row in rows if row["forward_error"]} == {0, 1, 2}


def test_a_loss_that_is_no_number_is_null_in_json_and_empty_in_the_table(command, tmp_path, own):
    code, _, err = command(*own, "--epochs", 1, "--lr", 1e30)
    assert code == 0, err
    assert json.loads((tmp_path / "train" / "history.json").read_text())["epochs"][0]["loss"] is None
    (row,) = csv.DictReader((tmp_path / "train" / "history.csv").open())
    assert row["loss"] == "" and float(row["accuracy"]) >= 0


def test_ctrl_c_leaves_the_last_checkpoint_and_says_how_to_go_on(command, tmp_path, own, monkeypatch):
    assert command(*own, "--epochs", 3, "--out", "whole")[0] == 0
    fit = job_module.fit

    def interrupted(*args, observe, **kwargs):
        def stop(epoch):
            observe(epoch)
            if epoch.number == 1:
                raise KeyboardInterrupt

        return fit(*args, observe=stop, **kwargs)

    monkeypatch.setattr(job_module, "fit", interrupted)
    code, out, err = command(*own, "--epochs", 3)
    assert (code, out) == (130, "")
    assert "interrupted; the last checkpoint is in train, and the same command with --resume goes on" in err
    assert [path.name for path in (tmp_path / "train").iterdir()] == ["checkpoint.pt"]
    monkeypatch.setattr(job_module, "fit", fit)
    code, _, err = command(*own, "--epochs", 3, "--resume")
    assert code == 0 and err.startswith("epoch 3 of 3"), err
    assert weights(tmp_path / "train") == weights(tmp_path / "whole")


def test_a_process_that_was_killed_goes_on(command, tmp_path, own):
    settings = [*map(str, own), "--recipe", "sr_storage", "--epochs", "200", "--out", "cut"]
    process = subprocess.Popen(
        [sys.executable, "-m", "simulator", *settings], cwd=tmp_path, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    checkpoint, end = tmp_path / "cut" / "checkpoint.pt", time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(0.2)
    process.kill()
    assert process.wait() == -signal.SIGKILL and sorted(p.suffix for p in (tmp_path / "cut").iterdir())[-1] == ".pt"
    done = len(torch.load(checkpoint)["state"]["epochs"])
    assert done < 200
    few = [*own, "--recipe", "sr_storage", "--epochs", done + 1]
    assert command(*few, "--out", "cut", "--resume")[0] == 0
    assert command(*few, "--out", "whole")[0] == 0
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
