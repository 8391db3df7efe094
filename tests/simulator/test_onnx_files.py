"""ONNX files as networks: modules by the names of nodes, weights shared, values freed; samples of every kind."""

import copy
import gc
import inspect
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

import simulator  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.network.evaluation import evaluate  # noqa: E402
from simulator.network.model_files import load_model  # noqa: E402
from simulator.network.onnx_files import read_onnx  # noqa: E402
from simulator.network.onnx_operators import registry  # noqa: E402
from simulator.network.samples import load_samples  # noqa: E402
from simulator.run import run  # noqa: E402
from tests.simulator.onnx_models import (  # noqa: E402
    DOMAIN,
    array,
    floats,
    integers,
    model,
    node,
    perceptron,
    saved,
)  # fmt: skip
from tests.simulator.onnx_node_cases import PASSES, cases, outcome  # noqa: E402


@pytest.fixture
def read(tmp_path):
    """Write a model and read it as a network."""
    return lambda proto: read_onnx(saved(proto, tmp_path / "net.onnx"))


def by_hand(x):
    weights = {one.name: onnx.numpy_helper.to_array(one) for one in perceptron().graph.initializer}
    hidden = np.maximum(x @ weights["net.fc1.weight"] + weights["net.fc1.bias"], 0)
    return hidden @ weights["net.fc2.weight"] + weights["net.fc2.bias"]


# --- modules and weights ----------------------------------------------------------------------------------------------


def test_a_network_computes_what_the_file_says(read):
    x = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        np.testing.assert_allclose(read(perceptron())(x), by_hand(x.numpy()), rtol=1e-6, atol=1e-6)


def test_modules_and_parameters_have_the_names_of_the_file(read):
    network = read(perceptron())
    assert type(network.get_submodule("net.fc1.Gemm")).__name__ == "Operation"
    assert [name for name, _ in network.named_parameters()] == [
        "net.fc1.Gemm.weight", "net.fc1.Gemm.bias", "net.fc2.Gemm.weight", "net.fc2.Gemm.bias",
    ]  # fmt: skip
    assert not network.training and not list(network.buffers())[1:]  # one tells the type of the input


def test_layers_of_a_run_have_the_names_of_nodes(read):
    network, x = read(perceptron()), torch.randn(4, 6)
    with simulator.emulate(network, "npu") as emulation, torch.no_grad():
        network(x)
    assert [layer.name for layer in emulation.result.layers] == ["net.fc1.Gemm", "net.fc2.Gemm"]


def test_nodes_with_hostile_names_still_have_one_each(read):
    names = [
        "",
        "forward",
        "a/b",
        "a",
        "a",
        "../../x",
        "weight",
        "a" * 300,
        "/".join("abcdefgh" * 40),
        "ü: -",
        "training",
    ]
    chain = [node("Rectified", f"v{i}", f"v{i + 1}", name=name) for i, name in enumerate(names)]
    network = read(model(chain, [floats("v0", "N", 2)], [floats(f"v{len(names)}", "N", 2)]))
    operations = [path for path, module in network.named_modules() if type(module).__name__ == "Operation"]
    assert len(operations) == len(names) == len(set(operations))
    assert network(torch.tensor([[-1.0, 2.0]])).tolist() == [[0.0, 2.0]]


def test_nodes_that_share_a_tensor_share_one_parameter(read):
    twice = [node("Affine", "x w", "a", name="one"), node("Affine", "a w", "y", name="two")]
    network = read(model(twice, [floats("x", "N", 2)], [floats("y", "N", 2)], [array("w", np.eye(2) * 3)]))
    assert network.one.w is network.two.w and len(list(network.parameters())) == 1
    assert network(torch.ones(1, 2)).tolist() == [[9.0, 9.0]]


def test_numbers_integers_and_infinities_are_no_parameters(read):
    chain = [node("Plus", "x one", "a"), node("Plus", "a mask", "b"), node("Plus", "b places", "y")]
    tensors = [array("one", 1.0), array("mask", [0.0, -np.inf]), array("places", [1, 2], np.int64)]
    network = read(model(chain, [floats("x", "N", 2)], [floats("y", "N", 2)], tensors))
    assert not list(network.parameters())
    assert network(torch.zeros(1, 2)).tolist() == [[2.0, -np.inf]]


