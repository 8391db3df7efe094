/* Rounding whole arrays into a use, in double lanes. Included once per source file. */
#include "lanes.inc.h"
#include "roundpack.h"

enum { STRETCH = 512 }; /* elements that are judged together; a multiple of every lane count */

/* Where adding the constant of round_lane stays below the largest double, whatever the precision. */
#define LIMIT 0x1p900

static void stretch(const double *x, double *y, int n, const ulp_use *use, uint8_t *overflow)
{
    const rounder r = make_rounder(use);
    double padded[STRETCH] __attribute__((aligned(64))) = {0};
    int in_lanes = use->precision >= 2 && use->precision <= 51 && use->min_exponent >= -1022 &&
                   !use->flush_subnormals && !use->unsigned_zero;
    for (int i = 0; in_lanes && i < n; i++)
        in_lanes = !(fabs(x[i]) >= LIMIT) || isinf(x[i]);
    if (!in_lanes) {
        for (int i = 0; i < n; i++) {
            int overflowed = 0;
            y[i] = ulp_round(x[i], use, &overflowed);
            if (overflowed && overflow)
                overflow[i] = 1;
        }
        return;
    }
    memcpy(padded, x, (size_t)n * sizeof *x);
    for (int i = 0; i < n; i += WIDTH)
        save(padded + i, round_lane(load(padded + i), &r, 0, NULL));
    if (overflow) {
        rounder unbounded = r;
        unbounded.max = unbounded.overflowed = broadcast((double)INFINITY);
        for (int i = 0; i < n; i += WIDTH) {
            double wide[WIDTH];
            double part[WIDTH] = {0};
            memcpy(part, x + i, (size_t)(n - i < WIDTH ? n - i : WIDTH) * sizeof *x);
            save(wide, round_lane(load(part), &unbounded, 0, NULL));
            for (int j = 0; j < WIDTH && i + j < n; j++)
                if (fabs(wide[j]) > use->max)
                    overflow[i + j] = 1;
        }
    }
    memcpy(y, padded, (size_t)n * sizeof *y);
}

void ISA_NAME(ulp_quantize)(const void *x, int x_is_double, void *y, int y_is_double, int64_t n, const ulp_use *use,
                            uint8_t *overflow)
{
    double in[STRETCH], out[STRETCH];
    for (int64_t at = 0; at < n; at += STRETCH) {
        int count = n - at < STRETCH ? (int)(n - at) : STRETCH;
        if (x_is_double)
            memcpy(in, (const double *)x + at, (size_t)count * sizeof *in);
        else
            for (int i = 0; i < count; i++)
                in[i] = (double)((const float *)x)[at + i];
        stretch(in, out, count, use, overflow ? overflow + at : NULL);
        for (int i = 0; i < count; i++)
            out[i] = out[i] != out[i] ? (double)NAN : out[i];
        if (y_is_double)
            memcpy((double *)y + at, out, (size_t)count * sizeof *out);
        else
            for (int i = 0; i < count; i++)
                ((float *)y)[at + i] = (float)out[i];
    }
}
