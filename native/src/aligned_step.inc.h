/* One aligned step in lanes of float: n products and the state; included by aligned_kernels.inc.h.
 *
 * A step goes twice over its products. The first time it finds the largest exponent E of a product or of the state;
 * exponents are added as integers of 16 bits, COLUMNS in a vector. The second time it scales the exact products by
 * 2^(F - E), cuts them to integers toward zero, as conversion does, and adds these. Under which conditions nothing of
 * this overflows or is inexact is in simulator/arithmetic/conditions.py. */

#include <float.h>

#include "aligned_slots.inc.h"

/* --- outputs under way -------------------------------------------------------------------------------------------- */

enum { TILE_LANES = ROWS * COLUMNS };

/* What is counted of each lane; the meaning of each is that of ulp_counts. */
typedef struct {
    int32_t overflows[TILE_LANES], underflows[TILE_LANES], swamped[TILE_LANES];
    float largest[TILE_LANES];         /* of the states of the leaf */
    double largest_joined[TILE_LANES]; /* of sums of runs */
} tally_t;

/* Outputs in lanes: rows of COLUMNS, or COLUMNS listed ones; their states by level of runs within runs. */
typedef struct {
    float leaf[TILE_LANES];
    double joined[ULP_MAX_JOINS + 1][TILE_LANES]; /* from level 1 on */
    int32_t over[TILE_LANES];
    tally_t tally;
    int64_t row, column, rows, columns; /* where they begin, or in the list; how many */
    int64_t panel;
    int64_t at;       /* the slot where the next run begins */
    int64_t from, to; /* slots that are packed */
} states_t;

/* --- one step ----------------------------------------------------------------------------------------------------- */

/* Round x, exact or rounded to odd, into the format. */
INLINE double round_double(double x, const double_rounder *r, int *beyond)
{
    double power, magnitude = fabs(x);
    int64_t bits;
    memcpy(&bits, &magnitude, sizeof bits);
    bits &= 0x7FF0000000000000ll;
    memcpy(&power, &bits, sizeof power);
    power = power > r->smallest_normal ? power : r->smallest_normal;
    double constant = power * r->to_constant, rounded = (magnitude + constant) - constant;
    rounded -= rounded > magnitude ? power * r->to_quantum : 0.0;
    *beyond = rounded > r->max;
    return *beyond ? x < 0.0 ? r->beyond_below : r->beyond : copysign(rounded, x);
}

/* s + t rounded to odd, of finite numbers. */
INLINE double odd_sum_of_doubles(double s, double t)
{
    double sum = s + t, part = sum - s, error = (s - (sum - part)) + (t - part); /* TwoSum: sum + error == s + t */
    int64_t bits, error_bits, inexact = error != 0.0;
    memcpy(&bits, &sum, sizeof bits);
    memcpy(&error_bits, &error, sizeof error_bits);
    bits = (bits - (inexact & (int64_t)((uint64_t)(bits ^ error_bits) >> 63))) | inexact;
    memcpy(&sum, &bits, sizeof sum);
    return sum;
}

