/* Fixed point and integers: multiples of `smallest` = 2^-F from `lowest` to `highest` of them. */
#ifndef ULPSIM_FIXED_FAMILY_H
#define ULPSIM_FIXED_FAMILY_H

#include "rounding.h"

/* The number of quanta, read modulo 2^code_bits as the number of quanta that has its code. */
static inline int64_t ulp_fixed_wrapped(uint64_t quanta, const ulp_use *use)
{
    int unused = 64 - use->code_bits;
    return use->is_signed ? (int64_t)(quanta << unused) >> unused : (int64_t)(quanta << unused >> unused);
}

/* A whole number of quanta: its low 64 bits, and whether its magnitude may need more than 62. */
typedef struct {
    int64_t low;
    int large;
} ulp_quanta;

/* Round an exact value to a multiple of the quantum, without ends; x may be jammed if all its kept bits are above. */
static inline ulp_quanta ulp_to_quanta(ulp_exact x, const ulp_use *use, const ulp_place *place)
{
    int shift = -(x.exponent + use->fraction_bits);
    uint64_t magnitude;
    if (shift <= 0) {
        magnitude = shift > -64 ? (uint64_t)x.significand << -shift : 0; /* its low 64 bits */
    } else {
        ulp_cut cut = ulp_cut_at(x.significand, shift);
        magnitude = ulp_rounded(cut, (int)(cut.kept & 1), x.negative, use, place);
    }
    return (ulp_quanta){(int64_t)(x.negative ? 0 - magnitude : magnitude), ulp_bit_length(x.significand) - shift > 62};
}

/* Round an exact value, not zero. */
static inline double ulp_round_fixed(ulp_exact x, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    ulp_quanta quanta = ulp_to_quanta(x, use, place);
    if (quanta.large || quanta.low < use->lowest || quanta.low > use->highest) {
        *overflowed = 1;
        quanta.low = use->wraps   ? ulp_fixed_wrapped((uint64_t)quanta.low, use)
                     : x.negative ? use->lowest
                                  : use->highest;
    }
    return (double)quanta.low * use->smallest;
}

/* The code of a value of the format. Exact: quotient of a multiple of 2^-F, of at most 53 bits, by 2^-F. */
static inline uint64_t ulp_fixed_code(double value, const ulp_use *use)
{
    if (value == 0.0)
        return 0;
    ulp_exact x = ulp_unpack(value);
    int shift = x.exponent + use->fraction_bits;
    uint64_t magnitude = shift >= 0 ? (uint64_t)x.significand << shift : (uint64_t)x.significand >> -shift;
    return (x.negative ? 0 - magnitude : magnitude) & ((1ull << use->code_bits) - 1);
}

static inline double ulp_fixed_value(uint64_t code, const ulp_use *use)
{
    return (double)ulp_fixed_wrapped(code, use) * use->smallest;
}

#endif
