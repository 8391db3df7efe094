"""The tap in its surroundings: names, the backward pass, hooks, exceptions, and a model that is left as it was."""

import copy
import io
import re
import threading

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from simulator.errors import InputError  # noqa: E402
from simulator.network.tap import IN_BACKWARD, OUTSIDE, Tap  # noqa: E402
from tests.simulator.tap_runs import Ops, in_each_grad_mode, rand, tapped  # noqa: E402

# --- names ------------------------------------------------------------------------------------------------------------


class Twice(nn.Module):
    """Shares a module, shares a parameter, has a product of its own and nested modules."""

    def __init__(self):
        super().__init__()
        self.shared = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.shared.weight
        self.nested = nn.Sequential(nn.ReLU(inplace=True), nn.Sequential(nn.Linear(4, 4)))

    def forward(self, x):
        x = self.shared(self.tied(self.shared(x)))
        return self.nested(x) @ self.shared.weight


TWICE = ["shared", "tied", "shared#2", "nested.1.0", "Twice"]


def test_names_are_those_of_the_modules_and_the_same_in_every_pass():
    model, found = Twice(), Ops()
    tap = Tap(model, found)
    for _ in range(2):
        with tap:
            model(rand(2, 4))
            model(rand(3, 4))
    assert [op.name for op in found] == TWICE * 4


def test_a_module_called_directly_keeps_its_name():
    model, found = Twice(), Ops()
    with Tap(model, found):
        model.shared(rand(2, 4))
        model.nested(rand(2, 4))
        model.nested(rand(2, 4))
    assert [op.name for op in found] == ["shared", "nested.1.0", "nested.1.0"]


def test_a_module_under_two_paths_has_the_name_of_the_first():
    layer = nn.Linear(4, 4)
    seen, _, _ = tapped(nn.ModuleDict({"a": nn.Sequential(layer, layer)})["a"], rand(2, 4))
    assert [name for name, *_ in seen] == ["0", "0#2"]


def test_products_outside_of_a_forward_pass_are_listed():
    model, found = nn.Linear(4, 4), Ops()
    with Tap(model, found) as tap:
        model(rand(2, 4)) @ rand(4, 4)
    assert [op.name for op in found] == ["Linear"]
    assert dict(tap.not_emulated) == {("mm", OUTSIDE): 1}


# --- the backward pass ------------------------------------------------------------------------------------------------


def test_the_products_of_the_backward_pass_are_ops_of_their_layers():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    x = rand(2, 1, 4, 4)
    model(x).square().sum().backward()
    wanted = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    found = Ops()
    with Tap(model, found) as tap:
        model(x).square().sum().backward()
    assert [(op.name, op.kind, op.phase, op.m, op.n, op.k) for op in found] == [
        ("0", "conv2d", "forward", 8, 2, 9),
        ("2", "linear", "forward", 2, 3, 8),
        ("2", "linear", "input gradient", 2, 8, 3),
        ("2", "linear", "weight gradient", 3, 8, 2),
        ("0", "conv2d", "weight gradient", 9, 2, 8),  # an image needs no gradient
    ]
    assert not tap.not_emulated
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), wanted, strict=True))


def phases(model, run):
    found = Ops()
    with Tap(model, found) as tap:
        run()
    return [(op.name, op.phase) for op in found], dict(tap.not_emulated)


def test_gradients_belong_to_the_call_that_they_are_of():
    layer = nn.Linear(3, 3)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(self.layer(x).relu())

    model = Twice()
    found, listed = phases(model, lambda: model(rand(2, 3)).sum().backward())
    assert found[2:] == [
        ("layer#2", "input gradient"), ("layer#2", "weight gradient"), ("layer", "weight gradient"),
    ]  # fmt: skip
    assert not listed


def test_square_products_are_told_apart_by_their_operands():
    """Of a square layer and as many samples, no shape tells one gradient from the other."""
    layer, x = nn.Linear(4, 4), rand(4, 4).requires_grad_()
    found, _ = phases(layer, lambda: layer(x).sum().backward())
    assert [phase for _, phase in found] == ["forward", "input gradient", "weight gradient"]


