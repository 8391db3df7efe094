/* Rounding whole arrays into a use, in double lanes. Included once per source file. */
#include "lanes.inc.h"
#include "roundpack.h"

enum { STRETCH = 512 }; /* elements that are judged together; a multiple of every lane count */

/* Where adding the constant of round_lane stays below the largest double, whatever the precision. */
#define LIMIT 0x1p900

INLINE V choose(B which, V yes, V no) { return (V)((which & (B)yes) | (~which & (B)no)); }

/* Whether magnitudes whose fraction of a quantum is v go up, as ulp_goes_up decides; words for ULP_SR only. Fractions of
 * doubles have at most 53 bits, so that scaling them by powers of two is exact. */
INLINE B goes_up(V v, B negative, B odd, const ulp_use *use, const uint64_t *words)
{
    const V zero = {0}, half = zero + 0.5;
    B inexact = v > zero, up = inexact;
    switch (use->rounding) {
    case ULP_RNA:
        return v >= half;
    case ULP_RNZ:
        return v > half;
    case ULP_RU:
        return inexact & ~negative;
    case ULP_RD:
        return inexact & negative;
    case ULP_ODD:
        return inexact & ~odd;
    case ULP_SR:
        for (int i = 0; i < WIDTH; i++) {
            /* v < 1 has a last bit at 2^-64 or above, or is cut there, as the definition cuts it to 64 bits. */
            double scaled = v[i] * 0x1p64;
            uint64_t fraction = (uint64_t)scaled;
            up[i] = v[i] > 0 && ulp_goes_up(fraction, scaled != (double)fraction, 0, 0, use, words[i]) ? -1 : 0;
        }
        return up;
    default:
        return zero > zero;
    }
}

/* Round n values, n at most STRETCH, none too large for the lanes. */
static void in_lanes(const double *x, double *y, int n, const ulp_use *use, const ulp_place *place, uint8_t *overflow)
{
    const rounder r = make_rounder(use);
    const V zero = {0}, to_quantum = zero + ldexp(1.0, 1 - use->precision), max = r.max;
    const V overflowed = r.overflowed, overflowed_below = broadcast(use->overflowed_below);
    const V infinity = zero + (double)INFINITY, infinite = broadcast(use->infinite);
    rounder unbounded = r;
    unbounded.max = unbounded.overflowed = infinity;
    double buffer[STRETCH] __attribute__((aligned(64))) = {0};
    memcpy(buffer, x, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i += WIDTH) {
        V value = load(buffer + i), magnitude = absolute(value);
        B sign = (B)value & ((B){0} + SIGN_BIT), negative = value < zero;
        V rounded = absolute(round_lane(value, &unbounded, 0, NULL));
        if (use->rounding != ULP_RNE) {
            V quantum = maximum((V)((B)value & ((B){0} + EXPONENT_MASK)), r.smallest_normal) * to_quantum;
            V floor = choose(rounded > magnitude, rounded - quantum, rounded);
            V count = floor / quantum;
            B odd = (B)(count + 0x1p52) << 63 != 0; /* the last bit of an integer below 2^52 */
            V fraction = choose(magnitude < infinity, (magnitude - floor) / quantum, zero);
            uint64_t words[WIDTH];
            if (use->rounding == ULP_SR) {
                ulp_place here = *place;
                for (int lane = 0; lane < WIDTH; lane++, here.index++) {
                    here.index = place->index + (uint64_t)(i + lane);
                    words[lane] = ulp_word(&here);
                }
            }
            V up = choose(goes_up(fraction, negative, odd, use, words), quantum, zero);
            rounded = choose(magnitude < infinity, floor + up, rounded);
        }
        B beyond = rounded > max, endless = magnitude == infinity;
        V replaced = choose(endless, infinite, choose(negative, overflowed_below, overflowed));
        save(buffer + i, (V)((B)choose(beyond, replaced, rounded) | sign));
        for (int lane = 0; overflow && lane < WIDTH && i + lane < n; lane++)
            if (beyond[lane])
                overflow[i + lane] = 1;
    }
    memcpy(y, buffer, (size_t)n * sizeof *y);
}

static void stretch(const double *x, double *y, int n, const ulp_use *use, const ulp_place *place, uint8_t *overflow)
{
    int regular = use->precision >= 2 && use->precision <= 51 && use->min_exponent >= -900 && use->min_exponent <= 900 && !use->flush_subnormals &&
                  !use->unsigned_zero && use->is_signed && !use->gap;
    for (int i = 0; regular && i < n; i++)
        regular = !(fabs(x[i]) >= LIMIT) || isinf(x[i]);
    if (regular) {
        in_lanes(x, y, n, use, place, overflow);
        return;
    }
    ulp_place here = *place;
    for (int i = 0; i < n; i++, here.index++) {
        int overflowed = 0;
        y[i] = ulp_round(x[i], use, &here, &overflowed);
        if (overflowed && overflow)
            overflow[i] = 1;
    }
}

void ISA_NAME(ulp_quantize)(const void *x, int x_is_double, void *y, int y_is_double, int64_t n, const ulp_use *use,
                            const ulp_place *place, uint8_t *overflow)
{
    double in[STRETCH], out[STRETCH];
    ulp_place here = *place;
    for (int64_t at = 0; at < n; at += STRETCH, here.index += STRETCH) {
        int count = n - at < STRETCH ? (int)(n - at) : STRETCH;
        if (x_is_double)
            memcpy(in, (const double *)x + at, (size_t)count * sizeof *in);
        else
            for (int i = 0; i < count; i++)
                in[i] = (double)((const float *)x)[at + i];
        stretch(in, out, count, use, &here, overflow ? overflow + at : NULL);
        for (int i = 0; i < count; i++)
            out[i] = out[i] != out[i] ? (double)NAN : out[i];
        if (y_is_double)
            memcpy((double *)y + at, out, (size_t)count * sizeof *out);
        else
            for (int i = 0; i < count; i++)
                ((float *)y)[at + i] = (float)out[i];
    }
}
