"""Bounds of networks of several inputs: those of one that has them joined, and certificates that the checker takes."""

import hashlib
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("flint")

from torch import nn  # noqa: E402  (needs torch)

import simulator  # noqa: E402
from simulator import bounds  # noqa: E402
from simulator.bounds.certificate import certificate  # noqa: E402
from simulator.bounds.check import check, check_file  # noqa: E402
from tests.oracles.certificates import altered, change, refused, unpacked  # noqa: E402

TWO = """
import torch
from torch import nn


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.left, self.right, self.out = nn.Linear(4, 8), nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, a, b, scale=None):
        hidden = torch.relu(self.left(a) + self.right(b))
        return self.out(hidden if scale is None else hidden * scale)


class One(Two):
    def forward(self, x):
        return super().forward(x[:, :4], x[:, 4:])
"""
namespace = {}
exec(TWO, namespace)
TWO_INPUTS, JOINED = namespace["Two"]().eval(), namespace["One"]().eval()
X = torch.randn(6, 7, generator=torch.Generator().manual_seed(1))
RADIUS = 1e-3
ARRAYS = ("certified", "top", "margin", "bound", "margins", "bounds", "logit_bounds", "logits", "range_effect")


def named(x, radius_of_a=0.0):
    a = (x[:, :4] - radius_of_a, x[:, :4] + radius_of_a) if radius_of_a else x[:, :4]
    return {"b": x[:, 4:].numpy(), "a": a}


def joined(x, radius_of_a=0.0):
    away = torch.cat([torch.full((4,), radius_of_a), torch.zeros(3)])
    return (x - away, x + away) if radius_of_a else x


@pytest.mark.parametrize("radius", [0.0, RADIUS])
@pytest.mark.parametrize("how", [{"precision": 9}, {"mac": "fma(fp16)"}, {"precision": 9, "failure": 1e-6}])
def test_several_inputs_have_the_bounds_of_one_that_has_them_joined(how, radius):
    found = bounds.certify(TWO_INPUTS, named(X, radius), every=True, **how)
    expected = bounds.certify(JOINED, joined(X, radius), every=True, **how)
    for name in ARRAYS:
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert found.method == expected.method and found.certified.any()
    assert (found.range_effect > 1e-6).all() == (radius > 0)


@pytest.mark.parametrize("mode", ["low", "high", "two_pass"])
def test_machines_too(mode):
    machine = simulator.load_hardware("two_pass_paper")
    found, expected = (bounds.certify(m, x, machine, mode=mode) for m, x in ((TWO_INPUTS, named(X)), (JOINED, X)))
    assert np.array_equal(found.bounds, expected.bounds) and np.isfinite(found.bounds).all()


def test_the_bits_that_they_need_are_those_of_one_that_has_them_joined():
    found = bounds.required_precision(TWO_INPUTS, named(X, RADIUS), confidence=0.6)
    expected = bounds.required_precision(JOINED, joined(X, RADIUS), confidence=0.6)
    assert np.array_equal(found.bits, expected.bits) and found.bits.min() > 1
    assert np.array_equal(found.confidence_bits, expected.confidence_bits)


def test_what_is_computed_anywhere_in_the_boxes_keeps_to_the_bounds():
    found = bounds.certify(TWO_INPUTS, named(X, RADIUS), "seq(fp32)")
    wide = namespace["Two"]().eval().double()
    random = torch.Generator().manual_seed(2)
    for _ in range(50):
        x = X.clone()
        x[:, :4] += RADIUS * (torch.randint(0, 3, (6, 4), generator=random) - 1)
        with torch.no_grad():
            computed, exact = TWO_INPUTS(x[:, :4], x[:, 4:]).double(), wide(x[:, :4].double(), x[:, 4:].double())
        assert ((computed - exact).abs().numpy() <= found.logit_bounds).all()
        top = np.arange(6), found.top
        margins = exact.numpy()[top][:, None] - exact.numpy()
        others = np.isfinite(found.margins)
        assert (margins[others] >= found.margins[others] - 1e-12).all()


