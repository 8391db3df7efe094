"""The study of points: a small one, by command and by call; the verdict of the specification."""

import json

import pytest

torch = pytest.importorskip("torch")

from simulator.errors import InputError  # noqa: E402
from simulator.studies import points  # noqa: E402
from simulator.studies.points import POINTS, points_study  # noqa: E402
from simulator.training import Recipe  # noqa: E402
from simulator.training.trial import Setting  # noqa: E402


@pytest.fixture
def short(monkeypatch):
    """Trainings of five epochs."""
    monkeypatch.setattr(points, "Setting", lambda: Setting(epochs=5))


def test_weights_limit_the_base_network_and_a_study_goes_on_from_its_runs(short, tmp_path):
    recipe = Recipe.of({"weight_store": "e8m4/rz", "gradient": "e8m4/rz"})
    whole = points_study(recipe, out=tmp_path / "a")
    assert whole.computed == 4 and whole.ablation.verdict.point == "weight_store" and whole.ablation.samples == 397
    file = tmp_path / "b" / "runs.jsonl"
    file.parent.mkdir()
    lines = (tmp_path / "a" / "runs.jsonl").read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:2]) + lines[2][:40])  # a line that was cut off
    again = points_study(recipe, out=tmp_path / "b")
    assert again.computed == 2 and again.ablation == whole.ablation
    # Of other formats the training without any point is known already.
    other = points_study(Recipe.of({"gradient": "e8m2/rz"}), out=tmp_path / "b")
    assert other.computed == 1 and other.ablation.accuracies[()] == whole.ablation.accuracies[()]


def test_the_command_prints_the_ranking_and_writes_it(short, command, tmp_path):
    few = ("--points", "weight_store=e8m3/rz", "--seeds", 2, "--workers", 1)
    arguments = ("study", "points", *few, "--out", "here")
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert "weight_store limits the training" in out and "397 test samples, 2 seeds" in " ".join(out.split())
    assert "4 runs computed now; in here/study.json, here/points.csv" in out
    record = json.loads((tmp_path / "here" / "study.json").read_text())
    assert record["study"] == "points" and record["verdict"]["point"] == "weight_store"
    assert record["recipe"]["points"] == {"weight_store": "e8m3/rz"}
    assert (tmp_path / "here" / "points.csv").read_text().startswith("point,alone,cost,cost_error,without,gain")
    code, out, _ = command(*arguments, "--json")
    assert code == 0 and json.loads(out) == record


def test_the_parts_of_a_recipe_are_its_points_and_its_mac_units(short, command, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "schema: 1\npoints:\n  weight_store: e8m3/rz\nmacs:\n  weight_gradient: fp8_e5m2*fp8_e4m3/sat -> fma(fp16)\n"
    )
    code, out, err = command("study", "points", "--recipe", "mine.yaml", "--workers", 1, "--out", "here")
    assert (code, err) == (0, "") and "weight_gradient=fp8_e5m2*fp8_e4m3/sat -> fma(fp16)" in " ".join(out.split())
    record = json.loads((tmp_path / "here" / "study.json").read_text())
    assert record["recipe"]["macs"] == {"weight_gradient": "fp8_e5m2*fp8_e4m3/sat -> fma(fp16)"}
    assert {cost["point"] for cost in record["points"]} == {"weight_store", "weight_gradient"}
    on = [run["on"] for run in record["runs"]]
    assert sorted(on) == [[], ["weight_gradient"], ["weight_store"], ["weight_store", "weight_gradient"]]
    assert record["verdict"]["point"] == "weight_store"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--points", "gradient=fp16", "--recipe", "truncated"], "got --points and --recipe; expected one"),
     (["--recipe", "truncate"], "got 'truncate', no file and no bundled recipe"),
     (["--points", "weight_store"], "--points: got 'weight_store'; expected NAME=FORMAT"),
     (["--points", "gradient=fp16,gradient=bf16"], "got 'gradient=bf16'"),
     (["--points", "weights=fp16"], "weights: unknown quantisation point"),
     (["--points", "gradient=e8m"], "recipe: gradient: ")],
)  # fmt: skip
def test_what_cannot_be_studied_is_refused(command, tmp_path, arguments, message):
    code, out, err = command("study", "points", *arguments)
    assert (code, out) == (2, "") and message in " ".join(err.split()) and not any(tmp_path.iterdir())
    with pytest.raises(InputError, match="got 0 seeds"):
        points_study(Recipe.of(POINTS), seeds=0)


@pytest.mark.full
def test_stored_weights_limit_training_as_the_reference_says():
    """Truncation to 4 bits; of trainings of other code with other random numbers, weights are within two deviations of
    a seed, everything else within .02."""
    found = points_study(Recipe.of(POINTS), seeds=4, workers=2).ablation
    alone = {cost.point: cost.alone for cost in found.costs}
    assert abs(alone["weight_store"] - 0.564) < 2 * 0.047 and abs(found.whole - 0.578) < 2 * 0.047
    assert abs(alone["activation"] - 0.980) < 0.02 and abs(alone["gradient"] - 0.979) < 0.02
    without = {cost.point: cost.without for cost in found.costs}
    assert abs(without["gradient"] - 0.571) < 2 * 0.047
    verdict = found.verdict
    assert verdict.point == "weight_store" and verdict.gain > 0.3 and verdict.gain > 8 * verdict.error
