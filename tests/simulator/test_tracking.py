"""Tracking as a context: it changes no bit of a run, leaks nothing, and knows what it is about, whatever a run does."""

import contextlib
import copy
import gc
import io
import pickle
import re
import threading
import warnings
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import simulator  # noqa: E402
from formats import Use  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.tracking import LABELS, UntrackedOperation, track  # noqa: E402

NPU = simulator.load_hardware("npu")
STATM = Path("/proc/self/statm")


def rand(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def perceptron(activation=nn.ReLU):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), activation(), nn.Linear(8, 3))


def convolutional():
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(),
        nn.Linear(36, 3),
    )  # fmt: skip


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layer(x).mean(1))


NETWORKS = {
    "mlp": (perceptron, (5, 6)),
    "conv + batch norm": (convolutional, (5, 1, 8, 8)),
    "transformer": (Transformer, (5, 4, 8)),
}
OPTIMISERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, foreach=True),
}


def steps(model, x, optimiser, count=2):
    """Train for some steps; return all that is left: parameters, buffers, gradients, optimiser and random state."""
    losses = []
    labels = torch.arange(len(x)) % 3
    for _ in range(count):
        optimiser.zero_grad()
        loss = functional.cross_entropy(model(x), labels)
        loss.backward()
        optimiser.step()
        losses.append(loss.detach().clone())
    state = [part for values in optimiser.state.values() for part in values.values() if isinstance(part, torch.Tensor)]
    gradients = [parameter.grad for parameter in model.parameters()]
    return [*losses, *model.state_dict().values(), *gradients, *state, torch.get_rng_state()]


def same(one, other):
    return len(one) == len(other) and all(map(torch.equal, one, other))


def covered(values, exact, reading):
    """Whether every value is within its bound of an exact one, known to about float64, and its bits are no more."""
    off = (values.double() - exact).abs()
    sure = (off <= reading.bound.double() + 1e-13 * exact.abs()).all()
    claimed = torch.where(reading.safe > 0, torch.exp2(-reading.safe.double()) * exact.abs(), torch.inf)
    return bool(sure and (off <= claimed * (1 + 1e-9) + 1e-13 * exact.abs()).all())


# --- bits of the run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_training_is_the_same_bit_for_bit(network, optimiser):
    make, shape = network
    results = []
    for tracked in (False, True):
        model, x = make(), rand(*shape)
        torch.manual_seed(4)
        with track(model) if tracked else contextlib.nullcontext() as bits:
            results.append(steps(model, x, optimiser(model.parameters())))
    assert same(*results)
    assert not bits.shadowed
    for parameter in model.parameters():
        assert bits.of(parameter).safe.min() < 24 and bits.of(parameter.grad).safe.min() < 24


@pytest.mark.parametrize("options", [
    {"numbers": ("safe",)}, {"roundings": "measured"}, {"restart": "step"}, {"every": 3},
], ids=str)  # fmt: skip
def test_training_is_the_same_with_every_option(options):
    results = []
    for tracked in (False, True):
        model = convolutional()
        torch.manual_seed(4)
        with track(model, **options) if tracked else contextlib.nullcontext():
            results.append(steps(model, rand(5, 1, 8, 8), OPTIMISERS["adam"](model.parameters()), 3))
    assert same(*results)


def test_training_in_bfloat16_by_autocast_is_the_same():
    results = []
    for tracked in (False, True):
        model = perceptron()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        with track(model) if tracked else contextlib.nullcontext() as bits:
            for _ in range(3):
                optimiser.zero_grad()
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    y = model(rand(5, 6))
                    assert y.dtype == torch.bfloat16
                    loss = functional.cross_entropy(y, torch.arange(5) % 3)
                loss.backward()
                optimiser.step()
            results.append(
                [y.detach(), *(p.detach() for p in model.parameters()), *(p.grad for p in model.parameters())]
            )
    assert same(*results)
    assert bits.of(y).safe.max() <= 8 and not bits.shadowed


@pytest.mark.filterwarnings("ignore::simulator.tracking.UntrackedOperation")  # attention as a whole
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_inference_is_the_same_and_its_numbers_too(network, context):
    make, shape = network
    model, x = make().eval(), rand(*shape)
    y = model(x)
    with context():
        plain = model(x)
    with track(model) as bits:
        z = model(x)
    with track(model) as apart, context():
        w = model(x)
    assert torch.equal(y, z) and torch.equal(plain, w)
    assert bits.of(z).safe.double().mean() > 8
    if make is not Transformer:
        assert torch.equal(bits.of(z).safe, apart.of(w).safe)
    assert not any(n is not None and n.requires_grad for n in apart.of(w).noise.values())


