"""Laws of rounded weights, forward and backward: their constants, random ReLU networks against them, and the study."""

import json
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

import formats  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.studies.laws import TRAINED, laws_study  # noqa: E402
from simulator.training.errors import at_initialisation, errors, random_network  # noqa: E402
from simulator.training.laws import C2, C3, flip_probability, forward_error, gradient_error  # noqa: E402
from simulator.training.predict import Prediction, harmless_noise  # noqa: E402
from simulator.training.updates import C1, UpdateCounts  # noqa: E402

DEPTHS = (1, 2, 4, 8, 16, 32)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_constants_are_moments_of_the_relative_error_of_log_uniform_significands():
    """Drawn: 2^u has a significand spread as 1/s; its relative error at 12 bits, cut and to nearest."""
    x = np.exp2(np.random.default_rng(0).random(1 << 20))
    lost, missed = ((x - formats.get("e8m12").quantize(x, rounding=r)) / x * 2**12 for r in ("rz", "rne"))
    assert lost.mean() == pytest.approx(C1, rel=0.005) and lost.std() == pytest.approx(C2, rel=0.005)
    assert missed.std() == pytest.approx(C3, rel=0.005) and abs(missed.mean()) < 0.001


@pytest.mark.parametrize(
    ("predicted", "reference", "digit"),
    [
        ([1024 * forward_error("rz", 10, depth) for depth in DEPTHS], [0.42, 0.79, 1.51, 2.95, 5.84, 11.6], 0.01),
        ([1024 * forward_error("rne", 10, depth) for depth in DEPTHS], [0.21, 0.30, 0.42, 0.60, 0.85, 1.20], 0.01),
        ([gradient_error("rz", 6, depth) for depth in (4, 8, 16, 32)], [0.117, 0.191, 0.315, 0.524], 0.001),
        ([gradient_error("rz", 8, depth) for depth in (4, 8, 16, 32)], [0.059, 0.095, 0.157, 0.262], 0.001),
    ],
)  # fmt: skip
def test_formulas_give_the_figures_of_the_specification(predicted, reference, digit):
    assert predicted == pytest.approx(reference, rel=0.001, abs=0.51 * digit)
    assert forward_error("sr", 10, 8) == pytest.approx(math.sqrt(2) * forward_error("rne", 10, 8))


def test_errors_are_those_of_a_network_written_out():
    """Two layers: outputs, the gradient by hand, masks, each of the network and of its rounded copy."""
    model, x = random_network(2, 16, seed=3), torch.randn((5, 16), dtype=torch.float64)
    found = errors(model, x, "rz", 3, seed=7)
    given = torch.from_numpy(np.random.default_rng((7, 2)).standard_normal((5, 16)))

    def run(w1, w2):
        a1 = (x @ w1.T).clamp(min=0)
        a2 = (a1 @ w2.T).clamp(min=0)
        return a2, (((given * (a2 > 0)) @ w2) * (a1 > 0)) @ w1, a1 > 0, a2 > 0

    weights = [p.detach() for p in model.parameters()]
    rounded = [torch.from_numpy(formats.get("e8m3").quantize(w.numpy(), rounding="rz")) for w in weights]
    (out, gradient, *masks), (out_r, gradient_r, *masks_r) = run(*weights), run(*rounded)

    def relative(true, computed):
        return float(((computed - true).norm(dim=1) / true.norm(dim=1)).square().mean().sqrt())

    assert found.forward == pytest.approx(relative(out, out_r), rel=1e-12)
    assert found.gradient == pytest.approx(relative(gradient, gradient_r), rel=1e-12)
    assert found.flips == tuple(float((a != b).double().mean()) for a, b in zip(masks, masks_r, strict=True))
    assert found.units == (80, 80) and found.forward > 0 and weights[0].equal(next(model.parameters()))


def slope(points):
    """Least squares, of y against x."""
    x, y = np.asarray(list(points.items())).T
    return float(np.polyfit(x, y, 1)[0])


def forward_laws(width, networks, samples):
    """Slope by layer of truncation from 8 layers on, and exponent of nearest up to 16, in units of 2^-10."""

    def found(rounding, depth):
        return 1024 * at_initialisation(rounding, 10, depth, width, samples=samples, networks=networks).forward

    cut = {depth: found("rz", depth) for depth in (8, 16, 32)}
    near = {math.log2(depth): math.log2(found("rne", depth)) for depth in (1, 2, 4, 8, 16)}
    return slope(cut), slope(near)


def test_truncation_adds_up_with_depth_and_nearest_with_its_root():
    linear, exponent = forward_laws(128, networks=12, samples=64)
    assert abs(linear - 0.36) <= 0.05 and abs(exponent - 0.5) <= 0.1


def test_gradients_err_with_the_root_of_the_last_place():
    """Exponent of 2^m: -1/2, of the forward error -1."""
    found = {m: at_initialisation("rz", m, 8, 128, samples=128, networks=2) for m in (4, 6, 8, 10)}
    assert abs(slope({m: math.log2(e.gradient) for m, e in found.items()}) + 0.5) <= 0.1
    assert abs(slope({m: math.log2(e.forward) for m, e in found.items()}) + 1.0) <= 0.05


@pytest.mark.full
def test_forward_laws_on_many_networks():
    linear, exponent = forward_laws(256, networks=12, samples=256)
    assert abs(linear - 0.36) <= 0.05 and abs(exponent - 0.5) <= 0.1


