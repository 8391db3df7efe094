"""Networks from .keras files: the answers of Keras itself, every analysis on them, and refusals of hostile files."""

import copy
import json
import os
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")
os.environ["KERAS_BACKEND"] = "torch"
pytest.importorskip("keras", reason="needs the extra keras")

import keras  # noqa: E402
from keras import layers  # noqa: E402

import simulator  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.network import keras_files, keras_layers, limits  # noqa: E402
from simulator.network.evaluation import evaluate  # noqa: E402
from simulator.network.keras_files import load_keras  # noqa: E402
from simulator.network.keras_network import KerasNetwork  # noqa: E402
from simulator.network.model_files import load_model  # noqa: E402
from simulator.network.samples import load_samples  # noqa: E402
from simulator.network.tap import Tap  # noqa: E402

RNG = np.random.default_rng(0)


def mlp():
    return keras.Sequential(
        [keras.Input((6,)), layers.Dense(8, activation="relu", name="hidden"), layers.Dense(3, name="out")]
    )


def cnn():
    return keras.Sequential([
        keras.Input((12, 12, 1), name="images"), layers.Conv2D(4, 3, activation="relu"),
        layers.BatchNormalization(name="batch_normalization"),
        layers.MaxPooling2D(), layers.DepthwiseConv2D(3), layers.AveragePooling2D(2), layers.Flatten(),
        layers.Dropout(0.5), layers.Dense(10),
    ])  # fmt: skip


def multi():
    """Token ids of which 0 is padding, and three numbers, to classes and a number."""
    ids, numbers = keras.Input((5,), name="ids", dtype="int32"), keras.Input((3,), name="numbers")
    x = layers.Embedding(10, 8, mask_zero=True)(ids)
    steps = layers.LSTM(6, name="lstm")(x)
    attended = layers.GlobalAveragePooling1D()(layers.MultiHeadAttention(2, 4, name="multi_head_attention")(x, x))
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, activation="tanh", name="first"), layers.Dense(4)], name="inner"
    )
    both = layers.Concatenate()([steps, attended, inner(numbers), layers.Bidirectional(layers.GRU(3))(x)])
    outputs = {"classes": layers.Dense(3, name="classes")(both), "number": layers.Dense(1, name="number")(both)}
    return keras.Model({"ids": ids, "numbers": numbers}, outputs)


INPUTS = {
    mlp: {"x": RNG.standard_normal((5, 6)).astype(np.float32)},
    cnn: {"x": RNG.random((5, 12, 12, 1), np.float32)},
    multi: {
        "ids": np.array([[1, 2, 3, 0, 0], [4, 5, 6, 7, 8], [9, 0, 0, 0, 0]]),
        "numbers": RNG.standard_normal((3, 3)).astype(np.float32),
    },
}


@pytest.fixture(params=INPUTS, ids=lambda build: build.__name__)
def saved(request, tmp_path):
    """A file, the model that was saved in it, and its inputs by name. Statistics are not those of a new model."""
    build = request.param
    keras.utils.set_random_seed(1)
    model = build()
    for variable in model.non_trainable_variables:
        if variable.name.startswith("moving"):
            variable.assign(np.abs(RNG.standard_normal(variable.shape)) + 0.5)
    model.save(tmp_path / "net.keras")
    return tmp_path / "net.keras", model, INPUTS[build]


def outputs(found):
    return {name: value.detach() for name, value in (found if isinstance(found, dict) else {"": found}).items()}


def run(network, arrays):
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return outputs(network(**tensors) if len(tensors) > 1 else network(*tensors.values()))


def by_keras(model, arrays):
    return outputs(model(arrays if len(arrays) > 1 else next(iter(arrays.values())), training=False))


# --- what Keras says ------------------------------------------------------------------------------------------------


def test_answers_are_those_of_keras(saved):
    path, model, arrays = saved
    network = load_model(str(path))
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    wanted, found = by_keras(model, arrays), run(network, arrays)
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=1e-6)


