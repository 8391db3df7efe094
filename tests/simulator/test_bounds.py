"""Bounds of networks: the computed outputs of the engine keep to them, and so do margins."""

import contextlib
import copy
import io
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")

import simulator  # noqa: E402  (needs torch)
from simulator import bounds  # noqa: E402
from simulator.__main__ import app  # noqa: E402
from simulator.bounds import subject, unary  # noqa: E402
from simulator.bounds.graph import record  # noqa: E402
from simulator.commands import bounds as command  # noqa: E402
from simulator.network import bundled, vector  # noqa: E402
from simulator.report.bounds import render_bounds  # noqa: E402
from tests.oracles.networks import Function  # noqa: E402

ROOT = Path(__file__).parents[2]
UNITS = [
    "fma(fp16)", "seq(bf16)", "chunk(32, fma(fp16), seq(fp16))", "tree(fp16)", "exact(fp16)", "late(seq(fp16))",
    "interleave(4, fma(fp16), seq(fp16))", "h100.fp16", "fp16 -> fma(fp16/rz)", "bf16 -> fma(fp32) -> bf16",
    "fma(fp16/sr)", "reverse(16, seq(fp16))", "fixed(32, 16, sat)", "fma(fp16, 4)",
]  # fmt: skip


@pytest.mark.parametrize("mac", UNITS)
@pytest.mark.parametrize("name", ["cnn", "mlp_tanh"])
def test_what_the_engine_computes_keeps_to_the_bounds(name, mac):
    model, (x, _) = bundled.load(name), bundled.digits()
    x = x[:3]
    exact = copy.deepcopy(model).double()(x.double()).detach().numpy()
    with torch.no_grad(), simulator.emulate(model, "npu", layers={"*": mac}) as run:
        computed = run.model(x).double().numpy()
    at = np.arange(len(x))
    for method in bounds.METHODS:
        found = bounds.certify(model, x, mac=mac, methods=(method,))
        assert (np.abs(computed - exact) <= found.logit_bounds).all()
        assert (found.top == exact.argmax(1)).all()
        changed = np.abs((computed - exact)[at, found.top][:, None] - (computed - exact))
        assert (changed <= found.bounds).all() and (found.bounds[at, found.top] == 0).all()
        ahead = exact[at, found.top][:, None] - exact
        others = np.arange(exact.shape[1]) != found.top[:, None]
        assert (found.margins <= ahead + 1e-9)[others].all()
        assert np.isfinite(found.bound).all() and (found.bound > 0).all()
        closest = np.where(others, found.margins - found.bounds, np.inf)
        assert (closest.min(1) == found.margin - found.bound).all()
        assert (computed.argmax(1) == found.top)[found.certified].all()


def test_an_operation_without_a_rule_is_refused_by_name():
    class Sines(torch.nn.Module):
        def forward(self, x):
            return torch.cumsum(torch.sin(x), 1)

    with pytest.raises(simulator.InputError, match=r"no rule for sin in Sines, cumsum in Sines"):
        bounds.certify(Sines().eval(), torch.zeros(2, 3))


def _low_rank():
    model = torch.nn.Module()
    model.a, model.b = torch.nn.Parameter(torch.randn(4, 8)), torch.nn.Parameter(torch.randn(8, 3))
    model.forward = lambda x: x @ (model.a @ model.b)
    return model


def _scaled(in_place):
    model = torch.nn.Linear(4, 3)
    model.gain = torch.nn.Parameter(torch.randn(3, 1))

    def forward(x):
        if in_place:  # into a part of what the graph reads
            weight = torch.zeros(3, 4)
            weight[:, 1:] = model.weight[:, 1:] * model.gain
        else:
            weight = (model.weight * model.gain).t().contiguous().t()
        return torch.nn.functional.linear(x, weight)

    model.forward = forward
    return model


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_low_rank, "mm makes a constant out of others, and rounds: no rule"),
        (lambda: _scaled(in_place=False), "Linear: mul makes a constant"),
        (lambda: _scaled(in_place=True), "Linear: mul makes a constant"),
        (
            lambda: torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 3)),
            "parametrizations.weight.*: _weight_norm_interface makes a constant",
        ),
    ],
)
def test_a_constant_that_is_computed_of_weights_is_refused(make, message):
    """Its roundings are those of no value of the graph: on fp16 they alone exceeded the bounds of the others."""
    with pytest.raises(simulator.InputError, match=message):
        bounds.certify(make().eval(), torch.zeros(2, 4))


