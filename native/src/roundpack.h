/* Rounding an exact value into a use of any family but codebooks: the arithmetic of the integer kernels. */
#ifndef ULPSIM_ROUNDPACK_H
#define ULPSIM_ROUNDPACK_H

#include "fixed_family.h"
#include "float_family.h"
#include "tapered_family.h"

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
    if (!x.significand)
        return ulp_special(x.negative ? -0.0 : 0.0, use, overflowed);
    switch (use->family) {
    case ULP_POSIT:
    case ULP_TAKUM:
        return ulp_round_tapered(x, use, place, overflowed);
    case ULP_FIXED:
        return ulp_round_fixed(x, use, place, overflowed);
    default:
        return ulp_round_float(x, use, place, overflowed);
    }
}

/* The sign of a sum that is exactly zero: positive, or where rounding goes down negative, unless all terms are zeros of
 * the other sign (IEEE 754, 6.3). */
static inline int ulp_zero_is_negative(const ulp_use *use, int all_minus, int all_plus)
{
    return use->rounding == ULP_RD ? !all_plus : all_minus;
}

/* s + a*b of finite values, as exact as its rounding into the use needs: arithmetic modulo 2^N wants every bit down to
 * the quantum, which a sum that is jammed far below its leading bit may lack. */
static inline ulp_exact ulp_fma_exact(double s, double a, double b, const ulp_use *use)
{
    ulp_exact x = ulp_exact_product(a, b), y = ulp_unpack(s);
    if (use->family == ULP_FIXED && use->wraps && x.significand && x.exponent > -use->fraction_bits) {
        int shift = x.exponent + use->fraction_bits; /* the product is a whole number of quanta */
        uint64_t low = shift < 64 ? (uint64_t)x.significand << shift : 0;
        int64_t quanta = (int64_t)ldexp(s, use->fraction_bits);
        int large = ulp_bit_length(x.significand) + shift > 62;
        uint64_t sum = (uint64_t)quanta + (x.negative ? 0 - low : low);
        if (large) /* any number as large that has these low bits */
            return (ulp_exact){(ulp_u128)1 << 100 | sum, -use->fraction_bits, 0};
        int negative = (int64_t)sum < 0;
        return (ulp_exact){negative ? 0 - sum : sum, -use->fraction_bits, negative && sum};
    }
    ulp_exact sum = ulp_exact_sum(y, x);
    if (!sum.significand) {
        int zeros = !x.significand && !y.significand, minus = x.negative && y.negative;
        sum.negative = ulp_zero_is_negative(use, zeros && minus, zeros && !x.negative && !y.negative);
    }
    return sum;
}

/* R(s + a*b), one rounding of the exact value. */
static inline double ulp_fma(double s, double a, double b, const ulp_use *use, const ulp_place *place,
                             int *overflowed)
{
    if (!isfinite(a) || !isfinite(b) || !isfinite(s)) {
        double product = isfinite(a) && isfinite(b) ? 0.0 : a * b;
        return ulp_special(s + product, use, overflowed);
    }
    return ulp_round_exact(ulp_fma_exact(s, a, b, use), use, place, overflowed);
}

/* R(s + v). */
static inline double ulp_sum(double s, double v, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    return ulp_fma(s, v, 1.0, use, place, overflowed);
}

/* R(a*b). A zero product keeps its sign. */
static inline double ulp_product(double a, double b, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    if (!isfinite(a) || !isfinite(b))
        return ulp_special(a * b, use, overflowed);
    return ulp_round_exact(ulp_exact_product(a, b), use, place, overflowed);
}

/* R(x). */
static inline double ulp_round(double x, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    if (x == 0.0 || !isfinite(x))
        return ulp_special(x, use, overflowed);
    return ulp_round_exact(ulp_unpack(x), use, place, overflowed);
}

#endif