LAYERS = [
    (lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2, activation="relu"), (9, 4)),
    (lambda: layers.Conv1D(4, 3, strides=2, padding="same", groups=2), (9, 4)),
    (lambda: layers.Conv2D(4, (3, 2), strides=(2, 1), padding="same", use_bias=False), (7, 8, 3)),
    (lambda: layers.Conv2D(4, 3, dilation_rate=2, data_format="channels_first"), (2, 7, 8)),
    (lambda: layers.Conv3D(2, 3, strides=3, padding="same"), (7, 6, 5, 2)),
    (lambda: layers.DepthwiseConv1D(4, depth_multiplier=2, padding="same"), (7, 3)),
    (lambda: layers.DepthwiseConv2D(4, strides=2, depth_multiplier=2, padding="same", activation="tanh"), (7, 8, 3)),
    (lambda: layers.BatchNormalization(), (7, 3)),
    (lambda: layers.BatchNormalization(axis=1, scale=False), (7, 3)),
    (lambda: layers.BatchNormalization(center=False, epsilon=0.1), (7, 8, 3)),
    (lambda: layers.Dense(4, use_bias=False), (7, 3)),
    (lambda: layers.Dense(4, activation="softmax"), (7, 8, 3)),
    (lambda: layers.Conv1D(4, 5, padding="causal", strides=2, groups=2, use_bias=False), (9, 4)),
    (lambda: layers.Conv1D(4, 1, padding="causal", dilation_rate=3), (2, 4)),
    (lambda: layers.Conv1DTranspose(4, 3, padding="same", dilation_rate=3, activation="relu"), (7, 3)),
    (lambda: layers.Conv1DTranspose(4, 2, strides=3, padding="same"), (7, 3)),
    (lambda: layers.Conv2DTranspose(4, 3, strides=2), (4, 5, 3)),
    (lambda: layers.Conv2DTranspose(4, (3, 4), strides=2, padding="same", data_format="channels_first"), (3, 4, 5)),
    (lambda: layers.Conv2DTranspose(4, (2, 1), strides=3, use_bias=False, activation="tanh"), (4, 5, 3)),
    (lambda: layers.Conv2DTranspose(4, (3, 4), strides=2, padding="same", output_padding=1), (4, 5, 3)),
    (lambda: layers.Conv2DTranspose(4, 2, strides=(4, 3), padding="same", output_padding=(3, 2)), (4, 5, 3)),
    (lambda: layers.Conv2DTranspose(4, 5, strides=3, padding="valid", output_padding=(1, 2)), (4, 5, 3)),
    (lambda: layers.Conv3DTranspose(2, (1, 2, 3), strides=(2, 1, 2), padding="same"), (3, 4, 2, 2)),
    (lambda: layers.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d", activation="relu"), (5, 3)),
    (lambda: layers.EinsumDense("...x,xy->...y", 6, bias_axes="y"), (2, 5, 3)),
    (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de"), (5, 3)),
    (lambda: layers.EinsumDense("abcd,cde->abe", (None, 6), bias_axes="e"), (5, 2, 3)),
    (lambda: layers.EinsumDense("abc,cd->abd", (5, 6), bias_axes="bd"), (5, 3)),
    (lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="e"), (5, 3)),
    (lambda: layers.EinsumDense("abc,bd->adc", (6, 3)), (5, 3)),
    (lambda: layers.EinsumDense("abcd,dce->abe", (None, 6), bias_axes="e"), (5, 2, 3)),
    (lambda: layers.EinsumDense("abc,bcd->abd", (5, 6), bias_axes="d"), (5, 3)),
    (lambda: layers.EinsumDense("abc,cde->aebd", (4, None, 2), bias_axes="ed"), (5, 3)),
    (lambda: layers.SeparableConv2D(4, 3), (4, 5, 3)),
    (lambda: layers.LayerNormalization(), (4, 3)),
]


@pytest.mark.parametrize("make, shape", LAYERS, ids=[f"{i} {make().name}" for i, (make, _) in enumerate(LAYERS)])
def test_layers_in_torchs_own_operations_are_those_of_keras(make, shape):
    model = keras.Sequential([keras.Input(shape), make()])
    for variable in model.variables:
        variable.assign(np.abs(RNG.standard_normal(variable.shape)) + 0.1)
    x = torch.from_numpy(RNG.standard_normal((2, *shape)).astype(np.float32))
    wanted = model(x, training=False).detach()
    torch.testing.assert_close(KerasNetwork(model).eval()(x).detach(), wanted, rtol=1e-5, atol=1e-6)


