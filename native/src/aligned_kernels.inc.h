/* The aligned-truncated step of tensor cores in lanes of float: each lane one output, n products a step.
 *
 * Included once per source file. A step goes twice over its products. The first time it finds the largest exponent E of
 * a product or of the state; exponents are added as integers. The second time it scales the exact products by
 * 2^(F - E), cuts them to integers toward zero, as conversion does, and adds these. The conditions under which nothing
 * of this overflows or is inexact are in simulator/arithmetic/kernels.py.
 *
 * Products are taken from slots: what a step lacks at the end of a run is filled with zeros, and the order of the
 * products in a run is that of its slots. b is packed into panels [slot][COLUMNS] of values and exponents, once for all
 * rows; a into rows [slot]; of listed outputs both lie in lanes, [slot][WIDTH]. */

#include "lanes.inc.h"
#include "roundpack.h"

enum {
    COLUMN_VECTORS = 2,
    COLUMNS = COLUMN_VECTORS * WIDTH,
    ROWS = 8,
    NO_EXPONENT = -(1 << 20) /* of a zero: below whatever it is added to */
};

typedef struct {
    const ulp_job *job;
    const ulp_node *node;
    int64_t slots;              /* of all runs */
    int64_t *order;             /* [slots]: k, or -1 for a zero */
    float *b_values, *a_values; /* [slots][COLUMNS], [ROWS][slots]; listed: both [slots][WIDTH] */
    int32_t *b_exponents, *a_exponents;
    /* Constants of the rounding into the state's format, as round_lane has them. */
    double smallest_normal, to_constant, to_quantum, max, infinite, infinite_below;
    int cuts;                   /* rounds toward zero; else to nearest even */
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

/* The same of all runs within runs. */
static int64_t append(const ulp_job *job, int level, int64_t k0, int64_t k1, int64_t *order, int64_t at)
{
    if (!level)
        return append_run(&job->nodes[job->leaf], k0, k1, order, at);
    for (int64_t length = job->join_length[level - 1]; k0 < k1; k0 += length)
        at = append(job, level - 1, k0, length < k1 - k0 ? k0 + length : k1, order, at);
    return at;
}

static size_t scratch_bytes(const ulp_job *job)
{
    size_t slots = (size_t)append(job, job->join_count, 0, job->k, NULL, 0);
    size_t width = job->rows ? 2 * WIDTH : COLUMNS + ROWS;
    return (sizeof(context_t) + 63) / 64 * 64 + slots * (sizeof(int64_t) + width * (sizeof(float) + sizeof(int32_t))) +
           4 * 64;
}

static char *next_line(char *p) { return (char *)(((uintptr_t)p + 63) / 64 * 64); }

static context_t *start(const ulp_job *job, void *scratch)
{
    context_t *c = scratch;
    const ulp_use *use = &job->nodes[job->leaf].sum;
    c->job = job;
    c->node = &job->nodes[job->leaf];
    c->slots = append(job, job->join_count, 0, job->k, NULL, 0);
    char *p = next_line((char *)scratch + sizeof *c);
    c->b_values = (float *)p;
    p = next_line(p + (size_t)c->slots * (job->rows ? WIDTH : COLUMNS) * sizeof(float));
    c->b_exponents = (int32_t *)p;
    p = next_line(p + (size_t)c->slots * (job->rows ? WIDTH : COLUMNS) * sizeof(int32_t));
    c->a_values = (float *)p;
    p = next_line(p + (size_t)c->slots * (job->rows ? WIDTH : ROWS) * sizeof(float));
    c->a_exponents = (int32_t *)p;
    p = p + (size_t)c->slots * (job->rows ? WIDTH : ROWS) * sizeof(int32_t);
    c->order = (int64_t *)p;
    append(job, job->join_count, 0, job->k, c->order, 0);
    c->smallest_normal = ldexp(1.0, use->min_exponent);
    c->to_constant = ldexp(1.5, 53 - use->precision);
    c->to_quantum = ldexp(1.0, 1 - use->precision);
    c->max = use->max;
    c->infinite = use->infinite;
    c->infinite_below = use->infinite_below;
    c->cuts = use->rounding == ULP_RZ;
    return c;
}

/* The exponent of an operand, at least `least`; operands are normal floats, or `least` is at least that of these. */
INLINE int32_t exponent_of(float x, int32_t least)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t exponent = (int32_t)(bits >> 23 & 0xFF) - 127;
    exponent = exponent > least ? exponent : least;
    return bits << 1 ? exponent : NO_EXPONENT;
}