def test_an_input_without_axes_is_a_constant_for_all_samples():
    found = bounds.certify(TWO_INPUTS, {**named(X), "scale": np.float32(0.5)}, precision=12)
    assert np.allclose(found.logits, TWO_INPUTS(X[:, :4], X[:, 4:], torch.tensor(0.5)).detach().numpy(), atol=1e-6)
    form = certificate(TWO_INPUTS, {**named(X), "scale": np.float32(0.5)}, precision=12)
    assert [one["value"] for one in form["inputs"]["arrays"]] == [0, 1, None] and check(form).ok
    without = certificate(TWO_INPUTS, named(X), precision=12)
    assert form["inputs"]["digest"] != without["inputs"]["digest"]


def made():
    return certificate(TWO_INPUTS, named(X[:3], RADIUS), precision=12)


def with_digest(form):
    digest = hashlib.sha256()
    for one in sorted(form["inputs"]["arrays"], key=lambda one: one["name"]):
        for end in ("lo", "hi"):
            digest.update(str(one[end]["shape"]).encode() + unpacked(one[end]).tobytes())
    form["inputs"]["digest"] = digest.hexdigest()


def test_the_checker_follows_certificates_of_several_inputs():
    form = made()
    assert [(one["name"], one["value"]) for one in form["inputs"]["arrays"]] == [("b", 0), ("a", 1)]
    found = check(form)
    assert found.ok and found.samples == 3 and found.inputs == form["inputs"]["digest"]


def test_the_checker_finds_other_inputs():
    def moved(form):
        change(form["inputs"]["arrays"][1]["hi"], (1, 2), lambda x: x + 1e-6)

    def moved_with_its_digest(form):
        moved(form)
        with_digest(form)

    def wider_values(form):
        moved_with_its_digest(form)
        form["values"]["1"]["hi"] = form["inputs"]["arrays"][1]["hi"]

    def twice(form):
        form["inputs"]["arrays"][1]["value"] = 0

    def missing(form):
        del form["inputs"]["arrays"][1]
        with_digest(form)

    def unread(form):
        form["inputs"]["arrays"][1]["value"] = None

    def none(form):
        form["inputs"]["arrays"] = []
        with_digest(form)

    def exchanged(form):
        first, second = form["inputs"]["arrays"]
        first["name"], second["name"] = second["name"], first["name"]

    def fewer(form):
        form["inputs"]["arrays"][0]["lo"] = form["inputs"]["arrays"][1]["lo"]
        with_digest(form)

    form = made()
    refused(altered(form, moved), "inputs: the digest is not that of the inputs")
    refused(altered(form, moved_with_its_digest), r"value 1, the input: hi: sample 1, element \(1, 2\)")
    refused(altered(form, wider_values), r"value \d+ \(addmm in left\): hi: sample 1")
    refused(altered(form, twice), "inputs: value 0 is there twice")
    refused(altered(form, missing), r"addmm in left: reads value 1, which no operation before it makes")
    refused(altered(form, unread), r"addmm in left: reads value 1, which no operation before it makes")
    refused(altered(form, none), r"inputs: of \[\] samples; expected the same number in all, and one at least")
    refused(altered(form, exchanged), "inputs: the digest is not that of the inputs")
    refused(altered(form, fewer), r"inputs: the shapes \[3, 4\] and \[3, 3\] are not those of samples")


