"""The kernels' conditions: each clause holds at its bound and refuses one step beyond it."""

import math
from dataclasses import replace

import pytest

import formats
import simulator
from native.matmul import Profile
from simulator.arithmetic.accumulators import Fma
from simulator.arithmetic.kernels import KERNELS, choose, kernel_named
from simulator.arithmetic.lowering import lower
from simulator.arithmetic.situation import Situation


def operand(high=0, last=0, bits=1, finite=True, minus_zero=False, square=math.inf):
    """Profile of an operand: largest exponent, smallest last bit, most significant bits, sum of a row's squares."""
    return Profile(high, last, bits, finite, True, minus_zero, square)


def situation(accumulator, a, b=None, c=None, k=1, wide=False):
    mac = simulator.mac(accumulator)
    return Situation(lower(mac.accumulator, mac.operands), a, a if b is None else b, c, k, wide)


def failing(kernel, where):
    return [clause.text for clause in kernel_named(kernel).condition(where) if not clause.holds]


ONE = operand()
# Products down to 2^-40: sums are never exact in float32 lanes, so that the other clauses decide.
DEEP = operand(3, -20, 4)
DEEPER = operand(3, -60, 4)

# id: kernel, situation just inside, situation just outside, part of the clause that then fails
BOUNDS = {
    "float32_fma: p = 11": (
        "float32_fma",
        situation("fma(e8m10)", DEEP, k=999),
        situation("fma(e8m11)", DEEP, k=999),
        "or term fits, 8 <= p = 12, and 24 >= 2*12 + 2",
    ),
    "float32_fma: product fits p bits": (
        "float32_fma",
        situation("fma(e8m10)", operand(3, -20, 6), operand(3, -20, 5), k=999),
        situation("fma(e8m10)", operand(3, -20, 6), operand(3, -20, 6), k=999),
        "term fits, 12 <= p = 11",
    ),
    "float32_fma: sums of subnormals exact": (
        "float32_fma",
        situation("fma(fp16)", operand(3, -19, 4), k=999),  # last bits at 2^-38 = 2^(-14 - 24)
        situation("fma(fp16)", operand(3, -20, 4), operand(3, -19, 4), k=999),
        "or term fits, 8 <= p = 11",
    ),
    "float32_fma: exact sums need no other clause": (
        "float32_fma",
        situation("fma(e8m20)", operand(3, 0, 4), k=2**14),  # 2^(8+1+14), doubled: 2^24
        situation("fma(e8m20)", operand(3, 0, 4), k=2**15),
        "bits <= 24",
    ),
    "float32_fma: rounding constant": (
        "float32_fma",
        situation("fma(bf16)", operand(54, 51, 4), operand(54, 51, 4)),  # |s + t| < 3 * 2^110
        situation("fma(bf16)", operand(55, 51, 4), operand(54, 51, 4)),
        "sum below 2^113 <= 2^112, where the rounding constant works",
    ),
    "float32_fma: last product bit": (
        "float32_fma",
        situation("fma(tf32)", operand(-70, -75, 3), operand(-70, -74, 3)),
        situation("fma(tf32)", operand(-70, -75, 3)),
        "last bit 2^-150 >= 2^-149",
    ),
    "float32_fma: addend": (
        "float32_fma",
        situation("fma(e8m11)", operand(0, -5, 6), c=operand(12, 10, 3)),
        situation("fma(e8m11)", operand(0, -5, 6), c=operand(13, 10, 3)),
        "is 25 bits <= 24",
    ),
    "float32_fma: term of n bits": (
        "float32_fma",
        situation("fma(fp16)", operand(0, -12, 6), operand(0, -5, 6), k=999),
        situation("fma(fp16)", operand(0, -12, 6), operand(0, -5, 7), k=999),
        "or 24 >= 13 + 11 + 1",
    ),
    "float32_fma: no state is hidden behind a term": (
        "float32_fma",
        situation("fma(fp8_e4m3)", operand(6, -9, 4), operand(6, -9, 4), k=999),
        situation("fma(fp8_e4m3)", operand(7, -9, 4), operand(6, -9, 4), k=999),
        "hide no state from 2^-9: 24 < 24",
    ),
    "float32_fma: the norms of rows and columns bound exact sums": (
        "float32_fma",
        situation("fma(e8m20)", operand(3, 0, 4, square=2.0**22), operand(3, 0, 4, square=2.0**22), k=2**20),
        situation("fma(e8m20)", operand(3, 0, 4, square=2.0**23), operand(3, 0, 4, square=2.0**23), k=2**20),
        "is 25 bits <= 24",
    ),
    "float32_fma: products that a seq need not round: bits": (
        "float32_fma",
        situation("seq(e8m10)", operand(0, -5, 6), operand(0, -5, 5)),
        situation("seq(e8m10)", operand(0, -5, 6)),
        "products are values of tf32, all finite: 12 bits <= 11",
    ),
    "float32_fma: products that a seq need not round: last bit": (
        "float32_fma",
        situation("seq(fp16)", operand(0, -12, 3)),
        situation("seq(fp16)", operand(0, -12, 3), operand(0, -13, 3)),
        "last bit 2^-25 >= 2^-24",
    ),
    "float32_fma: products that a seq need not round: largest": (
        "float32_fma",
        situation("seq(fp16)", operand(7, 5, 3), operand(6, 5, 2)),
        situation("seq(fp16)", operand(7, 5, 3), operand(7, 5, 2)),
        "below 2^16 <= 65504",
    ),
    "float32_fma: products that a seq need not round: finite": (
        "float32_fma",
        situation("seq(fp16)", ONE),
        situation("seq(fp16)", operand(finite=False), ONE),
        "products are values of fp16, all finite",
    ),
    "float32_fma: infinities may saturate": (
        "float32_fma",
        situation("fma(bf16)", operand(finite=False), ONE),
        situation("fma(bf16/sat)", operand(finite=False), ONE),
        "sum below 2^128 <= 2^112",
    ),
    "float32_exact: all partial sums exact": (
        "float32_exact",
        situation("exact(fp16)", operand(3, -4, 4), operand(3, -4, 4), k=2**8),
        situation("exact(fp16)", operand(3, -4, 4), operand(3, -4, 4), k=2**8 + 1),
        "all partial sums exact: 2^17 down to 2^-8 is 25 bits <= 24",
    ),
    "float32_exact: the norms of rows and columns": (
        "float32_exact",
        situation("exact(fp16)", operand(3, -4, 4, square=2.0**16), operand(3, -4, 4, square=2.0**15.5), k=2**9),
        situation("exact(fp16)", operand(3, -4, 4, square=2.0**16), operand(3, -4, 4, square=2.0**16.5), k=2**9),
        "is 25 bits <= 24",
    ),
    "float32_exact: addend": (
        "float32_exact",
        situation("exact(fp16)", ONE, c=operand(0, -21, 3)),
        situation("exact(fp16)", ONE, c=operand(0, -22, 3)),
        "is 25 bits <= 24",
    ),
    "float32_fma: operands of float32": (
        "float32_fma",
        situation("fma(fp16)", ONE),
        situation("fma(fp16)", ONE, wide=True),
        "operands are float32 values",
    ),
    "float32_fma: subnormals": (
        "float32_fma",
        situation("fma(fp16)", ONE),
        situation("fma(fp16:ftz)", ONE),
        "e5m10:ftz keeps a sign, subnormals and -0",
    ),
    "float32_fma: signed zero": (
        "float32_fma",
        situation("fma(fp8_e4m3)", ONE),
        situation("fma(fp8_e4m3fnuz)", ONE),
        "fp8_e4m3fnuz keeps a sign, subnormals and -0",
    ),
    "float32_fma: two significand bits": (
        "float32_fma",
        situation("fma(e5m1)", ONE),
        situation("fma(e5m0)", ONE),
        "e5m0 keeps a sign, subnormals and -0, p >= 2",
    ),
    "float32_fma: a sign": (
        "float32_fma",
        situation("fma(fp8_e4m3)", ONE),
        situation("fma(ue4m3)", ONE),
        "ue4m3 keeps a sign",
    ),
    "float32_fma: round to nearest even": (
        "float32_fma",
        situation("fma(fp16/rne)", ONE),
        situation("fma(fp16/rz)", ONE),
        "fp16/rz rounds to nearest, ties to even",
    ),
    "float32_seq: product rounded to nearest even": (
        "float32_seq",
        situation("seq(fp16)", ONE),
        situation("seq(fp16/rna, fp16)", ONE),
        "fp16/rna rounds to nearest, ties to even",
    ),
    "float32_fma: infinities overflow": (
        "float32_fma",
        situation("fma(fp16/sat)", ONE),
        situation("fma(fp16/satprop)", ONE),
        "fp16/satprop treats infinities as overflow",
    ),
    "float32_fma: joined with round to nearest even": (
        "float32_fma",
        situation("chunk(2, fma(fp16), seq(fp16))", ONE),
        situation("chunk(2, fma(fp16), seq(fp16/odd))", ONE),
        "fp16/odd rounds to nearest, ties to even",
    ),
    "float32_fma: normal values are normal in float32": (
        "float32_fma",
        situation("fma(e8m7)", ONE),
        situation("fma(e8m7:b128)", ONE),
        "e8m7:b128 in a float32 lane",
    ),
    "float32_fma: the largest value is a float32": (
        "float32_fma",
        situation("fma(e8m5)", ONE),
        situation("fma(e9m5:b127)", ONE),
        "< 2^128",
    ),
    "float32_fma: leaf with runs of runs": (
        "float32_fma",
        situation("chunk(2, chunk(2, fma(fp16), seq(fp16)), seq(fp16))", ONE),
        situation("chunk(2, fma(fp16), chunk(2, fma(fp16), seq(fp16)))", ONE),
        "products come in order, in runs that are joined by single sums if at all",
    ),
    "float32_fma: joined runs": (
        "float32_fma",
        situation("chunk(2, fma(bf16), fma(bf16))", operand(53, 50, 4), k=2),
        situation("chunk(2, fma(bf16), fma(bf16))", operand(54, 50, 4), operand(53, 50, 4), k=2),
        "joined runs of 2 below",
    ),
    "float32_seq: exact product": (
        "float32_seq",
        situation("seq(fp16)", operand(0, -11, 12)),
        situation("seq(fp16)", operand(0, -12, 13), operand(0, -11, 12)),
        "product exact: 25 bits <= 24",
    ),
    "float32_seq: p = 11": (
        "float32_seq",
        situation("seq(e8m10)", operand(3, -20, 12), k=999),
        situation("seq(e8m11)", operand(3, -20, 12), k=999),
        "24 >= 2*12 + 2",
    ),
    "float32_seq: product format no wider than the sum": (
        "float32_seq",
        situation("seq(e8m10, e8m10)", operand(3, -20, 12), k=999),
        situation("seq(e8m10, e8m9)", operand(3, -20, 12), k=999),
        "term fits, 11 <= p = 10",
    ),
    "float32_seq: a saturated product has the bits of the largest value": (
        "float32_seq",
        situation("seq(fp8_e5m2/sat, e8m2)", operand(8, 8, 1), c=operand(0, -20, 1)),
        situation("seq(fp8_e5m2/sat, e8m1)", operand(8, 8, 1), c=operand(0, -20, 1)),
        "term fits, 3 <= p = 2",
    ),
    "float32_seq: a rounded product may reach its bound": (
        "float32_seq",
        situation("seq(e8m1, e7m7:b16)", operand(50, 46, 6), c=operand(110, 103, 8)),
        situation("seq(e8m1, e7m7:b15)", operand(51, 46, 6), c=operand(111, 104, 8)),
        "where the rounding constant works",
    ),
    "float32_fma_odd: p = 22": (
        "float32_fma_odd",
        situation("fma(e8m21)", DEEP, k=999),
        situation("fma(e8m22)", DEEP, k=999),
        "sum rounded to odd first: 24 >= 23 + 2",
    ),
    "float32_fma_odd: exact product": (
        "float32_fma_odd",
        situation("fma(fp16)", operand(0, -11, 12)),
        situation("fma(fp16)", operand(0, -12, 13), operand(0, -11, 12)),
        "product exact: 25 bits <= 24",
    ),
    "float32_aligned: sums of products": (
        "float32_aligned",
        situation("aligned(16, 25, fp32/rz)", ONE, k=16),  # 16 * 2^27 = 2^31
        situation("aligned(17, 25, fp32/rz)", ONE, k=16),
        "17 products below 2^27 sum up to at most 2^31",
    ),
    "float32_aligned: last product bit": (
        "float32_aligned",
        situation("aligned(4, 23, fp32/rz)", operand(3, -40, 4)),
        situation("aligned(4, 23, fp32/rz)", operand(3, -40, 4), operand(3, -41, 4)),
        "products end at 2^-81 >= 2^-80",
    ),
    "float32_aligned: addend": (
        "float32_aligned",
        situation("aligned(4, 23, fp32/rz)", ONE, c=operand(0, -103, 24)),
        situation("aligned(4, 23, fp32/rz)", ONE, c=operand(0, -104, 24)),
        "the addend at 2^-104 >= 2^-103",
    ),
    "float32_aligned: floor of E": (
        "float32_aligned",
        situation("aligned(4, 23, fp32/rz, e_min=149)", ONE),
        situation("aligned(4, 23, fp32/rz, e_min=150)", ONE),
        "2^(F - E) is a normal float32: E is at most 150 <= 149",
    ),
    "float32_aligned: exponents of products": (
        "float32_aligned",
        situation("aligned(4, 1, fp32/rz)", operand(63, 60, 4), operand(63, 60, 4)),  # 126 <= 1 + 126
        situation("aligned(4, 1, fp32/rz)", operand(64, 60, 4), operand(63, 60, 4)),
        "below 2^129 <= 2^128",
    ),
    "float32_aligned: exponents of subnormals": (
        "float32_aligned",
        situation("e4m4:b-66 -> aligned(4, 8, fp32/rz)", operand(60, 60, 1)),  # 2 * 67 = 8 + 126
        situation("e4m4:b-66 -> aligned(4, 7, fp32/rz)", operand(60, 60, 1)),
        "2^(F - E) is a normal float32: E is at most 134 <= 133",
    ),
    "float32_aligned: infinite operands": (
        "float32_aligned",
        situation("aligned(4, 23, fp32/rz)", ONE),
        situation("aligned(4, 23, fp32/rz)", ONE, operand(finite=False)),
        "operands and addend are finite",
    ),
    "float32_aligned: exponents of subnormal floats": (
        "float32_aligned",
        situation("aligned(4, 13, fp32/rz)", operand(0, -126, 4), operand(60, 40, 4)),
        situation("aligned(4, 13, fp32/rz)", operand(0, -127, 4), operand(60, 40, 4)),
        "exponents of a are those of normal float32s",
    ),
    "float32_aligned: p = 24": (
        "float32_aligned",
        situation("aligned(4, 23, e8m23/rz)", ONE),
        situation("aligned(4, 23, e8m24/rz)", ONE),
        "e8m24 keeps a sign",
    ),
    "float32_aligned: slots": (
        "float32_aligned",
        situation("aligned(4, 23, fp32/rz)", ONE, k=1 << 18),
        situation("aligned(4, 23, fp32/rz)", ONE, k=(1 << 18) + 1),
        "262148 products, zeros filled in, <= 262144",
    ),
    "float64_any: p = 51": (
        "float64_any",
        situation("kahan(e10m50)", ONE),
        situation("kahan(e10m51)", ONE),
        "e10m51 from a sum rounded to odd: 52 + 2 bits <= 53",
    ),
    "float64_any: random bits": (
        "float64_any",
        situation("fma(fp32/sr:27)", ONE),
        situation("fma(fp32/sr:28)", ONE),
        "fp32/sr:28 from a sum rounded to odd: 24 + 28 random + 2 bits <= 53",
    ),
    "float64_any: exact product": (
        "float64_any",
        situation("tree(fp16)", operand(bits=27), operand(bits=26)),
        situation("tree(fp16)", operand(bits=27), operand(bits=27)),
        "product exact: 54 bits <= 53",
    ),
    "float64_any: largest product": (
        "float64_any",
        situation("tree(fp16)", operand(510, 500, 4), operand(510, 500, 4)),
        situation("tree(fp16)", operand(510, 500, 4), operand(511, 500, 4)),
        "products stay below 2^1023 <= 2^1022",
    ),
    "float64_any: groups": (
        "float64_any",
        situation("fma(fp16, 8)", operand(24, 0, 1), operand(24, 0, 1), k=8),
        situation("fma(fp16, 9)", operand(24, 0, 1), operand(24, 0, 1), k=9),
        "9 products sum up exactly: 2^54 down to 2^0 within 53 bits",
    ),
    "float64_any: the sum of a group": (
        "float64_any",
        situation("fma(fp16, 16)", operand(508, 508), operand(508, 508), k=16),
        situation("fma(fp16, 17)", operand(508, 508), operand(508, 508), k=17),
        "what is added at once stays below 2^1023 <= 2^1022",
    ),
    "float64_any: the sum of all": (
        "float64_any",
        situation("exact(fp16)", operand(508, 508), operand(508, 508), k=16),
        situation("exact(fp16)", operand(508, 508), operand(508, 508), k=17),
        "what is added at once stays below 2^1023 <= 2^1022",
    ),
    "float32_fma: runs that overflow into a sum that saturates": (
        "float32_fma",
        situation("chunk(2, fma(fp16), seq(bf16/sat))", operand(5, 4, 2), k=2),
        situation("chunk(2, fma(fp16), seq(bf16/sat))", operand(6, 4, 2), k=2),
        "joined runs of 2 below 2^128 <= 2^112",
    ),
    "float32_fma: infinities that saturate in runs": (
        "float32_fma",
        situation("chunk(1, fma(e7m7:b22/sat), seq(e8m7))", operand(finite=False), k=63),
        situation("chunk(1, fma(e7m7:b22/sat), seq(e8m7))", operand(finite=False), k=64),
        "joined runs of 1 below 2^113 <= 2^112",
    ),
    "float32_seq: products that overflow into a sum that saturates": (
        "float32_seq",
        situation("seq(fp8_e5m2, bf16/sat)", operand(6, 6), ONE),
        situation("seq(fp8_e5m2, bf16/sat)", operand(15, 15), ONE),
        "sum below 2^128 <= 2^112",
    ),
    "float64_any: pairs": (
        "float64_any",
        situation("tree(fp16, 2)", ONE),
        situation("tree(fp16, 3)", ONE),
        "groups of the tree are pairs: 3 = 2",
    ),
    "float64_any: exact sums of values": (
        "float64_any",
        situation("chunk(2, exact(fp16), seq(fp16))", ONE),
        situation("chunk(2, seq(fp16), exact(fp16))", ONE),
        "exact takes the products themselves",
    ),
    "float64_any: exact sums in two halves": (
        "float64_any",
        situation("exact(fp16)", operand(15, -16, 3), k=1 << 20),  # E5M2: 2^52 down to 2^-32, cut at 2^-1
        situation("exact(fp16)", operand(15, -16, 3), k=1 << 22),
        "below 2^1 apart: 55 bits <= 53",
    ),
    "float64_any: no zeros of sums in two halves": (
        "float64_any",
        situation("exact(fp16)", operand(15, -16, 3), c=operand()),
        situation("exact(fp16)", operand(15, -16, 3), c=operand()._replace(minus_zero=True)),
        "or finite, and below",
    ),
    "float64_any: quanta of products": (
        "float64_any",
        situation("fixed(51, 0, wrap)", operand(24, 0, 1), operand(25, 0, 1)),
        situation("fixed(51, 0, wrap)", operand(25, 0, 1), operand(25, 0, 1)),
        "products stay below 2^52 <= 2^51 quanta",
    ),
    "float64_any: fixed point of 51 bits": (
        "float64_any",
        situation("fixed(51, 0, sat)", ONE),
        situation("fixed(52, 0, sat)", ONE),
        "int52 has at most 51 bits",
    ),
    "float64_any: fixed point has no infinities": (
        "float64_any",
        situation("fixed(20, 0, sat)", ONE),
        situation("fixed(20, 0, sat)", ONE, operand(finite=False)),
        "operands and addend are finite",
    ),
    "float64_any: aligned steps": (
        "float64_any",
        situation("interleave(2, fma(fp16), seq(fp16))", ONE),
        situation("interleave(2, aligned(4, 8, fp16), seq(fp16))", ONE),
        "lanes run aligned steps",
    ),
    "float64_any: wrapping": (
        "float64_any",
        situation("fma(int8)", ONE),
        situation("fma(int8/wrap)", ONE),
        "int8/wrap does not wrap around",
    ),
    "float32_exact: integers in range": (
        "float32_exact",
        situation("fixed(8, 0, wrap)", operand(2, 0, 3), operand(2, 0, 3), k=1),  # below 2^6 each
        situation("fixed(8, 0, wrap)", operand(2, 0, 3), operand(2, 0, 3), k=2),
        "no sum leaves the range: 128 <= 127",
    ),
    "float32_exact: integers of a quantum": (
        "float32_exact",
        situation("fixed(8, 2, sat)", operand(0, -1, 2)),
        situation("fixed(8, 2, sat)", operand(0, -1, 2), operand(0, -2, 2)),
        "products end at 2^-3 >= 2^-2",
    ),
    "float32_exact: integers joined in range": (
        "float32_exact",
        situation("chunk(2, fixed(20, 0, wrap), seq(int8/wrap))", operand(2, 0, 3), operand(2, 0, 3), k=1),
        situation("chunk(2, fixed(20, 0, wrap), seq(int8/wrap))", operand(2, 0, 3), operand(2, 0, 3), k=2),
        "no sum leaves the range: 128 <= 127",
    ),
    "float32_exact: integers joined on the grid": (
        "float32_exact",
        situation("chunk(2, fixed(20, 4, sat), seq(fix20.2))", operand(0, -1, 2)),
        situation("chunk(2, fixed(20, 4, sat), seq(fix20.2))", operand(0, -1, 2), operand(0, -2, 2)),
        "products end at 2^-3 >= 2^-2",
    ),
    "float32_exact: integers joined as integers": (
        "float32_exact",
        situation("chunk(2, fixed(20, 0, wrap), seq(int20))", ONE),
        situation("chunk(2, fixed(20, 0, wrap), seq(fp32))", ONE),
        "sums of runs are fixed point too",
    ),
    "float32_posit_fma_odd: p = 22": (
        "float32_posit_fma_odd",
        situation("fma(posit26)", ONE),
        situation("fma(posit27)", ONE),
        "sum rounded to odd first: 24 >= 23 + 2",
    ),
    "float32_posit_fma_odd: exact product": (
        "float32_posit_fma_odd",
        situation("fma(posit16)", operand(0, -11, 12)),
        situation("fma(posit16)", operand(0, -12, 13), operand(0, -11, 12)),
        "product exact: 25 bits <= 24",
    ),
    "float32_posit_fma_odd: largest product": (
        "float32_posit_fma_odd",
        situation("fma(posit16)", operand(63, 60, 4), operand(62, 60, 4), k=9999),
        situation("fma(posit16)", operand(63, 60, 4)),
        "below 2^128 <= 2^127",
    ),
    "float32_posit_fma_odd: last product bit": (
        "float32_posit_fma_odd",
        situation("fma(posit16)", operand(-60, -63, 4)),
        situation("fma(posit16)", operand(-60, -64, 5), operand(-60, -63, 4)),
        "last bit 2^-127 >= 2^-126",
    ),
    "float32_posit_fma_odd: range": (
        "float32_posit_fma_odd",
        situation("fma(posit17e3)", ONE),
        situation("fma(posit18e3)", ONE),
        "to 2^128 <= 2^126",
    ),
    "float32_posit_fma_odd: three bits": (
        "float32_posit_fma_odd",
        situation("fma(posit3)", ONE),
        situation("fma(posit2)", ONE),
        "posit2 in a float32 lane: n >= 3",
    ),
    "float32_posit_fma_odd: round to nearest even": (
        "float32_posit_fma_odd",
        situation("fma(posit16/nan)", ONE),
        situation("fma(posit16/rz)", ONE),
        "posit16/rz rounds to nearest, ties to even",
    ),
    "float32_posit_fma_odd: posits only": (
        "float32_posit_fma_odd",
        situation("chunk(2, fma(posit16), seq(posit8))", ONE),
        situation("chunk(2, fma(posit16), seq(fp16))", ONE),
        "sums are posits; fp16 is none",
    ),
    "float32_posit_seq_odd: the product too": (
        "float32_posit_seq_odd",
        situation("seq(posit26, posit8)", ONE),
        situation("seq(posit27, posit8)", ONE),
        "sum rounded to odd first: 24 >= 23 + 2",
    ),
    "float32_posit_seq_odd: joins too": (
        "float32_posit_seq_odd",
        situation("chunk(2, seq(posit16), seq(posit26))", ONE),
        situation("chunk(2, seq(posit16), seq(posit27))", ONE),
        "sum rounded to odd first: 24 >= 23 + 2",
    ),
    "float32_fma: floats only": (
        "float32_fma",
        situation("fma(fp16)", ONE),
        situation("fma(posit16)", ONE),
        "sums are floats; posit16 is none",
    ),
    "float64_fma: p = 25": (
        "float64_fma",
        situation("fma(e8m24)", DEEPER, k=999),
        situation("fma(e8m25)", DEEPER, k=999),
        "53 >= 2*26 + 2",
    ),
    "float64_fma: product fits p bits": (
        "float64_fma",
        situation("fma(fp32)", operand(0, -60, 12), k=9),
        situation("fma(fp32)", operand(0, -60, 13), operand(0, -60, 12), k=9),
        "term fits, 25 <= p = 24",
    ),
    "float64_fma_odd: p = 51": (
        "float64_fma_odd",
        situation("fma(e10m50)", DEEPER, k=999),
        situation("fma(e10m51)", DEEPER, k=999),
        "p = 52 <= 51",
    ),
    "float64_fma_odd: exact product": (
        "float64_fma_odd",
        situation("fma(fp32)", operand(0, -26, 27), operand(0, -25, 26)),
        situation("fma(fp32)", operand(0, -26, 27)),
        "product exact: 54 bits <= 53",
    ),
    "float64_seq: p = 25": (
        "float64_seq",
        situation("seq(e8m24)", operand(3, -60, 24), k=999),
        situation("seq(e8m25)", operand(3, -60, 24), k=999),
        "53 >= 2*26 + 2",
    ),
    "float64_seq_odd: p = 51": (
        "float64_seq_odd",
        situation("seq(e10m50)", DEEPER, k=999),
        situation("seq(e10m51)", DEEPER, k=999),
        "p = 52 <= 51",
    ),
    "float64_exact: K = 2^17 for E4M3": (
        "float64_exact",
        situation("exact(fp16)", operand(8, -9, 4), k=2**17),
        situation("exact(fp16)", operand(8, -9, 4), k=2**17 + 1),
        "all partial sums exact: 2^36 down to 2^-18 is 54 bits <= 53",
    ),
    "float64_exact: K = 8 for E4M3 by E5M2": (
        "float64_exact",
        situation("exact(fp16)", operand(8, -9, 4), operand(15, -16, 3), k=2**3),
        situation("exact(fp16)", operand(8, -9, 4), operand(15, -16, 3), k=2**3 + 1),
        "is 54 bits <= 53",
    ),
    "float64_exact: addend": (
        "float64_exact",
        situation("exact(fp16)", ONE, c=operand(0, -50, 51)),
        situation("exact(fp16)", ONE, c=operand(0, -51, 52)),
        "is 54 bits <= 53",
    ),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_a_condition_holds_just_inside_its_bound(name):
    kernel, inside, _, _ = BOUNDS[name]
    assert failing(kernel, inside) == []


@pytest.mark.parametrize("name", BOUNDS)
def test_a_condition_refuses_just_outside_its_bound_and_says_why(name):
    kernel, _, outside, text = BOUNDS[name]
    refused = failing(kernel, outside)
    assert refused
    assert any(text in clause for clause in refused), refused


def test_every_lane_kernel_has_a_bound_here():
    lanes = {kernel.name for kernel in KERNELS} - {"integer_any", "definition"}
    assert {bound[0] for bound in BOUNDS.values()} == lanes


def test_products_that_may_overflow_float32_are_refused_whatever_else_holds():
    text = "below 2^128 <= 2^128"
    clauses = kernel_named("float32_fma").condition(situation("fma(fp16)", operand(63, 60, 4)))
    assert any(clause.holds and text in clause.text for clause in clauses)
    refused = failing("float32_fma", situation("fma(fp16)", operand(63, 60, 4), operand(64, 60, 4)))
    assert any("below 2^129 <= 2^128" in clause for clause in refused)


def test_e5m2_times_e5m2_is_never_exact_in_float64():
    e5m2 = operand(15, -16, 3)
    assert failing("float64_exact", situation("exact(fp32)", e5m2, k=1))


@pytest.mark.parametrize(
    ("accumulator", "kernel"),
    [
        ("fma(fp16)", "float32_fma"),
        ("seq(fp16)", "float32_fma"),
        ("seq(e5m6)", "float32_seq"),
        ("exact(fp16)", "float32_exact"),
        ("fma(posit16)", "float32_posit_fma_odd"),
        ("aligned(4, 23, fp32/rz)", "float32_aligned"),
        ("chunk(8, aligned(4, 23, fp32/rz), seq(fp16/ru))", "float32_aligned"),
        ("interleave(2, aligned(4, 23, fp32/rz), seq(fp16))", "integer_any"),
        ("chunk(4, seq(posit8), fma(posit16))", "float32_posit_seq_odd"),
        ("fma(posit32)", "float64_any"),
        ("fma(fp64)", "integer_any"),
        ("fma(e4m3:fnuz)", "float64_any"),
        ("late(fma(fp16))", "float32_fma"),
    ],
)
def test_the_cheapest_kernel_that_holds_is_chosen_and_the_refused_ones_say_why(accumulator, kernel):
    where = situation(accumulator, operand(0, -3, 4), k=10)
    chosen, tried = choose(where)
    assert chosen.name == kernel
    names = [one.name for one in KERNELS]
    assert [one.name for one, _ in tried] == names[: names.index(kernel) + 1]
    for refused, clauses in tried[:-1]:
        assert any(not clause.holds for clause in clauses), refused.name
    assert all(clause.holds and clause.text for clause in tried[-1][1])


def test_an_exact_accumulator_is_never_given_to_a_kernel_that_rounds():
    where = situation("exact(fp16)", operand(500, -500, 53), k=10)
    for kernel in KERNELS:
        holds = not failing(kernel.name, where)
        assert holds == (kernel.name in ("integer_any", "definition")), kernel.name


def test_a_kernel_for_another_step_is_refused_by_kind():
    assert failing("float32_seq", situation("fma(fp16)", ONE)) == [
        "this kernel runs seq, and the accumulator's leaf is fma"
    ]
    assert failing("float32_fma", situation("fma(fp16, 4)", ONE)) == [
        "this kernel takes one product a step, and the accumulator 4"
    ]
    assert failing("float32_fma", situation("fma(posit16)", ONE)) == ["sums are floats; posit16 is none"]


def test_codebooks_are_left_to_the_definition():
    halves = formats.CodebookFormat("halves", [-0.5, 0.0, 0.5])
    where = situation(Fma(formats.Use(halves)), ONE)
    assert failing("integer_any", where) == [
        "every rounding is into a float, posit, takum or fixed point; halves is none"
    ]
    assert choose(where)[0].name == "definition"


def test_operands_without_a_non_zero_element_are_no_problem():
    nothing = Profile(0, 0, 0, True, False)
    where = situation("fma(bf16)", nothing, nothing, nothing, k=100)
    assert failing("float32_fma", where) == []
    assert failing("float32_fma", replace(where, k=0)) == []


# --- shortcuts -------------------------------------------------------------------------------------------------------


def short(square, last=0, **kwargs):
    return operand(7, last, 8, square=square, **kwargs)


# id: which shortcut, situation just inside, situation just outside
SHORTCUTS = {
    "2K times the largest product": (
        0, situation("fma(fp16)", operand(5), operand(5), k=7), situation("fma(fp16)", operand(5), operand(5), k=8),
    ),
    "norms, fma": (
        0, situation("fma(fp16)", short(32751.0), short(32751.0), k=9**9),
        situation("fma(fp16)", short(32752.5), short(32752.5), k=9**9),
    ),
    "norms, seq: rounded products may be twice as large": (
        0, situation("seq(fp16)", short(16375.0), short(16375.0), k=9**9),
        situation("seq(fp16)", short(16376.5), short(16376.5), k=9**9),
    ),
    "products of a seq": (
        0, situation("seq(fp8_e5m2, fp32)", operand(7), operand(6), k=1),
        situation("seq(fp8_e5m2, fp32)", operand(7), operand(7), k=1),
    ),
    "addend": (
        0, situation("fma(fp16)", ONE, c=operand(14), k=2**12 - 4),
        situation("fma(fp16)", ONE, c=operand(15), k=2**12 - 4),
    ),
    "the addend of joined runs is not the leaf's": (
        0, situation("chunk(4, fma(fp16), seq(fp16))", ONE, c=operand(15)), situation("fma(fp16)", ONE, c=operand(15)),
    ),
    "a infinite": (0, situation("fma(fp16)", ONE), situation("fma(fp16)", operand(finite=False), ONE)),
    "b infinite": (0, situation("fma(fp16)", ONE), situation("fma(fp16)", ONE, operand(finite=False))),
    "c infinite": (0, situation("fma(fp16)", ONE, c=ONE), situation("fma(fp16)", ONE, c=operand(finite=False))),
    "last bits of products": (
        1, situation("fma(fp16)", operand(last=-12), operand(last=-12)),
        situation("fma(fp16)", operand(last=-12), operand(last=-13)),
    ),
    "rounded products end at their format's quantum": (
        1, situation("seq(fp16)", operand(last=-99)), situation("seq(e5m11, fp16)", operand(last=-99)),
    ),
    "an addend of -0": (1, situation("fma(fp16)", ONE, c=ONE), situation("fma(fp16)", ONE, c=operand(minus_zero=True))),
    "-0 joins runs, and does not start them": (
        1, situation("chunk(4, fma(fp16), seq(fp16))", ONE, c=operand(minus_zero=True)),
        situation("fma(fp16)", ONE, c=operand(minus_zero=True)),
    ),
    "products that underflow": (
        2, situation("seq(fp16)", operand(last=-12), operand(last=-12)),
        situation("seq(fp16)", operand(last=-12), operand(last=-13)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SHORTCUTS)
def test_a_shortcut_holds_just_inside_its_bound_and_not_beyond(name):
    which, inside, outside = SHORTCUTS[name]
    holds, fails = (kernel_named("float32_fma").shortcuts(where)[which] for where in (inside, outside))
    assert holds.holds, holds.text
    assert not fails.holds, fails.text


def test_the_grid_of_products_helps_only_with_that_of_sums():
    found = kernel_named("float32_seq").shortcuts(situation("seq(fp16)", ONE, c=operand(minus_zero=True)))
    assert (found.sums_on_grid.holds, found.products_on_grid.holds, found.on_grid) == (False, True, 0)
    found = kernel_named("float32_seq").shortcuts(situation("seq(fp16)", ONE))
    assert found.on_grid == 2
    found = kernel_named("float32_seq").shortcuts(situation("seq(fp16)", operand(last=-99)))
    assert found.on_grid == 1


def test_exact_kernels_and_integers_have_no_shortcuts():
    for name in ("float64_exact", "integer_any", "definition"):
        assert kernel_named(name).shortcuts(situation("exact(fp16)", ONE)) is None
