/* Whole arrays: rounding into a use of any family, and the codes of the results. Included once per source file. */
#include "lanes.inc.h"
#include "codebook.h"
#include "roundpack.h"

/* Round element i of a stretch on its own. */
static void round_one(double x, double *y, int i, const ulp_use *use, const ulp_place *place, uint8_t *overflow)
{
    ulp_place here = *place;
    int overflowed = 0;
    here.index += (uint64_t)i;
    *y = ulp_round(x, use, &here, &overflowed);
    if (overflowed && overflow)
        overflow[i] = 1;
}

#include "round_lanes.inc.h"
#include "tapered_lanes.inc.h"

/* --- codebooks ---------------------------------------------------------------------------------------------------- */

static void round_codebook(const double *x, double *y, int n, const ulp_use *use, const ulp_place *place,
                           uint8_t *overflow)
{
    const ulp_codebook *book = use->codebook;
    ulp_place here = *place;
    if (use->rounding != ULP_SR)
        for (int i = 0; i < n; i++)
            y[i] = book->ladder[2 * ulp_codebook_code(x[i], book)];
    for (int i = 0; use->rounding == ULP_SR && i < n; i++, here.index++) {
        int64_t code = ulp_codebook_random(x[i], use, &here);
        y[i] = code < 0 ? (double)NAN : book->values[code];
    }
    for (int i = 0; overflow && i < n; i++)
        overflow[i] |= x[i] < book->values[0] || x[i] > book->values[book->count - 1];
}

/* --- the codes of values ------------------------------------------------------------------------------------------ */

#define EACH(target, of)                                                                                               \
    for (int i = 0; i < n; i++)                                                                                        \
        target[i] = of;                                                                                                \
    break

static void encode(const double *value, uint64_t *codes, int n, const ulp_use *use, const cuts *c)
{
    switch (use->family) {
    case ULP_FLOAT:
        EACH(codes, ulp_float_code(value[i], use));
    case ULP_FIXED:
        EACH(codes, ulp_fixed_code(value[i], use));
    case ULP_CODEBOOK:
        EACH(codes, ulp_codebook_code(value[i], use->codebook));
    default:
        encode_tapered(value, codes, n, use, c);
    }
}

static void decode(const uint64_t *codes, double *value, int n, const ulp_use *use)
{
    switch (use->family) {
    case ULP_FLOAT:
        EACH(value, ulp_float_value(codes[i], use));
    case ULP_FIXED:
        EACH(value, ulp_fixed_value(codes[i], use));
    case ULP_CODEBOOK:
        EACH(value, use->codebook->values[codes[i]]);
    case ULP_POSIT:
        decode_posits(codes, value, n, use);
        break;
    default:
        EACH(value, ulp_tapered_value(codes[i], use));
    }
}

/* --- arrays of any type, stretch by stretch ----------------------------------------------------------------------- */

static void load_values(const ulp_array *array, int64_t at, double *to, int n)
{
    switch (array->type) {
    case ULP_F32:
        EACH(to, ((const float *)array->data)[at + i]);
    default:
        memcpy(to, (const double *)array->data + at, (size_t)n * sizeof *to);
    }
}

static void load_codes(const ulp_array *array, int64_t at, uint64_t *to, int n)
{
    switch (array->type) {
    case ULP_U8:
        EACH(to, ((const uint8_t *)array->data)[at + i]);
    case ULP_U16:
        EACH(to, ((const uint16_t *)array->data)[at + i]);
    case ULP_U32:
        EACH(to, ((const uint32_t *)array->data)[at + i]);
    default:
        memcpy(to, (const uint64_t *)array->data + at, (size_t)n * sizeof *to);
    }
}

static void store_codes(const ulp_array *array, int64_t at, const uint64_t *from, int n)
{
    uint8_t *u8 = (uint8_t *)array->data + at;
    uint16_t *u16 = (uint16_t *)array->data + at;
    uint32_t *u32 = (uint32_t *)array->data + at;
    switch (array->type) {
    case ULP_U8:
        EACH(u8, (uint8_t)from[i]);
    case ULP_U16:
        EACH(u16, (uint16_t)from[i]);
    case ULP_U32:
        EACH(u32, (uint32_t)from[i]);
    default:
        memcpy((uint64_t *)array->data + at, from, (size_t)n * sizeof *from);
    }
}

