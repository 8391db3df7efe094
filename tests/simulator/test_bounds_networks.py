"""Bounds of whole networks: whatever a machine computes of random graphs keeps to them, value by value.

The engine emulates exactly the machine that was analysed. The reference is float64, whose own error is bounded by the
analysis of 53 bits and added: some 2^-29 of a bound for float32, so that it hides nothing.
"""

import copy
from collections import Counter
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import simulator  # noqa: E402  (needs torch)
from simulator.bounds import certify, required_precision  # noqa: E402
from simulator.bounds.analysis import RULES, adjoints, forward, margins  # noqa: E402
from simulator.bounds.bounded import Bounded  # noqa: E402
from simulator.bounds.graph import Ref, _Recorder, record  # noqa: E402
from simulator.bounds.roundings import Rounding  # noqa: E402
from simulator.bounds.rule import Unit  # noqa: E402
from simulator.bounds.units import of_mac, of_machine  # noqa: E402
from simulator.network.batches import as_batch  # noqa: E402
from simulator.network.emulation import Emulation  # noqa: E402
from simulator.network.tap import Tap  # noqa: E402
from tests.oracles.networks import Function, resnet18  # noqa: E402
from tests.oracles.random_networks import KINDS, Attention, RandomNetwork, draw_statistics  # noqa: E402
from tests.oracles.steered import Steered, ascend  # noqa: E402

FORMATS = ("fp32", "fp16", "bf16", "tf32", "e8m3", "e5m10:ftz", "dlfloat16", "e11m2", "e6m17", "e5m10:finite", "e7m6")
ROUNDINGS = ("", "", "", "/rz", "/ru", "/rd", "/odd", "/rna", "/sr", "/sr:3:b", "/sat")
ORDERS = (
    "seq({f})", "seq({f})", "seq({g}, {f})", "fma({f})", "fma({f}, 4)", "chunk(5, fma({f}), seq({f}))",
    "chunk(8, seq({g}), tree({f}))", "chunk(1, exact(fp32), seq({f}))",
    "tree({f})", "tree({f}, 3, leaves=exact)", "interleave(4, fma({f}), seq({f}))",
    "late(seq({f}))", "late(exact({f}))", "reverse(8, seq({f}))", "exact({f})", "fma(fp32) -> {f}",
    "late(seq(fp32)) -> {f}", "{f} -> fma({f})", "bf16*{f} -> seq({f}) -> {g}", "{f} -> fma(fp32)",
    "fp8_e4m3 -> fma({f})", "{f} -> exact(fp32) -> {f}", "aligned(4, 12, {f})", "aligned(8, 20, {f}, c=late)",
    "aligned(4, 11, {f}, order=two_of_four)", "fixed(32, 16, sat)", "fixed(40, 20, track, rz) -> {f}",
    "h100.fp16", "a100.bf16", "v100.fp16 -> fp16", "h100.tf32", "cdna2.fp16", "ada.fp8",
)  # fmt: skip
SATURATING = ("fp8_e4m3/sat", "fp8_e4m3", "fp8_e5m2/sat", "fp8_e5m2", "fp8_e4m3/rz/sat", "fp8_e5m2/sr/sat")
_MACHINE = """
array: {{rows: 8, columns: 8, dataflow: os}}
mac:
  low: {{operands: "{operands}", accumulator: "{low}", rate: 2 MAC/cycle}}
  high: {{operands: "{operands}", accumulator: "{high}"}}
policy: {{tolerance: {tolerance}}}
vector_unit: {{format: "{vector}"}}
"""


class Values(_Recorder):
    """The values of a graph as they were computed, by number."""

    def __init__(self):
        super().__init__({})
        self.values = []

    def new(self, tensor):
        self.values.append(tensor.detach().double().clone())
        return super().new(tensor)


class Watched(Emulation):
    """An emulation that keeps the values of a pass."""

    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.seen = Values()

    def _observe(self, ran):
        super()._observe(ran)
        self.seen.note(ran)


class Case(NamedTuple):
    """A machine: what analyses it, what emulates it, and how `certify` is asked for it."""

    words: str
    unit: Unit
    emulation: Watched
    asked: dict


def computed_by(emulation, x):
    """Values that the machine computes."""
    emulation.seen.new(x)
    with torch.no_grad(), emulation as run:
        run.model(x)
    return emulation.seen


def exactly(model, x):
    """Values in float64."""
    wide, seen = copy.deepcopy(model).double(), Values()
    x = x.double()
    seen.new(x)
    with torch.no_grad(), Tap(wide, lambda op: None, seen.note):
        wide(x)
    return seen


