"""Units of real hardware by name: data that parses, runs, and says how well it is known."""

from __future__ import annotations

import numpy as np
import pytest

import simulator
from formats import Use
from simulator.arithmetic import LABELS, reference
from simulator.arithmetic.accumulators import result_use
from simulator.arithmetic.explain import explain

PRESETS = simulator.presets()
MODES = [(name, output) for name, preset in PRESETS.items() for output in preset.outputs]


@pytest.mark.parametrize(("name", "output"), MODES)
def test_a_preset_is_read_and_its_string_is_read_back(name, output):
    spec = simulator.mac(name, output=output)
    assert simulator.mac(str(spec)) == spec
    assert simulator.mac(f"{name} -> {output}") == spec
    assert simulator.mac({"accumulator": name, "output": output}) == spec
    assert simulator.mac(f"{name}({output})").accumulator == spec.accumulator
    operands = Use.parse(PRESETS[name].operands)
    assert spec.operands == (operands, operands)


@pytest.mark.parametrize(("name", "output"), MODES)
def test_a_mode_ends_in_its_output(name, output):
    spec = simulator.mac(name, output=output)
    assert spec.output is None
    held, named = result_use(spec.accumulator).format, Use.parse(output).format
    # FP8 units hold fp32 registers of which they use 13 fraction bits, and some flush.
    assert (held.exponent_bits, held.max <= named.max) == (named.exponent_bits, True)
    assert held.fraction_bits == named.fraction_bits or held.name == "e8m13"


def samples(use, shape, rng):
    """Values of all magnitudes that products of a format can be summed from, zeros and cancellations among them."""
    top = min(use.format.max, 2.0**20)
    x = rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 1, shape) * min(top, 8.0)
    return use.quantize(np.where(rng.random(shape) < 0.1, 0.0, x))


@pytest.mark.parametrize(("name", "output"), MODES)
def test_a_small_product_is_that_of_the_definition(name, output):
    spec = simulator.mac(name, output=output)
    rng = np.random.default_rng(len(name))
    k = 150 if "128" in str(spec) else 70
    a, b = samples(spec.operands[0], (3, k), rng), samples(spec.operands[1], (k, 2), rng)
    a[0, 1::2], b[1::2, 0] = a[0, ::2], -b[::2, 0]  # pairs that cancel
    c = rng.standard_normal((3, 2))
    for i, j in np.ndindex(3, 2):  # one by one: some operands have a scale of the whole array
        for start in (None, float(c[i, j])):
            addend = None if start is None else np.full((1, 1), start)
            y = simulator.matmul(a[i : i + 1], b[:, j : j + 1], spec, c=addend)
            want, _ = reference.dot(spec, a[i].tolist(), b[:, j].tolist(), start)
            assert float(y[0, 0]).hex() == want.hex()


def test_every_preset_says_how_well_it_is_known():
    assert list(LABELS) == ["verified", "reported", "modelled", "documented", "assumed"]
    for name, preset in PRESETS.items():
        assert preset.unit and preset.sources, name
        assert preset.untested, name
        for text in (preset.unit, *preset.sources, *preset.notes, *preset.untested):
            assert text == text.strip() and "\n" not in text and not text.endswith("."), (name, text)
        assert all(mode.label in LABELS for mode in preset.outputs.values()), name
        for fit in (preset.operands, *preset.fits):
            simulator.mac(f"{fit} -> {name}")


@pytest.mark.parametrize(
    ("name", "output", "label"),
    [
        ("v100.fp16", "fp16", "verified"), ("t4.fp16", "fp32", "documented"), ("a100.tf32", "fp32", "verified"),
        ("a100.fp16", "fp16", "modelled"), ("a30.bf16", "fp32", "modelled"), ("ada.fp8", "fp32", "reported"),
        ("l40s.fp8", "fp32", "modelled"), ("h100.fp8.mma_sync", "fp16", "reported"),
        ("h100.fp8.mma_sync", "fp32", "modelled"), ("b200.fp16", "fp32", "reported"),
        ("b200.nvfp4", "fp32", "documented"), ("cdna1.fp16", "fp32", "assumed"), ("cdna2.bf16", "fp32", "modelled"),
        ("cdna3.fp16", "fp32", "documented"), ("cdna3.fp8", "fp32", "modelled"),
        ("intel.amx_bf16", "fp32", "documented"), ("amd.zen4.avx512_bf16", "fp32", "verified"),
        ("tpu.mxu", "fp32", "assumed"), ("ibm.chunk64", "dlfloat16", "documented"),
    ],
)  # fmt: skip
def test_no_label_is_raised(name, output, label):
    assert PRESETS[name].outputs[output].label == label


# --- names -----------------------------------------------------------------------------------------------------------


def test_an_accumulator_has_the_names_of_the_units_that_it_is_the_best_known_first():
    step = "aligned(16, 25, fp32/rz, e_min=-133)"
    assert [(n.preset, n.label) for n in simulator.names_of(step)] == [
        ("h100.fp16", "verified"), ("h100.bf16", "verified"),
        ("b200.fp16", "reported"), ("b200.bf16", "reported"),
    ]  # fmt: skip
    bf16 = Use.parse("bf16")
    assert [n.preset for n in simulator.names_of(step, (bf16, bf16))] == ["h100.bf16", "b200.bf16"]
    assert simulator.names_of("aligned(16, 26, fp32/rz, e_min=-133)") == ()
    (wgmma,) = simulator.names_of("h100.fp8.wgmma", (Use.parse("fp8_e5m2"), Use.parse("fp8_e4m3")))
    assert (wgmma.output, wgmma.label) == ("fp32", "verified")
    assert wgmma.but.startswith("without an addend")