def test_constants_of_nodes_and_their_other_names_are_weights_of_their_users(read):
    chain = [
        node("Constant", "", "w", value=array("", [[2.0, 0.0], [0.0, 2.0]])),
        node("Identity", "w", "again"),
        node("Affine", "x again", "y", name="layer"),
    ]
    network = read(model(chain, [floats("x", "N", 2)], [floats("y", "N", 2)]))
    assert [name for name, _ in network.named_parameters()] == ["layer.w"] and len(network._modules) == 1
    assert network(torch.ones(1, 2)).tolist() == [[2.0, 2.0]]


def test_values_are_freed_after_their_last_use(read):
    chain = [node("Plus", f"v{i} v{i}", f"v{i + 1}", name=f"n{i}") for i in range(6)]
    network = read(model(chain, [floats("v0", "N")], [floats("v6", "N")]))
    alive, seen = [], []

    def watch(module, given, output):
        seen.append(weakref.ref(output))
        alive.append(sum(one() is not None for one in seen))

    for name, module in network.named_children():
        assert name.startswith("n")
        module.register_forward_hook(watch)
    gc.disable()
    try:
        assert network(torch.ones(3)).tolist() == [64.0] * 3
    finally:
        gc.enable()
    assert max(alive) == 2, alive  # the input of a node and its output


def test_a_copy_computes_the_same_and_shares_nothing(read):
    network = read(perceptron())
    twin, x = copy.deepcopy(network), torch.randn(2, 6)
    with torch.no_grad():
        assert torch.equal(twin(x), network(x))
        next(iter(twin.parameters())).zero_()
        assert not torch.equal(twin(x), network(x))


def test_a_network_made_double_computes_in_double(read):
    x = torch.randn(3, 6, dtype=torch.float64)
    with torch.no_grad():
        result = read(perceptron()).double()(x)
    assert result.dtype == torch.float64
    np.testing.assert_allclose(result, by_hand(x.numpy()), rtol=1e-12)


def test_gradients_reach_inputs_and_weights(read):
    network, x = read(perceptron()), torch.randn(3, 6, requires_grad=True)
    network(x).square().sum().backward()
    assert x.grad.abs().sum() > 0 and all(one.grad is not None for one in network.parameters())


def test_nodes_in_any_order_are_sorted(read):
    proto = perceptron()
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    x = torch.randn(2, 6)
    with torch.no_grad():
        np.testing.assert_allclose(read(proto)(x), by_hand(x.numpy()), rtol=1e-5, atol=1e-6)


# --- inputs and outputs -----------------------------------------------------------------------------------------------


def test_inputs_are_given_by_name_or_in_order(read):
    chain = [node("Plus", "input.1 2nd:0", "a"), node("Plus", "a class", "y")]
    network = read(
        model(chain, [floats("input.1", "N"), floats("2nd:0", "N"), floats("class", "N")], [floats("y", "N")])
    )
    assert list(inspect.signature(network.forward).parameters) == ["input_1", "_2nd_0", "_class"]
    one, two, three = torch.ones(1), torch.ones(1) * 2, torch.ones(1) * 3
    assert network(one, _2nd_0=two, _class=three).item() == network(one, two, three).item() == 6.0
    with pytest.raises(TypeError, match="missing a required argument: '_class'"):
        network(one, two)


def test_names_that_no_argument_can_have_become_those_that_one_can(read):
    names = ["x²", "2", "größe", "a:b", "a_b", "½"]
    chain = [node("Identity", name, f"y{i}") for i, name in enumerate(names)]
    network = read(model(chain, [floats(name, "N") for name in names], [floats(f"y{i}") for i in range(len(names))]))
    assert list(inspect.signature(network.forward).parameters) == ["x_", "_2", "größe", "a_b", "a_b_1", "_"]


def test_an_input_that_the_file_has_a_value_for_may_be_left_out(read):
    chain = [node("Plus", "x shift", "y")]
    inputs = [floats("shift", 2), floats("x", "N", 2)]
    network = read(model(chain, inputs, [floats("y", "N", 2)], [array("shift", [1.0, 2.0])]))
    assert str(inspect.signature(network.forward)) == "(x, shift=None)"
    assert network(torch.zeros(1, 2)).tolist() == [[1.0, 2.0]]
    assert network(torch.zeros(1, 2), shift=torch.ones(2)).tolist() == [[1.0, 1.0]]


def test_old_files_list_their_weights_among_the_inputs(read):
    chain = [node("Affine", "x w", "y", name="layer")]
    inputs = [floats("x", "N", 2), floats("w", 2, 2)]
    proto = model(chain, inputs, [floats("y", "N", 2)], [array("w", np.eye(2))], opset=11, ir_version=3)
    network = read(proto)
    assert list(inspect.signature(network.forward).parameters) == ["x"]
    assert [name for name, _ in network.named_parameters()] == ["layer.w"]


