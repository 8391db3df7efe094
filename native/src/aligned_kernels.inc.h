/* The aligned-truncated step of tensor cores in lanes of float: each lane one output, n products a step.
 *
 * Included once per source file. A step goes twice over its products. The first time it finds the largest exponent E of
 * a product or of the state; exponents are added as integers of 16 bits, COLUMNS in a vector. The second time it scales
 * the exact products by 2^(F - E), cuts them to integers toward zero, as conversion does, and adds these. Under which
 * conditions nothing of this overflows or is inexact is in simulator/arithmetic/conditions.py.
 *
 * Products are taken from slots: what a step lacks at the end of a run is filled with zeros, and the order of the
 * products in a run is that of its slots. b is packed into panels [slot][COLUMNS] of values and exponents, once for all
 * rows; a into rows [slot], once for all panels of a tile; of listed outputs both lie in lanes, [slot][COLUMNS]. */

#include <float.h>

#include "lanes.inc.h"
#include "roundpack.h"

enum {
    COLUMN_VECTORS = 2,
    COLUMNS = COLUMN_VECTORS * WIDTH,
    PANELS = 128 / COLUMNS, /* of a tile */
    ROWS = 8,
#if defined(ISA_AVX512)
    TOGETHER = 4, /* rows of a step, as many as registers hold; divides ROWS */
#elif defined(ISA_AVX2)
    TOGETHER = 2,
#else
    TOGETHER = 1,
#endif
    NO_EXPONENT = -(1 << 14) /* of a zero: below whatever it is added to, and twice it is an int16_t */
};

/* How a step ends. In float: toward zero, in a format whose subnormals no sum reaches; or to nearest even at p <= 22.
 * In double: any other format, states that join late, and lanes that overflow. */
enum { CUT, NEAREST, IN_DOUBLE };

/* Constants of a rounding of doubles into a format, as round_lane has them; to_quantum is 0 where it is to nearest. */
typedef struct {
    double smallest_normal, to_constant, to_quantum, max, beyond, beyond_below;
} double_rounder;

typedef struct {
    const ulp_job *job;
    const ulp_node *node;
    int64_t slots;                       /* of all runs */
    int64_t *order;                      /* [slots]: k, or -1 for a zero */
    float *b_values, *a_values;          /* [PANELS][slots][COLUMNS], [ROWS][slots]; listed: both [slots][COLUMNS] */
    int16_t *b_exponents, *a_exponents;  /* the same; of dense a [ROWS][slots][2], each twice, to be broadcast as one */
    int ending;
    rounder state;                       /* of the state, for NEAREST; max for CUT too */
    B kept_bits;                         /* for CUT: the mask of p bits */
    double_rounder state_double, join[ULP_MAX_JOINS];
    int join_in_lanes[ULP_MAX_JOINS];
} context_t;

/* --- slots -------------------------------------------------------------------------------------------------------- */

/* Append the slots of the run k0 <= k < k1 of the leaf; with order NULL only count them. */
static int64_t append_run(const ulp_node *node, int64_t k0, int64_t k1, int64_t *order, int64_t at)
{
    int64_t length = node->two_of_four ? 2 * node->length : node->length;
    for (; k0 < k1; k0 += length)
        for (int half = 0; half < (node->two_of_four ? 2 : 1); half++)
            for (int64_t i = 0; i < length; i++) {
                if (node->two_of_four && i % 4 / 2 != half)
                    continue;
                if (order)
                    order[at] = k0 + i < k1 ? k0 + i : -1;
                at++;
            }
    return at;
}

/* The same of all runs within runs, down from a level. */
static int64_t append_runs(const ulp_job *job, int level, int64_t k0, int64_t k1, int64_t *order, int64_t at)
{
    if (!level)
        return append_run(&job->nodes[job->leaf], k0, k1, order, at);
    for (int64_t length = job->join_length[level - 1]; k0 < k1; k0 += length)
        at = append_runs(job, level - 1, k0, length < k1 - k0 ? k0 + length : k1, order, at);
    return at;
}

typedef struct {
    size_t b_values, b_exponents, a_values, a_exponents, order, bytes; /* offsets in the scratch memory */
} layout_t;

