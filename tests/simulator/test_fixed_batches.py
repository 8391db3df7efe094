"""Networks that take a fixed number of samples: every analysis runs them so, and finds what it finds of free ones."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

from simulator.bounds import certify, required_precision  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.hardware import load_hardware  # noqa: E402
from simulator.network.condition_numbers import condition_numbers  # noqa: E402
from simulator.network.model_files import load_model  # noqa: E402
from simulator.network.products import operations  # noqa: E402
from simulator.network.samples import load_samples  # noqa: E402
from simulator.network.static_plan import static_plan  # noqa: E402
from simulator.training import fit  # noqa: E402
from tests.simulator.onnx_models import array, floats, model, node, saved  # noqa: E402

SIZE = 4  # samples that the fixed network takes at a time
FREE, FIXED = "free.onnx", "fixed.onnx"


def perceptron(batch):
    """A model of two layers, (batch, 6) to (batch, 3), of operators that any process knows."""
    rng = np.random.default_rng(3)
    shapes = {"w1": (6, 8), "b1": (8,), "w2": (8, 3), "b2": (3,)}
    return model(
        [node("Gemm", "x w1 b1", "hidden"), node("Relu", "hidden", "active"), node("Gemm", "active w2 b2", "y")],
        [floats("x", batch, 6)], [floats("y", batch, 3)],
        [array(name, rng.normal(size=shape)) for name, shape in shapes.items()],
    )  # fmt: skip


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The same network twice, with 24 samples and with 10, which fill no whole batches."""
    monkeypatch.chdir(tmp_path)
    saved(perceptron("N"), tmp_path / FREE)
    saved(perceptron(SIZE), tmp_path / FIXED)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(24, 6)).astype(np.float32)
    y = rng.integers(0, 3, 24)
    np.savez("data.npz", x=x, y=y)
    np.savez("ten.npz", x=x[:10], y=y[:10])
    return tmp_path


def both(files):
    return load_model(FREE), load_model(FIXED), load_samples("data.npz", None, load_model(FREE))


@pytest.mark.parametrize("options", [{"precision": 5}, {"precision": 5, "every": True}, {"failure": 0.01}])
def test_bounds_are_those_of_a_free_network(files, options):
    free, fixed, samples = both(files)
    wanted, found = (certify(network, samples.x, **options) for network in (free, fixed))
    if "failure" in options:  # it is shared by the samples of a pass, and their bounds are somewhat wider
        assert (found.bound >= wanted.bound).all() and (found.bound <= 1.2 * wanted.bound).all()
        return
    assert 0 < np.sum(found.certified) < 24
    assert found.method == wanted.method and ("every" in options or len(set(found.method)) > 1)
    np.testing.assert_array_equal(found.certified, wanted.certified)
    np.testing.assert_allclose(found.bound, wanted.bound, rtol=1e-9)


def test_required_precision_is_that_of_a_free_network(files):
    free, fixed, samples = both(files)
    wanted, found = (required_precision(network, samples.x, confidence=0.6) for network in (free, fixed))
    assert len(set(found.bits)) > 1
    np.testing.assert_array_equal(found.bits, wanted.bits)
    np.testing.assert_array_equal(found.confidence_bits, wanted.confidence_bits)


def test_bounds_of_part_of_a_batch_are_refused(files):
    with pytest.raises(InputError, match=r"bounds: x: 10 samples; expected a multiple of 4.*give 8 of them"):
        certify(load_model(FIXED), np.load("ten.npz")["x"])


def test_a_certificate_has_one_batch(files, command):
    own = ("--model", FIXED, "--data", "data.npz", "--precision", "12", "--certificate", "c.json")
    code, _, error = command("bounds", *own)
    assert code == 2 and "expected 4, as many as fixed takes at a time; give that many, e.g. --samples 4" in error
    code, _, error = command("bounds", *own, "--samples", "4")
    assert code == 0, error
    code, output, error = command("bounds", "check", "c.json", "--model", FIXED, "--data", "data.npz", "--samples", "4")
    assert code == 0 and "holds" in output, error


@pytest.mark.parametrize("train", [(), ("--train", "7")])
def test_it_is_tracked_in_its_batches(files, command, train):
    batch = str(SIZE)
    found = []
    for name, own in ((FREE, ("--batch-size", batch)), (FIXED, ()), (FIXED, ("--batch-size", batch))):
        code, output, error = command("track", "--model", name, "--data", "data.npz", *train, *own, "--json")
        assert code == 0, error
        record = json.loads(output)
        steps = [{key: of for key, of in step.items() if "seconds" not in key} for step in record["steps"]]
        found.append({**record, "model": "", "steps": steps})
    assert found[0] == found[1] == found[2]
    code, _, error = command("track", "--model", FIXED, "--data", "data.npz", "--batch-size", "3", *train)
    assert code == 2 and "track: --batch-size: got 3; expected 4, as many samples as fixed takes at a time" in error