def test_several_outputs_come_by_name(read):
    chain = [node("Halves", "x", "left right"), node("Plus", "left right", "logits")]
    network = read(model(chain, [floats("x", "N", 4)], [floats("right", "N", 2), floats("logits", "N", 2)]))
    found = network(torch.arange(4.0).reshape(1, 4))
    assert {name: value.tolist() for name, value in found.items()} == {"right": [[2.0, 3.0]], "logits": [[2.0, 4.0]]}
    result = evaluate(network, "npu", torch.randn(8, 4))
    assert result.samples == 8


def test_an_output_may_be_an_input_or_a_constant(read):
    outputs = [floats("x", "N"), floats("w", 2)]
    found = read(model([], [floats("x", "N")], outputs, [array("w", [1.0, 2.0])]))(torch.ones(1))
    assert found["x"].tolist() == [1.0] and found["w"].tolist() == [1.0, 2.0]


def test_integers_and_floats_become_the_types_that_the_file_declares(read):
    inputs = [
        integers("ids", "N", type=TensorProto.INT32),
        helper.make_tensor_value_info("h", TensorProto.FLOAT16, ["N"]),
    ]
    outputs = [
        integers("same", "N", type=TensorProto.INT32),
        helper.make_tensor_value_info("g", TensorProto.FLOAT16, ["N"]),
    ]
    network = read(model([node("Identity", "ids", "same"), node("Identity", "h", "g")], inputs, outputs))
    found = network(torch.tensor([1, 2]), torch.tensor([0.5, 1.5]))
    assert found["same"].dtype == torch.int32 and found["g"].dtype == torch.float16


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.zeros(2, 5), r"input pixels: is given shape \(2, 5\); expected \(N, 6\), as the file declares it"),
        (torch.zeros(6), r"input pixels: is given shape \(6,\); expected \(N, 6\)"),
        (torch.zeros(2, 6, dtype=torch.int64), "input pixels: is given int64; expected float32, as the file declares"),
        (torch.zeros(2, 6, dtype=torch.bool), "input pixels: is given bool; expected float32"),
        (None, "input pixels: is given NoneType; expected a tensor"),
    ],
)
def test_what_does_not_fit_the_declared_input_is_refused(read, given, message):
    with pytest.raises(InputError, match=message):
        read(perceptron())(given)


def test_integers_beyond_the_declared_type_are_refused(read):
    network = read(
        model([node("Identity", "x", "y")], [integers("x", "N", type=TensorProto.INT8)], [integers("y", "N")])
    )
    with pytest.raises(InputError, match=r"net.onnx: input x: is given 200; expected -128 to 127, as int8 holds them"):
        network(torch.tensor([3, 200]))


# --- subgraphs and functions ------------------------------------------------------------------------------------------


def test_a_branch_sees_the_values_and_weights_around_it(read):
    def branch(weight):
        return helper.make_graph(
            [node("Affine", f"x {weight}", "z", name="layer")], "branch", [], [floats("z", "N", 2)]
        )

    chain = [
        node("Less", "x limit", "flags"), node("Identity", "flag", "chosen"),
        node("If", "chosen", "y", name="pick", then_branch=branch("a"), else_branch=branch("b")),
    ]  # fmt: skip
    inputs = [floats("x", "N", 2), helper.make_tensor_value_info("flag", TensorProto.BOOL, [1])]
    tensors = [array("a", np.eye(2)), array("b", np.eye(2) * 5), array("limit", 0.0)]
    network = read(model(chain, inputs, [floats("y", "N", 2)], tensors))
    assert {name for name, _ in network.named_parameters()} == {"pick.then_branch.layer.a", "pick.else_branch.layer.b"}
    x = torch.ones(1, 2)
    assert network(x, torch.tensor([True])).tolist() == [[1.0, 1.0]]
    assert network(x, torch.tensor([False])).tolist() == [[5.0, 5.0]]


def test_nodes_whose_outputs_nobody_asks_for_just_run(read):
    empty = helper.make_graph([], "branch", [], [])
    chain = [
        helper.make_node("If", ["flag"], [], then_branch=empty, else_branch=empty),
        node("Identity", "x", "y"),
    ]  # fmt: skip
    inputs = [floats("x", "N"), helper.make_tensor_value_info("flag", TensorProto.BOOL, [])]
    network = read(model(chain, inputs, [floats("y", "N")]))
    assert network(torch.ones(2), torch.tensor(True)).tolist() == [1.0, 1.0]