/* NaNs become the positive quiet NaN, the same on every instruction set. */
static void store_values(const ulp_array *array, int64_t at, double *from, int n)
{
    float *narrow = (float *)array->data + at;
    for (int i = 0; i < n; i++)
        from[i] = from[i] != from[i] ? (double)NAN : from[i];
    switch (array->type) {
    case ULP_F32:
        EACH(narrow, (float)from[i]);
    default:
        memcpy((double *)array->data + at, from, (size_t)n * sizeof *from);
    }
}

#include "blocks.inc.h"
#include "profile.inc.h"

/* Round a stretch; c for tapered formats, NULL for few elements. x is padded. */
static void round_stretch(double *x, double *y, int n, const ulp_use *use, const ulp_place *place, uint8_t *overflow,
                          const cuts *c)
{
    if (use->family == ULP_FLOAT && holds_doubles(use))
        keep_doubles(x, y, n, use, overflow);
    else if (use->family == ULP_FLOAT && has_lanes(use))
        round_floats(x, y, n, use, place, overflow);
    else if (use->family == ULP_FIXED && use->fraction_bits <= 1000 && !use->wraps)
        round_fixed(x, y, n, use, place, overflow);
    else if (use->family == ULP_CODEBOOK)
        round_codebook(x, y, n, use, place, overflow);
    else if (use->family == ULP_POSIT || use->family == ULP_TAKUM)
        round_tapered(x, y, n, use, place, overflow, c);
    else
        for (int i = 0; i < n; i++)
            round_one(x[i], y + i, i, use, place, overflow);
}

int ISA_NAME(ulp_quantize)(const ulp_array *x, const ulp_array *y, int64_t n, const ulp_use *use,
                           const ulp_place *place, uint8_t *overflow, const ulp_blocks *blocks)
{
    double in[STRETCH] __attribute__((aligned(64))), out[STRETCH] __attribute__((aligned(64)));
    double quotient[STRETCH] __attribute__((aligned(64))), scale[STRETCH];
    uint64_t codes[STRETCH];
    cuts table, *c = NULL;
    ulp_place here = *place;
    int status = ULP_OK, to_codes = y->type != ULP_F64 && y->type != ULP_F32;
    int by_thresholds = use->family == ULP_CODEBOOK && use->rounding != ULP_SR && to_codes; /* the search rounds */
    if ((use->family == ULP_POSIT || use->family == ULP_TAKUM) && n >= 256)
        make_cuts(c = &table, use);
    for (int64_t at = 0; at < n; at += STRETCH, here.index += STRETCH) {
        int count = n - at < STRETCH ? (int)(n - at) : STRETCH, divided = 1;
        uint8_t *flags = overflow ? overflow + at : NULL;
        double *source = in;
        load_values(x, at, in, count);
        if (blocks && blocks->divisors) {
            spread(blocks, blocks->divisors, at, scale, count);
            divided = divide(in, scale, source = quotient, count);
        }
        if (!divided)
            round_quotients(in, scale, out, count, use, &here, flags);
        else if (!by_thresholds)
            round_stretch(source, out, count, use, &here, flags, c);
        if (to_codes) {
            encode(by_thresholds ? source : out, codes, count, use, c);
            store_codes(y, at, codes, count);
            continue;
        }
        if (blocks && blocks->factors) {
            spread(blocks, blocks->factors, at, scale, count);
            status = multiply(out, scale, count) ? ULP_INEXACT : status;
        }
        store_values(y, at, out, count);
    }
    return status;
}

void ISA_NAME(ulp_decode)(const ulp_array *codes, const ulp_array *y, int64_t n, const ulp_use *use)
{
    uint64_t in[STRETCH];
    double out[STRETCH];
    for (int64_t at = 0; at < n; at += STRETCH) {
        int count = n - at < STRETCH ? (int)(n - at) : STRETCH;
        load_codes(codes, at, in, count);
        decode(in, out, count, use);
        store_values(y, at, out, count);
    }
}