static float element_or_zero(const ulp_matrix *x, int64_t row, int64_t column, int64_t k)
{
    return k < 0 ? 0.0f : (float)ulp_element(x, row, column);
}

static void exponents(const float *values, int32_t *to, int64_t n, int32_t least)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = exponent_of(values[i], least);
}

static void pack_b(context_t *c, int64_t column, int64_t columns)
{
    for (int64_t slot = 0; slot < c->slots; slot++)
        for (int64_t j = 0; j < COLUMNS; j++)
            c->b_values[slot * COLUMNS + j] =
                j < columns ? element_or_zero(&c->job->b, c->order[slot], column + j, c->order[slot]) : 0.0f;
    exponents(c->b_values, c->b_exponents, c->slots * COLUMNS, c->node->b_min_exponent);
}

static void pack_a(context_t *c, int64_t row, int64_t rows)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t slot = 0; slot < c->slots; slot++)
            c->a_values[i * c->slots + slot] =
                element_or_zero(&c->job->a, row + i, c->order[slot], c->order[slot]);
    exponents(c->a_values, c->a_exponents, rows * c->slots, c->node->a_min_exponent);
}

/* --- one step ----------------------------------------------------------------------------------------------------- */

/* Round the sums (of the products, and of the state) of WIDTH lanes at 2^(E - F) into the state's format. */
INLINE void end_step(const context_t *c, float *state, int32_t *over, const int32_t *sum, const int32_t *own,
                     const int32_t *top, int cuts)
{
    const int fraction = c->node->fraction;
    const double smallest_normal = c->smallest_normal, to_constant = c->to_constant, to_quantum = c->to_quantum;
    const double max = c->max, infinite = c->infinite, infinite_below = c->infinite_below;
    for (int i = 0; i < WIDTH; i++) {
        int64_t shift = (int64_t)(top[i] > NO_EXPONENT / 2 ? top[i] - fraction : 0) + 1023, bits;
        double scale, power, before = (double)state[i];
        shift <<= 52;
        memcpy(&scale, &shift, sizeof scale);
        double total = ((double)sum[i] + (double)own[i]) * scale, magnitude = fabs(total);
        memcpy(&bits, &magnitude, sizeof bits);
        bits &= 0x7FF0000000000000ll;
        memcpy(&power, &bits, sizeof power);
        power = power > smallest_normal ? power : smallest_normal;
        double constant = power * to_constant, rounded = (magnitude + constant) - constant;
        if (cuts)
            rounded -= rounded > magnitude ? power * to_quantum : 0.0;
        int beyond = rounded > max, kept = !(fabs(before) <= max); /* what overflowed stays */
        double large = total < 0.0 ? infinite_below : infinite;
        double value = beyond ? large : copysign(rounded, total);
        state[i] = (float)(kept ? before : value);
        over[i] |= beyond & !kept;
    }
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

typedef INTEGER lanes_of_int __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(INTEGER)), may_alias));

INLINE B load_integers(const int32_t *p) { return *(const lanes_of_int *)p; }
INLINE void save_integers(int32_t *p, B x) { *(lanes_of_int *)p = x; }

