"""The study of truncation: a small one, by command and by call; tables of the specification in the full tier."""

import json

import pytest

torch = pytest.importorskip("torch")

from simulator.errors import InputError  # noqa: E402
from simulator.network import bundled  # noqa: E402
from simulator.studies.truncation import Run, truncation_study  # noqa: E402

# Means of eight seeds and their standard deviations, by stored bits: reference tables on 8x8 digits, from float64
# trainings of other code with other random numbers.
REFERENCE = {
    "rz": {8: (0.967, 0.006), 6: (0.926, 0.011), 5: (0.790, 0.039), 4: (0.589, 0.047), 3: (0.527, 0.121),
           2: (0.290, 0.130), 1: (0.215, 0.104)},
    "rne": {8: (0.976, 0.003), 6: (0.972, 0.005), 5: (0.965, 0.010), 4: (0.942, 0.012), 3: (0.872, 0.020),
            2: (0.590, 0.078), 1: (0.264, 0.075)},
    "sr": {8: (0.976, 0.003), 6: (0.976, 0.003), 5: (0.974, 0.003), 4: (0.972, 0.003), 3: (0.970, 0.007),
           2: (0.963, 0.005), 1: (0.943, 0.009)},
}  # fmt: skip


def test_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = bundled.digits8x8()
    expected = datasets.load_digits()
    assert torch.equal(x, torch.from_numpy(expected.data / 16.0)) and torch.equal(y, torch.from_numpy(expected.target))


def test_a_study_goes_on_from_its_runs_with_the_same_numbers(tmp_path):
    whole = truncation_study(["rz"], [0, 4], base_seeds=1, out=tmp_path / "a")
    assert whole.computed == 2
    first = truncation_study(["rz"], [0], base_seeds=1, out=tmp_path / "b")
    file = tmp_path / "b" / "runs.jsonl"
    file.write_text(file.read_text() + '{"run": {"setting": "rz", "bi')  # a line that was cut off
    again = truncation_study(["rz"], [0, 4], base_seeds=1, out=tmp_path / "b")
    assert again.computed == 1 and again.outcomes == whole.outcomes
    assert first.outcomes[Run("rz", 0, 0)] == whole.outcomes[Run("rz", 0, 0)]
    carrier, narrow = (whole.outcomes[Run("rz", bits, 0)] for bits in (0, 4))
    assert carrier.accuracy > 0.95 and 0.3 < narrow.accuracy < 0.8
    assert narrow.mean_weight < carrier.mean_weight / 2 and narrow.decay > 0 and abs(carrier.decay) < 1e-12
    assert carrier.predicted["4"] == pytest.approx(0.92, abs=0.05)


def test_the_command_prints_the_table_and_writes_it(command, tmp_path):
    arguments = ("study", "truncation", "--settings", "sr", "--bits", "0,6", "--base-seeds", 1, "--out", "here")
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert "fp64" in out and "sr" in out and "2 runs computed now; in here/study.json, here/study.parquet" in out
    rows = json.loads((tmp_path / "here" / "study.json").read_text())["rows"]
    assert [(row["setting"], row["bits"], row["seeds"]) for row in rows] == [("sr", 0, 1), ("sr", 6, 1)]
    assert (tmp_path / "here" / "study.parquet").exists()
    code, out, _ = command(*arguments, "--json")
    assert code == 0 and json.loads(out)["rows"] == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--settings", "width 9"], "'width 9' is unknown"), (["--bits", "8,x"], "--bits: got '8,x'"),
     (["--bits", "30"], "bits from 1 to 23")],
)  # fmt: skip
def test_what_cannot_be_studied_is_refused(command, tmp_path, arguments, message):
    code, out, err = command("study", "truncation", *arguments)
    assert (code, out) == (2, "") and message in " ".join(err.split()) and not any(tmp_path.iterdir())
    with pytest.raises(InputError):
        truncation_study(["rz"], [8], seeds=0)


@pytest.mark.full
def test_base_rows_are_those_of_the_reference():
    """Within .02 of its means down to 6 bits and for stochastic rounding; below, within two deviations of a seed."""
    found = {(row["setting"], row["bits"]): row["accuracy"] for row in
             truncation_study(list(REFERENCE), [8, 6, 5, 4, 3, 2, 1], base_seeds=8, workers=2).rows()}  # fmt: skip
    for name, cells in REFERENCE.items():
        for bits, (mean, deviation) in cells.items():
            allowed = 0.02 if bits >= 6 or name == "sr" else 2.0 * deviation
            assert abs(found[name, bits] - mean) <= allowed, (name, bits, found[name, bits])