FLOAT64 = replace(of_mac(None, 53), mac=lambda name: None, library=4.0)


class Reference:
    """A network on samples in float64: its graph, its values, and how far these may be off.

    Args:
        x: inputs. radius: of boxes in which they lie somewhere.
    """

    def __init__(self, model, x, radius=0.0):
        shift = torch.rand(x.shape, generator=torch.Generator().manual_seed(1)).round(decimals=1) * radius
        lo, hi = x - shift, x + (radius - shift)
        self.ends = torch.minimum(lo, x), torch.maximum(hi, x)
        self.model, self.x, self.graph = model, x, record(model, x)
        self.box = Bounded(*(end.double() for end in self.ends), torch.zeros_like(x, dtype=torch.float64))
        self.seen = exactly(model, x)
        assert [node.kind for node in self.seen.nodes] == [node.kind for node in self.graph.nodes]
        found = forward(self.graph, [Bounded.exactly(x)], FLOAT64)
        self.off = {number: value.d for number, value in found.values.items()}

    def value(self, number):
        return self.seen.values[number]


class Tally:
    """What was compared.

    Args:
        outputs: how many values were compared with bounds. finite: how many of these bounds are finite. certified: how
            many samples.
        blurred: of how many finite bounds the reference is off by more than 2**-10. reached: the largest share of a
            finite bound that an error reached, by what was bounded.
    """

    def __init__(self):
        self.outputs, self.finite, self.blurred, self.certified, self.reached = 0, 0, 0, 0, Counter()

    def __str__(self):
        reached = ", ".join(f"{what} {share:.3g}" for what, share in self.reached.items())
        return (
            f"{self.outputs:,} compared, {self.finite / self.outputs:.1%} of the bounds finite, {self.blurred:,} "
            f"blurred, {self.certified} certified; reached: {reached}"
        )

    def compare(self, words, what, error, bound, slack):
        """Assert that errors, NaN being infinite, keep to bounds and what the reference itself is off."""
        error = torch.nan_to_num(error, nan=torch.inf, posinf=torch.inf)
        over = ~(error <= bound + slack)
        assert not over.any(), f"{words}: {what}: off by {error[over][:4]}, bound {bound[over][:4]}"
        some = bound.isfinite() & (bound > 0)
        self.outputs += error.numel()
        self.finite += int(bound.isfinite().sum())
        self.blurred += int((bound.isfinite() & (slack > bound * 2.0**-10 + 1e-290)).sum())
        if some.any():
            self.reached[what] = max(self.reached[what], float(((error - slack)[some] / bound[some]).max()))


def keeps(reference, case, tally):
    """Compare all values, margins and single operations of a run with the bounds of all methods."""
    words, graph, x = case.words, reference.graph, reference.x
    seen = computed_by(case.emulation, x)
    assert [node.kind for node in seen.nodes] == [node.kind for node in graph.nodes], words
    at = torch.arange(len(x))
    for running in (False, True):
        unit = replace(case.unit, running=running)
        found = forward(graph, [reference.box], unit)
        for number, bound in found.values.items():
            if number >= len(seen.values):
                continue  # what only the graph of a narrow vector unit has
            exact, slack = reference.value(number), reference.off[number]
            assert ((bound.lo <= exact + slack) & (exact - slack <= bound.hi)).all(), f"{words}: value {number}"
            error = (seen.values[number] - exact).abs()
            tally.compare(words, "value", error, bound.d, slack)
            known = bound.e.isfinite()
            relative = torch.where(known, bound.e * exact.abs(), torch.inf)
            tally.compare(words, "value, relative", error, relative, torch.where(known, slack * (1 + bound.e), 0.0))
        exact, own = reference.value(graph.output), seen.values[graph.output]
        top = found.output.lo.argmax(1)
        slack = reference.off[graph.output]
        slack = (slack[at, top][:, None] + slack).scatter(1, top[:, None], 0.0)
        change = ((own[at, top][:, None] - own) - (exact[at, top][:, None] - exact)).abs()
        change[at, top] = 0.0  # also where it is infinite less infinite
        tally.compare(words, "margin", change, margins(found, top).bound, slack)
        tally.compare(words, "margin, forward", change, found.output.d + found.output.d[at, top][:, None], slack)
        _steps(words, found, unit, seen, tally)
    _certified(reference, case, own, exact, reference.off[graph.output], tally)


