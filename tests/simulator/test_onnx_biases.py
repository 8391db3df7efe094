"""Linear layers that a file has as two nodes: one layer with its bias in the accumulators, or left as they are."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402
from torch import nn  # noqa: E402

from simulator.errors import InputError  # noqa: E402
from simulator.network.emulation import emulate  # noqa: E402
from simulator.network.evaluation import evaluate  # noqa: E402
from simulator.network.model_files import load_model  # noqa: E402
from simulator.network.onnx_files import read_onnx  # noqa: E402
from simulator.network.tap import Tap  # noqa: E402
from tests.simulator.onnx_models import array, floats, integers, model, node, saved  # noqa: E402

X, Y = [floats("x", "N", 5, 6)], [floats("y", "N", 5, 8)]
RNG = np.random.default_rng(0)
W, B = RNG.normal(size=(6, 8)), RNG.normal(size=8)
PRODUCT, SUM = node("MatMul", "x w", "h", name="/fc/MatMul"), node("Add", "h b", "y", name="/fc/Add")


class Encoder(nn.Module):
    """A layer of a transformer that is written out."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 8)
        self.before, self.behind = nn.LayerNorm(8), nn.LayerNorm(8)

    def forward(self, x):
        heads = [one(x).reshape(-1, 5, 2, 4).transpose(1, 2) for one in (self.query, self.key, self.value)]
        shares = (heads[0] @ heads[1].transpose(2, 3) * 0.5).softmax(-1)
        x = self.before(x + self.out((shares @ heads[2]).transpose(1, 2).reshape(-1, 5, 8)))
        return self.behind(x + self.second(torch.relu(self.first(x))))


def perceptron():
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 3), nn.Sigmoid())


def products(network, x):
    """Return the Ops of a forward pass as (kind, M, N, K, whether it has an addend)."""
    ops = []
    with torch.no_grad(), Tap(network, ops.append):
        network(x)
    return [(op.kind, op.m, op.n, op.k, op.addend is not None) for op in ops]


def outputs(path, x):
    """Return the outputs of a file by onnxruntime and by the network that is read from it."""
    wanted = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
    with torch.no_grad():
        found = read_onnx(path)(x)
    return wanted, [one.numpy() for one in (found.values() if isinstance(found, dict) else [found])]


def compare(path, x):
    for theirs, ours in zip(*outputs(path, x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # of the exporter, which warns that there is another one
@pytest.mark.parametrize("build", [perceptron, Encoder])
def test_an_exported_network_has_the_layers_of_the_one_it_came_from(build, tmp_path):
    torch.manual_seed(0)
    origin, x, path = build().eval(), torch.randn(4, 5, 8), str(tmp_path / "net.onnx")
    torch.onnx.export(origin, (x,), path, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "N"}})
    assert "Gemm" not in {one.op_type for one in onnx.load(path).graph.node}
    compare(path, x)
    network = load_model(path)
    assert products(network, x) == products(origin, x)
    wanted, found = (evaluate(one, "npu", x) for one in (origin, network))
    assert [(one.op, one.m, one.n, one.k, one.activation) for one in found.layers] == [
        (one.op, one.m, one.n, one.k, one.activation) for one in wanted.layers
    ]
    linear = [name for name, module in origin.named_modules() if isinstance(module, nn.Linear)]
    assert [one.name for one in found.layers if one.op == "linear"] == [f"{name}.MatMul" for name in linear]


def test_a_product_and_its_bias_are_one_layer_in_either_order(tmp_path):
    for number, add in enumerate((SUM, node("Add", "b h", "y"))):
        chain = [PRODUCT, add, node("Relu", "y", "z")]
        path = saved(
            model(chain, X, [floats("z", "N", 5, 8)], [array("w", W), array("b", B)]), tmp_path / f"{number}.onnx"
        )
        network, x = load_model(path), torch.randn(3, 5, 6)
        compare(path, x)
        assert [name for name, _ in network.named_parameters()] == ["fc.MatMul.w", "fc.MatMul.b"]
        record = evaluate(network, "npu", x)
        assert [(one.name, one.op, one.activation) for one in record.layers] == [("fc.MatMul", "linear", "relu")]
        assert products(network, x) == [("linear", 15, 8, 6, True)]