def test_an_input_of_another_number_of_samples_is_found():
    scale = torch.tensor(0.5)
    form = certificate(TWO_INPUTS, {**named(X), "scale": scale}, precision=12)

    def numbered(form):
        form["inputs"]["arrays"][2]["value"] = 77

    def shorter(form):
        last = form["inputs"]["arrays"][2]
        last["value"] = 77
        for end in ("lo", "hi"):
            last[end]["shape"] = [1]
        with_digest(form)
        form["values"]["77"] = dict.fromkeys(("lo", "hi", "d", "e", "local"), last["lo"])

    refused(altered(form, numbered), "inputs: scale has no axis of samples, and is said to be value 77")
    refused(altered(form, shorter), r"inputs: of \[1, 6\] samples; expected the same number in all")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"a": X[:, :4]}, r"bounds: a of shape \(N, 4\) .* does not fit the network Two .*'b'"),
        ({"a": X[:, :4], "b": X[:5, 4:]}, r"samples along the first axes: a 6, b 5; expected the same number"),
        ({"a": X[:, :4], "b": (X[:, 4:],)}, r"bounds: b: got 1 values; expected samples"),
        ({"a": X[:, :4], "b": (X[:, 4:] + 1, X[:, 4:])}, r"bounds: b: got an end that is not finite, or a lower end"),
        ({"a": X[:, :4], "b": X[:, 4:] * 1j}, r"bounds: b: got values of torch.complex64"),
        ({"a": X[:, :4], "b": X[:, 4:], "scale": (0.5, 1.0)}, r"bounds: scale: got two ends of one number for all"),
        ({"a": X[:, :4], "b": "b"}, r"bounds: b: got no array of numbers"),
        ({}, r"x: got dict .*; expected a tensor, or several"),
    ],
)
def test_inputs_that_are_none_are_refused_by_name(x, message):
    with pytest.raises(simulator.InputError, match=message):
        bounds.certify(TWO_INPUTS, x, precision=12)


