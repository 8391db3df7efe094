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

/* The random word of a place: 64 bits of Philox4x32-10. */
static inline uint64_t ulp_word(const ulp_place *place)
{
    uint32_t k0 = place->seed, k1 = place->step;
    uint32_t c0 = (uint32_t)place->index, c1 = (uint32_t)(place->index >> 32), c2 = place->k, c3 = place->site;
    for (int round = 0; round < 10; round++) {
        uint64_t first = 0xD2511F53ull * c0, second = 0xCD9E8D57ull * c2;
        c0 = (uint32_t)(second >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)second;
        c2 = (uint32_t)(first >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)first;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return place->which ? (uint64_t)c2 << 32 | c3 : (uint64_t)c0 << 32 | c1;
}

/* Whether a fraction strictly between 0 and 1 goes up. It is given by its first 64 bits and whether more follow. */
static inline int ulp_goes_up(uint64_t fraction, int more, int odd, int negative, const ulp_use *use, uint64_t word)
{
    const uint64_t half = 1ull << 63;
    switch (use->rounding) {
    case ULP_RNE:
        return fraction > half || (fraction == half && (more || odd));
    case ULP_RNA:
        return fraction >= half;
    case ULP_RNZ:
        return fraction > half || (fraction == half && more);
    case ULP_RU:
        return !negative;
    case ULP_RD:
        return negative;
    case ULP_ODD:
        return !odd;
    case ULP_SR: {
        int n = use->random_bits;
        uint64_t random = word >> (64 - n), first = fraction >> (64 - n), rest = n < 64 ? fraction << n : 0;
        ulp_u128 sum = (ulp_u128)first + random;
        if (use->variant == 1) /* one more bit of the fraction, and half a unit added */
            sum = (2 * sum + (rest >> 63) + 1) >> 1;
        else if (use->variant == 2) /* the fraction rounded to n bits, ties to even */
            sum += rest > half || (rest == half && (more || (first & 1)));
        return sum >> n != 0;
    }
    default:
        return 0;
    }
}

/* What zeros, infinities and NaNs become. */
static inline double ulp_special(double x, const ulp_use *use, int *overflowed)
{
    if (x == 0.0)
        return use->zero != 0.0 ? use->zero : use->unsigned_zero ? 0.0 : x;
    if (x != x)
        return x;
    *overflowed = 1;
    return x < 0 ? use->infinite_below : use->infinite;
}

/* Round an exact value (jammed bits allowed at least two places below the rounding position) into a use. */
static inline double ulp_round_exact(ulp_exact x, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    double value = 0.0;
    if (!x.significand)
        return ulp_special(x.negative ? -0.0 : 0.0, use, overflowed);
    if (x.negative && !use->is_signed) {
        *overflowed = 1;
        return use->below_zero;
    }
    x = ulp_normalise(x);
    int leading = 125 + x.exponent, quantum, floor_is_odd = -1;
    uint64_t word = use->rounding == ULP_SR ? ulp_word(place) : 0;
    ulp_exact smallest = ulp_normalise(ulp_unpack(use->smallest));
    int below = smallest.exponent - x.exponent; /* both have 126 bits */
    if (use->gap && (below > 0 || (below == 0 && x.significand < smallest.significand))) {
        /* Between zero and the smallest value: a grid of its own, with that value as its only step. */
        ulp_u128 rest = ulp_shift_right_jam(x.significand, below);
        uint64_t fraction = 0;
        for (int i = 0; i < 64; i++) { /* long division: 64 bits of x / smallest */
            rest <<= 1;
            fraction = fraction << 1 | (rest >= smallest.significand);
            if (rest >= smallest.significand)
                rest -= smallest.significand;
        }
        int up = use->zero != 0.0 || ulp_goes_up(fraction, rest != 0, 0, x.negative, use, word);
        value = up ? use->smallest : 0.0;
        if (value == 0.0 && use->unsigned_zero)
            return 0.0;
        return x.negative ? -value : value;
    }
    quantum = (leading > use->min_exponent ? leading : use->min_exponent) - use->precision + 1;
    int shift = quantum - x.exponent; /* at least 126 - 53 = 73 bits are dropped */
    uint64_t kept = shift < 128 ? (uint64_t)(x.significand >> shift) : 0;
    if (use->precision == 1 && kept)
        floor_is_odd = (quantum + use->bias) & 1; /* the code decides, since the floor is always odd */
    ulp_u128 dropped = shift < 128 ? x.significand & (((ulp_u128)1 << shift) - 1) : x.significand;
    if (dropped) {
        /* Its first 64 bits below the rounding position, and whether more follow. */
        uint64_t fraction = shift < 192 ? (uint64_t)(dropped >> (shift - 64)) : 0;
        int more = shift >= 192 || (dropped & (((ulp_u128)1 << (shift - 64)) - 1)) != 0;
        kept += ulp_goes_up(fraction, more, floor_is_odd < 0 ? (int)(kept & 1) : floor_is_odd, x.negative, use, word);
    }
    value = ldexp((double)kept, quantum);
    if (value > use->max) {
        *overflowed = 1;
        value = x.negative ? use->overflowed_below : use->overflowed;
    } else if (use->flush_subnormals && value < ldexp(1.0, use->min_exponent)) {
        value = 0.0;
    }
    if (value == 0.0 && use->unsigned_zero)
        return 0.0;
    return x.negative ? -value : value;
}

/* R(s + a*b), one rounding of the exact value. */
static inline double ulp_fma(double s, double a, double b, const ulp_use *use, const ulp_place *place,
                             int *overflowed)
{
    if (!isfinite(a) || !isfinite(b) || !isfinite(s)) {
        double product = isfinite(a) && isfinite(b) ? 0.0 : a * b;
        return ulp_special(s + product, use, overflowed);
    }
    ulp_exact x = ulp_unpack(a), y = ulp_unpack(b);
    x.significand *= y.significand;
    x.exponent += y.exponent;
    x.negative ^= y.negative;
    return ulp_round_exact(ulp_exact_sum(ulp_unpack(s), x), use, place, overflowed);
}

/* R(s + v). */
static inline double ulp_sum(double s, double v, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    return ulp_fma(s, v, 1.0, use, place, overflowed);
}

/* R(a*b). A zero product keeps its sign, which a sum with +0 would lose. */
static inline double ulp_product(double a, double b, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    return ulp_fma(-0.0, a, b, use, place, overflowed);
}

/* R(x). */
static inline double ulp_round(double x, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    if (x == 0.0 || !isfinite(x))
        return ulp_special(x, use, overflowed);
    return ulp_round_exact(ulp_unpack(x), use, place, overflowed);
}

#endif
