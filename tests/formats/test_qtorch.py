"""Formats rounded by qtorch and qtorch-plus, as far as nothing is compiled: guards, messages, the build lock."""

import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import formats
from formats import Use
from formats.qtorch import QtorchFloat, QtorchPosit, extension, from_name, wrapped
from tests.oracles.bits import assert_same_bits

ROOT = Path(formats.__file__).parents[1]

POSITS = [(n, es) for n in range(2, 17) for es in range(7) if (1 << es) * max(n - 2, 1) <= 126]

# Sizes that an exact reference once found right, and wrong.
FOUND_RIGHT = [
    (8, 0), (8, 1), (8, 2), (16, 0), (16, 1), (16, 2), (2, 0), (2, 1), (3, 0), (3, 1), (4, 0), (4, 1), (4, 2), (5, 0),
    (5, 1), (6, 1), (6, 2), (7, 1), (8, 3), (8, 4), (9, 3), (10, 1), (10, 2), (12, 1), (12, 2), (14, 2), (16, 3),
]  # fmt: skip
FOUND_WRONG = [(16, 4), (12, 4), (10, 5), (8, 5)]


def test_the_sizes_offered_are_those_found_right():
    assert set(FOUND_RIGHT) <= set(POSITS)
    assert not set(FOUND_WRONG) & set(POSITS)


# --- guards: nothing is compiled, or even installed ------------------------------------------------------------------


def test_other_names_are_none_of_ours():
    assert from_name("posit16") is None
    assert from_name("fp16") is None


@pytest.mark.parametrize(
    "name", ["qtorch_", "qtorch_posit", "qtorch_posit08", "qtorch_fp16", "qtorch_e5m", "qtorch_e5m2x"]
)
def test_malformed_names_say_what_is_expected(name):
    with pytest.raises(
        ValueError, match=f"format '{name}' is unknown; expected qtorch_positN, qtorch_positNeES or qtorch_e"
    ):
        from_name(name)


@pytest.mark.parametrize("name", ["qtorch_posit17e1", "qtorch_posit32", "qtorch_posit1e0"])
def test_regress_posit_guard_width(name):
    with pytest.raises(
        ValueError, match=rf"{name}: n = \d+; qtorch-plus has posits of 2 to 16 bits, and ends the Python"
    ):
        from_name(name)


@pytest.mark.parametrize(("n", "es"), [*FOUND_WRONG, (2, 7), (3, 7), (4, 6), (16, 1000)])
def test_regress_posit_guard_exponent(n, es):
    with pytest.raises(
        ValueError, match=rf"n = {n}, es = {es}; .* unless \(1 << es\) \* \(n - 2\) <= 126; use posit{n}e{es}"
    ):
        from_name(f"qtorch_posit{n}e{es}")


@pytest.mark.parametrize("name", ["qtorch_e8m23", "qtorch_e5m23", "qtorch_e5m30"])
def test_regress_sign_flip(name):
    with pytest.raises(ValueError, match=r"fraction bits; qtorch has 0 to 22, and flips signs with 23"):
        from_name(name)


@pytest.mark.parametrize("name", ["qtorch_e9m5", "qtorch_e11m10"])
def test_exponents_beyond_float32_are_refused(name):
    with pytest.raises(ValueError, match=r"exponent bits; qtorch holds values in float32, .* unless they are 1 to 8"):
        from_name(name)


def test_other_roundings_and_overflows_are_refused_with_the_reason():
    posit, float_ = QtorchPosit("qtorch_posit8", 8, 2), QtorchFloat("qtorch_e5m10", 5, 10)
    for rounding in ("rz", "rna", "odd"):
        with pytest.raises(
            ValueError, match=f"qtorch-plus has one rounding, its own nearest, .* use posit8/{rounding}"
        ):
            posit.quantize([1.0], rounding)
    with pytest.raises(ValueError, match=r"'rna' is refused: qtorch has one rounding, .* use e5m10:ieee/rna"):
        Use(float_, "rna")
    with pytest.raises(
        ValueError, match=r"seeds its random numbers from the operating system, .*; use e5m10:ieee/sr:8"
    ):
        Use(float_, "sr:8")
    with pytest.raises(ValueError, match=r"qtorch-plus rounds to nearest under that name; use posit8/sr"):
        posit.encode([1.0], "sr")
    with pytest.raises(ValueError, match="overflow 'ieee' is refused: qtorch has one way with overflow, 'sat'"):
        Use(float_, overflow="ieee")
    with pytest.raises(ValueError, match="rounding 'up' is unknown"):
        Use(posit, "up")
    assert str(Use(posit)) == "qtorch_posit8"


def test_a_package_that_rounds_wrongly_is_not_used(monkeypatch):
    pytest.importorskip("torch", reason="calls torch")
    wrong = SimpleNamespace(posit_quantize_nearest=lambda x, *parameters: x + 1.0)
    monkeypatch.setattr(wrapped, "extension", lambda package, name: wrong)
    wrapped._checked.cache_clear()
    with pytest.raises(
        RuntimeError,
        match=r"qtorch_posit6e1: qtorch-plus as compiled here is wrong for 120 of 123 inputs, .* use posit6e1",
    ):
        QtorchPosit("qtorch_posit6e1", 6, 1).quantize([1.0])
    wrapped._checked.cache_clear()