def test_a_constant_that_is_moved_or_stored_is_exact():
    class Moved(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w, self.narrow = torch.nn.Parameter(torch.randn(4, 6)), torch.nn.Parameter(torch.ones(6).half())

        def forward(self, x):
            places = torch.arange(6) + 0  # whole numbers are exact
            return x @ torch.cat([self.w.t()[:3], self.w.flip(0).t()[3:]])[places] + self.narrow.float()[:4]

    model, x = Moved().eval(), torch.randn(2, 6)
    found = bounds.certify(model, x, mac="fma(fp32)")
    exact = copy.deepcopy(model).double()(x.double()).detach().numpy()
    assert (np.abs(model(x).double().detach().numpy() - exact) <= found.logit_bounds).all()
    plain = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(6, 3))
    torch.nn.utils.parametrize.remove_parametrizations(plain, "weight")
    assert bounds.certify(plain.eval(), x).certified.all()


@pytest.mark.parametrize("layer", [torch.nn.BatchNorm1d, torch.nn.LayerNorm])
def test_constants_that_are_trained_are_read_by_a_narrow_vector_unit(layer):
    machine = simulator.load_hardware("npu")
    machine = replace(machine, vector_unit=replace(machine.vector_unit, format=vector.unit("bf16")))
    model, x = torch.nn.Sequential(torch.nn.Linear(6, 6), layer(6)).eval(), torch.randn(2, 6)
    torch.nn.init.normal_(model[1].weight)
    exact = copy.deepcopy(model).double()(x.double()).detach().numpy()
    with torch.no_grad(), simulator.emulate(model, machine, layers={"*": "high"}) as run:
        computed = run.model(x).double().numpy()
    assert model[1].weight.requires_grad
    found = bounds.certify(model, x, mac=machine, mode="high")
    assert (np.abs(computed - exact) <= found.logit_bounds).all() and np.isfinite(found.logit_bounds).all()


@pytest.mark.parametrize("layer", [torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN])
def test_recurrent_layers_are_refused_as_such(layer):
    model = Function(lambda x: recurrent(x)[0][:, -1])
    model.recurrent = recurrent = layer(4, 3, batch_first=True)
    with pytest.raises(simulator.InputError, match=f"recurrent: {layer.__name__}: recurrent layers have no rule"):
        bounds.certify(model.eval(), torch.zeros(2, 5, 4))


def test_a_normalisation_by_its_own_inputs_is_refused_as_such():
    model = torch.nn.Sequential(torch.nn.InstanceNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 3)).eval()
    with pytest.raises(
        simulator.InputError, match=r"0: mean and variance are taken of what is normalised.* or an instance"
    ):
        bounds.certify(model, torch.zeros(2, 1, 2, 2))


def test_more_bits_certify_more_and_enough_are_found():
    model, (x, _) = bundled.load("mlp"), bundled.digits()
    shares = [bounds.certify(model, x[:12], precision=bits).certified.sum() for bits in (8, 12, 16, 20)]
    assert shares == sorted(shares) and shares[0] < shares[-1] == 12
    found = bounds.required_precision(model, x[:12])
    for bits in np.unique(found.bits):
        at = found.bits == bits
        assert bounds.certify(model, x[:12][at], precision=int(bits)).certified.all()
        assert not bounds.certify(model, x[:12][at], precision=int(bits) - 1).certified.any()


