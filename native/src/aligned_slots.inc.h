/* The operands of aligned steps, in slots, and the constants of a job; included by aligned_kernels.inc.h.
 *
 * What a step lacks at the end of a run is filled with zeros, and the order of the products in a run is that of its
 * slots. b is packed into panels [slot][COLUMNS] of values and exponents, once for all rows; a into rows [slot], once
 * for all panels of a tile; of listed outputs both lie in lanes, [slot][COLUMNS]. Of very many slots a window is
 * packed at a time, as the steps of each tile come to it: memory that is touched for the first time costs more than
 * packing. */

#include "lanes.inc.h"
#include "roundpack.h"

enum {
    COLUMN_VECTORS = 2,
    COLUMNS = COLUMN_VECTORS * WIDTH,
    PANELS = 128 / COLUMNS, /* of a tile */
    MANY_SLOTS = 1 << 16,   /* beyond which a tile has one panel, of which a window is packed at a time */
    WINDOW = 1 << 13,
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
    int64_t slots, packed;               /* of all runs, and how many are packed at once */
    int64_t *order;                      /* [slots]: k, or -1 for a zero */
    int64_t in_order;                    /* so many of the first ones are 0, 1, 2, ... */
    float *b_values, *a_values;          /* [panels][packed][COLUMNS], [ROWS][packed]; listed: [packed][COLUMNS] */
    int16_t *b_exponents, *a_exponents;  /* likewise; of dense a [ROWS][packed][2], twice, broadcast as one */
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

/* Panels that are packed at once, and slots, whole steps. */
static int64_t panels(int64_t slots) { return slots > MANY_SLOTS ? 1 : PANELS; }

static int64_t packed_slots(const ulp_job *job, int64_t slots)
{
    const int64_t length = job->nodes[job->leaf].length, steps = WINDOW / length;
    return slots > MANY_SLOTS ? (steps ? steps : 1) * length : slots;
}

static size_t next_line(size_t at) { return (at + 63) / 64 * 64; }

static layout_t layout(const ulp_job *job, int64_t slots)
{
    size_t n = (size_t)packed_slots(job, slots), b = n * COLUMNS * (job->rows ? 1 : (size_t)panels(slots));
    size_t a = n * (job->rows ? COLUMNS : ROWS);
    layout_t l;
    l.b_values = next_line(sizeof(context_t));
    l.b_exponents = next_line(l.b_values + b * sizeof(float));
    l.a_values = next_line(l.b_exponents + b * sizeof(int16_t));
    l.a_exponents = next_line(l.a_values + a * sizeof(float));
    l.order = next_line(l.a_exponents + 2 * a * sizeof(int16_t));
    l.bytes = l.order + (size_t)slots * sizeof(int64_t);
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
    c->packed = packed_slots(job, c->slots);
    layout_t l = layout(job, c->slots);
    c->b_values = (float *)((char *)scratch + l.b_values);
    c->b_exponents = (int16_t *)((char *)scratch + l.b_exponents);
    c->a_values = (float *)((char *)scratch + l.a_values);
    c->a_exponents = (int16_t *)((char *)scratch + l.a_exponents);
    c->order = (int64_t *)((char *)scratch + l.order);
    append_runs(job, job->join_count, 0, job->k, c->order, 0);
    c->in_order = 0;
    while (c->in_order < c->slots && c->order[c->in_order] == c->in_order)
        c->in_order++;
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

/* Pack columns of b, and zeros for what a panel lacks, from a slot on. */
static void pack_b(context_t *c, int64_t panel, int64_t column, int64_t columns, int64_t from, int64_t to)
{
    const ulp_matrix *b = &c->job->b;
    const int simple = !b->is_double && !b->row_offsets;
    float *values = c->b_values + panel * c->packed * COLUMNS, *at = values;
    for (int64_t slot = from; slot < to; slot++, at += COLUMNS) {
        const int64_t k = c->order[slot];
        if (k < 0 || columns < COLUMNS)
            memset(at, 0, COLUMNS * sizeof *at);
        if (k >= 0 && simple && b->column_stride == 1)
            memcpy(at, (const float *)b->data + k * b->row_stride + column, (size_t)columns * sizeof *at);
        else if (k >= 0)
            for (int64_t j = 0; j < columns; j++)
                at[j] = (float)ulp_element(b, k, column + j);
    }
    exponents(values, c->b_exponents + panel * c->packed * COLUMNS, (to - from) * COLUMNS, c->node->b_min_exponent);
}

/* Pack rows, and zeros for what the last rows of a step lack, from a slot on. */
static void pack_a(context_t *c, int64_t row, int64_t rows, int64_t from, int64_t to)
{
    const ulp_matrix *a = &c->job->a;
    const int64_t *order = c->order + from, slots = to - from;
    for (int64_t i = 0; i < (rows + TOGETHER - 1) / TOGETHER * TOGETHER; i++) {
        float *values = c->a_values + i * c->packed;
        int16_t *twice = c->a_exponents + 2 * i * c->packed;
        if (i >= rows)
            memset(values, 0, (size_t)slots * sizeof(float));
        else if (a->is_double)
            for (int64_t slot = 0; slot < slots; slot++)
                values[slot] = element_or_zero(a, row + i, order[slot], order[slot]);
        else if (a->row_offsets) {
            const float *line = (const float *)a->data + a->row_offsets[row + i];
            for (int64_t slot = 0; slot < slots; slot++)
                values[slot] = order[slot] < 0 ? 0.0f : line[a->column_offsets[order[slot]]];
        } else {
            const float *line = (const float *)a->data + (row + i) * a->row_stride;
            int64_t slot = c->in_order < to ? c->in_order - from : slots;
            slot = a->column_stride == 1 && slot > 0 ? slot : 0;
            memcpy(values, line + from, (size_t)slot * sizeof(float));
            for (; slot < slots; slot++)
                values[slot] = order[slot] < 0 ? 0.0f : line[order[slot] * a->column_stride];
        }
        for (int64_t slot = 0; slot < slots; slot++)
            twice[2 * slot] = twice[2 * slot + 1] = exponent_of(values[slot], c->node->a_min_exponent);
    }
}

/* Pack listed outputs from `first` on, in lanes. */
static void pack_listed(context_t *c, int64_t first, int64_t lanes, int64_t from, int64_t to)
{
    const ulp_job *job = c->job;
    for (int64_t slot = from; slot < to; slot++)
        for (int64_t i = 0; i < COLUMNS; i++) {
            int64_t k = i < lanes ? c->order[slot] : -1, output = first + (i < lanes ? i : 0);
            int64_t at = (slot - from) * COLUMNS + i;
            c->a_values[at] = element_or_zero(&job->a, job->rows[output], k, k);
            c->b_values[at] = element_or_zero(&job->b, k, job->columns[output], k);
        }
    exponents(c->a_values, c->a_exponents, (to - from) * COLUMNS, c->node->a_min_exponent);
    exponents(c->b_values, c->b_exponents, (to - from) * COLUMNS, c->node->b_min_exponent);
}
