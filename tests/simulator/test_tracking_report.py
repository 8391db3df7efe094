"""Reports of tracked runs: what the tables say of runs whose bits are known, and what is written, read and compared."""

import json
import math

import pytest

torch = pytest.importorskip("torch")

import simulator  # noqa: E402
from simulator.errors import InputError  # noqa: E402
from simulator.tracking import GUARANTEES, LABELS, Report, calibrate, compare, read, track  # noqa: E402
from tests.bench import tracking as bench  # noqa: E402


def trained(steps=3, every=1, optimiser=torch.optim.SGD, lr=0.05, restart="never", **given):
    """Train a small network; return the tracker, entered no more."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    x, y = torch.randn(16, 6), torch.arange(16) % 3
    own = optimiser(model.parameters(), lr=lr)
    with track(model, every=every, restart=restart, **given) as bits:
        for _ in range(steps):
            own.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            own.step()
    return bits


@pytest.fixture(scope="module")
def bits():
    return trained()


@pytest.fixture(scope="module")
def report(bits):
    return bits.report()


def test_every_row_with_bits_has_its_label_and_what_that_guarantees(report):
    for table in ("tensors", "gradient_noise", "updates", "first_below"):
        rows = report.rows(table)
        assert rows and {row["label"] for row in rows} == set(LABELS)
        assert all(row["guarantee"] == GUARANTEES[row["label"]] for row in rows)


def test_rows_of_tensors_are_histograms_of_the_bits_that_the_tracker_reads(bits, report):
    for label in LABELS:
        for name, parameter in bits.model.named_parameters():
            of = bits.of(parameter).bits(label).flatten()
            (row,) = report.rows(label=label, kind="parameter", name=name, step=2)
            assert row["sampled"] == row["elements"] == parameter.numel() and row["most"] == 24
            assert row["counts"] == torch.bincount(of.long(), minlength=25).tolist()
            assert row["min"] == int(of.min()) and row["median"] == int(of.sort().values[(len(of) - 1) // 2])
            assert row["noise_share"] == float((of == 0).double().mean())
            of = bits.of(parameter.grad).bits(label)
            (row,) = report.rows(label=label, kind="gradient of parameter", name=name, step=2)
            assert row["counts"] == torch.bincount(of.flatten().long(), minlength=25).tolist()


def test_large_tensors_are_sampled_and_say_so():
    model = torch.nn.Linear(100, 100)
    with track(model) as bits:
        model(torch.randn(20, 100))
    (row,) = bits.report().rows(label="safe")
    assert row["elements"] == 2000 and row["sampled"] == sum(row["counts"]) == 256
    assert "sample of up to 256" in str(bits.report()).replace("\n", " ")
    assert bits.report().noise_bytes == 3 * 4 * 2000


def test_names_that_a_step_has_several_times_are_numbered(report):
    names = [(row["kind"], row["name"]) for row in report.rows(label="safe", step=0)]
    assert len(set(names)) == len(names)
    assert ("value", "0: addmm") in names and ("gradient", "2: weight gradient") in names
    assert {("gradient", "backward: sum"), ("gradient", "backward: sum #2")} <= set(names)


def test_first_below_names_the_first_row_of_the_run(bits):
    report = bits.report(bits=20)
    for row in report.rows("first_below"):
        kinds = {"values": ["value"], "gradients": ["gradient", "gradient of parameter"], "parameters": ["parameter"]}
        own = [of for of in report.rows(label=row["label"]) if of["kind"] in kinds[row["of"]]]
        below = [of for of in own if of["median"] < row["fewer_than"]]
        first = min(below, key=lambda of: (of["step"], of["order"]), default=None)
        assert (row["step"], row["name"]) == ((None, None) if first is None else (first["step"], first["name"]))
    assert any(row["step"] is not None for row in report.rows("first_below", fewer_than=20))


def test_gradients_without_a_bit_are_counted_by_elements():
    """Half of the weights see inputs of which nothing is known."""
    model = torch.nn.Linear(4, 2, bias=False)
    x = torch.ones(1, 4)
    with track(model) as bits:
        bits.declare(x, error=torch.tensor([[10.0, 10.0, 0.0, 0.0]]))
        model(x).sum().backward()
    for row in bits.report().rows("gradient_noise"):
        assert row["share"] == 0.5 and row["elements"] == row["sampled"] == 8


@pytest.mark.parametrize("foreach", [False, True])
def test_updates_below_the_noise_and_lost_ones(foreach):
    model = torch.nn.Linear(4, 1, bias=False)
    model.weight.data[:] = 1.0
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0, foreach=foreach)
    x = torch.tensor([[0.25, 2.0**-10, 2.0**-30, 0.0]])  # moves; moves within the error; too small for 1; no gradient
    with track(model) as bits:
        bits.declare(model.weight, error=torch.tensor([[0.0, 0.1, 0.0, 0.0]]))
        model(x).sum().backward()
        optimiser.step()
    for row in bits.report().rows("updates"):
        assert row["name"] == "weight" and row["sampled"] == row["elements"] == 4
        assert (row["below_noise"], row["lost"]) == (0.25, 0.25)


def test_an_error_without_bound_is_above_every_update():
    model = torch.nn.Linear(3, 1, bias=False)
    optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
    with track(model, numbers=("safe",)) as bits:
        bits.declare(model.weight, error=math.inf)
        model(torch.ones(1, 3)).sum().backward()
        optimiser.step()
    assert bits.report().rows("updates")[0]["below_noise"] == 1.0


def test_one_step_of_several_is_kept_and_all_are_timed():
    report = trained(steps=5, every=2).report()
    assert {row["step"] for row in report.tensors} == {row["step"] for row in report.updates} == {0, 2, 4}
    assert [step["step"] for step in report.steps] == [0, 1, 2, 3, 4]
    assert all(0 < step["tracking_seconds"] < step["seconds"] and step["noise_bytes"] > 0 for step in report.steps)


def test_undecided_branches_of_all_steps_are_counted_with_the_safe_number_only(bits, report):
    assert report.undecided == bits.undecided
    assert trained(numbers=("expected",)).report().undecided is None


def test_what_has_no_rule_and_what_is_read_is_in_the_report():
    model = torch.nn.Linear(3, 3)
    with pytest.warns(simulator.tracking.UntrackedOperation), track(model) as bits:
        y = model(torch.randn(2, 3)).detach()
        torch.special.bessel_j0(y)
        y[0, 0].item()
    report = bits.report()
    assert [row["operation"] for row in report.shadowed] == ["special_bessel_j0"] and report.read_as_numbers == 1
    assert "No rule: special_bessel_j0, 1 time; no safe bound" in str(report).replace("\n", " ")


def test_a_report_within_the_block_ends_with_the_step_before():
    model = torch.nn.Linear(3, 3)
    with track(model) as bits:
        assert not bits.report().tensors and "No step was kept" in str(bits.report())
        model(torch.ones(1, 3))
        model(torch.ones(1, 3))
        assert len(bits.report().steps) == 1
    assert len(bits.report().steps) == 2


def test_reports_are_written_read_and_replaced_whole(report, tmp_path):
    where = report.save(tmp_path / "bits")
    assert sorted(path.name for path in where.iterdir()) == ["bits.csv", "track.html", "track.json", "updates.csv"]
    back = read(where / "track.json")
    assert back == Report.from_dict(json.loads(json.dumps(report.to_dict())))
    assert back.tensors == report.tensors and str(back) == str(report)
    lines = (where / "bits.csv").read_text().splitlines()
    assert lines[0].startswith("step,kind,name,") and len(lines) == 1 + len(report.tensors)
    report.save(where)
    (where / "mine.txt").write_text("")
    with pytest.raises(InputError, match=r"found mine\.txt"):
        report.save(where)


def test_a_page_has_a_heat_map_for_every_label_and_escapes_names(report):
    from simulator.report.tracking import render_tracking

    record = report.to_dict()
    record = {**record, "model": "<script>", "tensors": [{**row, "name": "<b>"} for row in record["tensors"]]}
    page = render_tracking(record)
    assert (
        "<script>&" not in page
        and "&lt;script&gt;" in page
        and "<b>" not in page.split("<main ")[1].split("<script")[0]
    )
    for label, guarantee in GUARANTEES.items():
        assert f"{label} ({guarantee})" in page and f'data-figure="bits-{label}"' in page
    assert "http://" not in page.split("<main ")[1].split("<script")[0]


def test_tables_as_frames(report):
    pytest.importorskip("pandas")
    frame = report.to_frame()
    assert len(frame) == len(report.tensors) and "counts" not in frame and set(frame.label) == set(LABELS)
    with pytest.raises(InputError, match="got the table 'bits'"):
        report.to_frame("bits")


@pytest.mark.parametrize("bits_below", [0, -1, math.inf, "8"])
def test_bits_that_no_tensor_could_have_fewer_of_are_refused(bits, bits_below):
    with pytest.raises(InputError, match="report: bits: got"):
        bits.report(bits_below)


@pytest.mark.parametrize(("text", "said"), [("{", "is no JSON"), ("{}", "it lacks model"), ("[]", "it lacks model")])
def test_files_that_hold_no_report_are_refused(tmp_path, text, said):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read(tmp_path / "a.json")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none.json")


def test_two_runs_are_compared_by_tensor_and_label(report):
    other = trained(roundings="measured", numbers=("safe",), restart="step").report()
    found = compare(report, other)
    by = {(row["kind"], row["name"], row["label"]): row for row in found["tensors"]}
    row = by["value", "0: addmm", "safe"]
    assert row["more"] == row["b"] - row["a"] > 0 and row["guarantee"] == "upper bound"
    assert by["value", "0: addmm", "expected"]["b"] is None
    shares = {(row["what"], row["label"]): row for row in found["shares"]}
    assert (
        shares["gradient entries that are noise", "safe"]["b"] <= shares["gradient entries that are noise", "safe"]["a"]
    )
    assert compare(report, report)["tensors"][0]["more"] == 0.0


# --- calibrate --------------------------------------------------------------------------------------------------------


def step(model, optimiser, number):
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(number))
    torch.nn.functional.cross_entropy(model(x), torch.arange(16) % 3).backward()
    if optimiser is not None:
        optimiser.step()
        optimiser.zero_grad(set_to_none=False)


def perceptron():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3))


@pytest.mark.parametrize("restart", ["never", "step"])
def test_safe_never_claims_too_much_and_the_others_are_measured(restart):
    found = calibrate(perceptron(), step, 3, lambda p: torch.optim.SGD(p, lr=0.1), restart=restart)
    rows = {(row.kind, row.label): row for row in found.kinds}
    assert len(rows) == 4 * 3 and len(found.tensors) > len(rows)
    assert all(row.over == (0, 0, 0, 0) for (_, label), row in rows.items() if label == "safe")
    for kind in ("value", "parameter"):
        safe, expected, certain = (rows[kind, label] for label in LABELS)
        assert safe.claimed <= expected.claimed <= certain.claimed and expected.within_2 >= 0.85
        assert expected.within_2 <= expected.within_4 <= 1 and safe.within_2 is None
    assert rows["value", "certain_noise"].over[0] > 0.1
    assert rows["value", "safe"].elements == 3 * 16 * (8 + 8 + 3 + 3)
    for label in LABELS:
        assert f"{label} ({GUARANTEES[label]})" in str(found)


def test_over_claims_are_counted_against_known_errors():
    """What the run computes counts as exact, and is off by 2**-10 of what the copy computes."""

    class Shifted(torch.nn.Module):
        def forward(self, x):
            return x * (1.0 + 2.0**-10) if x.dtype == torch.float64 else x * 1.0

    x = torch.linspace(1, 2, 100)
    (row, *_) = calibrate(Shifted(), lambda model, optimiser, number: model(x), numbers=("safe",)).kinds
    assert row.over == (1, 1, 1, 1) and row.claimed == 24 and row.under is None and abs(row.true - 10) < 0.1


def test_calibrating_leaves_model_and_random_numbers_as_they_are():
    model = perceptron()
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    calibrate(model, step, 2, lambda p: torch.optim.Adam(p))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(state, torch.get_rng_state()) and all(p.grad is None for p in model.parameters())


def test_dropout_draws_alike_in_both():
    model = torch.nn.Sequential(torch.nn.Linear(6, 64), torch.nn.Dropout(0.5), torch.nn.Linear(64, 3))
    found = calibrate(model, step, numbers=("safe",))
    assert all(row.over[0] == 0 for row in found.tensors) and found.kinds[0].true > 10


def test_what_cannot_be_calibrated_is_refused():
    with pytest.raises(InputError, match="nothing finer"):
        calibrate(perceptron().double(), step)
    with pytest.raises(InputError, match="steps: got 0"):
        calibrate(perceptron(), step, 0)


def test_the_bench_measures_ratios_and_four_bytes_an_element_and_number():
    found = bench.cost("cnn", ("safe", "expected"), "bounded", steps=2, repeated=1)
    assert found.ratio > 1 and found.bytes_per_element == pytest.approx(8, rel=0.01)