def test_a_bias_is_in_the_accumulators_and_normalisation_folded(tmp_path):
    cnn().save(tmp_path / "net.keras")
    x = torch.from_numpy(INPUTS[cnn]["x"])
    record = evaluate(load_model(str(tmp_path / "net.keras")), "hwconfigs/npu.yaml", x)
    assert [(layer.name.split("_")[0], layer.activation) for layer in record.layers] == [
        ("conv2d", "relu"), ("depthwise", "identity"), ("dense", "identity"),
    ]  # fmt: skip
    assert "consumed by add" not in " ".join(record.warnings)


def seen(model, x):
    """Return the Ops of a forward pass by their names: kind, M, N, K, and whether they have an addend."""
    ops = []
    with torch.no_grad(), Tap(network := KerasNetwork(model).eval(), ops.append):
        network(x)
    return {op.name: (op.kind, op.m, op.n, op.k, op.addend is not None) for op in ops}


def test_transposed_convolutions_have_their_biases_in_the_accumulators():
    for padding in ("valid", "same"):
        layer = layers.Conv2DTranspose(4, 3, strides=2, padding=padding, name="up")
        ((kind, *_, biased),) = seen(
            keras.Sequential([keras.Input((4, 5, 3)), layer]), torch.randn(2, 4, 5, 3)
        ).values()
        assert (kind, biased) == ("conv_transpose2d", True)


def test_projections_of_attention_are_linear_layers_with_their_biases():
    x = keras.Input((5, 6))
    model = keras.Model(x, layers.MultiHeadAttention(2, 4, name="attention")(x, x))
    found = seen(model, torch.randn(3, 5, 6))
    assert {name: op for name, op in found.items() if op[0] == "linear"} == {
        "attention.query": ("linear", 15, 8, 6, True),
        "attention.key": ("linear", 15, 8, 6, True),
        "attention.value": ("linear", 15, 8, 6, True),
        "attention.attention_output": ("linear", 15, 6, 8, True),
    }


@pytest.mark.parametrize(
    ("equation", "summed"),
    [
        ("abc,cd->abd", 1), ("...x,xy->...y", 1), ("abc,cde->abde", 1), ("abcd,cde->abe", 2), ("ab,abc->c", 2),
        ("abc,cd->adb", 0), ("abcd,dce->abe", 0), ("abc,bcd->abd", 0), ("aa,ab->ab", 0), ("ab,bc->bc", 0),
        ("ab,cd->abcd", 0), ("ab,b->a", 0), ("ab,bcc->acc", 0),
    ],
)  # fmt: skip
def test_linear_layers_among_equations(equation, summed):
    assert keras_layers._summed(equation) == summed


def test_layers_are_modules_under_their_names_in_keras(tmp_path):
    multi().save(tmp_path / "net.keras")
    network = load_keras(str(tmp_path / "net.keras"))
    names = {name for name, _ in network.named_modules()}
    assert {"lstm.lstm_cell", "multi_head_attention.query", "inner.first", "classes", "number"} <= names
    assert network.classes.kernel.shape == (24, 3)
    assert {name for name, _ in network.named_parameters() if name.startswith("classes")} == {
        "classes.kernel", "classes.bias",
    }  # fmt: skip


def test_names_are_the_same_whatever_was_loaded_before(tmp_path):
    multi().save(tmp_path / "net.keras")
    first, second = (list(load_keras(str(tmp_path / "net.keras")).state_dict()) for _ in range(2))
    assert first == second


def test_statistics_and_seeds_are_buffers_and_weights_parameters(tmp_path):
    cnn().save(tmp_path / "net.keras")
    network = load_keras(str(tmp_path / "net.keras"))
    kinds = {name.rsplit(".")[-1] for name, _ in network.named_buffers()}
    assert kinds == {"moving_mean", "moving_variance", "seed_generator_state"}
    assert {name.rsplit(".")[-1] for name, _ in network.named_parameters()} == {"kernel", "bias", "gamma", "beta"}


def test_a_copy_has_weights_of_its_own(tmp_path):
    mlp().save(tmp_path / "net.keras")
    network = load_model(str(tmp_path / "net.keras"))
    x = torch.from_numpy(INPUTS[mlp]["x"])
    twin = copy.deepcopy(network)
    before = network(x)
    assert torch.equal(twin(x), before) and not twin.training and not twin.out.bias.requires_grad
    with torch.no_grad():
        twin.out.bias += 1
    assert torch.equal(network(x), before)
    torch.testing.assert_close(twin(x), before + 1)


