"""evaluate: any torch model in all modes, over data of any kind, the same record for any batches."""

import gc
import signal
import threading
import time
import weakref
from dataclasses import dataclass, replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader, TensorDataset  # noqa: E402

import simulator  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.hardware import load_hardware  # noqa: E402
from simulator.network import evaluation  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from simulator.network.interruption import Interruption  # noqa: E402
from simulator.result import MODES  # noqa: E402


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Language(nn.Module):
    """A language model of one block: (N, T) tokens to (N, T, 20) logits, with dropout."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
        self.head = nn.Linear(16, 20)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.block(self.embedding(tokens), src_mask=mask, is_causal=True))


class Pair(nn.Module):
    """Two inputs, of which one may be given by keyword; the answer is what `pack` makes of the logits."""

    def __init__(self, pack=lambda logits: logits):
        super().__init__()
        self.left, self.right, self.pack = nn.Linear(12, 8), nn.Linear(5, 8), pack

    def forward(self, a, b):
        return self.pack(self.left(a) + self.right(b))


@dataclass
class Answer:
    loss: torch.Tensor
    logits: torch.Tensor


def made(make, *args):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(*args)


def same(record):
    """A record without what depends on the batches: the count of operations, and the last bits of torch's own run."""
    metrics = {name: {mode: by_mode[mode] for mode in MODES} for name, by_mode in record.metrics.items()}
    return replace(record, operations=(), metrics=metrics)


@pytest.fixture(scope="module")
def language():
    tokens = torch.randint(20, (9, 7), generator=seeded())
    labels = torch.cat([tokens[:, 1:], torch.full((9, 1), -100)], 1)
    model = made(Language)
    return model, tokens, labels, simulator.evaluate(model, "npu", tokens, labels)


@pytest.fixture(scope="module")
def pair():
    model = made(Pair).eval()
    a, b = torch.randn(10, 12, generator=seeded()), torch.randn(10, 5, generator=seeded(1))
    y = torch.randint(8, (10,), generator=seeded(2))
    return model, a, b, y, simulator.evaluate(model, "npu", (a, b), y)


# --- the record -----------------------------------------------------------------------------------------------------


def test_all_modes_stand_side_by_side(language):
    model, _, _, record = language
    assert (record.model, record.samples, record.complete) == ("Language", 9, True)
    assert set(record.metrics) == {"top1", "top5", "agreement", "cosine", "kl", "perplexity", "mse", "sqnr_db"}
    assert all(list(values) == ["float32", *MODES] for values in record.metrics.values())
    for values in record.metrics.values():
        assert None not in [value for mode, value in values.items() if mode != "exact"]
    for name, by_mode in (("top1", record.accuracy), ("agreement", record.agreement)):
        assert by_mode == {mode: record.metrics[name][mode] for mode in MODES}
    assert list(record.forward_error) == list(MODES)
    for mode in MODES:
        assert record.forward_error[mode] ** 2 == pytest.approx(record.metrics["mse"][mode], rel=1e-14)
    sqnr = record.metrics["sqnr_db"]
    assert sqnr["low"] < sqnr["two_pass"] < sqnr["high"] and sqnr["exact"] is None
    assert {"head", "block.self_attn"} <= {layer.name for layer in record.layers}
    assert all(layer.sqnr_db > 10 for layer in record.layers)
    assert model.training and all(module.training for module in model.modules())


def test_each_mode_is_what_it_is_alone(language):
    model, tokens, labels, record = language
    machine, outputs = load_hardware("npu"), {}
    for mode in MODES:
        model.eval()
        with torch.no_grad(), Emulation(model, machine, default=mode) as run:
            outputs[mode] = model(tokens).double()
        model.train()
        surprise = nn.functional.cross_entropy(outputs[mode].flatten(0, 1), labels.flatten())
        assert record.metrics["perplexity"][mode] == pytest.approx(float(surprise.exp()), rel=1e-12)
        assert record.metrics["mse"][mode] == pytest.approx(float((outputs[mode] - outputs["exact"]).square().mean()))
        if mode != "exact":
            assert record.totals[mode] == run.result.totals[mode]
            layers = record.layers if mode == "two_pass" else record.baseline_layers[mode]
            unknown = {
                "activation": "",
                "max_rel_error": None,
                "mean_rel_error": None,
                "median_rel_error": None,
                "sqnr_db": None,
                "rms_error": None,
            }
            alone = [replace(layer, activation="") for layer in run.result.layers]  # low and high have no score
            assert [replace(layer, **unknown) for layer in layers] == alone


