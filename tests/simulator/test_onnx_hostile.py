"""ONNX files that nobody has to trust: whatever is wrong with one is said in one message, and nothing else happens."""

import os
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from simulator.errors import InputError  # noqa: E402
from simulator.network import limits, onnx_build, onnx_expansion, onnx_graph  # noqa: E402
from simulator.network.model_files import load_model  # noqa: E402
from simulator.network.onnx_files import read_onnx  # noqa: E402
from simulator.network.onnx_functions import Functions, opset_versions  # noqa: E402
from simulator.network.onnx_scope import Scope  # noqa: E402
from tests.simulator.onnx_models import DOMAIN, array, floats, model, node, perceptron, saved  # noqa: E402

X, Y = [floats("x", "N", 2)], [floats("y", "N", 2)]


@pytest.fixture
def refused(tmp_path):
    """Write a model and return what is said of it, without the path that all messages begin with."""

    def message(proto, *inputs):
        path = proto if isinstance(proto, str) else saved(proto, tmp_path / "net.onnx")
        with pytest.raises(InputError) as caught:
            network = read_onnx(path)
            with torch.no_grad():
                network(*(inputs or [torch.ones(1, 2)]))
        text = str(caught.value)
        assert text.startswith(f"{path}: ") and "; expected " in text and "\n" not in text, text
        return text.removeprefix(f"{path}: ")

    return message


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [b"\x00" * 100, b"not a network at all", b"PK\x03\x04" + b"\x01" * 60, b"\xff" * 1000, b"\n\xff\xff\xff\x7f"],
)
def test_what_is_no_onnx_is_refused(refused, tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    text = refused(str(tmp_path / "bad.onnx"))
    assert text.startswith(("cannot be read as ONNX", "holds no graph of ONNX"))


def test_missing_and_empty_files_are_refused(refused, tmp_path):
    assert refused(str(tmp_path / "no.onnx")).startswith("no such file")
    (tmp_path / "empty.onnx").touch()
    assert refused(str(tmp_path / "empty.onnx")).startswith("empty")


def test_a_file_cut_off_anywhere_is_refused(refused, tmp_path):
    proto = perceptron()
    del proto.opset_import[:2]  # so that what stands last is needed too
    content = proto.SerializeToString()
    for length in range(1, len(content)):
        (tmp_path / "cut.onnx").write_bytes(content[:length])
        refused(str(tmp_path / "cut.onnx"))


def test_files_with_random_bytes_changed_never_end_in_another_exception(tmp_path):
    draw = random.Random(7)
    content = perceptron().SerializeToString()
    outcomes = set()  # what damaged files come to
    for _ in range(400):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 1, 2, 8))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        (tmp_path / "changed.onnx").write_bytes(changed)
        try:
            with torch.no_grad():
                read_onnx(str(tmp_path / "changed.onnx"))(torch.ones(2, 6))
            outcomes.add("ran")
        except (InputError, TypeError) as error:  # TypeError: an input of another name
            assert isinstance(error, InputError) or "argument" in str(error)
            outcomes.add("refused")
    assert outcomes == {"ran", "refused"}


@pytest.mark.parametrize("opset", [1, 10, onnx.defs.onnx_opset_version() + 1, 10**9])
def test_opsets_that_are_not_supported_are_refused(refused, opset):
    text = refused(model([node("Identity", "x", "y")], X, Y, opset=opset))
    assert text.startswith(f"of opset {opset}; expected 11 to {onnx.defs.onnx_opset_version()}; ")