def _certified(reference, case, own, exact, slack, tally):
    """Compare the outputs with what `certify` says of them."""
    found, at = certify(reference.model, reference.ends, **case.asked, every=True), torch.arange(len(own))
    tally.compare(case.words, "logit", (own - exact).abs(), torch.from_numpy(found.logit_bounds), slack)
    top = torch.from_numpy(found.top)
    least = (own[at, top][:, None] - own).scatter(1, top[:, None], torch.inf).amin(1)
    below = torch.from_numpy(found.margin - found.bound) - 2 * slack.amax(1)
    assert ((least >= below) | below.isneginf()).all(), f"{case.words}: {least}, {below}"
    assert (least > 0)[torch.from_numpy(found.certified)].all(), case.words
    tally.certified += int(found.certified.sum())


def _steps(words, found, unit, seen, tally):
    """Compare each operation with what it does to the values that the machine gave it."""
    if any(unit.held(node.path) is not None for node in found.graph.nodes):
        return  # between its roundings there are values that no one sees
    for node in found.graph.nodes:
        if node.kind not in RULES or not all(bool(seen.values[n].isfinite().all()) for n in node.inputs):
            continue
        given = {number: Bounded.exactly(seen.values[number]) for number in node.inputs}
        step, own = (RULES[node.kind].forward(node, given.__getitem__, by)[0] for by in (unit, FLOAT64))
        number = node.outputs[0]
        exact = in_float64(node, seen.values)
        error = (seen.values[number] - exact).abs()
        tally.compare(words, node.kind, error, step.value.d, own.value.d)
        if all(bool(found.values[n].d.isfinite().all()) for n in node.inputs):  # which then are within their boxes
            tally.compare(words, "local", error, found.locals[number], own.value.d)


def in_float64(node, values):
    """The first result of an operation on values in float64."""

    def one(leaf):
        if isinstance(leaf, Ref):
            return values[leaf.number].double().clone()
        return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    args, kwargs = torch.utils._pytree.tree_map(
        one, (node.args, dict(node.kwargs)), is_leaf=lambda leaf: isinstance(leaf, Ref)
    )
    found = called(node, args, kwargs)
    return found if isinstance(found, torch.Tensor) else found[0]


def drawn_mac(rng, order):
    """The words of a MAC unit of one of ORDERS, by number, these being counted in a circle."""
    f, g = (f"{rng.choice(FORMATS)}{rng.choice(ROUNDINGS)}" for _ in range(2))
    return ORDERS[order % len(ORDERS)].format(f=f, g=g)


def on_one_mac(model, mac, seed=0):
    """One MAC unit for every product, torch's float32 beside it."""
    emulation = Watched(model, simulator.load_hardware("npu"), {"*": mac}, seed=seed)
    return Case(mac, of_mac(mac), emulation, {"mac": mac})


def on_a_machine(model, x, path, rng, mode):
    """A machine of two MACs, with a vector unit of any format."""
    low, high = ("fma({f})", "seq({f})", "chunk(4, fma({f}), seq({f}))")[rng.integers(3)], "fma(fp32)"
    words = {
        "operands": str(rng.choice(["fp16", "bf16", "fp8_e4m3", "fp32"])),
        "low": low.format(f=rng.choice(["fp16", "bf16", "e8m5", "tf32"])), "high": high,
        "tolerance": float(rng.choice([0.02, 0.2, 1.0])),
        "vector": str(rng.choice(["fp32", "bf16", "fp16", "tf32/rz", "e8m12", "e6m9/ru"])),
    }  # fmt: skip
    path.write_text(_MACHINE.format(**words))
    machine = simulator.load_hardware(path)
    emulation = Watched(model, machine, default=mode, seed=int(rng.integers(99)))
    asked = {"mac": machine, "mode": mode}
    return Case(f"{mode}, {words}", of_machine(model, machine, mode, as_batch(x, None)), emulation, asked)


def run_of(kind, seed, tmp_path, samples, macs, tally):
    """Compare one random network on random units and on machines in each mode."""
    rng = np.random.default_rng([5, seed, *kind.encode()])
    model = RandomNetwork(kind, seed, int(rng.integers(2, 12)))
    reference = Reference(model, model.samples(samples, seed), float(rng.choice([0.0, 0.0, 2.0**-10, 2.0**-5])))
    first = macs * (len(KINDS) * seed + KINDS.index(kind))  # so that all orders have their turn
    for order in range(first, first + macs):
        keeps(reference, on_one_mac(model, drawn_mac(rng, order), seed), tally)
    for mode in ("low", "high", "two_pass"):
        keeps(reference, on_a_machine(model, reference.x, tmp_path / "machine.yaml", rng, mode), tally)


