"""Results that memory does not hold are refused before they are computed, whatever asks for them."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from simulator import InputError

torch = pytest.importorskip("torch")
result_sizes = pytest.importorskip("simulator.network.result_sizes")
CheckedSizes = result_sizes.CheckedSizes

MANY = 300_000  # of which a square is 360 GB in float32


def column():
    return torch.ones(MANY, 1)


HOSTILE = {
    "broadcast": lambda: column() + column().T,
    "comparison": lambda: column() > column().T,
    "mixed": lambda: torch.where(column() > 0, column().T, column()),
    "product": lambda: column() @ column().T,
    "batched": lambda: torch.ones(MANY, 2, 1) @ torch.ones(1, MANY),
    "einsum": lambda: torch.einsum("i,j->ij", column()[:, 0], column()[:, 0]),
    "zeros": lambda: torch.zeros(MANY, MANY),
    "range": lambda: torch.arange(0.0, 1.0, 1e-12),
    "expanded": lambda: column().expand(MANY, MANY).contiguous(),
    "repeated": lambda: column().repeat(1, MANY),
    "each repeated": lambda: torch.repeat_interleave(torch.ones(3), torch.tensor([1, 10**12, 1])),
    "repeated beyond integers": lambda: torch.repeat_interleave(torch.ones(5), torch.tensor([2**62] * 4 + [3])),
    "summed in expanded rows": lambda: torch.ones(3).expand(10**12, 3).cumsum(0),
    "counted": lambda: torch.bincount(torch.tensor([1, 10**12])),
    "counted up to a number": lambda: torch.bincount(torch.tensor([1]), minlength=10**12),
    "diagonal": lambda: torch.diag_embed(column()[:, 0]),
    "a mask and places": lambda: torch.ones(MANY, 2)[torch.ones(MANY, dtype=torch.bool), torch.zeros(MANY, 1).long()],
    "places": lambda: torch.ones(2, 2)[torch.zeros(MANY, 1).long(), torch.zeros(1, MANY).long()],
    "not zero": lambda: torch.ones(1).expand(10**12).nonzero(),
    "selected": lambda: torch.ones(1).expand(10**12).masked_select(torch.ones(1, dtype=torch.bool)),
    "one hot": lambda: torch.nn.functional.one_hot(torch.zeros(4, dtype=torch.int64), 10**12),
    "padded": lambda: torch.nn.functional.pad(torch.ones(4), (10**12, 0)),
    "gathered": lambda: torch.ones(2, MANY)[torch.zeros(MANY, dtype=torch.int64)],
    "resized": lambda: torch.nn.functional.interpolate(torch.ones(1, 1, 2, 2), size=(10**6, 10**6)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_does_not_fit_is_not_computed(name):
    with CheckedSizes(), pytest.raises(InputError, match=r"a result.*GiB|TiB.*half of this machine's memory"):
        HOSTILE[name]()


@pytest.mark.parametrize("name", ["broadcast", "product", "zeros", "gathered", "resized"])
def test_it_is_refused_again_the_second_time(name):
    for _ in range(2):
        with CheckedSizes(), pytest.raises(InputError):
            HOSTILE[name]()


def programs():
    """Return computations of all sorts, each of which makes far less than memory holds."""
    x, y = torch.rand(3, 4, 5), torch.rand(3, 5, 4)
    image = torch.rand(2, 3, 8, 8)
    return [
        lambda: x + torch.rand(4, 1),
        lambda: x @ y,
        lambda: torch.bmm(x, y),
        lambda: torch.stack([x, x]).sum(0),
        lambda: torch.cat([x, x, x], 1),
        lambda: x.cumsum(1).flip(0).roll(1, 2),
        lambda: torch.arange(7.0),
        lambda: torch.nn.Conv2d(3, 4, 3, padding=2, dilation=2)(image),
        lambda: torch.nn.MaxPool2d(2)(image),
        lambda: torch.nn.ConvTranspose2d(3, 4, 3, stride=3)(image),
        lambda: torch.nn.LSTM(5, 4, 2)(x)[0],
        lambda: torch.nn.Upsample(scale_factor=3)(image),
        lambda: torch.nn.Unfold(3)(image),
        lambda: torch.nn.functional.one_hot(torch.arange(5), 9),
        lambda: x.topk(2, 1)[1],
        lambda: x.nonzero(),
        lambda: torch.nn.functional.pad(x, (3, 4, 5, 6)),
        lambda: x[:, [0, 1, 1, 2, 3, 0]],
        lambda: x[x[:, :, 0] > 0.5],
        lambda: x[[[0], [1]], :, [[1, 2, 3]]],
        lambda: torch.diag_embed(x, 1),
        lambda: x.masked_select(x > 0.5),
        lambda: torch.outer(x[0, 0], x[1, 1]),
        lambda: torch.repeat_interleave(x, torch.tensor([2, 0, 5]), 0),
        lambda: x.repeat(2, 3, 4),
        lambda: torch.eye(6, 7),
        lambda: torch.nn.MultiheadAttention(4, 2, batch_first=True).eval()(y, y, y)[0],
        lambda: torch.tril_indices(5, 5),
        lambda: torch.cdist(x, x),
        lambda: torch.fft.rfft(x, 32),
        lambda: torch.meshgrid(x[0, 0], x[0, 1], indexing="ij")[0] + 0,
        lambda: torch.bincount(torch.tensor([1, 2, 6])),
        lambda: torch.linspace(0, 1, 11),
        lambda: torch.tensor(5.0).expand(4, 4) * 2,
    ]


@pytest.mark.parametrize("number", range(len(programs())))
def test_nothing_has_more_elements_than_are_foreseen(number, monkeypatch):
    """With no memory at all each operation is looked at: no result may exceed what is said of it in advance."""
    seen = []
    dispatch = CheckedSizes.__torch_dispatch__

    def compared(self, func, types, args=(), kwargs=None):
        results = dispatch(self, func, types, args, kwargs)
        sizes = [x.numel() for x in torch.utils._pytree.tree_leaves(results) if isinstance(x, torch.Tensor)]
        of_tensors = any(isinstance(x, torch.Tensor) for x in args)
        if sizes and of_tensors and not func.is_view and func not in result_sizes._BY_VALUES:
            seen.append((func, max(sizes), result_sizes._most_of(func, args, kwargs or {})))
        return results

    monkeypatch.setattr(CheckedSizes, "__torch_dispatch__", compared)
    with torch.no_grad(), CheckedSizes():
        programs()[number]()
    assert [(func, size, most) for func, size, most in seen if size > most] == []


@pytest.mark.parametrize("number", range(len(programs())))
def test_what_fits_is_what_it_is_without(number, monkeypatch):
    """The shapes of all results are inferred, and nothing becomes of it."""
    monkeypatch.setattr(result_sizes, "_may_be_large", lambda *arguments: True)
    torch.manual_seed(1)
    with torch.no_grad():
        expected = programs()[number]()
    torch.manual_seed(1)
    with torch.no_grad(), CheckedSizes():
        found = programs()[number]()
    assert torch.equal(found, expected)


def test_a_result_of_bools_says_nothing_of_one_of_integers(monkeypatch):
    """True equals 1, and is eight times as small."""
    monkeypatch.setattr("simulator.network.limits.physical_memory", lambda: 2 * 8 * 99)
    with CheckedSizes():
        torch.full((100,), True)
        with pytest.raises(InputError, match="a result of shape"):
            torch.full((100,), 1)


def test_tensors_without_values_may_have_any_size():
    column = torch.ones(MANY, 1, device="meta")
    with CheckedSizes():
        assert (column + column.T).shape == (MANY, MANY)


SMALL = {"a": np.ones((MANY, 1), np.float32), "b": np.ones((1, MANY), np.float32)}


@pytest.mark.parametrize("op", ["Add", "MatMul", "Greater", "Where"])
def test_a_small_onnx_file_that_asks_for_all_memory_ends_in_one_message(op, tmp_path):
    onnx = pytest.importorskip("onnx")
    from simulator.network.model_files import load_model

    make, kind = onnx.helper.make_node, onnx.TensorProto
    inputs = ["t", "a", "b"] if op == "Where" else ["a", "b"]
    nodes = [make(op, inputs, ["c"], name="outer"), make("Cast", ["c"], ["f"], to=kind.FLOAT)]
    nodes += [make("ReduceSum", ["f"], ["r"], keepdims=0), make("Add", ["x", "r"], ["y"])]
    tensors = {**SMALL, "t": np.ones((1, 1), bool)}
    graph = onnx.helper.make_graph(
        nodes, "g", [onnx.helper.make_tensor_value_info("x", kind.FLOAT, ["N", 4])],
        [onnx.helper.make_tensor_value_info("y", kind.FLOAT, None)],
        [onnx.numpy_helper.from_array(x, name) for name, x in tensors.items()],
    )  # fmt: skip
    path = tmp_path / "hostile.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10), path)
    network = load_model(str(path))
    with pytest.raises(InputError, match=r"hostile\.onnx: .*outer.*a result of shape \(300000, 300000\)"):
        network(torch.zeros(2, 4))


class Outer(torch.nn.Module):
    def forward(self, x):
        return x.reshape(-1, 1) + x.reshape(1, -1)


def test_an_exported_file_is_run_by_the_command_line_and_ends_in_one_message(tmp_path):
    size = math.isqrt(MANY) ** 2
    x = torch.zeros(1, size)
    torch.export.save(torch.export.export(Outer(), (x,)), tmp_path / "outer.pt2")
    np.savez(tmp_path / "x.npz", x=np.zeros((1, size), np.float32))
    arguments = ["--hw", "npu", "--model", "outer.pt2", "--data", "x.npz"]
    found = subprocess.run(
        [sys.executable, "-m", "simulator", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert found.returncode == 2
    assert len(found.stderr.strip().splitlines()) == 1 and "a result of shape" in found.stderr, found.stderr
