"""The help of every command ends with examples, and these are commands that can be typed."""

import shlex

import pytest

from simulator.command_line.examples import EXAMPLES
from tests.command_tree import COMMANDS, words

TYPED = [(name, example) for name, several in EXAMPLES.items() for example in several]
CHEAP = ("formats", "explain", "estimate", "show")  # which run no network
STUDIES = ("study two-pass", "study truncation", "study points", "study laws")  # which take many minutes
SWEEP = "hw: npu\nsamples: 20\nsweep:\n  array.rows: [8, 16]\n"
GOAL = "search:\n  objectives: [accuracy, energy_j]\n  points: 2\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_one_to_three_examples(command, name):
    code, out, _ = command(*words(name, "--help"))
    shown = "".join(f"    python -m simulator {example}\n" for example in EXAMPLES[name])
    assert code == 0 and 1 <= len(EXAMPLES[name]) <= 3
    assert out.endswith(f"\n\n  Examples:\n{shown}")


def test_examples_are_of_commands_that_there_are():
    assert list(EXAMPLES) == [name for name in EXAMPLES if name in COMMANDS]


@pytest.mark.parametrize("name, example", TYPED)
def test_an_example_can_be_parsed(name, example):
    given = shlex.split(example)
    path = shlex.split(name)
    assert given[: len(path)] == path
    context = COMMANDS[name].make_context(name, given[len(path) :])
    assert context.params and not context.args and context.invoked_subcommand is None


@pytest.mark.parametrize("name, example", [one for one in TYPED if one[0] in CHEAP])
def test_a_cheap_example_does_what_it_says(command, name, example):
    code, out, err = command(*shlex.split(example))
    assert (code, err) == (0, "") and out


@pytest.mark.full
def test_the_examples_run_one_after_the_other(command, tmp_path):
    """In one directory, since some take what those before them wrote; but for the studies."""
    pytest.importorskip("torch")
    (tmp_path / "rows.yaml").write_text(SWEEP)
    (tmp_path / "best.yaml").write_text(f"{SWEEP}{GOAL}")
    for name in ("a", "b"):
        assert command("track", "--samples", 64, "--out", tmp_path / name)[0] == 0
    for name, example in TYPED:
        if name not in STUDIES:
            assert command(*shlex.split(example))[0] == 0, example