def test_boxes_hold_for_every_point_of_them():
    model, (x, _) = bundled.load("cnn"), bundled.digits()
    x, radius = x[:4], 1e-3
    found = bounds.certify(model, (x - radius, x + radius), precision=30)
    points = bounds.certify(model, x, precision=30)
    assert (found.range_effect > 0).all() and (points.range_effect < 1e-6).all()
    assert (found.margin < points.margin).all() and found.certified.any()
    moved = x + radius * torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)).mul(2).sub(1)
    exact = copy.deepcopy(model).double()(moved.double()).detach().numpy()
    assert (exact.argmax(1) == found.top)[found.certified].all()


def test_a_machine_in_each_of_its_modes():
    model, (x, _) = bundled.load("mlp"), bundled.digits()
    machine, x = simulator.load_hardware("npu"), x[:3]
    exact = copy.deepcopy(model).double()(x.double()).detach().numpy()
    for mode in ("low", "high", "two_pass"):
        found = bounds.certify(model, x, mac=machine, mode=mode, every=True)
        with torch.no_grad(), simulator.emulate(model, machine, layers={"*": mode}) as run:
            computed = run.model(x).double().numpy()
        assert (np.abs(computed - exact) <= found.logit_bounds).all()
        assert found.unit == f"npu, {mode}"
        assert np.isinf(found.logit_bounds).all() == (mode != "high")  # sums in fp8 may saturate


@pytest.mark.parametrize("name", ["cnn", "mlp_tanh", "transformer"])
def test_a_machine_with_a_narrow_vector_unit(name):
    """Also of operations that have outputs besides, which nothing reads."""
    machine = simulator.load_hardware("npu")
    machine = replace(machine, vector_unit=replace(machine.vector_unit, format=vector.unit("bf16")))
    model, (x, _) = bundled.load(name), bundled.digits()
    exact = copy.deepcopy(model).double()(x[:2].double()).detach().numpy()
    with torch.no_grad(), simulator.emulate(model, machine, layers={"*": "high"}) as run:
        computed = run.model(x[:2]).double().numpy()
    found = bounds.certify(model, x[:2], mac=machine, mode="high", methods=("forward",))
    assert (np.abs(computed - exact) <= found.logit_bounds).all()
    assert np.isfinite(found.logit_bounds).all() == (name != "transformer")


def test_an_output_that_is_surely_flagged_has_the_bound_of_the_high_mac(tmp_path):
    """With an infinite largest value in the way of none: half precision, then single."""
    text = """
array: {rows: 8, columns: 8}
mac:
  low: {operands: fp16, accumulator: fma(fp16), rate: 2 MAC/cycle}
  high: {operands: fp16, accumulator: fma(fp32)}
policy: {tolerance: 0.05}
"""
    (tmp_path / "m.yaml").write_text(text)
    machine = simulator.load_hardware(tmp_path / "m.yaml")
    model = torch.nn.Sequential(torch.nn.Linear(16, 4)).eval()
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    low, high, both = (
        bounds.certify(model, x, mac=machine, mode=mode, methods=("forward",)).logit_bounds
        for mode in ("low", "high", "two_pass")
    )
    assert (np.abs(model.double()(x.double()).detach().numpy()) < 10).all()  # kappa' is above 0.05 wherever |v| < 20
    assert (both == high).all() and (high < low).all()