def test_versions_of_other_opsets_are_numbers_that_there_are(refused):
    proto = model([node("Identity", "x", "y")], X, Y)
    proto.opset_import[1].version = 1 << 40
    assert refused(proto).startswith(f"imports version {1 << 40} of the opset {DOMAIN}; expected a positive number")


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\nb", b"\x1b[2J"])
def test_names_that_are_no_text_are_refused(refused, tmp_path, name):
    before = "q" * len(name)
    content = model([node("Identity", before, "y")], [floats(before, 1)], Y).SerializeToString()
    (tmp_path / "names.onnx").write_bytes(content.replace(before.encode(), name))
    assert refused(str(tmp_path / "names.onnx")).startswith("holds names that are no printable text")


def test_a_newer_version_of_the_format_is_refused(refused):
    text = refused(model([node("Identity", "x", "y")], X, Y, ir_version=onnx.IR_VERSION + 1))
    assert text.startswith(f"of version {onnx.IR_VERSION + 1} of the format; expected at most {onnx.IR_VERSION}")


def test_all_operators_without_support_are_named_at_once(refused):
    branch = helper.make_graph([node("Missing", "x", "z"), node("Missing", "z", "w")], "b", [], [floats("w")])
    inner = [helper.make_node("Lost", ["a"], ["b"], domain="com.shop")]
    function = helper.make_function("local", "F", ["a"], ["b"], inner, [helper.make_opsetid("com.shop", 1)])
    chain = [
        node("StringNormalizer", "x", "s"),
        node("If", "flag", "t", then_branch=branch, else_branch=branch),
        helper.make_node("F", ["x"], ["y"], domain="local"),
        helper.make_node("F", ["x"], ["q"], domain="local"),
    ]
    text = refused(model(chain, X, Y, functions=[function]))
    assert (
        f"not supported, with the number of their nodes: StringNormalizer (1), com.shop.Lost (1), {DOMAIN}.Missing (4);"
        in text
    )


def test_without_the_library_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    import builtins
    import sys

    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return real(name, *rest)

    for name in [one for one in sys.modules if one.startswith("simulator.network.onnx_files")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"--model net.onnx: needs the library onnx.*pip install 'ulpsim\[onnx\]'"):
        load_model("net.onnx")


# --- graphs -----------------------------------------------------------------------------------------------------------


def loop(*chain):
    return model(chain, X, Y)


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (loop(node("Plus", "x b", "a", name="p"), node("Identity", "a", "b"), node("Identity", "b", "y")),
         "node 0 p (Plus): waits for its own output, or for a node that does (3 nodes do)"),
        (loop(node("Plus", "x y", "y")), "node 0 (Plus): waits for its own output"),
        (loop(node("Plus", "x nothing", "y")), "node 0 (Plus): reads nothing, which nothing defines"),
        (loop(node("Identity", "x", "z")), "output 'y', which nothing defines"),
        (loop(node("Identity", "x", "y"), node("Rectified", "x", "y")), "node 1 (Rectified): its output y is defined"),
        (loop(node("Identity", "x", "x")), "node 0 (Identity): its output x is defined already"),
        (model([node("Identity", "x", "y")], X, []), "has no output"),
        (model([node("Identity", "x", "y")], [*X, *X], Y), "has inputs x, x; expected names"),
        (model([node("Affine", "x w", "y")], X, Y, [array("w", np.eye(2)), array("w", np.eye(2))]),
         "initialiser 'w': there are two of this name"),
        (loop(node("Identity", "", "y")), "node 0 (Identity): "),
        (loop(node("Identity", "x x", "y")), "node 0 (Identity): "),
        (loop(node("Identity", "x", "y", surplus=3)), "node 0 (Identity): "),
        (loop(node("Cast", "x", "y")), "node 0 (Cast): "),
        (loop(node("Cast", "x", "y", to=8)), "node 0 (Cast): elements of the type string, which torch does not have"),
        (loop(node("Cast", "x", "y", to=999)), "node 0 (Cast): elements of the type number 999"),
        (loop(node("Fussy", "x", "y")), "node 0 (Fussy): anything at all; expected a node without"),
        (loop(node("Power", "x", "y z")), "node 0 (Power): output 1 (z) is asked for"),
        (loop(node("Constant", "", "y", value_string="text")), "node 0 (Constant): a constant given by value_string"),
        (loop(node("If", "x", "y")), "node 0 (If): "),
        (loop(node("Plus", "x", "y")), "node 0 (Plus): has 1 inputs (missing a required argument: 'b')"),
        (loop(node("Plus", "x x x", "y")), "node 0 (Plus): has 3 inputs (too many positional arguments)"),
    ],
)  # fmt: skip
def test_a_graph_that_is_none_is_refused(refused, proto, message):
    assert refused(proto).startswith(message)


def test_what_an_operator_raises_is_said_with_the_node_and_the_shapes(refused):
    text = refused(model([node("Affine", "x w", "y", name="fc")], X, Y, [array("w", np.eye(3))]))
    assert text.startswith(
        "node 0 fc (Affine): given float32 (1, 2), float32 (3, 3) (RuntimeError: mat1 and mat2 shapes"
    )


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_what_a_convolution_raises_is_said_likewise(refused, op):
    proto = model([node(op, "x w", "y")], [floats("x", 1, 2, 5)], [floats("y")], [array("w", np.ones((3, 3, 3)))])
    assert refused(proto, torch.ones(1, 2, 5)).startswith(f"node 0 ({op}): given float32 (1, 2, 5), float32 (3, 3, 3)")


