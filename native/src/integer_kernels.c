/* Scalar integer kernels: slow, and right for every accumulator and every float format. */
#include "kernel.h"
#include "roundpack.h"

/* --- integer_tree: any accumulator, one output after the other ------------------------------------------------- */

typedef struct {
    double value;
    int64_t count; /* terms in the run under way, of a chunk */
} node_state;

static void start(const ulp_node *nodes, int node, node_state *state)
{
    state[node].value = 0.0;
    state[node].count = 0;
    if (nodes[node].kind == ULP_CHUNK) {
        start(nodes, nodes[node].inner, state);
        start(nodes, nodes[node].outer, state);
    }
}

static double finish(const ulp_node *nodes, int node, node_state *state, int *overflowed);

/* Take one product a*b, or, when is_value is set, the value a. */
static void push(const ulp_node *nodes, int node, node_state *state, double a, double b, int is_value, int *overflowed)
{
    const ulp_node *self = &nodes[node];
    node_state *mine = &state[node];
    if (self->kind == ULP_CHUNK) {
        push(nodes, self->inner, state, a, b, is_value, overflowed);
        if (++mine->count == self->length) {
            double run = finish(nodes, self->inner, state, overflowed);
            push(nodes, self->outer, state, run, 1.0, 1, overflowed);
            start(nodes, self->inner, state);
            mine->count = 0;
        }
    } else if (self->kind == ULP_SEQ && !is_value) {
        double product = ulp_product(a, b, &self->product, NULL, overflowed);
        mine->value = ulp_sum(mine->value, product, &self->sum, NULL, overflowed);
    } else {
        mine->value = ulp_fma(mine->value, a, b, &self->sum, NULL, overflowed);
    }
}

static double finish(const ulp_node *nodes, int node, node_state *state, int *overflowed)
{
    const ulp_node *self = &nodes[node];
    if (self->kind != ULP_CHUNK)
        return state[node].value;
    if (state[node].count) {
        double run = finish(nodes, self->inner, state, overflowed);
        push(nodes, self->outer, state, run, 1.0, 1, overflowed);
        start(nodes, self->inner, state);
        state[node].count = 0;
    }
    return finish(nodes, self->outer, state, overflowed);
}

static void tree_output(const ulp_job *job, int64_t row, int64_t column, int64_t at)
{
    node_state state[ULP_MAX_NODES];
    int overflowed = 0, outermost = 0;
    start(job->nodes, 0, state);
    while (job->nodes[outermost].kind == ULP_CHUNK)
        outermost = job->nodes[outermost].outer;
    if (job->c.data)
        state[outermost].value = ulp_element(&job->c, row, column);
    for (int64_t k = 0; k < job->k; k++)
        push(job->nodes, 0, state, ulp_element(&job->a, row, k), ulp_element(&job->b, k, column), 0, &overflowed);
    double value = finish(job->nodes, 0, state, &overflowed);
    ulp_store(job, at, value, overflowed);
}

/* --- integer_exact: a fixed-point number wide enough for every sum of products of doubles ---------------------- */

/* Products of doubles lie between 2^-2148 and 2^2048. Limbs of 32 bits kept in int64_t take 2^29 terms before their
 * carries must be passed on. */
enum { LOWEST_BIT = -2176, LIMBS = 136, TERMS_BEFORE_CARRY = 1 << 29 };

static void carry(int64_t *limbs)
{
    for (int i = 0; i + 1 < LIMBS; i++) {
        int64_t high = limbs[i] >> 32; /* arithmetic: floor */
        limbs[i] -= high * 4294967296ll;
        limbs[i + 1] += high;
    }
}

static void add_exact(int64_t *limbs, ulp_exact x)
{
    int position = x.exponent - LOWEST_BIT, limb = position / 32, shift = position % 32;
    ulp_u128 low = x.significand << shift; /* at most 106 + 31 bits: the top goes into `over` */
    uint64_t over = shift ? (uint64_t)(x.significand >> (128 - shift)) : 0;
    for (int i = 0; i < 5; i++) {
        int64_t part = i < 4 ? (int64_t)(uint32_t)(low >> (32 * i)) : (int64_t)over;
        limbs[limb + i] += x.negative ? -part : part;
    }
}