def test_weights_of_a_state_dict_are_run_on(tmp_path):
    mlp().save(tmp_path / "net.keras")
    network = load_model(str(tmp_path / "net.keras"))
    torch.save({name: torch.zeros_like(value) for name, value in network.state_dict().items()}, tmp_path / "w.pt")
    zero = load_model(str(tmp_path / "net.keras"), str(tmp_path / "w.pt"))
    assert not zero(torch.from_numpy(INPUTS[mlp]["x"])).any()


def test_in_training_mode_dropout_and_statistics_are_those_of_training(tmp_path):
    cnn().save(tmp_path / "net.keras")
    network = load_keras(str(tmp_path / "net.keras"))
    x = torch.from_numpy(INPUTS[cnn]["x"])
    before = network.batch_normalization.moving_mean.clone()
    first, second = network.train()(x), network(x)
    assert not torch.equal(first, second)
    assert not torch.equal(network.batch_normalization.moving_mean, before)


def test_a_keras_model_of_ones_own_code_has_its_layers_too(tmp_path, monkeypatch):
    (tmp_path / "own_keras.py").write_text(
        "import keras\n\n\ndef network():\n    return keras.Sequential([keras.Input((4,)), "
        "keras.layers.Lambda(lambda x: x * 2), keras.layers.Dense(3, name='out')])\n\n\n"
        "class Own(keras.Model):\n    def call(self, x):\n        return x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert isinstance(load_model("own_keras:network").out, torch.nn.Module)
    with pytest.raises(InputError, match=r"has no inputs yet, or a call of its own code; expected a functional"):
        load_model("own_keras:Own")
    sys.modules.pop("own_keras")


def test_a_layer_that_is_called_twice_is_one_module(tmp_path):
    x, shared = keras.Input((3,)), layers.Dense(3, name="shared")
    model = keras.Model(x, shared(shared(x)))
    model.save(tmp_path / "net.keras")
    network = load_model(str(tmp_path / "net.keras"))
    given = torch.from_numpy(RNG.standard_normal((2, 3)).astype(np.float32))
    torch.testing.assert_close(network(given), model(given, training=False).detach())
    assert [name for name, _ in network.named_parameters()] == ["shared.kernel", "shared.bias"]
    assert [layer.name for layer in evaluate(network, "npu", given).layers] == ["shared", "shared#2"]


def test_a_fixed_batch_is_known():
    assert KerasNetwork(mlp()).fixed_batch is None
    fixed = keras.Sequential([keras.Input(batch_shape=(4, 6)), layers.Dense(3)])
    assert KerasNetwork(fixed).fixed_batch == 4


def test_inputs_declared_as_uint8_take_it_and_no_integers_beyond(tmp_path):
    levels = RNG.integers(0, 256, (5, 6)).astype(np.uint8)
    image = keras.Input((6,), name="image", dtype="uint8")
    model = keras.Model(image, layers.Dense(3)(layers.Rescaling(1 / 255)(image)))
    network, path = KerasNetwork(model).eval(), str(tmp_path / "levels.npz")
    np.savez(path, image=levels)
    assert torch.equal(network(load_samples(path, None, network).x), model(levels))
    assert simulator.bounds.certify(network, torch.from_numpy(levels)).certified.all()
    with pytest.raises(InputError, match="image: is given 256; expected 0 to 255, as uint8 holds them"):
        network(torch.full((1, 6), 256))


def test_recurrent_layers_are_no_rounded_constants_to_bounds():
    network = KerasNetwork(keras.Sequential([keras.Input((4, 2)), layers.GRU(3, name="states")]))
    with pytest.raises(InputError, match="bounds: states: GRU: recurrent layers have no rule"):
        simulator.bounds.certify(network.eval(), torch.zeros(2, 4, 2))


def test_another_backend_is_refused(tmp_path, monkeypatch):
    mlp().save(tmp_path / "net.keras")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(InputError, match="keras is imported already, with the backend jax; expected torch; set KERAS"):
        load_keras(str(tmp_path / "net.keras"))


def test_the_backend_is_torch_whatever_the_environment_says(tmp_path):
    mlp().save(tmp_path / "net.keras")
    source = "import sys; from simulator.network.keras_files import load_keras; load_keras(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", source, tmp_path / "net.keras"],
        env={**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": os.getcwd()}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- every analysis -------------------------------------------------------------------------------------------------


def test_the_main_job_runs_them_by_the_command_line(saved, command):
    path, model, arrays = saved
    np.savez("data.npz", **arrays, y=np.arange(len(next(iter(arrays.values())))) % 3)
    code, out, err = command("--hw", "npu", "--model", path, "--data", "data.npz", "--json")
    assert (code, err) == (0, "")
    record = json.loads(out)
    names = [layer["name"] for layer in record["layers"]]
    heads = [name for name, module in load_keras(str(path)).named_children() if module._get_name() == "Dense"]
    assert heads and set(heads) <= set(names)
    assert record["metrics"]["top1"]["float32"] == top1(by_keras(model, arrays))


def top1(found):
    first = next(iter(found.values()))
    return float((first.argmax(1) == torch.arange(len(first)) % 3).double().mean())


def test_operands_that_formats_hold_give_the_answers_of_keras(tmp_path):
    model = mlp()
    for variable in model.variables:
        variable.assign(np.sign(np.asarray(variable)))
    model.save(tmp_path / "net.keras")
    x = np.sign(INPUTS[mlp]["x"])
    network = load_model(str(tmp_path / "net.keras"))
    with simulator.emulate(network, simulator.load_hardware("hwconfigs/npu.yaml"), layers={"*": "exact"}) as emulated:
        found = network(torch.from_numpy(x))
    assert torch.equal(found, by_keras(model, {"x": x})[""])
    assert [layer.name for layer in emulated.result.layers] == ["hidden", "out"]


@pytest.mark.parametrize("build", [mlp, cnn])
def test_answers_are_certified(tmp_path, build):
    build().save(tmp_path / "net.keras")
    network = load_model(str(tmp_path / "net.keras"))
    found = simulator.bounds.certify(network, torch.from_numpy(INPUTS[build]["x"]), precision=24)
    assert found.certified.any()


def test_digits_are_tracked_forward_and_backward(saved):
    path, _, arrays = saved
    network = load_model(str(path)).requires_grad_(True)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    with simulator.track(network) as bits:
        found = outputs_with_gradient(network, tensors)
        found.sum().backward()
    assert bits is not None and any(parameter.grad is not None for parameter in network.parameters())


def outputs_with_gradient(network, tensors):
    found = network(**tensors) if len(tensors) > 1 else network(*tensors.values())
    return found if isinstance(found, torch.Tensor) else next(iter(found.values()))


@pytest.mark.parametrize("build", [mlp, cnn])
def test_they_train_in_narrow_formats(tmp_path, build):
    build().save(tmp_path / "net.keras")
    network = load_model(str(tmp_path / "net.keras")).requires_grad_(True)
    x = torch.from_numpy(INPUTS[build]["x"])
    before = {name: value.clone() for name, value in network.named_parameters()}
    simulator.training.fit(network, (x, torch.arange(5) % 3), storage="e8m6", rounding="rz", epochs=2, batch_size=5)
    assert all(not torch.equal(value, before[name]) for name, value in network.named_parameters() if "bias" in name)


def test_each_mode_has_the_state_of_a_layer_for_itself(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(2, 3, 4)), layers.LSTM(5, stateful=True), layers.Dense(3)])
    model.save(tmp_path / "net.keras")
    network = load_model(str(tmp_path / "net.keras"))
    before = {name: value.clone() for name, value in network.named_buffers()}
    record = evaluate(network, "hwconfigs/npu.yaml", torch.randn(2, 3, 4), batch=2)
    assert record.samples == 2
    assert before and all(torch.equal(value, before[name]) for name, value in network.named_buffers())