class WritesToItsInput(nn.Module):
    """Adds 1 to its input in place."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(7, 3)

    def forward(self, x):
        x.add_(1.0)
        return self.layer(x)


def test_a_network_that_writes_to_its_input_is_bounded_on_what_was_given():
    model, x = WritesToItsInput().eval(), X.clone()
    found = bounds.certify(model, x, precision=12)
    assert torch.equal(x, X)
    assert np.allclose(found.logits, model.layer(X + 1.0).detach().numpy(), atol=1e-5)
    assert check(certificate(model, x, precision=12)).ok and torch.equal(x, X)
    bounds.certify(model, x, simulator.load_hardware("two_pass_paper"), mode="two_pass")
    assert torch.equal(x, X)


@pytest.fixture
def files(command, tmp_path, monkeypatch):
    (tmp_path / "two_bounded.py").write_text(TWO)
    np.savez(tmp_path / "two.npz", a=X[:, :4].numpy(), b=X[:, 4:].numpy(), y=np.arange(6) % 3)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "two_bounded", raising=False)
    return "--model", "two_bounded:Two", "--data", "two.npz"


def test_the_command_certifies_named_inputs_within_a_radius_of_each(command, files):
    radii = "--radius", "a=0.001", "--radius", 0.0001
    code, out, err = command("bounds", *files, "--precision", 14, *radii, "--certificate", "proof.json")
    assert code == 0 and "certified 100.0 %" in out, err
    code, out, err = command("bounds", "check", "proof.json", *files, *radii)
    assert code == 0 and out.count("(the same)") == 2, (out, err)
    for other in ((), ("--radius", 0.001), ("--radius", "b=0.001", "--radius", 0.0001)):
        assert command("bounds", "check", "proof.json", *files, *other)[0] == 3
    assert command("bounds", *files, "--required")[0] == 0


@pytest.mark.parametrize(
    ("radii", "message"),
    [
        (["c=0.1"], "--radius: got c=0.1; expected it of inputs of floats (a, b), as"),
        (["-1"], "--radius: got -1; expected a number from 0"),
        (["a=x"], "--radius: got a=x; expected a number from 0"),
        (["=1"], "--radius: got =1; expected a number from 0"),
        (["nan"], "--radius: got nan; expected a number from 0"),
        (["1", "2"], "--radius: got 2; expected a number from 0 for all inputs, or NAME=R for one, each once"),
    ],
)
def test_radii_that_are_none_are_refused(command, files, radii, message):
    code, _, err = command("bounds", *files, *(part for radius in radii for part in ("--radius", radius)))
    assert code == 2 and message in " ".join(err.split())


class Leaves(torch.nn.Module):
    """Takes values out of torch and brings them back."""

    def __init__(self, way):
        super().__init__()
        self.l, self.way = torch.nn.Linear(4, 3), way

    def forward(self, x):
        return self.l(x * 0.1 + self.way(x))


@pytest.mark.parametrize(
    "way",
    [
        lambda x: torch.tensor(x.tolist()), lambda x: torch.from_numpy(x.numpy() * 2), lambda x: x.data,
        lambda x: torch.from_numpy(np.asarray(x.detach()) * 2), lambda x: torch.tensor(x.detach().cpu().tolist()),
    ],
    ids=["tolist", "numpy", "data", "asarray", "detached"],
)  # fmt: skip
def test_values_that_leave_the_network_are_refused(way):
    x = torch.randn(3, 4)
    with pytest.raises(
        simulator.InputError, match=r"bounds: values leave the network by \w+, where no bound follows them"
    ):
        bounds.certify(Leaves(way).eval(), (x - 0.1, x + 0.1))


class Halves(torch.nn.Module):
    def __init__(self, of):
        super().__init__()
        self.l, self.of = torch.nn.Linear(2, 2), of
        self.register_buffer("c", torch.tensor(0.1003))

    def forward(self, x, i):
        return self.l(self.of(self, x, i).float())


@pytest.mark.parametrize(
    "of",
    [
        lambda net, x, i: torch.where(i > 0, x.bfloat16(), net.c),
        lambda net, x, i: torch.where(i > 0, x.half(), 0.1003),
        lambda net, x, i: nn.functional.pad(x.half()[:, :1], (0, 1), value=0.1003),
    ],
    ids=["constant", "number", "padding"],
)
def test_what_becomes_half_precision_on_the_way_is_refused(of):
    with pytest.raises(simulator.InputError, match="computes in half precision: no rule"):
        bounds.certify(Halves(of).eval(), {"x": torch.zeros(1, 2), "i": torch.zeros(1, 2, dtype=torch.long)})


class Ids(torch.nn.Module):
    def __init__(self, of):
        super().__init__()
        self.l, self.of = torch.nn.Linear(4, 3), of

    def forward(self, x, ids):
        return self.l(self.of(x, ids))


@pytest.mark.parametrize(
    "of",
    [lambda x, ids: x + torch.arange(4), lambda x, ids: x * torch.full_like(ids, 3), lambda x, ids: x * (ids > 1)],
    ids=["positions", "like ids", "mask"],
)
def test_certificates_with_integers_beside_floats_are_followed(of, tmp_path):
    x, ids = torch.randn(3, 4), torch.tensor([[0, 1, 2, 3]] * 3)
    found = bounds.certify(Ids(of).eval(), {"x": x, "ids": ids})
    assert check_file(str(found.save(tmp_path / "p.json"))).ok


@pytest.mark.parametrize(
    "of",
    [
        lambda x, ids: x * ((ids > 0) + (ids > 1)), lambda x, ids: x * ~ids,
        lambda x, ids: x * torch.add(ids, ids, alpha=2),
    ],
    ids=["sum of decisions", "not of integers", "alpha"],
)  # fmt: skip
def test_integers_that_are_not_what_an_operation_is_called_are_refused(of):
    x, ids = torch.randn(3, 4), torch.tensor([[0, 1, 2, 3]] * 3)
    with pytest.raises(simulator.InputError, match="in this way: no rule; expected sums without alpha"):
        bounds.certify(Ids(of).eval(), {"x": x, "ids": ids})


def test_bits_read_as_another_type_are_refused():
    x, ids = torch.randn(3, 4), torch.tensor([[0, 1, 2, 3]] * 3)
    with pytest.raises(simulator.InputError, match="view reads the bits of values as another type"):
        bounds.certify(Ids(lambda x, ids: x + ids.view(torch.float64).float()).eval(), {"x": x, "ids": ids})


def test_a_later_sample_that_does_not_fit_is_one_message():
    class Looks(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.e = torch.nn.Embedding(10, 3)

        def forward(self, ids):
            return self.e(ids)[:, 0]

    with pytest.raises(
        simulator.InputError, match=r"bounds: the network Looks fails \(e, .*IndexError.*expected samples"
    ):
        bounds.certify(Looks().eval(), {"ids": torch.tensor([[1], [2], [12]])})
