/* The aligned-truncated step of tensor cores in lanes of float: each lane one output, n products a step.
 *
 * Included once per source file. Runs of steps, and runs within runs, over tiles of outputs or listed ones; a step is
 * in aligned_step.inc.h, the slots from which it takes its products are in aligned_slots.inc.h. */

#include "aligned_step.inc.h"

/* Pack the next window of slots. */
static __attribute__((noinline)) void pack_next(context_t *c, states_t *s)
{
    s->from = s->at;
    s->to = s->at + c->packed < c->slots ? s->at + c->packed : c->slots;
    if (c->job->rows)
        pack_listed(c, s->row, s->columns, s->from, s->to);
    else {
        pack_b(c, s->panel, s->column, s->columns, s->from, s->to);
        pack_a(c, s->row, s->rows, s->from, s->to);
    }
}

INLINE void run_steps(context_t *c, states_t *s, int64_t steps, int lanes, int ending, int counts)
{
    const int64_t n = c->node->length, first = s->panel * c->packed;
    const int together = lanes ? 1 : TOGETHER;
    for (int64_t i = 0; i < steps; i++, s->at += n) {
        if (s->at == s->to)
            pack_next(c, s);
        const int64_t at = s->at - s->from;
        for (int64_t row = 0; row < s->rows; row += together) {
            int64_t a = lanes ? at * COLUMNS : row * c->packed + at, b = (first + at) * COLUMNS;
            step(c, s, row * COLUMNS, c->a_values + a, c->a_exponents + (lanes ? a : 2 * a), c->b_values + b,
                 c->b_exponents + b, together, lanes, ending, counts);
        }
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

static int has_windows(const context_t *c) { return c->packed < c->slots; }

static void begin(const context_t *c, states_t *s)
{
    s->from = 0;
    s->to = has_windows(c) ? 0 : c->slots;
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
    const int64_t width = panels(c->slots) * COLUMNS;
    if (col1 - col0 > width) { /* more than fit at once */
        dense(job, row0, row1, col0, col0 + width, scratch);
        dense(job, row0, row1, col0 + width, col1, scratch);
        return;
    }
    for (int64_t column = col0; column < col1 && !has_windows(c); column += COLUMNS)
        pack_b(c, (column - col0) / COLUMNS, column, col1 - column < COLUMNS ? col1 - column : COLUMNS, 0, c->slots);
    for (int64_t row = row0; row < row1; row += ROWS) {
        s.row = row;
        s.rows = row1 - row < ROWS ? row1 - row : ROWS;
        if (!has_windows(c))
            pack_a(c, row, s.rows, 0, c->slots);
        for (int64_t column = col0; column < col1; column += COLUMNS) {
            s.column = column;
            s.panel = (column - col0) / COLUMNS;
            s.columns = col1 - column < COLUMNS ? col1 - column : COLUMNS;
            begin(c, &s);
            for (int64_t i = 0; i < s.rows; i++)
                for (int64_t j = 0; j < s.columns; j++)
                    place_addend(c, &s, i * COLUMNS + j, row + i, column + j);
            accumulate(c, &s, job->join_count, 0, job->k);
            for (int64_t i = 0; i < s.rows; i++)
                for (int64_t j = 0; j < s.columns; j++)
                    store(c, &s, i * COLUMNS + j, ulp_place_of(job, row + i, column + j));
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
        s.row = first;
        if (!has_windows(c))
            pack_listed(c, first, lanes, 0, c->slots);
        begin(c, &s);
        for (int64_t i = 0; i < lanes; i++)
            place_addend(c, &s, i, job->rows[first + i], job->columns[first + i]);
        accumulate(c, &s, job->join_count, 0, job->k);
        for (int64_t i = 0; i < lanes; i++)
            store(c, &s, i, first + i);
    }
}

const ulp_kernel ISA_NAME(ulp_float32_aligned) = {dense, listed, scratch_bytes, ROWS, PANELS * COLUMNS, 0, 0};