def test_statistical_bounds_say_so_and_are_smaller_than_the_worst_case():
    model, (x, _) = bundled.load("mlp"), bundled.digits()
    proved = bounds.certify(model, x[:4], precision=20, methods=("forward",))
    found = bounds.certify(model, x[:4], precision=20, methods=("forward",), failure=1e-6)
    assert (found.bound < proved.bound).all() and "statistical, 1e-06" in found.unit


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mac": "kahan(fp16)"}, r"kahan\(fp16\): no rule bounds its error"),
        ({"mac": "fma(posit16)"}, "posit16: its roundings have no relative bound"),
        ({"mac": "mxfp8_e4m3 -> fma(fp32)"}, "whose values share scales: no rule"),
        ({"mac": "fma(fp16"}, "bounds: mac: "),
        ({"precision": 1}, "precision: got 1; expected whole significand bits from 2 to 53"),
        ({"methods": ("guess",)}, r"methods: got \['guess'\]; expected some of forward"),
        ({"methods": "adjoint"}, r"methods: got \['adjoint'\]; expected some of forward.*, as a tuple"),
        ({"failure": 2.0}, "failure: got 2.0; expected a probability"),
        ({"failure": "0.1"}, "failure: got '0.1'; expected a probability"),
        ({"failure": 0.1, "methods": ("adjoint, running sums",)}, "methods of running sums alone"),
        ({"mac": 3}, "mac: got int; expected a MAC, a machine or None"),
        ({"mode": "zzz"}, "mode: got 'zzz' without a machine"),
        ({"mode": "high", "mac": "fma(fp16)"}, "mode: got 'high' without a machine"),
    ],
)
def test_what_cannot_be_bounded_is_refused(settings, message):
    model, (x, _) = bundled.load("mlp"), bundled.digits()
    with pytest.raises(simulator.InputError, match=message):
        bounds.certify(model, x[:2], **settings)


def test_inputs_and_models_that_do_not_fit_are_refused():
    model, (x, _) = bundled.load("mlp"), bundled.digits()
    for given, message in (
        ((x[:2], x[:3]), "x: got shapes"),
        (x[:2].to(torch.complex64), "expected real numbers of one type"),
        ((x[:2], x[:2].double()), "expected real numbers of one type"),
        (x[:2].flatten(1)[:, :-1], r"x of shape \(N, 783\) and float32 does not fit the network"),
        (torch.ones(2, 1, 28, 28, dtype=torch.int64), "int64 does not fit the network"),
        ((x[:2],) * 3, "x: got 3 values; expected samples"),
        ("digits", "x: got no array of numbers"),
        (x[:2].double() * 1e300, "x: got values that torch.float32, the type of the weights, does not hold"),
        ((x[:2] + 1, x[:2]), "a lower end above the upper one"),
        (x[:2] * float("nan"), "an end that is not finite"),
    ):
        with pytest.raises(simulator.InputError, match=message):
            bounds.certify(model, given)
    with pytest.raises(simulator.InputError, match=r"model: got str; expected a torch\.nn\.Module"):
        bounds.certify("mlp", x[:2])
    with pytest.raises(simulator.InputError, match="weight: got a weight without a shape"):
        bounds.certify(torch.nn.LazyLinear(3).eval(), x[:2])
    holed = bundled.load("mlp")
    next(holed.parameters()).data[0] = float("nan")
    with pytest.raises(simulator.InputError, match="got a NaN among the weights"):
        bounds.certify(holed, x[:2])
    with pytest.raises(simulator.InputError, match="in training mode"):
        bounds.certify(bundled.load("mlp").train(), x[:2])
    with pytest.raises(simulator.InputError, match="npu folds batch normalisations"):
        folding = replace(simulator.load_hardware("npu"), fold_batch_norm=True)
        bounds.certify(model, x[:2], mac=folding)
    with pytest.raises(simulator.InputError, match=r"confidence: got 0\.3"):
        bounds.required_precision(model, x[:1], confidence=0.3)


def test_arrays_of_any_float_are_samples_and_boxes_are_rounded_outward():
    model, (x, _) = bundled.load("mlp"), bundled.digits()
    plain = bounds.certify(model, x[:2], precision=np.int64(20))
    assert plain.bits == 20 and type(plain.bits) is int
    for given in (x[:2].double().numpy(), x[:2].tolist(), x[:2].numpy()):
        assert bounds.certify(model, given, precision=20).bound.tolist() == plain.bound.tolist()
    ends = x[:2].double() + 1e-12, x[:2].double() + 2e-12
    lo, hi = subject.boxes(model, ends).named()["x"]
    assert lo.dtype is hi.dtype is torch.float32 and not (lo == hi).any()
    assert (lo.double() <= ends[0]).all() and (ends[1] <= hi.double()).all()


