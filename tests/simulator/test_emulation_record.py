"""Emulation: which arithmetic a layer has, what is recorded and priced, and that batches and threads change nothing."""

import copy
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import simulator  # noqa: E402
from simulator.cost import Gemm, price  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from tests.oracles.layers import NPU, product, unfolded  # noqa: E402
from tests.simulator.tap_runs import emulated, rand, same  # noqa: E402

# --- which arithmetic a layer has -------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU())
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.body(x))


def test_the_first_pattern_that_fits_counts():
    layers = {"body.2": "high", "body*": "fp8_e4m3 -> fma(bf16)", "head": "float32", "*": "exact"}
    _, result = emulated(Net(), rand(3, 20), layers=layers)
    assert [layer.mac for layer in result.layers] == [
        "fp8_e4m3 -> fma(bf16)", str(NPU.mac.high.spec), "float32",
    ]  # fmt: skip


def test_layers_that_no_pattern_fits_follow_the_policy():
    _, result = emulated(Net(), rand(3, 20), layers={"head": "low"})
    both = f"{NPU.mac.low.spec}; {NPU.mac.high.spec}"
    assert [layer.mac for layer in result.layers] == [both, both, str(NPU.mac.low.spec)]
    assert [layer.activation for layer in result.layers] == ["relu", "relu", "identity"]


def test_patterns_name_the_calls_of_a_module_and_the_model_itself():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x)) @ torch.ones(4, 4)

    layers = {"layer#2": "exact", "Model": "float32"}
    _, result = emulated(Model(), rand(2, 4), name="low", layers=layers)
    assert [layer.mac.split()[-1] for layer in result.layers] == [
        str(NPU.mac.low.spec).split()[-1],
        "exact(fp32)",
        "float32",
    ]
    _, result = emulated(nn.Linear(4, 4), rand(2, 4), layers={"Linear": "float32"})
    assert result.layers[0].mac == "float32"


def test_float32_leaves_torchs_own_result():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    x = rand(4, 3, 8, 8)
    output, result = emulated(model, x, layers={"*": "float32"})
    assert torch.equal(output, model(x))
    assert [(layer.mac, layer.cycles, layer.macs) for layer in result.layers] == [
        ("float32", None, 4 * 36 * 8 * 27), ("float32", None, 4 * 10 * 8 * 36),
    ]  # fmt: skip
    assert result.totals == {"low": None, "high": None, "two_pass": None}


def test_float32_layers_among_others():
    model = Net()
    x = rand(3, 20)
    output, _ = emulated(model, x, name="low", layers={"body.*": "float32"})
    with torch.no_grad():
        wanted = product("low", model.body(x), model.head.weight.T, model.head.bias)[0]
    assert same(output, wanted)


@pytest.mark.parametrize(
    "layers, message",
    [
        (
            {"boddy*": "low"},
            "layers: pattern 'boddy*' fits no module; expected a glob on Net, body, body.0, body.1, body.2,",
        ),
        (
            {"body*": "lowest"},
            "layers: body.: mac: got what is no arithmetic: accumulator 'lowest' is unknown; .*; expected low, high",
        ),
        ({"body*": "fma(fp61)"}, "layers: body.: mac: .*fp61.*"),
        ({"body*": ""}, "layers: body.: mac: "),
        ("exact", "layers: got 'exact'; expected a mapping; give e.g. "),
    ],
)
def test_wrong_layers_are_refused(layers, message):
    with pytest.raises(InputError, match=message.replace("*'", "\\*'")):
        simulator.emulate(Net(), NPU, layers=layers)


def test_emulate_takes_names_and_refuses_what_is_no_module():
    with simulator.emulate(Net(), "npu") as run:
        pass
    assert run.result.hardware == "npu" and run.result.layers == ()
    with pytest.raises(TypeError, match=r"got function; expected a torch.nn.Module"):
        simulator.emulate(rand, "npu")
    with pytest.raises(InputError, match="no file and no bundled machine"):
        simulator.emulate(Net(), "npv")


# --- the record -------------------------------------------------------------------------------------------------------