/* One step of `vectors` vectors of outputs side by side: n products, a broadcast or in lanes. */
INLINE void step(const context_t *c, float *state, int32_t *over, const float *a, const int32_t *a_exponents,
                 const float *b, const int32_t *b_exponents, int64_t stride, int vectors, int lanes, int cuts)
{
    const int64_t n = c->node->length;
    const B none = (B){0} + NO_EXPONENT, field = (B){0} + 0xFF, bias = (B){0} + 127, least = (B){0} - 126;
    const B floor = (B){0} + (c->node->min_exponent == ULP_NONE ? NO_EXPONENT : c->node->min_exponent);
    const B most = (B){0} - 126, fraction = (B){0} + c->node->fraction;
    V scale[COLUMN_VECTORS];
    B top[COLUMN_VECTORS], sum[COLUMN_VECTORS];
    for (int v = 0; v < vectors; v++) {
        V held = load(state + v * WIDTH);
        B exponent = ((B)held >> 23 & field) - bias, is_zero = held == (V){0};
        exponent = (~is_zero & larger(exponent, least)) | (is_zero & none);
        top[v] = larger(exponent, floor);
        sum[v] = (B){0};
    }
#pragma GCC unroll 4
    for (int64_t j = 0; j < n; j++) {
        B e = lanes ? load_integers(a_exponents + j * WIDTH) : (B){0} + a_exponents[j];
        for (int v = 0; v < vectors; v++)
            top[v] = larger(e + load_integers(b_exponents + j * stride + v * WIDTH), top[v]);
    }
    for (int v = 0; v < vectors; v++) {
        /* Where all is zero the scale does not matter, but must not be what makes a NaN of a zero. */
        B shift = -larger(top[v] - fraction, most);
        scale[v] = (V)((shift + bias) << 23);
    }
#pragma GCC unroll 4
    for (int64_t j = 0; j < n; j++) {
        V x = lanes ? load(a + j * WIDTH) : broadcast(a[j]);
        for (int v = 0; v < vectors; v++)
            sum[v] += __builtin_convertvector(x * load(b + j * stride + v * WIDTH) * scale[v], B);
    }
    for (int v = 0; v < vectors; v++) {
        int32_t sums[WIDTH], owns[WIDTH], tops[WIDTH];
        save_integers(sums, sum[v]);
        save_integers(owns, __builtin_convertvector(load(state + v * WIDTH) * scale[v], B));
        save_integers(tops, top[v]);
        end_step(c, state + v * WIDTH, over + v * WIDTH, sums, owns, tops, cuts);
    }
}

/* --- runs and tiles ----------------------------------------------------------------------------------------------- */

/* Outputs in lanes: rows of COLUMNS, or one vector of listed ones; their states by level of runs within runs. */
typedef struct {
    float leaf[ROWS * COLUMNS];
    double joined[ULP_MAX_JOINS + 1][ROWS * COLUMNS]; /* from level 1 on */
    int32_t over[ROWS * COLUMNS];
    int64_t rows, columns;
    int64_t at; /* the slot where the next run begins */
} states_t;

INLINE void run_steps(context_t *c, states_t *s, int64_t steps, int lanes, int cuts)
{
    const int64_t n = c->node->length, stride = lanes ? WIDTH : COLUMNS;
    for (int64_t i = 0; i < steps; i++, s->at += n)
        for (int64_t row = 0; row < s->rows; row++) {
            int64_t a = lanes ? s->at * WIDTH : row * c->slots + s->at, b = s->at * stride;
            step(c, s->leaf + row * COLUMNS, s->over + row * COLUMNS, c->a_values + a, c->a_exponents + a,
                 c->b_values + b, c->b_exponents + b, stride, lanes ? 1 : COLUMN_VECTORS, lanes, cuts);
        }
}

static void run_leaf(context_t *c, states_t *s, int64_t k0, int64_t k1)
{
    int64_t steps = append_run(c->node, k0, k1, NULL, 0) / c->node->length;
    if (c->job->rows && c->cuts)
        run_steps(c, s, steps, 1, 1);
    else if (c->job->rows)
        run_steps(c, s, steps, 1, 0);
    else if (c->cuts)
        run_steps(c, s, steps, 0, 1);
    else
        run_steps(c, s, steps, 0, 0);
}