def test_whole_numbers_stay_whole():
    model = torch.nn.Sequential(
        Function(lambda x: x.float() if x.dtype is torch.int64 else x[:0]), torch.nn.Linear(2, 3)
    )
    x = torch.tensor([[0, 1], [4, 2]])
    found = bounds.certify(model.eval(), x.numpy(), precision=30)
    assert found.certified.all() and found.top.tolist() == model(x).argmax(1).tolist()


def test_shares_of_samples_that_are_none_are_refused():
    model, (x, _) = bundled.load("mlp"), bundled.digits()
    found = bounds.required_precision(model, x[:1])
    for share in (2.0, -1.0, "all"):
        with pytest.raises(simulator.InputError, match=r"quantiles: got .*; expected shares from 0 to 1"):
            found.quantiles((share,))
    with pytest.raises(simulator.InputError, match="mac: got a machine"):
        bounds.required_precision(model, x[:1], mac=simulator.load_hardware("npu"))


def test_a_certificate_is_saved_of_what_was_certified(tmp_path):
    model, (x, _) = bundled.load("cnn"), bundled.digits()
    found = bounds.certify(model, x[:2], precision=20, methods=("forward", "adjoint"))
    record = json.loads(found.save(tmp_path / "c.json").read_text())
    assert record["claim"]["certified"] == found.certified.tolist() and record["claim"]["method"] in found.method
    assert record["claim"]["top"] == found.top.tolist() and not list(tmp_path.glob("*.partial"))
    with pytest.raises(simulator.InputError, match="cannot be written"):
        found.save(tmp_path / "nowhere" / "c.json")
    with pytest.raises(simulator.InputError, match="got statistical bounds"):
        bounds.certify(model, x[:1], precision=20, failure=1e-3).save(tmp_path / "s.json")