def test_what_an_analysis_refuses_is_said_in_its_own_words():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(4), layers.Reshape((4, 1)), layers.LSTM(3)])
    with pytest.raises(InputError) as caught:
        simulator.bounds.certify(KerasNetwork(model).eval(), torch.from_numpy(INPUTS[mlp]["x"]), precision=24)
    assert str(caught.value).startswith("bounds: ") and "\n" not in str(caught.value)


# --- hostile files --------------------------------------------------------------------------------------------------


@pytest.fixture
def members(tmp_path, monkeypatch):
    """The contents of a whole file, to be written anew with something else in them; and where one writes it."""
    monkeypatch.chdir(tmp_path)
    mlp().save("whole.keras")
    with zipfile.ZipFile("whole.keras") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(members, **how):
    with zipfile.ZipFile("net.keras", "w", **how) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def refusal(pattern):
    before = sorted(os.listdir())
    with pytest.raises(InputError, match=pattern) as caught:
        load_model("net.keras")
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir()) == before


def with_layer(members, layer):
    """The members with a layer that is as the file says."""
    config = json.loads(members["config.json"])
    config["config"]["layers"].insert(1, layer)
    return {**members, "config.json": json.dumps(config)}


def plain(class_name, config, module="keras.layers", registered=None):
    return {"module": module, "class_name": class_name, "config": config, "registered_name": registered}


