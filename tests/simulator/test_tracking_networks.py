"""Networks that train, tracked, against the same programs in float64: bounds hold, and two deviations cover errors."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import simulator
from simulator.tracking import UntrackedOperation
from tests.simulator.tracked_networks import CASES, LOSSES, MODELS, OPTIMISERS, SIZES, Case, compare, digits, mlp

NO_RULE = {"loss hinge": {"multi_margin_loss", "multi_margin_loss_backward"}}


def verify(case, seed=0):
    found = compare(case, seed)
    assert not found.wrong and not found.claims, f"{case.name}, seed {seed}: {found.note}"
    assert found.same, f"{case.name}, seed {seed}: tracking changed the run"
    assert found.shadowed == NO_RULE.get(case.name, set()), f"{case.name}: no rule of {found.shadowed}"
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_no_bound_of_training_claims_too_much(case):
    found = verify(case._replace(steps=2))
    assert found.finite > 0.1 * found.elements, f"{case.name}: hardly an element has a bound"


@pytest.mark.full
def test_no_bound_of_ten_million_elements_claims_too_much():
    elements = finite = 0
    for seed in range(100):
        for name in MODELS:
            for steps, optimiser in ((1, "sgd"), (1, "adam_foreach"), (2, "momentum")):
                loss = list(LOSSES)[seed % len(LOSSES)]
                case = Case(name, MODELS[name], "weighted" if loss == "hinge" else loss, optimiser, seed % 2, 8, steps)
                found = verify(case, seed)
                elements, finite = elements + found.elements, finite + found.finite
        for optimiser in OPTIMISERS:
            found = verify(Case(f"optimiser {optimiser}", MODELS["64-32-10"], optimiser=optimiser, steps=3), seed)
            elements, finite = elements + found.elements, finite + found.finite
        if elements >= 20_000_000:
            break
    print(f"{elements} values, gradients and states, {finite} of them with a bound: 0 over-claims")
    assert finite >= 10_000_000


@pytest.mark.parametrize("name", ["encoder", "encoder, norm first, gelu", "decoder", "convolutions"])
@pytest.mark.parametrize("gradients", [True, False])
def test_bounds_of_inference_hold(name, gradients):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    x = digits()[0][:32]
    twin = copy.deepcopy(model).double()
    with torch.set_grad_enabled(gradients):
        plain, exact = model(x), twin(x.double())
        with simulator.track(model) as bits:
            y = model(x)
    assert torch.equal(plain, y) and not bits.shadowed
    assert bool(((y.double() - exact).abs() <= bits.of(y).bound.double()).all())
    assert bits.of(y).safe.float().median() >= 4


MASKS = {
    "none": {}, "padding": {"src_key_padding_mask": torch.tensor([[False] * 4 + [True] * 2, [False] * 6])},
    "causal": {"src_mask": nn.Transformer.generate_square_subsequent_mask(6)},
}  # fmt: skip


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("settings", [{}, {"norm_first": True, "activation": "gelu"}], ids=str)
def test_bounds_of_an_encoder_layer_that_torch_computes_whole_hold(mask, settings):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True, **settings).eval()
    x = torch.randn(2, 6, 16)
    with torch.no_grad(), simulator.track(None) as bits:
        y = layer(x, **MASKS[mask])
    twin = copy.deepcopy(layer).double().train()  # by its parts
    given = {k: v.double() if v.is_floating_point() else v for k, v in MASKS[mask].items()}
    exact = twin(x.double(), **given)
    open_ = ~MASKS[mask].get("src_key_padding_mask", torch.zeros(2, 6, dtype=torch.bool))
    assert not bits.shadowed
    assert bool(((y.double() - exact).abs() <= bits.of(y).bound.double())[open_].all())
    assert bits.of(y).safe[open_].float().median() >= 6


def trained(sizes):
    x, y = digits()
    torch.manual_seed(0)
    model = mlp(sizes)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(40):
        for some in torch.randperm(1400).split(32):
            optimiser.zero_grad()
            F.cross_entropy(model(x[some]), y[some]).backward()
            optimiser.step()
    return model


def seen(model, x, y):
    """All forward tensors of a step, and its gradients, by name."""
    found = {}
    handles = [
        m.register_forward_hook(lambda m, a, out, n=n: found.__setitem__(f"value {n}", out.detach()))
        for n, m in model.named_modules()
        if n
    ]  # fmt: skip
    model.zero_grad()
    z = model(x)
    found["softmax"] = z.softmax(1).detach()
    F.cross_entropy(z, y).backward()
    for handle in handles:
        handle.remove()
    return found | {f"gradient {n}": p.grad.clone() for n, p in model.named_parameters()}


def coverage(model, **settings):
    """By name: share of errors within two deviations, and the reading; of elements that are not exact."""
    x, y = (part[1400:] for part in digits())
    twin = copy.deepcopy(model).double()
    with simulator.track(model, **settings) as bits:
        ours = seen(model, x, y)
        readings = {name: bits.of(v) for name, v in ours.items()}
    exact = seen(twin, x.double(), y)
    found = {}
    for name, v in ours.items():
        deviation = readings[name].noise["expected"]
        if deviation is None:
            continue
        deviation = deviation.expand(v.shape).double()
        noisy = deviation > 0
        off = (v.double() - exact[name]).abs()
        found[name] = float((off <= 2 * deviation)[noisy].double().mean()), readings[name]
    return found


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_two_deviations_cover_errors_of_forward_tensors(sizes, training):
    torch.manual_seed(0)
    found = coverage(trained(sizes) if training else mlp(sizes))
    for name, (share, reading) in found.items():
        print(f"{sizes} {'trained' if training else 'new'} {name}: {share:.3f}, median bits safe "
              f"{int(reading.safe.median())}, expected {int(reading.expected.median())}")  # fmt: skip
        assert name.startswith("gradient") or share >= 0.85, f"{name}: {share:.3f}"
        assert reading.safe.median() <= reading.expected.median(), name


@pytest.mark.parametrize("mac", ["seq(fp16)", "seq(fp16/rz)", "seq(bf16/rz)", "fma(fp16/rz)"])
def test_two_deviations_cover_errors_of_units_that_cut(mac):
    found = coverage(trained(SIZES[1]), hw="npu", layers={"*": mac})
    for name, (share, _) in found.items():
        print(f"{mac} {name}: {share:.3f}")
        assert name.startswith("gradient") or share >= 0.85, f"{name}: {share:.3f}"


LIBRARY = torch.library.Library("ulpsim_tests", "DEF")
LIBRARY.define("twist(Tensor x) -> Tensor")
LIBRARY.define("add(Tensor x, Tensor y) -> Tensor")
LIBRARY.define("stir(Tensor(a!) x) -> ()")
LIBRARY.impl("twist", lambda x: x * torch.sin(x), "CPU")
LIBRARY.impl("add", lambda x, y: x + y * y * 100, "CPU")
LIBRARY.impl("stir", lambda x: [x.mul_(3).add_(0.1), None][1], "CPU")


class Twice(nn.Module):
    def forward(self, x):
        return torch.ops.ulpsim_tests.twist(torch.ops.ulpsim_tests.twist(x))


def test_an_unknown_operation_warns_once_for_each_place_and_has_no_bound():
    x = torch.linspace(-2, 2, 50)
    model = nn.Sequential(Twice(), Twice())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with simulator.track(model) as bits:
            bits.declare(x, bits=12)
            state = torch.get_rng_state()
            y = model(x)
            assert torch.equal(torch.get_rng_state(), state), "the shadow draws random numbers of the run"
    said = [str(w.message) for w in caught if w.category is UntrackedOperation]
    assert len(said) == 2 and all("ulpsim_tests::twist" in text for text in said)
    assert bits.shadowed == {"ulpsim_tests::twist in 0": 2, "ulpsim_tests::twist in 1": 2}
    reading = bits.of(y)
    assert bool(reading.bound.isinf().all()) and not bool(reading.safe.any())
    exact = model.double()(x.double())
    assert float(((y - exact).abs() <= 2 * reading.noise["expected"]).double().mean()) > 0.9
    assert 5 <= float(reading.expected.float().median()) <= 24


def test_an_operation_of_another_library_is_not_taken_for_one_of_the_same_name():
    x, y = torch.rand(10), torch.rand(10)
    with pytest.warns(UntrackedOperation, match="ulpsim_tests::add"), simulator.track(None) as bits:
        z = torch.ops.ulpsim_tests.add(x, y)
    assert bool(bits.of(z).bound.isinf().all())


def test_what_an_unknown_operation_overwrites_without_returning_it_has_no_bound():
    x = torch.rand(10)
    with pytest.warns(UntrackedOperation, match="stir"), simulator.track(None) as bits:
        y = x + 1
        torch.ops.ulpsim_tests.stir(y)
        z = y * 2
    assert bool(bits.of(y).bound.isinf().all()) and bool(bits.of(z).bound.isinf().all())


def test_an_uncommon_operation_of_torch_is_listed():
    x = torch.rand(10) + 1
    with pytest.warns(UntrackedOperation, match="lgamma"), simulator.track(None) as bits:
        y = torch.lgamma(x)
    assert bits.shadowed == {"lgamma in no module": 1} and bool(bits.of(y).bound.isinf().all())


def test_dropout_of_one_operation_has_a_bound():
    x = torch.rand(200)
    with simulator.track(None) as bits:
        torch.manual_seed(0)
        y, mask = torch.ops.aten.native_dropout(x, 0.3, True)
    exact = x.double() * mask / (1 - 0.3)
    assert not bits.shadowed
    assert bool(((y.double() - exact).abs() <= bits.of(y).bound.double()).all())