@pytest.mark.parametrize("network", [NETWORKS["mlp"], NETWORKS["transformer"]], ids=["mlp", "transformer"])
def test_safe_covers_the_error_of_values_and_gradients(network):
    make, shape = network
    model, x = make().eval(), rand(*shape)
    with track(model, numbers=("safe",)) as bits:
        y = model(x)
        y.square().sum().backward()
    exact = copy.deepcopy(model).double()
    exact.zero_grad()
    z = exact(x.double())
    z.square().sum().backward()
    assert covered(y.detach(), z.detach(), bits.of(y))
    for one, other in zip(model.parameters(), exact.parameters(), strict=True):
        assert covered(one.grad, other.grad, bits.of(one.grad))
    assert bits.of(y).safe.double().mean() > 8


# --- nothing is left behind ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def uncollected():
    """The garbage collector turned off."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def test_a_tensor_dies_with_its_last_reference():
    model = perceptron()
    with uncollected(), track(model) as bits:
        y = model(rand(5, 6))
        hidden = torch.exp(y).view(-1)
        before = bits.entries
        loss = hidden.sum()
        loss.backward()
        watched = [weakref.ref(x) for x in (y, hidden, loss, model[0].weight.grad)]
        del y, hidden, loss
        model.zero_grad()
        assert not any(x() is not None for x in watched)
        assert bits.entries == 0 < before


def test_a_tracker_and_its_model_die_with_their_last_references():
    with uncollected():
        model = perceptron()
        bits = track(model)
        with bits:
            model(rand(5, 6)).sum().backward()
        watched = [weakref.ref(x) for x in (bits, model, model[0].weight)]
        del bits, model
        assert not any(x() is not None for x in watched)


def train(model, optimiser, x):
    optimiser.zero_grad()
    model(x).square().sum().backward()
    optimiser.step()


@pytest.mark.parametrize("optimiser", OPTIMISERS.values(), ids=OPTIMISERS)
@pytest.mark.parametrize("last", [100, pytest.param(1000, marks=pytest.mark.full)])
def test_entries_are_as_many_at_every_step(optimiser, last):
    model, x = perceptron(), rand(5, 6)
    optimiser, seen = optimiser(model.parameters()), {}
    with uncollected(), track(model, every=10**6) as bits:
        for step in range(1, last + 1):
            train(model, optimiser, x)
            seen[step] = bits.entries, bits.bytes
    assert seen[10] == seen[100] == seen[last]
    assert seen[10][0] > len(list(model.parameters()))


def resident():
    """Memory of this process, in KiB."""
    return int(STATM.read_text().split()[1]) * 4


@pytest.mark.skipif(not STATM.exists(), reason="only Linux says how much memory is resident")
@pytest.mark.parametrize("count", [150, pytest.param(1000, marks=pytest.mark.full)])
def test_memory_stays_as_it_is(count):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    x, optimiser = rand(64, 64), OPTIMISERS["adam"](model.parameters())
    with uncollected(), track(model, numbers=("safe",), every=10**6):
        for _ in range(30):
            train(model, optimiser, x)
        before = resident()
        for _ in range(count):
            train(model, optimiser, x)
        after = resident()
    # A step makes noise of several hundred KiB.
    assert after - before < 20 * count


class Raises(nn.Module):
    def __init__(self, where):
        super().__init__()
        self.where, self.linear = where, nn.Linear(6, 6)

    def forward(self, x):
        y = self.linear(x)
        if self.where == "forward":
            raise ValueError("in the middle")
        if self.where == "backward":
            y.register_hook(self._raise)
        return torch.relu(y)

    def _raise(self, gradient):
        raise ValueError("in the middle")


def hooks_of(model):
    return [
        len(found)
        for module in model.modules()
        for found in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    ] + [len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()]


@pytest.mark.parametrize("where", ["forward", "backward", "step"])
def test_an_exception_leaves_all_clean(where):
    model = Raises(where)
    before, bits = hooks_of(model), track(model)
    with uncollected(), pytest.raises(ValueError, match="in the middle"), bits:
        model(rand(5, 6)).sum().backward()
        assert sum(hooks_of(model)) > sum(before)
        raise ValueError("in the middle")
    assert hooks_of(model) == before and not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    model.where = ""
    model.zero_grad()
    gc.collect()  # what the traceback holds
    assert bits.entries == 0
    with bits:
        y = model(rand(5, 6))
        y.sum().backward()
    with track(model) as anew:
        z = model(rand(5, 6))
    assert torch.equal(bits.of(y).safe, anew.of(z).safe)


def test_a_failing_operation_leaves_no_half_of_it():
    x = rand(3)
    with track() as bits:
        y = torch.exp(x)
        safe = bits.of(y).safe
        with pytest.raises(RuntimeError):
            y.add_(rand(5))
        assert torch.equal(bits.of(y).safe, safe)
        y.mul_(2.0)
        assert torch.equal(bits.of(y).safe, safe)


# --- autograd --------------------------------------------------------------------------------------------------------


def gradients(model, run):
    """Run it and return all gradients of the model, which has none before."""
    model.zero_grad()
    run()
    return [p.grad.clone() for p in model.parameters()]


def both(model, run, **options):
    """Run it plain and tracked; return the tracker, having seen that the gradients are the same."""
    plain = gradients(model, run)
    with track(model, **options) as bits:
        assert same(plain, gradients(model, run))
    return bits


def safe_of(bits, model):
    return [bits.of(p.grad).safe.double().mean().item() for p in model.parameters()]


def test_a_graph_that_is_kept_goes_backward_again():
    model, x = perceptron(), rand(5, 6)

    def run():
        y = model(x).square().sum()
        y.backward(retain_graph=True)
        y.backward()

    once = safe_of(both(model, lambda: model(x).square().sum().backward()), model)
    twice = safe_of(both(model, run), model)
    assert all(0 < two <= one for two, one in zip(twice, once, strict=True))


def test_derivatives_of_derivatives_are_followed():
    model, x = perceptron(nn.Tanh), rand(5, 6).requires_grad_()

    def run():
        (g,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        (g.square().sum() + model(x).square().sum()).backward()

    bits = both(model, run)
    assert not bits.shadowed and min(safe_of(bits, model)) > 8
    exact = copy.deepcopy(model).double()
    exact.zero_grad()
    wide = x.detach().double().requires_grad_()
    (g,) = torch.autograd.grad(exact(wide).sum(), wide, create_graph=True)
    (g.square().sum() + exact(wide).square().sum()).backward()
    for one, other in zip(model.parameters(), exact.parameters(), strict=True):
        assert covered(one.grad, other.grad, bits.of(one.grad))


def test_gradients_that_accumulate_keep_the_noise_of_all_parts():
    model = perceptron()

    def run():
        for seed in range(4):
            model(rand(5, 6, seed=seed)).square().sum().backward()

    bits = both(model, run)
    exact = copy.deepcopy(model).double()
    exact.zero_grad()
    for seed in range(4):
        exact(rand(5, 6, seed=seed).double()).square().sum().backward()
    for one, other in zip(model.parameters(), exact.parameters(), strict=True):
        assert covered(one.grad, other.grad, bits.of(one.grad))


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_a_checkpoint_computes_again_has_the_same_noise(reentrant):
    model, x = perceptron(), rand(5, 6).requires_grad_()
    kept = both(model, lambda: model(x).square().sum().backward(), numbers=("safe",))
    wanted = [bits.clone() for bits in (kept.of(p.grad).safe for p in model.parameters())]
    bits = both(
        model, lambda: checkpoint(model, x, use_reentrant=reentrant).square().sum().backward(), numbers=("safe",)
    )
    assert same([bits.of(p.grad).safe for p in model.parameters()], wanted)


def test_gradients_set_to_zero_are_exact_again():
    model, x = perceptron(), rand(5, 6)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as bits:
        model(x).sum().backward()
        once = [bits.of(p.grad).safe for p in model.parameters()]
        optimiser.zero_grad(set_to_none=False)
        assert all(bool((bits.of(p.grad).safe == 24).all()) for p in model.parameters())
        model(x).sum().backward()
    assert same([bits.of(p.grad).safe for p in model.parameters()], once)


# --- memory: views, writes in place, copies ---------------------------------------------------------------------------


def test_activations_in_place_are_those_beside_their_operand():
    results = []
    for inplace in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace), nn.Linear(8, 8), nn.LeakyReLU(0.5, inplace))
        with track(model) as bits:
            y = model(rand(5, 6))
            y.square().sum().backward()
        results.append([bits.of(y).safe, *(bits.of(p.grad).safe for p in model.parameters())])
    assert same(*results)


def test_views_share_noise_with_what_they_show():
    with track() as bits:
        y = torch.exp(rand(4, 6))
        for view in (y.t(), y[1:3], y[:, ::2], y.view(2, 12), y.flatten(), y.detach(), y[None].expand(3, 4, 6), y.data):
            bits.declare(y, error=0.0)
            bits.declare(y[1:2], error=0.25)
            wanted = torch.zeros(4, 6)
            wanted[1] = 0.25
            moved = wanted.as_strided(view.shape, view.stride(), view.storage_offset())
            assert torch.allclose(bits.of(view).bound, moved)


def test_a_write_through_a_view_changes_the_noise_of_that_part_only():
    with track() as bits:
        y = torch.exp(rand(4, 6))
        before = bits.of(y).bound.clone()
        y[1:3, ::2].zero_()
        y.t()[5].copy_(torch.full((4,), 2.0))
        y[0].mul_(3.0)
    after = bits.of(y).bound
    exact = torch.zeros(4, 6, dtype=torch.bool)
    exact[1:3, ::2] = exact[:, 5] = True
    assert (after[exact & (torch.arange(4) > 0)[:, None]] == 0).all()
    rest = ~exact
    rest[0] = False
    assert torch.equal(after[rest], before[rest]) and (after[0, :5] > 2 * before[0, :5]).all()


def test_memories_with_equal_noise_do_not_share_it():
    with track() as bits:
        y = torch.exp(rand(4, 4))
        z = -y
        before = bits.of(y).bound.clone()
        z.t().mul_(3.0)
        z[0].zero_()
    assert torch.equal(bits.of(y).bound, before) and (bits.of(z).bound[1:] > before[1:]).all()


def test_what_is_stored_by_channels_last_is_the_same():
    x, layer = rand(2, 3, 5, 5), nn.Conv2d(3, 4, 3)
    with track() as bits:
        one = torch.relu(layer(x).clone(memory_format=torch.channels_last)).add_(1.0)
        other = torch.relu(layer(x)).add_(1.0)
    assert torch.allclose(bits.of(one).bound, bits.of(other).bound, rtol=1e-5)


def test_copies_carry_noise_and_files_do_not():
    model = perceptron()
    model.register_buffer("seen", torch.zeros(3))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    with track(model) as bits:
        y = model(rand(5, 6))
        y.sum().backward()
        optimiser.step()
        model.seen.copy_(y.detach().mean(0))
        known = [*model.parameters(), model.seen]
        copies = [
            *copy.deepcopy(known),
            copy.deepcopy(model).seen,
            model.seen.clone(),
            torch.empty(3).copy_(model.seen),
        ]
        for one, other in zip([*known, *[model.seen] * 3], copies, strict=True):
            assert torch.equal(one, other) and torch.equal(bits.of(one).safe, bits.of(other).safe)
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        again = pickle.loads(pickle.dumps(model))
        for loaded in (torch.load(file)["0.weight"], again[0].weight, torch.from_numpy(y.detach().numpy().copy())):
            assert (bits.of(loaded).safe == 24).all()
        assert hooks_of(again)[-4:] == [0] * 4
        again(rand(5, 6)).sum().backward()  # its hooks do nothing
    assert (bits.of(model[0].weight).safe < 24).any()


def test_memory_read_in_another_type_is_not_known():
    with track() as bits:
        y = torch.exp(rand(4))
        assert (bits.of(y.view(torch.bfloat16)).safe == 0).all()
        assert (bits.of(torch.view_as_real(torch.complex(y, y))).safe == 0).all()
        assert (bits.of(y.view(torch.int32).view(torch.float32)).safe > 20).all()
        assert (bits.of(torch.exp(rand(4).bfloat16()).view(torch.float16)).safe == 0).all()


def test_real_values_whose_digits_are_cut_off_by_logic_are_not_known():
    with track() as bits:
        y = torch.exp(rand(4))
        cut = (y.view(torch.int32) & -65536).view(torch.float32)
        assert bits.of(cut).bound.isinf().all() and (bits.of(y).safe > 20).all()
        y.view(torch.int32).bitwise_and_(-65536)
        assert torch.equal(y, cut) and bits.of(y).bound.isinf().all()


def test_copies_of_masks_and_of_real_values_by_their_memory_keep_their_noise():
    with track() as bits:
        y = torch.tensor([1e-9, 1.0])
        bits.declare(y, error=1e-3)
        mask = copy.deepcopy(y > 0)
        assert torch.equal(bits.of(torch.where(mask, 1.0, 2.0)).bound > 0.5, torch.tensor([True, False]))
        assert torch.equal(bits.of(copy.deepcopy(y)).bound, bits.of(y).bound)


@pytest.mark.filterwarnings("ignore::simulator.tracking.UntrackedOperation")
@pytest.mark.parametrize("run", [
    lambda: torch.arange(3) * 54 + torch.arange(3), lambda: torch.arange(5).sum() // 2, lambda: torch.ones(0).sum(),
    lambda: torch.fft.fft(torch.ones(4)).abs(), lambda: torch.ones(3).to_sparse() * 2,
    lambda: (torch.eye(3).to_sparse() @ torch.ones(3, 1)), lambda: torch.ones(3, device="meta") + 1,
    lambda: torch.bincount(torch.arange(3)), lambda: torch.ones(3, dtype=torch.bool) | torch.zeros(3, dtype=torch.bool),
    lambda: torch.empty(0, 4) @ torch.ones(4, 3), lambda: torch.exp(torch.arange(3)), lambda: torch.ones(3).sort(),
], ids=range(12))  # fmt: skip
def test_tensors_without_bits_do_not_disturb_a_run(run):
    with track():
        run()


def test_functions_of_whole_numbers_count_how_these_are_converted():
    n = torch.tensor([2**24 + 1, 3, -(2**40) - 1])
    with track() as bits:
        y = n * torch.ones(3)
        z = torch.exp(torch.tensor([1, 2]))
    assert (bits.of(y).bound.double() >= (y.double() - n.double()).abs()).all() and bits.of(y).bound[1] < 1e-6
    assert 20 <= bits.of(z).safe.min() < 24


@pytest.mark.filterwarnings("ignore::simulator.tracking.UntrackedOperation")
def test_what_comes_of_complex_or_sparse_tensors_is_not_known():
    with track() as bits:
        y = torch.fft.fft(rand(4)).abs()
        z = rand(3, 3).to_sparse() @ rand(3, 1)
    assert (bits.of(y).safe == 0).all() and (bits.of(z).safe == 0).all()


# --- between blocks ---------------------------------------------------------------------------------------------------

STALE = r"written to outside of the block.*expected writes within"


@pytest.mark.filterwarnings("ignore::simulator.tracking.UntrackedOperation")
@pytest.mark.parametrize("draw", [
    lambda rates, g: torch.poisson(rates, generator=g), lambda rates, g: torch.binomial(rates, rates / 9, generator=g),
    lambda rates, g: torch.poisson(rates, g),
], ids=["poisson", "binomial", "by place"])  # fmt: skip
def test_generators_of_the_run_are_drawn_from_by_the_run_alone(draw):
    def run():
        g = torch.Generator().manual_seed(3)
        found = [draw(torch.full((5,), 7.0), g) for _ in range(3)]
        return torch.stack([*found, torch.rand(5, generator=g)])

    plain = run()
    with track() as bits:
        found = run()
        drawn = draw(torch.full((5,), 7.0), torch.Generator())
        assert bool(bits.of(drawn).bound.isinf().all()) and bool((bits.of(drawn).expected == 0).all())
    assert torch.equal(found, plain)


@pytest.mark.filterwarnings("ignore::simulator.tracking.UntrackedOperation")  # resize_
def test_what_is_new_of_a_memory_that_grows_is_not_known():
    with track() as bits:
        y = torch.exp(rand(6))
        front = y[:3]
        known = bits.of(front).bound
        y.resize_(9)
        assert bits.of(y).bound[6:].isinf().all()
        y[4:] = 0
        assert (bits.of(y).bound[4:] == 0).all()
        z = torch.exp(rand(6))
        front = z[:3]
        z.untyped_storage().resize_(48)
        assert torch.equal(bits.of(front).bound, known)
        whole = torch.empty(0).set_(z.untyped_storage(), 0, (12,))
        assert bits.of(whole).bound[6:].isinf().all() and torch.equal(bits.of(whole).bound[:3], known)
        whole[7:] = 0
        assert torch.equal(bits.of(whole).bound[:3], known) and bits.of(whole).bound[6].isinf()


def test_a_warning_points_at_the_line_of_the_program():
    x = rand(3).requires_grad_()
    with warnings.catch_warnings(record=True) as caught, track():
        warnings.simplefilter("always")
        torch.special.bessel_j0(x.detach())
        nn.Sequential(nn.Identity())(x).lgamma().sum().backward()
    assert len(caught) == 3 and {record.filename for record in caught} == {__file__}
    assert len({record.lineno for record in caught}) == 2


def test_lists_and_arrays_are_read_as_exact_and_not_counted():
    with track() as bits:
        y = torch.exp(rand(3))
        for z in (torch.tensor(y.tolist()), torch.from_numpy(y.numpy().copy())):
            assert (bits.of(z).safe == 24).all()
        assert bits.read_as_numbers == 0
        float(y[0])
    assert bits.read_as_numbers == 1


def test_tensors_of_shapes_only_run_as_ever():
    model = perceptron()
    with track(model) as bits:
        with torch.device("meta"):
            shapes = nn.Linear(3, 4)(torch.empty(2, 3))
        assert shapes.shape == (2, 4) and (shapes @ shapes.T).shape == (2, 2)
        model.to("meta")(torch.empty(5, 6, device="meta")).sum().backward()
        assert bits.entries == 0 and not bits.shadowed


def test_noise_goes_on_from_block_to_block():
    x, bits, whole = rand(5), track(), track()
    with bits:
        y = torch.exp(x)
    with bits:
        z = y * 3.0
    with whole:
        w = torch.exp(x) * 3.0
    assert torch.equal(bits.of(z).bound, whole.of(w).bound)


@pytest.mark.parametrize("write", [
    lambda y: y.add_(1.0), lambda y: y[1:].zero_(), lambda y: y.view(1, -1).mul_(2.0), lambda y: y.detach().fill_(1.0),
    lambda y: y.numpy() is not None and y.t_(), lambda y: torch.add(y, 1.0, out=y), lambda y: y.copy_(rand(6, seed=1)),
    lambda y: y.__setitem__(0, 1.0),
], ids=range(8))  # fmt: skip
def test_a_write_between_blocks_is_noticed(write):
    bits = track()
    with bits:
        y = torch.exp(rand(6))
        untouched = torch.exp(rand(6))
    write(y)
    with pytest.raises(InputError, match=STALE):
        bits.of(y)
    with bits:
        with pytest.raises(InputError, match=STALE):
            bits.of(y[2:])
        with pytest.raises(InputError, match=STALE):
            y * 2.0
        assert bits.of(untouched * 2.0).safe.min() > 20
        y.zero_()  # all of it is known again
        assert (bits.of(y).safe == 24).all()


def test_a_write_is_noticed_whatever_the_tensor_was_known_by():
    bits, model = track(), perceptron()
    with bits:
        left = torch.exp(rand(6)).detach().view(2, 3)  # a view of what is gone
        model(rand(5, 6)).sum().backward()
        for parameter in model.parameters():
            parameter.data.sub_(parameter.grad.data)
        model(rand(5, 6))
    left.add_(1.0)
    with torch.no_grad():
        model[0].weight.add_(1.0)
        model[0].weight.grad.add_(1.0)
    for x in (left, model[0].weight, model[0].weight.grad):
        with pytest.raises(InputError, match=STALE):
            bits.of(x)
    assert bits.of(model[0].bias.grad).safe.max() <= 24


def test_a_step_of_the_optimiser_outside_of_the_block_is_noticed_by_the_next_pass():
    model, x = perceptron(), rand(5, 6)
    optimiser, bits = torch.optim.SGD(model.parameters(), lr=0.1), track(model)
    with bits:
        train(model, optimiser, x)
    optimiser.step()
    with bits, pytest.raises(InputError, match=STALE):
        model(x)
    bits.restart_exact()
    with bits:
        model(x)


def test_a_stale_tensor_that_is_declared_is_known():
    bits = track()
    with bits:
        y = torch.exp(rand(6))
    y.add_(1.0)
    bits.declare(y, bits=10)
    assert (bits.of(y).safe >= 9).all()
    y.add_(1.0)
    with bits, pytest.raises(InputError, match=STALE):
        torch.sin(y)


def test_tensors_of_inference_mode_keep_their_noise_between_blocks():
    bits = track()
    with bits, torch.inference_mode():
        y = torch.exp(rand(6))
    with bits, torch.inference_mode():
        z = y * 2.0
    assert torch.equal(bits.of(z).safe, bits.of(y).safe) and bits.of(y).safe.max() < 24


# --- what is around it ------------------------------------------------------------------------------------------------


def test_models_that_share_a_tensor_share_its_noise():
    one, other = nn.Linear(6, 6), nn.Linear(6, 6)
    other.weight = one.weight
    with track(one) as bits, torch.no_grad():
        one.weight.mul_(1.1)
        y = other(rand(5, 6))
    assert bits.of(other.weight).safe.max() < 24
    with track(one) as exact, torch.no_grad():
        z = other(rand(5, 6))
    assert (bits.of(y).bound > exact.of(z).bound).all()


def test_a_forward_pass_in_another_thread_is_warned_of():
    model = perceptron()
    with pytest.warns(UntrackedOperation, match="in another thread, where nothing is followed"), track(model):
        thread = threading.Thread(target=model, args=(rand(5, 6),))
        thread.start()
        thread.join()


def test_threads_with_trackers_of_their_own_do_not_meet():
    found = {}

    def run(name, count):
        with track() as bits:
            y = rand(64)
            for _ in range(count):
                y = torch.sin(y) * 1.5
            found[name] = bits.of(y).bound

    run("alone", 40)
    threads = [threading.Thread(target=run, args=(i, 40)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(found[0], found["alone"]) and torch.equal(found[1], found["alone"])


@pytest.mark.parametrize("order", [0, 1])
def test_trackers_within_each_other_both_see_all(order):
    model, x = perceptron(), rand(5, 6)
    alone = track(model)
    with alone:
        model(x).sum().backward()
    wanted = [alone.of(p.grad).safe for p in model.parameters()]
    model.zero_grad()
    outer, inner = [track(model), track()][:: 1 - 2 * order]
    with outer, inner:
        y = model(x)
        y.sum().backward()
    assert same([outer.of(p.grad).safe for p in model.parameters()], wanted)
    assert same([inner.of(p.grad).safe for p in model.parameters()], wanted)
    assert torch.equal(outer.of(y).safe, inner.of(y).safe) and outer.entries == inner.entries


def test_a_tracker_is_entered_once_at_a_time():
    bits, model = track(), perceptron()
    with bits:
        with pytest.raises(InputError, match="entered twice; expected one block at a time"), bits:
            pass
        y = torch.exp(rand(3))
    assert bits.of(y).safe.max() < 24
    with track(model), pytest.raises(InputError, match="being emulated or tracked already"), track(model):
        pass
    assert hooks_of(model) == hooks_of(perceptron())


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("inside", [True, False])
def test_other_modes_see_the_run_and_nothing_of_tracking(inside):
    model, x, alone, mode = perceptron(), rand(5, 6), Counting(), Counting()
    with alone:
        model(x).sum().backward()
    model.zero_grad()
    bits = track(model)
    with contextlib.ExitStack() as entered:
        for context in (bits, mode) if inside else (mode, bits):
            entered.enter_context(context)
        y = model(x)
        y.sum().backward()
    assert mode.seen == alone.seen
    assert bits.of(y).safe.max() + 8 > 20


@pytest.mark.parametrize("make", [
    lambda: torch.compile(perceptron(), backend="eager"),
    lambda: nn.Sequential(torch.compile(perceptron(), backend="eager")),
], ids=["whole", "part"])  # fmt: skip
def test_a_compiled_model_is_refused(make):
    with pytest.raises(InputError, match=r"compiled by torch.compile; expected a plain module"), track(make()):
        pass


@pytest.mark.filterwarnings("ignore")  # of the compiler about what it is kept from
def test_a_compiled_function_is_refused():
    function = torch.compile(lambda x: torch.exp(x) * 3.0, backend="eager")
    with (
        track(),
        pytest.raises(InputError, match=r"compiled by torch.compile runs.* call the function that it was made of"),
    ):
        function(rand(4))


def test_a_numerical_script_without_a_model():
    x = torch.tensor([2.0, 3.0, 5.0], dtype=torch.float64)
    with track() as bits:
        root = x.clone()
        for _ in range(40):
            root = 0.5 * (root + x / root)
        lost = (root - x.sqrt()) * 1e16
    assert (bits.of(root).safe >= 46).all() and (bits.of(lost).safe == 0).all() and not bits.shadowed
    # a real square root, in whole numbers
    for value, bound, number in zip(root.tolist(), bits.of(root).bound.tolist(), (2, 3, 5), strict=True):
        numerator, denominator = value.as_integer_ratio()
        off = abs(numerator * numerator - number * denominator * denominator) / denominator**2 / (2 * value)
        assert off * (1 - 1e-9) <= bound


# --- declarations and options -----------------------------------------------------------------------------------------


def test_declared_inputs_are_off_by_what_is_said():
    x = rand(50, dtype=torch.float64)
    with track() as bits:
        bits.declare(x, bits=11)
        y = x * 3.0
        assert (bits.of(x).safe == 10).all() and (bits.of(x).certain_noise >= 10).all()
        assert (bits.of(y).bound >= 3 * 2.0**-11 * x.abs()).all() and (bits.of(y).safe == 10).all()
        bits.declare(x, error=torch.full((50,), 0.125))
        assert torch.allclose(bits.of(x).bound, torch.full((50,), 0.125, dtype=torch.float64))
        bits.declare(x, error=0.0)
        assert (bits.of(x).safe == 53).all()


@pytest.mark.parametrize(("options", "message"), [
    ({}, "neither or both"), ({"bits": 3, "error": 1.0}, "neither or both"), ({"error": -1.0}, "negative error"),
    ({"error": float("nan")}, "negative error"), ({"error": torch.ones(7)}, r"of shape \(7,\); expected .* \(3,\)"),
    ({"bits": torch.ones(2)}, r"of shape \(2,\)"),
], ids=range(6))  # fmt: skip
def test_bad_declarations_are_refused(options, message):
    with track() as bits, pytest.raises(InputError, match=message):
        bits.declare(rand(3), **options)


@pytest.mark.parametrize("x", [[1.0], torch.arange(3)], ids=["list", "whole numbers"])
def test_only_tensors_of_real_numbers_are_declared_or_read(x):
    bits = track()
    with pytest.raises(InputError, match=r"track: declare: .* expected"):
        bits.declare(x, bits=3)
    with pytest.raises(InputError, match=r"track: of: .* expected"):
        bits.of(x)


@pytest.mark.parametrize(("options", "message"), [
    ({"numbers": ("certain",)}, "expected some of safe, expected, certain_noise"), ({"numbers": ()}, "got none"),
    ({"every": 0}, "whole number from 1"), ({"restart": "always"}, "never or step"),
    ({"roundings": "all"}, "bounded or measured"),
], ids=range(5))  # fmt: skip
def test_bad_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        track(**options)


def test_numbers_that_are_not_kept_are_named():
    with track(numbers=("expected",)) as bits:
        y = torch.exp(rand(3))
    assert bits.of(y).expected.min() > 20
    with pytest.raises(AttributeError, match="'safe' was not tracked; expected one of expected"):
        bits.of(y).safe  # noqa: B018


def test_a_restart_counts_all_as_exact():
    with track() as bits:
        y = torch.exp(rand(3))
        bits.restart_exact()
        assert bits.entries == 0 and (bits.of(y).safe == 24).all()


def test_restarting_by_step_bounds_each_step_alone():
    model, x = perceptron(), rand(5, 6)
    initial = copy.deepcopy(model)
    found = {}
    for restart in ("never", "step"):
        model.load_state_dict(initial.state_dict())
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        with track(model, restart=restart, numbers=("safe",)) as bits:
            found[restart] = []
            for _ in range(4):
                train(model, optimiser, x)
                found[restart].append(bits.of(model[0].weight).bound.mean().item())
    assert found["never"][0] == found["step"][0]
    assert found["step"][3] < 3 * found["step"][0] and found["never"][3] > 1.5 * found["step"][3]


def test_measured_roundings_give_more_bits_and_are_as_safe():
    model, x = perceptron(), rand(5, 6)
    exact = copy.deepcopy(model).double()
    z = exact(x.double())
    z.square().sum().backward()
    bits = {}
    for roundings in ("bounded", "measured"):
        model.zero_grad()
        with track(model, roundings=roundings) as tracker:
            y = model(x)
            y.square().sum().backward()
        assert covered(y.detach(), z.detach(), tracker.of(y))
        for one, other in zip(model.parameters(), exact.parameters(), strict=True):
            assert covered(one.grad, other.grad, tracker.of(one.grad))
        bits[roundings] = tracker.of(y).safe.double().mean()
    assert bits["measured"] >= bits["bounded"] + 2


# --- on a machine -----------------------------------------------------------------------------------------------------


def with_unit(machine, unit):
    return replace(machine, vector_unit=replace(machine.vector_unit, format=Use.parse(unit)))


@pytest.mark.parametrize("unit", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("mac", ["low", "two_pass", "exact", "fma(fp16)", "float32"])
@pytest.mark.parametrize("make", [perceptron, convolutional], ids=["mlp", "conv + batch norm"])
def test_on_a_machine_safe_covers_the_error_against_real_numbers(make, mac, unit):
    model = make().eval()
    x = rand(5, 6) if make is perceptron else rand(5, 1, 8, 8)
    machine = with_unit(NPU, unit)
    with simulator.emulate(model, machine, layers={"*": mac}), torch.no_grad():
        wanted = model(x)
    with track(model, hw=machine, layers={"*": mac}) as bits, torch.no_grad():
        y = model(x)
    assert torch.equal(y, wanted)
    exact = copy.deepcopy(model).double()(x.double()).detach()
    assert covered(y, exact, bits.of(y)) and not bits.shadowed
    if mac == "exact" and unit == "fp32":
        assert bits.of(y).safe.max() > 2  # operands are quantised
    assert bits.of(y).safe.max() < 24


@pytest.mark.parametrize("unit", ["fp32", "bf16"])
def test_on_a_machine_gradients_are_covered_too(unit):
    model, x, machine = perceptron(nn.Tanh), rand(5, 6), with_unit(NPU, unit)
    with track(model, hw=machine, layers={"*": "fma(fp16)"}) as bits:
        y = model(x)
        y.sum().backward()
    exact = copy.deepcopy(model).double()
    exact.zero_grad()
    exact(x.double()).sum().backward()
    for one, other in zip(model.parameters(), exact.parameters(), strict=True):
        assert covered(one.grad, other.grad, bits.of(one.grad))
    assert bits.emulation.result.layers


def test_a_machine_that_folds_batch_normalisations_is_refused():
    folding = replace(NPU, fold_batch_norm=True)
    with pytest.raises(InputError, match=r"folds batch normalisations.*write vector_unit.batch_norm: separate"):
        track(convolutional(), hw=folding)


# --- printing ---------------------------------------------------------------------------------------------------------


def test_printed_digits_that_are_not_claimed_are_question_marks():
    with track() as bits:
        x = torch.tensor([1.0 / 3.0, 2.0, float("inf")], dtype=torch.float64)
        bits.declare(x, bits=10)
        text = repr(bits.of(x))
        assert "safe" in text.splitlines()[0] and "? is not claimed" in text
        assert re.search(r"\[3\.3\?{14}e-01, 2\.0\?{14}e\+00, inf\]", text)
        for label in LABELS:
            assert label in bits.of(x).shown(label).splitlines()[0]