def loop_body():
    return helper.make_graph(
        [node("Plus", "total x", "next"), node("Less", "next limit", "goes"), node("Identity", "next", "seen")],
        "body",
        [integers("i"), helper.make_tensor_value_info("c", TensorProto.BOOL, []), floats("total", 1)],
        [helper.make_tensor_value_info("goes", TensorProto.BOOL, [1]), floats("next", 1), floats("seen", 1)],
    )


@pytest.mark.parametrize(("rounds", "steps"), [("rounds", 2), ("", 4)])
def test_a_loop_ends_by_its_count_or_its_condition(read, rounds, steps):
    chain = [node("Loop", "", "total all", body=loop_body())]
    del chain[0].input[:]
    chain[0].input.extend([rounds, "", "start"])
    tensors = [array("rounds", 2, np.int64), array("start", [0.0]), array("limit", 4.0)]
    found = read(model(chain, [floats("x", 1)], [floats("total", 1), floats("all", "T", 1)], tensors))(torch.ones(1))
    assert found["total"].tolist() == [float(steps)]
    assert found["all"].tolist() == [[float(i + 1)] for i in range(steps)]


def test_a_loop_without_end_is_refused(read, monkeypatch):
    monkeypatch.setattr("simulator.network.onnx_operators.control.MAX_ROUNDS", 50)
    chain = [helper.make_node("Loop", ["", "", "start"], ["total"], body=loop_body_without_end())]
    network = read(model(chain, [floats("x", 1)], [floats("total", 1)], [array("start", [0.0])]))
    with pytest.raises(InputError, match=r"node 0 \(Loop\): a loop that has not ended after 50 rounds"):
        network(torch.ones(1))


def loop_body_without_end():
    flag = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    goes = helper.make_tensor_value_info("goes", TensorProto.BOOL, [])
    nodes = [node("Plus", "total x", "next"), node("Identity", "c", "goes")]
    return helper.make_graph(nodes, "body", [integers("i"), flag, floats("total", 1)], [goes, floats("next", 1)])


def test_a_function_of_the_file_becomes_a_module_with_its_nodes_inside(read):
    body = [
        node("Affine", "x w", "a", name="inner"),
        helper.make_node("Power", ["a"], ["y"], domain=DOMAIN, name="power"),
    ]
    reference = body[1].attribute.add(name="exponent", type=onnx.AttributeProto.INT, ref_attr_name="degree")
    assert reference.ref_attr_name == "degree"
    imports = [helper.make_opsetid("", 18), helper.make_opsetid(DOMAIN, 1)]
    function = helper.make_function("local", "Layer", ["x", "w"], ["y"], body, imports, attributes=["degree"])
    chain = [
        helper.make_node("Layer", ["x", "w1"], ["h"], domain="local", name="first", degree=3),
        helper.make_node("Layer", ["h", "w2"], ["y"], domain="local", name="second"),
    ]
    tensors = [array("w1", np.eye(2) * 2), array("w2", np.eye(2))]
    network = read(model(chain, [floats("x", "N", 2)], [floats("y", "N", 2)], tensors, functions=[function]))
    assert [name for name, _ in network.named_parameters()] == ["first.inner.w1", "second.inner.w2"]
    assert network(torch.ones(1, 2)).tolist() == [[64.0, 64.0]]  # (2 ** 3) ** 2: without a value, the operator's own


@pytest.mark.parametrize("op", ["CastLike", "SequenceMap"])
def test_an_operator_without_a_function_here_is_expanded_as_onnx_defines_it(op, tmp_path, monkeypatch):
    """Its body depends on the types of its inputs, which the file declares."""
    monkeypatch.delitem(registry._OPERATORS, ("", op))
    named = "test_castlike_FLOAT_to_DOUBLE" if op == "CastLike" else "test_sequence_map_identity_2_sequences"
    case = cases()[named]
    assert outcome(case, tmp_path) == PASSES
    network = read_onnx(str(tmp_path / f"{named}.onnx"))
    assert type(next(network.children())).__name__ == "Body"


def test_attributes_left_out_have_the_values_of_the_operator(read, monkeypatch):
    """Of a function that ONNX defines, whose body refers to them."""
    monkeypatch.delitem(registry._OPERATORS, ("", "ThresholdedRelu"), raising=False)
    for op in ("Less", "Where"):
        monkeypatch.setitem(registry._OPERATORS, ("", op), {})
    registry.operator("Less")(lambda node, a, b: a < b)
    registry.operator("Where")(lambda node, flags, a, b: torch.where(flags, a, b))
    network = read(model([node("ThresholdedRelu", "x", "y")], [floats("x", "N")], [floats("y", "N")]))
    assert network(torch.tensor([0.5, 1.5])).tolist() == [0.0, 1.5]  # the threshold is 1


