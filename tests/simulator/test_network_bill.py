"""The bill of whole networks: products through their GEMMs, all else on the vector unit, and their sums."""

from dataclasses import replace
from fractions import Fraction

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from simulator.cost import Gemm, price, vector_unit  # noqa: E402
from simulator.hardware import VectorUnit, load_hardware  # noqa: E402
from simulator.network import vector, vector_work  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from tests.oracles.networks import Function, Recurrent, ResidualBlock, Transformer, resnet18  # noqa: E402

NPU = load_hardware("npu")
# On which a cycle is an elementary operation, and so is a joule.
COUNTING = replace(NPU, vector_unit=VectorUnit(lanes=1, energy_j=1.0), memory=None)


def moving(read_j, write_j):
    """A machine on which only the bits through the ports of the buffer cost anything: a joule each, as chosen."""
    dram = replace(NPU.memory.dram, bandwidth_bits_per_cycle=Fraction(1), energy_j_per_bit=0.0)
    sram = replace(NPU.memory.buffer("a"), size_bits=10**9, read_j_per_bit=read_j, write_j_per_bit=write_j)
    memory = replace(NPU.memory, dram=dram, buffers=(sram,))
    return replace(NPU, vector_unit=VectorUnit(lanes=1, energy_j=0.0), memory=memory)


def bill(model, *args, machine=NPU, layers=None, backward=False, mode="low"):
    """The record of a model on a machine."""
    with Emulation(model, machine, layers, default=mode) as run, torch.set_grad_enabled(backward):
        output = model(*args)
        if backward:
            output.sum().backward()
    return run.result


def cycles(function, *args, machine=COUNTING):
    """Cycles of the only operation of a function that costs any, by the machine that counts: elementary operations."""
    operations = bill(Function(function), *args, machine=machine).operations
    (found,) = [one.cycles for one in operations if one.cycles]
    return found


def ones(*shape):
    return torch.ones(shape)


X = ones(2, 4, 6, 6)  # 288 elements
SCALE = torch.ones(4)