static size_t next_line(size_t at) { return (at + 63) / 64 * 64; }

static layout_t layout(const ulp_job *job, int64_t slots)
{
    size_t n = (size_t)slots, b = n * COLUMNS * (job->rows ? 1 : PANELS), a = n * (job->rows ? COLUMNS : ROWS);
    layout_t l;
    l.b_values = next_line(sizeof(context_t));
    l.b_exponents = next_line(l.b_values + b * sizeof(float));
    l.a_values = next_line(l.b_exponents + b * sizeof(int16_t));
    l.a_exponents = next_line(l.a_values + a * sizeof(float));
    l.order = next_line(l.a_exponents + 2 * a * sizeof(int16_t));
    l.bytes = l.order + n * sizeof(int64_t);
    return l;
}

static size_t scratch_bytes(const ulp_job *job)
{
    return layout(job, append_runs(job, job->join_count, 0, job->k, NULL, 0)).bytes;
}

static double_rounder make_double_rounder(const ulp_use *use, double beyond, double beyond_below)
{
    return (double_rounder){ldexp(1.0, use->min_exponent), ldexp(1.5, 53 - use->precision),
                            use->rounding == ULP_RZ ? ldexp(1.0, 1 - use->precision) : 0.0,
                            use->max, beyond, beyond_below};
}

/* Whether a double rounded to odd is rounded into the use once by a double_rounder. */
static int rounds_in_double(const ulp_use *use)
{
    return use->family == ULP_FLOAT && (use->rounding == ULP_RNE || use->rounding == ULP_RZ) && use->is_signed &&
           !use->unsigned_zero && !use->flush_subnormals && !use->gap && use->zero == 0.0 && use->precision > 1 &&
           use->precision <= 51 && use->min_exponent >= -960 && use->max <= 0x1p960;
}

static context_t *start(const ulp_job *job, void *scratch)
{
    context_t *c = scratch;
    const ulp_use *use = &job->nodes[job->leaf].sum;
    c->job = job;
    c->node = &job->nodes[job->leaf];
    c->slots = append_runs(job, job->join_count, 0, job->k, NULL, 0);
    layout_t l = layout(job, c->slots);
    c->b_values = (float *)((char *)scratch + l.b_values);
    c->b_exponents = (int16_t *)((char *)scratch + l.b_exponents);
    c->a_values = (float *)((char *)scratch + l.a_values);
    c->a_exponents = (int16_t *)((char *)scratch + l.a_exponents);
    c->order = (int64_t *)((char *)scratch + l.order);
    append_runs(job, job->join_count, 0, job->k, c->order, 0);
    c->state_double = make_double_rounder(use, use->infinite, use->infinite_below);
    c->state.smallest_normal = broadcast((float)ldexp(1.0, use->min_exponent));
    c->state.max = broadcast((float)use->max);
    c->state.key = (B){0} + ((24 - use->precision) << 23 | 1 << 22);
    c->kept_bits = (B){0} - (1 << (24 - use->precision));
    if (c->node->late)
        c->ending = IN_DOUBLE;
    else if (use->rounding == ULP_RZ && use->min_exponent <= -125)
        c->ending = CUT;
    else
        c->ending = use->rounding == ULP_RNE && use->precision <= 22 ? NEAREST : IN_DOUBLE;
    for (int i = 0; i < job->join_count; i++) {
        c->join_in_lanes[i] = rounds_in_double(&job->join[i]);
        c->join[i] = make_double_rounder(&job->join[i], job->join[i].overflowed, -job->join[i].overflowed_below);
    }
    return c;
}

/* The exponent of an operand, at least `least`; operands are normal floats, or `least` is at least that of these. */
INLINE int16_t exponent_of(float x, int32_t least)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t exponent = (int32_t)(bits >> 23 & 0xFF) - 127;
    exponent = exponent > least ? exponent : least;
    return (int16_t)(bits << 1 ? exponent : NO_EXPONENT);
}

static void exponents(const float *values, int16_t *to, int64_t n, int32_t least)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = exponent_of(values[i], least);
}

