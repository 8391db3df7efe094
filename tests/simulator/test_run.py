"""The main job: a complete record, the same for any batches and threads, and a tolerance that moves along the curve."""

import math
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from simulator.errors import InputError  # noqa: E402
from simulator.hardware import load_hardware  # noqa: E402
from simulator.network import bundled, evaluation  # noqa: E402
from simulator.network.condition_numbers import condition_numbers  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from simulator.network.relative_errors import RelativeErrors  # noqa: E402
from simulator.result import MODES  # noqa: E402
from simulator.run import run  # noqa: E402

ONE_MAC = """
schema: 1
name: one
technology: {frequency: "1 GHz", table: jouppi2021_7nm}
array: {rows: 16, columns: 16, dataflow: ws}
mac:
  low: {operands: fp8_e4m3/sat, accumulator: fma(fp16/sat)}
"""
UNIFORM = ONE_MAC + '  high: {operands: fp8_e4m3/sat, accumulator: "fma(fp32)"}\npolicy: {kind: uniform}\n'


def emulated(record):
    metrics = {name: {mode: by_mode[mode] for mode in MODES} for name, by_mode in record.metrics.items()}
    return replace(record, operations=(), metrics=metrics)


@pytest.fixture
def one_mac(tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(ONE_MAC)
    return str(path)


@pytest.fixture
def uniform(tmp_path):
    path = tmp_path / "uniform.yaml"
    path.write_text(UNIFORM)
    return str(path)


@pytest.fixture(scope="module")
def few():
    """40 digits on the NPU."""
    return run("npu", samples=40)


# --- the record ------------------------------------------------------------------------


def test_the_record_is_complete(few):
    record = few.to_dict()
    assert (record["hardware"], record["model"], record["samples"], record["seed"]) == ("npu", "mlp", 40, 0)
    for key in ("accuracy", "agreement", "forward_error"):
        assert set(record[key]) == set(MODES)
    assert set(record["totals"]) == {"low", "high", "two_pass"}
    for total in record["totals"].values():
        assert {"cycles", "latency_s", "energy_j", "accumulation_cost"} <= set(total)
        assert all(math.isfinite(value) and value > 0 for value in total.values())
    assert [layer["name"] for layer in record["layers"]] == ["fc1", "fc2", "fc3"]
    for layer, (n, k), activation in zip(
        record["layers"], ((784, 784), (128, 784), (10, 128)), ("relu", "relu", "identity"), strict=True
    ):
        assert (layer["op"], layer["m"], layer["n"], layer["k"], layer["gemms"]) == ("linear", 40, n, k, 1)
        assert layer["macs"] == 40 * n * k
        assert layer["activation"] == activation
        assert 0 < layer["recomputed_outputs"] < 40 * n
        assert layer["recomputed_macs"] == layer["recomputed_outputs"] * k
        assert layer["cycles"] == sum(layer["cycle_parts"].values())
        assert layer["energy_j"] == pytest.approx(sum(layer["energy_parts_j"].values()), rel=1e-12)
        assert 0 < layer["utilisation"] <= 1
        assert 0 < layer["median_rel_error"] < layer["mean_rel_error"] < layer["max_rel_error"]
        assert 10 < layer["sqnr_db"] < 40
        assert layer["overflows"] == 0
    assert record["warnings"] == ()
    assert {"ulpsim", "python", "numpy", "torch"} <= set(record["versions"])
    assert record["tolerance"] == 0.5


def test_totals_are_the_sums_over_the_layers(few):
    layers = {"two_pass": few.layers, **few.baseline_layers}
    for mode, total in few.totals.items():
        for key in ("cycles", "latency_s", "energy_j"):
            beside = sum(getattr(one, key) for one in few.operations if one.unit != "MAC array")  # relus, in any mode
            whole = sum(getattr(layer, key) for layer in layers[mode]) + beside
            assert total[key] == pytest.approx(whole, rel=1e-12)
            assert total[f"vector_{key}"] == pytest.approx(beside, rel=1e-12)
    share = sum(layer.recomputed_macs for layer in few.layers) / sum(layer.macs for layer in few.layers)
    assert few.totals["low"]["accumulation_cost"] == 0.5
    assert few.totals["high"]["accumulation_cost"] == 1.0
    assert few.totals["two_pass"]["accumulation_cost"] == 0.5 + share
    for layers_of_mode in few.baseline_layers.values():
        assert all(layer.recomputed_outputs == 0 for layer in layers_of_mode)


def test_accuracy_and_errors_are_those_of_each_mode_alone(few):
    machine, model = load_hardware("npu"), bundled.load("mlp")
    x, y = (tensor[:40] for tensor in bundled.digits())
    logits = {}
    for mode in MODES:
        with torch.no_grad(), Emulation(model, machine, default=mode):
            logits[mode] = model(x).double()
    for mode, values in logits.items():
        assert few.accuracy[mode] == np.mean((values.argmax(1) == y).numpy())
        assert few.agreement[mode] == np.mean((values.argmax(1) == logits["exact"].argmax(1)).numpy())
        wanted = float((values - logits["exact"]).square().mean().sqrt())
        assert few.forward_error[mode] == pytest.approx(wanted, rel=1e-14)
    assert few.forward_error["exact"] == 0
    assert few.agreement["exact"] == 1
    assert few.forward_error["low"] > few.forward_error["two_pass"] > few.forward_error["high"] > 0


def test_layer_errors_are_relative_to_the_exact_run(few):
    machine, model = load_hardware("npu"), bundled.load("mlp")
    x, kept = bundled.digits()[0][:40], {}
    for mode in ("exact", "two_pass"):
        kept[mode] = {}
        with (
            torch.no_grad(),
            Emulation(
                model,
                machine,
                default=mode,
                observers=(lambda op, out, _, mode=mode: kept[mode].update({op.name: out.copy()}),),
            ),
        ):
            model(x)
    for layer in few.layers:
        exact = kept["exact"][layer.name].astype(np.float64)
        errors = np.abs(kept["two_pass"][layer.name] - exact)[exact != 0] / np.abs(exact[exact != 0])
        assert layer.max_rel_error == errors.max()
        assert layer.mean_rel_error == pytest.approx(errors.mean(), rel=1e-12)
        assert layer.median_rel_error == pytest.approx(np.sort(errors)[(errors.size - 1) // 2], rel=2**-12)
        noise = np.square(kept["two_pass"][layer.name] - exact).sum()
        assert layer.sqnr_db == pytest.approx(10 * np.log10(np.square(exact).sum() / noise), rel=1e-12)


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_batches_and_threads_change_nothing(model, monkeypatch):
    wanted = run("npu", model, samples=20, threads=1)
    assert run("npu", model, samples=20, threads=3) == wanted
    monkeypatch.setattr(evaluation, "OUTPUTS_PER_BATCH", 3 * sum(layer.m * layer.n // 20 for layer in wanted.layers))
    sizes = []
    found = run("npu", model, samples=20, progress=lambda done, total: sizes.append((done, total)))
    # What ran how often depends on the batches, and the last bits of torch's own run, and nothing else.
    assert emulated(found) == emulated(wanted)
    assert [o.work for o in found.operations] == [o.work for o in wanted.operations]
    assert sizes == [(i / 4, 20) for i in (*range(3, 73, 3), *range(74, 81, 2))]


def test_more_samples_contain_fewer(few):
    first = run("npu", samples=1)
    assert first.samples == 1 and first.layers[0].m == 1
    assert all(a.recomputed_outputs <= b.recomputed_outputs for a, b in zip(first.layers, few.layers, strict=True))


def test_convolutions_are_run_and_priced():
    result = run("npu", "cnn", samples=10)
    assert [(layer.name, layer.op, layer.m, layer.n, layer.k) for layer in result.layers] == [
        ("conv1", "conv2d", 10 * 784, 6, 25), ("conv2", "conv2d", 10 * 100, 16, 150), ("fc1", "linear", 10, 120, 400),
        ("fc2", "linear", 10, 84, 120), ("fc3", "linear", 10, 10, 84),
    ]  # fmt: skip
    assert [layer.activation for layer in result.layers] == ["relu"] * 4 + ["identity"]
    assert all(layer.cycles > 0 for layer in result.layers)


# --- data ------------------------------------------------------------------------


def saved(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_without_labels_there_is_agreement_but_no_accuracy(tmp_path, few):
    x = bundled.digits()[0][:40].numpy()
    result = run("npu", data=saved(tmp_path / "x.npz", x=x))
    assert result.accuracy is None
    assert few.metrics.keys() - result.metrics.keys() == {"top1", "top5", "perplexity"}
    assert result == replace(few, accuracy=None, metrics=result.metrics)


def test_grey_levels_are_normalised_as_the_bundled_digits_are(tmp_path, few):
    with np.load(bundled.DATA / "digits1500.npz") as data:
        x, y = data["x"][:40], data["y"][:40]
    assert run("npu", data=saved(tmp_path / "grey.npz", x=x, y=y)) == few
    assert run("npu", data=saved(tmp_path / "channel.npz", x=x[:, None], y=y.astype(np.int16))) == few


@pytest.mark.parametrize("dtype", [np.float64, ">f4"])
def test_floats_of_other_types_are_taken(tmp_path, few, dtype):
    x, y = (tensor[:40].numpy() for tensor in bundled.digits())
    assert run("npu", data=saved(tmp_path / "x.npz", x=x.astype(dtype), y=y)) == few


# --- machines ------------------------------------------------------------------------


def test_a_machine_with_one_mac_has_low_only(one_mac):
    result = run(one_mac, samples=20)
    for values in (result.accuracy, result.agreement, result.forward_error):
        assert values["exact"] is not None and values["low"] is not None
        assert values["high"] is None and values["two_pass"] is None
    assert result.totals["high"] is None and result.totals["two_pass"] is None
    assert result.totals["low"]["accumulation_cost"] == 1.0
    assert result.tolerance is None
    assert all(layer.recomputed_outputs == 0 and layer.cycles > 0 for layer in result.layers)
    assert result.layers == result.baseline_layers["low"]
    assert [layer.mac for layer in result.layers] == [str(load_hardware(one_mac).mac.low.spec)] * 3


def test_a_machine_with_a_uniform_policy_has_low_and_high(uniform):
    result = run(uniform, samples=20)
    assert result.totals["two_pass"] is None and result.forward_error["two_pass"] is None
    assert result.totals["low"]["accumulation_cost"] == 0.5
    assert result.forward_error["high"] < result.forward_error["low"]
    assert result.layers == result.baseline_layers["low"]


def test_a_tolerance_needs_a_policy(one_mac):
    with pytest.raises(InputError, match=r"got tolerance 0.3 for a machine without a two-pass policy"):
        run(one_mac, samples=1, tolerance=0.3)


# --- the curve ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def curve():
    """300 digits at tolerances from loose to strict."""
    return [run("npu", samples=300, tolerance=t) for t in (math.inf, 1.0, 0.3, 0.1, 0.0)]


def test_the_tolerance_trades_cost_for_error(curve):
    costs = [result.totals["two_pass"]["accumulation_cost"] for result in curve]
    errors = [result.forward_error["two_pass"] for result in curve]
    assert costs == sorted(costs) and len(set(costs)) == len(costs)
    assert errors == sorted(errors, reverse=True)
    assert costs[0] == 0.5  # nothing is recomputed
    assert errors[0] == curve[0].forward_error["low"]
    baselines = [(r.forward_error["low"], r.forward_error["high"], r.forward_error["exact"]) for r in curve]
    assert len(set(baselines)) == 1


def test_a_tolerance_of_zero_recomputes_all_but_the_negative(curve):
    layers = curve[-1].layers
    assert layers[2].recomputed_outputs == 300 * 10  # identity: all
    assert all(0 < layer.recomputed_outputs < 300 * layer.n for layer in layers[:2])  # ReLU keeps negative ones


def test_the_bundled_network_is_much_better_than_uniform_low_at_less_than_the_cost_of_high():
    """An acceptance line of the main job, on all 1,500 digits."""
    result = run("npu", tolerance=0.3)
    assert result.samples == 1500
    assert result.forward_error["two_pass"] <= 0.8 * result.forward_error["low"]
    assert result.totals["two_pass"]["accumulation_cost"] < 1


# --- errors in bounded memory ------------------------------------------------------------------------


def tallied(*pairs):
    errors = RelativeErrors()
    for values, exact in pairs:
        errors.add(np.asarray(values, np.float32), np.asarray(exact, np.float64))
    return errors.summary()


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 1001])
@pytest.mark.parametrize("spread", [0.1, 20.0])
def test_the_median_is_that_of_the_errors_within_a_bin(size, spread):
    generator = np.random.default_rng(size)
    exact = generator.standard_normal(size)
    values = (exact * (1 + np.exp(spread * generator.standard_normal(size) - 2))).astype(np.float32)
    errors = np.abs(values.astype(np.float64) - exact) / np.abs(exact)
    errors = errors[np.isfinite(errors)]
    largest, mean, median = tallied((values, exact))
    if np.isfinite(values).all():
        assert largest == errors.max() and mean == float(sum(map(Fraction, errors)) / size)
    middle = np.sort(errors)[(size - 1) // 2]
    assert median == pytest.approx(middle, rel=2**-12, abs=1e-38)


def test_relative_errors_of_special_values():
    assert tallied(([0.0], [0.0])) == (None, None, None)  # nothing that could be relative
    assert tallied(([1.0, 5.0], [1.0, 0.0])) == (0.0, 0.0, 0.0)
    assert tallied(([2.0], [1.0]))[0] == 1.0
    assert tallied(([np.nan], [1.0])) == (np.inf, np.inf, np.inf)
    assert tallied(([np.inf, -np.inf], [np.inf, -np.inf])) == (0.0, 0.0, 0.0)
    assert tallied(([1.0], [np.inf])) == (np.inf, np.inf, np.inf)
    assert tallied(([1.0], [np.nan])) == (np.inf, np.inf, np.inf)


def test_relative_errors_do_not_depend_on_the_batches():
    generator = np.random.default_rng(0)
    exact = generator.standard_normal(300).astype(np.float32)
    values = exact * np.exp(30 * generator.standard_normal(300)).astype(np.float32)
    whole = tallied((values, exact))
    for parts in (2, 3, 300):
        assert tallied(*zip(np.split(values, parts), np.split(exact, parts), strict=True)) == whole
    order = generator.permutation(300)
    assert tallied((values[order], exact[order])) == whole
    errors = np.abs(values.astype(np.float64) - exact) / np.abs(exact.astype(np.float64))
    assert whole[1] == float(sum(map(Fraction, errors)) / 300)


def test_operands_that_differ_between_the_modes_are_warned_of(tmp_path):
    text = (Path(__file__).parents[2] / "hwconfigs" / "npu.yaml").read_text()
    low, high = text.split("  high:\n")
    path = tmp_path / "mixed.yaml"
    path.write_text(low + "  high:\n" + high.replace("operands: fp8_e4m3/sat", "operands: fp16", 1))
    warned = [warning for warning in run(str(path), samples=2).warnings if "operands" in warning]
    assert warned == [
        "exact has the operands of the low mode, and those of the high mode differ: "
        "its errors include the difference of the operands"
    ]
    assert not [warning for warning in run("npu", samples=2).warnings if "operands" in warning]


# --- the signal-to-quantisation-noise ratio ---------------------------------------------------------------------------


def sqnr(*pairs):
    errors = RelativeErrors()
    for values, exact in pairs:
        errors.add(np.asarray(values, np.float32), np.asarray(exact, np.float64))
    return errors.sqnr_db


def test_the_sqnr_is_a_ratio_of_sums_and_does_not_depend_on_the_batches():
    assert sqnr(([1.0, 0.1], [1.0, 0.0])) == pytest.approx(20, abs=1e-6)  # outputs that should be 0 count
    generator = np.random.default_rng(0)
    exact = np.exp(20 * generator.standard_normal(300))
    values = (exact * (1 + 0.1 * generator.standard_normal(300))).astype(np.float32)
    whole, order = sqnr((values, exact)), generator.permutation(300)
    noise = np.square(values.astype(np.float64) - exact)
    assert whole == pytest.approx(10 * math.log10(math.fsum(exact**2) / math.fsum(noise)), rel=1e-13)
    assert sqnr((values[order], exact[order])) == whole
    assert sqnr(*zip(np.split(values, 30), np.split(exact, 30), strict=True)) == whole


@pytest.mark.parametrize(
    "values, exact", [([], []), ([1], [1]), ([1], [0]), ([np.nan, 1], [1, 1]), ([1, 1], [np.inf, 1]), ([np.inf], [1])]
)
def test_without_a_ratio_of_two_numbers_there_is_no_sqnr(values, exact):
    assert sqnr((values, exact)) is None


def test_condition_numbers_are_those_of_an_exact_run_of_the_first_samples_whatever_the_batches():
    x, _ = bundled.digits()
    model, machine = bundled.load("mlp"), load_hardware("npu")
    whole = evaluation.evaluate(model, machine, x[:20], conditions=True)
    assert whole.condition_samples == 3 and [one.layer for one in whole.conditions] == ["fc1", "fc2", "fc3"]
    assert list(whole.conditions) == condition_numbers(model.eval(), machine, (x[:3],), {})
    again = evaluation.evaluate(model, machine, x[:20], batch=1, threads=1, conditions=True)
    assert emulated(again) == emulated(whole)
    assert evaluation.evaluate(model, machine, x[:20]).conditions == ()


def test_condition_numbers_have_the_rules_of_layers_and_leave_the_model_as_it_is():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 5), torch.nn.Linear(5, 4)).train()
    state = {name: x.clone() for name, x in model.state_dict().items()}
    record = evaluation.evaluate(model, "npu", torch.randn(8, 6), layers={"2": "float32"}, conditions=True)
    assert [one.layer for one in record.conditions] == ["1"] and model.training
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