INLINE double power_of_two(int32_t exponent)
{
    int64_t bits = ((int64_t)exponent + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* x rounded down to a multiple of 2^last. */
INLINE double round_down(double x, int32_t last) { return floor(x * power_of_two(-last)) * power_of_two(last); }

/* Totals of WIDTH lanes in which the states join late: the sums of the products at 2^last, their largest exponents. */
INLINE void late_totals(const ulp_node *node, double *totals, const float *state, const int32_t *sum,
                        const int32_t *exponent, const int32_t *last)
{
    const int cuts_sum = node->sum_fraction != ULP_NONE, cuts_state = node->c_fraction != ULP_NONE;
    const int32_t sum_fraction = cuts_sum ? node->sum_fraction : 0, c_fraction = cuts_state ? node->c_fraction : 0;
    const int32_t reach = node->c_reach == ULP_NONE ? -4 * NO_EXPONENT : node->c_reach;
    for (int i = 0; i < WIDTH; i++) {
        double products = (double)sum[i] * power_of_two(last[i]), c = (double)state[i];
        int32_t bits, e = exponent[i];
        memcpy(&bits, &state[i], sizeof bits);
        int32_t own = (bits >> 23 & 0xFF) - 127;
        own = own > -126 ? own : -126;
        own = state[i] != 0.0f ? own : NO_EXPONENT;
        int32_t top = own > e ? own : e;
        top = top > -126 ? top : -126; /* below, all is zero */
        double less = round_down(products, top - sum_fraction), kept = round_down(c, top - c_fraction);
        products = cuts_sum ? less : products;
        kept = cuts_state ? kept : c;
        kept = (e > NO_EXPONENT / 2) & (own < e - reach) ? 0.0 : kept;
        totals[i] = odd_sum_of_doubles(products, kept);
    }
}

/* Round the sums of WIDTH lanes into the state's format: of the products at 2^last, and of the state; if it is early,
 * `other` is what it is at 2^last too, else the exponent of the products. `dropped` of their terms were cut to zero. */
static __attribute__((noinline)) void end_in_double(const context_t *c, states_t *s, int64_t at, const int32_t *sum,
                                                    const int32_t *other, const int32_t *last, const int32_t *dropped)
{
    const double_rounder r = c->state_double;
    float *state = s->leaf + at;
    tally_t *tally = &s->tally;
    double totals[WIDTH];
    if (c->node->late)
        late_totals(c->node, totals, state, sum, other, last);
    else
        for (int i = 0; i < WIDTH; i++)
            totals[i] = ((double)sum[i] + (double)other[i]) * power_of_two(last[i]);
    for (int i = 0; i < WIDTH; i++) {
        double before = (double)state[i];
        int beyond, kept = !(fabs(before) <= r.max); /* what overflowed stays */
        double value = round_double(totals[i], &r, &beyond);
        state[i] = (float)(kept ? before : value);
        s->over[at + i] |= beyond & !kept;
        if (!dropped)
            continue;
        tally->overflows[at + i] += kept ? fabs(before) > r.max : beyond; /* an infinity each time anew, a NaN never */
        tally->underflows[at + i] += !kept & (value == 0.0) & (totals[i] != 0.0);
        tally->swamped[at + i] += kept ? 0 : dropped[i];
        float magnitude = fabsf(state[i]);
        tally->largest[at + i] =
            (magnitude > tally->largest[at + i]) & (magnitude <= FLT_MAX) ? magnitude : tally->largest[at + i];
    }
}

typedef int16_t exponents_t __attribute__((vector_size(VECTOR_BYTES)));
typedef int16_t exponents_in_memory __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(int16_t)), may_alias));
typedef INTEGER integers_in_memory __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(INTEGER)), may_alias));

INLINE exponents_t load_exponents(const int16_t *p) { return *(const exponents_in_memory *)p; }
INLINE B load_integers(const int32_t *p) { return *(const integers_in_memory *)p; }
INLINE void save_integers(int32_t *p, B x) { *(integers_in_memory *)p = x; }

INLINE exponents_t broadcast_exponent(const int16_t *twice)
{
    int32_t pair;
    memcpy(&pair, twice, sizeof pair);
    return (exponents_t)((B){0} + pair);
}

INLINE B larger(B x, B y)
{
#if defined(ISA_AVX512)
    return (B)_mm512_max_epi32((__m512i)x, (__m512i)y);
#elif defined(ISA_AVX2)
    return (B)_mm256_max_epi32((__m256i)x, (__m256i)y);
#else
    B above = x > y;
    return (above & x) | (~above & y);
#endif
}

INLINE exponents_t larger_exponents(exponents_t x, exponents_t y)
{
#if defined(ISA_AVX512)
    return (exponents_t)_mm512_max_epi16((__m512i)x, (__m512i)y);
#elif defined(ISA_AVX2)
    return (exponents_t)_mm256_max_epi16((__m256i)x, (__m256i)y);
#else
    exponents_t above = x > y;
    return (above & x) | (~above & y);
#endif
}

