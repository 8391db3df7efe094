"""The command line: what it prints where, its exit codes, and nothing half written."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import simulator.run  # noqa: E402
from simulator.hardware import load  # noqa: E402

ROOT = Path(__file__).parents[2]
FILES = ["layers.csv", "report.html", "summary.json"]
NPU = Path(load.__file__).parents[2] / "hwconfigs" / "npu.yaml"


def process(*arguments, cwd, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **options.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "simulator", *map(str, arguments)], cwd=cwd, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
    )  # fmt: skip


# --- what it does ---------------------------------------------------------------------------------------------------


def test_a_run_prints_tables_and_writes_its_files(command, tmp_path):
    code, out, err = command("--hw", "npu", "--samples", 3)
    assert (code, err) == (0, "")
    assert "mlp on npu · 3 samples · tolerance 0.5 · seed 0" in out
    assert out.endswith("\nResults in out: layers.csv, report.html, summary.json\n")
    assert "\x1b" not in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_json_prints_the_record_and_only_that(command, tmp_path):
    code, out, err = command(
        "--hw", NPU, "--samples", 3, "--json", "--tolerance", "0.25", "--seed", 7, "--model", "cnn"
    )
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert out == (tmp_path / "out" / "summary.json").read_text()
    assert (record["model"], record["samples"], record["tolerance"], record["seed"]) == ("cnn", 3, 0.25, 7)


def test_a_run_exports_its_layers_in_every_mode(command, tmp_path):
    pandas = pytest.importorskip("pandas")
    code, out, err = command("--hw", "npu", "--samples", 3, "--export", "layers.parquet")
    assert (code, err) == (0, "") and "\nTable in layers.parquet\n" in out
    table = pandas.read_parquet(tmp_path / "layers.parquet")
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert list(table["mode"]) == [mode for mode in ("low", "high", "two_pass") for _ in range(3)]
    assert list(table["cycles"][6:]) == [layer["cycles"] for layer in record["layers"]] and set(table["run"]) == {"out"}
    assert table["kappa_50"][6] == record["conditions"][0]["kappa"]["50"]


@pytest.mark.parametrize("name, words", [("x.xls", "expected a name with .csv or .parquet"), ("no/x.csv", "cannot be")])
def test_a_table_that_cannot_be_is_refused_before_the_run(command, tmp_path, name, words):
    code, out, err = command("--hw", "npu", "--samples", 3, "--export", name)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


NETS = """
import torch
from torch import nn
print("imported")


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(20, 8), nn.Linear(8, 20)

    def forward(self, tokens):
        print("forward")
        return self.out(self.embedding(tokens))