def test_dropout_is_off_and_the_mode_of_each_module_comes_back(pair):
    _, a, _, y, _ = pair
    model = made(lambda: nn.Sequential(nn.Dropout(0.9), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.9)))
    model[1].eval()
    before = [module.training for module in model.modules()]
    first = simulator.evaluate(model, "npu", a, y)
    assert [module.training for module in model.modules()] == before
    assert simulator.evaluate(model.eval(), "npu", a, y) == first
    assert int(model[2].num_batches_tracked) == 0


def test_what_a_model_draws_it_draws_in_every_mode():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 8)

        def forward(self, x):
            return self.linear(nn.functional.dropout(x, 0.5))

    model, x = made(Noisy), torch.randn(10, 12, generator=seeded())
    state = torch.get_rng_state()
    record = simulator.evaluate(model, "npu", x, seed=3)
    assert record.metrics["sqnr_db"]["high"] > 25
    assert simulator.evaluate(model, "npu", x, seed=3) == record
    assert simulator.evaluate(model, "npu", x, seed=4) != record
    assert torch.equal(torch.get_rng_state(), state)


def test_gradients_are_not_kept(pair):
    model, a, b, *_ = pair
    seen = []
    simulator.evaluate(model, "npu", (a, b), metrics={"seen": lambda v, y: seen.append(v.requires_grad) or v[:, 0]})
    assert seen == [False] * 5


# --- data of any kind -----------------------------------------------------------------------------------------------


def test_batches_of_any_size_and_kind_give_the_same_record(language):
    model, tokens, labels, record = language
    for batch in (1, 2, 9, 100):
        assert same(simulator.evaluate(model, "npu", tokens, labels, batch=batch)) == same(record)
    loader = DataLoader(TensorDataset(tokens, labels), batch_size=4)
    assert same(simulator.evaluate(model, "npu", loader)) == same(record)
    assert same(simulator.evaluate(model, "npu", loader, batch=3)) == same(record)
    assert same(simulator.evaluate(model, "npu", ((tokens[i : i + 1], labels[i : i + 1]) for i in range(9)))) == same(
        record
    )
    assert same(simulator.evaluate(model, "npu", {"tokens": tokens}, labels, threads=2)) == same(record)


def test_several_inputs_are_positional_or_named(pair):
    model, a, b, y, record = pair
    for x in ({"a": a, "b": b}, {"b": b, "a": a}):
        assert same(simulator.evaluate(model, "npu", x, y, batch=3)) == same(record)
    for batches in (
        [((a[:4], b[:4]), y[:4]), ((a[4:], b[4:]), y[4:])],
        [({"a": a, "b": b}, y)],
        DataLoader([((a[i], b[i]), y[i]) for i in range(10)], batch_size=3),
    ):
        assert same(simulator.evaluate(model, "npu", batches)) == same(record)
    unlabelled = simulator.evaluate(model, "npu", [{"a": a, "b": b}])
    assert unlabelled == simulator.evaluate(model, "npu", (a, b))
    assert unlabelled.accuracy is None and unlabelled.agreement == record.agreement
    assert simulator.evaluate(made(nn.Linear, 12, 8), "npu", DataLoader(TensorDataset(a), batch_size=4)).samples == 10


