"""Samples for networks of the user's own: what arrays mean, and what is said of those that do not fit."""

import io
import re
import sys
import zipfile

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import simulator  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.network import bundled, limits  # noqa: E402
from simulator.network.evaluation import evaluate  # noqa: E402
from simulator.network.samples import load_samples  # noqa: E402


class Linear(nn.Module):
    """(N, 6) to (N, 3)."""

    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8, dtype=dtype), nn.ReLU(), nn.Linear(8, 3, dtype=dtype))

    def forward(self, features):
        return self.body(features)


class Tokens(nn.Module):
    """(N, T) token ids and, if given, a mask and scale to (N, T, 9)."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 4)
        self.out = nn.Linear(4, 9)

    def forward(self, tokens, mask=None, *, scale=None):
        x = self.embedding(tokens)
        if mask is not None:
            x = x * mask.unsqueeze(-1)
        if scale is not None:
            x = x * scale[:, None, None]
        return self.out(x)


class Pixels(nn.Conv2d):
    """(N, 2, H, W) to (N, 3, H, W): a class for each pixel."""

    def __init__(self):
        super().__init__(2, 3, 1)


class Anything(nn.Module):
    def forward(self, **inputs):
        return inputs["a"] + inputs["b"]


class Pair(nn.Module):
    """With an input that has the name of labels."""

    def forward(self, x, y):
        return x + y


class Scaled(nn.Module):
    """With a number for all samples, which must have no axes."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(6, 3)

    def forward(self, features, rate):
        assert rate.dim() == 0
        return self.body(features * rate)


class Tuple(nn.Module):
    def forward(self, x):
        return x, None