@pytest.mark.parametrize(("name", "output"), MODES)
def test_every_preset_is_found_by_its_accumulator(name, output):
    spec = simulator.mac(name, output=output)
    assert (name, output) in [(n.preset, n.output) for n in simulator.names_of(spec.accumulator, spec.operands)]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("h100.fp61", "h100.fp16"),
        ("H100.fp16", "h100.fp16"),
        ("h100.fp61 -> fp16", "h100.fp16"),
        ("fp16 -> a100.pf16", "a100.fp16"),
        ("fp8_e4m3 -> h100.fp8", "h100.fp8.wgmma or h100.fp8.mma_sync"),
        ("chunk(128, h100.fp8.wgma, seq(fp32))", "h100.fp8.wgmma"),
        ("intel.avx512bf16", "intel.avx512_bf16"),
    ],
)
def test_a_misspelt_name_is_met_with_the_one_that_was_meant(text, meant):
    with pytest.raises(ValueError, match=rf"is unknown; did you mean {meant}\?"):
        simulator.mac(text)


def test_a_format_with_a_point_is_no_misspelt_preset():
    assert str(simulator.mac("fix16.8 -> fma(fp16)").operands[0]) == "fix16.8"


def test_an_output_that_a_unit_lacks_is_converted_after_it_and_refused_inside():
    spec = simulator.mac("h100.bf16 -> bf16")
    assert (str(spec.accumulator), str(spec.output)) == ("aligned(n=16, frac=25, out=fp32/rz, e_min=-133)", "bf16")
    with pytest.raises(ValueError, match="this unit's outputs are fp32; got 'bf16'"):
        simulator.mac("h100.bf16(bf16)")


# --- what single units are known for ---------------------------------------------------------------------------------


def one(name, a, b, c=None, output=None):
    spec = simulator.mac(name, output=output)
    return float(simulator.dot(np.array(a, float), np.array(b, float), spec, c=None if c is None else np.float64(c)))


def test_tensor_cores_cut_what_ieee_754_would_round():
    """2**-24 and 2**-25 beside 1: dropped by the cut at 24 bits; the last sum is cut, not rounded (Fasi et al.)."""
    assert one("v100.fp16", [1, 2.0**-12, 2.0**-12], [1, 2.0**-12, 2.0**-12]) == 1.0
    assert one("v100.fp16", [2.0**-12] * 2, [2.0**-12] * 2, c=1.0) == 1.0
    assert one("h100.fp16", [2.0**-12] * 2, [2.0**-12] * 2, c=1.0) == 1.0 + 2.0**-23
    assert one("a100.fp16", [2.0**-12] * 2, [2.0**-12] * 2, c=1.0) == 1.0 + 2.0**-23
    assert one("h100.fp16", [2.0**-12], [2.0**-12 * 1.5], c=1.0) == 1.0
    assert one("cdna3.fp32", [1.0] * 3, [1, 2.0**-24, 2.0**-23]) == 1.0 + 2.0**-23


def test_fp8_of_hopper_loses_small_products_in_a_chain_and_promotion_keeps_them():
    """Beside 1024, 13 bits end at 2**-3: each of 4,096 products of 2**-7 is cut to nothing."""
    a, b = [1.0] * 4096, [2.0**-7] * 4096
    assert one("h100.fp8.wgmma", a, b, c=1024.0) == 1024.0
    assert one("cublas.fp8.slow", a, b, c=1024.0) == 1056.0


def test_mi300_is_biased_downward():
    """A negative c of which only bits beyond the 24th are left is rounded down by a whole place."""
    up = one("cdna3.fp16", [1.0], [1.0], c=2.0**-40)
    down = one("cdna3.fp16", [1.0], [1.0], c=-(2.0**-40))
    assert (up, down) == (1.0, 1.0 - 2.0**-24)


def test_mi250_has_no_subnormals():
    assert one("cdna2.fp16", [2.0**-15], [1.0]) == 0.0
    assert one("cdna1.fp16", [2.0**-15], [1.0]) == 2.0**-15


def test_the_odd_product_of_a_pair_enters_first():
    a, b = [2.0**-24, 1.0], [1.0, 1.0]
    assert one("intel.avx512_bf16", a, b, c=2.0**-24) == 1.0
    assert one("intel.avx512_bf16", a[::-1], b[::-1], c=2.0**-24) == 1.0 + 2.0**-23


def test_arm_rounds_to_odd_without_ebf():
    assert one("arm.bfdot", [1.0, 2.0**-60], [1.0, 1.0]) == 1.0 + 2.0**-23
    assert one("arm.bfdot.ebf", [1.0, 2.0**-60], [1.0, 1.0]) == 1.0


@pytest.mark.parametrize("name", PRESETS)
def test_explain_names_the_unit_its_label_and_what_is_not_tested(name):
    spec, preset = simulator.mac(name), PRESETS[name]
    shown = explain(spec, shape=(1, 1, 0)).presets
    output, mode = next(iter(preset.outputs.items()))
    assert f"{name} with output {output}: {' '.join((mode.label, mode.but)).strip()}" in shown
    assert all(f"  not tested: {text}" in shown for text in preset.untested)


def test_explain_finds_a_unit_inside():
    shown = explain("fp8_e4m3 -> chunk(64, h100.fp8.wgmma, seq(bf16))", shape=(1, 1, 0)).presets
    step = simulator.mac("h100.fp8.wgmma").accumulator
    assert f"h100.fp8.wgmma with output fp32, its {step}: verified without an addend" in shown[0]
    assert explain("fp16 -> fma(fp16)", shape=(1, 1, 0)).presets == ()