@pytest.mark.parametrize(
    "pack, further",
    [
        (lambda logits: Answer(torch.zeros(()), logits), []),
        (lambda logits: {"loss": torch.zeros(()), "logits": logits}, []),
        (lambda logits: {"out": logits, "aux": logits[:, :2]}, ["mse of aux"]),
        (lambda logits: (logits, torch.zeros(3), torch.arange(len(logits)), (logits,)), []),
        (lambda logits: {"label": torch.arange(len(logits)), "scores": logits}, []),
        (lambda logits: (torch.arange(len(logits)), logits, logits[:, :2]), ["mse of 2"]),
        (lambda logits: [None, logits, logits[:, :2], logits[:, 2:]], ["mse of 2", "mse of 3"]),
    ],
)
def test_outputs_are_found_in_what_a_model_returns(pair, pack, further):
    _, a, b, y, record = pair
    found = simulator.evaluate(made(Pair, pack).eval(), "npu", (a, b), y)
    assert list(found.metrics)[len(record.metrics) :] == further
    of_first = {name: found.metrics[name] for name in record.metrics}
    assert same(replace(found, metrics=of_first)) == same(record)


def test_of_each_other_output_there_is_the_error(pair):
    _, a, b, y, record = pair
    model = made(Pair, lambda logits: {"out": logits, "twice": logits * 2, "part": logits[:, :2]}).eval()
    whole = simulator.evaluate(model, "npu", (a, b), y)
    found = whole.metrics
    for mode, value in found["mse of twice"].items():  # doubling rounds nothing
        assert value == pytest.approx(4 * record.metrics["mse"][mode], rel=1e-12)
    part = simulator.evaluate(made(Pair, lambda logits: logits[:, :2]).eval(), "npu", (a, b))
    assert part.metrics["mse"] == found["mse of part"]
    batches = [({"a": a[:4], "b": b[:4]}, y[:4]), ({"a": a[4:], "b": b[4:]}, y[4:])]
    assert same(simulator.evaluate(model, "npu", batches)) == same(whole)


def test_data_are_streamed():
    """A batch is read when the one before it has run in all modes and is gone, but for the part that is in hand."""
    model, log, alive = made(nn.Linear, 12, 8), [], []

    def stream():
        for i in range(6):
            x = torch.randn(4, 12, generator=seeded(i))
            log.append(f"read {i}")
            gc.collect()  # the recording pass leaves cycles
            assert sum(storage() is not None for storage in alive) <= 1
            alive.append(weakref.ref(x.untyped_storage()))
            yield x
            del x

    record = simulator.evaluate(model, "npu", stream(), progress=lambda done, total: log.append((done, total)))
    assert record.samples == 24 and record.layers[0].m == 24
    assert log[:6] == ["read 0", (1, None), (2, None), (3, None), (4, None), "read 1"]
    assert log[-1] == (24, None)


def test_progress_of_a_loader_expects_batches_like_the_first(pair):
    _, a, *_ = pair
    seen = []
    loader = DataLoader(TensorDataset(a), batch_size=4)
    simulator.evaluate(made(nn.Linear, 12, 8), "npu", loader, progress=lambda *now: seen.append(now))
    assert seen[0] == (1, 12) and seen[-1] == (10, 12)


def test_memory_is_bounded_by_the_outputs_of_all_layers(monkeypatch):
    model, sizes = made(nn.Sequential, nn.Linear(12, 30), nn.Linear(30, 20)), []
    model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    monkeypatch.setattr(evaluation, "OUTPUTS_PER_BATCH", 7 * 50 + 49)
    simulator.evaluate(model, "npu", torch.randn(20, 12, generator=seeded()))
    assert sizes == [1] + [7] * 10 + [6] * 5


# --- choices --------------------------------------------------------------------------------------------------------


def test_layers_have_their_arithmetic_in_all_modes_and_exact_products_in_the_exact_one(pair):
    model, a, b, y, _ = pair
    mixed = simulator.evaluate(
        model, "npu", (a, b), y, layers={"left": "bf16 -> fma(bf16)", "right": "float32"}, batch=4
    )
    left, right = mixed.layers
    assert left.mac == "bf16 -> fma(bf16)" == mixed.baseline_layers["high"][0].mac
    assert right.mac == "float32" and right.sqnr_db is None
    assert mixed.forward_error["low"] == mixed.forward_error["high"] == mixed.forward_error["two_pass"] > 0
    product = simulator.matmul(a.numpy(), model.left.weight.detach().numpy().T, "bf16 -> exact(fp32)",
                               c=model.left.bias.detach().numpy())  # fmt: skip
    with torch.no_grad(), simulator.emulate(model, "npu", {"left": "bf16 -> fma(bf16)", "right": "float32"}):
        computed = model(a, b)
        exact = torch.from_numpy(product) + model.right(b)
    assert mixed.forward_error["low"] == pytest.approx(float((computed - exact).double().square().mean().sqrt()))


