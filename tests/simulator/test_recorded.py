"""Results that real units gave: the presets reproduce every one, and changed models do not.

PROVENANCE.md beside the vectors says what they are and what they can see.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import native
import simulator
from simulator.arithmetic import reference
from simulator.arithmetic.accumulators import Aligned

VECTORS = Path(__file__).parents[1] / "vectors"

# Set -> (preset, operands, output).
GPU = {
    "v100_fp16_fp32": ("v100.fp16", "fp16", "fp32"),
    "v100_fp16_fp16": ("v100.fp16", "fp16", "fp16"),
    "a100_fp16_fp32": ("a100.fp16", "fp16", "fp32"),
    "a100_bf16_fp32": ("a100.bf16", "bf16", "fp32"),
    "a100_tf32_fp32": ("a100.tf32", "tf32", "fp32"),
    "h100_fp16_fp32": ("h100.fp16", "fp16", "fp32"),
    "h100_bf16_fp32": ("h100.bf16", "bf16", "fp32"),
    "h100_tf32_fp32": ("h100.tf32", "tf32", "fp32"),
    "h100_e4m3_fp32_wgmma": ("h100.fp8.wgmma", "fp8_e4m3", "fp32"),
    "h100_e5m2_fp32_wgmma": ("h100.fp8.wgmma", "fp8_e5m2", "fp32"),
}
CPU = {"amd_zen4_vdpbf16ps": ("amd.zen4.avx512_bf16", "bf16:ftz", "fp32")}
RECORDED = GPU | CPU


def recorded(name):
    """(a, b, c, d) as float32."""
    folder = "gpu" if name in GPU else "cpu"
    with np.load(VECTORS / folder / f"{name}.npz") as arrays:
        a, b, c, d = (arrays[key] for key in "abcd")
    if name in CPU:
        a, b = ((codes.astype(np.uint32) << 16).view(np.float32) for codes in (a, b))
    return a, b, c.view(np.float32), d.view(np.float32)


def spec_of(name):
    """The preset's MAC with the set's operands."""
    preset, operands, output = RECORDED[name]
    return simulator.mac({"operands": operands, "accumulator": preset, "output": output})


def mismatches(name, spec):
    a, b, c, d = recorded(name)
    return differences(simulator.arithmetic.dot(a, b, spec, c), d)


def differences(y, d):
    y = np.asarray(y, np.float64).astype(np.float32)
    return int(np.sum((y.view(np.uint32) != d.view(np.uint32)) & ~(np.isnan(y) & np.isnan(d))))


@pytest.fixture(params=native.available_isas())
def isa(request, monkeypatch):
    monkeypatch.setenv("ULPSIM_ISA", request.param)


@pytest.mark.parametrize("name", RECORDED)
def test_the_engine_gives_every_recorded_result(name, isa):
    assert mismatches(name, spec_of(name)) == 0


@pytest.mark.parametrize("name", RECORDED)
def test_the_definition_gives_recorded_results(name):
    a, b, c, d = (array[:36] for array in recorded(name))
    spec = spec_of(name)
    y = [reference.dot(spec, x.tolist(), w.tolist(), float(start))[0] for x, w, start in zip(a, b, c, strict=True)]
    assert differences(y, d) == 0


def wrong_models(name):
    """Yield (what is changed, string form of the MAC) for each column of the table of PROVENANCE.md."""
    spec = spec_of(name)
    operands, step = spec.operands[0], spec.accumulator
    assert isinstance(step, Aligned)
    out = step.out.format.name
    unrounded = dataclasses.replace(step, out=simulator.mac("fma(e11m45/rz)").accumulator.sum)

    def changed(**fields):
        return f"{operands} -> {dataclasses.replace(step, **fields)}"

    yield "F-1", changed(frac=step.frac - 1)
    yield "F+1", changed(frac=step.frac + 1)
    yield "n/2", changed(n=step.n // 2)
    # A value, as which chunk hands on a product, has the exponent of its magnitude.
    yield "normalised", f"{operands} -> chunk(1, exact(e11m52), {step})"
    yield "rne", changed(align="rne")
    yield "rd", changed(align="rd")
    if out == "fp16":
        yield "late", changed(c="late")
        return
    yield "late", f"{operands} -> late({step}) -> {out}"
    yield "output rne", f"{changed()} -> {out}".replace(f"out={out}/rz", f"out={out}")
    yield "output bits", f"{operands} -> {unrounded} -> {'e8m14' if out == 'e8m13' else 'e8m22'}/rz"


# Where the recordings do not see the change.
BLIND = {
    *(("v100_fp16_fp16", change) for change in ("F-1", "F+1", "normalised", "rne", "rd", "late")),
    ("h100_tf32_fp32", "n/2"),
    ("h100_e4m3_fp32_wgmma", "late"),
    ("h100_e5m2_fp32_wgmma", "late"),
}


@pytest.mark.parametrize("name", GPU)
def test_a_changed_model_fails_wherever_the_recordings_see_the_change(name):
    for change, form in wrong_models(name):
        wrong = mismatches(name, form)
        assert (wrong == 0) == ((name, change) in BLIND), (name, change, wrong, form)


@pytest.mark.parametrize(
    "form",
    [
        "bf16:ftz -> fma(fp32:ftz)",  # the product of element 0 first
        "bf16 -> reverse(2, fma(fp32))",  # subnormals kept
        "bf16:ftz -> reverse(2, seq(fp32:ftz))",  # products rounded
        "bf16:ftz -> fma(fp32:ftz, 2)",  # one rounding
        "bf16:ftz -> chunk(2, fma(fp32:ftz), seq(fp32:ftz))",  # the pair first
    ],
)
def test_another_order_or_rounding_is_not_what_zen_4_does(form):
    assert mismatches("amd_zen4_vdpbf16ps", form) > 100


def test_verified_presets_are_those_with_recordings():
    verified = {
        (name, output)
        for name, preset in simulator.presets().items()
        for output, mode in preset.outputs.items()
        if mode.label == "verified"
    }
    assert verified == {(preset, output) for preset, _, output in RECORDED.values()}


def test_every_recording_is_used_and_has_its_source():
    for folder, sets in (("gpu", GPU), ("cpu", CPU)):
        assert {path.stem for path in (VECTORS / folder).glob("*.npz")} == set(sets)
        text = (VECTORS / folder / "PROVENANCE.md").read_text()
        assert all(name in text for name in sets)