@pytest.mark.parametrize("kind", KINDS)
def test_what_machines_compute_of_random_graphs_keeps_to_the_bounds(kind, tmp_path):
    tally = Tally()
    for seed in range(4):
        run_of(kind, seed, tmp_path, 2, 3, tally)
    print(f"\n{kind}: {tally}")
    assert tally.finite > 0.5 * tally.outputs and tally.certified > 10 and tally.blurred < 1e-3 * tally.finite


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_millions_of_values_of_random_graphs_keep_to_the_bounds(kind, tmp_path):
    tally = Tally()
    for seed in range(10, 30):
        run_of(kind, seed, tmp_path, 6, 6, tally)
    print(f"\n{kind}: {tally}")
    assert tally.outputs > 10**6 and tally.finite > 0.5 * tally.outputs and tally.blurred < 1e-3 * tally.finite


def encoder():
    """A layer of torch's transformer, and what classifies its mean."""
    layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, activation="gelu")
    return torch.nn.Sequential(layer, Function(lambda x: x.mean(1)), torch.nn.Linear(8, 4))


class Twice(torch.nn.Module):
    """A layer that is called twice, with weights that another product shares."""

    def __init__(self):
        super().__init__()
        self.layer, self.last = torch.nn.Linear(8, 8), torch.nn.Linear(8, 3)

    def forward(self, x):
        y = torch.tanh(self.layer(torch.tanh(self.layer(x))))
        return self.last(y @ self.layer.weight + x)


# With shapes of their inputs.
_KNOWN = {
    "ResNet": (lambda: resnet18(2, 4), (3, 32, 32)),
    "encoder": (encoder, (4, 8)), "twice": (Twice, (8,)),
}  # fmt: skip