static float element_or_zero(const ulp_matrix *x, int64_t row, int64_t column, int64_t k)
{
    return k < 0 ? 0.0f : (float)ulp_element(x, row, column);
}

static void pack_b(context_t *c, int64_t panel, int64_t column, int64_t columns)
{
    const ulp_matrix *b = &c->job->b;
    float *values = c->b_values + panel * c->slots * COLUMNS;
    for (int64_t slot = 0; slot < c->slots; slot++) {
        int64_t k = c->order[slot];
        for (int64_t j = 0; j < COLUMNS; j++)
            values[slot * COLUMNS + j] = j < columns ? element_or_zero(b, k, column + j, k) : 0.0f;
    }
    exponents(values, c->b_exponents + panel * c->slots * COLUMNS, c->slots * COLUMNS, c->node->b_min_exponent);
}

/* Pack rows, and zeros for what the last rows of a step lack. */
static void pack_a(context_t *c, int64_t row, int64_t rows)
{
    const ulp_matrix *a = &c->job->a;
    for (int64_t i = 0; i < (rows + TOGETHER - 1) / TOGETHER * TOGETHER; i++) {
        float *values = c->a_values + i * c->slots;
        int16_t *to = c->a_exponents + 2 * i * c->slots;
        if (i >= rows)
            memset(values, 0, (size_t)c->slots * sizeof(float));
        else if (a->is_double || a->row_offsets)
            for (int64_t slot = 0; slot < c->slots; slot++)
                values[slot] = element_or_zero(a, row + i, c->order[slot], c->order[slot]);
        else {
            const float *from = (const float *)a->data + (row + i) * a->row_stride;
            for (int64_t slot = 0; slot < c->slots; slot++)
                values[slot] = c->order[slot] < 0 ? 0.0f : from[c->order[slot] * a->column_stride];
        }
        for (int64_t slot = 0; slot < c->slots; slot++)
            to[2 * slot] = to[2 * slot + 1] = exponent_of(values[slot], c->node->a_min_exponent);
    }
}

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
    int64_t rows, columns;
    int64_t panel;
    int64_t at; /* the slot where the next run begins */
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
    const int64_t n = c->node->length, slots = c->slots;
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

/* --- runs and tiles ----------------------------------------------------------------------------------------------- */

INLINE void run_steps(context_t *c, states_t *s, int64_t steps, int lanes, int ending, int counts)
{
    const int64_t n = c->node->length, first = s->panel * c->slots;
    const int together = lanes ? 1 : TOGETHER;
    for (int64_t i = 0; i < steps; i++, s->at += n)
        for (int64_t row = 0; row < s->rows; row += together) {
            int64_t a = lanes ? s->at * COLUMNS : row * c->slots + s->at, b = (first + s->at) * COLUMNS;
            step(c, s, row * COLUMNS, c->a_values + a, c->a_exponents + (lanes ? a : 2 * a), c->b_values + b,
                 c->b_exponents + b, together, lanes, ending, counts);
        }
}

/* Run the leaf; compiled on its own for each way that a step ends. */
INLINE void run_ending(context_t *c, states_t *s, int64_t steps, int lanes, int counts)
{
    if (c->ending == CUT)
        run_steps(c, s, steps, lanes, CUT, counts);
    else if (c->ending == NEAREST)
        run_steps(c, s, steps, lanes, NEAREST, counts);
    else
        run_steps(c, s, steps, lanes, IN_DOUBLE, counts);
}

static void run_listed_leaf(context_t *c, states_t *s, int64_t steps) { run_ending(c, s, steps, 1, 0); }
static void run_counted_leaf(context_t *c, states_t *s, int64_t steps) { run_ending(c, s, steps, 0, 1); }
static void run_dense_leaf(context_t *c, states_t *s, int64_t steps) { run_ending(c, s, steps, 0, 0); }

static void run_leaf(context_t *c, states_t *s, int64_t k0, int64_t k1)
{
    int64_t steps = append_run(c->node, k0, k1, NULL, 0) / c->node->length;
    (c->job->rows ? run_listed_leaf : c->job->counts ? run_counted_leaf : run_dense_leaf)(c, s, steps);
}