def test_scales_are_calibrated_on_the_first_samples_or_on_those_given(pair):
    model, a, b, y, _ = pair
    scaling = {"method": "max", "when": "calibrated"}
    layers = {"left": {"operands": "fp8_e4m3", "activations": scaling}}
    record = simulator.evaluate(model, "npu", (a, b), y, layers=layers)
    assert record.metrics["sqnr_db"]["high"] > 20
    for batch in (1, 4):
        assert same(simulator.evaluate(model, "npu", (a, b), y, layers=layers, batch=batch)) == same(record)
    for inputs in ((a, b), DataLoader(TensorDataset(a, b), batch_size=3, collate_fn=lambda rows: {
        "a": torch.stack([row[0] for row in rows]), "b": torch.stack([row[1] for row in rows])
    })):  # fmt: skip
        given = simulator.evaluate(model, "npu", (a, b), y, layers=layers, calibration=inputs)
        assert given == record
    other = simulator.evaluate(model, "npu", (a, b), y, layers=layers, calibration=(100 * a, b))
    assert other.metrics != record.metrics


def test_a_layer_that_is_exact_in_all_modes_has_no_error(pair):
    model, a, b, y, _ = pair
    record = simulator.evaluate(model, "npu", (a, b), y, layers={"left": "exact"})
    assert (record.layers[0].max_rel_error, record.layers[0].sqnr_db) == (0, None)
    assert record.layers[1].max_rel_error > 0


def test_metrics_of_the_user_are_beside_ours(pair):
    model, a, b, y, record = pair

    def brier(outputs, labels):
        return (outputs.softmax(1) - nn.functional.one_hot(labels, 8)).square().sum(1)

    own = simulator.evaluate(model, "npu", (a, b), y, metrics={"brier": brier}, batch=3)
    assert list(own.metrics)[-1] == "brier" and all(0 < own.metrics["brier"][mode] < 2 for mode in MODES)
    assert {name: same(own).metrics[name] for name in record.metrics} == same(record).metrics
    target = torch.randn(10, 8, generator=seeded())
    regressed = simulator.evaluate(model, "npu", (a, b), target, metrics={"mae": lambda v, y: (v - y).abs().mean(1)})
    assert set(regressed.metrics) == {"cosine", "mse", "sqnr_db", "mae"}
    assert regressed.accuracy is None and regressed.agreement == dict.fromkeys(MODES)


def test_labels_that_are_no_classes_are_warned_of(pair):
    model, a, b, _, _ = pair
    record = simulator.evaluate(model, "npu", (a, b), torch.zeros(10, 3, dtype=torch.int64))
    assert record.accuracy is None
    assert record.warnings[0] == (
        "labels of shape (samples, 3) are no classes of outputs (samples, 8): no accuracy, only metrics of your own "
        "see them"
    )


def test_a_tolerance_and_a_machine_of_its_own(pair):
    model, a, b, y, record = pair
    machine = load_hardware("npu")
    assert same(simulator.evaluate(model, machine, (a, b), y)) == same(record)
    strict = simulator.evaluate(model, machine, (a, b), y, tolerance=0.0)
    assert strict.tolerance == 0 and strict.forward_error["two_pass"] == strict.forward_error["high"]


