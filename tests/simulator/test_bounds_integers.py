"""Bounds of networks of token ids and masks: integers are known exactly, whatever picks by them rounds nothing."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("flint")

from torch import nn  # noqa: E402  (needs torch)

import simulator  # noqa: E402
from simulator import bounds  # noqa: E402
from simulator.bounds.analysis import forward  # noqa: E402
from simulator.bounds.bounded import Bounded  # noqa: E402
from simulator.bounds.certificate import certificate, text_of  # noqa: E402
from simulator.bounds.check import check  # noqa: E402
from simulator.bounds.graph import record  # noqa: E402
from simulator.bounds.units import of_mac  # noqa: E402
from tests.oracles.certificates import altered, change, refused  # noqa: E402
from tests.oracles.networks import Function  # noqa: E402

IDS = torch.tensor([[0, 5, -1, 3], [2, 2, -4, 1], [4, 0, 1, -6]])
SCORES = torch.randn(3, 4, generator=torch.Generator().manual_seed(4))


class Tokens(nn.Module):
    """Token ids, negative ones from the end, to the mean of those that count, as ONNX and Keras compute it."""

    def __init__(self, look_up=nn.functional.embedding):
        super().__init__()
        torch.manual_seed(2)
        self.table, self.out = nn.Parameter(torch.randn(6, 5)), nn.Linear(5, 3)
        self.look_up = look_up

    def forward(self, ids, scores):
        places = torch.where(ids < 0, ids + 6, ids)
        if self.look_up is torch.index_select:
            rows = self.table.index_select(0, places.reshape(-1)).reshape(*ids.shape, 5)
        else:
            rows = self.look_up(places, self.table)
        counts = (places != 3) & (ids >= -5)
        masked = torch.where(counts, scores, torch.tensor(-30.0))
        weights = torch.softmax(masked, 1)
        kept = rows * counts.to(torch.int32).unsqueeze(-1)
        return self.out((kept * weights.unsqueeze(-1)).sum(1))


@pytest.fixture(params=[nn.functional.embedding, torch.index_select], ids=["embedding", "index_select"])
def tokens(request):
    return Tokens(request.param).eval()


@pytest.mark.parametrize("method", bounds.METHODS)
def test_certificates_of_token_ids_are_followed(tokens, method):
    x = {"ids": IDS, "scores": (SCORES - 1e-4, SCORES + 1e-4)}
    found = check(text_of(certificate(tokens, x, precision=14, method=method)))
    assert found.ok, "\n".join(found.problems)
    assert found.samples == 3 and found.certified >= 1


def test_what_is_computed_keeps_to_the_bounds_of_the_ids_that_were_given(tokens):
    wide, random = Tokens().eval().double(), np.random.default_rng(0)
    for _ in range(6):
        ids = torch.from_numpy(random.integers(-6, 6, (20, 4)))
        scores = torch.from_numpy(random.normal(size=(20, 4)).astype(np.float32))
        found = bounds.certify(tokens, {"ids": ids, "scores": scores})
        with torch.no_grad():
            computed, exact = tokens(ids, scores).double().numpy(), wide(ids, scores.double()).numpy()
        assert (np.abs(computed - exact) <= found.logit_bounds).all() and found.certified.mean() > 0.9
        assert np.allclose(found.logits, exact, atol=1e-12)


def test_machines_with_narrow_vector_units_leave_integers_as_they_are(tokens):
    machine = simulator.load_hardware("tpu_v4i_like")
    x = {"ids": IDS, "scores": SCORES}
    found = bounds.certify(tokens, x, machine)
    exact = bounds.certify(tokens, x)
    assert np.allclose(found.logits, exact.logits, atol=1e-12)
    with simulator.emulate(tokens, machine), torch.no_grad():
        computed = tokens(IDS, SCORES).double().numpy()
    assert (np.abs(computed - exact.logits) <= found.logit_bounds).all() and np.isfinite(found.bounds).all()


# On (ids, other ids) in which samples are rows; each is exact, and so is what the checker computes.
OPERATIONS = {
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= 2.5, "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != torch.tensor([1, 2, 3, 4]), "add": lambda a, b: a + b + 3,
    "sub": lambda a, b: a - b, "mul": lambda a, b: a * b[:, :1],
    "bitwise_and": lambda a, b: (a & b) + ((a > 1) & (b > 0)), "bitwise_or": lambda a, b: a | b,
    "bitwise_not": lambda a, b: ~(a > b), "_to_copy": lambda a, b: a.bool().int() + b.int(),
    "logical_and": lambda a, b: torch.logical_and(a, b), "logical_or": lambda a, b: torch.logical_or(a, b > 3),
    "logical_not": lambda a, b: torch.logical_not(a), "where": lambda a, b: torch.where(a > b, a, b[:, 1:2]),
}  # fmt: skip


class Weighs(nn.Module):
    """Integers of an operation as factors of values."""

    def __init__(self, operation):
        super().__init__()
        torch.manual_seed(1)
        self.operation, self.out = operation, nn.Linear(4, 3)

    def forward(self, a, b, x):
        return self.out(self.operation(a, b) * x)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_on_integers_is_exact_and_followed(name):
    random = torch.Generator().manual_seed(7)
    a, b = (torch.randint(-5, 6, (3, 4), generator=random) for _ in range(2))
    model = Weighs(OPERATIONS[name]).eval()
    graph = record(model, a, b, SCORES)
    found = forward(graph, [Bounded.exactly(x) for x in (a, b, SCORES)], of_mac())
    kinds = [name] if name == "where" else [f"{name} of integers"]
    nodes = [node for node in graph.nodes if node.kind in kinds]
    assert nodes, [node.kind for node in graph.nodes]
    expected = OPERATIONS[name](a, b).double()
    value = next(v for v in found.values.values() if torch.equal(v.lo, expected))
    assert value.is_exact
    form = certificate(model, {"a": a, "b": b, "x": SCORES}, precision=12)
    assert check(form).ok, check(form).problems

    def other(form):
        number = str(next(node["outputs"][0] for node in form["graph"]["nodes"] if node["kind"] in kinds))
        for end in ("lo", "hi"):
            change(form["values"][number][end], (1, 2), lambda x: x + 1)

    refused(altered(form, other), rf"\({kinds[0]} in .*\): (lo|hi): sample 1, element \(1, 2\)")


def test_a_row_that_is_not_the_one_of_the_token_is_found(tokens):
    form = certificate(tokens, {"ids": IDS, "scores": SCORES}, precision=14)
    node = next(node for node in form["graph"]["nodes"] if node["kind"] in ("embedding", "index_select at values"))

    def moved(form):
        at = (0, 1, 2) if node["kind"] == "embedding" else (1, 2)
        change(form["values"][str(node["outputs"][0])]["lo"], at, lambda x: x + 2.0**-30)

    refused(altered(form, moved), rf"\({node['kind']} in .*\): lo: sample 0")


def test_derivatives_go_to_what_is_picked():
    x, y = SCORES, SCORES.flip(0).contiguous()
    model = Weighs(lambda a, b: torch.where(a > 0, b * 3, b * b)).eval()
    found = bounds.certify(model, {"a": IDS, "b": (x - 1e-3, x + 1e-3), "x": y}, precision=10, methods=("adjoint",))
    form = certificate(model, {"a": IDS, "b": (x - 1e-3, x + 1e-3), "x": y}, precision=10, method="adjoint")
    assert check(form).ok and np.isfinite(found.bound).all()
    node = next(node for node in form["graph"]["nodes"] if node["kind"] == "where")
    read = node["args"][1]["value"]

    def smaller(form):
        j = str((form["claim"]["top"][0] + 1) % 3)
        change(form["gradients"][j][str(read)]["lo"], (0, 1), lambda g: g + 2.0**-6)
        change(form["gradients"][j][str(read)]["hi"], (0, 1), lambda g: g - 2.0**-6)

    refused(altered(form, smaller), rf"value {read}\b.*: derivatives of class \d: (lo|hi): sample 0, element \(0, 1\)")


TABLE, BOX = torch.randn(9, 3, generator=torch.Generator().manual_seed(3)), (IDS.abs(), IDS.abs() + 1)
REFUSED = {
    "a box of ids": (lambda a: nn.functional.embedding(a, TABLE).sum(1), BOX, "are not known"),
    "decisions by values": (lambda x: torch.where(x > 0, x, -x), SCORES, "no rule for gt"),
    "integers of values": (lambda x: x * x.argmax(1, keepdim=True), SCORES, "no rule for argmax"),
    "large integers": (lambda a: a * 0.5, IDS + 2**24, "got integers beyond 16777216"),
    "large products": (lambda a: (a.abs() + 5000) * (a.abs() + 5000) * 0.5, IDS, "beyond 16777216"),
    "large constants": (lambda x: x * torch.tensor([2**24 + 1]), SCORES, "reads integers beyond 16777216 as floats"),
    "narrow integers": (lambda a: (a.to(torch.uint8) + a.to(torch.uint8)) * 0.5, IDS, r"gives torch\.uint8"),
    "other integers": (lambda a: a.cumsum(1) * 0.5, IDS, "no rule for cumsum of integers"),
    "infinities": (lambda a: torch.where(a > 0, a * 0.5, torch.tensor(-torch.inf)), IDS, "picks infinities"),
    "places of values": (lambda a: (a * 0.5).gather(1, a.abs() % 4), IDS, "no rule for .*gather at values"),
    "another axis": (lambda a: TABLE.index_select(1, a[:, 0]).t(), IDS.clamp(0, 2), "along its first axis"),
    "mixed samples": (lambda a: torch.where(a > 0, a, a.flip(0)) * 0.5, IDS, "mixes samples"),
    "mixed rows": (lambda a: nn.functional.embedding(a.flip(0), TABLE).sum(2), IDS.abs(), "are not the samples"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused(name):
    function, x, message = REFUSED[name]
    with pytest.raises(simulator.InputError, match=message):
        bounds.certify(Function(lambda y: function(y) * 1.0).eval(), x, precision=12)


def test_a_constant_that_is_written_to_after_it_was_read_is_refused():
    def writes(x):
        constant = torch.ones(4)
        y = x * constant
        constant.fill_(7.0)
        return y

    with pytest.raises(simulator.InputError, match="reads a constant that the network writes to later"):
        bounds.certify(Function(writes).eval(), SCORES, precision=12)


def test_what_only_has_the_shape_of_a_value_is_a_constant():
    model = Function(lambda x: x + torch.ones_like(x) + x.new_full((1, 4), 0.5)).eval()
    found = bounds.certify(model, SCORES, precision=20)
    assert np.allclose(found.logits, (SCORES + 1.5).double().numpy(), atol=1e-6)
    assert check(certificate(model, SCORES, precision=20)).ok


@pytest.mark.parametrize("name", ["mul", "where"])
def test_a_number_that_is_read_as_float32_is_rounded_first(name):
    tenth = torch.tensor(0.1, dtype=torch.float64)
    x = torch.rand(4000, 2, generator=torch.Generator().manual_seed(5)) + 0.5
    ids = torch.arange(8000).reshape(4000, 2) % 2
    function = {"mul": lambda a, y: y * tenth, "where": lambda a, y: torch.where(a > 0, y, tenth)}[name]
    exact = x.double() * 0.1 if name == "mul" else torch.where(ids > 0, x.double(), 0.1)
    graph = record(Function(function).eval(), ids, x)
    found = forward(graph, [Bounded.exactly(ids), Bounded.exactly(x)], of_mac()).output
    off = (function(ids, x).double() - exact).abs()
    assert (off <= found.d).all() and (found.lo <= exact).all() and (exact <= found.hi).all()
    assert float((off / found.d.clamp(min=1e-300)).max()) > 0.2


def test_picking_a_number_is_followed_by_the_checker():
    model = Weighs(lambda a, b: torch.where(a > 0, b, 0.1)).eval()
    form = certificate(model, {"a": IDS, "b": SCORES, "x": SCORES}, "fma(fp16)", method="adjoint")
    assert check(form).ok, check(form).problems