def test_a_record_is_what_the_two_passes_did_and_what_they_cost():
    model, x = Net(), rand(33, 20)
    output, result = emulated(model, x)
    h = x.numpy()
    for record, layer, activation in zip(
        result.layers, (model.body[0], model.body[2], model.head), ("relu", "relu", "identity"), strict=True
    ):
        w, c = layer.weight.detach().numpy().T, layer.bias.detach().numpy()
        values, mask = product("two_pass", h, w, c, activation)
        cost = price(NPU, Gemm(33, w.shape[1], w.shape[0]), "two_pass", mask)
        assert record.activation == activation
        assert (record.m, record.n, record.k, record.gemms) == (33, w.shape[1], w.shape[0], 1)
        assert record.macs == 33 * w.size
        assert record.recomputed_outputs == np.count_nonzero(mask) > 0
        assert record.recomputed_macs == np.count_nonzero(mask) * w.shape[0]
        for name in (
            "cycles",
            "utilisation",
            "latency_s",
            "energy_j",
            "energy_parts_j",
            "cycle_parts",
            "roofline_cycles",
        ):
            assert getattr(record, name) == getattr(cost, name)
        assert record.max_rel_error is record.mean_rel_error is record.median_rel_error is None  # no exact run
        h = np.maximum(values, 0)
    assert same(output, values)
    total = result.totals["two_pass"]
    for name in ("cycles", "latency_s", "energy_j"):
        relus = next(getattr(one, name) for one in result.operations if one.name == "relu")
        layers = sum(getattr(layer, name) for layer in result.layers)
        assert total[name] == pytest.approx(layers + relus, rel=1e-12)
        assert total[f"vector_{name}"] == relus > 0
    share = sum(layer.recomputed_macs for layer in result.layers) / sum(layer.macs for layer in result.layers)
    assert total["accumulation_cost"] == 8 / 16 + share
    assert result.samples == 33 and result.hardware == "npu" and result.model == "Net"
    assert result.tolerance == 0.5 and result.seed == 0 and result.warnings == ()


def test_the_accumulation_cost_of_mixed_modes_is_the_mean_over_the_macs():
    _, result = emulated(Net(), rand(3, 20), layers={"body.0": "high", "body.2": "low"})
    high, low, two_pass = result.layers
    macs = high.macs + low.macs + two_pass.macs
    wanted = (high.macs + 0.5 * low.macs + 0.5 * two_pass.macs + two_pass.recomputed_macs) / macs
    assert result.totals["two_pass"]["accumulation_cost"] == pytest.approx(wanted, rel=1e-12)


def test_overflows_are_those_of_the_first_pass():
    layer, x = nn.Linear(64, 5, bias=False), 100 * rand(6, 64)
    with torch.no_grad():
        layer.weight *= 10
    _, stats = simulator.matmul(x.numpy(), layer.weight.detach().numpy().T, mac=NPU.mac.low.spec, stats=True)
    assert 0 < stats.overflows < 30
    for name in ("low", "two_pass"):
        assert emulated(layer, x, name=name)[1].layers[0].overflows == stats.overflows


def test_what_is_not_emulated_is_in_the_warnings():
    model = nn.Sequential(nn.Bilinear(4, 4, 4))
    for _ in range(2):
        with torch.no_grad(), simulator.emulate(model, NPU) as run:
            model[0](rand(3, 4), rand(3, 4))
        assert run.result.warnings == ("_trilinear in 0: not emulated and not priced; torch computed it",)


class Exponential(nn.Module):
    def forward(self, x):
        return torch.matrix_exp(x)


def test_a_long_list_of_places_is_cut():
    model = nn.Sequential(*(Exponential() for _ in range(6)))
    _, result = emulated(model, rand(3, 3))
    assert result.warnings == (
        "linalg_matrix_exp in 0, 1, 2, 3 and 2 more: not emulated and not priced; torch computed it",
    )


def test_a_score_without_a_rule_is_in_the_warnings():
    _, result = emulated(nn.Sequential(nn.Linear(4, 4), nn.CELU(2.0)), rand(3, 4))
    assert result.warnings == ("0: consumed by celu, for which there is no rule; scored as identity",)


# --- batches, threads, observers --------------------------------------------------------------------------------------