def test_layers_that_take_another_way_than_in_the_exact_run_are_named():
    class Router(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate, self.expert = nn.Linear(12, 1), nn.Linear(12, 8)

        def forward(self, x):
            chosen = self.gate(x)[:, 0] > 0
            out = x.new_zeros(len(x), 8)
            out[chosen] = self.expert(x[chosen])
            return out

    model = made(Router)
    record = simulator.evaluate(model, "npu", torch.randn(400, 12, generator=seeded()) * 0.5)
    assert record.warnings[-1] == "expert: not compared with the exact run throughout, which took another way there"
    assert record.samples == 400


# --- torch's own run ------------------------------------------------------------------------------------------------


def test_torch_itself_is_measured_against_the_exact_run(language):
    model, tokens, labels, record = language
    model.eval()
    with torch.no_grad():
        plain = model(tokens).double()
        with Emulation(model, load_hardware("npu"), default="exact"):
            exact = model(tokens).double()
    model.train()
    float32 = {name: by_mode["float32"] for name, by_mode in record.metrics.items()}
    assert float32["mse"] == pytest.approx(float((plain - exact).square().mean()), rel=1e-4)
    assert float32["agreement"] == float((plain.argmax(-1) == exact.argmax(-1))[labels != -100].double().mean())
    surprise = nn.functional.cross_entropy(plain.flatten(0, 1), labels.flatten())
    assert float32["perplexity"] == pytest.approx(float(surprise.exp()), rel=1e-5)
    assert 10 < float32["sqnr_db"] < 60, "the operands are fp8 in the exact run"


def test_operands_that_change_the_answers_are_warned_of(pair):
    *_, record = pair
    assert record.metrics["agreement"]["float32"] >= 0.9 and not [w for w in record.warnings if "float32" in w]
    small = 1e-4 * torch.randn(50, 12, generator=seeded())  # below all but the smallest numbers of fp8
    coarse = simulator.evaluate(made(lambda: nn.Linear(12, 8, bias=False)), "npu", small)
    assert coarse.metrics["agreement"]["float32"] < 0.9
    assert [w for w in coarse.warnings if w.startswith("float32 and exact give the same top-1 answer on")]


def test_padding_is_the_same_in_torch_itself():
    """Torch's fused path for transformers would cut the padding off."""

    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(16, 2, 24, batch_first=True)
            self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=True)

        def forward(self, x):
            mask = torch.zeros(x.shape[:2], dtype=torch.bool)
            mask[:, -2:] = True
            return self.layers(x, src_key_padding_mask=mask)

    record = simulator.evaluate(made(Padded), "npu", torch.randn(4, 6, 16, generator=seeded()))
    assert record.metrics["sqnr_db"]["float32"] > 10 and torch.backends.mha.get_fastpath_enabled()


# --- state ----------------------------------------------------------------------------------------------------------


