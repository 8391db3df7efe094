"""The bundled networks and digits: what is shipped is what the training script made, and nothing else."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import formats

torch = pytest.importorskip("torch")

from simulator.network import bundled  # noqa: E402  (needs torch)

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "tests" / "data" / "mnist8k.npz"

# SHA-256 of the shipped weights' codes, and how many of the 1,500 test digits they get right in float32.
SHIPPED = {
    "mlp": ("cf5c5bf0ce7eab16bf5ac64505ee146c48dabdc7f3c4ac27da601118bb8a536c", 1460),
    "cnn": ("0796efc8565d587f23b2f3eaad7b913d835b91ff1b591b66d15a3e8500f504f8", 1477),
    "mlp_paper": ("ca53850a836999697dc7ff2c8b804a0e68b2f38eeed97b1205c45edad33331be", 1437),
    "mlp_tanh": ("0779043c7626edf2cbc5c506821eeeb86471c855b74afc44c1bc459ce41952ab", 1449),
    "mlp_deep": ("2e245e6503adbcc9d67a8fa42ac6c49d3b39387a9702c78b92d6d92ebbafe6bd", 1455),
    "transformer": ("6c2d6ad46a10a6b2c3c979ee656a8bf23edeea535f3caba03727486608a7ee28", 1467),
    "cnn_fashion": ("fe4d7f124cf7b23bdd82076069f337811cfb238787beb9e7d6341d3f0063d535", None),  # of other images
}
_MLP = {"fc1.weight": (784, 784), "fc2.weight": (128, 784), "fc3.weight": (10, 128)}
_LENET = {
    "conv1.weight": (6, 1, 5, 5),
    "conv2.weight": (16, 6, 5, 5),
    "fc1.weight": (120, 400),
    "fc2.weight": (84, 120),
    "fc3.weight": (10, 84),
}
_DEEP = ((192, 784), *((192, 192),) * 4, (96, 192), (10, 96))
_BLOCK = {
    "norm1": (48,), "norm2": (48,), "query": (48, 48), "key": (48, 48), "value": (48, 48), "project": (48, 48),
    "expand": (96, 48), "contract": (48, 96),
}  # fmt: skip
SHAPES = {
    "mlp": _MLP,
    "cnn": _LENET,
    "mlp_paper": _MLP,
    "mlp_tanh": _MLP,
    "mlp_deep": {f"fc.{i}.weight": shape for i, shape in enumerate(_DEEP)},
    "transformer": {
        "embed.weight": (48, 28), "place.weight": (28, 48), "norm.weight": (48,), "head.weight": (10, 48),
        **{f"blocks.{i}.{name}.weight": shape for i in range(2) for name, shape in _BLOCK.items()},
    },
    "cnn_fashion": _LENET,
}  # fmt: skip

networks = pytest.mark.parametrize("name", bundled.NAMES)


@networks
def test_the_shipped_weights_are_the_pinned_ones(name):
    assert bundled.weights_hash(bundled.load(name)) == SHIPPED[name][0]


@networks
def test_the_hash_of_the_codes_is_the_hash_of_the_network(name):
    with np.load(bundled.DATA / bundled.NAMES[name].weights_file) as codes:
        assert bundled.weights_hash(codes) == SHIPPED[name][0]


@networks
def test_every_parameter_is_a_finite_value_of_fp8_e4m3(name):
    fp8 = formats.get("fp8_e4m3")
    values = fp8.table()
    values = values[np.isfinite(values)]
    for key, parameter in bundled.load(name).named_parameters():
        assert parameter.dtype == torch.float32, key
        assert np.isin(parameter.double().numpy(), values).all(), key


@networks
def test_the_layers_have_the_documented_shapes(name):
    parameters = {key: tuple(p.shape) for key, p in bundled.load(name).named_parameters()}
    assert {key: shape for key, shape in parameters.items() if key.endswith("weight")} == SHAPES[name]
    assert {key: shape for key, shape in parameters.items() if key.endswith("bias")} == {
        key.replace("weight", "bias"): shape[:1] for key, shape in SHAPES[name].items() if key != "place.weight"
    }


@networks
def test_a_loaded_network_is_ready_for_inference(name):
    model = bundled.load(name)
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


@networks
def test_loading_leaves_the_random_generator_of_the_caller_alone(name):
    before = torch.get_rng_state()
    bundled.load(name)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_mlp_takes_digits_with_and_without_a_channel():
    model = bundled.load("mlp")
    x, _ = bundled.digits()
    assert torch.equal(model(x[:4]), model(x[:4, 0]))


@networks
def test_the_accuracy_in_float32_is_that_of_the_training(name):
    model = bundled.load(name)
    x, y = bundled.digits()
    if SHIPPED[name][1] is None:
        pytest.skip("trained on other images")
    right = (model(x).argmax(1) == y).sum().item()
    # Another order of summation may turn a digit whose two best logits nearly tie.
    assert abs(right - SHIPPED[name][1]) <= 2


def test_the_weights_of_the_paper_are_values_of_its_format():
    values = formats.get("e4m3:ieee").table()
    assert values[np.isfinite(values)].max() == 240
    for key, parameter in bundled.load("mlp_paper").named_parameters():
        assert np.isin(parameter.double().numpy(), values).all(), key


def test_an_unknown_network_is_refused_by_name():
    with pytest.raises(ValueError, match=r"bundled network 'resnet' is unknown; expected one of mlp, cnn"):
        bundled.load("resnet")


def test_the_test_digits_are_the_last_1500_of_the_8000():
    with np.load(DIGITS) as all_digits, np.load(bundled.DATA / "digits1500.npz") as shipped:
        assert all_digits["x"].shape == (8000, 28, 28)
        assert shipped["x"].dtype == shipped["y"].dtype == np.uint8
        assert np.array_equal(shipped["x"], all_digits["x"][6500:])
        assert np.array_equal(shipped["y"], all_digits["y"][6500:])


def test_no_test_digit_is_among_the_training_digits():
    with np.load(DIGITS) as data:
        images = [image.tobytes() for image in data["x"]]
    assert not set(images[:6500]) & set(images[6500:])


def test_digits_are_normalised_with_the_usual_mean_and_deviation():
    x, y = bundled.digits()
    assert x.shape == (1500, 1, 28, 28)
    assert x.dtype == torch.float32
    assert y.shape == (1500,)
    assert y.dtype == torch.int64
    assert sorted(set(y.tolist())) == list(range(10))
    black, white = (0 - 0.1307) / 0.3081, (1 - 0.1307) / 0.3081
    assert x.min().item() == pytest.approx(black, rel=1e-6)
    assert x.max().item() == pytest.approx(white, rel=1e-6)


def test_the_hash_follows_the_sorted_names_and_every_code():
    a, b = np.array([1, 2], dtype=np.uint8), np.array([3], dtype=np.uint8)
    assert bundled.weights_hash({"a": a, "b": b}) == bundled.weights_hash({"b": b, "a": a})
    assert bundled.weights_hash({"a": a, "b": b}) != bundled.weights_hash({"a": a, "b": b + np.uint8(1)})


def test_parameters_outside_fp8_have_no_codes():
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.fill_(0.3)
    with pytest.raises(ValueError, match=r"parameter weight holds values that are not in fp8_e4m3"):
        bundled.parameter_codes(layer)


def test_the_training_rounds_as_the_format_does():
    from simulator.network.train_bundled import Rounded

    values = np.random.default_rng(0).normal(size=500) * np.logspace(-4, 3, 500)
    x = torch.from_numpy(values.astype(np.float32)).requires_grad_()
    rounded = Rounded(448.0)(x)
    expected = formats.get("fp8_e4m3").quantize(x.detach().numpy(), overflow="sat")
    assert np.array_equal(rounded.detach().double().numpy(), expected)
    rounded.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_shifted_digits_are_the_digits_moved_by_at_most_one_pixel():
    from simulator.network.train_bundled import shifted

    x, _ = bundled.digits()
    torch.manual_seed(0)
    for before, after in zip(x[:20, 0], shifted(x[:20], 1)[:, 0], strict=True):
        inner = after[1:-1, 1:-1]
        candidates = [before[1 + dy : 27 + dy, 1 + dx : 27 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        assert any(torch.equal(inner, candidate) for candidate in candidates)


def train_bundled(*arguments):
    command = [sys.executable, "-m", "simulator.network.train_bundled", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_training_refuses_a_missing_data_file_with_exit_code_2():
    run = train_bundled("--data", "nowhere.npz")
    assert run.returncode == 2
    assert "nowhere.npz" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        (None, "cannot read arrays x and y"),
        ({"x": np.zeros((8000, 28, 28), np.uint8)}, "cannot read arrays x and y"),
        ({"x": np.zeros((5, 28, 28), np.uint8), "y": np.zeros(5, np.uint8)}, r"got x uint8 \(5, 28, 28\) and y \(5,\)"),
    ],
    ids=["not an npz", "no classes", "too few digits"],
)
def test_training_refuses_other_data_and_says_what_it_found(tmp_path, arrays, complaint):
    typer = pytest.importorskip("typer")
    from simulator.network.train_bundled import read_digits

    path = tmp_path / "data.npz"
    if arrays is None:
        path.write_text("digits")
    else:
        np.savez(path, **arrays)
    with pytest.raises(typer.BadParameter, match=complaint):
        read_digits(path)


@pytest.mark.full
def test_training_reproduces_the_shipped_weights_or_their_accuracy():
    run = train_bundled("--check", "--data", str(DIGITS))
    assert run.returncode == 0, run.stdout + run.stderr
