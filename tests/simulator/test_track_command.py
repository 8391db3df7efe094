"""`python -m simulator track`: what it prints and writes, and what it refuses."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

FAST = ("--model", "cnn", "--batch-size", "4", "--numbers", "safe,expected")
FILES = ["bits.csv", "track.html", "track.json", "updates.csv"]


def test_inference_is_tracked_batch_by_batch(command):
    code, out, err = command("track", *FAST, "--samples", 10)
    assert code == 0, err
    assert out.startswith("cnn: 3 steps, 3 kept; roundings bounded") and "gradient entries" not in out
    assert "safe (upper bound)" in out and "expected (statistical)" in out and "certain_noise" not in out
    assert "sample of up to 256 elements" in out.replace("\n", " ")


def test_training_prints_writes_and_calibrates(command, tmp_path):
    code, out, err = command(
        "track", *FAST, "--train", 2, "--optimizer", "sgd", "--lr", 0.1, "--calibrate", "--out", "bits", "--bits", 12,
        "--roundings", "measured", "--restart", "step", "--export", "all.parquet",
    )  # fmt: skip
    assert code == 0, err
    assert "sgd, learning rate 0.1, batches of 4; loss " in out and "below 12" in out
    assert "2 steps again in float64" in out and "updates below the noise" in out
    assert sorted(path.name for path in (tmp_path / "bits").iterdir()) == FILES
    record = json.loads((tmp_path / "bits" / "track.json").read_text())
    assert record["model"] == "cnn" and len(record["training"]["losses"]) == 2 and record["restart"] == "step"
    safe = [row for row in record["calibration"]["kinds"] if row["label"] == "safe"]
    assert {row["kind"] for row in safe} == {"value", "gradient", "gradient of parameter", "parameter"}
    assert all(share == 0 for row in safe for share in row["over"])
    page = (tmp_path / "bits" / "track.html").read_text()
    assert "Reliable bits: cnn" in page and "Against float64" in page and "learning rate 0.1" in page
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_parquet(tmp_path / "all.parquet")) == len(record["tensors"])


def test_json_is_the_record_alone_and_the_same_seed_gives_the_same_bits(command):
    found = []
    for seed in (0, 0, 1):
        code, out, _ = command("track", *FAST, "--train", 1, "--seed", seed, "--json")
        assert code == 0
        found.append(json.loads(out))
    assert found[0]["tensors"] == found[1]["tensors"] != found[2]["tensors"]
    assert found[0]["training"]["losses"] == found[1]["training"]["losses"] and found[0]["calibration"] is None


def test_a_machine_computes_the_products(command):
    code, out, err = command("track", *FAST, "--hw", "npu", "--samples", 4, "--json")
    assert code == 0, err
    record = json.loads(out)
    medians = {row["name"]: row["median"] for row in record["tensors"] if row["label"] == "expected"}
    assert record["hardware"] == "npu" and medians["fc3: addmm"] < 8


def test_a_network_of_the_users_own_with_floats_to_regress_on(command, tmp_path):
    (tmp_path / "own.py").write_text(
        "import torch\ndef net():\n    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), "
        "torch.nn.Linear(4, 1))\n"
    )
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", x=rng.normal(size=(8, 3)), y=rng.normal(size=(8, 1)))
    code, out, err = command(
        "track", "--model", "own:net", "--data", "d.npz", "--train", 5, "--batch-size", 3, "--every", 2, "--optimizer",
        "adamw", "--json",
    )  # fmt: skip
    assert code == 0, err
    record = json.loads(out)
    assert len(record["steps"]) == 5 and {row["step"] for row in record["tensors"]} == {0, 2, 4}
    assert record["training"]["optimizer"] == "adamw" and record["training"]["lr"] == 1e-3


NESTED = """
import torch

class Net(torch.nn.Module):
    def __init__(self, nest):
        super().__init__()
        self.layer, self.nest = torch.nn.Linear(3, 4), nest

    def forward(self, left, right):
        scores = self.layer(left - right)
        return self.nest(scores, scores.argmax(1))