class Counter(nn.Module):
    """Multiplies by how often it has run: in place, in a new tensor, and in a buffer that was not there."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 8)
        self.register_buffer("inside", torch.zeros(1))
        self.register_buffer("anew", torch.zeros(1))
        self.register_buffer("late", None)
        self.register_buffer("out", torch.zeros(5, 8))
        self.seen = []

    def forward(self, x):
        self.inside += 1
        self.anew = self.anew + 1
        self.late = self.anew if self.late is None else self.late + 1
        if len(x) > 1:
            self.seen.append((float(self.inside), float(self.anew), float(self.late)))
        x.mul_(2)
        self.out[: len(x)] = self.linear(x) * self.inside
        return self.out[: len(x)]


def test_each_mode_has_its_own_buffers_and_inputs():
    model, x = made(Counter), torch.randn(10, 12, generator=seeded())
    kept, before = dict(model.named_buffers()), x.clone()
    record = simulator.evaluate(model, "npu", x, layers={"*": "exact"}, batch=5)
    assert record.metrics["mse"]["low"] == record.metrics["mse"]["high"] == record.metrics["mse"]["two_pass"] == 0
    assert record.metrics["sqnr_db"]["float32"] > 10
    assert model.seen == [(1, 1, 1)] * 5 + [(2, 2, 2)] * 5, "one mode does not count for another, and goes on by itself"
    assert model.late is None and torch.equal(x, before)
    for name, buffer in model.named_buffers():
        assert buffer is kept[name] and not buffer.any()


def test_buffers_come_back_from_a_run_that_raises():
    class Failing(Counter):
        def forward(self, x):
            result = super().forward(x)
            if self.inside > 1:
                raise KeyError("second batch")
            return result

    model = made(Failing)
    kept = dict(model.named_buffers())
    with pytest.raises(
        InputError, match=r"fails with samples 5 to 9 .* in the mode float32 \(KeyError: 'second batch'\)"
    ):
        simulator.evaluate(model, "npu", torch.randn(10, 12, generator=seeded()), batch=5)
    assert all(buffer is kept[name] and not buffer.any() for name, buffer in model.named_buffers())


def test_a_metric_that_works_in_place_changes_nothing_else(pair):
    model, a, b, y, record = pair

    def spoil(outputs, labels):
        labels.zero_()
        return outputs.zero_()[:, 0]

    own = simulator.evaluate(model, "npu", (a, b), y, metrics={"spoil": spoil})
    assert set(own.metrics.pop("spoil").values()) == {0.0}
    assert own.metrics == record.metrics


# --- what goes wrong on the way -------------------------------------------------------------------------------------


def test_a_network_that_fails_later_says_with_which_samples(language):
    model, tokens, *_ = language
    wrong = tokens.clone()
    wrong[5, 2] = 77
    with pytest.raises(InputError) as caught:
        simulator.evaluate(model, "npu", wrong, batch=2)
    assert str(caught.value).startswith(
        "x: the network Language fails with samples 4 to 5 (counted from 0) in the mode float32 (embedding, "
        "Embedding(20, 16), is given (2, 7): IndexError: index out of range in self); expected"
    )
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_network_that_fails_in_one_mode_names_the_mode():
    class Checked(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 8)

        def forward(self, x):
            y = self.linear(x)
            if len(x) > 1 and y.abs().max() < 500:
                raise ValueError("saturated")
            return y

    x = 400 * torch.ones(3, 12)
    model = made(Checked)
    nn.init.ones_(model.linear.weight)
    with pytest.raises(
        InputError, match=r"samples 0 to 2 .* in the mode low \(linear|in the mode low \(ValueError: saturated"
    ):
        simulator.evaluate(model, "npu", x)


def test_a_fault_of_the_emulation_goes_on_with_a_note(pair, monkeypatch):
    model, a, b, *_ = pair

    def broken(*args):
        raise RuntimeError("ours")

    monkeypatch.setattr("simulator.network.emulation.check_fits", exec_in_house(broken))
    with pytest.raises(RuntimeError, match=r"^ours") as caught:
        simulator.evaluate(model, "npu", (a, b), batch=4)
    assert caught.value.__notes__ == [
        "simulator.evaluate: in the mode exact, with samples 0 to 3 of x (counted from 0)"
    ]


def exec_in_house(function):
    """A function whose code says that it lies in the package."""
    code = function.__code__.replace(co_filename=evaluation.__file__)
    return type(function)(code, globals())


def test_outputs_that_are_not_finite_are_counted(pair):
    _, a, *_ = pair

    class Log(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 8)

        def forward(self, x):
            return self.linear(x).log()

    record = simulator.evaluate(made(Log), "npu", a, batch=3)
    found = [w for w in record.warnings if w.startswith("exact: ")]
    assert len(found) == 1 and found[0].split(" outputs are NaN or infinite")[0].endswith(" of 80")


def test_a_network_without_a_product_is_told_of(pair):
    _, a, *_ = pair
    record = simulator.evaluate(nn.ReLU(), "npu", a)
    assert record.layers == () and set(record.totals.values()) == {None}
    assert record.warnings[0].startswith("no product of the network was seen: nothing ran on the MAC array")


def test_real_labels_without_a_metric_of_ones_own_are_told_of(pair):
    _, a, *_ = pair
    model, y = made(nn.Linear, 12, 1), torch.zeros(10, 1)
    record = simulator.evaluate(model, "npu", a, y)
    assert record.accuracy is None and record.warnings[0].startswith("labels are real numbers and no classes")
    assert set(record.metrics) == {"mse", "sqnr_db"}
    own = simulator.evaluate(model, "npu", a, y, metrics={"error": lambda v, y: (v - y).abs()[:, 0]})
    assert own.warnings == () and own.metrics["error"]["float32"] > 0


# --- refusals -------------------------------------------------------------------------------------------------------


X = torch.zeros(4, 12)


@pytest.mark.parametrize(
    "x, y, message",
    [
        (
            np.zeros((4, 12)),
            None,
            r"x: got ndarray; expected a tensor, .* make an array a tensor with torch.from_numpy",
        ),
        ("digits", None, "x: got str; expected a tensor"),
        (None, None, "x: got NoneType; expected a tensor"),
        (X[:0], None, "x: samples along the first axes: x 0; expected the same number, at least one"),
        ((X, X[:3]), None, r"samples along the first axes: x\[0\] 4, x\[1\] 3; expected the same number"),
        (X, X[:3], r"samples along the first axes: x 4, y 3; expected the same number"),
        ((), None, r"x: got tuple \(\); expected a tensor"),
        ({"a": X, "mask": None}, None, "mask: got NoneType; expected a tensor with samples along its first axis"),
        (torch.tensor(1.0), None, "x: got a tensor without axes; expected a tensor with samples"),
        (X, [0, 1, 2, 3], "y: got list; expected a tensor"),
        ([X], X, r"y: got labels beside an iterable of batches; expected \(x, y\) in each"),
        ([], None, "x: an iterable without a batch; expected at least one; a generator can be read only once"),
        ([(X, X, X)], None, r"x: a batch of 3 things; expected x or \(x, y\); put several inputs in a tuple"),
        ([7], None, r"x: a batch of int; expected x or \(x, y\)"),
        ([(X, X[:, 0]), X], None, r"x: batch 1 \(counted from 0\) has no labels, and those before it have labels"),
        ([X, X, (X, X[:, 0])], None, r"x: batch 2 \(counted from 0\) has labels, and those before it have no labels"),
        ({"inptu": X}, None, r"x: .*'input'; expected the inputs of Linear: input; name them as its forward does"),
        ([{"input": X, "labels": X}], None, r"x: .*'labels'.* give labels beside them, as in \(inputs, labels\)"),
    ],
)
def test_data_of_another_kind_are_refused(x, y, message):
    with pytest.raises(InputError, match=message):
        simulator.evaluate(made(nn.Linear, 12, 8), "npu", x, y)


@pytest.mark.parametrize(
    "model, message",
    [
        (lambda x: x.mean(), r"the model returned shape \(\) for 1 samples; expected samples along the first axis"),
        (lambda x: x.T, r"the model returned shape \(12, 4\) for 4 samples"),
        (lambda x: x.to(torch.complex64), "the model returned complex64; expected real outputs"),
        (lambda x: "text", "the model returned str; expected a tensor, something with .logits"),
        (lambda x: {"loss": 1.0}, "the model returned dict; expected a tensor"),
    ],
)
def test_outputs_that_are_no_outputs_of_samples_are_refused(model, message):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(12, 12)

        def forward(self, x):
            return model(self.linear(x))

    with pytest.raises(InputError, match=message.replace("1 samples", "4 samples")):
        simulator.evaluate(Model(), "npu", X)


@pytest.mark.parametrize(
    "choices, message",
    [
        ({"batch": 0}, "batch: got 0; expected an integer of at least 1"),
        ({"batch": "8"}, "batch: got '8'; expected an integer of at least 1"),
        ({"batch": True}, "batch: got True; expected an integer"),
        ({"threads": 0}, "^threads: got 0; expected at least 1"),
        ({"seed": -1}, "^seed: got -1; expected 0 to 4294967295"),
        ({"metrics": {"kl": len}}, "'kl' is a metric of ours"),
        (
            {"metrics": {"mine": lambda v, y: None}},
            "'mine' returned NoneType; expected a tensor of one number for each",
        ),
        ({"layers": {"convolution": "low"}}, "pattern 'convolution' fits no module"),
        ({"layers": {"*": "fma(fp61)"}}, "fp61"),
        ({"layers": ["low"]}, "layers: got .* expected a mapping"),
        ({"tolerance": -1.0}, "tolerance: got -1"),
    ],
)
def test_choices_that_make_no_sense_are_refused(choices, message):
    with pytest.raises(InputError, match=message):
        simulator.evaluate(made(nn.Linear, 12, 8), "npu", X, **choices)


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match=r"evaluate: got function; expected a torch.nn.Module"):
        simulator.evaluate(lambda x: x, "npu", X)


# --- interruption ---------------------------------------------------------------------------------------------------


def interrupting(at, times=1):
    """A metric of the user's in which Ctrl-C comes: in the first run of batch `at`, counted from 1."""
    calls = []

    def metric(outputs, labels):
        calls.append(None)
        if len(calls) == 5 * (at - 1) + 1:
            for _ in range(times):
                signal.raise_signal(signal.SIGINT)
        return outputs[:, 0]

    return {"metric": metric}