def test_rounding_to_odd_never_leaves_the_side_of_a_boundary():
    x = np.array([1.0, 1 + 2.0**-30, 1 - 2.0**-30, -1 - 2.0**-30, 2.0**-200, -(2.0**-200), 1e300, 1.5 * 2.0**-149])
    ulp = 2.0**-23
    expected = [1.0, 1 + ulp, 1 - ulp / 2, -1 - ulp, 2.0**-149, -(2.0**-149), (2 - ulp) * 2.0**127, 2.0**-149]
    assert_same_bits(wrapped.odd_float32(x), expected, x)


# --- what is missing -------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """A machine on which all is installed; tests take things away."""
    packages = {"torch": "2.13.0", "qtorch": "0.3.0", "qtorch_plus": "0.2.0"}
    programs = {"ninja", "c++"}

    def version(distribution):
        try:
            return packages[distribution.replace("-", "_")]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(distribution) from None

    def find_spec(name):
        return SimpleNamespace(submodule_search_locations=[f"/site/{name}"]) if name in packages else None

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(shutil, "which", lambda name, path=None: name if name in programs else None)
    monkeypatch.delenv("CXX", raising=False)
    return SimpleNamespace(packages=packages, programs=programs)


def test_nothing_missing_nothing_said(machine):
    assert extension.require("qtorch-plus", "x") == Path("/site/qtorch_plus/quant/quant_cpu")
    assert from_name("qtorch_posit16e2").name == "qtorch_posit16"
    assert from_name("qtorch_posit16e1") == QtorchPosit("any name", 16, 1)
    assert from_name("qtorch_e5m10").name == "qtorch_e5m10"


@pytest.mark.parametrize(
    ("missing", "name", "message"),
    [
        (
            "torch",
            "qtorch_e5m10",
            r"qtorch_e5m10 needs torch; .*`pip install torch`, then `pip install 'ulpsim\[qtorch\]'`",
        ),
        (
            "qtorch",
            "qtorch_e5m10",
            r"qtorch_e5m10 needs qtorch 0\.3\.0; install it with `pip install 'ulpsim\[qtorch\]'`",
        ),
        ("qtorch_plus", "qtorch_posit8", r"qtorch_posit8 needs qtorch-plus 0\.2\.0; install it with `pip install"),
        ("ninja", "qtorch_posit8", r"needs ninja to compile qtorch-plus; install it with `pip install ninja`"),
        ("c++", "qtorch_posit8", r"needs a C\+\+ compiler, .* 'c\+\+' is not found; install g\+\+ or clang\+\+"),
    ],
)
def test_what_is_missing_is_said_when_the_format_is_asked_for(machine, missing, name, message):
    machine.packages.pop(missing, None)
    machine.programs.discard(missing)
    with pytest.raises(ImportError, match=message) as caught:
        from_name(name)
    assert "\n" not in str(caught.value)


def test_each_format_needs_its_own_package_only(machine):
    del machine.packages["qtorch"]
    assert from_name("qtorch_posit8").package == "qtorch-plus"


def test_a_version_of_unknown_behaviour_is_refused(machine):
    machine.packages["qtorch_plus"] = "0.3.1"
    with pytest.raises(ImportError, match=r"needs qtorch-plus 0\.2\.0, and 0\.3\.1 is installed; repair it"):
        from_name("qtorch_posit8")


def test_the_compiler_is_the_one_torch_takes(machine, monkeypatch):
    monkeypatch.setenv("CXX", "ccache clang++")
    with pytest.raises(ImportError, match="'ccache' is not found"):
        from_name("qtorch_posit8")
    machine.programs.add("ccache")
    assert from_name("qtorch_posit8") is not None


def test_ninja_beside_python_is_found_without_an_activated_environment(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"{path}/{name}" if path else None)
    monkeypatch.setenv("PATH", "/somewhere")
    with extension._ninja_in_path():
        assert os.environ["PATH"].startswith(f"/somewhere{os.pathsep}")
        assert len(os.environ["PATH"].split(os.pathsep)) == 2
    assert os.environ["PATH"] == "/somewhere"


# --- imports and the build folder ------------------------------------------------------------------------------------


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=500,
    )


def test_formats_import_without_torch_and_the_packages():
    code = "import sys, formats, formats.qtorch; print(sorted({'torch', 'qtorch', 'qtorch_plus'} & sys.modules.keys()))"
    done = python(code)
    assert done.stdout == "[]\n", done.stderr


def test_the_build_folder_names_what_the_code_was_compiled_for(monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "/builds")
    tag = sys.implementation.cache_tag
    folders = {package: extension.build_folder(package, "2.13.0+cpu") for package in extension.VERSIONS}
    assert folders["qtorch"] == Path(f"/builds/ulpsim/qtorch-0.3.0-torch-2.13.0+cpu-{tag}")
    assert folders["qtorch-plus"] == Path(f"/builds/ulpsim/qtorch-plus-0.2.0-torch-2.13.0+cpu-{tag}")


def test_the_lock_of_a_killed_build_is_removed(tmp_path):
    code = (
        "import pathlib, time; from formats.qtorch.extension import sole_builder\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "with sole_builder(folder, 1):\n"
        "    (folder / 'lock').touch(); print('building', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "building\n"
        with (
            pytest.raises(
                TimeoutError, match=r"held: another process has been compiling in this folder .* 0\.2 s; wait"
            ),
            extension.sole_builder(tmp_path, 0.2),
        ):
            pass
        assert (tmp_path / "lock").exists()
        other.send_signal(signal.SIGKILL)
    with extension.sole_builder(tmp_path, 5):
        assert not (tmp_path / "lock").exists()