def test_the_command_shows_and_writes_what_it_proves(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "simulator", "bounds", *words], cwd=tmp_path, env=environment, capture_output=True,
            text=True,
        )  # fmt: skip

    done = run("--precision", "24", "--samples", "4", "--out", "proofs", "--certificate", "c.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "mlp on seq(fp32), 24 significand bits, 4 samples\ncertified 100.0 %, certified and right"
    )
    assert "Results in c.json, proofs/bounds.json, proofs/bounds.html" in " ".join(done.stdout.split())
    assert json.loads((tmp_path / "c.json").read_text())["claim"]["certified"] == [True] * 4
    record = json.loads((tmp_path / "proofs" / "bounds.json").read_text())
    assert record["guarantee"] == "proved" and record["certified_share"] == 1.0 and len(record["samples"]) == 4
    assert "Error bounds: mlp" in (tmp_path / "proofs" / "bounds.html").read_text()
    found = json.loads(run("--required", "--samples", "3", "--confidence", "0.6", "--json").stdout)
    assert (
        8 < max(found["required_precision"]["bits"]) < 20 and len(found["required_precision"]["confidence_bits"]) == 3
    )
    assert next(iter(found["contributions"])) == "fc1"
    refused = run("--hw", "npu", "--precision", "3")
    assert refused.returncode == 2 and "ulpsim: error: bounds: --hw: got it beside" in refused.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--mode", "high"), "--mode: got high without --hw"),
        (("--confidence", "0.6"), "--confidence: got it without --required"),
        (("--certificate", "c.json", "--failure", "0.1"), "--certificate: got it beside --failure"),
        (("--certificate", ""), "got no name; expected the name of a file"),
        (("--certificate", "."), "found the directory"),
        (("--certificate", "nowhere/c.json"), "nowhere is no directory"),
        (("--out", "file"), "file is a file; expected a directory"),
        (("--out", "file/below"), "file is a file; expected a directory"),
        (("--out", ""), "got no name; expected that of a directory"),
    ],
)
def test_options_are_refused_before_anything_is_computed(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr("simulator.commands.bounds.run", None)  # would be a fault, with exit code 1
    done = CliRunner().invoke(app, ["bounds", *options])
    assert isinstance(done.exception, simulator.InputError) or done.exit_code == 2
    assert message in f"{done.exception} {done.output}"
    assert (tmp_path / "file").read_text() == "kept" and len(list(tmp_path.iterdir())) == 1


def test_what_is_not_proved_is_said(tmp_path):
    """Of two samples one ties, so that no bits are proved for it; and of no sample a bound is finite."""
    certified = bounds.certify(torch.nn.Linear(1, 2).eval(), torch.ones(2, 1), precision=20, methods=("forward",))
    certified = replace(
        certified, certified=np.array([True, False]), margin=np.array([1.0, 0.0]), bound=np.array([0.5, 0.5])
    )
    bits = np.array([12, 0])
    found = command.Proved("m", certified, bounds.RequiredPrecision(bits, bits, certified, "u"), None, False)
    record = found.to_dict()
    assert record["methods"] == {"forward": 1, "none sufficed": 1}
    assert record["required_precision"]["confidence_quantiles"] == {"0.5": 12, "0.9": None, "0.99": None, "1": None}
    page = render_bounds(record)
    assert "not shown: 1 sample without a finite bound or a margin above 0" in page
    assert '<th scope="row"><span class="name">12</span></th><td>1</td>' in page  # one sample, as the bars have it
    assert "none sufficed" in page and page.count("not proved") == 6
    shown = _shown(found)
    assert "suffice for the confidence: 50.0 % of the samples 12, 90.0 % of the samples not proved" in shown
    assert "None is certified" not in shown and "none sufficed" in shown
    none = replace(certified, certified=np.zeros(2, bool))
    assert "None is certified: the bounds are above the margins." in _shown(
        command.Proved("m", none, None, None, False)
    )
    over = replace(none, bound=np.full(2, np.inf))
    assert "no bound is finite, as a state may overflow" in _shown(command.Proved("m", over, None, None, False))


def _shown(found):
    """Return what the command prints, its lines joined."""
    with contextlib.redirect_stdout(io.StringIO()) as text:
        command.show(found, [], json=False)
    return " ".join(text.getvalue().split())


def test_a_value_that_is_exactly_zero_may_be_computed_otherwise():
    """-2048 - 1 + 2048.5 is -0.5, and 0.5 in fp16: what a ReLU makes of it is 0, and 0.5."""
    first, second = torch.nn.Linear(3, 1, bias=False), torch.nn.Linear(1, 2, bias=False)
    first.weight.data[:] = 1.0
    second.weight.data[:] = torch.tensor([[1.0], [-1.0]])
    model = torch.nn.Sequential(first, torch.nn.ReLU(), second).eval()
    x = torch.tensor([[-2048.0, -1.0, 2048.5]])
    with torch.no_grad(), simulator.emulate(model, "npu", layers={"*": "fma(fp16)"}) as run:
        computed = run.model(x).double().numpy()
    assert computed.tolist() == [[0.5, -0.5]]
    for method in bounds.METHODS:
        found = bounds.certify(model, x, mac="fma(fp16)", methods=(method,))
        assert (np.abs(computed) <= found.logit_bounds).all() and not found.certified.any()
        assert found.bound[0] >= 1.0


def test_the_slope_of_a_leaky_relu_is_the_number_in_the_code():
    """0.01, not the float32 next to it."""
    lo = torch.tensor([-2.0, -1.0, 3.0], dtype=torch.float64)
    model = torch.nn.LeakyReLU().eval()
    x = (lo - 1.0)[None], lo[None]
    node = record(model, x[0]).nodes[0]
    slope = unary.RULES["leaky_relu"].slope(*x, node)
    assert slope[0].tolist() == [[0.01, 0.01, 1.0]] and slope[1].tolist() == [[0.01, 0.01, 1.0]]


def _float64_products(weights, x):
    """Return products in float64, one addition after the other, and how far they are off."""
    computed, off = np.zeros((len(x), len(weights))), np.zeros((len(x), len(weights)))
    for i, j in np.ndindex(*computed.shape):
        for a, b in zip(x[i].tolist(), weights[j].tolist(), strict=True):
            computed[i, j] += a * b
        exact = sum(Fraction(a) * Fraction(b) for a, b in zip(x[i].tolist(), weights[j].tolist(), strict=True))
        off[i, j] = abs(Fraction(computed[i, j]) - exact)
    return computed, off


@pytest.mark.parametrize("mac", ["seq(fp64)", "chunk(8, seq(fp64), seq(fp64))"])
def test_bounds_hold_with_as_many_bits_as_the_analysis_itself_has(mac):
    model = torch.nn.Linear(32, 2, bias=False).double().eval()
    x = torch.randn(20, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, off = _float64_products(model.weight.detach(), x)
    found = bounds.certify(model, x, mac=mac, precision=53, methods=("forward",))
    assert (found.logit_bounds >= 4e-16).all()
    if mac == "seq(fp64)":
        assert (off <= found.logit_bounds).all() and off.max() > 0


def test_a_product_that_overflows_has_no_bound_though_the_sums_are_in_range():
    model = torch.nn.Linear(2, 2, bias=False).eval()
    model.weight.data = torch.tensor([[-200.0, 500.0], [0.0, 0.0]])
    x = torch.tensor([[300.0, 200.0]])  # -60000 + 100000
    for method in bounds.METHODS:
        found = bounds.certify(model, x, mac="seq(fp16)", methods=(method,))
        assert np.isinf(found.logit_bounds[0, 0]) and not found.certified[0]


def test_the_rounding_of_a_number_in_the_code_counts_for_margins():
    class Scaled(torch.nn.Module):
        def forward(self, x):
            return x * 0.7

    drawn = np.random.default_rng(0).integers(2**23, 2**24, (4000, 2)) * [2.0**-20, -(2.0**-20)]
    x = torch.from_numpy(drawn).float()
    off = (x * 0.7).double().numpy() - x.double().numpy() * 0.7
    found = bounds.certify(Scaled().eval(), x, mac="fma(fp32)", methods=("adjoint",))
    assert (np.abs(off[:, 0] - off[:, 1]) <= found.bound).all()


def test_the_ends_of_a_clamp_are_rounded_where_float32_does_not_hold_them():
    model, x = torch.nn.Hardtanh(-0.1, 0.5).eval(), torch.tensor([[5.0, -5.0]])
    off = np.abs(model(x).double().numpy() - [[0.5, -0.1]])
    found = bounds.certify(model, x, methods=("adjoint",))
    assert (off <= found.logit_bounds).all() and off[0, 1] > 0
    assert found.logit_bounds[0, 0] < 1e-300 and found.bound[0] >= off[0, 1]


def test_zero_times_what_overflowed_has_no_bound():
    class Masked(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(2, 2, bias=False)
            self.linear.weight.data[:] = 300.0
            self.mask = torch.nn.Parameter(torch.tensor([0.0, 1.0]))

        def forward(self, x):
            return self.linear(x) * self.mask

    found = bounds.certify(Masked().eval(), torch.tensor([[300.0, 300.0]]), mac="fma(fp16)")
    assert np.isinf(found.logit_bounds).all() and not found.certified.any()


class _Sequence(torch.nn.Module):
    """A layer of torch's transformer, in which the samples are not along the first axis of every value."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.last = torch.nn.TransformerEncoderLayer(8, 2, 12, batch_first=True), torch.nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.layer(x).mean(1))


def test_samples_have_the_same_bounds_together_as_alone_wherever_they_lie():
    model, x = _Sequence().eval(), torch.randn(5, 3, 8, generator=torch.Generator().manual_seed(1))
    x *= torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0])[:, None, None]
    together = bounds.certify(model, x, precision=20, methods=("adjoint",))
    alone = [bounds.certify(model, x[i : i + 1], precision=20, methods=("adjoint",)) for i in range(5)]
    assert together.bound == pytest.approx(np.concatenate([one.bound for one in alone]), rel=1e-6)
    assert len(set(together.bound.tolist())) == 5


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x - x.mean(0), "mean mixes samples; expected operations on each sample alone"),
        (lambda x: torch.cat([x[:1], x[:-1]]) + x, "add mixes samples"),
        (lambda x: x.flip(0), "the rows of the output are not the samples in their order"),
    ],
)
@pytest.mark.parametrize("method", bounds.METHODS)
def test_a_network_that_mixes_samples_is_refused_whatever_the_method(function, message, method):
    """Its answers are those of one batch, and samples are analysed some at a time."""
    model, x = Function(function).eval(), torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    with pytest.raises(simulator.InputError, match=message):
        bounds.certify(model, x, methods=(method,))


@pytest.mark.parametrize("method", bounds.METHODS)
def test_an_output_of_other_rows_than_samples_is_refused(method):
    for function in (lambda x: x.reshape(-1, 2), lambda x: x.reshape(3, 2, 2), lambda x: x[:2]):
        with pytest.raises(simulator.InputError, match="shape"):
            bounds.certify(Function(function).eval(), torch.ones(3, 4), methods=(method,))


@pytest.mark.parametrize("method", bounds.METHODS)
def test_sums_of_no_products_are_their_addend(method):
    model = torch.nn.Linear(1, 3).eval()
    model.weight.data, model.bias.data = torch.zeros(3, 0), torch.tensor([1.0, 2.0, 3.0])
    found = bounds.certify(model, torch.zeros(1, 0), methods=(method,))
    assert found.certified.all() and found.logits.tolist() == [[1.0, 2.0, 3.0]]
    none = Function(lambda x: x[:, :0].sum(1, keepdim=True) + torch.tensor([1.0, 2.0, 3.0]))
    with pytest.raises(simulator.InputError, match="sum gives values that depend on no sample"):
        bounds.certify(none.eval(), torch.zeros(2, 4), methods=(method,))


def test_what_a_sample_multiplies_by_zero_belongs_to_it():
    """The products of 0 count as dependences, and what infinities and roots would make of other samples does not."""
    weight = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    model = Function(lambda x: torch.log(torch.relu(x)) @ weight + torch.sqrt(x) @ weight).eval()
    x = torch.rand(3, 2, generator=torch.Generator().manual_seed(1)) + 0.5
    together = bounds.certify(model, x, precision=20, methods=("adjoint",)).bound
    alone = [bounds.certify(model, x[i : i + 1], precision=20, methods=("adjoint",)).bound[0] for i in range(3)]
    assert together == pytest.approx(alone, rel=1e-6)


def test_a_matrix_times_a_vector_is_bounded_by_its_partial_sums_too():
    vector_of = torch.tensor([1.0, -1.0, 0.5, 0.25])
    other = vector_of + 1
    model = Function(lambda x: torch.stack([torch.mv(x, vector_of), torch.mv(x, other)], 1)).eval()
    x = torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    plain, running = (
        bounds.certify(model, x, precision=12, methods=(name,)).logit_bounds
        for name in ("forward", "forward, running sums")
    )
    assert (running < plain).all() and (running > 0).all()


def test_squares_whose_computed_sum_may_overflow_give_no_bound():
    """Their exact sum is just below the largest value, n of them."""
    largest, n = float(np.finfo(np.float32).max), 4
    for factor, finite in ((1 - 2.0**-23, False), (0.99, True)):
        x = torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=torch.float64) * math.sqrt(largest / n) * factor
        x = x.float()
        assert float(x.double().square().sum()) < largest
        found = bounds.certify(Function(torch.nn.LayerNorm(n)).eval(), x, methods=("forward",))
        assert np.isfinite(found.logit_bounds).all() == finite