def test_every_analysis_takes_a_file(tmp_path):
    network = load_model(saved(perceptron(), tmp_path / "net.onnx"))
    x, y = torch.randn(8, 6, generator=torch.Generator().manual_seed(4)), torch.arange(8) % 3
    assert simulator.bounds.certify(network, x, precision=16).certified.any()
    with simulator.track(network) as bits:
        reading = bits.of(network(x))
    assert 0 < int(reading.bits("safe").float().mean()) < 24  # some digits are lost, and that is known
    before = [one.clone() for one in network.parameters()]
    for one in network.parameters():
        one.requires_grad_(True)
    simulator.training.fit(network, (x, y), storage="e8m6", rounding="rz", epochs=1)
    assert all(not torch.equal(one, old) for one, old in zip(network.parameters(), before, strict=True))


def test_what_an_analysis_refuses_is_said_in_its_own_words(read):
    network = read(model([node("Sorted", "x", "y")], [floats("x", "N", 3)], [floats("y", "N", 3)]))
    with pytest.raises(InputError, match=r"^bounds: "):
        simulator.bounds.certify(network, torch.randn(4, 3), precision=16)


# --- external data ----------------------------------------------------------------------------------------------------


def test_external_data_are_read_from_the_folder_of_the_file(tmp_path):
    (tmp_path / "data").mkdir()
    path = tmp_path / "large.onnx"
    onnx.save_model(perceptron(), path, save_as_external_data=True, location="data/large.bin", size_threshold=0)
    x = torch.randn(2, 6)
    with torch.no_grad():
        np.testing.assert_allclose(read_onnx(str(path))(x), by_hand(x.numpy()), rtol=1e-5, atol=1e-6)
    assert (tmp_path / "data" / "large.bin").stat().st_size >= 4 * (48 + 8 + 24 + 3)


# --- the jobs ---------------------------------------------------------------------------------------------------------


def test_the_main_job_runs_a_file(tmp_path, monkeypatch, command):
    saved(perceptron(), tmp_path / "net.onnx")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.normal(size=(20, 6)), y=rng.integers(0, 3, 20))
    result = run("npu", "net.onnx", data="data.npz")
    assert [layer.name for layer in result.layers] == ["net.fc1.Gemm", "net.fc2.Gemm"]
    assert result.accuracy["exact"] is not None
    code, output, error = command("--hw", "npu", "--model", "net.onnx", "--data", "data.npz")
    assert code == 0 and "net.fc1.Gemm" in output, error


def test_a_loaded_network_is_checked_like_any_other(tmp_path):
    proto = perceptron()
    proto.graph.initializer[1].CopyFrom(array("net.fc1.bias", [np.nan] * 8))
    path = saved(proto, tmp_path / "net.onnx")
    with pytest.raises(InputError, match=r"net.fc1.Gemm.*holds NaN"):
        load_model(path)
    loaded = load_model(saved(perceptron(), tmp_path / "net.onnx"))
    assert not any(one.requires_grad for one in loaded.parameters())


def test_a_file_of_fixed_batches_runs_in_exactly_those(tmp_path):
    x = np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    free = load_model(saved(perceptron(), tmp_path / "free.onnx"))
    fixed = load_model(saved(perceptron(4), tmp_path / "fixed.onnx"))
    assert (getattr(free, "fixed_batch", 0), fixed.fixed_batch) == (None, 4)
    sizes = []
    fixed.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    samples = load_samples(str(tmp_path / "data.npz"), None, fixed)
    found = evaluate(fixed, "npu", samples.x)
    assert set(sizes[1:]) <= {1, 4} and sizes.count(4) >= 3 * 4  # one alone is tried by the recording pass
    wanted = evaluate(free, "npu", samples.x)
    assert found.forward_error == wanted.forward_error and found.layers[0].m == wanted.layers[0].m == 12


def test_samples_that_fill_no_fixed_batch_are_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((10, 6), np.float32))
    network = load_model(saved(perceptron(4), tmp_path / "fixed.onnx"))
    with pytest.raises(
        InputError, match=r"10 samples; expected a multiple of 4, as many as fixed takes at a time; give --samples 8"
    ):
        load_samples(str(tmp_path / "data.npz"), None, network)
    assert load_samples(str(tmp_path / "data.npz"), 8, network).size == 8
    with pytest.raises(InputError, match="batch: got 3; expected 4"):
        evaluate(network, "npu", torch.zeros(8, 6), batch=3)