@pytest.mark.full
@pytest.mark.parametrize("rounding", ["rz", "rne"])
@pytest.mark.parametrize("bits", [6, 8])
@pytest.mark.parametrize("depth", [8, 16, 32])
def test_masks_flip_as_often_as_the_law_says(rounding, bits, depth):
    """Counts within 15 % on two million units and more."""
    found = at_initialisation(rounding, bits, depth, 256, samples=256, networks=8)
    assert sum(found.units) >= 10**6
    predicted = sum(flip_probability(rounding, bits, layer + 1) * count for layer, count in enumerate(found.units))
    assert abs(found.flipped / predicted - 1.0) <= 0.15


@pytest.mark.full
@pytest.mark.parametrize("rounding", ["rz", "rne", "sr"])
@pytest.mark.parametrize("depth", [8, 16])
def test_the_exponent_of_gradients_on_many_networks(rounding, depth):
    found = {m: at_initialisation(rounding, m, depth, 256, networks=4) for m in (4, 6, 8, 10, 12)}
    assert abs(slope({m: math.log2(e.gradient) for m, e in found.items()}) + 0.5) <= 0.1


def test_noise_of_stochastic_rounding_is_that_of_a_walk():
    """Updates of a quarter of a grid step, 100 times: a deviation of q sqrt(100 * 1/4 * 3/4), also when it is drawn."""
    counts = UpdateCounts()
    # |w| in [1, 2), so that m* = -log2 |d| - 1; with 4 bits q is 1/16 and d = q / 4 has m* = 5.
    place = (5 + 8) * 4
    counts.critical[place - 1] = 7  # the bin (4.75, 5]
    prediction = Prediction(counts, batches=100, lr=0.1)
    fraction = 2.0 ** (4 - 4.875 - 1)
    assert prediction.noise(4) == pytest.approx(2**-4 * math.sqrt(100 * fraction * (1 - fraction)))
    quantize, q, d = formats.get("e8m4").quantize, 2.0**-4, fraction * 2.0**-4
    w = np.full(20_000, 1.5)
    for step in range(4):  # no binade is left
        w = quantize(w + (-1) ** step * d, rounding="sr", seed=step)
    assert w.std() == pytest.approx(math.sqrt(4 / 100) * prediction.noise(4), rel=0.02)
    assert prediction.stochastic(prediction.noise(6)) == 6 and q == 2.0**-4


def test_harmless_noise_leaves_the_network_as_it_is_and_grows_with_what_may_be_lost():
    random = np.random.default_rng(0)
    centres = random.standard_normal((4, 12))
    y = torch.from_numpy(random.integers(0, 4, 400))
    x = torch.from_numpy(centres[y] + 0.3 * random.standard_normal((400, 12)))
    model = nn.Linear(12, 4, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.from_numpy(centres))
        model.bias.copy_(torch.from_numpy(-(centres**2).sum(1) / 2))
    before = [p.detach().clone() for p in model.parameters()]
    little, much = harmless_noise(model, x, y, 0.005), harmless_noise(model, x, y, 0.3)
    assert 2.0**-12 < little < much <= 1.0
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_the_study_prints_measurements_beside_the_laws(command, tmp_path, monkeypatch):
    monkeypatch.setattr("simulator.studies.laws.DEPTHS", (1, 16))
    monkeypatch.setattr("simulator.studies.laws.WIDTHS", (64,))
    code, out, err = command("study", "laws", "--no-trained", "--seeds", 1, "--out", "here")
    assert (code, err) == (0, "") and "depth 16" in out and "in here/study.json, here/study.parquet" in out
    record = json.loads((tmp_path / "here" / "study.json").read_text())
    rows = record["rows"]
    assert record["study"] == "laws"
    found = {(row["varied"], row["value"], row["rounding"]): row for row in rows}
    of_depth = found["depth", "16", "rz"]
    assert of_depth["forward_predicted"] == forward_error("rz", 8, 16)
    assert of_depth["forward"] == pytest.approx(of_depth["forward_predicted"], rel=0.15)
    assert found["activation", "tanh", "rz"]["forward_predicted"] is None
    assert found["activation", "tanh", "rz"]["forward"] > 0 and found["activation", "tanh", "rz"]["flips"] is None
    assert (tmp_path / "here" / "study.parquet").exists()
    code, out, _ = command("study", "laws", "--no-trained", "--seeds", 1, "--out", "here", "--json")
    assert code == 0 and json.loads(out)["rows"] == rows


def test_what_cannot_be_measured_is_refused(command, tmp_path):
    code, out, err = command("study", "laws", "--bits", 30)
    assert (code, out) == (2, "") and "study: --bits: got 30;" in err and not any(tmp_path.iterdir())
    with pytest.raises(InputError):
        laws_study(seeds=0)


@pytest.mark.full
def test_trained_networks_err_forward_as_the_law_says_whatever_trained_them():
    """Batch size, rate, optimiser: the coherent part of truncation is the same, within 15 %."""
    rows = [row for row in laws_study(seeds=2).found if row.networks == "trained" and row.rounding == "rz"]
    with_relu = [row for row in rows if row.forward_predicted is not None]
    assert len(rows) == len(TRAINED) and len(with_relu) == len(TRAINED) - 2
    assert all(abs(row.forward / row.forward_predicted - 1.0) <= 0.15 for row in with_relu)
