"""Versions, and the codes that commands exit with: the same for the same reason, whatever the command."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.command_line import exit_codes
from simulator.versions import NUMERICS, version_of

ROOT = Path(__file__).parents[2]


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


def test_version_prints_those_of_ulpsim_and_of_its_numerics(command):
    code, out, err = command("--version", "--json")
    assert (code, json.loads(out), err) == (0, {"ulpsim": version_of("ulpsim"), "numerics": NUMERICS}, "")
    assert command("--version") == (0, f"ulpsim {version_of('ulpsim')}, numerics {NUMERICS}\n", "")


def test_the_version_is_that_of_the_installed_distribution(monkeypatch):
    monkeypatch.setattr("simulator.versions.version", lambda name: {"ulpsim": "9.8.7"}[name])
    assert version_of("ulpsim") == "9.8.7"


UNBUILT = "import sys; sys.modules['native._engine'] = None; sys.argv = ['ulpsim', {!r}]\n"


def test_the_version_can_be_told_without_the_engine():
    done = python(UNBUILT.format("--version") + "import simulator.__main__ as m; m.main()")
    assert done.returncode == 0 and done.stdout.startswith("ulpsim "), done.stderr


def test_without_the_engine_each_name_that_needs_it_says_so():
    done = python(UNBUILT.format("") + "import simulator\nsimulator.mac")
    assert done.returncode == exit_codes.FAULT
    assert done.stderr.rstrip().endswith("pip install -e .` in the checkout (needs a C compiler)")


@pytest.mark.parametrize("module", ["numpy", "simulator.arithmetic.grammar"])
def test_another_import_that_fails_shows_itself(module):
    done = python(f"import sys; sys.modules[{module!r}] = None\nimport simulator")
    assert done.returncode == exit_codes.FAULT
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: import of {module} halted; None in sys.modules"


def test_an_engine_that_is_there_and_does_not_load_says_why():
    done = python("import sys; sys.modules['_cffi_backend'] = None\nimport simulator\nsimulator.mac")
    assert done.returncode == exit_codes.FAULT
    said = done.stderr.splitlines()[-1]
    assert "the C engine does not load (import of _cffi_backend halted" in said and "run `pip install -e .`" in said


def test_a_name_that_there_is_not_is_none():
    import simulator

    with pytest.raises(AttributeError, match="has no attribute 'matmull'"):
        simulator.matmull  # noqa: B018
