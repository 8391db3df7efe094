"""Whole networks under the tap: nothing is missed, torch's own bits where nothing is emulated, results close to it."""

import sys
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import simulator  # noqa: E402
from simulator.run import run  # noqa: E402
from tests.oracles.networks import Recurrent, Transformer, resnet18  # noqa: E402

SEED = 500


def rand(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(SEED))


# Of each the network, its input, how many Ops it has, and their multiply-accumulates, counted by hand.
def resnet_macs(width, size, classes):
    at = -(-size // 2)
    macs, at = at**2 * width * 3 * 49, -(-at // 2)
    for stage in range(4):
        outputs, inputs = width << stage, width << stage >> bool(stage)
        at = at if stage == 0 else -(-at // 2)
        macs += at**2 * 9 * (inputs * outputs + 3 * outputs**2) + (at**2 * inputs * outputs if stage else 0)
    return macs + (width << 3) * classes


def transformer_macs(samples, length, width, tokens):
    layer = samples * length * width * (3 * width + width + 8 * width) + 2 * samples * length**2 * width
    return 2 * layer + samples * length * width * tokens


NETWORKS = {
    "resnet": (lambda: resnet18(8, 10), lambda: rand(1, 3, 40, 40), 21, resnet_macs(8, 40, 10)),
    "transformer": (Transformer, lambda: torch.arange(24).reshape(2, 12) % 50, 13, transformer_macs(2, 12, 32, 50)),
    "lstm": (Recurrent, lambda: rand(3, 6, 8), 5, 3 * 6 * 4 * 16 * (8 + 16 + 16 + 16) + 3 * 16 * 5),
}

in_each_network = pytest.mark.parametrize("build, make, ops, macs", NETWORKS.values(), ids=NETWORKS)


def emulated(model, x, arithmetic):
    with torch.no_grad(), simulator.emulate(model, "npu", layers={"*": arithmetic}) as run:
        output = model(x)
    return output, run.result


@in_each_network
def test_every_product_is_emulated(build, make, ops, macs):
    _, result = emulated(build(), make(), "exact")
    assert len(result.layers) == ops
    assert sum(layer.macs for layer in result.layers) == macs
    assert not any("not emulated" in warning for warning in result.warnings)


@in_each_network
def test_float32_changes_no_bit(build, make, ops, macs):
    model, x = build(), make()
    for module in model.modules():
        module.register_forward_hook(lambda *_: None)  # any hook keeps torch from its fused layers of transformers
    with torch.no_grad():
        wanted = model(x)
    output, result = emulated(model, x, "float32")
    assert torch.equal(output, wanted)
    assert {layer.mac for layer in result.layers} <= {"float32"}


@in_each_network
def test_wider_sums_come_closer(build, make, ops, macs):
    """Errors of exact products of float32 are those of torch; of fp8 operands they dwarf those of 16-bit sums."""
    model, x = build(), make()
    with torch.no_grad():
        wanted = model(x)
    errors = [
        float((emulated(model, x, arithmetic)[0] - wanted).abs().max() / wanted.abs().max())
        for arithmetic in ("exact(fp32)", "fp16 -> fma(fp32)", "fp16 -> fma(bf16)", "fp8_e4m3 -> fma(fp8_e4m3/sat)")
    ]
    assert errors == sorted(errors)
    assert errors[0] < 1e-5 and errors[1] < 1e-2


@pytest.mark.full
def test_a_resnet_at_full_size():
    model, x = resnet18(), rand(1, 3, 224, 224)
    output, result = emulated(model, x, "fp8_e4m3 -> fma(fp16)")
    assert sum(layer.macs for layer in result.layers) == resnet_macs(64, 224, 1000) == 1814073344
    assert isinstance(model[0], nn.Conv2d) and output.shape == (1, 1000)
    assert not any("not emulated" in warning for warning in result.warnings)


# --- a network that another library trained ------------------------------------------------------------------------

TRAINING = 1200  # of scikit-learn's 1,797 digits, 8 x 8 pixels


@pytest.fixture(scope="module")
def trained():
    """A multilayer perceptron of scikit-learn's, and the digits that it has not seen, as float32."""
    datasets = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn")
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    x, y = datasets.load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)  # exact: grey levels are 0 to 16
    classifier = MLPClassifier((32,), learning_rate_init=0.005, max_iter=40, random_state=0)
    with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):  # 40 epochs are a third of a second
        classifier.fit(x[:TRAINING], y[:TRAINING])
    return classifier, x[TRAINING:], y[TRAINING:]


def perceptron():
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def weights_of(classifier):
    """Its weights by the names of torch's layers."""
    layers = zip((0, 2), classifier.coefs_, classifier.intercepts_, strict=True)
    return {
        f"{layer}.{name}": torch.from_numpy(np.ascontiguousarray(values, np.float32))
        for layer, weight, bias in layers
        for name, values in (("weight", weight.T), ("bias", bias))
    }


def test_exact_sums_classify_as_scikit_learn_does(trained):
    classifier, x, _ = trained
    model = perceptron()
    model.load_state_dict(weights_of(classifier))
    logits, _ = emulated(model.eval(), torch.from_numpy(x), "exact(fp32)")
    different = logits.argmax(1).numpy() != classifier.predict(x)
    assert np.count_nonzero(different) <= 1  # in case two of its float64 logits are one in float32
    assert np.allclose(logits.softmax(1).numpy(), classifier.predict_proba(x), atol=1e-4)


def test_the_main_job_on_a_network_from_scikit_learn(trained, tmp_path, monkeypatch):
    """From files, as a user has them: fp8 sums cost accuracy, 16-bit ones nearly none, and two passes lie between."""
    classifier, x, y = trained
    (tmp_path / "perceptron_of_digits.py").write_text(
        "from torch import nn\n\nnet = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))\n"
    )
    torch.save(weights_of(classifier), tmp_path / "weights.pt")
    np.savez(tmp_path / "digits.npz", x=x, y=y)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    result = run("npu", "perceptron_of_digits:net", "digits.npz", weights="weights.pt")
    assert [(layer.name, layer.m, layer.n, layer.k) for layer in result.layers] == [
        ("0", len(x), 32, 64), ("2", len(x), 10, 32),
    ]  # fmt: skip
    errors, accuracy = result.forward_error, result.accuracy
    assert 0 == errors["exact"] < errors["high"] < errors["two_pass"] < errors["low"]
    # All modes have fp8 operands, which alone may turn a few answers; of 597 digits one in a hundred is six.
    assert abs(accuracy["exact"] - classifier.score(x, y)) < 0.02
    assert abs(accuracy["high"] - accuracy["exact"]) < 0.01
    assert accuracy["exact"] - 0.05 < accuracy["low"] and accuracy["exact"] - 0.05 < accuracy["two_pass"]
    assert result.agreement["high"] > max(result.agreement["low"], result.agreement["two_pass"]) > 0.9
