"""doctor: what it finds, and that each of its checks can say no."""

import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import native
from simulator.arithmetic import reference
from simulator.arithmetic.self_check import self_check
from simulator.commands import extras

ROOT = Path(__file__).parents[2]
REQUIRED = ["numpy>=1.26", 'torch>=2.10; extra == "torch"', 'ulpsim[torch]; extra == "keras"',
            'keras>=3.15,<4; extra == "keras"']  # fmt: skip


class Metadata:
    def get_all(self, name):
        return {"Provides-Extra": ["torch", "keras"]}[name]


@pytest.fixture
def installed(monkeypatch):
    """Have these versions installed, and no other library."""

    def versions(**those):
        def version(name):
            if name not in those:
                raise PackageNotFoundError(name)
            return those[name]

        monkeypatch.setattr(extras, "metadata", lambda name: Metadata())
        monkeypatch.setattr(extras, "requires", lambda name: REQUIRED)
        monkeypatch.setattr(extras, "version", version)

    return versions


def test_every_kernel_is_checked():
    assert sorted(one.kernel for one in self_check()) == sorted(native.kernels())


def test_all_is_well(command, installed):
    installed(numpy="2.0", torch="2.13.0+cpu", keras="3.15.1")
    code, out, err = command("doctor")
    assert (code, err) == (0, "") and out.endswith("\nAll is well.\n") and f"instruction set {native.isa()}" in out
    record = json.loads(command("doctor", "--json")[1])
    assert record["ok"] and record["problems"] == [] and record["engine"]["isas"] == native.available_isas()


def test_an_extra_that_is_missing_is_no_fault_and_has_its_command(command, installed):
    installed(numpy="2.0", torch="2.13.0")
    code, out, _ = command("doctor", "--json")
    found = {extra["name"]: extra for extra in json.loads(out)["extras"]}
    assert code == 0 and found["torch"]["install"] is None
    assert found["keras"]["found"] == {"torch": "2.13.0"} and found["keras"]["missing"] == ["keras<4,>=3.15"]
    assert (
        found["keras"]["install"] == "pip install 'ulpsim[keras]'" and found["keras"]["install"] in command("doctor")[1]
    )


@pytest.mark.parametrize("versions, problem", [
    ({"numpy": "2.0", "torch": "2.9"}, "the extra torch needs torch>=2.10"),
    ({"numpy": "1.20"}, "ulpsim needs numpy>=1.26"),
    ({}, "ulpsim needs numpy>=1.26"),
])  # fmt: skip
def test_libraries_that_do_not_do_are_named_once(command, installed, versions, problem):
    installed(**versions)
    code, out, err = command("doctor", "--json")
    problems = json.loads(out)["problems"]
    assert (code, err, len(problems)) == (3, "", 1) and problems[0].startswith(problem)


def test_a_kernel_with_one_wrong_bit_is_named(command, installed, monkeypatch):
    installed(numpy="2.0")
    define, calls = reference.dot, []

    def off_once(*given):
        calls.append(given)
        value, overflowed = define(*given)
        return (value * (1 + 2**-30) if len(calls) == 1 else value), overflowed

    monkeypatch.setattr(reference, "dot", off_once)
    code, out, _ = command("doctor", "--json")
    assert code == 3
    assert json.loads(out)["problems"][0].startswith("fp8_e4m3 -> fma(fp16): 1 of 12 outputs of the kernel float32_fma")


def test_an_instruction_set_that_there_is_not(command, installed, monkeypatch):
    installed(numpy="2.0")
    monkeypatch.setenv("ULPSIM_ISA", "vax")
    code, out, err = command("doctor")
    assert (code, err) == (3, "") and "No: the engine cannot be used: ULPSIM_ISA='vax' is unknown" in out


def test_an_engine_that_is_not_built():
    blocked = "import sys; sys.modules['native._engine'] = None; sys.argv = ['ulpsim', 'doctor']\n"
    code = blocked + "import simulator.__main__ as m; m.main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (3, "") and "the C engine is not built; run" in done.stdout


def test_without_an_installation_nothing_tells_what_is_needed(command, monkeypatch):
    def none(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "metadata", none)
    code, out, _ = command("doctor")
    assert code == 3 and "No: ulpsim is not installed" in out
