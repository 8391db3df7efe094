"""Directories of studies: nothing runs for one that cannot be written, and no study takes the place of another."""

import json

import pytest

pytest.importorskip("torch")

import simulator.studies.laws as laws
from simulator.errors import InputError
from simulator.studies import two_pass_study
from simulator.studies.points import Outcome, Run
from simulator.studies.trainings import Trainings

STUDIES = ("laws", "points", "truncation")


@pytest.fixture
def nothing_runs(monkeypatch):
    """Fail if a network is trained or measured."""

    def ran(*args, **kwargs):
        raise AssertionError("a run")

    monkeypatch.setattr(Trainings, "all", ran)
    monkeypatch.setattr(laws, "_random", ran)


@pytest.mark.parametrize("study", STUDIES)
def test_a_file_is_no_directory_of_a_study(nothing_runs, command, tmp_path, study):
    (tmp_path / "afile").write_text("mine")
    code, out, err = command("study", study, "--out", "afile")
    assert (code, out) == (2, "") and "afile is a file; expected a directory for results" in " ".join(err.split())
    assert (tmp_path / "afile").read_text() == "mine"


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize(
    ("content", "message"),
    [('{"study": "two-pass"}', "here/study.json: is of the study two-pass; expected a directory without results"),
     ("{}", "here/study.json: does not say of which study it is"), ("[", "here/study.json: does not say")],
)  # fmt: skip
def test_no_study_takes_the_place_of_another(nothing_runs, command, tmp_path, study, content, message):
    file = tmp_path / "here" / "study.json"
    file.parent.mkdir()
    file.write_text(content)
    code, out, err = command("study", study, "--out", "here")
    assert (code, out) == (2, "") and message in " ".join(err.split())
    assert file.read_text() == content and [path.name for path in file.parent.iterdir()] == ["study.json"]


def test_nor_does_the_two_pass_study(tmp_path):
    (tmp_path / "study.json").write_text('{"study": "laws"}')
    with pytest.raises(InputError, match=r"is of the study laws; expected .* those of study two-pass"):
        two_pass_study("npu", out=tmp_path)


def test_a_line_that_was_cut_off_costs_no_other_run(tmp_path):
    trainings, file = Trainings(lambda run: Outcome(run.seed / 8, 8), Run, Outcome), tmp_path / "runs.jsonl"
    runs = [Run("{}", seed) for seed in range(3)]
    trainings.all(runs[:1], file, 1, lambda done, of: None)
    file.write_text(file.read_text() + '{"run": {"rec')
    assert trainings.all(runs, file, 1, lambda done, of: None)[1] == 2
    found, computed = trainings.all(runs, file, 1, lambda done, of: None)
    assert computed == 0 and [found[run].accuracy for run in runs] == [0, 1 / 8, 2 / 8]
    assert [line[:8] == '{"run": ' for line in file.read_text().splitlines()] == [True] * 4
    assert json.loads(file.read_text().splitlines()[2])["run"] == {"recipe": "{}", "seed": 1}