X = np.random.default_rng(0).standard_normal((5, 6))
TOKENS = np.arange(15).reshape(5, 3)


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Save arrays and load them for a model."""
    monkeypatch.chdir(tmp_path)

    def call(model, count=None, **arrays):
        np.savez("data.npz", **arrays)
        return load_samples("data.npz", count, model.eval())

    return call


def refused(load, message, model, count=None, **arrays):
    with pytest.raises(InputError) as caught:
        load(model, count, **arrays)
    text = str(caught.value)
    assert "\n" not in text and re.search(message, text), text
    return text


# --- what arrays mean -----------------------------------------------------------------------------------------------


def test_one_input_is_x_whatever_the_network_calls_it(load):
    samples = load(Linear(), x=X, y=np.arange(5) % 3)
    assert torch.equal(samples.x, torch.from_numpy(X).float())
    assert (samples.y.dtype, samples.size, samples.source) == (torch.int64, 5, "data.npz")
    assert samples.batch(slice(1, 3))[0][0].shape == (2, 6) and samples.batch(slice(1, 3))[1] == {}


def test_the_only_input_is_a_tensor_under_its_own_name_too(load):
    assert torch.equal(load(Linear(), features=X).x, load(Linear(), x=X).x)
    assert torch.equal(load(Tokens(), tokens=TOKENS).x, torch.from_numpy(TOKENS))
    assert list(load(Tokens(), tokens=TOKENS, scale=np.ones(5)).x) == ["tokens", "scale"]


def test_inputs_have_the_names_that_the_network_has_for_them(load):
    mask, scale = np.ones((5, 3), bool), np.ones(5)
    samples = load(Tokens(), tokens=TOKENS.astype(np.int16), mask=mask, scale=scale, y=TOKENS % 9)
    assert {name: (value.shape, value.dtype) for name, value in samples.x.items()} == {
        "tokens": ((5, 3), torch.int64), "mask": ((5, 3), torch.bool), "scale": ((5,), torch.float32),
    }  # fmt: skip
    assert samples.size == 5
    assert samples.batch(slice(4, 9))[1]["tokens"].tolist() == [[12, 13, 14]]
    assert load(Tokens(), x=TOKENS).x.dtype == torch.int64
    assert list(load(Anything(), a=X, b=X).x) == ["a", "b"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("given", [np.float16, np.float32, np.float64])
def test_floats_become_those_of_the_network(load, dtype, given):
    x = load(Linear(dtype), x=X.astype(given)).x
    assert x.dtype == dtype and torch.equal(x, torch.from_numpy(X.astype(given)).to(dtype))


def test_labels_are_for_samples_tokens_or_pixels(load):
    assert load(Tokens(), x=TOKENS, y=TOKENS % 9).y.shape == (5, 3)
    assert load(Pixels(), x=np.zeros((4, 2, 7, 6)), y=np.ones((4, 7, 6), np.uint8)).y.shape == (4, 7, 6)
    assert load(Tokens(), x=TOKENS, y=np.where(TOKENS > 8, -100, TOKENS)).y.min() == -100


def test_an_array_without_axes_is_for_all_samples(load):
    model = Scaled()
    for rate in (np.int64(3), np.float64(0.5), np.array(True)):
        samples = load(model, rate=rate, features=X, y=np.arange(5) % 3)
        assert samples.size == 5 and samples.x["rate"].shape == () and samples.x["rate"].item() == rate
        _, kwargs = samples.part(slice(4)).batch(slice(1, 3))
        assert (kwargs["rate"].shape, kwargs["features"].shape) == ((), (2, 6))
    samples = load(model, count=4, rate=np.int64(3), features=X)
    found = evaluate(model, "npu", samples.x, batch=3)
    assert found.samples == 4 and found.layers[0].m == 4
    with simulator.emulate(model, "npu") as run, torch.no_grad():
        model(**samples.x)
    assert run.result.layers[0].m == 4


def test_arrays_without_axes_alone_are_no_samples(load):
    refused(
        load, r"rate has shape \(\); expected \(N, \.\.\.\) with at least one sample", Scaled(), rate=3, features=2.0
    )
    refused(load, r"features of shape \(N, 5\) and float32, rate of shape \(\) and int64 does not fit", Scaled(),
            features=X[:, 1:], rate=3)  # fmt: skip


@pytest.mark.parametrize("name", ["x", "levels"])
def test_uint8_is_for_networks_that_declare_integers(load, tmp_path, name):
    pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    from simulator.network.onnx_files import read_onnx

    def network(kind):
        nodes = [helper.make_node("Cast", ["levels"], ["y"], to=TensorProto.FLOAT)]
        ends = helper.make_tensor_value_info("levels", kind, ["N", 3]), helper.make_tensor_value_info("y", 1, ["N", 3])
        proto = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), ir_version=10)
        (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
        return read_onnx("net.onnx")

    levels = np.arange(240, 255, dtype=np.uint8).reshape(5, 3)
    for kind in (TensorProto.UINT8, TensorProto.INT32):
        model = network(kind)
        samples = load(model, **{name: levels})
        assert torch.equal(model(samples.x), torch.from_numpy(levels).float())
    refused(load, "expected -128 to 127, as int8 holds them", network(TensorProto.INT8), **{name: levels})
    refused(load, f"{name} has dtype uint8, which is normalised", network(TensorProto.FLOAT), **{name: levels})


def test_an_input_called_y_is_an_input(load):
    samples = load(Pair(), x=X, y=X)
    assert samples.y is None and list(samples.x) == ["x", "y"]


def test_fewer_samples(load):
    samples = load(Tokens(), 2, tokens=TOKENS, mask=np.ones((5, 3)), y=TOKENS % 9)
    assert (samples.size, samples.y.shape, samples.x["mask"].shape) == (2, (2, 3), (2, 3))
    refused(load, r"--samples: got 6; expected 1 to 5, the samples of data\.npz", Tokens(), 6, x=TOKENS)


def test_outputs_need_be_no_tensor(load):
    assert load(Tuple(), x=X, y=np.arange(5)).size == 5


def test_the_network_is_left_as_it_was(load):
    model = Linear()
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]
    load(model, x=X)
    refused(load, "does not fit", model, x=X[:, 1:])
    assert hooks == [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]
    assert all(parameter.grad is None for parameter in model.parameters())


# --- what does not fit ----------------------------------------------------------------------------------------------

FIT = "expected what its forward takes, samples along the first axis; reshape or convert the data"
REFUSED = {
    "shape": (
        Linear, {"x": X[:, 1:]},
        r"^data\.npz: x of shape \(N, 5\) and float32 does not fit the network Linear \(body\.0, Linear\(in_features="
        rf"6, out_features=8, bias=True\), is given \(1, 5\): RuntimeError: mat1 and mat2 .*\); {FIT}$",
    ),
    "floats for tokens": (Tokens, {"x": X}, r"\(embedding, Embedding\(20, 4\), is given \(1, 6\): Runtime.*Long"),
    "unknown tokens": (Tokens, {"x": TOKENS + 30}, r"\(embedding, .*: IndexError: index out of range"),
    "integers for floats": (Linear, {"x": TOKENS.repeat(2, 1)}, r"and int64 does not fit .*same dtype"),
    "grey levels": (
        Linear, {"x": X.astype(np.uint8)},
        r"x has dtype uint8, which is normalised for the bundled networks only; .* give floats, such as "
        r"x\.astype\(numpy\.float32\) / 255, or int64 for indices",
    ),
    "complex": (Linear, {"x": X.astype(complex)}, "x has dtype complex128; expected floats, integers or bools"),
    "text": (Linear, {"x": np.full((4, 6), "a")}, "x has dtype <U1; expected floats, integers or bools"),
    "objects": (Linear, {"x": np.full((4, 6), None)}, r"x cannot be read \(Object arrays .*\); expected plain numeric"),
    "dates": (Linear, {"x": np.zeros((4, 6), "M8[s]")}, r"x has dtype datetime64\[s\]; expected floats"),
    "scalar": (Linear, {"x": 3.0}, r"x has shape \(\); expected \(N, \.\.\.\) with at least one sample"),
    "no samples": (Linear, {"x": X[:0]}, r"x has shape \(0, 6\); expected \(N, \.\.\.\) with at least one sample"),
    "NaN": (Linear, {"x": X * np.nan}, "x holds NaN, infinities or numbers beyond float32"),
    "beyond": (Linear, {"x": X * 1e300}, "x holds NaN, infinities or numbers beyond float32"),
    "huge integers": (Tokens, {"x": np.full((2, 2), 2**64 - 1, np.uint64)}, "x holds 18446744073709551615; expected"),
    "nothing": (Linear, {}, "holds nothing; expected x, or the inputs of Linear: features; add them"),
    "labels only": (Tokens, {"y": TOKENS}, "holds y; expected x, or the inputs of Tokens: tokens, mask, scale; add"),
    "unknown name": (
        Tokens, {"tokens": TOKENS, "msk": TOKENS},
        r"has besides msk; expected the inputs of Tokens: tokens, mask, scale \(and y, if there are labels\); rename",
    ),
    "x and another": (Linear, {"x": X, "more": X}, "lacks features and has besides x, more; expected the inputs of L"),
    "missing name": (Tokens, {"mask": TOKENS}, "lacks tokens; expected the inputs of Tokens: tokens, mask, scale"),
    "lengths": (Tokens, {"tokens": TOKENS, "mask": TOKENS[1:]}, "tokens of 5, mask of 4 samples; expected the same"),
    "labels of another shape": (
        Tokens, {"x": TOKENS, "y": np.arange(5)},
        r"y has shape \(5,\), and Tokens returns \(1, 3, 9\) for one sample; expected y of shape \(5, 3\) or \(5, 9\)",
    ),
    "fewer labels": (Linear, {"x": X, "y": np.arange(4)}, r"y is int64 of shape \(4,\); expected integer classes"),
    "labels as text": (Linear, {"x": X, "y": np.full(5, "a")}, r"y is <U1 of shape \(5,\); expected integer classes"),
    "fewer floats": (Linear, {"x": X, "y": X[:4, 0]}, r"y is float64 of shape \(4,\); expected integer classes"),
    "floats that are none": (Linear, {"x": X, "y": np.full(5, np.nan)}, "y holds NaN, infinities or numbers beyond"),
    "class beyond": (Linear, {"x": X, "y": np.full(5, 3)}, "y holds class 3, and Linear has 3 outputs; .* 0 to 2"),
    "negative class": (Linear, {"x": X, "y": np.full(5, -1)}, "y holds -1; expected classes from 0, or -100"),
    "samples in the second axis": (
        lambda: nn.Flatten(0), {"x": X}, r"Flatten returns shape \(6,\) for one sample; expected samples along",
    ),
}  # fmt: skip


@pytest.mark.parametrize("model, arrays, message", REFUSED.values(), ids=REFUSED)
def test_arrays_that_do_not_fit(load, model, arrays, message):
    assert refused(load, message, model(), **arrays).startswith("data.npz: ")


def test_the_bundled_digits_are_for_the_bundled_networks():
    assert load_samples(None, 2, bundled.load("cnn")).x.shape == (2, 1, 28, 28)
    with pytest.raises(InputError, match="--data: not given, and the bundled digits are for the bundled networks only"):
        load_samples(None, 2, Linear())


# --- sizes ----------------------------------------------------------------------------------------------------------


def header(shape, content=b"", compression=zipfile.ZIP_DEFLATED):
    """Write an array whose header says something of its shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content)
    return buffer.getvalue()