def test_what_an_operator_declines_is_said_in_one_line_whatever_the_file_names(refused):
    gru = node("GRU", "x w r", "y", direction="bidirect\nonal", hidden_size=2)
    proto = model([gru], [floats("x", 1, 1, 2)], [floats("y")], [
        array("w", np.ones((2, 6, 2))), array("r", np.ones((2, 6, 2))),
    ])  # fmt: skip
    assert refused(proto, torch.ones(1, 1, 2)).startswith("node 0 (GRU): the direction bidirect")


def test_a_graph_given_other_values_than_it_takes_is_refused(refused):
    body = helper.make_graph([node("Identity", "i", "c")], "body", [floats("i")], [floats("c")])
    text = refused(model([helper.make_node("Loop", ["", "", "x"], ["y"], body=body)], X, Y))
    assert text.startswith("node 0 (Loop): a graph that takes 1 values and is given 3")


def test_functions_that_call_themselves_are_refused(refused):
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]

    def function(name, calls):
        body = [helper.make_node(calls, ["a"], ["b"], domain="local")]
        return helper.make_function("local", name, ["a"], ["b"], body, imports)

    call = [helper.make_node("F", ["x"], ["y"], domain="local")]
    text = refused(model(call, X, Y, functions=[function("F", "G"), function("G", "F")]))
    assert "node 0 (F): a function that calls itself" in text