def test_a_bias_that_a_node_names_behind_the_product_is_one(tmp_path):
    chain = [PRODUCT, node("Constant", "", "c", value=array("", B)), node("Identity", "c", "b"), SUM]
    path = saved(model(chain, X, Y, [array("w", W)]), tmp_path / "net.onnx")
    x = torch.randn(3, 5, 6)
    compare(path, x)
    assert products(read_onnx(path), x) == [("linear", 15, 8, 6, True)]


FORMULAS = {
    "in front": [node("Mul", "b two", "c"), PRODUCT, node("Add", "h c", "y")],
    "between": [PRODUCT, node("Mul", "two b", "c"), node("Add", "c h", "y")],
    "of a formula": [node("Neg", "b", "m"), PRODUCT, node("Sub", "b m", "c"), node("Add", "h c", "y")],
    "made a row": [node("Mul", "b twos", "c"), PRODUCT, node("Add", "h c", "y")],
    "of another type": [
        node("Cast", "b", "wide", to=TensorProto.DOUBLE), node("Cast", "wide", "c", to=TensorProto.FLOAT), PRODUCT,
        node("Add", "h c", "y"),
    ],
    "of two layers": [
        node("Mul", "b two", "c"), PRODUCT, node("MatMul", "x w", "g"), node("Add", "g c", "f"),
        node("Add", "c h", "e"), node("Sub", "e f", "y"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", FORMULAS)
def test_a_bias_that_is_a_formula_of_constants_is_one_that_training_changes(case, tmp_path):
    tensors = [array("w", W), array("b", B), array("two", 2.0), array("twos", np.full((1, 1, 1), 2.0))]
    path = saved(model(FORMULAS[case], X, Y, tensors), tmp_path / "net.onnx")
    network, x = read_onnx(path), torch.randn(3, 5, 6)
    compare(path, x)
    layers = 2 if case == "of two layers" else 1
    assert products(network, x) == [("linear", 15, 8, 6, True)] * layers
    if layers == 1:
        network(x).sum().backward()
        (bias,) = {parameter for name, parameter in network.named_parameters() if name.split(".")[-1].startswith("b")}
        assert bool((bias.grad != 0).all())
        assert [one.op for one in evaluate(network, "npu", x).layers] == ["linear"]


def test_a_bias_that_is_a_formula_has_the_bits_of_its_values(tmp_path):
    x, found = torch.randn(3, 5, 6), []
    for name, chain, bias in (("formula", FORMULAS["between"], B), ("values", [PRODUCT, SUM], 2 * B)):
        tensors = [array("w", W), array("b", bias), array("two", 2.0)]
        network = load_model(saved(model(chain, X, Y, tensors), tmp_path / f"{name}.onnx"))
        with emulate(network, "npu"):
            found.append(network(x))
    assert torch.equal(*found)


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(6,), (3, 6), (3, 5, 6), (2, 3, 5, 6)], ids=len)
def test_a_bias_that_is_a_row_is_one_and_gives_the_sum_its_axes(axes, shape, tmp_path):
    bias = B.reshape([1] * (axes - 1) + [8])
    declared = [floats("x", *shape)], [floats("y", *[None] * max(axes, len(shape)))]
    path = saved(model([PRODUCT, SUM], *declared, [array("w", W), array("b", bias)]), tmp_path / "net.onnx")
    x = torch.randn(shape)
    (wanted,), (found,) = outputs(path, x)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    ((_, *sizes, has_addend),) = products(read_onnx(path), x)
    assert sizes[1:] == [8, 6] and has_addend


def test_linear_layers_of_subgraphs_and_functions_have_their_biases(tmp_path):
    branch = helper.make_graph([PRODUCT, SUM], "branch", [], [floats("y", "N", 5, 8)])
    chosen = node("If", "flag", "z", then_branch=branch, else_branch=branch)
    imports = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "Layer", ["x", "w", "b"], ["y"], [PRODUCT, SUM], imports)
    called = helper.make_node("Layer", ["x", "w", "b"], ["z"], domain="local")
    tensors = [array("w", W), array("b", B), array("flag", True, bool)]
    for name, one in (("branch", chosen), ("function", called)):
        proto = model([one], X, [floats("z", "N", 5, 8)], tensors, functions=[function])
        path = saved(proto, tmp_path / name)
        x = torch.randn(3, 5, 6)
        compare(path, x)
        assert products(read_onnx(path), x) == [("linear", 15, 8, 6, True)]


