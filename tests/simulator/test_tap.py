"""The tap: every product of a model is an Op or is listed, under the right name, and the model is left as it was."""

import re

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from simulator.errors import InputError  # noqa: E402
from simulator.network.aten_ops import _OPS, MAC_WORDS, as_op  # noqa: E402
from tests.simulator.tap_runs import CONTEXTS, in_each_grad_mode, rand, tapped  # noqa: E402

aten = torch.ops.aten


class Calls(nn.Module):
    """A module that calls a function of its input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


# --- products that are Ops --------------------------------------------------------------------------------------------

PRODUCTS = {
    "mm": (lambda a, b: a @ b, [(4, 3), (3, 5)], [("mm", 1, 4, 5, 3)]),
    "addmm": (lambda c, a, b: torch.addmm(c, a, b), [(5,), (4, 3), (3, 5)], [("linear", 1, 4, 5, 3)]),
    "bmm": (torch.bmm, [(2, 4, 3), (2, 3, 5)], [("bmm", 2, 4, 5, 3)]),
    "matmul of 3-d": (torch.matmul, [(2, 4, 3), (2, 3, 5)], [("bmm", 2, 4, 5, 3)]),
    "einsum": (lambda a, b: torch.einsum("bij,bjk->bik", a, b), [(2, 4, 3), (2, 3, 5)], [("bmm", 2, 4, 5, 3)]),
    "inner": (torch.inner, [(4, 3), (5, 3)], [("mm", 1, 4, 5, 3)]),
    "tensordot": (lambda a, b: torch.tensordot(a, b, 1), [(4, 3), (3, 5)], [("mm", 1, 4, 5, 3)]),
    "linear": (functional.linear, [(4, 3), (5, 3), (5,)], [("linear", 1, 4, 5, 3)]),
    "linear without bias": (functional.linear, [(4, 3), (5, 3)], [("mm", 1, 4, 5, 3)]),
    "linear of a vector": (functional.linear, [(3,), (5, 3), (5,)], [("linear", 1, 1, 5, 3)]),
    "linear of 3-d": (functional.linear, [(2, 4, 3), (5, 3), (5,)], [("linear", 1, 8, 5, 3)]),
    "linear of 4-d": (functional.linear, [(2, 2, 4, 3), (5, 3), (5,)], [("linear", 1, 16, 5, 3)]),
    "linear of 3-d without bias": (functional.linear, [(2, 4, 3), (5, 3)], [("mm", 1, 8, 5, 3)]),
    "linear of a transposed input": (
        lambda x, w, b: functional.linear(x.transpose(0, 1), w, b), [(4, 2, 3), (5, 3), (5,)], [("linear", 1, 8, 5, 3)],
    ),
    "conv1d": (functional.conv1d, [(2, 4, 9), (6, 4, 3), (6,)], [("conv1d", 1, 14, 6, 12)]),
    "conv2d": (functional.conv2d, [(2, 4, 9, 8), (6, 4, 3, 2), (6,)], [("conv2d", 1, 98, 6, 24)]),
    "conv3d": (functional.conv3d, [(1, 2, 4, 5, 6), (3, 2, 2, 2, 2)], [("conv3d", 1, 60, 3, 16)]),
    "conv2d without batch": (functional.conv2d, [(4, 9, 8), (6, 4, 3, 2), (6,)], [("conv2d", 1, 49, 6, 24)]),
    "conv2d same": (
        lambda x, w: functional.conv2d(x, w, padding="same"), [(2, 4, 9, 8), (6, 4, 3, 3)], [("conv2d", 1, 144, 6, 36)],
    ),
    "conv2d same, even kernel": (
        lambda x, w: functional.conv2d(x, w, padding="same"), [(2, 4, 9, 8), (6, 4, 2, 2)], [("conv2d", 1, 144, 6, 16)],
    ),
    "conv2d depthwise": (
        lambda x, w: functional.conv2d(x, w, groups=4), [(2, 4, 5, 5), (8, 1, 3, 3)], [("conv2d", 4, 18, 2, 9)],
    ),
    "conv_transpose1d": (functional.conv_transpose1d, [(2, 4, 5), (4, 3, 2)], [("conv_transpose1d", 1, 12, 3, 8)]),
    "conv_transpose2d in groups": (
        lambda x, w, b: functional.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2),
        [(2, 4, 5, 5), (4, 3, 3, 3), (6,)], [("conv_transpose2d", 2, 200, 3, 18)],
    ),
    "baddbmm": (torch.baddbmm, [(2, 4, 5), (2, 4, 3), (2, 3, 5)], [("baddbmm", 2, 4, 5, 3)]),
    "baddbmm with a row": (torch.baddbmm, [(5,), (2, 4, 3), (2, 3, 5)], [("baddbmm", 2, 4, 5, 3)]),
    "mv": (torch.mv, [(4, 3), (3,)], [("mv", 1, 4, 1, 3)]),
    "matmul with a vector": (torch.matmul, [(4, 3), (3,)], [("mv", 1, 4, 1, 3)]),
    "addmv": (torch.addmv, [(4,), (4, 3), (3,)], [("addmv", 1, 4, 1, 3)]),
    "addbmm": (torch.addbmm, [(4, 5), (2, 4, 3), (2, 3, 5)], [("addbmm", 1, 4, 5, 6)]),
    "addr": (torch.addr, [(4, 3), (4,), (3,)], [("addr", 1, 4, 3, 1)]),
    "addmm with beta": (
        lambda c, a, b: torch.addmm(c, a, b, beta=2), [(4, 5), (4, 3), (3, 5)], [("linear", 1, 4, 5, 3)],
    ),
    "addmm with alpha": (
        lambda c, a, b: torch.addmm(c, a, b, alpha=0.5), [(4, 5), (4, 3), (3, 5)], [("linear", 1, 4, 5, 3)],
    ),
    "addmm in place": (lambda c, a, b: c.clone().addmm_(a, b), [(4, 5), (4, 3), (3, 5)], [("linear", 1, 4, 5, 3)]),
    "mm into a tensor": (
        lambda a, b: torch.mm(a.detach(), b.detach(), out=torch.empty(4, 5)), [(4, 3), (3, 5)], [("mm", 1, 4, 5, 3)],
    ),
    "dot": (torch.dot, [(3,), (3,)], [("dot", 1, 1, 1, 3)]),
    "vdot": (torch.vdot, [(3,), (3,)], [("vdot", 1, 1, 1, 3)]),
    "attention": (
        functional.scaled_dot_product_attention, [(2, 3, 4, 8)] * 3, [("bmm", 6, 4, 4, 8), ("bmm", 6, 4, 8, 4)],
    ),
}  # fmt: skip


@in_each_grad_mode
@pytest.mark.parametrize("function, shapes, expected", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_products_are_the_same_ops_in_every_grad_mode(function, shapes, expected, context):
    with context():
        args = [rand(*shape, seed=i).requires_grad_(context is CONTEXTS["grad"]) for i, shape in enumerate(shapes)]
        model = Calls(function)
        wanted = model(*args)
        seen, listed, output = tapped(model, *args)
    names = ["Calls", "Calls#2"]
    assert seen == [(name, *op) for name, op in zip(names, expected, strict=False)]
    assert listed == []
    assert output.shape == wanted.shape
    torch.testing.assert_close(output, wanted)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_attention_layers_are_seen_whole_and_keep_their_biases(context):
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0).eval()
    encoder = nn.TransformerEncoder(layer, 1).eval()
    x, mask = rand(2, 3, 8), torch.tensor([[False, False, False], [False, False, True]])
    with context():
        wanted = encoder(x, src_key_padding_mask=mask)
        seen, listed, output = tapped(encoder, x, src_key_padding_mask=mask)
    part = "layers.0.self_attn"
    assert seen == [
        (part, "linear", 1, 6, 24, 8),
        (f"{part}#2", "bmm", 4, 3, 3, 4),
        (f"{part}#3", "bmm", 4, 3, 4, 3),
        (f"{part}#4", "linear", 1, 6, 8, 8),
        ("layers.0.linear1", "linear", 1, 6, 16, 8),
        ("layers.0.linear2", "linear", 1, 6, 8, 16),
    ]
    assert listed == []
    torch.testing.assert_close(output[~mask], wanted[~mask])


@in_each_grad_mode
def test_attention_with_distinct_inputs(context):
    layer = nn.MultiheadAttention(8, 2, kdim=6, vdim=5, batch_first=True).eval()
    q, k, v = rand(2, 3, 8), rand(2, 4, 6, seed=1), rand(2, 4, 5, seed=2)
    with context():
        wanted = layer(q, k, v, need_weights=False)[0]
        seen, listed, (output, _) = tapped(layer, q, k, v, need_weights=False)
    kinds = [(kind, m, n, k) for _, kind, _, m, n, k in seen]
    assert kinds == [
        ("linear", 6, 8, 8), ("linear", 8, 8, 6), ("linear", 8, 8, 5), ("bmm", 3, 4, 4), ("bmm", 3, 4, 4),
        ("linear", 6, 8, 8),
    ]  # fmt: skip
    assert listed == []
    torch.testing.assert_close(output, wanted)


@in_each_grad_mode
@pytest.mark.parametrize("layer, gates", [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_recurrent_layers_are_the_products_of_their_gates(layer, gates, batch_first, context):
    """Those of the inputs of all times at once, then those of the states time by time; biases join their products."""
    model = layer(4, 5, num_layers=2, bidirectional=True, batch_first=batch_first).eval()
    x = rand(2, 3, 4) if batch_first else rand(3, 2, 4)
    with context():
        wanted = model(x)[0]
        seen, listed, output = tapped(model, x)
    assert [op[1:] for op in seen] == [
        product for inputs in (4, 4, 10, 10)
        for product in [("linear", 1, 6, 5 * gates, inputs)] + [("linear", 1, 2, 5 * gates, 5)] * 3
    ]  # fmt: skip
    assert listed == []
    torch.testing.assert_close(output[0], wanted)
    assert torch.backends.mkldnn.is_available() == torch._C._get_mkldnn_enabled()


def test_packed_sequences_are_the_products_of_the_samples_there_are():
    packed = nn.utils.rnn.pack_sequence([rand(3, 4), rand(2, 4, seed=1)])
    model = nn.LSTM(4, 5).eval()
    with torch.no_grad():
        wanted = model(packed)[0].data
        seen, listed, output = tapped(model, packed)
    assert [op[1:] for op in seen] == [("linear", 1, 5, 20, 4)] + [("linear", 1, m, 20, 5) for m in (2, 2, 1)]
    assert listed == []
    torch.testing.assert_close(output[0].data, wanted)


def test_what_bears_no_macs_is_neither_an_op_nor_listed():
    model = nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm(4), nn.GELU(), nn.Dropout(0.5), nn.Softmax(-1), nn.Flatten())
    seen, listed, _ = tapped(model.eval(), torch.tensor([[1, 2], [3, 4]]))
    assert (seen, listed) == ([], [])


# --- products that are not Ops ----------------------------------------------------------------------------------------

LISTED = {
    "bilinear": (functional.bilinear, [(2, 4), (2, 5), (3, 4, 5)], "_trilinear"),
    "cdist": (torch.cdist, [(30, 4), (30, 4)], "_euclidean_dist"),
    "cdist, other norm": (lambda a, b: torch.cdist(a, b, p=1.0), [(3, 4), (5, 4)], "_cdist_forward"),
    "matrix exponential": (torch.matrix_exp, [(3, 3)], "linalg_matrix_exp"),
    "integers": (lambda a, b: a.int() @ b.int(), [(4, 3), (3, 5)], "mm on int32"),
    "complex numbers": (lambda a, b: (a + 0j) @ (b + 0j), [(4, 3), (3, 5)], "mm on complex64"),
    "sparse": (lambda a, b: a.to_sparse_csr() @ b, [(4, 3), (3, 5)], "mm on mixed types or layouts"),
}  # fmt: skip


@in_each_grad_mode
@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("function, shapes, listed", LISTED.values(), ids=LISTED)
def test_other_products_are_listed_with_their_place(function, shapes, listed, context):
    with context():
        args = [rand(*shape, seed=i) for i, shape in enumerate(shapes)]
        wanted = function(*args)
        if listed.startswith("mm on mixed") and context is torch.inference_mode:
            listed = "_sparse_addmm|mm on mixed types or layouts|addmm on mixed types or layouts"
        seen, found, output = tapped(nn.ModuleDict({"inner": Calls(function)})["inner"], *args)
    assert seen == []
    assert len(found) == 1 and re.fullmatch(listed, found[0][0]) and found[0][1] == "Calls"
    assert torch.equal(output, wanted)  # torch's own, bit for bit


def test_operations_from_outside_of_torch_are_listed():
    with torch.library._scoped_library("ulpsim_tests", "FRAGMENT") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: 2 * x, "CPU")
        seen, listed, output = tapped(Calls(torch.ops.ulpsim_tests.twice), torch.ones(2))
    assert (seen, listed) == ([], [("ulpsim_tests.twice", "Calls")])
    assert output.tolist() == [2.0, 2.0]


def test_higher_order_operations_are_listed():
    from torch._higher_order_ops.flex_attention import flex_attention
    from torch.nn.attention.flex_attention import _create_empty_block_mask

    q = rand(1, 2, 16, 16)
    mask = _create_empty_block_mask(q, q).as_tuple()
    with torch.no_grad():
        seen, listed, _ = tapped(Calls(lambda q: flex_attention(q, q, q, lambda s, *_: s, mask, 0.25, {})), q)
    assert (seen, listed) == ([], [("flex_attention", "Calls")])


# Parts of names that suggest products, in operations without any.
NO_MACS = re.compile(
    r"lgamma|digamma|polygamma|igamma|mvlgamma|_standard_gamma|cummax|cummin|hamming|convert|addcmul|_prelu|batch_norm|ctc"
    r"|dropout_state|affine_grid|grid_sampler|max_pool|avg_pool|mkldnn_reshape|mkldnn_transpose|to_mkldnn|to_sparse|"
    r"copy_sparse|sparse_(resize|dim|mask|broadcast|compressed|coo|csr|log_softmax|softmax|sum)|resize_as_sparse"
    r"|upsample_(bi|tri)?linear|validate_compressed|_semi_structured_(apply|tile)|nested_get_jagged|^_?dist$|comm"
    r"|cslt_compress|sparse_semi_structured$|_thnn_fused|_linear_combination|weight_to_int4pack|_assert|format"
)  # fmt: skip


def test_every_aten_operation_that_sounds_like_a_product_is_covered_or_listed():
    """Guards against operations that a new version of torch brings."""
    sounds = re.compile(
        r"mm|mv|dot|conv|linear|lstm|gru|rnn|attention|matmul|dist|addr|transformer|gemm|bag|matrix|sparse|mkldnn|thnn"
    )
    names = {n.split("::")[1].split(".")[0] for n in torch._C._dispatch_get_all_op_names() if n.startswith("aten::")}
    missed = []
    for name in sorted(names):
        packet = getattr(aten, name)
        qualified = [f"aten::{name}" + (f".{o}" if o != "default" else "") for o in packet.overloads()]
        composite = torch._C.DispatchKey.CompositeImplicitAutograd
        leaf = any(
            torch._C._dispatch_has_kernel(full) and not torch._C._dispatch_has_kernel_for_dispatch_key(full, composite)
            for full in qualified
        )
        listed = not MAC_WORDS.isdisjoint(name.split("_"))
        if sounds.search(name) and leaf and not listed and not NO_MACS.search(name):
            missed.append(name)
    assert missed == []
    assert all(not MAC_WORDS.isdisjoint(op.overloadpacket.__name__.split("_")) for op in _OPS)


# --- operands that torch refuses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function, shapes",
    [
        (torch.mm, [(4, 3), (4, 5)]),
        (torch.bmm, [(2, 4, 3), (3, 3, 5)]),
        (functional.linear, [(4, 3), (5, 4), (5,)]),
        (functional.linear, [(2, 4, 3), (5, 4), (5,)]),
        (functional.conv2d, [(2, 4, 5, 5), (6, 3, 3, 3)]),
        (functional.conv2d, [(2, 4, 2, 2), (6, 4, 3, 3)]),
        (functional.conv2d, [(2, 4, 5, 5), (6, 4, 3, 3), (5,)]),
        (lambda x, w: functional.conv2d(x, w, stride=0), [(2, 4, 5, 5), (6, 4, 3, 3)]),
        (lambda x, w: functional.conv2d(x, w, padding=-1), [(2, 4, 5, 5), (6, 4, 3, 3)]),
        (lambda x, w: functional.conv2d(x, w, groups=3), [(2, 4, 5, 5), (6, 4, 3, 3)]),
        (lambda a, b: a.double() @ b, [(4, 3), (3, 5)]),
    ],
)
def test_torch_refuses_in_its_own_words(function, shapes):
    args = [rand(*shape) for shape in shapes]
    with pytest.raises(RuntimeError) as plain:
        function(*args)
    with pytest.raises(RuntimeError) as refused:
        tapped(Calls(function), *args)
    assert str(refused.value) == str(plain.value)


def test_another_device_is_refused():
    with pytest.raises(InputError, match=r"got a tensor on meta; expected the CPU"):
        tapped(nn.Linear(3, 2, device="meta"), torch.ones(1, 3, device="meta"))


def test_operands_are_views_of_the_tensors():
    a, b = rand(4, 3), rand(5, 3)
    op = as_op(aten.mm.default, (a, b.t()), {})
    assert np.shares_memory(op.a, a.numpy()) and np.shares_memory(op.b, b.numpy())
