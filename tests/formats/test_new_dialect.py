"""A float dialect that no catalogue has is one call: 1-4-3 with bias 11 and no infinities, every code and every tie."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

import formats
from formats import FloatFormat
from tests.oracles.bits import assert_same_bits

WAYS = {
    "by its name": lambda: formats.get("e4m3:fn:b11"),
    "as a record": lambda: FloatFormat("mine8", 4, 3, bias=11, dialect="fn"),
}


def expected(code):
    """Value of a code by the rule of IEEE 754 with bias 11; all ones is NaN in both signs, as in OCP E4M3."""
    exponent, fraction = code >> 3 & 15, code & 7
    if (exponent, fraction) == (15, 7):
        return math.nan
    magnitude = (8 * bool(exponent) + fraction) * 2.0 ** (max(exponent, 1) - 11 - 3)
    return -magnitude if code >> 7 else magnitude


@pytest.fixture(params=WAYS.values(), ids=WAYS)
def fmt(request):
    return request.param()


def test_every_code_of_the_new_dialect_means_what_was_asked_for(fmt):
    assert_same_bits(fmt.table(), [expected(code) for code in range(256)])
    assert fmt.encode(fmt.table()[:127]).tolist() == list(range(127))
    assert (fmt.max, fmt.smallest_normal, fmt.smallest_subnormal) == (28.0, 2.0**-10, 2.0**-13)


def test_every_tie_of_the_new_dialect_and_its_neighbours_are_rounded_to_even(fmt):
    values = [expected(code) for code in range(127)]
    for code, (low, high) in enumerate(itertools.pairwise(values)):
        tie = float((Fraction(low) + Fraction(high)) / 2)
        even = (low, high)[code % 2]
        x = np.array([math.nextafter(tie, 0), tie, math.nextafter(tie, 99)])
        assert_same_bits(fmt.quantize(np.concatenate([x, -x])), [low, even, high, -low, -even, -high], note=tie.hex())


def test_the_new_dialect_has_no_infinities(fmt):
    assert_same_bits(fmt.quantize([math.inf, 100.0, -math.inf]), [math.nan] * 3)
    assert_same_bits(fmt.quantize([math.inf, 100.0, -math.inf], overflow="sat"), [28.0, 28.0, -28.0])
