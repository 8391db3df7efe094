"""The vector unit: elementary operations and passes counted by hand, and what every price must keep to."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from formats import get
from simulator.cost import KINDS, VectorOperation, vector_price, vector_unit, why_unpriced
from simulator.cost.vector_unit import ELEMENTWISE
from simulator.errors import InputError
from simulator.hardware import Level, VectorUnit
from tests.oracles.machines import NPU, memory_of

FP32 = get("fp32")

# Of one element and of one row: additions, multiplications, fused multiply-adds; how often an element is read, and how
# often written besides the results. Counted by hand from the formulas, a function 8 fused, a reciprocal or root 4.
BY_HAND = {
    "move": ((0, 0, 0), (0, 0, 0), 1, 0),
    "elementwise": ((1, 0, 0), (0, 0, 0), 1, 0),
    "multiply": ((0, 1, 0), (0, 0, 0), 1, 0),
    "multiply_add": ((0, 0, 1), (0, 0, 0), 1, 0),
    "divide": ((0, 1, 4), (0, 0, 0), 1, 0),  # by the reciprocal
    "square_root": ((0, 1, 4), (0, 0, 0), 1, 0),  # x / sqrt(x)
    "function": ((0, 0, 8), (0, 0, 0), 1, 0),
    "power": ((0, 1, 16), (0, 0, 0), 1, 0),  # exp(y log x)
    "relu": ((1, 0, 0), (0, 0, 0), 1, 0),
    "clamp": ((2, 0, 0), (0, 0, 0), 1, 0),
    "leaky_relu": ((1, 1, 0), (0, 0, 0), 1, 0),
    "hardswish": ((3, 2, 0), (0, 0, 0), 1, 0),  # x min(max(x + 3, 0), 6) times 1/6
    "sigmoid": ((1, 0, 12), (0, 0, 0), 1, 0),  # 1 / (exp(-x) + 1)
    "tanh": ((1, 1, 13), (0, 0, 0), 1, 0),  # 1 - 2 / (exp(2x) + 1)
    "silu": ((1, 1, 12), (0, 0, 0), 1, 0),
    "gelu": ((0, 2, 9), (0, 0, 0), 1, 0),  # h = x/2, h + h erf(x / sqrt 2)
    "elu": ((2, 1, 8), (0, 0, 0), 1, 0),  # a (exp(x) - 1), or x
    "softplus": ((2, 0, 16), (0, 0, 0), 1, 0),
    "mish": ((2, 2, 29), (0, 0, 0), 1, 0),  # x tanh(log(exp(x) + 1))
    # Gradients times g, of what the forward pass keeps: y of sigmoid and tanh, x of the others.
    "sigmoid_backward": ((1, 2, 0), (0, 0, 0), 1, 0),  # g y (1 - y)
    "tanh_backward": ((0, 1, 1), (0, 0, 0), 1, 0),  # g (1 - y y)
    "silu_backward": ((2, 2, 13), (0, 0, 0), 1, 0),  # s = sigmoid(x), g s (1 + x (1 - s))
    # x / sqrt 2; erf; half of it and a half; x x; times -1/2; exp; times x's factor; both together; times g
    "gelu_backward": ((0, 5, 18), (0, 0, 0), 1, 0),
    "mish_backward": ((3, 3, 43), (0, 0, 0), 1, 0),  # t = tanh(softplus(x)), g (t + (x sigmoid(x)) (1 - t t))
    "dropout": ((1, 1, 0), (0, 0, 0), 1, 0),
    "sum": ((1, 0, 0), (0, 0, 0), 1, 0),
    "mean": ((1, 0, 0), (0, 1, 0), 1, 0),
    "maximum": ((1, 0, 0), (0, 0, 0), 1, 0),
    "product": ((0, 1, 0), (0, 0, 0), 1, 0),
    "norm": ((0, 0, 1), (0, 1, 4), 1, 0),  # s = sum of x x, s / sqrt(s)
    "variance": ((2, 0, 1), (0, 2, 0), 2, 0),  # add, times 1/n; subtract, square and add, times 1/n
    "log_sum_exp": ((3, 0, 8), (1, 0, 8), 2, 0),  # max; subtract, exp, add; log of the sum, plus the maximum
    "softmax": ((3, 1, 8), (0, 0, 4), 3, 1),  # max; subtract, exp, keep, add; times the reciprocal of the sum
    "log_softmax": ((4, 0, 8), (1, 0, 8), 3, 0),
    # Of two operands, g and y, which are read once each to begin with: s = sum of g y, then y (g - s) reads both again;
    # s = sum of g, then g - exp(y) s reads g again and y for the first time.
    "softmax_backward": ((1, 1, 1), (0, 0, 0), 3, 0),
    "log_softmax_backward": ((1, 0, 9), (0, 0, 0), 2, 0),
    "scale_and_shift": ((0, 0, 1), (0, 0, 0), 1, 0),
    "normalisation": ((2, 0, 3), (0, 2, 5), 3, 0),  # add; subtract, square and add; scale and shift; affine
    "rms_norm": ((0, 2, 1), (0, 0, 5), 2, 0),  # s = sum of x x, r = 1 / sqrt(s/n + e); x r c
    # Of g and x, with weights c: x' = r x - r mean, h = c g, sums of h, h x', g x' and g; both again: r h + (p + q x)
    "normalisation_backward": ((2, 2, 5), (0, 0, 0), 3, 0),
    "weight_norm": ((0, 1, 1), (0, 1, 4), 2, 0),  # s = sum of x x, g / sqrt(s); times x
    "max_pool": ((1, 0, 0), (0, 0, 0), 1, 0),
    "average_pool": ((1, 0, 0), (0, 1, 0), 1, 0),
    "interpolation": ((0, 0, 1), (0, 0, 0), 1, 0),
}


def machine(lanes=4, energy_j=1.0, memory=NPU.memory):
    return replace(NPU, vector_unit=VectorUnit(lanes=lanes, energy_j=energy_j), memory=memory)


def memory(size_bits=10**9, read=10**9, write=10**9, read_j=0.0, write_j=0.0, dram=10**9, dram_j=0.0, latency=0):
    """A memory that costs nothing but what is said."""
    buffer = Level("sram", size_bits, ("a", "w", "o"), 2, Fraction(read), Fraction(write),
                   read_j_per_bit=read_j, write_j_per_bit=write_j)  # fmt: skip
    return memory_of(buffer, bandwidth=dram, latency=latency, dram_j=dram_j)


def test_all_kinds_are_counted_by_hand():
    assert set(BY_HAND) == set(KINDS)


@pytest.mark.parametrize("kind", BY_HAND)
def test_steps_and_passes_are_those_counted_by_hand(kind):
    element, row, passes, kept = BY_HAND[kind]
    one = VectorOperation(kind, elements=100, rows=7, inputs=100, outputs=50, parameters=3)
    wanted = [100 * a + 7 * b for a, b in zip(element, row, strict=True)]
    cost = vector_price(machine(memory=None), one, FP32)
    assert [cost.steps.add, cost.steps.multiply, cost.steps.fma] == wanted
    assert cost.cycles == cost.roofline_cycles == -(-sum(wanted) // 4)
    assert cost.energy_j == sum(wanted)  # at one joule a step
    assert cost.latency_s == cost.cycles / 1e9
    moved = vector_price(machine(memory=memory()), one, FP32).traffic_bits
    assert moved == {"dram": 0, "sram_reads": 32 * (103 + (passes - 1) * 100), "sram_writes": 32 * (50 + kept * 100)}


def test_elementwise_are_the_kinds_of_one_pass_without_rows_but_those_that_make_other_than_one_element_of_each():
    alone = {kind for kind, (_, row, passes, kept) in BY_HAND.items() if (row, passes, kept) == ((0, 0, 0), 1, 0)}
    assert alone >= ELEMENTWISE
    # Values that are only moved, results of many elements, and of a few that are weighed.
    assert alone - ELEMENTWISE == {"move", "sum", "maximum", "product", "max_pool", "interpolation"}


def test_the_slowest_of_lanes_ports_and_dram_sets_the_cycles():
    one = VectorOperation("multiply", 1000, 0, 2000, 1000)  # 64,000 bits in, 32,000 out
    assert vector_price(machine(4, memory=memory()), one, FP32).cycles == 250
    assert vector_price(machine(4, memory=memory(read=128)), one, FP32).cycles == 500
    assert vector_price(machine(4, memory=memory(write=32)), one, FP32).cycles == 1000
    assert vector_price(machine(4, memory=memory(95_999, dram=64)), one, FP32).cycles == 1500
    assert vector_price(machine(4, memory=memory(96_000, dram=64)), one, FP32).cycles == 250  # all of it fits


def test_what_does_not_fit_comes_from_the_dram_once_whatever_the_passes():
    one = VectorOperation("softmax", 1000, 10, 1000, 1000)
    fits = vector_price(machine(memory=memory(64_000, read_j=1.0, write_j=0.5, dram_j=2.0, latency=100)), one, FP32)
    assert fits.traffic_bits == {"dram": 0, "sram_reads": 3 * 32_000, "sram_writes": 2 * 32_000}
    assert fits.energy_j == 12_040 + 96_000 + 32_000 and fits.cycles == fits.roofline_cycles == 3010
    large = vector_price(machine(memory=memory(63_999, read_j=1.0, write_j=0.5, dram_j=2.0, latency=100)), one, FP32)
    # The buffer is filled with what comes, and read for what goes.
    assert large.traffic_bits == {"dram": 64_000, "sram_reads": 4 * 32_000, "sram_writes": 3 * 32_000}
    assert large.energy_j == 12_040 + 128_000 + 48_000 + 128_000
    assert (large.cycles, large.roofline_cycles) == (3210, 3010)


def test_levels_further_out_are_passed_through_once_by_what_is_too_large_for_those_within():
    one = VectorOperation("softmax", 1000, 10, 1000, 1000)  # 64,000 bits
    inner = memory(1000, dram=32)
    for size, to_dram, cycles in ((64_000, 0, 1000), (63_999, 32_000, 2000)):
        outer = replace(inner.buffers[0], name="l2", size_bits=size, read_bits_per_cycle=Fraction(32))
        cost = vector_price(machine(4096, memory=replace(inner, staging=(outer,))), one, FP32)
        assert cost.traffic_bits == {
            "dram": 2 * to_dram, "sram_reads": 4 * 32_000, "sram_writes": 3 * 32_000,
            "l2_reads": 32_000 + to_dram, "l2_writes": 32_000 + to_dram,
        }  # fmt: skip
        assert cost.cycles == cycles  # of the port of the outer level, or of the DRAM


@pytest.mark.parametrize(
    ("form", "add_pj", "multiply_pj"),
    [
        ("fp32", 24 * 14.5e-3, (24**2 * 1.89 + 32 * 7.0) * 1e-3),
        ("bf16", 8 * 14.5e-3, (8**2 * 1.89 + 16 * 7.0) * 1e-3),
        ("int8", 8 * 0.9e-3, 8**2 * 1.1e-3),
    ],
)
def test_energies_of_additions_and_multiplications_follow_from_the_format(form, add_pj, multiply_pj):
    unit = machine(energy_j=None, memory=None)
    for kind, wanted in (
        ("elementwise", add_pj), ("multiply", multiply_pj), ("scale_and_shift", add_pj + multiply_pj),
    ):  # fmt: skip
        cost = vector_price(unit, VectorOperation(kind, 1000, 0, 1000, 1000), get(form))
        assert cost.energy_j == pytest.approx(1000 * wanted * 1e-12, rel=1e-12)
        assert (cost.energy_low_j, cost.energy_high_j) == pytest.approx((cost.energy_j / 4, cost.energy_j * 4))
        assert cost.energy_basis == "vector unit assumed x/÷ 4"


def test_energies_at_7_nm_are_near_the_published_ones():
    """0.38 pJ an fp32 addition, 1.31 a multiplication (Jouppi et al., ISCA 2021, table 2)."""
    unit = machine(energy_j=None, memory=None)
    add, multiply = (
        vector_price(unit, VectorOperation(kind, 1, 0, 1, 1), FP32).energy_j * 1e12 for kind in ("relu", "multiply")
    )
    assert add == pytest.approx(0.38, rel=0.1) and multiply == pytest.approx(1.31, rel=0.01)


def test_an_energy_of_the_file_has_no_band_and_static_power_is_paid_for_the_cycles():
    cost = vector_price(machine(memory=None), VectorOperation("relu", 8, 0, 8, 8), FP32)
    assert cost.energy_low_j == cost.energy_j == cost.energy_high_j == 8
    assert cost.energy_basis == "vector unit user x/÷ 1"
    leaks = replace(machine(memory=None), technology=replace(NPU.technology, leakage_w=3e9))
    assert vector_price(leaks, VectorOperation("relu", 8, 0, 8, 8), FP32).energy_j == 8 + 3e9 * 2 / 1e9


def test_a_unit_without_lanes_or_a_format_without_a_price_is_refused(monkeypatch):
    one = VectorOperation("relu", 8, 0, 8, 8)
    with pytest.raises(InputError, match=r"npu.yaml: vector_unit: the machine gives no lanes; add vector_unit.lanes"):
        vector_price(replace(NPU, vector_unit=VectorUnit()), one, FP32)
    monkeypatch.setattr(vector_unit, "lane_energies", lambda table, fmt: None)
    with pytest.raises(InputError, match=r"no price for posit8; add vector_unit.energy"):
        vector_price(machine(energy_j=None), one, get("posit8"))
    assert why_unpriced(machine(), get("posit8")) == ""
    monkeypatch.undo()
    assert why_unpriced(NPU, FP32) == why_unpriced(NPU, get("posit8")) == ""


sizes = st.integers(0, 10**7)
operations = st.builds(VectorOperation, st.sampled_from(sorted(KINDS)), sizes, sizes, sizes, sizes, sizes)
lanes = st.integers(1, 4096)


@given(operations, lanes, lanes)
def test_more_lanes_are_never_slower_and_change_no_energy(one, some, more):
    few, many = (vector_price(machine(count), one, FP32) for count in (some, some + more))
    assert many.cycles <= few.cycles and many.energy_j == few.energy_j and many.traffic_bits == few.traffic_bits


@given(operations, sizes, sizes, sizes, sizes, lanes)
def test_more_elements_are_never_cheaper(one, elements, rows, inputs, outputs, count):
    more = one.joined(VectorOperation(one.kind, elements, rows, inputs, outputs))
    small, large = (vector_price(machine(count, None), each, FP32) for each in (one, more))
    assert small.cycles <= large.cycles and small.roofline_cycles <= large.roofline_cycles
    assert small.energy_j <= large.energy_j * (1 + 1e-12)
    assert all(small.traffic_bits[level] <= large.traffic_bits[level] for level in small.traffic_bits)


@given(operations, lanes)
def test_the_roofline_is_a_lower_bound_and_the_bounds_of_energy_contain_it(one, count):
    cost = vector_price(machine(count, None), one, FP32)
    assert cost.roofline_cycles <= cost.cycles
    assert cost.energy_low_j <= cost.energy_j <= cost.energy_high_j


@given(operations)
def test_twice_the_bits_are_twice_the_traffic(one):
    roomy = machine(memory=memory(10**12))
    narrow, wide = (vector_price(roomy, one, get(name)).traffic_bits for name in ("bf16", "fp32"))
    assert wide == {level: 2 * bits for level, bits in narrow.items()}


@given(operations, st.lists(operations, max_size=3))
def test_samples_of_several_batches_are_one_batch(one, others):
    """Elements add up; what all samples share is there once."""
    whole = one
    for other in others:
        whole = whole.joined(replace(other, kind=one.kind))
    for name in ("elements", "rows", "inputs", "outputs"):
        assert getattr(whole, name) == sum(getattr(each, name) for each in (one, *others))
    assert whole.parameters == max(each.parameters for each in (one, *others))