/* s = s + t of `n` moderate numbers, the sum rounded to odd first. */
static void join_moderate(double *s, const double *t, int32_t *over, int64_t n, const double_rounder *rounding)
{
    const double_rounder r = *rounding;
    for (int64_t i = 0; i < n; i++) {
        int beyond;
        s[i] = round_double(odd_sum_of_doubles(s[i], t[i]), &r, &beyond);
        over[i] |= beyond;
    }
}

/* Whether numbers are finite, and so far from the largest double that the constants of a rounding are too. */
static int all_moderate(const double *x, int64_t n)
{
    int moderate = 1;
    for (int64_t i = 0; i < n; i++)
        moderate &= fabs(x[i]) <= 0x1p960;
    return moderate;
}

/* Join the runs of a row to the states of a level. */
static void join(context_t *c, double *s, const double *runs, int32_t *over, int64_t n, int level)
{
    const ulp_use *use = &c->job->join[level - 1];
    if (c->join_in_lanes[level - 1] && all_moderate(s, n) && all_moderate(runs, n)) {
        join_moderate(s, runs, over, n, &c->join[level - 1]);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        int overflowed = 0;
        s[i] = ulp_sum(s[i], runs[i], use, NULL, &overflowed);
        over[i] |= overflowed;
    }
}

/* Count that runs joined the sums `before` and made the sums s of them; of some that went beyond the largest value. */
static void count_joined(tally_t *tally, int64_t at, const double *before, const double *runs, const double *s,
                         const int32_t *beyond, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int finite = isfinite(before[i]) && isfinite(runs[i]);
        tally->overflows[at + i] += beyond[i];
        tally->underflows[at + i] += finite && s[i] == 0.0 && before[i] + runs[i] != 0.0;
        tally->swamped[at + i] += runs[i] != 0.0 && s[i] == before[i] && !beyond[i];
        if (isfinite(s[i]) && fabs(s[i]) > tally->largest_joined[at + i])
            tally->largest_joined[at + i] = fabs(s[i]);
    }
}

/* Accumulate k0 <= k < k1 into the states of a level. */
static void accumulate(context_t *c, states_t *s, int level, int64_t k0, int64_t k1)
{
    if (!level) {
        run_leaf(c, s, k0, k1);
        return;
    }
    for (int64_t length = c->job->join_length[level - 1]; k0 < k1; k0 += length) {
        if (level == 1)
            memset(s->leaf, 0, sizeof s->leaf);
        else
            memset(s->joined[level - 1], 0, sizeof s->joined[level - 1]);
        accumulate(c, s, level - 1, k0, length < k1 - k0 ? k0 + length : k1);
        for (int64_t row = 0; row < s->rows; row++) {
            const int64_t at = row * COLUMNS;
            double runs[COLUMNS], before[COLUMNS], *sums = s->joined[level] + at;
            int32_t beyond[COLUMNS] = {0};
            for (int64_t i = 0; i < COLUMNS; i++)
                runs[i] = level == 1 ? (double)s->leaf[at + i] : s->joined[level - 1][at + i];
            memcpy(before, sums, sizeof before);
            join(c, sums, runs, beyond, s->columns, level);
            for (int64_t i = 0; i < s->columns; i++)
                s->over[at + i] |= beyond[i];
            if (c->job->counts)
                count_joined(&s->tally, at, before, runs, sums, beyond, s->columns);
        }
    }
}

static void begin(const context_t *c, states_t *s)
{
    memset(s->leaf, 0, sizeof s->leaf);
    for (int level = 1; level <= c->job->join_count; level++)
        memset(s->joined[level], 0, sizeof s->joined[level]);
    memset(s->over, 0, sizeof s->over);
    if (c->job->counts)
        memset(&s->tally, 0, sizeof s->tally);
    s->at = 0;
}

static void place_addend(const context_t *c, states_t *s, int64_t lane, int64_t row, int64_t column)
{
    int top = c->job->join_count;
    double addend = c->job->c.data ? ulp_element(&c->job->c, row, column) : 0.0;
    if (top)
        s->joined[top][lane] = addend;
    else
        s->leaf[lane] = (float)addend;
}

