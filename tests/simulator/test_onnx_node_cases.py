"""The cases that onnx brings for its operators: each gives its recorded outputs, or is refused for a listed reason."""

import pytest

pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from tests.simulator.onnx_node_cases import COMMAND, LIST, PASSES, outcomes  # noqa: E402


@pytest.fixture(scope="module")
def found():
    return outcomes()


@pytest.fixture(scope="module")
def listed():
    lines = [line for line in LIST.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return dict(line.split(": ", 1) for line in lines)


def test_no_case_of_a_supported_operator_is_wrong(found):
    wrong = {name: one for name, one in found.items() if one.startswith("WRONG")}
    assert not wrong, "\n".join(f"{name}: {one}" for name, one in wrong.items())


def test_cases_pass_or_are_refused_as_the_list_says(found, listed):
    if onnx.__version__ not in LIST.read_text(encoding="utf-8").splitlines()[0]:
        pytest.skip("the list is of the cases of another version of onnx")
    changed = [f"{name}: {found.get(name)}, listed: {listed.get(name)}"
               for name in {**found, **listed} if found.get(name) != listed.get(name)]  # fmt: skip
    assert not changed, "\n".join([f"if this is right, write the list anew with {COMMAND}", *changed])


def test_the_list_counts_what_passes(listed):
    passing = sum(one == PASSES for one in listed.values())
    assert LIST.read_text(encoding="utf-8").startswith(f"# {passing:,} of {len(listed):,} node cases")
