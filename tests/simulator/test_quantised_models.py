"""Quantised ONNX models: their integers are those in the array, against onnxruntime's integer kernels and numpy's."""

import logging

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static  # noqa: E402

import simulator  # noqa: E402
from simulator.network.model_scales import ModelScales, model_scales  # noqa: E402
from simulator.network.onnx_files import read_onnx  # noqa: E402
from tests.simulator.onnx_models import array, floats, model, node, saved  # noqa: E402

MACHINE = "gemmini_like"  # int8 x int8 into 32 bits, activations scaled per tensor and weights per channel
OWN = {"activations": {"per": "tensor", "when": "dynamic"}, "weights": {"per": "channel", "when": "dynamic"}}
EXACT = {"mac": "int8 -> exact(fp32)", "activations": "tensor", "weights": "channel"}
BOTH = "a per tensor, the model's; b per channel, the model's"


def emulated(network, *inputs, layers=None, **settings):
    """Return the outputs and the record of a network on the machine."""
    with simulator.emulate(network, MACHINE, layers=layers, **settings) as run, torch.no_grad():
        out = network(*map(torch.from_numpy, inputs))
    return out.numpy(), run.result


# --- as onnxruntime quantises and computes ----------------------------------------------------------------------------


class Samples(CalibrationDataReader):
    """What onnxruntime calibrates on: one batch."""

    def __init__(self, x):
        self.batches = iter([{"x": x}])

    def get_next(self):
        return next(self.batches, None)


def mlp():
    rng = np.random.default_rng(1)
    nodes = [
        node("Gemm", "x w1 b1", "h1", name="fc1", transB=1),
        node("Relu", "h1", "r1"),
        node("MatMul", "r1 w2", "h2", name="fc2"),
        node("Relu", "h2", "r2"),
        node("Gemm", "r2 w3 b3", "y", name="fc3"),
    ]
    shapes = {"w1": (40, 30), "b1": (40,), "w2": (40, 20), "w3": (20, 10), "b3": (10,)}
    weights = [array(name, rng.normal(size=shape)) for name, shape in shapes.items()]
    return model(nodes, [floats("x", "N", 30)], [floats("y", "N", 10)], weights), (30,)


