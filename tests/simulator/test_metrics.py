"""Metrics of the task: their definitions, special values, and that no batch and no order of samples shows."""

import math
from fractions import Fraction

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch.nn import functional  # noqa: E402

from simulator.errors import InputError  # noqa: E402
from simulator.network.metrics import NAMES, Metrics  # noqa: E402
from simulator.network.sums import ExactSum, decibels  # noqa: E402

NAN, INF = math.nan, math.inf


def measured(outputs, exact, labels=None, functions=None, dtype=torch.float32):
    metrics = Metrics(functions)
    metrics.add(
        *(torch.as_tensor(x, dtype=dtype) for x in (outputs, exact)),
        None if labels is None else torch.as_tensor(labels),
    )
    return metrics.values


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- exact sums -----------------------------------------------------------------------------------------------------


def total(*parts):
    result = ExactSum()
    for part in parts:
        result.add(np.asarray(part))
    return result


@pytest.mark.parametrize("spread", [0, 5, 200])
@pytest.mark.parametrize("size", [1, 2, 1000, 3 << 16])
def test_a_mean_is_correctly_rounded_whatever_the_parts(size, spread):
    generator = np.random.default_rng(size)
    x = generator.standard_normal(size) * np.exp(np.clip(spread * generator.standard_normal(size), -700, 700))
    x[::3] *= -1
    mean = total(x).mean
    assert mean == total(*np.array_split(x, 7)).mean == total(x[::-1]).mean
    if size <= 1000:
        assert mean == float(sum(map(Fraction, x)) / size)
    else:
        assert mean == pytest.approx(math.fsum(x) / size, rel=1e-15)


@pytest.mark.parametrize(
    "x",
    [
        [5e-324] * 3, [5e-324, -1.0, 1.0], [1.7e308, 1.7e308, -1.7e308], [1e300, 1e-300, -1e300], [2.0**1000, 1.0],
        [0.0, -0.0], [1e16, 1.0, -1e16], [2.0**1023, 5e-324], [2.2e-308, -1e-308],
    ],
)  # fmt: skip
def test_structured_sums_are_exact(x):
    assert total(x).mean == float(sum(map(Fraction, x)) / len(x))


def test_terms_that_are_not_finite_count_as_ieee_754_adds_them():
    assert total([1.0, INF]).mean == INF
    assert math.isnan(total([INF], [-INF]).mean)
    assert math.isnan(total([1.0, NAN]).mean)
    assert total([]).mean is None
    assert total([True, False]).mean == 0.5


def test_decibels_of_sums():
    assert decibels(total([100.0]), total([0.5, 0.5])) == pytest.approx(20, rel=1e-14)
    assert decibels(total([1e300] * 9), total([1e-300])) == pytest.approx(6000 + 10 * math.log10(9), rel=1e-14)
    for signal, noise in (([0.0], [1.0]), ([1.0], [0.0]), ([], []), ([INF], [1.0]), ([1.0], [NAN])):
        assert decibels(total(signal), total(noise)) is None


# --- definitions ----------------------------------------------------------------------------------------------------


def test_classes_of_samples_are_measured_as_torch_does():
    exact, labels = random(200, 9), torch.randint(9, (200,), generator=torch.Generator().manual_seed(1))
    outputs = exact + 0.3 * random(200, 9, seed=2)
    values = measured(outputs, exact, labels)
    assert set(values) == set(NAMES)
    v, e = outputs.double(), exact.double()
    assert values["top1"] == float((v.argmax(1) == labels).double().mean())
    assert values["top5"] == float((v.topk(5).indices == labels[:, None]).any(1).double().mean())
    assert values["agreement"] == float((v.argmax(1) == e.argmax(1)).double().mean())
    assert values["cosine"] == pytest.approx(float(functional.cosine_similarity(v, e).mean()), rel=1e-13)
    divergence = functional.kl_div(v.log_softmax(1), e.log_softmax(1), log_target=True, reduction="batchmean")
    assert values["kl"] == pytest.approx(float(divergence), rel=1e-12)
    assert values["perplexity"] == pytest.approx(float(functional.cross_entropy(v, labels).exp()), rel=1e-13)
    assert values["mse"] == pytest.approx(float((v - e).square().mean()), rel=1e-13)
    assert values["sqnr_db"] == pytest.approx(
        float(10 * (e.square().sum() / (v - e).square().sum()).log10()), rel=1e-13
    )


def test_the_exact_run_agrees_with_itself():
    exact = random(20, 7)
    exact[3, 2], exact[4, 1], exact[5] = NAN, INF, 0.0
    values = measured(exact, exact)
    assert values["agreement"] == 1 and values["cosine"] == 1 and values["kl"] == 0 and values["mse"] == 0
    assert values["top1"] is None and values["perplexity"] is None and values["sqnr_db"] is None