def test_two_graphs_at_once_and_a_graph_gone_through_again():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))

    def run():
        first, second = model(rand(2, 3)).sum(), model(rand(5, 3)).sum()
        second.backward()
        first.backward(retain_graph=True)
        first.backward()

    found, listed = phases(model, run)
    assert found == [("0", "forward"), ("1", "forward")] * 2 + [
        ("1", "input gradient"), ("1", "weight gradient"), ("0", "weight gradient"),
    ] * 3  # fmt: skip
    assert not listed


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_compute_their_layers_again(reentrant):
    from torch.utils.checkpoint import checkpoint

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    begun = []
    found = Ops()
    x = rand(2, 3).requires_grad_()
    with Tap(model, found, begin=lambda *_: begun.append(1)) as tap:
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
    phases = [(op.name, op.phase) for op in found]
    again = 2 if reentrant else 1  # the other kind stops as soon as it has what the backward pass asked for
    assert phases[: 2 + again] == [("0", "forward"), ("2", "forward"), ("0", "forward"), ("2", "forward")][: 2 + again]
    assert sorted(phases[2 + again :]) == sorted(
        (name, phase) for name in ("0", "2") for phase in ("input gradient", "weight gradient")
    )
    assert not tap.not_emulated and len(begun) == 1  # what is computed again is no pass of its own


def test_what_has_no_derivative_does_not_hide_what_has():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 4)

        def forward(self, x):
            y = self.layer(x)
            return torch.where((y > 0) & (y == y.detach()), y, 0.0)

    model = Masked()
    found, listed = phases(model, lambda: model(rand(2, 3)).sum().backward())
    assert found == [("layer", "forward"), ("layer", "weight gradient")] and not listed


def test_products_of_a_second_derivative_are_listed():
    model, x = nn.Linear(3, 2), rand(4, 3).requires_grad_()

    def run():
        (gradient,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
        gradient.square().sum().backward()

    found, listed = phases(model, run)
    assert [phase for _, phase in found[:2]] == ["forward", "input gradient"]
    assert ("mm", IN_BACKWARD) in listed


# --- the model is left as it was --------------------------------------------------------------------------------------


def hooks_of(model):
    return [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._forward_hooks_always_called)) for m in model.modules()
    ]


@in_each_grad_mode
def test_no_hook_and_no_setting_is_left(context):
    model, found = Twice(), Ops()
    before, fast = hooks_of(model), torch.backends.mha.get_fastpath_enabled()
    flash = torch.backends.cuda.flash_sdp_enabled()
    tap = Tap(model, found)
    with context(), tap:
        assert hooks_of(model) != before
        model(rand(2, 4))
        assert tap.path is None
    assert hooks_of(model) == before
    assert torch.backends.mha.get_fastpath_enabled() == fast
    assert torch.backends.cuda.flash_sdp_enabled() == flash
    count = len(found)
    model(rand(2, 4))
    assert len(found) == count


class Fails(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)

    def forward(self, x):
        x = self.first(x)
        if x.shape[0] == 3:
            raise KeyError("three")
        return self.first(x)


def test_a_model_that_raises_is_left_clean_and_can_go_on():
    model, found = nn.Sequential(Fails()), Ops()
    before = hooks_of(model)
    tap = Tap(model, found)
    with pytest.raises(KeyError, match="three"), tap:
        model(rand(3, 4))
    assert hooks_of(model) == before
    found.clear()
    with tap:
        with pytest.raises(KeyError, match="three"):
            model(rand(3, 4))
        model(rand(2, 4))
    assert [op.name for op in found] == ["0.first", "0.first", "0.first#2"]


def test_an_executor_that_raises_leaves_the_model_clean():
    def execute(op):
        raise InputError("no")

    model = nn.Linear(4, 4)
    with pytest.raises(InputError, match="no"), Tap(model, execute):
        model(rand(2, 4))
    assert hooks_of(model) == [(0, 0, 0)]
    assert torch.equal(model(rand(2, 4)), functional.linear(rand(2, 4), model.weight, model.bias))


def test_hooks_of_the_user_run_as_ever():
    model, seen = nn.Sequential(nn.Linear(4, 4), nn.ReLU()), []
    model[0].register_forward_pre_hook(lambda m, args: seen.append("pre") or (args[0] * 2,))
    model[0].register_forward_hook(lambda m, args, out: seen.append("post") or out + 1)
    x = rand(2, 4)
    wanted = model(x)
    _, _, output = tapped(model, x)
    assert torch.equal(output, wanted)
    assert seen == ["pre", "post"] * 2
    assert hooks_of(model)[1] == (1, 1, 0)


def test_a_product_in_a_hook_of_the_user_belongs_to_the_module():
    model, w = nn.Sequential(nn.Identity()), rand(4, 4)
    model[0].register_forward_hook(lambda m, args, out: out @ w)
    model[0].register_forward_pre_hook(lambda m, args: (args[0] @ w,))
    assert [op[0] for op in tapped(model, rand(2, 4))[0]] == ["0", "0#2"]