HEADERS = {
    "a trillion": ("(1000000, 1000000)", r"x of shape \(10+, 10+\) and float32: 3\.638 TiB \(1,000,000,000,000 x 4"),
    "negative": ("(-2, 6)", r"x cannot be read \(negative shape \(-2, 6\)\)"),
    "many axes": (f"({'1, ' * 70})", "x cannot be read"),
    "beyond 64 bits": (f"({10**30}, 6)", r"x of shape \(10+, 6\) and float32: .* TiB"),
    "more than there is": ("(1000, 6)", r"x cannot be read \(EOF"),
    "no shape": ("'ab'", "x cannot be read"),
    "code": ("__import__('os').system('touch marker')", "x cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("shape, message", HEADERS.values(), ids=HEADERS)
def test_headers_that_lie(tmp_path, monkeypatch, shape, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.npz").write_bytes(header(shape, bytes(240)))
    for model in (Linear(), bundled.load("mlp")):
        with pytest.raises(InputError) as caught:
            load_samples("data.npz", None, model)
        assert re.search(r"^data\.npz: " + message, str(caught.value)), caught.value
    assert [path.name for path in tmp_path.iterdir()] == ["data.npz"]


def test_a_small_file_of_a_large_array_is_not_unpacked(tmp_path, monkeypatch):
    """What zeros are packed to fits in memory; unpacked they would not."""
    (tmp_path / "data.npz").write_bytes(header("(4000000, 6)", bytes(96_000_000)))
    assert (tmp_path / "data.npz").stat().st_size < 100_000
    monkeypatch.setattr(limits, "physical_memory", lambda: 1 << 27)
    with pytest.raises(
        InputError, match=r"91\.55 MiB .* expected at most 64 MiB, half of .*; split the data, or write"
    ):
        load_samples(str(tmp_path / "data.npz"), None, Linear())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="files with holes")
def test_a_large_file_is_refused_before_it_is_read(tmp_path, monkeypatch):
    with open(tmp_path / "data.npz", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r"data\.npz: 1 TiB; expected at most .*, half of this machine's memory"):
        load_samples(str(tmp_path / "data.npz"), None, Linear())


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 7)])
def test_floats_are_labels_to_regress_on(tmp_path, shape):
    np.savez(tmp_path / "a.npz", x=X, y=np.ones(shape))
    y = load_samples(str(tmp_path / "a.npz"), 4, Linear()).y
    assert y.dtype == torch.float32 and y.shape == (4, *shape[1:])
    with pytest.raises(InputError, match="expected integer classes"):
        np.savez(tmp_path / "a.npz", x=np.zeros((5, 28, 28), np.uint8), y=np.ones(5))
        load_samples(str(tmp_path / "a.npz"), None, bundled.load("mlp"))


def test_the_first_look_at_a_network_leaves_its_buffers_alone(tmp_path):
    class Counting(Linear):
        def __init__(self):
            super().__init__()
            self.register_buffer("runs", torch.zeros(1))

        def forward(self, features):
            self.runs += 1
            return super().forward(features)

    np.savez(tmp_path / "a.npz", x=X)
    model = Counting()
    load_samples(str(tmp_path / "a.npz"), None, model)
    assert model.runs == 0