class Value(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(8, 1)

    def forward(self, x):
        return self.out(x)[:, 0]


made = Value()
"""


def test_what_a_network_prints_does_not_come_between_the_record_and_its_reader(command, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "printing_nets.py").write_text(NETS)
    np.savez(tmp_path / "tokens.npz", x=np.arange(12).reshape(4, 3))
    code, out, err = command("--hw", "npu", "--model", "printing_nets:Tokens", "--data", "tokens.npz", "--json")
    assert code == 0 and json.loads(out)["samples"] == 4
    assert err.startswith("imported\nforward\n")


def test_a_network_that_fails_later_is_one_message(command, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "failing_nets.py").write_text(NETS.replace("print", "str"))
    np.savez(tmp_path / "tokens.npz", x=np.where(np.arange(5) < 4, 3, 99)[:, None])
    code, out, err = command("--hw", "npu", "--model", "failing_nets:Tokens", "--data", "tokens.npz")
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert err.startswith(
        "ulpsim: error: x: the network Tokens fails with samples 0 to 4 (counted from 0) in the mode float32 "
        "(embedding, Embedding(20, 8), is given (5, 1): IndexError: index out of range in self); expected"
    )
    assert not (tmp_path / "out").exists()


def test_a_regression_has_the_metrics_that_need_no_classes(command, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "valued_nets.py").write_text(NETS.replace("print", "str"))
    np.savez(tmp_path / "values.npz", x=np.ones((4, 8)) * np.arange(4)[:, None], y=np.arange(4) / 2)
    for name, drawn in (("Value", True), ("made", False)):
        code, out, _ = command("--hw", "npu", "--model", f"valued_nets:{name}", "--data", "values.npz", "--json")
        record = json.loads(out)
        assert code == 0 and record["accuracy"] is None and set(record["metrics"]) == {"mse", "sqnr_db"}
        assert record["warnings"][0].startswith("labels are real numbers and no classes")
        own = [w for w in record["warnings"] if w.startswith("no --weights: they are what the code of")]
        assert len(own) == drawn and all("at random by seed 0 unless it loads some" in w for w in own)


def test_options_reach_the_run(command, monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(simulator.run, "run", lambda *args, **kwargs: given.append((args, kwargs)) or exit(7))
    options = {
        "model": "net.pt",
        "weights": "w.pt",
        "data": "x.npz",
        "samples": 4,
        "tolerance": "inf",
        "seed": 5,
        "threads": 2,
        "out": "there",
        "fidelity": "event",
    }
    arguments = [text for key, value in options.items() for text in (f"--{key}", value)]
    assert command("--hw", "a.yaml", *arguments, "--allow-code")[0] == 7
    assert given[0][0][:-1] == ("a.yaml", "net.pt", "x.npz", 4, float("inf"), 5, 2)
    assert given[0][1] == {"keep_partial": True, "weights": "w.pt", "allow_code": True, "fidelity": "event"}


def test_results_are_replaced_whole(command, tmp_path):
    out = tmp_path / "deep" / "results"
    assert command("--hw", "npu", "--samples", 2, "--out", out)[0] == 0
    (out / "report.html").write_text("of an earlier version")
    assert command("--hw", "npu", "--samples", 3, "--out", out, "--json")[0] == 0
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert json.loads((out / "summary.json").read_text())["samples"] == 3
    assert [path.name for path in out.parent.iterdir()] == ["results"]


def test_help_names_every_option(command):
    code, out, _ = command("--help")
    assert code == 0
    for option in (
        "--hw", "--model", "--weights", "--allow-code", "--data", "--samples", "--out", "--tolerance", "--seed",
        "--threads", "--json",
    ):  # fmt: skip
        assert option in out


# --- bad input: exit code 2, one message on standard error, nothing written -----------------------------------------


def refused(command, tmp_path, message, *arguments):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, out, err = command(*arguments)
    assert code == 2, err
    assert out == ""
    assert "Traceback" not in err and "\x1b" not in err
    assert re.search(message, err), err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    return err


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], r"--hw: missing; expected a YAML file .*; give one, as in `.* npu`, or a command, as in `.* formats`"),
        (["--hw"], r"error: --hw: got too few values; expected an argument; see"),
        (
            ["--hw", "npu", "--samples", "many"],
            r"error: --samples: got 'many'; expected .*integer; see `ulpsim --help`",
        ),
        (["--hw", "npu", "--tolerance", "abc"], r"error: --tolerance: got 'abc'; expected .*(number|float)"),
        (["--hw", "npu", "--threads", "1.5"], r"error: --threads: got 1\.5; expected .*integer"),
        (
            ["--hw", "npu", "--threads", "1025"],
            r"error: --threads: got 1025; expected a number less than or equal to 1024; see",
        ),
        (["train", "--threads", "100000"], r"error: train: --threads: .*less than or equal to 1024; see `ulpsim train"),
        (["explain", "fma(fp16)", "--threads", "100000"], r"error: explain: --threads: .*less than or equal to 1024"),
        (["--hw", "npu", "--tolerence", "1"], r'error: --tolerence: unknown option; did you mean "--tolerance"\?'),
        (["--hw", "npu", "extra"], r'error: extra: unknown command; did you mean "train"\?'),
        (["explain", "fma(fp16)", "b"], r"error: explain: got b besides; expected nothing more; see `ulpsim explain"),
        (["sweep"], r"error: sweep: FILE.yaml: missing; expected what varies, on which machine and network; see"),
        (["plan", "--hw", "npu"], r"error: plan: --out: missing; expected where the plan goes, for policy.plan; see"),
        (["show", "npu", "--json=3"], r"error: --json: got a value; expected none"),
    ],
)
def test_arguments_that_make_no_sense(command, tmp_path, arguments, message):
    refused(command, tmp_path, message, *arguments)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--hw", ""], r"hardware: got ''; expected a path or a name"),
        (
            ["--hw", "npv"],
            r"got 'npv', no file and no bundled machine; .*; did you mean \"npu\"\?",
        ),
        (["--hw", "none.yaml"], r"none\.yaml: .*no such file"),
        (["--hw", "."], r"\.: .*directory"),
        (["--hw", "npu", "--model", "vgg"], r"--model: got 'vgg'; expected one of mlp, cnn, .*; choose one"),
        (["--hw", "npu", "--samples", "0"], r"--samples: got 0; expected 1 to 1500, the samples of bundled digits"),
        (["--hw", "npu", "--samples", "-1"], r"--samples: got -1; expected 1 to 1500"),
        (["--hw", "npu", "--samples", "1501"], r"--samples: got 1501; expected 1 to 1500"),
        (["--hw", "npu", "--threads", "0"], r"--threads: got 0; expected at least 1"),
        (["--hw", "npu", "--threads", "-2"], r"--threads: got -2; expected at least 1"),
        (["--hw", "npu", "--seed", "-1"], r"--seed: got -1; expected 0 to 4294967295"),
        (["--hw", "npu", "--seed", "4294967296"], r"--seed: got 4294967296; expected 0 to 4294967295"),
        (["--hw", "npu", "--tolerance", "-1"], r"tolerance: got -1\.0; expected a number >= 0"),
        (["--hw", "npu", "--tolerance", "nan"], r"tolerance: got nan; expected a number >= 0"),
        (["--hw", "npu", "--data", "none.npz"], r"none\.npz: no such file; expected an \.npz file with x and y"),
        (["--hw", "npu", "--data", "."], r"\.: a directory; expected an \.npz file"),
    ],
)
def test_values_that_do_not_fit(command, tmp_path, arguments, message):
    err = refused(command, tmp_path, r"^ulpsim: error: .*" + message, *arguments)
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: text.replace("rows: 16", "rows: [16"), r"bad\.yaml:\d+:\d+: "),
        (lambda text: text.replace("  rows:", "  rowz:"), r":\d+:3: array\.rowz: unknown key; did you mean \"rows\"\?"),
        (lambda text: text.replace("rows: 16", "rows: -16"), r"bad\.yaml:\d+:\d+: array\.rows: got -16"),
        (lambda text: text.replace("fma(fp16/sat)", "fma(fp61)"), r":\d+:\d+: mac\.high\.accumulator: .*fp61"),
        (lambda text: text.replace("operands: fp8_e4m3/sat", "operands: fp8_e4m4", 1), r"mac\.low\.operands: "),
        (lambda text: text.replace('"1 GHz"', "1000000000"), r"technology\.frequency: "),
        (lambda text: text.replace("jouppi2021_7nm", "mine.yaml"), r"mine\.yaml: no such file; expected a YAML file"),
        (lambda text: "", r"bad\.yaml"),
        (lambda text: "\x00", r"bad\.yaml"),
        (lambda text: text + "schema: 1\n", r"bad\.yaml:\d+:1: .*schema"),
    ],
)  # fmt: skip
def test_machines_that_cannot_be_read(command, tmp_path, change, message):
    (tmp_path / "bad.yaml").write_text(change(NPU.read_text()))
    refused(command, tmp_path, r"^ulpsim: error: " + r"[\s\S]*" + message, "--hw", "bad.yaml")


X = np.zeros((4, 1, 28, 28), np.float32)
Y = np.array([1, 2, 3, 4])

ARRAYS = {
    "no x": ({"a": X}, r"data\.npz: holds a; expected x"),
    "nothing": ({}, r"data\.npz: holds nothing; expected x"),
    "scalar x": ({"x": np.float32(1)}, r"x has shape \(\); expected \(N, \.\.\.\)"),
    "one axis": ({"x": X.ravel()}, r"x has shape \(3136,\); expected \(N, \.\.\.\)"),
    "no samples": ({"x": X[:0]}, r"x has shape \(0, 1, 28, 28\); expected \(N, \.\.\.\) with at least one"),
    "wrong shape": ({"x": X[..., 1:]}, r"x of shape \(N, 1, 28, 27\) and float32 does not fit the network Mlp "),
    "wrong size of grey levels": ({"x": np.zeros((4, 9, 9), np.uint8)}, r"x of shape \(N, 1, 9, 9\) .* does not fit"),
    "flat grey levels": ({"x": np.zeros((4, 784), np.uint8)}, r"x of uint8 has shape \(4, 784\); expected grey images"),
    "integers": ({"x": X.astype(int)}, r"x has dtype int64; expected floats, or uint8"),
    "complex": ({"x": X.astype(complex)}, r"x has dtype complex128; expected floats"),
    "text": ({"x": np.full((4, 2), "a")}, r"x has dtype <U1; expected floats"),
    "objects": ({"x": np.full((4, 2), None)}, r"x cannot be read \(.*pickle.*\); expected plain numeric arrays"),
    "NaN": ({"x": X * np.nan}, r"x holds NaN, infinities or numbers beyond float32"),
    "infinity": ({"x": X + np.inf}, r"x holds NaN, infinities or numbers beyond float32"),
    "too large": ({"x": X.astype(float) + 1e300}, r"x holds NaN, infinities or numbers beyond float32"),
    "fewer labels": ({"x": X, "y": Y[:3]}, r"y is int64 of shape \(3,\); expected integer classes of shape \(4,\)"),
    "labels in two axes": ({"x": X, "y": Y[:, None]}, r"y has shape \(4, 1\), and Mlp returns \(1, 10\) .* \(4,\)"),
    "labels as floats": ({"x": X, "y": Y / 2}, r"y is float64 of shape \(4,\); expected integer classes"),
    "negative class": ({"x": X, "y": Y - 2}, r"y holds -1; expected classes from 0"),
    "class beyond": ({"x": X, "y": Y + 6}, r"y holds class 10, and Mlp has 10 outputs; expected classes 0 to 9"),
    "huge class": ({"x": X, "y": np.full(4, 2**64 - 1, np.uint64)}, r"y holds 18446744073709551615; expected classes"),
}  # fmt: skip


@pytest.mark.parametrize("arrays, message", ARRAYS.values(), ids=ARRAYS)
def test_data_that_does_not_fit(command, tmp_path, arrays, message):
    np.savez(tmp_path / "data.npz", **arrays)
    err = refused(command, tmp_path, r"^ulpsim: error: data\.npz: .*", "--hw", "npu", "--data", "data.npz")
    assert re.search(message, err)
    assert err.count("\n") == 1


def test_a_single_image_is_not_a_batch(command, tmp_path):
    np.savez(tmp_path / "data.npz", x=X[:, 0])
    refused(
        command, tmp_path, r"does not fit the network LeNet5", "--hw", "npu", "--data", "data.npz", "--model", "cnn"
    )


def truncated(path):
    np.savez(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:-200])


def damaged(path):
    np.savez_compressed(path, x=np.random.default_rng(0).standard_normal(X.shape), y=Y)
    content = bytearray(path.read_bytes())
    content[1000:1100] = bytes(100)
    path.write_bytes(content)


def not_arrays(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "hello")


def lying_header(path):
    with zipfile.ZipFile(path, "w") as archive:
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (4, 100000000000000), }\n"
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)


KINDS = {
    "text": (
        lambda path: path.write_text("hello"),
        "cannot be read as .npz (File is not a zip file); expected a file as numpy.savez",
    ),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"x": 1})), "cannot be read as .npz"),
    "npy": (lambda path: np.save(path.open("wb"), X), "a single array; expected an .npz file"),
    "truncated": (truncated, "cannot be read"),
    "damaged": (damaged, "cannot be read"),
    "zip of something else": (not_arrays, "x cannot be read"),
    "header that lies": (lying_header, "x of shape (4, 100000000000000) and float32: 1455 TiB"),
}


@pytest.mark.parametrize("write, message", KINDS.values(), ids=KINDS)
def test_data_of_another_kind(command, tmp_path, write, message):
    write(tmp_path / "data.npz")
    err = refused(command, tmp_path, r"^ulpsim: error: data\.npz: ", "--hw", "npu", "--data", "data.npz")
    assert message in err and err.count("\n") == 1


def test_out_is_not_to_be_replaced(command, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    for out, message in [
        ("file", "file: found a file"), ("full", "full: found thesis.tex"), (".", "current directory"),
        ("file/below", "is a file"),
    ]:  # fmt: skip
        refused(command, tmp_path, message, "--hw", "npu", "--samples", 1, "--out", out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_out_cannot_be_written(command, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    refused(command, tmp_path, "cannot be written to", "--hw", "npu", "--samples", 1, "--out", "locked/out")


def test_a_failure_leaves_the_earlier_results(command, tmp_path, monkeypatch):
    assert command("--hw", "npu", "--samples", 1)[0] == 0
    refused(command, tmp_path, "--samples: got 0", "--hw", "npu", "--samples", 0)
    monkeypatch.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    refused(command, tmp_path, "No space left on device", "--hw", "npu", "--samples", 1)


def test_torch_is_missing(command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    for name in [name for name in sys.modules if name.startswith(("simulator.network", "simulator.run"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(simulator, "network")
    refused(command, tmp_path, r"networks need torch; install it with: pip install 'ulpsim\[torch\]'", "--hw", "npu")


def test_a_fault_of_ours_shows_itself(command, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("ours")

    monkeypatch.setattr(simulator.run, "run", fail)
    with pytest.raises(AssertionError, match="ours"):
        command("--hw", "npu")


# --- interruptions and readers, in processes of their own -----------------------------------------------------------


def test_an_interruption_in_the_middle(command, monkeypatch, tmp_path):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(simulator.run, "run", interrupt)
    assert command("--hw", "npu") == (130, "", "ulpsim: interrupted; no results were written\n")
    assert list(tmp_path.iterdir()) == []


# A machine on which a batch of eight digits takes a while, and signals that come as in a terminal.
SLOW = """
import signal, sys
from simulator import __main__ as command_line
from simulator.network import evaluation

evaluation.OUTPUTS_PER_BATCH = 8 * 922
forward, batches = evaluation._Pass.forward, []

def signalled(self, *given):
    outputs = forward(self, *given)
    if self.mode == "low":
        batches.append(len(outputs))
        for _ in range(SIGNALS.get(len(batches), 0)):
            signal.raise_signal(signal.NUMBER)
    return outputs

evaluation._Pass.forward = signalled
command_line.main()
"""


def signalled(tmp_path, signals, *options, number="SIGINT"):
    """Run 60 digits in batches of 8 with signals sent to the process in some of them."""
    script = tmp_path / "slow.py"
    script.write_text(SLOW.replace("SIGNALS", repr(signals)).replace("NUMBER", number))
    job = subprocess.run(
        [sys.executable, script, "--hw", "npu", "--samples", "60", "--out", tmp_path / "out", *options],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, capture_output=True, timeout=120,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # the tests may run in the background
    )  # fmt: skip
    assert "Traceback" not in job.stderr
    return job


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_keeps_the_batches_that_it_finished(tmp_path, number):
    job = signalled(tmp_path, {3: 1}, number=number)
    assert job.returncode == 130, job.stderr
    assert job.stderr == "ulpsim: interrupted; the batch is being finished, once more stops at once\n"
    assert "mlp on npu · incomplete: 24 samples" in job.stdout
    assert "interrupted after 24 of 60 samples" in job.stdout
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (record["complete"], record["samples"]) == (False, 24)
    assert all(layer["m"] == 24 for layer in record["layers"])
    assert record["warnings"][0] == "interrupted after 24 of 60 samples: all figures are of these"
    whole = simulator.run.run("npu", samples=24).to_dict()
    for values in (*record["metrics"].values(), *whole["metrics"].values()):
        del values["float32"]  # whose last bits depend on the batches
    assert record["metrics"] == whole["metrics"] and record["totals"] == whole["totals"]


def test_an_interrupted_run_prints_its_record(tmp_path):
    job = signalled(tmp_path, {2: 1}, "--json")
    assert job.returncode == 130
    assert json.loads(job.stdout)["samples"] == 16


@pytest.mark.parametrize("signals", [{1: 1}, {3: 2}])
def test_before_the_first_batch_is_done_or_asked_again_a_run_stops_at_once(tmp_path, signals):
    job = signalled(tmp_path, signals)
    assert (job.returncode, job.stdout) == (130, "")
    assert job.stderr.endswith("ulpsim: interrupted; no results were written\n")
    assert not (tmp_path / "out").exists()


def test_an_interruption_in_the_last_batch_leaves_a_complete_run(tmp_path):
    job = signalled(tmp_path, {8: 1})
    assert job.returncode == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["complete"] is True


def test_a_signal_from_outside(tmp_path):
    script, marker = tmp_path / "slow.py", tmp_path / "marker"
    waits = f"import pathlib, time\n            marker = pathlib.Path({str(marker)!r})\n            marker.touch()\n"
    waits += "            while marker.exists():\n                time.sleep(0.01)"
    script.write_text(SLOW.replace("SIGNALS", "{2: 1}").replace("signal.raise_signal(signal.NUMBER)", waits))
    job = subprocess.Popen(
        [sys.executable, script, "--hw", "npu", "--samples", "60"], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not marker.exists():
        assert job.poll() is None, job.communicate()
        time.sleep(0.01)
    job.send_signal(signal.SIGINT)
    marker.unlink()
    out, err = job.communicate(timeout=60)
    assert job.returncode == 130 and "interrupted after 16 of 60 samples" in out, err


@pytest.mark.full
def test_a_signal_from_outside_at_any_time(tmp_path):
    for wait in (0.2, 1.0, 2.0, 4.0):
        job = process(
            "--hw", "npu", "--model", "cnn", "--out", f"out{wait}", cwd=tmp_path,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        time.sleep(wait)
        job.send_signal(signal.SIGINT)
        out, err = job.communicate(timeout=60)
        where = tmp_path / f"out{wait}"
        if job.returncode == 130 and out:
            assert json.loads((where / "summary.json").read_text())["complete"] is False
        elif wait >= 1 and job.returncode:  # a fast machine may have been done
            assert (out, where.exists()) == ("", False)
            if job.returncode != -signal.SIGINT:  # on a busy machine Python itself may not have begun yet
                assert job.returncode == 130 and "Traceback" not in err


@pytest.mark.parametrize("options", [(), pytest.param(("--json",), marks=pytest.mark.full)])
def test_a_reader_that_goes_early(tmp_path, options):
    job = process("--hw", "npu", "--samples", 1, *options, cwd=tmp_path)
    job.stdout.close()
    _, err = job.communicate(timeout=120)
    assert (job.returncode, err) == (0, "")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES


def test_the_command_line_as_it_is_typed(tmp_path):
    arguments = ("--hw", "hwconfigs/npu.yaml", "--samples", 2, "--out", tmp_path / "out")
    job = process(*arguments, cwd=ROOT, env={"NO_COLOR": "1"})
    out, err = job.communicate(timeout=120)
    assert (job.returncode, err) == (0, "")
    assert "uniform low" in out and "\x1b" not in out
