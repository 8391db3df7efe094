/* Exact integers: unpacking doubles, and the only rounding code of the integer kernels.
 *
 * A finite value is (-1)^negative * significand * 2^exponent. A bit that stands for dropped non-zero bits ("jammed")
 * is kept in the last place, far below every rounding position. */
#ifndef ULPSIM_ROUNDPACK_H
#define ULPSIM_ROUNDPACK_H

#include <math.h>
#include <string.h>

#include "../include/engine.h"

typedef unsigned __int128 ulp_u128;

typedef struct {
    ulp_u128 significand; /* 0 for zero; below 2^126 */
    int exponent;
    int negative;
} ulp_exact;

static inline ulp_exact ulp_unpack(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int field = (int)(bits >> 52) & 0x7FF;
    uint64_t fraction = bits & 0xFFFFFFFFFFFFFull;
    ulp_exact e = {field ? fraction | (1ull << 52) : fraction, (field ? field : 1) - 1075, (int)(bits >> 63)};
    return e;
}

static inline int ulp_bit_length(ulp_u128 x)
{
    uint64_t high = (uint64_t)(x >> 64), low = (uint64_t)x;
    return high ? 128 - __builtin_clzll(high) : low ? 64 - __builtin_clzll(low) : 0;
}

static inline ulp_u128 ulp_shift_right_jam(ulp_u128 x, int shift)
{
    if (shift <= 0)
        return x;
    if (shift >= 128)
        return x != 0;
    return (x >> shift) | ((x & (((ulp_u128)1 << shift) - 1)) != 0);
}

/* Shift the significand up so that its bit length is 126 (a product has at most 106 bits). */
static inline ulp_exact ulp_normalise(ulp_exact x)
{
    if (x.significand) {
        int shift = 126 - ulp_bit_length(x.significand);
        x.significand <<= shift;
        x.exponent -= shift;
    }
    return x;
}

/* x + y with at least 70 correct bits below the leading one and everything under them jammed. An exact zero sum is +0
 * unless both are negative. Cancellation of many bits happens only where nothing is shifted out. */
static inline ulp_exact ulp_exact_sum(ulp_exact x, ulp_exact y)
{
    if (!x.significand && !y.significand) {
        x.negative &= y.negative;
        return x;
    }
    if (!x.significand)
        return y;
    if (!y.significand)
        return x;
    x = ulp_normalise(x);
    y = ulp_normalise(y);
    if (x.exponent < y.exponent) {
        ulp_exact t = x;
        x = y;
        y = t;
    }
    y.significand = ulp_shift_right_jam(y.significand, x.exponent - y.exponent);
    if (x.negative == y.negative) {
        x.significand += y.significand;
    } else if (x.significand >= y.significand) {
        x.significand -= y.significand;
    } else {
        x.significand = y.significand - x.significand;
        x.negative = y.negative;
    }
    if (!x.significand)
        x.negative = 0;
    return x;
}

/* What zeros, infinities and NaNs become. */
static inline double ulp_special(double x, const ulp_use *use, int *overflowed)
{
    if (x == 0.0)
        return use->unsigned_zero ? 0.0 : x;
    if (x != x)
        return x;
    *overflowed = 1;
    return copysign(use->overflowed, x);
}

/* Round an exact value (jammed bits allowed at least two places below the rounding position) into a use. */
static inline double ulp_round_exact(ulp_exact x, const ulp_use *use, int *overflowed)
{
    double value = 0.0;
    if (x.significand) {
        int leading = ulp_bit_length(x.significand) - 1 + x.exponent;
        int quantum = (leading > use->min_exponent ? leading : use->min_exponent) - use->precision + 1;
        int shift = quantum - x.exponent;
        uint64_t kept;
        if (shift <= 0) {
            kept = (uint64_t)(x.significand << -shift);
        } else if (shift >= 128) {
            kept = 0; /* below half of the smallest value: significands stay below 2^127 */
        } else {
            ulp_u128 dropped = x.significand & (((ulp_u128)1 << shift) - 1), half = (ulp_u128)1 << (shift - 1);
            /* Where significands have one bit only, the code decides what is even: the exponent field. */
            int one_is_odd = use->precision > 1 || ((quantum - use->min_exponent + 1) & 1);
            kept = (uint64_t)(x.significand >> shift);
            kept += dropped > half || (dropped == half && (kept & (uint64_t)one_is_odd));
        }
        value = ldexp((double)kept, quantum);
        if (value > use->max) {
            *overflowed = 1;
            value = use->overflowed;
        } else if (use->flush_subnormals && value < ldexp(1.0, use->min_exponent)) {
            value = 0.0;
        }
    }
    if (value == 0.0 && use->unsigned_zero)
        return 0.0;
    return x.negative ? -value : value;
}

/* R(s + a*b), one rounding of the exact value. */
static inline double ulp_fma(double s, double a, double b, const ulp_use *use, int *overflowed)
{
    if (!isfinite(a) || !isfinite(b) || !isfinite(s)) {
        double product = isfinite(a) && isfinite(b) ? 0.0 : a * b;
        return ulp_special(s + product, use, overflowed);
    }
    ulp_exact x = ulp_unpack(a), y = ulp_unpack(b);
    x.significand *= y.significand;
    x.exponent += y.exponent;
    x.negative ^= y.negative;
    return ulp_round_exact(ulp_exact_sum(ulp_unpack(s), x), use, overflowed);
}

/* R(s + v). */
static inline double ulp_sum(double s, double v, const ulp_use *use, int *overflowed)
{
    return ulp_fma(s, v, 1.0, use, overflowed);
}

/* R(a*b). A zero product keeps its sign, which a sum with +0 would lose. */
static inline double ulp_product(double a, double b, const ulp_use *use, int *overflowed)
{
    return ulp_fma(-0.0, a, b, use, overflowed);
}

/* R(x). */
static inline double ulp_round(double x, const ulp_use *use, int *overflowed)
{
    if (x == 0.0 || !isfinite(x))
        return ulp_special(x, use, overflowed);
    return ulp_round_exact(ulp_unpack(x), use, overflowed);
}

#endif