@pytest.mark.parametrize("length", [0, 1, 100, 1000, -1])
def test_truncated_files(members, length):
    with open("whole.keras", "rb") as file:
        content = file.read()
    with open("net.keras", "wb") as file:
        file.write(content[:length] if length >= 0 else content[:-30])
    refusal(r"net\.keras: (empty, so|no whole archive)")


@pytest.mark.parametrize("place", [60, 400, 5000, 9000])
def test_damaged_bytes(members, place):
    with open("whole.keras", "rb") as file:
        content = bytearray(file.read())
    content[place : place + 8] = b"\xff" * 8
    with open("net.keras", "wb") as file:
        file.write(content)
    try:
        load_model("net.keras")
    except InputError as error:
        assert "\n" not in str(error)
    else:
        pytest.fail("the check sums of the archive were not looked at")


@pytest.mark.usefixtures("members")
def test_a_file_of_another_kind():
    with open("net.keras", "wb") as file:
        file.write(b"\x89HDF\r\n\x1a\n" + bytes(100))
    refusal(r"no whole archive .*; expected a \.keras file as model\.save\(path\) of Keras 3 writes it")


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "..\\out.txt", "C:/out.txt", "assets/../../out.txt"])
def test_paths_that_leave_the_archive(members, name):
    write({**members, name: b"x"})
    refusal("has a member .*, which leaves the archive or is there twice")


def test_a_member_twice(members):
    write(members)
    with pytest.warns(UserWarning), zipfile.ZipFile("net.keras", "a") as archive:
        archive.writestr("config.json", b"{}")
    refusal("has a member 'config.json', which leaves the archive or is there twice")


def test_many_members_take_no_time_for_each_pair(members):
    write({**members, **{f"member{i}": b"" for i in range(60_000)}})
    began = time.perf_counter()
    refusal("has besides member0, member1, member10, member100; expected")
    assert time.perf_counter() - began < 10  # 0.4 s; if each were looked for among all, 24 s


def test_members_that_lack_or_are_besides(members):
    write({name: content for name, content in members.items() if name != "model.weights.h5"})
    refusal(r"lacks model\.weights\.h5; ")
    write({**members, "assets/vocabulary.txt": b"x"})
    refusal(r"has besides assets/vocabulary\.txt; ")