def tensor(): return Net(lambda scores, best: scores)
def mapping(): return Net(lambda scores, best: {"best": best, "scores": scores, "more": scores * 2})
def several(): return Net(lambda scores, best: (best, scores))
def answers(): return Net(lambda scores, best: {"best": best})
def nothing(): return Net(lambda scores, best: {"scores": [1.0]})
"""


@pytest.fixture
def nested(tmp_path):
    """Networks of two inputs that return the same scores in many ways, and samples."""
    (tmp_path / "nested.py").write_text(NESTED)
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(2, 8, 3))
    np.savez(tmp_path / "d.npz", left=left, right=right, y=rng.integers(0, 4, 8))
    return lambda name: (
        "track",
        "--model",
        f"nested:{name}",
        "--data",
        "d.npz",
        "--train",
        3,
        "--batch-size",
        4,
        "--json",
    )


@pytest.mark.parametrize("name", ["mapping", "several"])
def test_of_several_outputs_the_one_that_metrics_see_is_trained_on(command, nested, name):
    losses = []
    for one in ("tensor", name):
        code, out, err = command(*nested(one))
        assert code == 0, err
        losses.append(json.loads(out)["training"]["losses"])
    assert losses[0] == losses[1] and len(losses[0]) == 3


def test_outputs_without_floats_are_not_trained_on(command, nested):
    for name, said in (
        ("answers", "track: --train: Net returns int64; expected floats, such as logits, to train on"),
        ("nothing", "track: --train: Net: the model returned dict; expected a tensor"),
    ):
        code, _, err = command(*nested(name))
        assert code == 2 and said in err and err.count("\n") == 1


def test_two_runs_side_by_side(command):
    for name, roundings in (("a", "bounded"), ("b", "measured")):
        assert command("track", *FAST, "--samples", 4, "--roundings", roundings, "--out", name)[0] == 0
    code, out, err = command("track", "compare", "a/track.json", "b/track.json")
    assert code == 0, err
    assert "b - a" in out and "safe (upper bound)" in out
    code, out, _ = command("track", "compare", "a/track.json", "b/track.json", "--json")
    rows = {(row["name"], row["label"]): row["more"] for row in json.loads(out)["tensors"]}
    assert code == 0 and rows["fc3: addmm", "safe"] > 3


@pytest.mark.parametrize(("words", "said"), [
    (("--train", "0"), "--train: got 0; expected a number of steps from 1"),
    (("--batch-size", "0"), "--batch-size: got 0; expected 1 to"),
    (("--batch-size", "2000"), "--batch-size: got 2000; expected 1 to 1500"),
    (("--lr", "0.1"), "--lr: got 0.1 without --train"),
    (("--optimizer", "adam"), "--optimizer: got adam without --train"),
    (("--train", "1", "--lr", "-1"), "--lr: got -1; expected a number above 0"),
    (("--numbers", "sure"), "numbers: got 'sure'; expected some of safe, expected, certain_noise"),
    (("--numbers", ""), "numbers: got none"),
    (("--every", "0"), "every: got 0"),
    (("--bits", "0"), "--bits: got 0; expected a number above 0"),
    (("--export", "bits.txt"), "--export: got bits.txt; expected a name with .csv or .parquet"),
    (("--data", "none.npz"), "none.npz"),
    (("--hw", "none.yaml"), "none.yaml"),
    (("--model", "mpl"), "did you mean 'mlp'?"),
], ids=lambda words: " ".join(words) if isinstance(words, tuple) else None)  # fmt: skip
def test_bad_input_is_one_message_and_nothing_is_written(command, tmp_path, words, said):
    code, out, err = command("track", *words, "--out", "bits")
    assert code == 2 and out == "" and err.startswith("ulpsim: error: ") and said in err and err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_labels_are_needed_to_train(command, tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((4, 28, 28), np.uint8))
    code, _, err = command("track", "--data", "d.npz", "--train", 1, "--batch-size", 2)
    assert code == 2 and "d.npz has no labels; expected y beside x" in err


def test_results_of_others_are_kept(command, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    code, _, err = command("track", *FAST, "--samples", 4, "--out", "mine")
    assert code == 2 and "found thesis.tex" in err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_files_that_hold_no_report_are_refused(command, tmp_path):
    (tmp_path / "a.json").write_text("{}")
    code, _, err = command("track", "compare", "a.json", "b.json")
    assert code == 2 and "a.json: holds no report of bits" in err