@pytest.fixture
def default_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "handlers are put back"
    signal.signal(signal.SIGINT, before)


def test_an_interruption_raises_unless_what_is_done_is_to_be_kept(pair, default_handler):
    model, a, b, y, _ = pair
    with pytest.raises(KeyboardInterrupt):
        simulator.evaluate(model, "npu", (a, b), y, batch=3, metrics=interrupting(2))


def test_what_is_done_is_kept_and_marked(pair, default_handler, capsys):
    model, a, b, y, _ = pair
    record = simulator.evaluate(model, "npu", (a, b), y, batch=3, metrics=interrupting(2), keep_partial=True)
    assert (record.complete, record.samples) == (False, 6)
    assert record.warnings[0] == "interrupted after 6 of 10 samples: all figures are of these"
    whole = simulator.evaluate(model, "npu", (a[:6], b[:6]), y[:6], metrics=interrupting(9))
    assert replace(same(record), complete=True, warnings=record.warnings[1:]) == same(whole)
    assert capsys.readouterr().err == "ulpsim: interrupted; the batch is being finished, once more stops at once\n"


def test_a_stream_does_not_know_of_how_many(pair, default_handler):
    _, a, *_ = pair
    record = simulator.evaluate(
        made(nn.Linear, 12, 8), "npu", iter(a.split(3)), batch=2, metrics=interrupting(3), keep_partial=True
    )
    assert record.warnings[0] == "interrupted after 5 samples: all figures are of these"