SEEN = helper.make_graph([node("Relu", "h", "r")], "branch", [], [floats("r", "N", 5, 8)])
LEFT = {
    "two readers": ([PRODUCT, SUM, node("Relu", "h", "r")], X, [*Y, floats("r", "N", 5, 8)], B),
    "added to itself": ([PRODUCT, node("Add", "h h", "y")], X, Y, B),
    "an output": ([PRODUCT, SUM], X, [*Y, floats("h", "N", 5, 8)], B),
    "seen by a subgraph": (
        [PRODUCT, SUM, node("If", "flag", "r", then_branch=SEEN, else_branch=SEEN)],
        X, [*Y, floats("r", "N", 5, 8)], B,
    ),
    "one number for all columns": ([PRODUCT, SUM], X, Y, B[:1]),
    "a number": ([PRODUCT, SUM], X, Y, B[0]),
    "a bias for each row": ([PRODUCT, SUM], X, Y, RNG.normal(size=(5, 8))),
    "a bias for each row and sample": ([PRODUCT, SUM], X, Y, RNG.normal(size=(1, 5, 8))),
    "a bias of another formula": (
        [node("Relu", "b", "r"), node("Neg", "r", "c"), PRODUCT, node("Add", "h c", "y")], X, Y, B,
    ),
    "a bias that is computed": ([node("Relu", "b", "c"), PRODUCT, node("Add", "h c", "y")], X, Y, B),
    "a weight that is computed": ([node("Relu", "w", "v"), node("MatMul", "x v", "h"), SUM], X, Y, B),
    "a weight of three axes": (
        [node("MatMul", "x stack", "h"), SUM], X, Y, B,
    ),
    "a product from the left": (
        [node("MatMul", "square x", "h"), node("Add", "h b", "y")], X, [floats("y", "N", 5, 6)], B[:6],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_what_is_no_linear_layer_is_left_as_it_is(case, tmp_path):
    chain, inputs, results, bias = LEFT[case]
    tensors = [
        array("w", W), array("b", bias), array("flag", True, bool),
        array("stack", np.stack([W])), array("square", RNG.normal(size=(5, 5))),
    ]  # fmt: skip
    path = saved(model(chain, inputs, results, tensors), tmp_path / "net.onnx")
    x = torch.randn(3, 5, 6)
    compare(path, x)
    network = read_onnx(path)
    kinds = [module._node.op for module in network.modules() if type(module).__name__ == "Operation"]
    assert kinds.count("Add") == kinds.count("MatMul") == 1
    assert [op[-1] for op in products(network, x)] == [False]


def test_integers_are_left_as_they_are(tmp_path):
    chain = [node("MatMul", "x w", "h"), node("Add", "h b", "y")]
    tensors = [array("w", RNG.integers(-9, 9, (6, 8)), np.int32), array("b", RNG.integers(-9, 9, 8), np.int32)]
    proto = model(
        chain, [integers("x", "N", 6, type=TensorProto.INT32)], [integers("y", "N", 8, type=TensorProto.INT32)], tensors
    )
    path = saved(proto, tmp_path / "net.onnx")
    (wanted,), (found,) = outputs(path, torch.randint(-9, 9, (3, 6), dtype=torch.int32))
    np.testing.assert_array_equal(found, wanted)
    assert [module._node.op for module in read_onnx(path).children()] == ["MatMul", "Add"]


def test_damaged_nodes_are_left_to_what_refuses_them(tmp_path):
    """A graph among its attributes keeps the library from checking a node."""
    graph = helper.make_graph([], "none", [], [])
    for add in (node("Add", "h", "y", surplus=graph), helper.make_node("Add", ["h", "b"], [], surplus=graph)):
        product = helper.make_node("MatMul", ["x"], ["h"], surplus=graph)
        with pytest.raises(InputError, match=r"node 0 \(MatMul\): has 1 inputs"):
            read_onnx(saved(model([product, add], X, [floats("h")], [array("b", B)]), tmp_path / "net.onnx"))
