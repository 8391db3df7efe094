"""explain: what it says is what happens, and its argument stands."""

import json
import re

import numpy as np
import pytest

import formats
import native
import simulator
from simulator.arithmetic.accumulators import Fma
from simulator.arithmetic.engine import Accumulation
from simulator.arithmetic.explain import duration
from simulator.arithmetic.kernels import KERNELS

SHAPE = (5, 6, 7)
SPECS = [
    "fp8_e4m3 -> fma(fp16)", "fp16 -> fma(fp16)", "fp16 -> seq(fp16)", "fp8_e4m3 -> exact(fp32)", "fma(fp16)",
    "bf16 -> kahan(bf16)", "int8 -> fixed(32, 0, wrap)", "posit16 -> fma(posit16)", "mxfp8_e4m3 -> fma(fp32)",
    "fp16 -> chunk(4, interleave(2, fma(fp16), seq(fp16)), tree(fp32))", "h100.fp16", "fp64 -> late(neumaier(fp64))",
]  # fmt: skip


@pytest.mark.parametrize("spec", SPECS)
def test_the_kernel_holds_and_the_cheaper_ones_say_what_fails(spec):
    told = simulator.explain(spec, SHAPE, threads=1)
    names = [kernel.name for kernel in KERNELS]
    assert names.index(told.kernel) > max((names.index(refusal.kernel) for refusal in told.refused), default=-1)
    assert told.argument and all(refusal.clauses for refusal in told.refused)
    assert told.isa == native.isa() and told.threads == 1 and told.shape == SHAPE
    assert told.ns_per_mac > 0 and told.seconds == pytest.approx(told.ns_per_mac * 1e-9 * 5 * 6 * 7)
    assert told.spec == str(simulator.mac(spec))
    text = str(told)
    assert all(part in text for part in (told.spec, told.kernel, *told.argument, *told.order))


@pytest.mark.parametrize("spec", SPECS)
def test_with_operands_it_names_the_kernel_that_runs(spec):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((5, 7)), rng.standard_normal((7, 6))
    told = simulator.explain(spec, a=a, b=b, c=np.ones(6))
    assert told.kernel == simulator.matmul(a, b, spec, c=np.ones(6), stats="overflows")[1].kernel
    assert told.operands == "these operands" and told.shape == SHAPE


@pytest.mark.parametrize(
    "name", ["fp8_e4m3", "fp16", "bf16", "fp32", "int8", "posit8", "posit16", "fix16.8", "int32", "takum32"]
)
def test_any_values_of_a_format_keep_within_what_was_reckoned_with(name):
    """The kernel for all values of a format holds for extreme ones."""
    fmt = formats.get(name)
    extremes = [fmt.max, fmt.smallest_subnormal, -fmt.max, 1.0]
    a = np.array([fmt.quantize(extremes), fmt.quantize([1.7, -0.3, 2.9, 1e-3])])
    told = simulator.explain(f"{name} -> fma(fp32)", (2, 2, 4))
    work = Accumulation(simulator.mac(f"{name} -> fma(fp32)"), a, a.T.copy(), None)
    (kernel,) = (kernel for kernel in KERNELS if kernel.name == told.kernel)
    assert all(clause.holds for clause in kernel.condition(work.situation))


def test_what_has_no_kernel_is_left_to_the_definition():
    halves = formats.Use(formats.CodebookFormat("halves", [-0.5, 0.0, 0.5]))
    told = simulator.explain(Fma(halves), (2, 2, 2))
    assert (told.kernel, told.isa) == ("definition", "none")
    assert told.refused[-1].clauses == ("every rounding is into a float, posit, takum or fixed point; halves is none",)