@pytest.mark.parametrize(
    ("function", "steps"),
    [
        (torch.relu, 288),
        (lambda x: x + x, 288),
        (lambda x: x + x[:, :1], 288),
        (lambda x: x * 2, 288),
        (lambda x: x**2, 288),
        (lambda x: x.sqrt(), 288 * 5),
        (lambda x: x / x, 288 * 5),
        (torch.exp, 288 * 8),
        (torch.sigmoid, 288 * 13),
        (torch.tanh, 288 * 15),
        (functional.silu, 288 * 14),
        (functional.gelu, 288 * 11),
        (lambda x: functional.glu(x, 1), 144 * 14),  # a gate for each of the half that is left
        (lambda x: x.clamp(0, 1), 288 * 2),
        (lambda x: x.sum((2, 3)), 288),
        (lambda x: x.mean((2, 3)), 288 + 8),
        (lambda x: functional.adaptive_avg_pool2d(x, 1), 288 + 8),
        (lambda x: x.amax((2, 3)), 288),
        (lambda x: x.softmax(-1), 288 * 12 + 48 * 4),
        (lambda x: x.softmax(1), 288 * 12 + 72 * 4),
        (lambda x: x.log_softmax(-1), 288 * 12 + 48 * 9),
        (lambda x: functional.layer_norm(x, x.shape[2:]), 288 * 5 + 8 * 7),
        (lambda x: functional.group_norm(x, 2), 288 * 5 + 4 * 7),
        (lambda x: functional.batch_norm(x, SCALE, SCALE, SCALE, SCALE), 288),
        (lambda x: functional.batch_norm(x, None, None, training=True), 288 * 5 + 4 * 7),
        (lambda x: functional.max_pool2d(x, 3, 2), 2 * 4 * 2 * 2 * 9),
        (lambda x: functional.max_pool2d(x, (2, 3)), 2 * 4 * 3 * 2 * 6),
        (lambda x: functional.avg_pool2d(x, 3, 1), 2 * 4 * 4 * 4 * (9 + 1)),
        (lambda x: functional.adaptive_avg_pool2d(x, 4), 2 * 4 * 4 * 4 * (2 * 2 + 1)),
        (lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"), 4 * 288 * 4),
    ],
)
def test_elementary_operations_are_those_counted_by_hand(function, steps):
    assert cycles(function, X) == steps


def test_bits_through_the_ports_are_those_counted_by_hand():
    """(read, written) elements: operands once, what passes need again, results."""
    for function, read, written in (
        (torch.relu, 288, 288),
        (lambda x: x + x, 288, 288),  # one operand, read once
        (lambda x: x + x[:, :1], 288 + 72, 288),
        (lambda x: x.sum((2, 3)), 288, 8),
        (lambda x: x.softmax(-1), 3 * 288, 2 * 288),
        (lambda x: functional.layer_norm(x, x.shape[2:]), 3 * 288, 288 + 2 * 8),  # with means and deviations
        (lambda x: functional.max_pool2d(x, 3, 2), 288, 32),  # without the indices
        (lambda x: torch.cat([x, x + 0]), 288 + 576, 288 + 576),
    ):
        for machine, elements in ((moving(1.0, 0.0), read), (moving(0.0, 1.0), written)):
            operations = bill(Function(function), X, machine=machine).operations
            assert sum(one.energy_j for one in operations) == 32 * elements


def test_in_place_and_out_read_and_write_what_they_say():
    def written_out(x, y):
        return torch.add(x, y, out=torch.empty_like(x))

    y = ones(4, 5)
    for function, read in ((lambda x, y: x.add_(y), 40), (written_out, 40)):
        operations = bill(Function(function), ones(4, 5), y, machine=moving(1.0, 0.0)).operations
        assert sum(one.energy_j for one in operations) == 32 * read


# --- whole networks ---------------------------------------------------------------------------------------------------


class Classifier(nn.Module):
    """A small ResNet: stem, pooling, two blocks, global pooling, a linear layer and softmax."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.Sequential(ResidualBlock(8, 8, 1), ResidualBlock(8, 16, 2))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10), nn.Softmax(1))
        self.eval()

    def forward(self, x):
        return self.head(self.blocks(self.pool(self.stem(x))))


def not_priced(record):
    return [one.name for one in record.operations if one.unit != "MAC array" and one.cycles is None]


def check_sums(record, mode="low"):
    """All is priced, and the totals are the sums of layers and of all else."""
    assert not_priced(record) == [] and not [text for text in record.warnings if "priced" in text]
    total = record.totals[mode]
    for name in ("cycles", "latency_s", "energy_j"):
        layers = sum(getattr(layer, name) for layer in record.layers)
        others = sum(getattr(one, name) for one in record.operations if one.unit != "MAC array")
        assert others > 0
        assert total[name] == pytest.approx(layers + others, rel=1e-12)
        assert total[f"vector_{name}"] == pytest.approx(others, rel=1e-12)
    assert total["energy_low_j"] < total["energy_j"] < total["energy_high_j"]


def test_a_residual_network_is_priced_as_a_whole():
    x = torch.rand(4, 3, 16, 16)
    check_sums(bill(Classifier(), x))
    record = bill(Classifier(), x, machine=COUNTING)
    stem, half, quarter = 4 * 8 * 16 * 16, 4 * 8 * 8 * 8, 4 * 16 * 4 * 4  # elements of 4 images
    assert {one.name: one.cycles for one in record.operations if one.unit == "vector unit"} == {
        "native_batch_norm": stem + 2 * half + 3 * quarter,
        "relu": stem + 2 * half + 2 * quarter,
        "max_pool2d_with_indices": half * 9,
        "add": half + quarter,
        "mean": quarter + 4 * 16,
        "_softmax": 4 * 10 * 12 + 4 * 4,
    }
    assert (
        record.totals["low"]["vector_energy_j"]
        == record.totals["low"]["vector_cycles"]
        == sum(one.cycles for one in record.operations if one.cycles)
    )


def test_a_resnet18_a_language_model_and_an_lstm_are_priced_as_a_whole():
    with torch.no_grad():
        check_sums(bill(resnet18(8, 10), torch.rand(2, 3, 32, 32)))
        check_sums(bill(Transformer(), torch.randint(50, (2, 7))))
        check_sums(bill(Recurrent(), torch.rand(2, 5, 8)))


def test_a_training_step_of_a_residual_network_is_priced_as_a_whole():
    model = nn.Sequential(*resnet18(8, 10), nn.LogSoftmax(1), nn.GELU(), nn.SiLU(), nn.Tanh()).train()
    record = bill(model, torch.rand(2, 3, 32, 32), backward=True)
    check_sums(record)
    assert {"native_batch_norm_backward", "threshold_backward", "max_pool2d_with_indices_backward"} <= {
        one.name for one in record.operations if one.phase == "backward" and one.cycles
    }


def test_the_two_pass_totals_have_the_same_vector_unit():
    model, x = Classifier(), torch.rand(4, 3, 16, 16)
    low, two_pass = (bill(model, x, mode=mode) for mode in ("low", "two_pass"))
    check_sums(two_pass, "two_pass")
    for name in ("vector_cycles", "vector_latency_s", "vector_energy_j"):
        assert low.totals["low"][name] == two_pass.totals["two_pass"][name] > 0


def test_depthwise_separable_convolutions_are_gemms_of_their_groups():
    """A block of MobileNet (arXiv 1704.04861): 3 x 3 over each of 32 channels, then 1 x 1 to 64, on 14 x 14 images."""
    model = nn.Sequential(
        nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
    ).eval()  # fmt: skip
    record = bill(model, torch.rand(2, 32, 14, 14))
    deep, wide = record.layers
    positions = 2 * 14 * 14
    assert (deep.gemms, deep.m, deep.n, deep.k, deep.macs) == (32, positions, 1, 9, positions * 32 * 9)
    assert (wide.gemms, wide.m, wide.n, wide.k, wide.macs) == (1, positions, 64, 32, positions * 32 * 64)
    one = price(NPU, Gemm(positions, 1, 9, a_words=positions), "low")
    assert (deep.cycles, deep.energy_j) == (32 * one.cycles, pytest.approx(32 * one.energy_j))
    assert wide.cycles == price(NPU, Gemm(positions, 64, 32), "low").cycles
    check_sums(record)


def test_grouped_convolutions_are_gemms_of_their_groups():
    record = bill(nn.Conv2d(12, 24, 3, groups=3), torch.rand(2, 12, 6, 6))
    (layer,) = record.layers
    assert (layer.gemms, layer.m, layer.n, layer.k) == (3, 2 * 4 * 4, 8, 4 * 9)
    assert (
        layer.macs == 2 * 16 * 24 * 36
        and layer.cycles == price(NPU, Gemm(32, 8, 36, 3, a_words=2 * 12 * 6 * 6), "low").cycles
    )


def test_a_transformer_block_is_its_products_and_its_softmax():
    """Samples S, length T, width D, heads H, hidden F: 4 S T D^2 + 2 S T^2 D + 2 S T D F MACs."""
    samples, length, width, heads, hidden = 3, 10, 16, 4, 40
    model = nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True, activation="gelu").eval()
    x = torch.rand(samples, length, width)
    record = bill(model, x)
    rows, head = samples * length, width // heads
    shapes = [(layer.op, layer.gemms, layer.m, layer.n, layer.k) for layer in record.layers]
    assert shapes == [
        ("linear", 1, rows, 3 * width, width),
        ("bmm", samples * heads, length, length, head),
        ("bmm", samples * heads, length, head, length),
        ("linear", 1, rows, width, width),
        ("linear", 1, rows, hidden, width),
        ("linear", 1, rows, width, hidden),
    ]
    macs = 4 * rows * width**2 + 2 * rows * length * width + 2 * rows * width * hidden
    assert sum(layer.macs for layer in record.layers) == macs
    for layer in record.layers:
        assert layer.cycles == price(NPU, Gemm(layer.m, layer.n, layer.k, layer.gemms), "low").cycles
    check_sums(record)
    steps = {one.name: one.cycles for one in bill(model, x, machine=COUNTING).operations if one.cycles}
    scores = samples * heads * length * length
    assert steps == {
        "_safe_softmax": scores * 12 + samples * heads * length * 4,
        "native_layer_norm": 2 * (rows * width * 5 + rows * 7),
        "gelu": rows * hidden * 11,
        "add": 2 * rows * width,
        "mul": 2 * rows * width,  # queries and keys, each by the root of the scale
    }


# --- what has no price, or costs nothing ------------------------------------------------------------------------------


def test_without_lanes_the_record_is_that_of_the_array_and_says_so():
    model, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Tanh()), torch.rand(5, 6)
    record = bill(model, x, machine=replace(NPU, vector_unit=VectorUnit()))
    assert not_priced(record) == ["relu", "tanh"]
    assert record.warnings == ("relu, tanh: not priced: the machine gives no lanes; add vector_unit.lanes",)
    (layer,) = record.layers
    total = record.totals["low"]
    assert (total["cycles"], total["energy_j"]) == (layer.cycles, layer.energy_j)
    assert total["vector_cycles"] == total["vector_energy_j"] == 0
    assert "vector unit" not in record.energy_basis
    assert bill(model, x).energy_basis == f"{record.energy_basis}; vector unit assumed x/÷ 4"


def test_formats_without_a_price_are_named_and_the_rest_is_priced(monkeypatch):
    known = vector_unit.lane_energies
    monkeypatch.setattr(vector_unit, "lane_energies", lambda table, fmt: None if fmt.bits == 8 else known(table, fmt))
    model, x = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Tanh()), torch.rand(5, 6)
    record = bill(model, x, layers={"2": {"vector": "posit8"}})
    assert not_priced(record) == ["tanh"]
    (text,) = [text for text in record.warnings if "priced" in text]
    assert text == "tanh: not priced: the energy model has no price for posit8; add vector_unit.energy"
    assert record.totals["low"]["vector_cycles"] == next(o.cycles for o in record.operations if o.name == "relu")


def test_what_torch_computes_because_nothing_emulates_it_is_named():
    record = bill(nn.Sequential(nn.Linear(6, 4), Function(lambda x: x.sort().values)), torch.rand(5, 6))
    assert not_priced(record) == ["sort"]
    assert record.warnings[-1] == "sort: not priced: nothing emulates it, torch computed it"


def test_conversions_between_types_cost_nothing_and_nothing_is_said_of_them():
    convert = Function(lambda x: (x.half().float() + (x > 0).float()).double().to(torch.float32))
    layers = [nn.Linear(6, 4), convert, nn.Linear(4, 3)]
    for backward in (False, True):
        record = bill(nn.Sequential(*layers), torch.rand(5, 6), backward=backward)
        conversions = [one for one in record.operations if one.name == "_to_copy"]
        assert sum(one.count for one in conversions if one.phase == "forward") == 5
        assert {one.unit for one in conversions} == {"memory"}
        assert [(one.cycles, one.energy_j) for one in conversions] == [(0, 0)] * len(conversions)
        assert not_priced(record) == [] and not [text for text in record.warnings if "priced" in text]


def test_a_folded_normalisation_costs_nothing():
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval(), torch.rand(2, 3, 6, 6)
    folded = bill(model, x, machine=replace(NPU, fold_batch_norm=True))
    assert folded.totals["low"]["vector_cycles"] == 0 and folded.totals["low"]["cycles"] > 0
    assert bill(model, x).totals["low"]["vector_cycles"] > 0


def test_constants_views_and_copies_cost_nothing():
    def masked(x):
        mask = torch.ones(6, 6).tril().masked_fill(torch.eye(6) > 0, 2.0) * 0.5
        return x.transpose(-1, -2).contiguous().flatten(2).view(2, 4, 6, 6).clone() + mask

    record = bill(Function(masked), X, machine=COUNTING)
    assert {one.name: one.cycles for one in record.operations if one.cycles} == {"add": 288}
    assert not_priced(record) == []


def test_what_samples_are_written_into_is_no_constant():
    def scattered(x):
        zeros = torch.zeros(3, 288)
        zeros[1] = x.flatten()
        return zeros.exp()

    assert cycles(scattered, X) == 3 * 288 * 8


def test_weights_that_are_learned_are_no_constants():
    model = nn.utils.parametrizations.weight_norm(nn.Linear(6, 4))
    x = torch.rand(5, 6)
    assert bill(model, x, machine=COUNTING).totals["low"]["vector_cycles"] == 0  # folded before the inference
    assert bill(model, x, machine=COUNTING, backward=True).totals["low"]["vector_cycles"] > 0


def test_weights_are_read_once_for_all_batches():
    model = Function(lambda x: x * SCALE)
    model.register_buffer("own", SCALE)
    with Emulation(model, moving(1.0, 0.0)) as run, torch.no_grad():
        for _ in range(3):
            model(ones(5, 4))
    (one,) = run.result.operations
    assert one.count == 3 and one.energy_j == 32 * (3 * 20 + 4)


def test_every_operation_that_torch_does_not_mark_has_a_kind():
    """What is left to the kind of one addition an element is named here."""
    plain = {
        "cumsum", "max_pool2d_with_indices_backward", "threshold_backward", "hardshrink_backward", "scatter_add",
        "index_add", "segment_reduce", "col2im", "nll_loss_forward", "nll_loss2d_forward",
    }  # fmt: skip
    names = {name.strip("_") for name in vector._VECTOR}
    assert {name for name in names if vector_work.kind_of(name) == "elementwise"} <= plain
