"""The notebook course is run, each notebook by a kernel of its own in an empty directory, and kept without outputs."""

from __future__ import annotations

import json

import nbformat
import pytest
from nbclient import NotebookClient

from tests.docs.pages import ROOT

COURSE = ROOT / "docs" / "examples"
NOTEBOOKS = sorted(COURSE.glob("*.ipynb"))


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty directory; beside it homes, so that a kernel writes nothing of this user's."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in ("HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "KERAS_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home" / name.lower()))
        (tmp_path / "home" / name.lower()).mkdir(parents=True)
    directory = tmp_path / "empty"
    directory.mkdir()
    return directory


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_runs(path, empty):
    before = {one: one.stat().st_mtime_ns for one in COURSE.iterdir()}
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(empty)}}).execute()
    assert before == {one: one.stat().st_mtime_ns for one in COURSE.iterdir()}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    warned = [o.text for cell in code for o in cell.outputs if o.output_type == "stream" and o.name == "stderr"]
    assert not warned
    assert any("text/html" in output.get("data", {}) for cell in code for output in cell.outputs)


def test_the_course_is_numbered_without_gaps():
    assert [path.name[:3] for path in NOTEBOOKS] == [f"{number:02}_" for number in range(10)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_is_short_has_a_question_and_an_answer_and_no_outputs(path):
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    nbformat.validate(notebook)
    assert 6 <= len(notebook["cells"]) <= 14
    prose = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    assert prose[0].startswith(f"# {path.name[:2]} ")
    assert "**Question.**" in prose[0]
    assert prose[-1].startswith("**Answer.**")
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["execution_count"], cell["outputs"]) == (None, []), "clear all outputs before committing"
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}
    assert text == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "save it with an indentation of one"


def test_the_documentation_links_to_every_notebook():
    index = (ROOT / "docs" / "examples" / "index.md").read_text()
    assert [path.name for path in NOTEBOOKS if f"]({path.name})" not in index] == []