def test_it_is_trained_in_its_batches(files, command):
    free, fixed, samples = both(files)
    for network in (free, fixed):
        network.requires_grad_(True)
    data = samples.x, samples.y
    wanted = fit(free, data, storage="e8m6", epochs=2, batch_size=SIZE, lr=0.05)
    found = fit(fixed, data, storage="e8m6", epochs=2, lr=0.05)
    assert [epoch.loss for epoch in found.epochs] == [epoch.loss for epoch in wanted.epochs]
    assert found.accuracy == wanted.accuracy
    with pytest.raises(InputError, match="fit: batch_size: got 8; expected 4"):
        fit(fixed, data, storage="e8m6", batch_size=8)
    with pytest.raises(InputError, match="fit: data: 10 samples; expected a multiple of 4"):
        fit(fixed, (samples.x[:10], samples.y[:10]), storage="e8m6", test=data)
    # A share of 0.2 would be 4.8 samples.
    code, output, error = command(
        "train", "--model", FIXED, "--data", "data.npz", "--storage", "e8m6", "--epochs", "1", "--json"
    )
    assert code == 0, error
    record = json.loads(output)
    assert (record["samples"], record["tested"], record["batch_size"]) == (20, 4, SIZE)


def test_plans_condition_numbers_and_bills_are_those_of_a_free_network(files):
    free, fixed, samples = both(files)
    args, kwargs = samples.batch(slice(None))
    machine = load_hardware("npu")
    assert operations(fixed, samples) == operations(free, samples)
    wanted, found = (condition_numbers(network, machine, args, kwargs) for network in (free, fixed))
    assert [one.layer for one in found] == [one.layer for one in wanted] and found[0].outputs == wanted[0].outputs
    assert found[0].numerator == pytest.approx(wanted[0].numerator, rel=1e-12)
    plans = [static_plan(network, machine, *args, **kwargs, quantile=0.5, tolerance=0.4) for network in (free, fixed)]
    assert plans[0].layers == plans[1].layers and any(one.high for one in plans[1].layers.values())


@pytest.mark.full
def test_a_study_and_a_sweep_run_it_in_its_batches(files, command):
    rows = {}
    for name in (FREE, FIXED):
        code, _, error = command(
            "study", "two-pass", "--hw", "npu", "--model", name, "--data", "data.npz", "--calibration", "8",
            "--scores", "kappa_prime", "--tolerances", "0.5", "--out", f"study-{name}",
        )  # fmt: skip
        assert code == 0, error
        study = json.loads((files / f"study-{name}" / "study.json").read_text())
        rows[name] = [
            (row["score"], row["logit_error_rms"], row["recomputed_macs_fraction"])
            for row in study["points"] if row["score"] != "static"
        ]  # fmt: skip
        assert study["samples"] == 16
    assert rows[FREE] == rows[FIXED]


def test_calibration_takes_whole_batches(files, command):
    code, _, error = command(
        "study", "two-pass", "--hw", "npu", "--model", FIXED, "--data", "data.npz", "--calibration", "6", "--out", "no"
    )
    assert code == 2 and "calibration: 6 samples; expected a multiple of 4" in error and "--calibration 4" in error


# --- defaults that are more than there is -----------------------------------------------------------------------------


def test_a_default_number_of_samples_is_at_most_what_there_is(files, command):
    for name, data, count in ((FREE, "ten.npz", 10), (FIXED, "data.npz", 24)):
        code, output, error = command("bounds", "--model", name, "--data", data, "--json")
        assert code == 0 and len(json.loads(output)["samples"]) == count, error
        code, output, error = command("track", "--model", name, "--data", data, "--train", "1", "--json")
        assert code == 0 and json.loads(output)["training"]["batch"] == (10 if name == FREE else SIZE), error
        plan = ("plan", "--hw", "npu", "--model", name, "--data", data, "--budget", "0.2", "--out", "plan.json")
        code, output, error = command(*plan)
        assert code == 0 and f"on {count} samples" in output, error
    code, _, error = command("bounds", "--model", FREE, "--data", "ten.npz", "--samples", "100")
    assert code == 2 and "--samples: got 100; expected 1 to 10" in error


def test_a_default_of_samples_that_calibrate_is_at_most_half(files, command):
    code, _, error = command(
        "study", "two-pass", "--hw", "npu", "--model", FREE, "--data", "ten.npz", "--scores", "kappa_prime",
        "--tolerances", "0.5", "--no-controls", "--no-static", "--out", "study",
    )  # fmt: skip
    assert code == 0, error
    study = json.loads((files / "study" / "study.json").read_text())
    assert (study["calibration"], study["samples"]) == (5, 5)