def known_network(name, samples, seed, macs, path, tally):
    """Compare a network of a shape that people have on random units and machines."""
    rng = np.random.default_rng([4, seed])
    make, shape = _KNOWN[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().eval().requires_grad_(False)
        draw_statistics(model)
    x = torch.from_numpy(rng.normal(size=(samples, *shape))).float()
    reference = Reference(model, x)
    # With one rounding of a sum its bound is reached, and what follows has errors as large as allowed to pass on.
    for mac in ("exact(fp16)", *(drawn_mac(rng, int(rng.integers(len(ORDERS)))) for _ in range(macs))):
        keeps(reference, on_one_mac(model, mac, seed), tally)
    for mode in ("high", "two_pass"):
        keeps(reference, on_a_machine(model, x, path, rng, mode), tally)


@pytest.mark.parametrize("name", _KNOWN)
def test_networks_of_known_shapes_keep_to_the_bounds(name, tmp_path):
    tally = Tally()
    known_network(name, 1, 0, 0, tmp_path / "machine.yaml", tally)
    assert tally.finite > 0.1 * tally.outputs


@pytest.mark.full
@pytest.mark.parametrize("name", _KNOWN)
def test_networks_of_known_shapes_keep_to_the_bounds_on_many_machines(name, tmp_path):
    tally = Tally()
    for seed in range(1, 6):
        known_network(name, 3, seed, 8, tmp_path / "machine.yaml", tally)
    print(f"\n{name}: {tally}")
    assert tally.finite > 0.3 * tally.outputs


# Gradients ----------------------------------------------------------------------------------------------------------


class _Placed(torch.autograd.Function):
    """A value put in place of another one, whose derivative it has."""

    @staticmethod
    def forward(context, value, other):
        return other.clone()

    @staticmethod
    def backward(context, grad):
        return grad, None


def derivatives(found, top, j, choose):
    """Derivatives of z_top - z_j by every value, each value being chosen from its box, given the exact one."""
    values, first = {}, found.graph.inputs[0]

    def read(leaf):
        if isinstance(leaf, Ref):
            return values[leaf.number].clone()
        return leaf.double() if isinstance(leaf, torch.Tensor) and leaf.is_floating_point() else leaf

    with torch.enable_grad():
        values[first] = choose(first, found.values[first].lo).requires_grad_()
        for node in found.graph.nodes:
            args, kwargs = torch.utils._pytree.tree_map(
                read, (node.args, dict(node.kwargs)), is_leaf=lambda leaf: isinstance(leaf, Ref)
            )
            results = torch.utils._pytree.tree_leaves(called(node, args, kwargs))
            for number, y in zip(node.outputs, results, strict=True):
                if number in found.values:
                    values[number] = _Placed.apply(y, choose(number, y.detach()))
        z, at = values[found.graph.output], torch.arange(len(top))
        numbers = list(values)
        grads = torch.autograd.grad((z[at, top] - z[:, j]).sum(), [values[n] for n in numbers], allow_unused=True)
    return dict(zip(numbers, grads, strict=True))


def inside(found, rng):
    """What chooses points of boxes at random, many of them corners; where these are infinite what is near the value."""

    def choose(number, exact):
        lo, hi = found.values[number].box
        share = torch.from_numpy(rng.random(exact.shape))
        share = torch.where(torch.from_numpy(rng.random(exact.shape) < 0.3), share.round(), share)
        point = torch.minimum(torch.maximum(lo + share * (hi - lo), lo), hi)
        near = torch.nan_to_num(exact, nan=0.0).clamp(-1e3, 1e3) + torch.from_numpy(rng.normal(size=exact.shape))
        return torch.where(point.isfinite(), point, torch.minimum(torch.maximum(near, lo), hi))

    return choose


def holds_derivatives(model, x, unit, rng, tally, points):
    """Compare derivatives at the exact values, and at points of all boxes, with their intervals."""
    found = forward(record(model, x[0]), [Bounded(x[0].double(), x[1].double(), torch.zeros_like(x[0].double()))], unit)
    top = (found.output.lo + found.output.hi).argmax(1)
    every = adjoints(found, top)
    for j, intervals in every.items():
        ways = [inside(found, rng) for _ in range(points)]
        if bool((x[0] == x[1]).all()):
            ways.append(lambda number, exact: exact)
        for choose in ways:
            for number, grad in derivatives(found, top, j, choose).items():
                if grad is None or number not in intervals:
                    assert number not in intervals or bool((intervals[number].lo <= 0).all())
                    continue
                lo, hi = intervals[number]
                some = lo.isfinite() & hi.isfinite()
                # What float64 loses on its way back, of the largest derivative of a sample.
                size = torch.where(some, torch.maximum(lo.abs(), hi.abs()), 0.0).flatten(1).amax(1)
                lost = (size * 2.0**-46).reshape(-1, *(1,) * (lo.dim() - 1))
                over = ~((lo - lost <= grad) & (grad <= hi + lost)) & some
                assert not over.any(), (
                    f"{unit.words}: value {number}: {grad[over][:3]} outside {lo[over][:3]}, {hi[over][:3]}"
                )
                tally.outputs += grad.numel()
                tally.finite += int(some.sum())
                wide = some & (hi - lo > 4 * lost)
                if wide.any():  # how near to an end of its interval a derivative comes, 1 being the end
                    near = ((grad - (lo + hi) / 2).abs() / ((hi - lo) / 2))[wide].max()
                    tally.reached["interval"] = max(tally.reached["interval"], float(near))


def called(node, args, kwargs):
    """Call an operation in float64, whatever type and layout it was called with."""
    kwargs = {name: value for name, value in kwargs.items() if name not in ("dtype", "memory_format")}
    if node.kind == "_to_copy":
        return args[0].clone()
    if node.kind in ("view", "_unsafe_view"):
        return args[0].reshape(args[1])
    return node.func(*args, **kwargs)


_PRECISIONS = ((None, "fma(fp32)"), (None, "seq(fp16)"), (14, None), (8, None), (5, "seq(fp32/rz)"))


def gradients_of(kind, seeds, samples, points):
    tally = Tally()
    for seed in seeds:
        rng = np.random.default_rng([6, seed])
        model = RandomNetwork(kind, seed, int(rng.integers(2, 10)))
        for precision, mac in _PRECISIONS:
            x = model.samples(samples, seed)
            radius = x.abs() * float(rng.choice([0.0, 0.0, 1e-3, 0.1]))
            unit = of_mac(mac, precision)
            holds_derivatives(model, (x - radius, x + radius), unit, rng, tally, points)
    print(f"\n{kind}: derivatives: {tally}")
    assert tally.finite > 0.3 * tally.outputs and tally.reached["interval"] > 0.9
    return tally


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_at_points_of_the_boxes_are_within_their_intervals(kind):
    gradients_of(kind, range(6), 2, 2)


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_millions_of_derivatives_are_within_their_intervals(kind):
    assert gradients_of(kind, range(10, 35), 4, 8).finite > 10**6


# Required precision -------------------------------------------------------------------------------------------------

_OF_BITS = ("seq({f})", "fma({f})", "chunk(4, fma({f}), seq({f}))", "tree({f})", "seq({f}/rz)", "late(seq({f}))",
            "fma({f}/sr)", "exact({f})")  # fmt: skip


def near_boundaries(model, last, many, count, rng):
    """Inputs between two that have different classes, almost where the class changes, or not quite so near.

    Args:
        last: layer of the model, which is given a bias for which there are several classes. many: inputs.
    """
    last.bias -= model(many).mean(0)
    wide, many = copy.deepcopy(model).double(), many.double()
    pairs = torch.from_numpy(rng.integers(len(many), size=(64 * count, 2)))
    classes = wide(many).argmax(1)
    pairs = pairs[classes[pairs[:, 0]] != classes[pairs[:, 1]]][:count]
    assert len(pairs) == count
    a, b = many[pairs[:, 0]], many[pairs[:, 1]]
    one = (count, *(1,) * (a.dim() - 1))
    low, high = torch.zeros(one, dtype=torch.float64), torch.ones(one, dtype=torch.float64)
    for _ in range(40):
        middle = (low + high) / 2
        same = (wide(a + middle * (b - a)).argmax(1) == classes[pairs[:, 0]]).reshape(one)
        low, high = torch.where(same, middle, low), torch.where(same, high, middle)
    return (a + (low + 2.0 ** -torch.from_numpy(rng.uniform(2, 16, one))) * (b - a)).float()


def flips(model, x, order, bits):
    """Samples whose class is not that of exact arithmetic, or that have two, with so many bits everywhere."""
    exact = copy.deepcopy(model).double()(x.double()).argmax(1)
    mac = order.format(f=f"e11m{bits - 1}")
    with torch.no_grad(), simulator.emulate(model, "npu", layers={"*": mac}) as run:
        y = run.model(x).double()
    others = y.clone()
    at = torch.arange(len(x))
    others[at, exact] = -torch.inf
    return (~(y[at, exact] > others.amax(1))).numpy()


def needs_more_than_any_flip(seeds, count, most):
    """Compare required bits with every precision at which the class does change.

    Returns:
        How often one did, and of samples where one did the required bits less the last at which it did.
    """
    changed, gaps = 0, []
    for seed in seeds:
        rng = np.random.default_rng([7, seed])
        if seed % 4 == 3:  # of so few roundings that the bounds are almost reached
            model = torch.nn.Linear(1, 4).requires_grad_(False).eval()
            model.weight[:] = torch.from_numpy(rng.uniform(0.5, 2, (4, 1)))
            last, many = model, torch.from_numpy(rng.normal(size=(256, 1))).float()
        else:
            model = RandomNetwork(KINDS[seed % 4], seed, seed // 4 % 4)
            last, many = model.parts[-1], model.samples(256, 1)
        order = _OF_BITS[seed % len(_OF_BITS)]
        x = near_boundaries(model, last, many, count, rng)
        required = required_precision(model, x, mac=order.format(f="fp32")).bits
        # Torch's float32 beside the products is within what up to 21 bits allow.
        bits = np.arange(2, most)
        flipped = np.array([flips(model, x, order, int(k)) for k in bits])
        last = np.where(flipped, bits[:, None], 0).max(0)
        assert ((required == 0) | (required > last)).all(), (seed, order, required, last)
        changed += int(flipped.sum())
        gaps += (required - last)[(required > 0) & (last > 0)].tolist()
    print(f"\n{changed} flips; required bits less those of the last one: {min(gaps)} to {max(gaps)}")
    return changed, gaps


def test_no_class_changes_with_the_precision_that_is_required():
    changed, gaps = needs_more_than_any_flip(range(4), 12, 16)
    assert changed > 100 and min(gaps) <= 2


@pytest.mark.full
def test_no_class_changes_with_the_precision_that_is_required_of_many_networks():
    changed, gaps = needs_more_than_any_flip(range(4, 56), 16, 22)
    assert changed > 1000 and min(gaps) <= 2


# Adversarial search -------------------------------------------------------------------------------------------------


class Residual(torch.nn.Module):
    """A layer beside itself."""

    def __init__(self, *layers):
        super().__init__()
        self.layers = torch.nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


def steered_networks():
    """Networks that Steered knows all operations of, with shapes of their inputs."""
    nn = torch.nn
    with torch.random.fork_rng():
        torch.manual_seed(5)
        normalises = nn.BatchNorm2d(3)
        nn.init.normal_(normalises.weight, 8.0)
        return {
            "one layer": (nn.Sequential(nn.Linear(12, 4)), (12,)),
            "ReLU, 3 layers": (
                nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), (12,)
            ),
            "tanh, residual": (
                nn.Sequential(Residual(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8), nn.Sigmoid()), nn.Linear(8, 3)),
                (8,),
            ),
            "images": (
                nn.Sequential(
                    nn.Conv2d(1, 3, 3, 1, 1), normalises, nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 2, 3), nn.Flatten(),
                    nn.Linear(8, 3),
                ), (1, 8, 8),
            ),
            "tokens": (
                nn.Sequential(
                    Residual(nn.LayerNorm(8), Attention(8, 2, whole=False)),
                    Residual(nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8)), nn.Flatten(), nn.Linear(32, 3),
                ), (4, 8),
            ),
        }  # fmt: skip