static void store(const context_t *c, const states_t *s, int64_t lane, int64_t at)
{
    int top = c->job->join_count;
    ulp_store(c->job, at, top ? s->joined[top][lane] : (double)s->leaf[lane], s->over[lane]);
}

/* Add what was counted of a row. */
static void publish(const context_t *c, const states_t *s, int64_t lane, int64_t row, int64_t column)
{
    const tally_t *tally = &s->tally;
    for (int64_t first = 0; first < s->columns; first += ULP_COUNTED_COLUMNS) {
        ulp_counts counts = {0, 0, 0, 0};
        double largest = 0.0;
        for (int64_t i = first; i < s->columns && i < first + ULP_COUNTED_COLUMNS; i++) {
            counts.overflows += tally->overflows[lane + i];
            counts.underflows += tally->underflows[lane + i];
            counts.swamped += tally->swamped[lane + i];
            largest = fmax(largest, fmax((double)tally->largest[lane + i], tally->largest_joined[lane + i]));
        }
        memcpy(&counts.largest, &largest, sizeof largest);
        ulp_publish(c->job, &counts, row, column + first);
    }
}

static void dense(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *scratch)
{
    context_t *c = start(job, scratch);
    states_t s;
    for (int64_t column = col0; column < col1; column += COLUMNS)
        pack_b(c, (column - col0) / COLUMNS, column, col1 - column < COLUMNS ? col1 - column : COLUMNS);
    for (int64_t row = row0; row < row1; row += ROWS) {
        s.rows = row1 - row < ROWS ? row1 - row : ROWS;
        pack_a(c, row, s.rows);
        for (int64_t column = col0; column < col1; column += COLUMNS) {
            s.panel = (column - col0) / COLUMNS;
            s.columns = col1 - column < COLUMNS ? col1 - column : COLUMNS;
            begin(c, &s);
            for (int64_t i = 0; i < s.rows; i++)
                for (int64_t j = 0; j < s.columns; j++)
                    place_addend(c, &s, i * COLUMNS + j, row + i, column + j);
            accumulate(c, &s, job->join_count, 0, job->k);
            for (int64_t i = 0; i < s.rows; i++)
                for (int64_t j = 0; j < s.columns; j++)
                    store(c, &s, i * COLUMNS + j, (row + i) * job->out_stride + column + j);
            for (int64_t i = 0; job->counts && i < s.rows; i++)
                publish(c, &s, i * COLUMNS, row + i, column);
        }
    }
}

static void listed(const ulp_job *job, int64_t first, int64_t last, void *scratch)
{
    context_t *c = start(job, scratch);
    states_t s;
    s.rows = 1;
    s.panel = 0;
    for (; first < last; first += COLUMNS) {
        int64_t lanes = s.columns = last - first < COLUMNS ? last - first : COLUMNS;
        for (int64_t slot = 0; slot < c->slots; slot++)
            for (int64_t i = 0; i < COLUMNS; i++) {
                int64_t k = i < lanes ? c->order[slot] : -1, at = first + (i < lanes ? i : 0);
                c->a_values[slot * COLUMNS + i] = element_or_zero(&job->a, job->rows[at], k, k);
                c->b_values[slot * COLUMNS + i] = element_or_zero(&job->b, k, job->columns[at], k);
            }
        exponents(c->a_values, c->a_exponents, c->slots * COLUMNS, c->node->a_min_exponent);
        exponents(c->b_values, c->b_exponents, c->slots * COLUMNS, c->node->b_min_exponent);
        begin(c, &s);
        for (int64_t i = 0; i < lanes; i++)
            place_addend(c, &s, i, job->rows[first + i], job->columns[first + i]);
        accumulate(c, &s, job->join_count, 0, job->k);
        for (int64_t i = 0; i < lanes; i++)
            store(c, &s, i, first + i);
    }
}

const ulp_kernel ISA_NAME(ulp_float32_aligned) = {dense, listed, scratch_bytes, ROWS, PANELS * COLUMNS, 0};