def test_begin_is_called_once_a_pass_with_the_arguments_as_given():
    model, begun = nn.Sequential(nn.Linear(4, 4)), []
    model.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
    x = rand(2, 4)
    with Tap(model, lambda op: None, begin=lambda *what: begun.append(what)):
        model(x)
        model[0](input=x)
    assert [(module, len(args), list(kwargs)) for module, args, kwargs in begun] == [
        (model, 1, []),
        (model[0], 0, ["input"]),
    ]
    assert begun[0][1][0] is x


def test_other_threads_are_left_alone():
    model, found = nn.Linear(4, 4), Ops()
    other = nn.Linear(4, 4)
    with Tap(model, found) as tap:
        thread = threading.Thread(target=lambda: other(rand(2, 4)))
        thread.start()
        thread.join()
    assert found == [] and not tap.not_emulated


# --- one emulation at a time, of plain modules ------------------------------------------------------------------------


def test_the_same_model_twice_is_refused_and_another_one_is_not():
    model, other, found = nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 4), Ops()
    tap = Tap(model, lambda op: None)
    with tap:
        for again in (tap, Tap(model, found), Tap(model[0], found)):
            with (
                pytest.raises(InputError, match=r"being emulated or tracked already.* emulate a copy"),
                again,
            ):
                pass
        with Tap(other, found):
            other(rand(2, 4))
        assert len(hooks_of(model)) == 2 and hooks_of(model)[1] == (1, 1, 1)
    assert [op.name for op in found] == ["Linear"]
    assert hooks_of(model) == [(0, 0, 0)] * 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_models_that_hide_their_operations_are_refused():
    plain = nn.Linear(4, 4)
    compiled = nn.Linear(4, 4)
    compiled.compile()
    for model, message in [
        (nn.Sequential(torch.compile(plain)), "0: compiled by torch.compile; expected a plain module"),
        (torch.compile(plain), "OptimizedModule: compiled by torch.compile"),
        (nn.Sequential(compiled), "0: compiled by torch.compile"),
        (nn.Sequential(torch.jit.script(plain)), "0: a TorchScript module; expected a plain module"),
    ]:
        with pytest.raises(InputError, match=re.escape(message)), Tap(model, lambda op: None):
            pass
    assert hooks_of(plain) == [(0, 0, 0)]


def test_what_is_not_to_be_emulated_is_torchs_own_bit_for_bit():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dropout=0.0).eval()
    x = rand(2, 33, 64)
    with torch.no_grad():
        wanted = layer(x)
        with Tap(layer, lambda op: None, emulates=lambda path: False):
            assert torch.equal(layer(x), wanted)


def test_forward_passes_in_another_thread_are_listed():
    model, found = nn.Linear(3, 2), Ops()
    with Tap(model, found) as tap:
        thread = threading.Thread(target=lambda: model(rand(4, 3)))
        thread.start()
        thread.join()
        model(rand(4, 3))
    assert len(found) == 1 and dict(tap.not_emulated) == {("forward pass", "another thread"): 1}


def test_copies_of_a_model_are_models_of_their_own():
    model, found = nn.Sequential(nn.Linear(3, 2)), Ops()
    with Tap(model, found) as tap:
        twin = copy.deepcopy(model)
        torch.save(model, io.BytesIO())
        y, z = model(rand(4, 3)), twin(rand(4, 3))
    assert torch.equal(y, z) and [op.name for op in found] == ["0"]
    assert dict(tap.not_emulated) == {("addmm", OUTSIDE): 1}


def test_modules_without_shapes_are_refused():
    with pytest.raises(InputError, match=r"LazyLinear: its parameters have no shape yet; .*; run it on a sample"):
        Tap(nn.LazyLinear(3), Ops()).__enter__()


def test_an_interruption_leaves_names_as_they_are():
    class Interrupted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.stops = nn.Linear(3, 2), True

        def forward(self, x):
            y = self.layer(x)
            if self.stops:
                raise KeyboardInterrupt
            return self.layer(y @ torch.zeros(2, 3))

    model, found = Interrupted(), Ops()
    with Tap(model, found):
        with pytest.raises(KeyboardInterrupt):
            model(rand(4, 3))
        model.stops = False
        model(rand(4, 3))
    assert [op.name for op in found] == ["layer", "layer", "Interrupted", "layer#2"]
