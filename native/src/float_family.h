/* The float family: rounding exact values, codes of values, values of codes. */
#ifndef ULPSIM_FLOAT_FAMILY_H
#define ULPSIM_FLOAT_FAMILY_H

#include "rounding.h"

/* Between zero and the smallest value where no subnormals fill the gap: a grid of its own, with that value as its only
 * step. Both are normalised; `below` is how many bits x lies below `smallest`. Returns the magnitude. */
static inline double ulp_round_in_gap(ulp_exact x, ulp_exact smallest, int below, const ulp_use *use,
                                      const ulp_place *place)
{
    ulp_u128 rest = ulp_shift_right_jam(x.significand, below);
    ulp_cut cut = {0, 0, 0};
    for (int i = 0; i < 64; i++) { /* long division: 64 bits of x / smallest */
        rest <<= 1;
        cut.fraction = cut.fraction << 1 | (rest >= smallest.significand);
        if (rest >= smallest.significand)
            rest -= smallest.significand;
    }
    cut.more = rest != 0;
    return use->zero != 0.0 || ulp_rounded(cut, 0, x.negative, use, place) ? use->smallest : 0.0;
}

/* The magnitude of an exact value (not zero), rounded as if there were no largest value. */
static inline double ulp_rounded_magnitude(ulp_exact x, const ulp_use *use, const ulp_place *place)
{
    x = ulp_normalise(x);
    if (use->gap) {
        ulp_exact smallest = ulp_normalise(ulp_unpack(use->smallest));
        int below = smallest.exponent - x.exponent; /* both have 126 bits */
        if (below > 0 || (below == 0 && x.significand < smallest.significand))
            return ulp_round_in_gap(x, smallest, below, use, place);
    }
    int leading = 125 + x.exponent;
    int least = use->min_exponent - (use->flush_subnormals != 0); /* with all bits where flushing is decided */
    int quantum = (leading > least ? leading : least) - use->precision + 1;
    ulp_cut cut = ulp_cut_at(x.significand, quantum - x.exponent); /* at least 126 - 53 = 73 bits are dropped */
    int odd = (int)(cut.kept & 1);
    if (use->precision == 1 && cut.kept)
        odd = (quantum + use->bias) & 1; /* the code decides, since the floor is always odd */
    uint64_t rounded = ulp_rounded(cut, odd, x.negative, use, place);
    if (leading < use->min_exponent && use->flush_subnormals && !(rounded >> use->precision))
        return 0.0; /* it did not reach the smallest normal */
    return ldexp((double)rounded, quantum);
}

/* Round an exact value (not zero; jammed bits allowed at least two places below the rounding position). */
static inline double ulp_round_float(ulp_exact x, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    double value = ulp_rounded_magnitude(x, use, place);
    if (x.negative && !use->is_signed && (value != 0.0 || use->zero != 0.0)) {
        *overflowed = 1;
        return use->below_zero;
    }
    if (value > use->max) {
        *overflowed = 1;
        value = x.negative ? use->overflowed_below : use->overflowed;
    }
    if (value == 0.0 && use->unsigned_zero)
        return 0.0;
    return x.negative ? -value : value;
}

/* The code of a value of the format. */
static inline uint64_t ulp_float_code(double value, const ulp_use *use)
{
    uint64_t bits, sign;
    memcpy(&bits, &value, sizeof bits);
    sign = (bits >> 63) << (use->code_bits - 1);
    if (value != value)
        return use->nan_code;
    if (value == 0.0)
        return sign;
    if (isinf(value))
        return sign | use->infinity_code;
    int exponent = (int)(bits >> 52) & 0x7FF;
    uint64_t significand = bits & 0xFFFFFFFFFFFFFull;
    if (exponent) {
        significand |= 1ull << 52;
    } else { /* a subnormal double may be normal in a format with another bias */
        int shift = __builtin_clzll(significand) - 11;
        significand <<= shift;
        exponent = 1 - shift;
    }
    exponent -= 1023;
    int field = exponent > use->min_exponent ? exponent : use->min_exponent;
    significand >>= 53 - use->precision + field - exponent;
    /* The hidden bit, which a subnormal lacks, adds one to the exponent field below. */
    return sign | (((uint64_t)(field + use->bias - 1) << (use->precision - 1)) + significand);
}

/* The value of a code. */
static inline double ulp_float_value(uint64_t code, const ulp_use *use)
{
    int fraction_bits = use->precision - 1, width = use->code_bits - use->is_signed;
    uint64_t magnitude = code & ((1ull << width) - 1);
    int negative = use->is_signed && code >> width;
    if (negative && !magnitude && use->unsigned_zero)
        return (double)NAN;
    if (magnitude > use->top_code)
        return magnitude != use->infinity_code ? (double)NAN : negative ? -(double)INFINITY : (double)INFINITY;
    int field = (int)(magnitude >> fraction_bits), lowest = use->min_exponent + use->bias;
    uint64_t fraction = magnitude & ((1ull << fraction_bits) - 1);
    if (field >= lowest && (magnitude || use->zero != 0.0))
        fraction |= 1ull << fraction_bits;
    else if (use->flush_subnormals)
        fraction = 0;
    int quantum = (field > lowest ? field : lowest) - use->bias - fraction_bits; /* from -1074 to 1023 */
    uint64_t power = quantum >= -1022 ? (uint64_t)(quantum + 1023) << 52 : 1ull << (quantum + 1074);
    double step, value;
    memcpy(&step, &power, sizeof step);
    value = (double)fraction * step;
    return negative ? -value : value;
}

#endif