def steered_unit(bits, running):
    """Any rounding that is off by at most u = 2**(1 - bits), in order."""
    rounding = Rounding(2.0 ** (1 - bits), nearest=False)
    return replace(of_mac("seq(fp32/rz)", bits), vector=lambda path: rounding, library=1.0, running=running)


def steer(name, bits, samples, rounds, steps):
    """Look for roundings and inputs that exhaust the bounds of margins; return the largest share of one reached."""
    model, shape = steered_networks()[name]
    model.eval().requires_grad_(False)
    rng = np.random.default_rng([8, bits])
    x = torch.from_numpy(rng.normal(size=(samples, *shape))).float()
    graph, wide, reached = record(model, x), copy.deepcopy(model).double(), 0.0
    for _ in range(rounds):
        steered = Steered(graph, 2.0 ** (1 - bits))
        exact = wide(x.double())
        top, at = exact.argmax(1), torch.arange(len(x))
        found = [forward(graph, [Bounded.exactly(x)], steered_unit(bits, running)) for running in (False, True)]
        bounds = [margins(one, top).bound for one in found]
        classes, grown = exact.shape[1], []
        for j in range(classes):
            for sign in (1.0, -1.0):

                def objective(y, j=j, sign=sign, exact=exact, top=top, at=at):
                    return sign * ((y[at, top] - y[:, j]) - (exact[at, top] - exact[:, j]))

                y = ascend(steered, x.double(), objective, steps)
                off = (y - exact).abs()
                change = objective(y).abs()
                for one, bound in zip(found, bounds, strict=True):
                    assert (off <= one.output.d * (1 + 2.0**-30)).all(), (name, bits)
                    assert (change <= bound[:, j] * (1 + 2.0**-30) + 1e-300).all(), (name, bits)
                    some = (bound[:, j] > 0) & bound[:, j].isfinite()
                    grown.append(torch.where(some, change / bound[:, j], 0.0))
        reached = max(reached, float(torch.stack(grown).max()))
        # Inputs: some steps to where the last margin changes more.
        moved = x.double().requires_grad_()
        difference = steered(moved) - wide(moved)
        (slope,) = torch.autograd.grad((difference[at, top] - difference[:, classes - 1]).abs().sum(), moved)
        x = (x + 0.05 * slope.sign() * torch.from_numpy(rng.random(x.shape))).float()
    return reached