@pytest.mark.parametrize("shape", [(0, 4, 4), (4, 0, 4), (4, 4, 0)])
def test_empty_products_take_no_time(shape):
    assert simulator.explain("fma(fp16)", shape).seconds == 0.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (2, 3)}, "the shape is (M, N, K), three whole numbers from 0; got (2, 3)"),
        ({"shape": (2, 3, -1)}, "three whole numbers from 0; got (2, 3, -1)"),
        ({"shape": 5}, "three whole numbers from 0; got 5"),
        ({"shape": (2, 2, 2), "threads": 0}, "threads: got 0; expected a whole number from 1"),
        (
            {"a": np.ones((2, 3)), "b": np.ones((2, 3))},
            "explain: a (2, 3) and b (2, 3) do not fit; expected (M, K) and (K, N)",
        ),
        ({}, "expected a shape (M, N, K), or the operands a and b"),
        ({"a": np.ones((2, 2))}, "expected a shape (M, N, K), or the operands a and b"),
        (
            {"shape": (2, 2, 2), "a": np.ones((2, 2)), "b": np.ones((2, 2))},
            "expected a shape (M, N, K), or the operands",
        ),
    ],
)
def test_shapes_that_are_none_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        simulator.explain("fma(fp16)", **arguments)


def test_orders_in_words():
    order = simulator.explain("chunk(8, interleave(2, fma(fp16), seq(fp16)), tree(fp32, 4))", SHAPE).order
    assert order == (
        "runs of 8 consecutive products, each from +0:",
        "  2 lanes take the products by turns, each from +0:",
        "    each product, exact, added to the state, one rounding into fp16; in order",
        "  the lanes' results, in order:",
        "    each added to the state, rounded into fp16; in order",
        "their results, in order:",
        "  neighbours in groups of 4, level by level, each sum rounded once into fp32",
        "an addend joins the result, rounded once more",
    )


def test_the_command_prints_text_and_records(command):
    code, text, _ = command("explain", "fp8_e4m3 -> fma(fp16)", "--shape", "8", "8", "8")
    assert code == 0 and text.startswith("fp8_e4m3 -> fma(fp16)\n  (8 x 8) x (8 x 8), any fp8_e4m3\n")
    record = json.loads(command("explain", "h100.fp16", "--shape", "4", "4", "32", "--json")[1])
    assert record["shape"] == [4, 4, 32] and record["spec"].startswith("fp16 -> aligned(n=16, frac=25")


def test_the_command_refuses_what_is_no_mac(command):
    assert command("explain", "fam(fp16)") == (
        2, "", "ulpsim: error: explain: accumulator 'fam' is unknown; did you mean fma?\n"
    )  # fmt: skip


def test_the_command_names_itself_once(command):
    code, _, err = command("explain", "fma(fp16)", "--shape", "-1", "8", "8")
    assert code == 2 and err.startswith("ulpsim: error: explain: the shape is (M, N, K)")


def test_any_operands_may_be_the_largest_in_every_place():
    """The norm of a row is not that of the format's list of values."""
    short, long = (simulator.explain("fp8_e4m3 -> fma(fp16)", (4, 4, k)).spared for k in (1, 784))
    assert not any("overflows" in text for text in (*short, *long))
    assert any("overflows" in text for text in simulator.explain("fp4_e2m1 -> fma(fp16)", (4, 4, 511)).spared)
    assert not any("overflows" in text for text in simulator.explain("fp4_e2m1 -> fma(fp16)", (4, 4, 512)).spared)


def test_operands_at_hand_are_looked_at():
    x = np.ones((4, 784))
    told = simulator.explain("fp8_e4m3 -> fma(fp16)", a=x, b=x.T)
    assert told.spared[0] == "no sum overflows: |c| + 2 sum|a*b| <= 1568 <= 65504, all finite"
    assert "leaves work out of each step because\n    no sum overflows" in str(told)
    assert simulator.explain("exact(fp32)", a=x, b=x.T).spared == ()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3.14159e-9, "3.1 ns"), (1.234e-4, "120 us"), (0.0999, "100 ms"), (12.34, "12 s"), (4567.0, "4600 s")],
)
def test_times_have_two_digits_and_no_power_of_ten(seconds, words):
    assert duration(seconds) == words
