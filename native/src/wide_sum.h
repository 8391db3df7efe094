/* A fixed-point number wide enough for every sum of products of doubles: nothing is rounded until it is collected. */
#ifndef ULPSIM_WIDE_SUM_H
#define ULPSIM_WIDE_SUM_H

#include "exact.h"

/* Products of doubles lie between 2^-2148 and 2^2048; aligned terms may end 60 bits lower. Limbs of 32 bits kept in
 * int64_t take 2^29 terms before their carries must be passed on. */
enum { ULP_LOWEST_BIT = -2240, ULP_LIMBS = 138, ULP_TERMS_BEFORE_CARRY = 1 << 29 };

typedef struct {
    int64_t limbs[ULP_LIMBS];
    int low, high;     /* limbs outside low .. high are 0 */
    int64_t terms;     /* since the last carry */
    double special;    /* sum of the terms that are not finite; 0 as long as there is none */
    int minus_zero, plus_zero; /* whether all terms so far are -0, or +0 */
    int negative;      /* once settled: the limbs are those of the magnitude */
} ulp_wide;

/* Make the sum empty; one that was never used has to be zeroed in memory first. */
static inline void ulp_wide_clear(ulp_wide *w)
{
    for (int i = w->low; i <= w->high; i++)
        w->limbs[i] = 0;
    w->low = ULP_LIMBS;
    w->high = -1;
    w->terms = 0;
    w->special = 0.0;
    w->minus_zero = w->plus_zero = 1;
    w->negative = 0;
}

static inline void ulp_wide_carry(ulp_wide *w)
{
    int top = w->high + 2 < ULP_LIMBS ? w->high + 2 : ULP_LIMBS - 1;
    for (int i = w->low; i < top; i++) {
        int64_t high = w->limbs[i] >> 32; /* arithmetic: floor */
        w->limbs[i] -= high * 4294967296ll;
        w->limbs[i + 1] += high;
    }
    if (w->high >= 0)
        w->high = top;
    w->terms = 0;
}

/* Add a finite value, zero included. */
static inline void ulp_wide_add(ulp_wide *w, ulp_exact x)
{
    w->minus_zero &= !x.significand && x.negative;
    w->plus_zero &= !x.significand && !x.negative;
    if (!x.significand)
        return;
    int position = x.exponent - ULP_LOWEST_BIT, limb = position / 32, shift = position % 32;
    ulp_u128 low = x.significand << shift; /* the top goes into `over` */
    uint64_t over = shift ? (uint64_t)(x.significand >> (128 - shift)) : 0;
    for (int i = 0; i < 5; i++) {
        int64_t part = i < 4 ? (int64_t)(uint32_t)(low >> (32 * i)) : (int64_t)over;
        if (limb + i < ULP_LIMBS)
            w->limbs[limb + i] += x.negative ? -part : part;
    }
    w->low = limb < w->low ? limb : w->low;
    w->high = limb + 4 > w->high ? limb + 4 < ULP_LIMBS ? limb + 4 : ULP_LIMBS - 1 : w->high;
    if (++w->terms == ULP_TERMS_BEFORE_CARRY)
        ulp_wide_carry(w);
}

/* Add a*b. */
static inline void ulp_wide_add_product(ulp_wide *w, double a, double b)
{
    if (!isfinite(a) || !isfinite(b)) {
        w->special += a * b;
        w->minus_zero = w->plus_zero = 0;
        return;
    }
    ulp_wide_add(w, ulp_exact_product(a, b));
}

/* From the sum of the terms, not empty, to its sign and magnitude; nothing can be added any more. */
static inline void ulp_wide_settle(ulp_wide *w)
{
    ulp_wide_carry(w);
    if (w->limbs[w->high] < 0) {
        w->negative = 1;
        for (int i = w->low; i <= w->high; i++)
            w->limbs[i] = -w->limbs[i];
        ulp_wide_carry(w);
    }
}

/* Take the magnitude modulo 2^exponent, above the lowest bit; return whether that changed it. */
static inline int ulp_wide_modulo(ulp_wide *w, int exponent)
{
    if (w->high < 0)
        return 0;
    ulp_wide_settle(w);
    int position = exponent - ULP_LOWEST_BIT, changed = 0;
    for (int i = w->low > position / 32 ? w->low : position / 32; i <= w->high; i++) {
        int64_t kept = i == position / 32 ? w->limbs[i] & ((1ll << position % 32) - 1) : 0;
        changed |= kept != w->limbs[i];
        w->limbs[i] = kept;
    }
    return changed;
}

/* The sum of the finite terms, jammed to 126 bits; the sign of a zero means nothing. */
static inline ulp_exact ulp_wide_collect(ulp_wide *w)
{
    ulp_exact x = {0, ULP_LOWEST_BIT, 0};
    if (w->high < 0)
        return x;
    ulp_wide_settle(w);
    x.negative = w->negative;
    int top = w->high;
    while (top > w->low && !w->limbs[top])
        top--;
    int first = top - 3 > w->low ? top - 3 : w->low;
    for (int i = top; i >= first; i--)
        x.significand = (x.significand << 32) | (uint32_t)w->limbs[i];
    x.exponent += 32 * first;
    int sticky = 0, excess = ulp_bit_length(x.significand) - 126;
    if (excess > 0) {
        x.significand = ulp_shift_right_jam(x.significand, excess);
        x.exponent += excess;
    } else if (excess < 0 && first > w->low) { /* at least 97 bits are there, so that one more limb fills the rest */
        uint64_t next = (uint64_t)w->limbs[--first];
        x.significand = x.significand << -excess | next >> (32 + excess);
        x.exponent += excess;
        sticky = (next & ((1ull << (32 + excess)) - 1)) != 0;
    }
    for (int i = w->low; i < first; i++)
        sticky |= w->limbs[i] != 0;
    x.significand |= (ulp_u128)sticky;
    return x;
}

#endif
