"""The contract runs over formats of a user's own, and a format that breaks it is found out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import formats
from tests.contracts.representatives import subjects

ROOT = Path(formats.__file__).parents[1]

MODULE = """
from formats import CodebookFormat, FixedFormat, FloatFormat, register

register("mine8", FloatFormat("mine8", 4, 3, bias=11, dialect="fn"))
register("mybook", CodebookFormat("mybook", [-1.5, -0.25, 0.0, 0.1, 2.0]))

class Slipped(FixedFormat):
    def {method}(self, *arguments, **options):
        {fault}

register("slipped", Slipped("slipped", 5, 2))
"""

# A method and what is wrong with it -> a test of the contract that must notice.
FAULTS = {
    ("code_of", "return super().code_of(*arguments) ^ 1"): "test_code_of_inverts_value_of",
    ("project_special", "return -0.0"): "test_zeros_keep_their_sign",
    ("quantize", "return super().quantize(arguments[0])"): "test_quantize_is_the_definition_in_every_mode",
}


def run(tmp_path, module, *arguments):
    (tmp_path / "mine.py").write_text(module)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "tests/contracts", "-p", "mine", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_everything_registered_is_under_the_contract():
    assert {fmt.name for fmt in subjects()} >= set(formats.available())


def test_a_users_own_formats_pass_by_name(tmp_path):
    """A float with 4 exponent bits, 3 fraction bits, bias 11 and no infinities, and a codebook: a call each."""
    module = MODULE.format(method="unused", fault="pass")
    done = run(tmp_path, module, "--format", "mine8", "--format", "mybook", "-k", "not plugged")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[mine8-definition]" in run(tmp_path, module, "--format", "mine8", "--collect-only").stdout


@pytest.mark.parametrize(("method", "fault"), FAULTS)
def test_a_format_that_breaks_the_contract_is_found_out(method, fault, tmp_path):
    expected = FAULTS[method, fault]
    done = run(tmp_path, MODULE.format(method=method, fault=fault), "--format", "slipped", "-k", expected)
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"::{expected}" in done.stdout and "slipped" in done.stdout
