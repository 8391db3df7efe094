"""The public surface of the cost model: modes, estimates, refusals, warnings."""

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from simulator.arithmetic.spec import mac
from simulator.cost import Gemm, accumulation_cost, estimate, price
from simulator.errors import InputError
from simulator.hardware import MacMode, load_hardware

NPU = load_hardware("npu")


def test_accumulation_cost_is_the_ratio_of_widths_plus_the_recomputed_share():
    assert accumulation_cost(NPU, 0.3) == {"low": 0.5, "high": 1.0, "two_pass": 0.8}
    single = replace(NPU, mac=replace(NPU.mac, high=None, datapath=None), policy=None, side_engine=None)
    assert accumulation_cost(single, 0.0) == {"low": 1.0, "high": None, "two_pass": None}


def test_estimate_shows_three_modes_and_says_what_it_assumes():
    found = estimate("npu", gemm=(64, 64, 64), flagged=0.02)
    assert found.accumulation_cost["two_pass"] == pytest.approx(0.5 + 82 / 4096)
    assert found.two_pass.warnings == ("flags given as a fraction are taken as independent of each other",)
    assert found.low.warnings == ()
    assert 0 < found.break_even_flagged < 1
    single = replace(NPU, mac=replace(NPU.mac, high=None, datapath=None), policy=None, side_engine=None)
    found = estimate(single, gemm=(64, 64, 64))
    assert (found.high, found.two_pass, found.break_even_flagged) == (None, None, None)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: price(NPU, Gemm(2, 2, 2), "middle"),
            "mode: got 'middle'; expected one of low, high, two_pass; choose one",
        ),
        (
            lambda: price(NPU, Gemm(2, 2, 2), "two_pass"),
            "flags: got none for mode two_pass; expected them with two_pass only",
        ),
        (
            lambda: price(NPU, Gemm(2, 2, 2), "low", 0.5),
            "flags: got some for mode low; expected them with two_pass only",
        ),
        (
            lambda: price(NPU, Gemm(2, 2, 2), "two_pass", 1.5),
            "flags: got 1.5; expected a fraction from 0 to 1, or a bool array; give e.g. 0.02",
        ),
        (
            lambda: price(NPU, Gemm(2, 3, 2), "two_pass", np.zeros((3, 2), bool)),
            "flags: got an array of bool of shape (3, 2); expected bool of shape (1, 2, 3) or (2, 3); "
            "pass the mask of the GEMM",
        ),
        (
            lambda: price(NPU, Gemm(2, 3, 2), "two_pass", np.zeros((2, 3))),
            "flags: got an array of float64 of shape (2, 3); expected bool of shape (1, 2, 3) or (2, 3); "
            "pass the mask of the GEMM",
        ),
        (lambda: Gemm(0, 1, 1), "gemm: m: got 0; expected a whole number from 1 to 1073741824; give e.g. 64"),
        (
            lambda: estimate(NPU, gemm=(2**40, 64, 64)),
            "gemm: m: got 1099511627776; expected a whole number from 1 to 1073741824; give e.g. 64",
        ),
        (
            lambda: estimate(NPU, gemm=(1, 2)),
            "gemm: got (1, 2); expected three whole numbers (M, N, K); give e.g. (64, 64, 64)",
        ),
    ],
)
def test_bad_calls_are_refused_with_what_was_expected(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value) == message


def test_operands_without_a_format_are_priced_as_fp32_and_said_so():
    low = MacMode(replace(NPU.mac.low.spec, operands=None), 4)
    cost = price(replace(NPU, mac=replace(NPU.mac, low=low)), Gemm(16, 16, 64), "low")
    assert cost.warnings == ("the MAC names no operand formats: operands are priced as fp32, 32 bit each",)
    assert cost.traffic_bits["dram"] == 2 * 16 * 64 * 32 + 16 * 16 * 8


def test_an_exact_accumulator_says_when_a_sum_may_outgrow_it():
    low = MacMode(mac("fp8_e4m3 -> exact(fp16)"), 4)
    machine = replace(NPU, mac=replace(NPU.mac, low=low))
    assert low.accumulator_bits == 37 + 16
    assert price(machine, Gemm(4, 4, 2**16), "low").warnings == ()
    assert price(machine, Gemm(4, 4, 2**16 + 1), "low").warnings == (
        "the exact accumulator is priced with room for 2**16 products, and K is 65537",
    )


@pytest.mark.parametrize("shape", [(10**7, 10**7, 64), (10**5, 10**5, 10**5), (2**30, 2**30, 2**30)])
def test_a_large_product_is_priced_without_a_walk_over_its_tiles(shape):
    tracemalloc.start()
    try:
        found = estimate("npu", gemm=shape, flagged=0.1)
        assert tracemalloc.get_traced_memory()[1] < 10**7
    finally:
        tracemalloc.stop()
    assert found.low.cycles >= math.prod(shape) / 1024
    assert found.two_pass.flagged_outputs == pytest.approx(0.1 * shape[0] * shape[1])
    assert found.two_pass.cycles >= found.low.cycles


def test_shapes_may_be_numpy_integers():
    gemm = Gemm(np.int32(2**20), np.int32(2**20), np.int64(2**20))
    assert gemm.macs == 2**60
    assert type(gemm.m) is int