def test_a_bomb_of_an_archive(members, monkeypatch):
    write({**members, "metadata.json": bytes(1 << 26)}, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(limits, "physical_memory", lambda: 1 << 26)
    refusal("what its members say that they hold: 64.* MiB; expected at most 32 MiB")


def test_weights_that_are_larger_when_they_are_read(members, monkeypatch):
    import h5py

    with h5py.File("weights.h5", "w") as file:
        file.create_dataset("bomb", shape=(1 << 24,), dtype="f4", chunks=True, compression="gzip")
    with open("weights.h5", "rb") as file:
        write({**members, "model.weights.h5": file.read()})
    monkeypatch.setattr(limits, "physical_memory", lambda: 1 << 26)
    refusal("weights: 64 MiB; expected at most 32 MiB")


def test_weights_in_other_files(members):
    import h5py

    with h5py.File("weights.h5", "w") as file:
        file.create_dataset("far", shape=(4,), dtype="f4", external=[("/etc/passwd", 0, 16)])
    with open("weights.h5", "rb") as file:
        write({**members, "model.weights.h5": file.read()})
    refusal("far of float32, or in another file")


@pytest.mark.parametrize("change", [lambda x: x[:-1], lambda x: x.astype("S4"), lambda x: np.full_like(x, np.nan)])
def test_weights_of_another_shape_or_type(members, change):
    import h5py

    with open("weights.h5", "wb") as file:
        file.write(members["model.weights.h5"])
    with h5py.File("weights.h5", "r+") as file:
        group = file["layers/dense/vars"] if "dense" in file["layers"] else next(iter(file["layers"].values()))["vars"]
        values = group["0"][()]
        del group["0"]
        group["0"] = change(values)
    with open("weights.h5", "rb") as file:
        write({**members, "model.weights.h5": file.read()})
    refusal("its weights do not fit its layers|of .S4, or in another|kernel holds NaN or infinities")


def test_a_network_beyond_memory_is_refused_before_it_is_made(members):
    config = json.loads(members["config.json"])
    config["config"]["layers"][-1]["config"]["units"] = 1 << 40
    write({**members, "config.json": json.dumps(config)})
    refusal("variables of the network: .* TiB; expected at most")


@pytest.mark.parametrize(
    "text, said",
    [
        (b"", "its config.json cannot be read"),
        (b"\xff\xfe", "its config.json cannot be read"),
        (b"[" * 100_000, "its config.json cannot be read"),
        (b"[1]", "its config.json names no model"),
        (b'{"class_name": 3, "config": {}}', "its config.json makes no network"),
        (b'{"class_name": "Dense", "module": "keras.layers", "config": {"units": 3}}', "its config.json makes no netw"),
        (b'{"class_name": "Sequential", "module": "keras", "config": {"layers": 7}}', "its config.json makes no netwo"),
    ],
)
def test_graphs_that_are_none(members, text, said):
    write({**members, "config.json": text})
    refusal(said)


CODE = {
    "Lambda": plain("Lambda", {"function": plain("__lambda__", {"value": "AAAA"}, "builtins")}),
    "Own>Layer": plain("Layer", {}, None, "Own>Layer"),
    "Popen": plain("Popen", {"args": ["touch", "out"]}, "subprocess"),
    "get_file": plain("function", "get_file", "keras.utils", "get_file"),
    "enable_unsafe_deserialization": plain("function", "enable_unsafe_deserialization", "keras.config"),
    "load_model": plain("function", "load_model", "keras.models", "load_model"),
    "TorchModuleWrapper": plain("TorchModuleWrapper", {"module": "AAAA"}),
    "TFSMLayer": plain("TFSMLayer", {"filepath": "/tmp"}),
    "Own>act": plain("Dense", {"units": 3, "activation": plain("function", "act", "own", "Own>act")}),
}


@pytest.mark.parametrize("name", CODE)
def test_what_needs_code_is_named_and_not_run(members, name):
    write(with_layer(members, CODE[name]))
    refusal(
        rf"net\.keras: needs code beside Keras' own layers: {name} \(nothing was run\); .*; write a module with the "
        r"code and a function that returns keras\.saving\.load_model\(path, custom_objects=\.\.\.\), and give --model"
    )


def test_a_layer_of_ones_own_that_is_saved_is_named(members):
    class Own(keras.Layer):
        def call(self, x):
            return x

    keras.Sequential([keras.Input((3,)), Own(), layers.Dense(2, activation=lambda x: x)]).save("net.keras")
    refusal("needs code beside Keras' own layers: .*Own.*, ")


def test_how_models_were_compiled_is_not_read(members):
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3)])
    inner.compile("adam", "mse", ["mae"])
    outer = keras.Sequential([keras.Input((3,)), inner, layers.Dense(2)])
    outer.compile("adam", lambda y, z: keras.ops.mean(y - z))
    outer.save("net.keras")
    assert load_model("net.keras")(torch.zeros(1, 3)).shape == (1, 2)
    with zipfile.ZipFile("net.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    (within,) = (layer for layer in config["config"]["layers"] if layer["class_name"] == "Sequential")
    within["compile_config"]["loss"] = plain("function", "get_file", "keras.utils", "get_file")
    write({**members, "config.json": json.dumps(config)})
    assert load_model("net.keras")(torch.zeros(1, 3)).shape == (1, 2)


def test_a_lookup_reads_no_file(members):
    write(with_layer(members, plain("IntegerLookup", {"vocabulary": "/etc/passwd"})))
    refusal("its config.json makes no network")


def test_without_keras_it_says_what_to_install(members, monkeypatch):
    write(members)
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(
        InputError, match=r"needs keras, which is not installed; expected the extra keras; install it with"
    ):
        keras_files.load_keras("net.keras")