def cnn():
    rng = np.random.default_rng(2)
    nodes = [
        node("Conv", "x w1 b1", "c1", name="conv1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "r1"),
        node("MaxPool", "r1", "p1", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p1 w2 b2", "c2", name="conv2", pads=[0, 0, 1, 1], group=2),
        node("Relu", "c2", "r2"),
        node("Flatten", "r2", "f"),
        node("Gemm", "f w3 b3", "y", name="fc", transB=1),
    ]
    shapes = {"w1": (6, 2, 3, 3), "b1": (6,), "w2": (8, 3, 3, 3), "b2": (8,), "w3": (10, 72), "b3": (10,)}
    weights = [array(name, rng.normal(size=shape)) for name, shape in shapes.items()]
    return model(nodes, [floats("x", "N", 2, 8, 8)], [floats("y", "N", 10)], weights), (2, 8, 8)


def quantised(proto, shape, folder, form, symmetric=True):
    """Return the path of a model as onnxruntime quantises it, and samples for it.

    Its weights have 7 bits, since with 8 its own kernels for AVX2 saturate.
    """
    x = np.random.default_rng(7).normal(size=(16, *shape)).astype(np.float32)
    path = str(folder / f"{form.name}.onnx")
    logging.getLogger().setLevel(logging.ERROR)
    quantize_static(
        saved(proto, folder / "floats.onnx"), path, Samples(x), quant_format=form, per_channel=True, reduce_range=True,
        activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
    )  # fmt: skip
    return path, x


@pytest.mark.parametrize("made", [mlp, cnn])
def test_a_machine_of_integers_gives_what_onnxruntimes_integer_kernels_give(made, tmp_path):
    proto, shape = made()
    path, x = quantised(proto, shape, tmp_path, QuantFormat.QDQ)
    integers, _ = quantised(proto, shape, tmp_path, QuantFormat.QOperator)
    expected = onnxruntime.InferenceSession(integers, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    network = read_onnx(path)
    out, record = emulated(network, x)
    assert np.array_equal(out, expected)
    scales = [layer.scales for layer in record.layers]
    assert len(scales) == 3
    assert scales[0] == scales[-1] == BOTH
    assert set(scales) <= {BOTH, "a per tensor, the model's; b per tensor, the model's"}

    other, own = emulated(network, x, layers={"*": OWN})
    assert not np.array_equal(other, expected)
    assert all("the model's" not in layer.scales for layer in own.layers)
    costs = [[(layer.cycles, layer.energy_j, layer.macs) for layer in one.layers] for one in (record, own)]
    assert costs[0] == costs[1]


@pytest.mark.parametrize("made", [mlp, cnn])
def test_operators_on_integers_have_these_as_operands(made, tmp_path):
    proto, shape = made()
    for gemm in [one for one in proto.graph.node if one.op_type == "Gemm"]:  # QGemm is none of ONNX's own operators
        gemm.op_type, weight = "MatMul", next(w for w in proto.graph.initializer if w.name == gemm.input[1])
        if any(one.name == "transB" for one in gemm.attribute):
            weight.CopyFrom(array(weight.name, onnx.numpy_helper.to_array(weight).T))
        del gemm.attribute[:], gemm.input[2:]
    path, x = quantised(proto, shape, tmp_path, QuantFormat.QOperator)
    expected = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    out, record = emulated(read_onnx(path), x)
    assert np.array_equal(out, expected)
    assert {layer.scales for layer in record.layers} == {"a per tensor, the model's; b per tensor, the model's"}


def test_integers_less_a_zero_point_that_an_operand_does_not_hold_are_scaled_by_the_machine(tmp_path):
    path, x = quantised(*cnn(), tmp_path, QuantFormat.QDQ, symmetric=False)
    _, record = emulated(read_onnx(path), x)
    words = "a per tensor by max, dynamic, powers of two; b per channel, the model's"
    assert [layer.scales for layer in record.layers] == [words] * 3
    assert any(
        "conv2, fc: activations are not scaled as the model has it, but from the values at hand: integers from 0 to "
        "255 less the zero point, which int8 does not hold" in warning
        for warning in record.warnings
    )


# --- sums of integers, by numpy ---------------------------------------------------------------------------------------


def pair(name, scale, zero, dtype):
    """Return the nodes that quantise a value `name` and give it back as `name_q`, and their initialisers."""
    nodes = [
        node("QuantizeLinear", f"{name} {name}_s {name}_z", f"{name}_i"),
        node("DequantizeLinear", f"{name}_i {name}_s {name}_z", f"{name}_q"),
    ]
    return nodes, [array(f"{name}_s", scale), array(f"{name}_z", zero, dtype)]


def weights(shape, axis, seed=5):
    """Return a node that gives weights as `w_q`, its initialisers, the integers and their scales, one along an axis."""
    rng = np.random.default_rng(seed)
    integers = rng.integers(-128, 128, shape).astype(np.int8)
    scales = rng.uniform(0.001, 0.1, shape[axis]).astype(np.float32)
    held = [array("w", integers, np.int8), array("w_s", scales), array("w_z", np.zeros(shape[axis]), np.int8)]
    return node("DequantizeLinear", "w w_s w_z", "w_q", axis=axis), held, integers.astype(np.int64), scales


def levels(x, scale, zero, dtype):
    """Return the integers of x less their zero point."""
    limits = np.iinfo(dtype)
    return np.clip(np.rint(x / np.float32(scale)) + zero, limits.min, limits.max).astype(np.int64) - zero


def sample(*shape, seed=9):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("transposed", [False, True], ids=["as it is", "through Transpose"])
@pytest.mark.parametrize("op", ["MatMul", "Gemm", "Gemm transB"])
@pytest.mark.parametrize(
    ("dtype", "zero", "operands"),
    [(np.int8, 0, "int8"), (np.uint8, 128, "int8"), (np.uint8, 0, "uint8*int8"), (np.int8, 3, "int16"),
     (np.uint16, 32768, "int16*int8"), (np.uint8, 5, "fp16")],
)  # fmt: skip
def test_products_are_of_the_integers_of_the_file(op, transposed, dtype, zero, operands, tmp_path):
    scale, outputs_first = 0.0173, (op == "Gemm transB") != transposed
    nodes, held = pair("x", scale, zero, dtype)
    made, own, integers, scales = weights((5, 7) if outputs_first else (7, 5), 0 if outputs_first else 1)
    turn = [node("Transpose", "w_q", "w_t", perm=[1, 0])] if transposed else []
    product = node(
        op.split()[0], f"x_q {'w_t' if transposed else 'w_q'}", "y", name="p", **{"transB": 1} if "B" in op else {}
    )
    proto = model([*nodes, made, *turn, product], [floats("x", "N", 7)], [floats("y", "N", 5)], [*held, *own])
    x = sample(40, 7)
    form = operands.split("*") if "*" in operands else operands
    rule = EXACT | {"mac": "exact(fp64)", "operands": form, "output": "fp64"}
    out, record = emulated(read_onnx(saved(proto, tmp_path / "net.onnx")), x, layers={"*": rule})
    assert record.layers[0].scales == BOTH
    sums = levels(x, scale, zero, dtype) @ (integers.T if outputs_first else integers)
    np.testing.assert_array_equal(np.rint(out.astype(np.float64) / (np.float64(np.float32(scale)) * scales)), sums)


@pytest.mark.parametrize("group", [1, 2])
def test_convolutions_are_of_the_integers_of_the_file_in_every_channel(group, tmp_path):
    nodes, held = pair("x", 0.021, 0, np.int8)
    made, own, integers, scales = weights((6, 4 // group, 3, 3), 0)
    conv = node("Conv", "x_q w_q", "y", name="c", group=group, pads=[1, 0, 2, 0])
    proto = model([*nodes, made, conv], [floats("x", "N", 4, 5, 5)], [floats("y", "N", 6, 6, 3)], [*held, *own])
    x = sample(3, 4, 5, 5)
    out, record = emulated(read_onnx(saved(proto, tmp_path / "net.onnx")), x, layers={"*": EXACT})
    assert record.layers[0].scales == BOTH
    image = torch.nn.functional.pad(torch.from_numpy(levels(x, 0.021, 0, np.int8)).double(), (0, 0, 1, 2))
    sums = torch.nn.functional.conv2d(image, torch.from_numpy(integers).double(), groups=group).numpy()
    np.testing.assert_array_equal(np.rint(out / (np.float32(0.021) * scales[:, None, None])), sums)


def test_stacks_of_activations_are_products_of_the_integers_of_the_file(tmp_path):
    nodes, held = zip(pair("q", 0.03, 0, np.int8), pair("k", 0.05, 0, np.int8), strict=True)
    turn = node("Transpose", "k_q", "k_t", perm=[0, 2, 1])
    proto = model(
        [*nodes[0], *nodes[1], turn, node("MatMul", "q_q k_t", "y", name="scores")],
        [floats("q", "N", 6, 8), floats("k", "N", 5, 8)], [floats("y", "N", 6, 5)], [*held[0], *held[1]],
    )  # fmt: skip
    q, k = sample(3, 6, 8), sample(3, 5, 8, seed=10)
    out, record = emulated(read_onnx(saved(proto, tmp_path / "net.onnx")), q, k, layers={"*": EXACT})
    assert record.layers[0].scales == "a per tensor, the model's; b per tensor, the model's"
    sums = levels(q, 0.03, 0, np.int8) @ levels(k, 0.05, 0, np.int8).swapaxes(1, 2)
    np.testing.assert_array_equal(np.rint(out / np.float32(0.03) / np.float32(0.05)), sums)


def test_a_product_whose_operands_torch_exchanges_does_not_exchange_their_scales(tmp_path):
    nodes, held = zip(pair("a", 0.03, 0, np.int8), pair("b", 5.0, 0, np.int8), strict=True)
    turn = node("Transpose", "b_q", "b_t", perm=[0, 2, 1])
    proto = model(
        [*nodes[0], *nodes[1], turn, node("MatMul", "a_q b_t", "y", name="p")],
        [floats("a", 8), floats("b", 4, 5, 8)], [floats("y", 4, 5)], [*held[0], *held[1]],
    )  # fmt: skip
    a, b = sample(8), 200 * sample(4, 5, 8, seed=10)
    out, record = emulated(read_onnx(saved(proto, tmp_path / "net.onnx")), a, b, layers={"*": EXACT})
    assert any("a product computed as mv, which may exchange its operands" in one for one in record.warnings)
    exact = 0.15 * levels(a, 0.03, 0, np.int8) @ levels(b, 5.0, 0, np.int8).swapaxes(1, 2)
    assert np.abs(out - exact).max() < 0.05 * np.abs(exact).max()


def test_a_normalisation_is_not_folded_into_the_integers_of_the_file(tmp_path):
    nodes, held = pair("x", 0.021, 0, np.int8)
    made, own, _, _ = weights((6, 4, 1, 1), 0)
    rng = np.random.default_rng(3)
    norm = [array(name, rng.uniform(0.5, 2, 6)) for name in ("gain", "shift", "mean", "var")]
    proto = model(
        [*nodes, made, node("Conv", "x_q w_q", "c", name="c"),
         node("BatchNormalization", "c gain shift mean var", "y", name="n")],
        [floats("x", "N", 4, 5, 5)], [floats("y", "N", 6, 5, 5)], [*held, *own, *norm],
    )  # fmt: skip
    x = sample(3, 4, 5, 5)
    network = read_onnx(saved(proto, tmp_path / "net.onnx"))
    out, record = emulated(network, x, layers={"*": EXACT}, fold_batch_norm=True)
    assert record.layers[0].scales == BOTH
    with torch.no_grad():  # whose products of integers are exact too, but for the roundings of float32
        np.testing.assert_allclose(out, network(torch.from_numpy(x)).numpy(), rtol=1e-5, atol=1e-4)


def test_scales_of_input_channels_move_into_weights_which_then_have_their_own(tmp_path):
    nodes, held = pair("x", 0.021, 5, np.int8)
    made, own, _, _ = weights((7, 5), 1)
    proto = model(
        [*nodes, made, node("MatMul", "x_q w_q", "y", name="p")], [floats("x", "N", 7)], [floats("y", "N", 5)],
        [*held, *own],
    )  # fmt: skip
    network = read_onnx(saved(proto, tmp_path / "net.onnx"))
    out, record = emulated(network, sample(4, 7), layers={"*": EXACT | {"activations": "channel"}})
    assert "the model's" not in record.layers[0].scales
    assert any("the scales of input channels move into these weights" in warning for warning in record.warnings)
    with torch.no_grad():
        exact = network(torch.from_numpy(sample(4, 7))).numpy()
    assert np.abs(out - exact).max() < 0.05 * np.abs(exact).max()


# --- what is followed, and what is not --------------------------------------------------------------------------------


def operands_of(nodes, held, tmp_path):
    proto = model(nodes, [floats("x", "N", 7)], [floats("y", "N", 5)], held)
    return model_scales(read_onnx(saved(proto, tmp_path / "net.onnx"))).get("p", (None, None))


@pytest.mark.parametrize(
    ("between", "follows"),
    [
        ([node("Reshape", "x_q to", "m")], True),
        ([node("Unsqueeze", "x_q one", "u"), node("Squeeze", "u one", "m")], True),
        ([node("Relu", "x_q", "r"), node("Identity", "r", "f"), node("Flatten", "f", "m")], True),
        ([node("Add", "x_q x_s", "m")], False),
        ([node("Sigmoid", "x_q", "m")], False),
    ],
)
def test_scales_are_followed_through_what_only_moves_values(between, follows, tmp_path):
    nodes, held = pair("x", 0.02, 0, np.int8)
    made, own, _, scales = weights((7, 5), 1)
    held += [array("to", [-1, 7], np.int64), array("one", [1], np.int64)]
    product = node("MatMul", "m w_q", "y", name="p")
    first, second = operands_of([*nodes, *between, made, product], [*held, *own], tmp_path)
    assert (first is not None) == follows
    if follows:
        assert (first.scales, first.low, first.high, first.refusal) == ((float(np.float32(0.02)),), -128, 127, "")
    assert second == ModelScales(tuple(scales.tolist()), -128, 127, 1, 2)


@pytest.mark.parametrize(
    ("held", "attributes", "refusal"),
    [
        ([array("w", np.ones((7, 5)), np.int32), array("s", 0.5)], {}, "numbers of int32"),
        ([array("w", np.ones((7, 5)), np.int8), array("s", -0.5)], {}, "scales that are not between"),
        ([array("w", np.ones((7, 5)), np.int8), array("s", np.ones(7))], {"axis": 0}, "not those of the output"),
        ([array("w", np.ones((7, 5)), np.int8), array("s", np.ones(7))], {"axis": -2}, "not those of the output"),
        (
            [array("w", np.ones((7, 5)), np.int8), array("s", np.ones((7, 1)))],
            {"axis": 1, "block_size": 5},
            "by blocks",
        ),
    ],
)
def test_other_scales_are_named_and_not_taken(held, attributes, refusal, tmp_path):
    nodes = [node("DequantizeLinear", "w s", "w_q", **attributes), node("MatMul", "x w_q", "y", name="p")]
    proto = model(nodes, [floats("x", "N", 7)], [floats("y", "N", 5)], held, opset=21)
    network = read_onnx(saved(proto, tmp_path / "net.onnx"))
    _, record = emulated(network, sample(4, 7))
    own = "by max, dynamic, powers of two"
    assert record.layers[0].scales == f"a per tensor {own}; b per channel {own}"
    assert any(warning.startswith("p: weights are not scaled") and refusal in warning for warning in record.warnings)


def test_values_in_a_float_type_that_does_not_tell_integers_apart_are_not_taken(tmp_path):
    held = [array("w", np.full((7, 5), 100), np.int8), helper.make_tensor("s", TensorProto.BFLOAT16, [], [0.5])]
    nodes = [node("DequantizeLinear", "w s", "w_q"), node("MatMul", "x w_q", "y", name="p")]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.BFLOAT16, ["N", size]) for name, size in (("x", 7), ("y", 5))
    ]
    network = read_onnx(saved(model(nodes, ends[:1], ends[1:], held, opset=21), tmp_path / "net.onnx"))
    with simulator.emulate(network, MACHINE) as run, torch.no_grad():
        network(torch.ones(4, 7, dtype=torch.bfloat16))
    assert "the model's" not in run.result.layers[0].scales
    assert any("values in bfloat16, which does not tell their integers apart" in one for one in run.result.warnings)
