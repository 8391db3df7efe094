"""The operators of ONNX against onnxruntime: settings that are seldom used, on small random inputs in float32."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import helper  # noqa: E402

from simulator.errors import InputError  # noqa: E402
from simulator.network.onnx_operators import generators  # noqa: E402
from simulator.network.onnx_operators.registry import Declined, Node, find  # noqa: E402
from simulator.network.tap import Tap  # noqa: E402

UINT8, INT8 = np.uint8, np.int8


def ints(*values, dtype=np.int64):
    return np.array(values, dtype)


def floats(*values):
    return np.array(values, np.float32)


def draw(shape, low=-2.0, high=2.0, seed=0, dtype=np.float32):
    """Return random values of a shape, of an integer type within its range."""
    rng = np.random.default_rng([seed, *shape])
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)
        return rng.integers(max(low, limits.min), min(high, limits.max), shape, endpoint=True).astype(dtype)
    return rng.uniform(low, high, shape).astype(dtype)


def by_torch(op, inputs, outputs, version, attributes):
    """Return the outputs of the registered function, as arrays."""
    names = tuple(f"y{i}" for i in range(outputs))
    operands = [None if x is None else torch.from_numpy(np.array(x)) for x in inputs]
    with torch.no_grad():
        result = find("", op, version)(Node(op, "", version, attributes, names, op), *operands)
    every = result if isinstance(result, tuple) else (result,)
    return [x.numpy() for x in every[:outputs]]


def by_onnxruntime(op, inputs, outputs, version, attributes):
    """Return the outputs of onnxruntime on a model of one node; skips the test if it does not implement that."""
    given = {f"x{i}": np.array(x) for i, x in enumerate(inputs) if x is not None}
    names = [f"x{i}" if x is not None else "" for i, x in enumerate(inputs)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], **attributes)
    types = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in given.items()
    ]
    graph = helper.make_graph([node], "one", types, [helper.make_empty_tensor_value_info(n) for n in node.output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=10)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} does not implement it: {error}")
    return session.run(None, given)


def compare(op, *inputs, outputs=1, version=17, exact=False, **attributes):
    """Assert that both give the same: shapes, types, values within 1e-5 of the largest, or the same integers."""
    expected = by_onnxruntime(op, inputs, outputs, version, attributes)
    for ours, theirs in zip(by_torch(op, inputs, outputs, version, attributes), expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        if np.issubdtype(theirs.dtype, np.floating) and not exact:
            finite = np.abs(theirs[np.isfinite(theirs)])
            scale = finite.max(initial=0.0)
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5 * scale)
        else:
            np.testing.assert_array_equal(ours, theirs)


SPECIAL = floats(0.0, -0.0, 1.0, -1.5, 2.5, 0.5, np.inf, -np.inf, np.nan, 1e-40, 3e38)


@pytest.mark.parametrize(
    "op", ["Abs", "Neg", "Exp", "Floor", "Ceil", "Round", "Relu", "Sigmoid", "Tanh", "Erf", "Softplus"]
)
def test_functions_of_one_operand_take_special_values(op):
    compare(op, SPECIAL)


@pytest.mark.parametrize("op", ["IsNaN", "IsInf"])
def test_what_is_special_is_found(op):
    compare(op, SPECIAL, version=13)


def test_one_sign_of_infinity_is_found():
    compare("IsInf", SPECIAL, version=13, detect_negative=0)
    compare("IsInf", SPECIAL, version=13, detect_positive=0)


@pytest.mark.parametrize(
    "op", ["Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh", "Asinh", "Softsign", "HardSigmoid", "HardSwish", "Elu", "Selu"]
)
def test_functions_of_one_operand(op):
    compare(op, draw((3, 5), -4, 4))


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [("Asin", -1, 1), ("Acos", -1, 1), ("Atanh", -0.99, 0.99), ("Acosh", 1, 9), ("Log", 0.01, 9), ("Sqrt", 0, 9),
     ("Reciprocal", 0.1, 3)],
)  # fmt: skip
def test_functions_on_their_domain(op, low, high):
    compare(op, draw((4, 7), low, high))


@pytest.mark.parametrize(
    ("op", "version", "attributes"),
    [
        ("LeakyRelu", 16, {"alpha": 0.3}), ("Elu", 6, {"alpha": 0.7}), ("Selu", 6, {"alpha": 1.5, "gamma": 0.8}),
        ("Celu", 12, {"alpha": 0.6}), ("HardSigmoid", 6, {"alpha": 0.4, "beta": 0.3}), ("Mish", 18, {}),
        ("ThresholdedRelu", 10, {"alpha": 0.4}), ("Shrink", 9, {"bias": 0.2, "lambd": 0.7}), ("Gelu", 20, {}),
        ("Gelu", 20, {"approximate": "tanh"}),
    ],
)  # fmt: skip
def test_activations_with_parameters(op, version, attributes):
    compare(op, draw((3, 4, 5), -4, 4), version=max(version, 11), **attributes)


def test_slopes_of_prelu_are_broadcast():
    compare("PRelu", draw((2, 3, 4, 5)), draw((3, 1, 1)))
    compare("PRelu", draw((2, 3, 4)), draw((1,)))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize(("version", "axis"), [(11, 1), (11, 2), (11, -1), (11, 0), (13, 1), (13, 0), (13, -2)])
def test_softmax_and_its_relatives_along_axes_of_both_versions(op, version, axis):
    compare(op, draw((2, 3, 4)), version=version, axis=axis)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min", "Pow"])
@pytest.mark.parametrize("shapes", [((3, 4, 5), (4, 1)), ((2, 1, 3), (5, 1)), ((), (2, 3)), ((0, 3), (1, 3))])
def test_operands_are_broadcast(op, shapes):
    low = 0.5 if op in ("Div", "Pow") else -2.0
    compare(op, draw(shapes[0], low), draw(shapes[1], low, seed=1))


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_arithmetic_of_integers(op, dtype):
    b = draw((6, 5), 1, 9, 1, dtype) * np.array([1, -1, 1, -1, 1], dtype)
    compare(op, draw((6, 5), -50, 50, 0, dtype), b)


@pytest.mark.parametrize("fmod", [0, 1])
@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.int8])
def test_remainders_of_integers_have_the_sign_of_one_operand(fmod, dtype):
    b = draw((6, 5), 1, 9, 1, dtype) * np.array([1, -1, 1, -1, 1], dtype)
    compare("Mod", draw((6, 5), -50, 50, 0, dtype), b, fmod=fmod)


def test_remainders_of_floats():
    compare("Mod", draw((6, 5), -9, 9), draw((6, 5), 1, 3, seed=1) * floats(1, -1, 1, -1, 1), fmod=1)


def test_sums_and_means_of_several():
    for op in ("Sum", "Mean", "Max", "Min"):
        compare(op, draw((3, 4)), draw((4,), seed=1), draw((2, 1, 1), seed=2))


@pytest.mark.parametrize("bounds", [(-0.5, 0.7), (None, 0.2), (-0.3, None), (0.9, -0.9)])
def test_clip_takes_either_bound(bounds):
    compare("Clip", draw((4, 5)), *(None if bound is None else np.float32(bound) for bound in bounds))


@pytest.mark.parametrize("op", ["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"])
def test_comparisons_take_special_values(op):
    compare(op, SPECIAL[:, None], SPECIAL)


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic_is_broadcast(op):
    compare(op, np.array([[True], [False]]), np.array([True, False]))


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.uint64])
def test_bits_are_shifted(direction, dtype):
    compare("BitShift", draw((4, 5), 0, 200, 0, dtype), draw((5,), 0, 7, 1, dtype), direction=direction)


REDUCTIONS = ["Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"]


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [(0,), (-1,), (1, -1), (2, 0), None])
def test_reductions_over_axes_of_either_version(op, keep, axes):
    x = draw((2, 3, 4), 0.1, 2)
    along = [] if axes is None else [ints(*axes)]
    compare(f"Reduce{op}", x, *along, version=18, keepdims=keep)
    attribute = {} if axes is None else {"axes": list(axes)}
    compare(f"Reduce{op}", x, version=11, keepdims=keep, **attribute)


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min", "Prod"])
def test_reductions_over_no_axes_change_nothing(op):
    compare(f"Reduce{op}", draw((2, 3)), ints(), version=18, noop_with_empty_axes=1)


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("settings", list(itertools.product([0, 1, -1], [0, 1], [0, 1])))
def test_places_of_extremes_with_ties(op, settings):
    axis, keep, last = settings
    compare(op, draw((4, 5), 0, 2, 0, np.int32), axis=axis, keepdims=keep, select_last_index=last)


@pytest.mark.parametrize("settings", list(itertools.product([0, 1], [0, 1], [0, -1])))
def test_running_sums(settings):
    exclusive, reverse, axis = settings
    compare("CumSum", draw((3, 4)), ints(axis), exclusive=exclusive, reverse=reverse)


@pytest.mark.parametrize(
    "shapes", [((3, 4), (4, 5)), ((2, 3, 4), (4, 5)), ((4,), (4, 5)), ((3, 4), (4,)), ((2, 1, 3, 4), (5, 4, 2))]
)
def test_products_of_matrices_are_broadcast(shapes):
    compare("MatMul", draw(shapes[0]), draw(shapes[1], seed=1))


@pytest.mark.parametrize("c", [None, (), (5,), (3, 1), (1, 5), (3, 5)])
@pytest.mark.parametrize("settings", [(1.0, 1.0, 0, 0), (0.5, 1.0, 1, 0), (1.0, 0.25, 0, 1), (2.0, -0.5, 1, 1)])
def test_gemm_transposed_scaled_and_with_any_addend(c, settings):
    alpha, beta, first, second = settings
    a, b = draw((4, 3) if first else (3, 4)), draw((5, 4) if second else (4, 5), seed=1)
    addend = [] if c is None else [draw(c, seed=2)]
    compare("Gemm", a, b, *addend, alpha=alpha, beta=beta, transA=first, transB=second)


EINSUM = [
    "bij,bjk->bik", "ij->ji", "ij,ij->", "bij, bjk -> b", "...ij,...jk->...ik", "ij,jk", "bij,ij", "kk->k", "kk",
    "...ij,jk", "ij,jk,kk->ik", "ij,jk,bjk,bij->bk", "...ij,jk,...jk->i...", "bij,jk,kk,i", "i,j,k->kji", "C,i,C",
]  # fmt: skip


@pytest.mark.parametrize("equation", EINSUM)
def test_einsum(equation):
    shapes = {
        "bij": (2, 3, 4), "bjk": (2, 4, 5), "ij": (3, 4), "...ij": (2, 3, 4), "...jk": (2, 4, 5), "jk": (4, 5),
        "kk": (5, 5), "i": (3,), "j": (4,), "k": (5,), "C": (2,),
    }  # fmt: skip
    operands = [draw(shapes[term.strip()], seed=i) for i, term in enumerate(equation.split("->")[0].split(","))]
    compare("Einsum", *operands, equation=equation)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(2, 3)]), ("ij", [(2, 3), (3, 2)]), ("ij,jk->ik", [(2, 3), (3,)]), ("ij->iq", [(2, 3)]),
        ("i1->i", [(2, 3)]), ("i->->i", [(2,)]), ("...ij->i", [(2,)]), ("", [(2,)]), ("ij,.jk", [(2, 3), (3, 2)]),
    ],
)  # fmt: skip
def test_an_equation_that_is_none_of_its_operands_is_declined(equation, shapes):
    with pytest.raises(Declined, match=f"an equation '{equation}' for operands of "):
        by_torch("Einsum", [draw(shape) for shape in shapes], 1, 17, {"equation": equation})


CONVOLUTIONS = [
    ((2, 4, 9), (6, 4, 3), {"pads": [2, 0], "strides": [2]}),
    ((1, 4, 7, 8), (6, 2, 3, 2), {"group": 2, "pads": [1, 0, 2, 3], "dilations": [2, 1], "strides": [1, 2]}),
    ((2, 4, 7, 8), (8, 1, 3, 3), {"group": 4, "pads": [1, 1, 1, 1]}),
    ((1, 3, 7, 10), (5, 3, 4, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    ((1, 3, 7, 10), (5, 3, 4, 3), {"auto_pad": "SAME_LOWER", "strides": [2, 3]}),
    ((1, 3, 7, 10), (5, 3, 4, 3), {"auto_pad": "VALID", "kernel_shape": [4, 3]}),
    ((1, 2, 5, 6, 7), (3, 2, 2, 3, 3), {"pads": [1, 0, 1, 1, 2, 0], "strides": [1, 2, 1]}),
]


@pytest.mark.parametrize(("x", "w", "attributes"), CONVOLUTIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_convolutions(x, w, attributes, bias):
    compare("Conv", draw(x), draw(w, seed=1), *([draw(w[:1], seed=2)] if bias else []), **attributes)


TRANSPOSED = [
    ((1, 4, 5), (4, 3, 3), {"strides": [2], "pads": [1, 1], "output_padding": [1]}),
    ((1, 4, 5, 6), (4, 2, 3, 2), {"group": 2, "strides": [2, 3], "pads": [0, 1, 2, 0]}),
    ((1, 4, 5, 6), (4, 3, 3, 3), {"strides": [2, 2], "pads": [0, 0, 1, 1], "output_padding": [1, 1]}),
    ((1, 4, 5, 6), (4, 3, 3, 3), {"strides": [3, 2], "output_shape": [15, 12], "auto_pad": "SAME_UPPER"}),
    ((1, 4, 5, 6), (4, 3, 3, 4), {"strides": [2, 2], "output_shape": [9, 13]}),
    ((1, 4, 5, 6), (4, 3, 3, 3), {"dilations": [2, 1], "pads": [2, 1, 2, 1]}),
    ((1, 2, 3, 4, 3), (2, 3, 2, 3, 2), {"strides": [1, 2, 2], "pads": [0, 1, 0, 1, 0, 0]}),
]


@pytest.mark.parametrize(("x", "w", "attributes"), TRANSPOSED)
@pytest.mark.parametrize("bias", [False, True])
def test_transposed_convolutions(x, w, attributes, bias):
    channels = w[1] * attributes.get("group", 1)
    compare("ConvTranspose", draw(x), draw(w, seed=1), *([draw((channels,), seed=2)] if bias else []), **attributes)


POOLS = [
    ((1, 3, 10), {"kernel_shape": [3], "strides": [2], "pads": [1, 0]}),
    ((2, 3, 7, 8), {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 0, 0, 1]}),
    ((2, 3, 7, 8), {"kernel_shape": [3, 2], "strides": [2, 3], "ceil_mode": 1}),
    ((2, 3, 7, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ((1, 2, 9, 9), {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 9, 9), {"kernel_shape": [4, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 2, 5, 6, 7), {"kernel_shape": [2, 3, 2], "strides": [1, 2, 2], "pads": [1, 1, 0, 0, 1, 1]}),
]


@pytest.mark.parametrize(("x", "attributes"), POOLS)
@pytest.mark.parametrize("outputs", [1, 2])
def test_largest_of_windows_and_where_they_lie(x, attributes, outputs):
    compare("MaxPool", draw(x), outputs=outputs, **attributes)


def test_places_of_the_largest_by_columns_and_dilated():
    compare("MaxPool", draw((2, 3, 6, 7)), outputs=2, kernel_shape=[2, 3], storage_order=1, pads=[0, 1, 1, 1])
    compare("MaxPool", draw((2, 3, 9, 9)), kernel_shape=[3, 2], dilations=[2, 3], strides=[2, 1])
    compare("MaxPool", draw((1, 2, 6, 6), 0, 255, 0, UINT8), kernel_shape=[3, 3], pads=[1, 1, 0, 0])


@pytest.mark.parametrize(("x", "attributes"), POOLS)
@pytest.mark.parametrize("included", [0, 1])
def test_averages_of_windows(x, attributes, included):
    compare("AveragePool", draw(x), version=19, count_include_pad=included, **attributes)


def test_averages_of_dilated_windows():
    compare("AveragePool", draw((1, 2, 9, 9)), version=19, kernel_shape=[3, 2], dilations=[2, 3], pads=[1, 0, 1, 1])


@pytest.mark.parametrize("p", [1, 2, 3])
def test_norms_of_windows(p):
    compare("LpPool", draw((1, 2, 7, 8)), version=18, kernel_shape=[3, 2], strides=[2, 2], pads=[1, 0, 1, 1], p=p)
    compare("GlobalLpPool", draw((2, 3, 4, 5)), p=p)


@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
def test_pools_over_everything(op):
    compare(op, draw((2, 3, 4, 5, 2)))


def test_unpooled_elements_lie_where_they_were():
    x = draw((2, 3, 6, 8))
    pooled, places = by_torch("MaxPool", [x], 2, 17, {"kernel_shape": [2, 2], "strides": [2, 2]})
    compare("MaxUnpool", pooled, places, kernel_shape=[2, 2], strides=[2, 2])


def test_normalisations():
    x, scale, bias = draw((2, 6, 4, 5)), draw((6,), seed=1), draw((6,), seed=2)
    mean, variance = draw((6,), seed=3), draw((6,), 0.1, 2, seed=4)
    compare("BatchNormalization", x, scale, bias, mean, variance, version=15, epsilon=1e-3)
    compare("BatchNormalization", x, scale, bias, mean, variance, version=11, epsilon=1e-3)
    compare("InstanceNormalization", x, scale, bias, epsilon=1e-2)
    compare("GroupNormalization", x, scale, bias, version=21, num_groups=3)
    compare("LRN", x, size=5, alpha=0.3, beta=0.6, bias=1.5)
    compare("LpNormalization", x, axis=2, p=1)
    compare("LpNormalization", x, axis=-1, p=2)
    compare("MeanVarianceNormalization", x, axes=[0, 2], version=13)


def test_an_even_number_of_channels_around_each_has_one_more_behind_it():
    x = draw((2, 6, 4, 5))  # onnxruntime takes odd numbers only
    attributes = {"size": 4, "alpha": 0.3, "beta": 0.6, "bias": 1.5}
    sums = np.stack([(x[:, max(0, c - 1) : c + 3] ** 2).sum(1) for c in range(6)], 1)
    np.testing.assert_allclose(by_torch("LRN", [x], 1, 17, attributes)[0], x / (1.5 + 0.3 / 4 * sums) ** 0.6, rtol=1e-5)


@pytest.mark.parametrize("axis", [1, -1, 0])
def test_layers_are_normalised_from_an_axis_on(axis):
    x = draw((2, 3, 4))
    shape = x.shape[axis % 3 :]
    compare("LayerNormalization", x, draw(shape, seed=1), draw(shape, seed=2), axis=axis, outputs=3)
    compare("LayerNormalization", x, draw(shape, seed=1), axis=axis, epsilon=0.1)
    compare("RMSNormalization", x, draw(shape, seed=1), axis=axis, version=23)


def recurrent(gates, directions, steps=5, batch=3, size=4, hidden=2):
    x = draw((steps, batch, size))
    w, r = draw((directions, gates * hidden, size), seed=1), draw((directions, gates * hidden, hidden), seed=2)
    return x, w, r, draw((directions, 2 * gates * hidden), seed=3), draw((directions, batch, hidden), seed=4)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("lengths", [None, (5, 2, 3)])
@pytest.mark.parametrize("op", ["RNN", "GRU", "LSTM"])
def test_recurrent_layers_in_all_directions_on_sequences_of_all_lengths(op, lengths, direction):
    count = 2 if direction == "bidirectional" else 1
    x, w, r, b, h = recurrent({"RNN": 1, "GRU": 3, "LSTM": 4}[op], count)
    given = None if lengths is None else ints(*lengths, dtype=np.int32)
    more = [draw(h.shape, seed=5), draw((count, 6), seed=6)] if op == "LSTM" else []
    outputs = 3 if op == "LSTM" else 2
    compare(op, x, w, r, b, given, h, *more, version=14, hidden_size=2, direction=direction, outputs=outputs)


@pytest.mark.parametrize("before", [0, 1])
def test_gru_resets_before_or_behind_its_product(before):
    x, w, r, b, _ = recurrent(3, 1)
    compare("GRU", x, w, r, b, version=14, hidden_size=2, linear_before_reset=before, clip=0.5, outputs=2)
    compare("GRU", x, w, r, version=14, hidden_size=2, linear_before_reset=before, outputs=2)


def test_lstm_clipped_coupled_and_with_other_activations():
    x, w, r, b, _ = recurrent(4, 1)
    compare("LSTM", x, w, r, b, version=14, hidden_size=2, clip=0.3, outputs=3)
    compare("LSTM", x, w, r, b, version=14, hidden_size=2, input_forget=1, outputs=3)
    compare(
        "LSTM", x, w, r, b, version=14, hidden_size=2, outputs=3, activations=["HardSigmoid", "Softsign", "ScaledTanh"],
        activation_alpha=[0.3, 0.7], activation_beta=[0.4, 1.1],
    )  # fmt: skip


def test_rnn_with_an_activation_for_each_direction():
    x, w, r, b, h = recurrent(1, 2)
    compare(
        "RNN", x, w, r, b, None, h, version=14, hidden_size=2, direction="bidirectional", outputs=2,
        activations=["LeakyRelu", "Affine"], activation_alpha=[0.3, 0.2], activation_beta=[0.1],
    )  # fmt: skip


ATTENTION = [
    ((2, 3, 4, 8), (2, 3, 6, 8), (2, 3, 6, 5), {}),
    ((2, 3, 4, 8), (2, 3, 4, 8), (2, 3, 4, 5), {"is_causal": 1, "scale": 0.3}),
    ((2, 6, 4, 8), (2, 2, 6, 8), (2, 2, 6, 5), {"softcap": 1.5}),
    ((2, 4, 24), (2, 6, 24), (2, 6, 15), {"q_num_heads": 3, "kv_num_heads": 3}),
]


@pytest.mark.parametrize(("q", "k", "v", "attributes"), ATTENTION)
def test_attention(q, k, v, attributes):
    compare("Attention", draw(q), draw(k, seed=1), draw(v, seed=2), version=23, **attributes)


@pytest.mark.parametrize("kind", [bool, np.float32])
def test_attention_masked_with_past_keys(kind):
    mask = draw((4, 9), seed=3) > -1 if kind is bool else draw((4, 9), seed=3)
    q, k, v = draw((2, 3, 4, 8)), draw((2, 3, 6, 8), seed=1), draw((2, 3, 6, 5), seed=2)
    past = draw((2, 3, 3, 8), seed=4), draw((2, 3, 3, 5), seed=5)
    compare("Attention", q, k, v, mask, *past, version=23, outputs=3)


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embeddings(interleaved):
    cos, sin = draw((9, 3)), draw((9, 3), seed=1)
    positions = ints([0, 3, 8, 1], [2, 2, 5, 7])
    compare(
        "RotaryEmbedding", draw((2, 4, 24)), cos, sin, positions, version=23, interleaved=interleaved, num_heads=3,
        rotary_embedding_dim=6,
    )  # fmt: skip


def test_shapes():
    x = draw((2, 3, 4))
    compare("Reshape", x, ints(0, -1, 2), version=14)
    compare("Reshape", draw((0, 3)), ints(3, 0), version=14, allowzero=1)
    compare("Transpose", x, perm=[1, 2, 0])
    compare("Transpose", x)
    compare("Flatten", x, axis=-1)
    compare("Flatten", x, axis=3)
    compare("Squeeze", draw((1, 3, 1)), ints(-1), version=13)
    compare("Squeeze", draw((1, 3, 1)), version=11, axes=[0])
    compare("Squeeze", draw((1, 3, 1)), version=13)
    compare("Unsqueeze", x, ints(-1, 1), version=13)
    compare("Unsqueeze", x, version=11, axes=[0, 4])
    compare("Expand", draw((3, 1)), ints(2, 1, 6))
    compare("Tile", x, ints(2, 1, 3))
    compare("Concat", x, draw((2, 1, 4), seed=1), axis=-2)
    compare("Trilu", x, np.array(-1), version=14, upper=0)
    compare("EyeLike", draw((3, 5)), k=1)


def test_splits():
    x = draw((2, 7))
    compare("Split", x, ints(3, 0, 4), axis=1, version=13, outputs=3)
    compare("Split", x, axis=-1, version=11, split=[2, 5], outputs=2)
    compare("Split", x, axis=1, version=18, num_outputs=3, outputs=3)


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps"),
    [((1, -3), (5, 100), (0, 1), (2, 1)), ((-1,), (-100,), (1,), (-2,)), ((4, 5), (0, 1), (1, 0), (-1, -3)),
     ((3,), (1,), (0,), (1,)), ((-100,), (3,), (-1,), (1,)), ((100,), (0,), (0,), (-1,))],
)  # fmt: skip
def test_slices(starts, ends, axes, steps):
    compare("Slice", draw((6, 7)), ints(*starts), ints(*ends), ints(*axes), ints(*steps))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge", "wrap"])
def test_padding(mode):
    x = draw((2, 4, 5))
    compare("Pad", x, ints(0, 1, 3, 0, 2, 4), np.float32(1.5), version=19, mode=mode)
    compare("Pad", x, ints(2, 1), np.float32(0), ints(-1), version=19, mode=mode)
    if mode == "constant":
        compare("Pad", x, ints(0, -1, 1, 0, 2, -2), np.float32(1.5), version=19, mode=mode)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space_and_back(mode):
    compare("DepthToSpace", draw((2, 12, 3, 4)), mode=mode, blocksize=2)
    compare("SpaceToDepth", draw((2, 3, 6, 4)), blocksize=2)


def test_indices():
    x = draw((3, 4, 5))
    compare("Gather", x, ints([0, -1], [2, 1]), axis=1)
    compare("Gather", x, np.array(-2), axis=2)
    compare("GatherElements", x, draw((3, 2, 5), -4, 3, 1, np.int64), axis=1)
    compare("GatherND", x, ints([0, 1], [-1, 3]))
    compare("GatherND", x, ints([[1], [0]], [[3], [2]], [[-1], [-4]]), batch_dims=1)
    compare("OneHot", ints([1, -1], [5, 0]), np.array(4), floats(0.5, 2.0), axis=1)
    compare("Compress", x, np.array([True, False, True]), axis=1)
    compare("Compress", x, np.array([False, True, True, False]))
    compare("NonZero", draw((3, 4), -1, 1, 0, np.int64))
    compare("Where", np.array([[True], [False]]), draw((3,)), draw((2, 1), seed=1))
    compare("ReverseSequence", draw((4, 3, 2)), ints(1, 4, 2), time_axis=0, batch_axis=1)
    compare("ReverseSequence", draw((3, 4, 2)), ints(1, 4, 2), time_axis=1, batch_axis=0)


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scattered_updates(reduction):
    x = draw((3, 4, 5))
    places = ints([[0, 2], [1, 3], [-1, 0]], [[2, 1], [0, 0], [1, -2]])
    compare(
        "ScatterElements", x, ints([[0, -1, 1, 2, 3]]), draw((1, 1, 5), seed=1), axis=1, reduction=reduction, version=18
    )
    compare("ScatterND", x, places, draw((2, 3, 5), seed=1), reduction=reduction, version=18)


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
def test_the_largest_with_ties(largest, axis):
    compare("TopK", draw((5, 6), 0, 3, 0, np.int64), ints(4), axis=axis, largest=largest, outputs=2)


@pytest.mark.parametrize("ordered", [0, 1])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_different_elements_and_slices(ordered, axis):
    along = {} if axis is None else {"axis": axis}
    compare("Unique", draw((6, 2), 0, 1, 0, np.float32).round(), outputs=4, sorted=ordered, **along)


RESIZED = list(itertools.product(
    ["nearest", "linear", "cubic"], ["half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners"],
    [(1, 1, 9, 10), (1, 1, 2, 3), (1, 1, 7, 4)],
))  # fmt: skip


@pytest.mark.parametrize(("mode", "places", "sizes"), RESIZED)
def test_resizing_to_sizes(mode, places, sizes):
    x = draw((1, 1, 4, 5))
    attributes = {"mode": mode, "coordinate_transformation_mode": places}
    compare("Resize", x, None, None, ints(*sizes), version=19, **attributes)


@pytest.mark.parametrize("rule", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("scale", [0.6, 1.7, 2.0])
def test_resizing_to_the_nearest(rule, scale):
    compare("Resize", draw((1, 1, 6, 5)), None, floats(1, 1, scale, 2), version=13, mode="nearest", nearest_mode=rule)


@pytest.mark.parametrize("places", ["half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners"])
def test_resizing_of_version_11_has_empty_operands_for_what_is_not_given(places):
    x, nothing, attributes = draw((1, 1, 4, 5)), floats(), {"coordinate_transformation_mode": places}
    compare("Resize", x, nothing, nothing, ints(1, 1, 7, 8), version=11, **attributes)
    compare("Resize", x, nothing, floats(1, 1, 2, 2.6), version=11, mode="nearest", **attributes)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resizing_excludes_what_lies_outside(mode):
    outside = int(mode == "cubic")
    compare("Resize", draw((1, 1, 6, 5)), None, floats(1, 1, 0.8, 1.6), version=19, mode=mode, exclude_outside=outside)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_resizing_without_aliasing(mode):
    compare(
        "Resize",
        draw((1, 1, 8, 9)),
        None,
        floats(1, 1, 0.5, 0.4),
        version=19,
        mode=mode,
        antialias=1,
        exclude_outside=1,
    )


def test_resizing_a_region():
    region = floats(0, 0, 0.2, -0.1, 1, 1, 0.9, 1.2)
    attributes = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 7.0}
    compare("Resize", draw((1, 1, 6, 5)), region, None, ints(1, 1, 4, 7), version=13, mode="linear", **attributes)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("corners", [0, 1])
def test_samples_of_a_grid(mode, padding, corners):
    grid = draw((2, 4, 3, 2), -1.3, 1.3, seed=1)
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    compare("GridSample", draw((2, 3, 5, 6)), grid, version=20, **attributes)


@pytest.mark.parametrize("corners", [0, 1])
def test_grids_of_affine_maps(corners):
    compare("AffineGrid", draw((2, 2, 3)), ints(2, 3, 4, 5), version=20, align_corners=corners)


def test_middles_of_images():
    compare("CenterCropPad", draw((5, 8, 3)), ints(7, 5), version=18, axes=[0, 1])
    compare("CenterCropPad", draw((4, 7)), ints(7, 4), version=18)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("transform", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("samples", [0, 2])
def test_bins_of_regions(mode, transform, samples):
    regions = floats([0.3, 1.2, 6.7, 5.1], [2.0, 0.5, 4.0, 7.5], [-1.0, -1.0, 9.5, 8.5])
    compare(
        "RoiAlign", draw((2, 3, 8, 9), 0.1, 2), regions, ints(0, 1, 1), version=16, mode=mode, output_height=3,
        output_width=2, coordinate_transformation_mode=transform, sampling_ratio=samples, spatial_scale=0.8,
    )  # fmt: skip


@pytest.mark.parametrize("centred", [0, 1])
def test_boxes_that_overlap_better_ones_are_dropped(centred):
    boxes, scores = draw((2, 30, 4), 0.1, 1), draw((2, 3, 30), 0, 1)
    limits = ints(6), floats(0.3), floats(0.2)
    compare("NonMaxSuppression", boxes, scores, *limits, center_point_box=centred)


QUANTISED = {"uint8": UINT8, "int8": INT8}


@pytest.mark.parametrize("kind", QUANTISED)
def test_quantised_along_an_axis_and_back(kind):
    scale, zero = draw((3,), 0.01, 0.05), draw((3,), -3, 9, 1, QUANTISED[kind])
    x = draw((2, 3, 5), -6, 6)
    compare("QuantizeLinear", x, scale, zero, version=13)
    compare("DequantizeLinear", draw((2, 3, 5), -128, 255, 0, QUANTISED[kind]), scale, zero, version=13)
    compare("QuantizeLinear", floats(0.5, 1.5, 2.5, -0.5, 300, -300), np.float32(1), np.array(3, QUANTISED[kind]))


def test_quantised_by_blocks():
    scale, zero = draw((2, 3), 0.01, 0.05), draw((2, 3), 0, 9, 1, UINT8)
    compare("QuantizeLinear", draw((2, 6), -3, 6), scale, zero, version=21, axis=1, block_size=2)
    compare("DequantizeLinear", draw((2, 6), 0, 255, 0, UINT8), scale, zero, version=21, axis=1, block_size=2)


@pytest.mark.parametrize(
    ("x", "scale", "attributes", "message"),
    [
        ((4, 1), (5,), {}, r"\(5,\) for \(4, 1\) along axis 1"),  # which would become (4, 5)
        ((2, 3), (1, 3), {}, r"\(1, 3\) for \(2, 3\) along axis 1"),
        ((4, 1), (1, 5), {"axis": 0, "block_size": 4}, r"\(1, 5\) for \(4, 1\) along axis 0 by blocks of 4"),
    ],
)
def test_scales_of_other_numbers_than_the_places_are_declined(x, scale, attributes, message):
    for op, values in (("QuantizeLinear", draw(x)), ("DequantizeLinear", draw(x, 0, 9, 1, UINT8))):
        with pytest.raises(Declined, match=f"scales or zero points {message}"):
            by_torch(op, [values, draw(scale, 0.1, 1)], 1, 21, attributes)


def test_quantised_by_its_own_range():
    for low, high in ((-2, 3), (0.5, 3), (-3, -1)):
        compare("DynamicQuantizeLinear", draw((3, 7), low, high), outputs=3)


def test_integer_products():
    a, b = draw((3, 40), 0, 255, 0, UINT8), draw((40, 5), -128, 127, 1, INT8)
    compare("MatMulInteger", a, b, np.array(7, UINT8), np.array(-3, INT8))
    compare("MatMulInteger", a, b, np.array(7, UINT8), draw((5,), -9, 9, 2, INT8))
    x, w = draw((1, 3, 6, 7), 0, 255, 0, UINT8), draw((4, 3, 3, 2), 0, 255, 1, UINT8)
    compare("ConvInteger", x, w, np.array(130, UINT8), np.array(120, UINT8), pads=[1, 0, 2, 1], strides=[2, 1])


def test_quantised_products():
    a, b = draw((3, 40), 0, 255, 0, UINT8), draw((40, 5), -128, 127, 1, INT8)
    scales = np.float32(0.02), np.float32(0.03), np.float32(0.4)
    compare(
        "QLinearMatMul",
        a,
        scales[0],
        np.array(7, UINT8),
        b,
        scales[1],
        np.array(-3, INT8),
        scales[2],
        np.array(120, UINT8),
    )
    x, w = draw((1, 4, 6, 7), 0, 255, 0, UINT8), draw((6, 2, 3, 2), -128, 127, 1, INT8)
    compare(
        "QLinearConv", x, scales[0], np.array(130, UINT8), w, draw((6,), 0.01, 0.05), np.zeros(6, INT8), scales[2],
        np.array(120, UINT8), draw((6,), -900, 900, 3, np.int32), group=2, pads=[1, 0, 2, 1], dilations=[1, 2],
    )  # fmt: skip


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows_of_signals(op, periodic):
    compare(op, np.array(9), periodic=periodic)


@pytest.mark.parametrize("parts", [1, 2])
def test_fourier_transforms(parts):
    x = draw((2, 9, 3, parts))
    compare("DFT", x, version=17, axis=1)
    compare("DFT", x, np.array(12), version=17, axis=2)
    compare("DFT", x, np.array(6), np.array(1), version=20)
    compare("DFT", x, None, np.array(1), version=20, inverse=1)
    if parts == 1:
        compare("DFT", x, None, np.array(1), version=20, onesided=1)


def test_spectra_of_frames():
    compare("STFT", draw((2, 30, 1)), np.array(4), draw((8,), 0, 1), np.array(8), onesided=1)
    compare("STFT", draw((2, 30, 1)), np.array(5), None, np.array(10), onesided=0)


def test_mel_weights():
    compare("MelWeightMatrix", np.array(8), np.array(64), np.array(8000), np.float32(20), np.float32(3900))


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("ignored", [{}, {"ignore_index": 2}])
def test_losses(reduction, ignored):
    scores, labels, weights = draw((3, 5, 4)), draw((3, 4), 0, 4, 1, np.int64), draw((5,), 0.1, 1, 2)
    attributes = {"reduction": reduction, **ignored}
    compare("SoftmaxCrossEntropyLoss", scores, labels, weights, version=13, outputs=2, **attributes)
    compare("SoftmaxCrossEntropyLoss", scores, labels, version=13, **attributes)
    compare("NegativeLogLikelihoodLoss", scores, labels, weights, version=13, **attributes)


def test_ranges_and_columns():
    compare("Range", np.float32(1), np.float32(-2.1), np.float32(-0.3))
    compare("Range", np.array(3), np.array(9), np.array(4))
    compare("Range", np.array(3), np.array(9), np.array(-4))
    columns, block = draw((2, 3 * 6, 12)), ints(3, 2)
    compare("Col2Im", columns, ints(5, 6), block, version=18, pads=[0, 0, 1, 1], strides=[1, 2])


def test_deformable_convolution():
    x, w = draw((1, 4, 6, 7)), draw((6, 2, 3, 2), seed=1)
    offset, mask = draw((1, 2 * 2 * 6, 6, 3), seed=2), draw((1, 2 * 6, 6, 3), 0, 1, seed=3)
    attributes = {"pads": [1, 0, 1, 0], "strides": [1, 2], "group": 2, "offset_group": 2}
    compare("DeformConv", x, w, offset, draw((6,), seed=4), mask, version=19, **attributes)


def test_what_torch_does_not_take_is_declined_in_words():
    with pytest.raises(Declined, match="4 spatial axes; torch convolves over 1 to 3"):
        by_torch("Conv", [draw((1, 1, 2, 2, 2, 2)), draw((1, 1, 1, 1, 1, 1))], 1, 17, {})
    with pytest.raises(Declined, match="axis 3 of a tensor with 2 axes"):
        by_torch("Softmax", [draw((2, 3))], 1, 13, {"axis": 3})
    with pytest.raises(Declined, match="values of uint64 from 2\\^63 on"):
        by_torch("Less", [np.array([2**63], np.uint64), np.array([1], np.uint64)], 1, 13, {})


# --- what the tap sees ------------------------------------------------------------------------------------------------


class Operator(torch.nn.Module):
    """One operator as a module."""

    def __init__(self, op, version=17, outputs=1, **attributes):
        super().__init__()
        self.node = Node(op, "", version, attributes, tuple(f"y{i}" for i in range(outputs)), op)

    def forward(self, *inputs):
        return find("", self.node.op, self.node.version)(self.node, *inputs)


def products(operator, *inputs):
    """Return (kind, products, M, N, K) of all that an operator multiplies and adds, and what of that is no Op."""
    ops = []
    tap = Tap(operator, ops.append)
    with torch.no_grad(), tap:
        operator(*(None if x is None else torch.from_numpy(np.array(x)) for x in inputs))
    return [(op.kind, op.gemms, op.m, op.n, op.k) for op in ops], list(tap.not_emulated)


def test_products_and_convolutions_are_operations_that_the_tap_sees():
    assert products(Operator("Gemm", transB=1), draw((3, 4)), draw((5, 4)), draw((5,))) == (
        [("linear", 1, 3, 5, 4)],
        [],
    )
    assert products(Operator("MatMul"), draw((2, 3, 4)), draw((2, 4, 5))) == ([("bmm", 2, 3, 5, 4)], [])
    image, weights = draw((1, 2, 5, 5)), draw((3, 2, 3, 3))
    assert products(Operator("Conv", pads=[1, 0, 0, 0]), image, weights) == ([("conv2d", 1, 12, 3, 18)], [])
    bytes_, kernel = draw((1, 2, 5, 5), 0, 255, 0, UINT8), draw((3, 2, 3, 3), 0, 255, 1, UINT8)
    assert products(Operator("ConvInteger"), bytes_, kernel) == ([("conv2d", 1, 9, 3, 18)], [])
    assert products(Operator("Einsum", equation="bij,bjk->bik"), draw((2, 3, 4)), draw((2, 4, 5)))[1] == []


@pytest.mark.parametrize(
    "attributes",
    [{"pads": [0, 1, 2, 0]}, {"pads": [1, 2, 1, 2], "output_padding": [1, 0]}, {"auto_pad": "SAME_LOWER"}],
)
def test_biases_of_transposed_convolutions_are_in_the_accumulators(attributes):
    ops = []
    operator = Operator("ConvTranspose", strides=[2, 2], **attributes)
    with torch.no_grad(), Tap(operator, ops.append):
        operator(*(torch.from_numpy(draw(shape)) for shape in ((1, 2, 5, 5), (2, 3, 3, 3), (3,))))
    assert [(op.kind, op.addend.shape) for op in ops] == [("conv_transpose2d", (1, 1, 3))]


def test_recurrent_layers_are_one_product_of_the_input_and_one_of_the_state_for_each_step():
    x, w, r, b, _ = recurrent(4, 1)
    seen, listed = products(Operator("LSTM", 14, hidden_size=2), x, w, r, b)
    assert (seen, listed) == ([("linear", 1, 15, 8, 4), *[("linear", 1, 3, 8, 2)] * 5], [])


def test_attention_is_two_products():
    seen, listed = products(Operator("Attention", 23), draw((2, 3, 4, 8)), draw((2, 3, 6, 8)), draw((2, 3, 6, 5)))
    assert (seen, listed) == ([("bmm", 6, 4, 6, 8), ("bmm", 6, 4, 5, 6)], [])


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_drawn_numbers_are_those_of_the_seed():
    attributes = {"shape": [2000], "mean": 3.0, "scale": 0.5}
    first, again, other = (by_torch("RandomNormal", [], 1, 17, {**attributes, "seed": s})[0] for s in (1.5, 1.5, 2.5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert abs(first.mean() - 3) < 0.05
    assert abs(first.std() - 0.5) < 0.05
    (uniform,) = by_torch("RandomUniformLike", [first], 1, 17, {"low": -1.0, "high": 4.0, "seed": 1.0})
    assert uniform.shape == first.shape
    assert -1 <= uniform.min() < -0.9 < 3.9 < uniform.max() <= 4
    (drawn,) = by_torch("Bernoulli", [np.full(2000, 0.3, np.float32)], 1, 17, {"seed": 1.0})
    assert set(drawn) == {0, 1}
    assert abs(drawn.mean() - 0.3) < 0.05
    (classes,) = by_torch("Multinomial", [np.log(floats([0.2, 0.8]))], 1, 17, {"seed": 1.0, "sample_size": 2000})
    assert classes.dtype == np.int32
    assert abs(classes.mean() - 0.8) < 0.05
    with pytest.raises(Declined, match="random numbers without a seed"):
        by_torch("RandomNormal", [], 1, 17, attributes)


# --- what does not fit ------------------------------------------------------------------------------------------------

HUGE = [
    ("Range", (np.array(0), np.array(2**60), np.array(1)), {}),
    ("Range", (np.float32(0), np.float32(1e30), np.float32(1)), {}),
    ("Einsum", (draw((2**16,)), draw((2**16,)), draw((2**16,))), {"equation": "a,b,c->abc"}),
    ("Einsum", (draw((2**16,)), draw((2**16,)), draw((2**16,))), {"equation": "a,b,c"}),
    ("Einsum", (draw((2**12, 2**12)),) * 2, {"equation": "ab,...->...ab"}),
    # Of which the result is one number, and what the first three come to is not.
    ("Einsum", (draw((2**16,)),) * 6, {"equation": "a,b,c,a,b,c->"}),
    ("Tile", (draw((2, 3)), ints(2**40, 2**40)), {}),
    ("Expand", (draw((2, 1)), ints(2, 2**50)), {}),
    ("Pad", (draw((2,)), ints(0, 2**50)), {}),
    ("OneHot", (ints(1, 2), np.array(2**50), floats(0, 1)), {}),
    ("Resize", (draw((1, 1, 2, 2)), None, None, ints(1, 1, 2**40, 2**40)), {}),
    ("Resize", (draw((1, 1, 2, 2)), None, floats(1, 1, 1e18, 1)), {}),
    ("CenterCropPad", (draw((2, 2)), ints(2**40, 2**40)), {}),
    ("HannWindow", (np.array(2**50),), {}),
    ("DFT", (draw((2, 8, 1)), np.array(2**50)), {}),
    ("MelWeightMatrix", (np.array(2**30), np.array(2**30), np.array(8000), np.float32(20), np.float32(3900)), {}),
    ("LRN", (draw((1, 2, 3, 3)),), {"size": 2**50}),
    ("RandomNormal", (), {"shape": [2**30, 2**30], "seed": 1.0}),
    ("AffineGrid", (draw((1, 2, 3)), ints(1, 1, 2**30, 2**30)), {}),
    ("Col2Im", (draw((1, 4, 4)), ints(2**40 + 2, 2**40 + 2), ints(2, 2)), {"strides": [2**40, 2**40]}),
    ("Conv", (draw((1, 1, 4, 4)), draw((1, 1, 2, 2))), {"pads": [2**40] * 4}),
    ("Conv", (draw((1, 1, 4, 4)), draw((1, 1, 2, 2))), {"pads": [2**40, 0, 0, 0], "strides": [2**39, 1]}),
    ("ConvTranspose", (draw((1, 1, 4, 4)), draw((1, 1, 2, 2))), {"strides": [2**40, 2**40]}),
    ("MaxPool", (draw((1, 1, 4, 4)),), {"kernel_shape": [2, 2], "pads": [2**40] * 4}),
    ("AveragePool", (draw((1, 1, 4, 4)),), {"kernel_shape": [2, 2], "pads": [2**40, 0, 0, 0], "strides": [2**39, 1]}),
    ("MaxUnpool", (draw((1, 1, 2)), ints([[0, 1]])), {"kernel_shape": [2], "strides": [2**50]}),
]


@pytest.mark.parametrize(("op", "inputs", "attributes"), HUGE)
def test_what_does_not_fit_in_memory_is_refused_before_it_is_made(op, inputs, attributes):
    with pytest.raises(InputError, match=r"a tensor of shape \(.*half of this machine's memory"):
        by_torch(op, inputs, 1, 20, attributes)


@pytest.mark.parametrize("of", [np.array, np.float32])
def test_a_range_that_would_take_long_is_declined(of, monkeypatch):
    monkeypatch.setattr(generators, "MAX_STEPS", 1000)
    assert len(by_torch("Range", [of(0), of(2000), of(2)], 1, 17, {})[0]) == 1000
    with pytest.raises(Declined, match="a range of 1,001 numbers, where 1,000 are the most"):
        by_torch("Range", [of(0), of(2002), of(2)], 1, 17, {})


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Pad", (draw((2,)), ints(-3, 0)), {}),
        ("Tile", (draw((2, 3)), ints(1, -1)), {}), ("CenterCropPad", (draw((2, 2)), ints(-1, 2)), {}),
        ("Conv", (draw((1, 1, 4)), draw((1, 1, 9))), {}), ("MaxPool", (draw((1, 1, 4)),), {"kernel_shape": [9]}),
        ("Conv", (draw((1, 1, 4)), draw((1, 1, 2))), {"strides": [0]}),
        ("MaxPool", (draw((1, 1, 4)),), {"kernel_shape": [2], "dilations": [-1]}),
        ("AveragePool", (draw((1, 1, 4)),), {"kernel_shape": [2, 2]}),
    ],
)  # fmt: skip
def test_sizes_that_there_are_not_are_declined(op, inputs, attributes):
    with pytest.raises(
        (Declined, RuntimeError), match=r"a result of shape|less than 1|a kernel of 2 axes on 1|negative"
    ):
        by_torch(op, inputs, 1, 20, attributes)
