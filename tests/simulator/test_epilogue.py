"""What the vector unit takes on its way out of the MAC array, and what it reads from memory."""

import pytest
import torch
from torch import nn

import simulator
from simulator.hardware import load_hardware
from simulator.network.storages import Storages

NPU = load_hardware("npu")


class Net(nn.Module):
    """Two products and a function of what they give and of the input."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.function = nn.Linear(8, 8), nn.Linear(8, 8), function

    def forward(self, x):
        return self.function(self, x)


def moved(function) -> dict[str, tuple[int, int]]:
    """Return the bits that each operation of the vector unit reads and writes on the chip, for five samples."""
    model = Net(function).eval()
    with simulator.emulate(model, NPU, layers={"*": "low"}) as run, torch.no_grad():
        model(torch.rand(5, 8))
    found = {}
    for operation in run.result.operations:
        if operation.unit == "vector unit":
            bits = {item.what: item.count for item in operation.energy_items if item.part == "sram"}
            found[operation.name] = bits.get("sram reads", 0), bits.get("sram writes", 0)
    return found


TENSOR = 5 * 8 * 32  # bits of a tensor of activations in float32
ROWS = 5 * 32  # of one value for each of its rows


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda net, x: net.first(x).relu(), {"relu": (0, 0)}),
        (lambda net, x: net.first(x).relu_(), {"relu_": (0, 0)}),
        (lambda net, x: net.first(x).view(5, 2, 4).sigmoid(), {"sigmoid": (0, 0)}),
        (lambda net, x: net.first(x).mul(2).tanh(), {"mul": (0, 0), "tanh": (0, 0)}),
        # A sum with what lies in memory reads that alone.
        (lambda net, x: net.first(x) + x, {"add": (TENSOR, 0)}),
        (lambda net, x: (net.first(x) + x).relu(), {"add": (TENSOR, 0), "relu": (0, 0)}),
        # The first of two products has come to memory when the second does.
        (lambda net, x: net.first(x) * net.second(x), {"mul": (TENSOR, 0)}),
        (lambda net, x: x.relu(), {"relu": (TENSOR, TENSOR)}),
        # What needs a whole row reads it; its result is in memory.
        (
            lambda net, x: net.first(x).softmax(1).relu(),
            {"_softmax": (3 * TENSOR, 2 * TENSOR), "relu": (TENSOR, TENSOR)},
        ),
        (lambda net, x: nn.functional.max_pool1d(net.first(x), 2).relu(), None),
        # What a whole row has been read for lies in memory: it is read from there again, with a mean for each row.
        (
            lambda net, x: (y := net.first(x)) - y.mean(1, keepdim=True),
            {"mean": (TENSOR, ROWS), "sub": (TENSOR + ROWS, TENSOR)},
        ),
        (
            lambda net, x: (z := net.first(x).relu()) + z.softmax(1),
            {"relu": (0, 0), "_softmax": (3 * TENSOR, 2 * TENSOR), "add": (2 * TENSOR, TENSOR)},
        ),
        # Moved values are read too.
        (lambda net, x: (y := net.first(x)) * y.flip(0), {"mul": (2 * TENSOR, TENSOR)}),
        # A sparse tensor has no memory in one piece by which it could be known.
        (lambda net, x: torch.relu(net.first(x).to_sparse()).to_dense(), {"relu": (TENSOR, TENSOR)}),
        # Of fifty results the product has paid for one.
        (lambda net, x: net.first(x) + torch.ones(50, 1, 1), {"add": (50 * 32, 49 * TENSOR)}),
        (lambda net, x: net.first(x).expand(50, 5, 8).add(1), {"add": (0, 49 * TENSOR)}),
        (lambda net, x: (net.first(x) + torch.ones(50, 1, 1)).tanh(), {"add": (50 * 32, 49 * TENSOR), "tanh": (0, 0)}),
    ],
)  # fmt: skip
def test_elementwise_operations_take_results_as_they_come(function, expected):
    found = moved(function)
    if expected is None:
        assert found["relu"] == (TENSOR // 2, TENSOR // 2)
        assert found["max_pool2d_with_indices"] == (TENSOR, TENSOR // 2)
    else:
        assert found == expected


def test_a_normalisation_with_known_statistics_passes_values_on():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 3)).eval()
    with simulator.emulate(model, NPU, layers={"*": "low"}) as run, torch.no_grad():
        model(torch.rand(2, 2, 9, 9))
    items = {
        o.name: {i.what: i.count for i in o.energy_items} for o in run.result.operations if o.unit == "vector unit"
    }
    norm = next(bits for name, bits in items.items() if "batch_norm" in name)
    assert norm["sram reads"] == 4 * 3 * 32  # mean, variance, scale and shift of a channel
    assert "sram writes" not in norm
    assert set(items["relu"]) == {"additions"}


def test_a_place_that_another_tensor_took_is_not_taken_for_what_was_there():
    def function(net, x):
        y = net.first(x).relu()
        z = y.softmax(1)
        del y
        for _ in range(50):  # whatever memory is free is used again
            z = z.softmax(1)
            w = z.neg()
        return w

    assert moved(function)["neg"] == (50 * TENSOR, 50 * TENSOR)


def test_storages_know_views_and_forget_what_is_freed():
    held, x, other = Storages(), torch.rand(4, 4), torch.rand(4, 4)
    for tensor in (x, x.to_sparse(), torch.nested.nested_tensor([other], layout=torch.jagged)):
        held.add(tensor)
    assert x in held and x[1:].T in held
    assert other not in held and x.to_sparse() not in held
    held.discard(x.flatten())
    assert x not in held
    held.add(x)
    del x
    taken = [torch.rand(4, 4) for _ in range(50)]  # memory that was freed is used again
    assert not any(tensor in held for tensor in taken)
    held.forget_freed()
    assert not held._storages