@pytest.mark.parametrize("shape, axis", [((6, 5, 11), 2), ((6, 11, 5, 4), 1), ((6, 11, 5), 1), ((6, 5, 4, 11), 3)])
def test_classes_of_positions_and_of_pixels(shape, axis):
    exact = random(*shape)
    outputs = exact + 0.2 * random(*shape, seed=1)
    labels = torch.randint(11, shape[:axis] + shape[axis + 1 :], generator=torch.Generator().manual_seed(2))
    labels[0, :2] = -100  # as torch.nn.functional.cross_entropy ignores
    values = measured(outputs, exact, labels)
    v, e = (x.double().movedim(axis, 1) for x in (outputs, exact))
    assert values["perplexity"] == pytest.approx(float(functional.cross_entropy(v, labels).exp()), rel=1e-13)
    counted = labels != -100
    assert values["top1"] == pytest.approx(float((v.argmax(1) == labels)[counted].double().mean()), rel=1e-15)
    assert values["agreement"] == pytest.approx(float((v.argmax(1) == e.argmax(1))[counted].double().mean()), rel=1e-15)
    divergence = functional.kl_div(v.log_softmax(1), e.log_softmax(1), log_target=True, reduction="none").sum(1)
    assert values["kl"] == pytest.approx(float(divergence[counted].mean()), rel=1e-12)
    flat = (x.double().flatten(1) for x in (outputs, exact))
    assert values["cosine"] == pytest.approx(float(functional.cosine_similarity(*flat).mean()), rel=1e-13)


def test_where_both_axes_fit_the_classes_are_the_last():
    outputs = torch.zeros(1, 2, 2)
    outputs[0, 0] = torch.tensor([0.0, 5.0])
    assert measured(outputs, outputs, [[1, 0]])["top1"] == 1


def test_without_labels_images_have_their_classes_in_the_second_axis():
    exact = random(2, 3, 4, 5)
    outputs = exact.flip(1)
    assert measured(outputs, exact)["agreement"] == float((outputs.argmax(1) == exact.argmax(1)).double().mean())


@pytest.mark.parametrize(
    "outputs, labels",
    [
        (random(4), None),  # one number for each sample
        (random(4, 1), [0, 0, 0, 0]),  # one class
        (random(4, 3), [0.5, 0.1, 0.2, 0.3]),  # something to regress on
        (random(4, 3), [[0, 1], [1, 0], [0, 0], [1, 1]]),  # labels of another shape
    ],
)
def test_what_is_no_classification_has_no_metrics_of_classes(outputs, labels):
    values = measured(1.01 * outputs, outputs, labels)
    none = {"top1", "top5", "agreement", "kl", "perplexity"} | (
        {"cosine"} if outputs.numel() == len(outputs) else set()
    )
    assert {name for name in NAMES if values[name] is None} == none, "of one output the cosine would be its sign"
    assert values["cosine"] == (None if "cosine" in none else pytest.approx(1, rel=1e-6))
    assert values["sqnr_db"] == pytest.approx(40, rel=1e-4)


def test_top5_is_of_more_than_five_classes():
    assert measured(random(4, 5), random(4, 5), [0, 1, 2, 3])["top5"] is None
    assert measured(torch.arange(6.0).expand(6, 6), random(6, 6), range(6))["top5"] == pytest.approx(5 / 6)


def test_of_equal_logits_the_first_is_the_answer():
    equal = torch.zeros(6, 6)
    values = measured(equal, equal, range(6))
    assert values["top1"] == pytest.approx(1 / 6) and values["top5"] == pytest.approx(5 / 6)
    assert values["perplexity"] == pytest.approx(6)


def test_positions_that_do_not_count_may_be_all():
    values = measured(random(2, 3), random(2, 3, seed=1), [-100, -100])
    assert values["top1"] is values["perplexity"] is values["kl"] is values["agreement"] is None
    assert values["mse"] > 0


# --- special values -------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_an_output_that_is_not_finite_is_infinitely_wrong(value):
    exact = torch.tensor([[3.0, 2.0, 1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]])
    outputs = exact.clone()
    outputs[0, 0] = value
    values = measured(outputs, exact, [0, 1])
    assert values["mse"] == INF and values["sqnr_db"] is None
    assert values["cosine"] == 0.5 and values["kl"] == INF
    if value == INF:  # the largest logit, but no softmax
        assert values["top1"] == values["agreement"] == values["top5"] == 1 and values["perplexity"] == INF
    else:
        assert values["top1"] == values["agreement"] == 0.5 and values["perplexity"] == INF
        assert values["top5"] == 0.5


def test_logits_of_minus_infinity_are_classes_that_are_ruled_out():
    exact = torch.tensor([[1.0, 2.0, -INF]])
    values = measured(exact + torch.tensor([[0.5, 0.0, 0.0]]), exact, [1])
    assert 0 < values["kl"] < 0.1 and 1 < values["perplexity"] < 2 and values["top1"] == 1
    assert measured(torch.tensor([[1.0, 2.0, 0.0]]), exact)["kl"] > 0
    assert measured(torch.tensor([[1.0, -INF, 0.0]]), exact)["kl"] == INF
    assert measured(torch.full((1, 3), -INF), exact, [0])["perplexity"] == INF


