/* Tapered formats, posits and takums: rounding cuts a bit string (formats/tapered.py). Codes here are those of
 * magnitudes, 1 to top = 2^(n-1) - 1; top + 1 is NaR. */
#ifndef ULPSIM_TAPERED_FAMILY_H
#define ULPSIM_TAPERED_FAMILY_H

#include "rounding.h"

/* The first 128 bits of the string of 2^leading * (1 + f), sign left out, the rest jammed; `fraction` is f * 2^125. All
 * that a rounding asks for are the n - 1 + 64 <= 95 first bits and whether more follow, so that runs of equal bits may
 * end at 126. */
static inline ulp_u128 ulp_posit_string(ulp_u128 fraction, int leading, int es)
{
    int regime = leading >> es, ones = regime >= 0, run = ones ? regime : -regime - 1;
    ulp_u128 field = (ulp_u128)(leading & ((1 << es) - 1)) << (126 - es);
    ulp_u128 string = (ulp_u128)(ones ? 2 : 1) << 126 | field;
    string |= es ? ulp_shift_right_jam(fraction, es - 1) : fraction << 1;
    if (run > 126)
        run = 126;
    int lost = (string & (((ulp_u128)1 << run) - 1)) != 0;
    return (ones ? ~(~string >> run) : string >> run) | (ulp_u128)lost;
}

static inline ulp_u128 ulp_takum_string(ulp_u128 fraction, int leading)
{
    int direction = leading >= 0, c = direction ? leading + 1 : -leading;
    int r = 31 - __builtin_clz((unsigned)c);
    int prefix = direction ? (8 | r) << r | (c - (1 << r)) : (7 - r) << r | ((2 << r) - 1 - c);
    return (ulp_u128)prefix << (124 - r) | ulp_shift_right_jam(fraction, r + 1);
}

/* Round the string of an exact value (not zero, jammed or not) to the code of a magnitude. */
static inline uint64_t ulp_round_string(ulp_exact x, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    int keep = use->code_bits - 1;
    uint64_t top = (1ull << keep) - 1, code;
    x = ulp_normalise(x);
    int leading = 125 + x.exponent;
    if (use->family == ULP_TAKUM && (leading > 254 || leading < -255)) {
        code = leading > 0 ? top + 1 : 0; /* beyond every string, or below */
    } else {
        ulp_u128 fraction = x.significand & (((ulp_u128)1 << 125) - 1);
        ulp_u128 string = use->family == ULP_TAKUM ? ulp_takum_string(fraction, leading)
                                                   : ulp_posit_string(fraction, leading, use->exponent_bits);
        ulp_cut cut = ulp_cut_at(string, 128 - keep);
        code = ulp_rounded(cut, (int)(cut.kept & 1), x.negative, use, place);
    }
    if (code > top) {
        *overflowed = 1;
        return use->overflowed != use->overflowed ? top + 1 : top;
    }
    return code ? code : 1;
}

/* The value of the code of a magnitude. Exact: at most 30 significant bits, exponents within 1022. */
static inline double ulp_tapered_magnitude(uint64_t code, const ulp_use *use)
{
    int keep = use->code_bits - 1, exponent;
    uint64_t string = code << (64 - keep), bits;
    if (code >> keep)
        return (double)NAN;
    if (use->family == ULP_TAKUM) {
        int direction = (int)(string >> 63), regime = (int)(string >> 60) & 7, r = direction ? regime : 7 - regime;
        string <<= 4;
        exponent = (int)(string >> 1 >> (63 - r)) + (direction ? (1 << r) - 1 : 1 - (2 << r));
        string <<= r;
    } else {
        int ones = (int)(string >> 63), run = __builtin_clzll(ones ? ~string : string), es = use->exponent_bits;
        string = string << run << 1;
        exponent = (ones ? run - 1 : -run) * (1 << es) + (int)(string >> 1 >> (63 - es));
        string <<= es;
    }
    bits = (uint64_t)(exponent + 1023) << 52 | string >> 12;
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* The value of a code. */
static inline double ulp_tapered_value(uint64_t code, const ulp_use *use)
{
    uint64_t sign = 1ull << (use->code_bits - 1);
    int negative = code > sign;
    if (!code)
        return 0.0;
    double value = ulp_tapered_magnitude(negative ? 2 * sign - code : code, use);
    return negative ? -value : value;
}

/* Round an exact value, not zero. */
static inline double ulp_round_tapered(ulp_exact x, const ulp_use *use, const ulp_place *place, int *overflowed)
{
    double value = ulp_tapered_magnitude(ulp_round_string(x, use, place, overflowed), use);
    return x.negative ? -value : value;
}

/* The code of a value of the format. */
static inline uint64_t ulp_tapered_code(double value, const ulp_use *use)
{
    uint64_t sign = 1ull << (use->code_bits - 1);
    int overflowed;
    if (value == 0.0)
        return 0;
    if (value != value)
        return sign;
    ulp_exact x = ulp_unpack(value);
    const ulp_place nowhere = {0}; /* an exact value asks for no random word */
    uint64_t code = ulp_round_string(x, use, &nowhere, &overflowed);
    return x.negative ? 2 * sign - code : code;
}

#endif