/* Accumulate k0 <= k < k1 into the states of a level; runs are joined one output after the other. */
static void accumulate(context_t *c, states_t *s, int level, int64_t k0, int64_t k1)
{
    if (!level) {
        run_leaf(c, s, k0, k1);
        return;
    }
    const ulp_use *use = &c->job->join[level - 1];
    for (int64_t length = c->job->join_length[level - 1]; k0 < k1; k0 += length) {
        if (level == 1)
            memset(s->leaf, 0, sizeof s->leaf);
        else
            memset(s->joined[level - 1], 0, sizeof s->joined[level - 1]);
        accumulate(c, s, level - 1, k0, length < k1 - k0 ? k0 + length : k1);
        for (int64_t row = 0; row < s->rows; row++)
            for (int64_t i = row * COLUMNS; i < row * COLUMNS + s->columns; i++) {
                int overflowed = 0;
                double run = level == 1 ? (double)s->leaf[i] : s->joined[level - 1][i];
                s->joined[level][i] = ulp_sum(s->joined[level][i], run, use, NULL, &overflowed);
                s->over[i] |= overflowed;
            }
    }
}

static void begin(states_t *s)
{
    memset(s->leaf, 0, sizeof s->leaf);
    memset(s->joined, 0, sizeof s->joined);
    memset(s->over, 0, sizeof s->over);
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

static void dense(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *scratch)
{
    context_t *c = start(job, scratch);
    states_t s;
    pack_b(c, col0, col1 - col0);
    s.columns = col1 - col0;
    for (int64_t row = row0; row < row1; row += ROWS) {
        s.rows = row1 - row < ROWS ? row1 - row : ROWS;
        pack_a(c, row, s.rows);
        begin(&s);
        for (int64_t i = 0; i < s.rows; i++)
            for (int64_t j = 0; j < col1 - col0; j++)
                place_addend(c, &s, i * COLUMNS + j, row + i, col0 + j);
        accumulate(c, &s, job->join_count, 0, job->k);
        for (int64_t i = 0; i < s.rows; i++)
            for (int64_t j = 0; j < col1 - col0; j++)
                store(c, &s, i * COLUMNS + j, (row + i) * job->out_stride + col0 + j);
    }
}

static void listed(const ulp_job *job, int64_t first, int64_t last, void *scratch)
{
    context_t *c = start(job, scratch);
    states_t s;
    s.rows = 1;
    for (; first < last; first += WIDTH) {
        int64_t lanes = s.columns = last - first < WIDTH ? last - first : WIDTH;
        for (int64_t slot = 0; slot < c->slots; slot++)
            for (int64_t i = 0; i < WIDTH; i++) {
                int64_t k = i < lanes ? c->order[slot] : -1, at = first + (i < lanes ? i : 0);
                c->a_values[slot * WIDTH + i] = element_or_zero(&job->a, job->rows[at], k, k);
                c->b_values[slot * WIDTH + i] = element_or_zero(&job->b, k, job->columns[at], k);
            }
        exponents(c->a_values, c->a_exponents, c->slots * WIDTH, c->node->a_min_exponent);
        exponents(c->b_values, c->b_exponents, c->slots * WIDTH, c->node->b_min_exponent);
        begin(&s);
        for (int64_t i = 0; i < lanes; i++)
            place_addend(c, &s, i, job->rows[first + i], job->columns[first + i]);
        accumulate(c, &s, job->join_count, 0, job->k);
        for (int64_t i = 0; i < lanes; i++)
            store(c, &s, i, first + i);
    }
}

const ulp_kernel ISA_NAME(ulp_float32_aligned) = {dense, listed, scratch_bytes, ROWS, COLUMNS};