def test_where_the_exact_run_has_no_softmax_or_no_direction_nothing_is_compared():
    exact = torch.tensor([[NAN, 1.0], [INF, 1.0], [0.0, 0.0]])
    values = measured(torch.ones(3, 2), exact)
    assert values["kl"] == 0  # of the last
    assert values["cosine"] is None
    assert values["mse"] == INF


def test_very_large_and_very_small_outputs_have_a_cosine():
    for scale in (1e-320, 1e-200, 1e200, 1e308):
        exact = torch.tensor([[scale, 0.0], [scale, scale]], dtype=torch.float64)
        outputs = torch.tensor([[scale, scale], [scale, scale]], dtype=torch.float64)
        assert measured(outputs, exact, dtype=torch.float64)["cosine"] == pytest.approx((math.sqrt(0.5) + 1) / 2)
    assert measured([[0.0, 0.0]], [[1.0, 0.0]])["cosine"] == 0
    assert measured([[-1.0, 0.0]], [[1.0, 0.0]])["cosine"] == -1


def test_a_perplexity_beyond_float64_is_infinite():
    assert measured([[0.0, 1e5]], [[0.0, 1.0]], [0])["perplexity"] == INF


# --- batches --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(60, 7), (60, 9, 13), (60, 1001)])
@pytest.mark.parametrize("special", [False, True])
def test_neither_batches_nor_the_order_of_samples_show(shape, special):
    exact = random(*shape) * 10
    outputs = exact + random(*shape, seed=1)
    labels = torch.randint(shape[-1], shape[:-1], generator=torch.Generator().manual_seed(2))
    if special:
        outputs[7], outputs[9, 0], exact[11, 1], labels[13] = NAN, INF, -INF, -100

    def mine(v, y):
        return v.flatten(1).nan_to_num(posinf=0).mean(1) + y.reshape(len(y), -1)[:, 0]

    def of(parts):
        metrics = Metrics({"mine": mine})
        for part in parts:
            metrics.add(outputs[part], exact[part], labels[part])
        return metrics.values

    whole = of([slice(0, 60)])
    for size in (1, 7, 59):
        parts = [slice(first, first + size) for first in range(0, 60, size)]
        assert of(parts) == of(parts[::-1]) == whole
    assert of([torch.randperm(60, generator=torch.Generator().manual_seed(3))]) == whole


def test_large_batches_are_taken_in_blocks(monkeypatch):
    from simulator.network import metrics

    exact, outputs, labels = random(50, 8), random(50, 8, seed=1), torch.arange(50) % 8
    whole = measured(outputs, exact, labels)
    monkeypatch.setattr(metrics, "_BLOCK", 20)
    assert measured(outputs, exact, labels) == whole


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_outputs_of_any_float_type(dtype):
    exact = random(5, 6).to(dtype)
    outputs = (exact * 1.5).to(dtype)
    assert measured(outputs, exact, dtype=dtype) == measured(outputs.double(), exact.double(), dtype=torch.float64)


# --- the user's own -------------------------------------------------------------------------------------------------


def test_a_function_of_the_user_is_averaged_over_samples():
    seen = []

    def margin(outputs, labels):
        seen.append((outputs.dtype, labels))
        top = outputs.topk(2).values
        return top[:, 0] - top[:, 1]

    outputs = random(8, 4)
    value = measured(outputs, random(8, 4, seed=1), functions={"margin": margin})["margin"]
    top = outputs.double().topk(2).values
    assert value == pytest.approx(float((top[:, 0] - top[:, 1]).mean()), rel=1e-6)
    assert seen == [(torch.float32, None)]
    assert measured(outputs, outputs, functions={"n": lambda v, y: [True] * 6 + [False] * 2})["n"] == 0.75


@pytest.mark.parametrize(
    "function, shape", [(lambda v, y: v.mean(), r"\(\)"), (lambda v, y: v, r"\(8, 4\)"), (lambda v, y: 1.0, r"\(\)")]
)
def test_a_function_that_does_not_return_one_number_for_each_sample_is_refused(function, shape):
    with pytest.raises(
        InputError, match=rf"'mine' returned shape {shape} for a batch of 8 samples; expected one number"
    ):
        measured(random(8, 4), random(8, 4), functions={"mine": function})


def test_names_that_are_taken_and_things_that_cannot_be_called_are_refused():
    with pytest.raises(InputError, match="'mse' is a metric of ours; expected another name"):
        Metrics({"mse": lambda v, y: v})
    with pytest.raises(InputError, match=r"'mine' is 3; expected a function of \(outputs, labels\)"):
        Metrics({"mine": 3})


def test_labels_that_are_no_classes_of_the_outputs_are_refused():
    for label in (4, -1, -99):
        with pytest.raises(
            InputError, match=rf"labels: got class {label}, and the model has 4 outputs; expected 0 to 3"
        ):
            measured(random(3, 4), random(3, 4), [0, label, 1])


def test_outputs_whose_shape_depends_on_the_arithmetic_are_refused():
    with pytest.raises(InputError, match=r"outputs of shape \(3, 4\) where the exact run has \(3, 5\)"):
        measured(random(3, 4), random(3, 5))