class Mixed(nn.Module):
    """Convolutions with groups, attention products and linear layers."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.conv = nn.Conv2d(2, 6, 3, padding=1, groups=2)
        self.norm = nn.BatchNorm2d(6)
        self.norm.running_mean.normal_()
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        x = torch.tanh(self.norm(self.conv(x))).flatten(2)
        return self.head((x @ x.transpose(1, 2)).relu())


def same_but_for_batches(run, other):
    """Whether records are the same but for how often operations ran."""
    work = [[operation.work for operation in record.operations] for record in (run, other)]
    return work[0] == work[1] and replace(run, operations=()) == replace(other, operations=())


@pytest.mark.parametrize("name", ["low", "two_pass"])
@pytest.mark.parametrize("sizes", [(7,), (1, 6), (4, 3), (1,) * 7])
def test_batches_change_nothing(sizes, name):
    model, x = Mixed().eval(), rand(7, 2, 5, 5)
    whole, wanted = emulated(model, x, name=name)
    with Emulation(model, NPU, default=name) as run:
        outputs = [model(batch) for batch in x.split(sizes)]
    assert torch.equal(torch.cat(outputs), whole)
    assert same_but_for_batches(run.result, wanted)
    assert wanted.samples == 7
    assert [(r.name, r.gemms, r.m) for r in wanted.layers] == [("conv", 2, 175), ("Mixed", 7, 6), ("head", 1, 42)]


def test_an_emulation_can_be_entered_again():
    model, x = Net(), rand(4, 20)
    _, wanted = emulated(model, x)
    run = simulator.emulate(model, NPU)
    for batch in x.split(2):
        with run:
            model(batch)
    assert same_but_for_batches(run.result, wanted)


def test_threads_change_nothing():
    model, x = Mixed().eval(), rand(7, 2, 5, 5)
    results = [emulated(model, x, threads=threads) for threads in (1, 2, 5, None)]
    assert all(torch.equal(output, results[0][0]) and result == results[0][1] for output, result in results)


def test_the_recording_pass_changes_no_result_and_counts_no_sample():
    model, x = Mixed().train(), rand(7, 2, 5, 5)
    twin = copy.deepcopy(model)
    output, result = emulated(model, x, name="two_pass")
    recorded = Emulation(twin, NPU, default="two_pass", consumers={})
    with recorded:
        twin(x)
    assert result.samples == 7 and output.shape == (7, 6, 3)
    assert model.norm.num_batches_tracked == 1
    assert torch.equal(model.norm.running_mean, twin.norm.running_mean)


def test_batch_normalisation_is_folded_into_the_score():
    conv, norm = nn.Conv2d(2, 6, 3, groups=2), nn.BatchNorm2d(6).eval()
    with torch.no_grad():
        norm.running_var.copy_(rand(6).abs() + 0.1)
        norm.bias.copy_(rand(6, seed=1))
    x = rand(3, 2, 5, 5)
    _, result = emulated(nn.Sequential(conv, norm, nn.ReLU()), x, name="two_pass")
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double().numpy()
    shift = (
        (norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()).detach().double().numpy()
    )
    count, unfolded_count = 0, 0
    for group in range(2):
        rows = unfolded(x[:, group : group + 1].numpy(), (3, 3), (1, 1), (0, 0), (1, 1)).reshape(-1, 9)
        own = slice(3 * group, 3 * group + 3)
        w, c = conv.weight.detach()[own].reshape(3, 9).numpy().T, conv.bias.detach()[own].numpy()
        count += np.count_nonzero(product("two_pass", rows, w, c, "relu", scale[own], shift[own])[1])
        unfolded_count += np.count_nonzero(product("two_pass", rows, w, c, "relu")[1])
    assert result.layers[0].recomputed_outputs == count != unfolded_count


def test_observers_see_the_outputs_before_the_network_changes_them():
    model, x, seen = nn.Sequential(nn.Linear(20, 8), nn.ReLU(inplace=True)), rand(3, 20), []
    with Emulation(
        model, NPU, default="low", observers=(lambda op, out, tally: seen.append((op, out.copy(), tally)),)
    ) as run:
        model(x)
    ((op, out, tally),) = seen
    assert op.name == "0" and [tally] == list(run.tallies)
    assert out.shape == (1, 3, 8)
    assert np.array_equal(
        out[0], product("low", x.numpy(), model[0].weight.detach().numpy().T, model[0].bias.detach().numpy())[0]
    )


def test_a_layer_has_a_record_for_each_shape():
    model = nn.Conv1d(2, 3, 2)
    with Emulation(model, NPU, default="low") as run:
        model(rand(2, 2, 5))
        model(rand(2, 2, 9))  # more positions: more rows
    assert run.result.layers[0].m == 2 * 4 + 2 * 8

    class Gram(nn.Module):
        def forward(self, x):
            return x @ x.T

    model = Gram()
    with Emulation(model, NPU) as run:
        for size in (2, 3, 2):
            model(rand(size, 4))
    assert [(layer.name, layer.m, layer.n, layer.k) for layer in run.result.layers] == [
        ("Gram", 4, 2, 4), ("Gram", 3, 3, 4),
    ]  # fmt: skip


def test_a_module_called_directly_is_emulated_with_its_consumer():
    model, x = Net(), rand(5, 20)
    with simulator.emulate(model, NPU) as run:
        y = model.body(x)
    w, c = model.body[0].weight.detach().numpy().T, model.body[0].bias.detach().numpy()
    h = np.maximum(product("two_pass", x.numpy(), w, c, "relu")[0], 0)
    w, c = model.body[2].weight.detach().numpy().T, model.body[2].bias.detach().numpy()
    assert same(y, np.maximum(product("two_pass", h, w, c, "relu")[0], 0))
    assert [(layer.name, layer.activation) for layer in run.result.layers] == [("body.0", "relu"), ("body.2", "relu")]
    assert run.result.samples == 5


def test_two_models_at_once_and_the_same_one_not():
    model, other, x = Net(), Net(), rand(3, 20)
    wanted, _ = emulated(model, x, name="two_pass")
    with Emulation(model, NPU) as outer, Emulation(other, NPU) as inner:
        assert torch.equal(model(x), wanted)
        assert torch.equal(other(x), wanted)
    assert outer.result.layers == inner.result.layers
    with (
        Emulation(model, NPU),
        pytest.raises(InputError, match="being emulated or tracked already"),
        Emulation(model, NPU),
    ):
        pass


def test_dropout_and_training_mode_use_the_same_random_numbers():
    model, x = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).train(), rand(3, 4)
    torch.manual_seed(9)
    plain_output = model(x)
    torch.manual_seed(9)
    output, _ = emulated(model, x, name="two_pass")
    assert torch.equal(output == 0, plain_output == 0)


def test_a_layer_that_does_not_fit_into_memory_is_refused(monkeypatch):
    from simulator.network import limits

    monkeypatch.setattr(limits, "physical_memory", lambda: 4000)
    with (
        pytest.raises(InputError, match=r"Linear: outputs 1 x \(20, 8\): .* expected at most .*; take fewer samples"),
        simulator.emulate(layer := nn.Linear(4, 8), NPU),
    ):
        layer(rand(20, 4))


def test_the_steps_of_a_recurrent_layer_are_one_record():
    """Each step has a tally, and random words, of its own; the record has them together, one after the other."""
    layer, x = nn.LSTM(4, 3, num_layers=2), rand(5, 2, 4)
    with Emulation(layer, NPU, default="two_pass") as run:
        layer(x)[0].sum().backward()
    result = run.result
    assert [(r.name, r.phase, r.gemms, r.m, r.n, r.k) for r in result.layers] == [
        ("LSTM", "forward", 1, 10, 12, 4), ("LSTM#2 to #6", "forward", 5, 2, 12, 3),
        ("LSTM#7", "forward", 1, 10, 12, 3), ("LSTM#8 to #12", "forward", 5, 2, 12, 3),
        ("LSTM#12 to #9", "input gradient", 4, 2, 3, 12), ("LSTM#12 to #8", "weight gradient", 5, 12, 3, 2),
        ("LSTM#7", "input gradient", 1, 10, 3, 12), ("LSTM#7", "weight gradient", 1, 12, 3, 10),
        ("LSTM#6 to #3", "input gradient", 4, 2, 3, 12), ("LSTM#6 to #2", "weight gradient", 5, 12, 3, 2),
        ("LSTM", "weight gradient", 1, 12, 4, 10),
    ]  # fmt: skip
    steps = result.layers[1]
    one = price(NPU, Gemm(2, 12, 3), "high")
    assert steps.macs == 5 * 2 * 12 * 3 and result.layers[5].cycles == 5 * price(NPU, Gemm(12, 3, 2), "high").cycles
    assert steps.energy_j == pytest.approx(sum(steps.energy_parts_j.values())) and steps.cycles > 5 * one.cycles / 2
    assert sum(steps.cycle_parts.values()) == steps.cycles and 0 < steps.utilisation < 1
    backward = price(NPU, Gemm(12, 3, 2), "high").traffic_bits
    assert set(backward) == {"dram", "sram_reads", "sram_writes", "accumulators_reads", "accumulators_writes"}
    assert result.layers[5].traffic_bits == {level: 5 * bits for level, bits in backward.items()}
    assert len(list(run.tallies)) > len(result.layers)


def test_a_layer_of_another_arithmetic_has_a_record_of_its_own():
    """Of products with a factor, which have one pass."""

    class Factor(nn.Module):
        def forward(self, c, a, b, alpha):
            return torch.addmm(c, a, b, alpha=alpha)

    model = Factor()
    with simulator.emulate(model, NPU) as run:
        for alpha in (1, 2, 1):
            model(torch.ones(2, 2), torch.ones(2, 3), torch.ones(3, 2), alpha)
    assert [(layer.m, ";" in layer.mac) for layer in run.result.layers] == [(4, True), (2, False)]


def test_a_stack_of_one_that_is_a_layer_counts_its_rows():
    class Einsum(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(rand(4, 3))

        def forward(self, x):
            return torch.einsum("bti,ij->btj", x, self.w)

    model, x = Einsum(), rand(5, 2, 4)
    whole, wanted = emulated(model, x)
    with Emulation(model, NPU) as run:
        outputs = [model(part) for part in x.split(2)]
    assert torch.equal(torch.cat(outputs), whole) and same_but_for_batches(run.result, wanted)
    (record,) = run.result.layers
    assert (record.gemms, record.m) == (1, 10)


def test_calibration_is_before_the_block():
    layer = nn.Linear(4, 3)
    run = simulator.emulate(layer, NPU, {"*": {"mac": "low", "activations": {"when": "calibrated"}}})
    with run, pytest.raises(InputError, match="calibrate: called within the block; expected before it"):
        run.calibrate(rand(2, 4))


def test_directions_of_a_recurrent_layer_are_records_of_their_own():
    layer, x = nn.LSTM(4, 3, bidirectional=True), rand(5, 2, 4)
    with Emulation(layer, NPU, default="low") as run:
        layer(x)[0].sum().backward()
    assert [(r.name, r.gemms) for r in run.result.layers if r.phase == "input gradient"] == [
        ("LSTM#12 to #9", 4), ("LSTM#6 to #3", 4),
    ]  # fmt: skip


class Steps(nn.Module):
    """Two products of the same shape in each step, of weights of their own."""

    def __init__(self, recurs):
        super().__init__()
        self.first, self.second = (nn.Parameter(rand(4, 4)) for _ in range(2))
        self.recurs = recurs

    def forward(self, x):
        state = torch.zeros_like(x[0])
        for step in x:
            state = torch.tanh(step @ self.first + state @ self.second)
        return state


def test_a_module_says_that_its_steps_are_one_record():
    x, names = rand(3, 2, 4), []
    for recurs in (False, True):
        with Emulation(layer := Steps(recurs), NPU, default="low") as run:
            layer(x)
        names.append([record.name for record in run.result.layers])
    assert names == [["Steps", *(f"Steps#{n}" for n in range(2, 7))], ["Steps to #5", "Steps#2 to #6"]]


def test_an_interruption_within_a_recurrent_layer_ends_with_it():
    class Stops(nn.Module):
        recurs = True

        def forward(self, x):
            raise KeyboardInterrupt

    class Either(nn.Module):
        def __init__(self):
            super().__init__()
            self.stops, self.linear = Stops(), nn.Linear(4, 4)

        def forward(self, x, stop):
            return self.stops(x) if stop else self.linear(self.linear(x))

    model = Either()
    with Emulation(model, NPU, default="low") as run:
        with pytest.raises(KeyboardInterrupt):
            model(rand(2, 4), True)
        model(rand(2, 4), False)
    assert [record.name for record in run.result.layers] == ["linear", "linear#2"]


def test_memory_is_flat_over_training_steps():
    layer, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), rand(4, 8)
    with simulator.emulate(layer, NPU, {"*": "low"}) as run:
        for step in range(60):
            layer(x).sum().backward()
            if step == 20:
                sizes = len(run._tap._origins._of)
    assert len(run._tap._origins._of) - sizes <= 2 * 39  # two products a step, up to a limit