# What each network reaches at least, of few bits and of many.
_STEERED = {"one layer": 0.9, "ReLU, 3 layers": 0.3, "tanh, residual": 0.2, "images": 0.2, "tokens": 0.01}


@pytest.mark.parametrize("name", _STEERED)
def test_no_roundings_that_are_looked_for_exceed_a_bound(name):
    assert steer(name, 12, 4, 1, 2) > _STEERED[name]


@pytest.mark.full
@pytest.mark.parametrize("name", _STEERED)
def test_no_roundings_and_inputs_that_are_looked_for_exceed_a_bound(name):
    reached = {bits: steer(name, bits, 24, 6, 6) for bits in (4, 6, 8, 11, 16, 24)}
    print(f"\n{name}: " + ", ".join(f"{bits} bits {share:.3f}" for bits, share in reached.items()))
    assert max(reached.values()) > _STEERED[name]


def hunt(kind, seed, mac, population, generations):
    """Look for inputs whose margins an engine changes most of what is allowed; return the largest share reached."""
    rng = np.random.default_rng([9, seed, *mac.encode()])
    model = RandomNetwork(kind, seed, 3)
    x, unit, wide = model.samples(population, seed), replace(of_mac(mac), running=True), copy.deepcopy(model).double()
    reached, graph = 0.0, record(model, x)
    off = forward(graph, [Bounded.exactly(x)], FLOAT64).output.d.amax()
    for generation in range(generations):
        with torch.no_grad(), simulator.emulate(model, "npu", layers={"*": mac}, seed=generation) as run:
            own = run.model(x).double()
        exact = wide(x.double())
        found = forward(graph, [Bounded.exactly(x)], unit)
        top, at = exact.argmax(1), torch.arange(len(x))
        changed = own - exact
        change, bound = (changed[at, top][:, None] - changed).abs(), margins(found, top).bound
        change[at, top] = 0.0
        assert (change <= bound + 4 * off).all(), (kind, seed, mac)
        share = torch.where((bound > 0) & bound.isfinite(), change / bound, 0.0).amax(1)
        reached = max(reached, float(share.max()))
        best = x[share.argsort(descending=True)[: max(1, population // 4)]]
        parents = best[torch.from_numpy(rng.integers(len(best), size=population - len(best)))]
        where = torch.from_numpy(rng.random(parents.shape) < rng.choice([0.05, 0.3, 1.0]))
        moved = parents * (1 + torch.from_numpy(rng.normal(size=parents.shape)) * 2.0 ** -rng.integers(1, 14))
        x = torch.cat([best, torch.where(where, moved, parents).float()])
    return reached


_HUNTED = (
    "seq(fp16)",
    "fma(bf16)",
    "chunk(8, fma(fp16/rz), seq(fp16))",
    "tree(e8m5)",
    "a100.fp16",
    "fp16 -> fma(fp32)",
)


@pytest.mark.parametrize("kind", KINDS)
def test_no_inputs_that_are_looked_for_exceed_a_bound(kind):
    assert max(hunt(kind, 1, mac, 16, 4) for mac in _HUNTED[:3]) > 0.005


@pytest.mark.full
@pytest.mark.parametrize("kind", KINDS)
def test_no_inputs_that_are_looked_for_long_exceed_a_bound(kind):
    for mac in _HUNTED:
        shares = [hunt(kind, seed, mac, 32, 25) for seed in (0, 1, 2)]
        print(f"\n{kind}, {mac}: " + ", ".join(f"{share:.4f}" for share in shares))
        assert max(shares) > 0.001


# Small formats ------------------------------------------------------------------------------------------------------

_SMALL = ("seq({f})", "fma({f})", "exact({f})", "tree({f})", "chunk(4, seq({f}), fma({f}))", "{f} -> fma(fp16)",
          "fma(fp32) -> {f}", "{f} -> exact(fp32) -> {f}", "aligned(4, 12, {f})", "late(seq({f}))")  # fmt: skip


def in_small_formats(kind, seed, words, tally, seen):
    """Compare a network whose values overflow and underflow; count what became 0 and what was clamped."""
    model = RandomNetwork(kind, seed, 2)
    scale = (1.0, 2.0**-9, 60.0)[seed % 3]
    for name, parameter in model.named_parameters():
        if name.endswith("weight"):
            parameter.mul_(scale)
    reference = Reference(model, model.samples(3, seed))
    case = on_one_mac(model, words, seed)
    keeps(reference, case, tally)
    most = float(simulator.mac(words).result.format.max)
    found = forward(reference.graph, [Bounded.exactly(reference.x)], case.unit)
    for node in reference.graph.nodes:
        if node.layer:
            number = node.outputs[0]
            own, exact, d = case.emulation.seen.values[number], reference.value(number), found.values[number].d
            overflowed = ~own.isfinite() | ((own.abs() >= most) & (exact.abs() > 1.2 * most))
            assert d[~own.isfinite()].isinf().all(), words
            seen["overflowed"] += int(overflowed.sum())
            seen["vanished"] += int(((own == 0) & (exact != 0) & d.isfinite()).sum())
            seen["without bound"] += int(d.isinf().sum())
            seen["with bound"] += int(d.isfinite().sum())
            reported = {layer.name: layer.overflows for layer in case.emulation.result.layers}[node.layer]
            assert int(d.isinf().sum()) >= reported, f"{words}: {node.layer}: {reported} overflows"


def small_formats(kinds, seeds):
    tally, seen = Tally(), Counter()
    for kind in kinds:
        for seed in seeds:
            for i, format_ in enumerate(SATURATING):
                words = _SMALL[(seed + i) % len(_SMALL)].format(f=format_)
                in_small_formats(kind, seed, words, tally, seen)
    print(f"\n{tally}; {dict(seen)}")
    assert min(seen["overflowed"], seen["vanished"], seen["without bound"], seen["with bound"]) > 50
    return tally


def test_small_formats_have_bounds_that_hold_or_none():
    small_formats(KINDS, range(3))


@pytest.mark.full
def test_small_formats_have_bounds_that_hold_or_none_in_many_networks():
    assert small_formats(KINDS, range(10, 30)).outputs > 10**6
