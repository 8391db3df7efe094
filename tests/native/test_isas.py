"""Which instruction set runs: the widest, or the one forced; and what the engine refuses."""

import os
import subprocess
import sys

import numpy as np
import pytest

import native
from native.matmul import Node, matmul
from native.twins import EngineError, check
from simulator.arithmetic.kernels import KERNELS


def test_portable_is_always_available_and_the_widest_is_the_default(monkeypatch):
    monkeypatch.delenv("ULPSIM_ISA", raising=False)
    assert native.available_isas()[0] == "portable"
    assert native.isa() == native.available_isas()[-1]


def test_a_forced_isa_is_honoured(isa):
    assert native.isa() == isa
    assert native.isa_index() == native.isa_index(isa)


def test_an_unknown_isa_is_refused_with_the_available_ones(monkeypatch):
    monkeypatch.setenv("ULPSIM_ISA", "sse9")
    with pytest.raises(ValueError) as caught:
        native.isa()
    available = ", ".join(native.available_isas())
    assert str(caught.value) == f"ULPSIM_ISA='sse9' is unknown; available: {available}"


def test_an_isa_of_another_processor_is_refused_as_unsupported(monkeypatch):
    other = next(name for name in ("neon", "avx512", "avx2") if name not in native.available_isas())
    monkeypatch.setenv("ULPSIM_ISA", other)
    with pytest.raises(ValueError, match=f"ULPSIM_ISA='{other}' is not supported here; available: portable"):
        native.isa()


def test_an_empty_variable_is_an_error_not_a_default(monkeypatch):
    monkeypatch.setenv("ULPSIM_ISA", "")
    with pytest.raises(ValueError, match="ULPSIM_ISA='' is unknown"):
        native.isa()


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("forced", native.available_isas())
def test_a_fresh_process_obeys_the_variable(forced):
    done = run("import native; print(native.isa())", ULPSIM_ISA=forced)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, forced, "")


def test_a_fresh_process_refuses_an_unknown_isa_when_it_computes():
    code = "import native, formats; formats.get('fp16').quantize([1.0])"
    done = run(code, ULPSIM_ISA="mmx")
    assert done.returncode != 0
    assert "ValueError: ULPSIM_ISA='mmx' is unknown; available: portable" in done.stderr


def test_the_engine_itself_refuses_an_unsupported_isa_and_an_unknown_kernel():
    lib, ffi = native.lib, native.ffi
    job = ffi.new("ulp_job *")
    job.m = job.n = 1
    for isa in (-1, lib.ulp_isa_count(), 3 if "neon" not in native.available_isas() else 1):
        status = lib.ulp_matmul(0, isa, job)
        with pytest.raises(EngineError, match=r"lacks the instruction set; see native\.available_isas\(\)"):
            check(status)
    for kernel in (-1, lib.ulp_kernel_count()):
        with pytest.raises(EngineError, match=r"no such kernel; see native\.kernels\(\)"):
            check(lib.ulp_matmul(kernel, 0, job))
    assert lib.ulp_kernel_name(-1) == ffi.NULL
    assert lib.ulp_isa_name(99) == ffi.NULL


def test_status_texts_exist_for_every_status():
    statuses = range(native.lib.ULP_OK, native.lib.ULP_INEXACT + 2)  # and one that is none
    texts = [native.ffi.string(native.lib.ulp_status_text(status)).decode() for status in statuses]
    assert texts[0] == "done"
    assert texts[-1] == "unknown status"
    assert len(set(texts)) == len(statuses)
    check(0)


def test_engine_and_simulator_list_the_same_kernels():
    assert sorted([*native.kernels(), "definition"]) == sorted(kernel.name for kernel in KERNELS)
    assert len(set(native.kernels())) == len(native.kernels())
    for name in native.kernels():
        assert native.kernels()[native.kernel_index(name)] == name


def test_a_kernel_name_that_does_not_exist_is_refused():
    x = np.ones((1, 1), np.float32)
    with pytest.raises(ValueError):
        matmul("float16_fma", [Node("fma")], [], 0, x, x, None, np.empty((1, 1), np.float32))