/* The value of the limbs, jammed to 126 bits. */
static ulp_exact collect(int64_t *limbs)
{
    ulp_exact x = {0, LOWEST_BIT, 0};
    carry(limbs);
    if (limbs[LIMBS - 1] < 0) {
        x.negative = 1;
        for (int i = 0; i < LIMBS; i++)
            limbs[i] = -limbs[i];
        carry(limbs);
    }
    int top = LIMBS - 1;
    while (top > 0 && !limbs[top])
        top--;
    int first = top > 3 ? top - 3 : 0;
    for (int i = top; i >= first; i--)
        x.significand = (x.significand << 32) | (uint32_t)limbs[i];
    x.exponent += 32 * first;
    int sticky = 0;
    for (int i = 0; i < first; i++)
        sticky |= limbs[i] != 0;
    int excess = ulp_bit_length(x.significand) - 126;
    if (excess > 0) {
        x.significand = ulp_shift_right_jam(x.significand, excess);
        x.exponent += excess;
    }
    x.significand |= (ulp_u128)sticky;
    return x;
}

static void exact_output(const ulp_job *job, int64_t row, int64_t column, int64_t at, int64_t *limbs)
{
    const ulp_use *use = &job->nodes[0].sum;
    double special = 0.0; /* sum of the terms that are not finite; 0 as long as there is none */
    double c = job->c.data ? ulp_element(&job->c, row, column) : 0.0;
    int minus_zero = c == 0.0 && signbit(c), overflowed = 0;
    memset(limbs, 0, LIMBS * sizeof *limbs);
    if (isfinite(c))
        add_exact(limbs, ulp_unpack(c));
    else
        special += c;
    for (int64_t k = 0; k < job->k; k++) {
        double a = ulp_element(&job->a, row, k), b = ulp_element(&job->b, k, column);
        if (!isfinite(a) || !isfinite(b)) {
            special += a * b;
            continue;
        }
        ulp_exact x = ulp_unpack(a), y = ulp_unpack(b);
        x.significand *= y.significand;
        x.exponent += y.exponent;
        x.negative ^= y.negative;
        minus_zero &= !x.significand && x.negative;
        if (x.significand)
            add_exact(limbs, x);
        if (!((k + 1) % TERMS_BEFORE_CARRY))
            carry(limbs);
    }
    double value;
    if (special != 0.0) {
        value = ulp_special(special, use, &overflowed);
    } else {
        ulp_exact total = collect(limbs);
        value = total.significand ? ulp_round_exact(total, use, NULL, &overflowed)
                                  : ulp_special(minus_zero ? -0.0 : 0.0, use, &overflowed);
    }
    ulp_store(job, at, value, overflowed);
}

/* --- the kernels ------------------------------------------------------------------------------------------------ */

static size_t exact_scratch(const ulp_job *job)
{
    (void)job;
    return LIMBS * sizeof(int64_t);
}

static void exact_dense(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *scratch)
{
    for (int64_t row = row0; row < row1; row++)
        for (int64_t column = col0; column < col1; column++)
            exact_output(job, row, column, row * job->out_stride + column, scratch);
}

static void exact_listed(const ulp_job *job, int64_t first, int64_t last, void *scratch)
{
    for (int64_t i = first; i < last; i++)
        exact_output(job, job->rows[i], job->columns[i], i, scratch);
}

static size_t tree_scratch(const ulp_job *job)
{
    (void)job;
    return 0;
}

static void tree_dense(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *scratch)
{
    (void)scratch;
    for (int64_t row = row0; row < row1; row++)
        for (int64_t column = col0; column < col1; column++)
            tree_output(job, row, column, row * job->out_stride + column);
}

static void tree_listed(const ulp_job *job, int64_t first, int64_t last, void *scratch)
{
    (void)scratch;
    for (int64_t i = first; i < last; i++)
        tree_output(job, job->rows[i], job->columns[i], i);
}

const ulp_kernel ulp_integer_exact = {exact_dense, exact_listed, exact_scratch, 1, 16};
const ulp_kernel ulp_integer_tree = {tree_dense, tree_listed, tree_scratch, 1, 16};