/* The exponents of vector v. */
INLINE B widen(exponents_t x, int v)
{
#if defined(ISA_AVX512)
    return (B)_mm512_cvtepi16_epi32(v ? _mm512_extracti64x4_epi64((__m512i)x, 1) : _mm512_castsi512_si256((__m512i)x));
#elif defined(ISA_AVX2)
    return (B)_mm256_cvtepi16_epi32(v ? _mm256_extracti128_si256((__m256i)x, 1) : _mm256_castsi256_si128((__m256i)x));
#else
    B wide;
    for (int i = 0; i < WIDTH; i++)
        wide[i] = x[v * WIDTH + i];
    return wide;
#endif
}

/* x as floats: to_odd, or toward zero. */
INLINE V floats_of(B x, int to_odd)
{
#if defined(ISA_AVX512)
    __m512 cut = _mm512_cvt_roundepi32_ps((__m512i)x, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    if (!to_odd)
        return cut;
    __mmask16 inexact = _mm512_cmpneq_epi32_mask(_mm512_cvttps_epi32(cut), (__m512i)x);
    __m512i bits = _mm512_castps_si512(cut);
    return (V)_mm512_mask_or_epi32(bits, inexact, bits, _mm512_set1_epi32(1));
#else
    V high = __builtin_convertvector(x & ~0xFF, V), low = __builtin_convertvector(x & 0xFF, V); /* both exact */
    V sum = high + low, error = low - (sum - high);
    if (to_odd)
        return odd_neighbour(sum, error);
    B inexact = error != (V){0}, beyond = ((B)sum ^ (B)error) < 0;
    return (V)((B)sum + (beyond & inexact));
#endif
}

/* Whether no magnitude of x or y exceeds max, none is NaN, and no element of z is negative. */
INLINE int all_within(V x, V y, V max, B z)
{
#if defined(ISA_AVX512)
    __mmask16 within = _mm512_cmp_ps_mask(absolute(x), max, _CMP_LE_OQ);
    within = _mm512_mask_cmp_ps_mask(within, absolute(y), max, _CMP_LE_OQ);
    return _mm512_mask_cmp_epi32_mask(within, (__m512i)z, _mm512_setzero_si512(), _MM_CMPINT_NLT) == 0xFFFF;
#else
    B within = (absolute(x) <= max) & (absolute(y) <= max) & ~z;
#if defined(ISA_AVX2)
    return _mm256_movemask_ps((__m256)within) == 0xFF;
#elif defined(__SSE2__)
    return _mm_movemask_ps((__m128)within) == 0xF;
#else
    int all = 1;
    for (int i = 0; i < WIDTH; i++)
        all &= within[i] < 0;
    return all;
#endif
#endif
}

/* Count steps that ended at y, none of them beyond the largest value. */
INLINE void count_ordinary(tally_t *tally, int64_t at, B total, V y, B dropped)
{
    B underflows = (y == (V){0}) & (total != 0);
    save_integers(tally->underflows + at, load_integers(tally->underflows + at) - underflows);
    save_integers(tally->swamped + at, load_integers(tally->swamped + at) + dropped);
    save(tally->largest + at, larger_magnitude(y, load(tally->largest + at)));
}

/* The same in float, where `ending` allows it and no lane overflows. */
INLINE void end_step(const context_t *c, states_t *s, int64_t at, B sum, B other, B last, B dropped, int ending,
                     int counts)
{
    if (ending != IN_DOUBLE) {
        B total = sum + other, bias = (B){0} + 127;
        V before = load(s->leaf + at), up = (V)((last + bias) << 23), x = floats_of(total, ending == NEAREST), y;
        if (ending == NEAREST) {
            /* Before it is scaled, so that no constant overflows: x is below 2^32, and a normal from 2^60 on has
             * subnormals so far apart that x is rounded to zero. */
            V normal = clamp(c->state.smallest_normal * (V)((bias - last) << 23), broadcast(0x1p60f));
            V power = maximum((V)((B)x & ((B){0} + EXPONENT_MASK)), normal);
            V m = (V)((B)power + c->state.key);
            y = with_sign(((x + m) - m) * up, x);
        } else
            y = (V)((B)x & c->kept_bits) * up;
        if (all_within(y, before, c->state.max, (sum ^ total) & (other ^ total))) {
            save(s->leaf + at, y);
            if (counts)
                count_ordinary(&s->tally, at, total, y, dropped);
            return;
        }
    }
    int32_t sums[WIDTH], others[WIDTH], lasts[WIDTH], drops[WIDTH];
    save_integers(sums, sum);
    save_integers(others, other);
    save_integers(lasts, last);
    save_integers(drops, dropped);
    end_in_double(c, s, at, sums, others, lasts, counts ? drops : NULL);
}

/* One step of `rows` rows of COLUMNS outputs from a lane on, or of COLUMNS listed outputs: n products, a broadcast or
 * in lanes. */
INLINE void step(const context_t *c, states_t *s, int64_t lane, const float *a, const int16_t *a_exponents,
                 const float *b, const int16_t *b_exponents, int rows, int lanes, int ending, int counts)
{
    const int64_t n = c->node->length, slots = c->packed;
    const int32_t fraction = c->node->fraction, late = ending == IN_DOUBLE && c->node->late;
    const int16_t lowest = (int16_t)(c->node->min_exponent == ULP_NONE ? NO_EXPONENT : c->node->min_exponent);
    const B none = (B){0} + NO_EXPONENT, bias = (B){0} + 127, least = (B){0} - 126;
    exponents_t top[TOGETHER];
    B sum[TOGETHER][COLUMN_VECTORS], last[TOGETHER][COLUMN_VECTORS], dropped[TOGETHER][COLUMN_VECTORS];
    V scale[TOGETHER][COLUMN_VECTORS];
    for (int row = 0; row < rows; row++)
        top[row] = (exponents_t){0} + lowest;
#pragma GCC unroll 4
    for (int64_t j = 0; j < n; j++) {
        exponents_t e = load_exponents(b_exponents + j * COLUMNS);
        for (int row = 0; row < rows; row++) {
            exponents_t other = lanes ? load_exponents(a_exponents + j * COLUMNS)
                                      : broadcast_exponent(a_exponents + 2 * (row * slots + j));
            top[row] = larger_exponents(e + other, top[row]);
        }
    }
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < COLUMN_VECTORS; v++) {
            B exponent = widen(top[row], v);
            if (!late) {
                V held = load(s->leaf + lane + row * COLUMNS + v * WIDTH);
                B own = larger(((B)held >> 23 & 0xFF) - bias, least), is_zero = held == (V){0};
                exponent = larger((~is_zero & own) | (is_zero & none), exponent);
            }
            /* Below -126 all is zero, and the scale does not matter, but must not make a NaN of a zero. */
            last[row][v] = larger(exponent - fraction, least);
            scale[row][v] = (V)((bias - last[row][v]) << 23);
            sum[row][v] = dropped[row][v] = (B){0};
        }
#pragma GCC unroll 2
    for (int64_t j = 0; j < n; j++)
        for (int row = 0; row < rows; row++) {
            V x = broadcast(lanes ? 0.0f : a[row * slots + j]);
            for (int v = 0; v < COLUMN_VECTORS; v++) {
                V product = (lanes ? load(a + j * COLUMNS + v * WIDTH) : x) * load(b + j * COLUMNS + v * WIDTH);
                B kept = __builtin_convertvector(product * scale[row][v], B);
                sum[row][v] += kept;
                if (counts)
                    dropped[row][v] -= (kept == 0) & (product != (V){0});
            }
        }
    for (int row = 0; row < rows; row++)
        for (int v = 0; v < COLUMN_VECTORS; v++) {
            int64_t at = lane + row * COLUMNS + v * WIDTH;
            V held = load(s->leaf + at);
            B other = late ? widen(top[row], v) : __builtin_convertvector(held * scale[row][v], B);
            if (counts && !late)
                dropped[row][v] -= (other == 0) & (held != (V){0});
            end_step(c, s, at, sum[row][v], other, last[row][v], dropped[row][v], ending, counts);
        }
}
