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
    """A record without what counts forward passes, and so depends on the batches."""
    return replace(record, operations=())


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
    assert all(set(values) == set(MODES) for values in record.metrics.values())
    for values in record.metrics.values():
        assert None not in [value for mode, value in values.items() if mode != "exact"]
    assert record.accuracy == record.metrics["top1"]
    assert record.agreement == record.metrics["agreement"]
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
    assert seen == [False] * 4


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
    "pack",
    [
        lambda logits: Answer(torch.zeros(()), logits),
        lambda logits: {"loss": torch.zeros(()), "logits": logits},
        lambda logits: {"out": logits, "aux": logits[:, :2]},
        lambda logits: (logits, torch.zeros(3)),
        lambda logits: [None, logits],
    ],
)
def test_outputs_are_found_in_what_a_model_returns(pair, pack):
    _, a, b, y, record = pair
    assert same(simulator.evaluate(made(Pair, pack).eval(), "npu", (a, b), y)) == same(record)


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
    assert sizes == [1] + [7] * 8 + [6] * 4


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
    assert {name: own.metrics[name] for name in record.metrics} == record.metrics
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
        ({"batch": 0}, "batch: got 0; expected at least 1"),
        ({"threads": 0}, "^threads: got 0; expected at least 1"),
        ({"seed": -1}, "^seed: got -1; expected 0 to 4294967295"),
        ({"metrics": {"kl": len}}, "'kl' is a metric of ours"),
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
    with pytest.raises(TypeError, match=r"evaluate: expected a torch.nn.Module, got function"):
        simulator.evaluate(lambda x: x, "npu", X)


# --- interruption ---------------------------------------------------------------------------------------------------


def interrupting(at, times=1):
    """A metric of the user's in which Ctrl-C comes: in the exact mode of batch `at`, counted from 1."""
    calls = []

    def metric(outputs, labels):
        calls.append(None)
        if len(calls) == 4 * (at - 1) + 1:
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