@pytest.mark.parametrize("at, times", [(1, 1), (2, 2)])
def test_with_nothing_to_keep_or_asked_again_it_raises(pair, default_handler, at, times):
    model, a, b, y, _ = pair
    with pytest.raises(KeyboardInterrupt):
        simulator.evaluate(model, "npu", (a, b), y, batch=3, metrics=interrupting(at, times), keep_partial=True)
    assert model(a, b).requires_grad and not model.training


def test_signals_that_are_ignored_stay_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption(True) as interruption:
            signal.raise_signal(signal.SIGINT)
        assert not interruption.requested
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_of_the_main_thread_signals_are_left_alone(pair, default_handler):
    model, a, b, y, record = pair
    results, handlers = [], []

    def metric(outputs, labels):
        handlers.append(signal.getsignal(signal.SIGINT))
        time.sleep(0)
        return outputs[:, 0]

    thread = threading.Thread(
        target=lambda: results.append(
            simulator.evaluate(model, "npu", (a, b), y, metrics={"metric": metric}, keep_partial=True)
        )
    )
    thread.start()
    thread.join()
    assert set(handlers) == {default_handler}
    assert results[0].accuracy == record.accuracy


def test_a_model_that_keeps_what_it_returns():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.out = nn.Linear(6, 4), torch.zeros(3, 4)

        def forward(self, x):
            return self.out.copy_(self.layer(x))

    torch.manual_seed(0)
    record = simulator.evaluate(Keeps(), "npu", torch.randn(3, 6))
    assert record.metrics["mse"]["low"] > 0 and record.forward_error["high"] > 0
