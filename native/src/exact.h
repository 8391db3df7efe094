/* Exact integers: unpacking doubles, shifting, adding.
 *
 * A finite value is (-1)^negative * significand * 2^exponent. A bit that stands for dropped non-zero bits ("jammed")
 * is kept in the last place, far below every rounding position. */
#ifndef ULPSIM_EXACT_H
#define ULPSIM_EXACT_H

#include <math.h>
#include <string.h>

#include "../include/engine.h"

typedef unsigned __int128 ulp_u128;

typedef struct {
    ulp_u128 significand; /* 0 for zero; below 2^127, what a sum of two normalised ones reaches */
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

/* a*b of finite values. */
static inline ulp_exact ulp_exact_product(double a, double b)
{
    ulp_exact x = ulp_unpack(a), y = ulp_unpack(b);
    x.significand *= y.significand;
    x.exponent += y.exponent;
    x.negative ^= y.negative;
    return x;
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

/* Shift the significand so that its bit length is 126: up (a product has at most 106 bits), or down by the one bit that
 * a sum may carry. */
static inline ulp_exact ulp_normalise(ulp_exact x)
{
    if (x.significand) {
        int shift = 126 - ulp_bit_length(x.significand);
        x.significand = shift < 0 ? ulp_shift_right_jam(x.significand, -shift) : x.significand << shift;
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

#endif