def doubling(count, last):
    """Return functions F0, F1, ... each of which calls the next one twice."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    return [
        helper.make_function(
            "local", f"F{i}", ["a"], ["b"],
            [helper.make_node(f"F{i + 1}", [name], [out], domain="local") for name, out in (("a", "m"), ("m", "b"))]
            if i < count else [last],
            imports,
        )
        for i in range(count + 1)
    ]  # fmt: skip


def test_functions_that_multiply_are_refused_before_they_fill_the_memory(refused, monkeypatch):
    monkeypatch.setattr(onnx_expansion, "MAX_NODES", 1000)
    functions = doubling(30, node("Identity", "a", "b"))
    text = refused(model([helper.make_node("F0", ["x"], ["y"], domain="local")], X, Y, functions=functions))
    assert text.startswith("too many nodes, functions expanded; expected at most 1,000")


def test_functions_that_multiply_are_gone_through_once_and_none_is_expanded(refused, monkeypatch):
    measured, made = [], []
    whole = onnx_expansion.Expansion._of_nodes
    monkeypatch.setattr(onnx_expansion.Expansion, "_of_nodes", lambda *args: measured.append(args) or whole(*args))
    monkeypatch.setattr(onnx_graph.Operation, "__init__", lambda *args: made.append(args))
    functions = doubling(30, node("Identity", "a", "b"))
    text = refused(model([helper.make_node("F0", ["x"], ["y"], domain="local")], X, Y, functions=functions))
    assert text.startswith("too many nodes, functions expanded; expected at most 200,000")
    assert (len(measured), len(made)) == (32, 0)  # the graph and 31 functions


def test_what_is_measured_is_what_is_made(tmp_path, monkeypatch):
    branch = helper.make_graph([node("Rectified", "m", "r"), node("Plus", "r m", "b")], "branch", [], [floats("b")])
    chosen = node("If", "flag", "c", then_branch=branch, else_branch=branch)
    body = [node("Plus", "a a", "m"), node("Less", "a a", "flag"), chosen, node("CastLike", "c a", "b")]
    functions = doubling(3, node("Rectified", "a", "b"))
    del functions[-1].node[:]
    functions[-1].node.extend(body)
    functions[-1].opset_import.add(domain=DOMAIN, version=1)
    proto = model([helper.make_node("F0", ["x"], ["y"], domain="local")], X, Y, functions=functions)
    made, steps = [], onnx_build.Builder._step
    monkeypatch.setattr(onnx_build.Builder, "_step", lambda *args: made.append(args) or steps(*args))
    network = read_onnx(saved(proto, tmp_path / "net.onnx"))
    path = str(tmp_path / "net.onnx")
    extent = onnx_expansion.Expansion(path, Functions(proto, path))._of_nodes(
        proto.graph.node, Scope(opset_versions(path, proto.opset_import)), 0
    )
    assert extent.nodes == len(made) == 1 + 2 + 4 + 8 + 8 * (4 + 2 * 2)
    assert extent.depth == 5  # four functions, and a branch in the last
    monkeypatch.setattr(onnx_expansion, "MAX_NODES", len(made))
    monkeypatch.setattr(onnx_expansion, "MAX_DEPTH", 5)
    assert isinstance(read_onnx(path), type(network).__base__)
    monkeypatch.setattr(onnx_expansion, "MAX_DEPTH", 4)
    with pytest.raises(InputError, match="lies in 5 others; expected at most 4"):
        read_onnx(path)


def test_a_function_known_from_before_still_lies_in_those_around_it(refused, monkeypatch):
    monkeypatch.setattr(onnx_expansion, "MAX_DEPTH", 4)
    functions = doubling(4, node("Identity", "a", "b"))  # F1 lies in no other first, and then in F0
    chain = [helper.make_node(name, [x], [y], domain="local") for name, x, y in (("F1", "x", "h"), ("F0", "h", "y"))]
    text = refused(model(chain, X, Y, functions=functions))
    assert text.startswith("node 1 (F0), node 0 (F1): lies in 5 others; expected at most 4")


def test_a_graph_that_a_call_gives_its_function_is_refused(refused):
    """It may refer to itself."""
    graph = helper.make_graph([node("Identity", "x", "z")], "given", [], [floats("z")])
    chosen = helper.make_node("If", ["flag"], ["b"])
    for name in ("then_branch", "else_branch"):
        chosen.attribute.add(name=name, type=onnx.AttributeProto.GRAPH, ref_attr_name="g")
    imports = [helper.make_opsetid("", 18)]
    function = helper.make_function("local", "F", ["a", "flag"], ["b"], [chosen], imports, attributes=["g"])
    call = helper.make_node("F", ["x", "flag"], ["y"], domain="local", g=graph)
    text = refused(model([call], X, Y, [array("flag", True, bool)], functions=[function]))
    assert text.startswith("node 0 (F), node 0 (If): runs a graph that the call of a function gives it; expected ")


def test_functions_within_each_other_end_somewhere(refused):
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("local", 1)]
    functions = [
        helper.make_function(
            "local", f"F{i}", ["a"], ["b"], [helper.make_node(f"F{i + 1}", ["a"], ["b"], domain="local")], imports
        )
        for i in range(500)
    ]
    functions.append(helper.make_function("local", "F500", ["a"], ["b"], [node("Identity", "a", "b")], imports))
    text = refused(model([helper.make_node("F0", ["x"], ["y"], domain="local")], X, Y, functions=functions))
    assert f"; expected at most {onnx_expansion.MAX_DEPTH}; " in text


def test_subgraphs_within_each_other_end_somewhere(refused, tmp_path):
    def field(number, content):
        size, length = len(content), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + length + bytes([size]) + content

    graph = helper.make_graph([node("Identity", "x", "z")], "b", [], [floats("z")]).SerializeToString()
    attribute = onnx.AttributeProto(name="then_branch", type=onnx.AttributeProto.GRAPH).SerializeToString()
    for _ in range(2000):
        graph = field(1, node("If", "x", "z").SerializeToString() + field(5, attribute + field(6, graph)))
    path = tmp_path / "deep.onnx"
    path.write_bytes(model([], X, Y).SerializeToString() + field(7, graph))
    assert refused(str(path)).startswith("cannot be read as ONNX")


# --- tensors ----------------------------------------------------------------------------------------------------------


def tensor(**fields):
    """A model whose weight is a TensorProto with some fields as given."""
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT)
    for name, value in fields.items():
        if isinstance(value, list):
            getattr(proto, name).extend(value)
        else:
            setattr(proto, name, value)
    return model([node("Affine", "x w", "y")], X, Y, [proto])


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (tensor(dims=[2, 2], raw_data=b"\0" * 15), "has 15 bytes of data; expected 16 for shape (2, 2) of float32"),
        (tensor(dims=[2, 2], raw_data=b"\0" * 17), "has 17 bytes of data; expected 16"),
        (tensor(dims=[2, 2]), "has 0 bytes of data; expected 16"),
        (tensor(dims=[2, 2], float_data=[1.0, 2.0, 3.0]), "has 12 bytes of data; expected 16"),
        (tensor(dims=[2, 2], int32_data=[1, 2, 3, 4]), "has 0 bytes of data; expected 16"),
        (tensor(dims=[-2, 2], raw_data=b"\0" * 16), "has shape (-2, 2); expected no negative length"),
        (tensor(dims=[1 << 62, 1 << 62], raw_data=b"\0" * 16), "and the tensors before it: "),
        (tensor(dims=[1 << 40], raw_data=b""), "and the tensors before it: "),
        (tensor(dims=[2], data_type=TensorProto.STRING), "elements of the type string, which torch does not have"),
        (tensor(dims=[2], data_type=0), "elements of the type number 0, which torch does not have"),
        (tensor(dims=[2], data_type=77), "elements of the type number 77, which torch does not have"),
    ],
)
def test_tensors_whose_sizes_contradict_their_data_are_refused(refused, proto, message):
    assert refused(proto).startswith(f"initialiser w: {message}")


def test_a_shape_computed_at_run_time_does_not_fill_the_memory(refused):
    chain = [
        node("Constant", "", "s", value=array("", [1 << 30, 1 << 30], np.int64)),
        node("ConstantOfShape", "s", "y"),
    ]
    assert refused(model(chain, X, Y)).startswith(
        "node 1 (ConstantOfShape): a tensor of shape (1073741824, 1073741824): "
    )


# --- external data ----------------------------------------------------------------------------------------------------


def external(**entries):
    """A model whose weight of 16 bytes lies elsewhere."""
    proto = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 2], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        proto.external_data.add(key=key, value=value)
    return model([node("Affine", "x w", "y")], X, Y, [proto])


@pytest.fixture
def data(tmp_path):
    """Files beside the network, a link out of its folder, and one that leads out of it."""
    (tmp_path / "w.bin").write_bytes(np.eye(2, dtype=np.float32).tobytes())
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    (outside / "secret.bin").write_bytes(b"\1" * 64)
    (tmp_path / "link.bin").symlink_to(outside / "secret.bin")
    (tmp_path / "folder").symlink_to(outside)
    os.mkfifo(tmp_path / "pipe")
    return outside


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../w.bin", "its data are said to lie in '../w.bin'; expected a path within the folder of the network"),
        ("/etc/passwd", "its data are said to lie in '/etc/passwd'"),
        ("a/../../w.bin", "its data are said to lie in"),
        ("..\\w.bin", "its data are said to lie in"),
        ("C:w.bin", "its data are said to lie in"),
        ("", "its data are said to lie in"),
        ("link.bin", "its data lie in 'link.bin', a link out of the folder of the network"),
        ("folder/secret.bin", "its data lie in 'folder/secret.bin', a link out of the folder"),
        ("none.bin", "its data lie in 'none.bin', which is no file beside the network"),
        (".", "its data "),
        ("pipe", "its data lie in 'pipe', which is no file"),
    ],
)
def test_external_data_that_lie_elsewhere_are_refused(refused, data, location, message):
    assert refused(external(location=location)).startswith(f"initialiser w: {message}")


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "8"}, "its data are bytes 8 to 24 of 'w.bin', which has 16; expected 16 bytes within the file"),
        ({"length": "12"}, "its data are bytes 0 to 12 of 'w.bin'"),
        ({"length": "999999"}, "its data are bytes 0 to 999,999 of 'w.bin'"),
        ({"offset": "-8"}, "its data have offset '-8', length '16'; expected counts of bytes"),
        ({"offset": "1e3"}, "its data have offset '1e3'"),
        ({"offset": "9" * 5000}, "its data have offset "),
        ({"run": "me"}, "its data have run; expected checksum, length, location, offset alone"),
    ],
)
def test_external_data_beyond_their_file_are_refused(refused, data, entries, message):
    assert refused(external(location="w.bin", **entries)).startswith(f"initialiser w: {message}")


def test_many_tensors_that_fit_one_by_one_are_refused_together(refused, tmp_path, monkeypatch):
    (tmp_path / "w.bin").write_bytes(bytes(1 << 18))
    tensors = []
    for i in range(3):
        tensors.append(TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[1 << 16], data_location=1))
        tensors[-1].external_data.add(key="location", value="w.bin")
    proto = model([node("Identity", "x", "y")], X, Y, tensors)
    monkeypatch.setattr(limits, "physical_memory", lambda: 5 << 18)
    assert refused(proto).startswith("initialiser w2: and the tensors before it: 768 KiB; expected at most 640 KiB")
