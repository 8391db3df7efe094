/* Any accumulator in lanes of double: what integer_kernels.c does for one output, for LANES outputs side by side.
 *
 * Included behind elementwise.inc.h, whose round_stretch rounds the lanes into a use. Products are exact in double, and
 * sums are rounded to odd first, so that each rounding is the single one; simulator/arithmetic/conditions.py has the
 * condition. Aligned steps are not here, nor trees with other groups than pairs. */

#include <float.h>

enum {
    LANES = 64,
    PACKED_ROWS = 1 << 13 /* of b, that are widened and laid side by side once for all rows of a */
};

enum { PRODUCT, SUM }; /* which of a place's two words, as in simulator/arithmetic/places.py */

typedef struct {
    double x[LANES] __attribute__((aligned(64)));
} lanes_t;

/* What is counted of each output; the meaning of each is that of ulp_counts. */
typedef struct {
    int64_t overflows[LANES], underflows[LANES], swamped[LANES];
    double largest[LANES];
} tally_t;

/* Outputs under way. */
typedef struct {
    const ulp_job *job;
    uint64_t index[LANES];           /* of the outputs, for random words */
    int consecutive;                 /* they are first, first + 1, ... */
    uint32_t used[ULP_MAX_NODES][2]; /* random words, by node and by what is rounded */
    uint8_t over[LANES];
    int counts;
    uint8_t beyond[LANES];           /* if it counts: whether the last rounding met a value beyond the largest */
    tally_t tally;                   /* likewise */
    cuts *tables;                    /* [nodes][2], of uses that are tapered */
} run_t;

/* --- arithmetic --------------------------------------------------------------------------------------------------- */

static void round_lanes(run_t *r, int node, int which, const ulp_use *use, lanes_t *x, lanes_t *y, uint8_t *over)
{
    ulp_place place = {.seed = r->job->seed, .step = r->job->step, .index = r->index[0], .which = which,
                       .site = (uint32_t)node << 24 | r->job->site};
    const cuts *c = use->family == ULP_POSIT || use->family == ULP_TAKUM ? &r->tables[2 * node + which] : NULL;
    if (use->rounding == ULP_SR)
        place.k = r->used[node][which]++;
    if (use->rounding != ULP_SR || r->consecutive) {
        round_stretch(x->x, y->x, LANES, use, &place, over, c);
        return;
    }
    for (int i = 0; i < LANES; i++) {
        place.index = r->index[i];
        round_one(x->x[i], &y->x[i], 0, use, &place, over + i);
    }
}

/* Count that x became y. */
static void count_rounding(run_t *r, const lanes_t *x, const lanes_t *y)
{
    tally_t *tally = &r->tally;
    for (int i = 0; i < LANES; i++) {
        r->over[i] |= r->beyond[i];
        tally->overflows[i] += r->beyond[i];
        tally->underflows[i] += (y->x[i] == 0.0) & (x->x[i] != 0.0) & (fabs(x->x[i]) <= DBL_MAX);
    }
}

/* Count that sums are held. */
static void count_held(run_t *r, const lanes_t *sums)
{
    for (int i = 0; i < LANES; i++) {
        double magnitude = fabs(sums->x[i]), *largest = &r->tally.largest[i];
        *largest = (magnitude <= DBL_MAX) & (magnitude > *largest) ? magnitude : *largest;
    }
}

/* Count a step: it made the sums `next` of those `before`, and what it added is not zero where `added` is not. */
static void count_step(run_t *r, const lanes_t *before, const lanes_t *next, const lanes_t *added)
{
    for (int i = 0; i < LANES; i++)
        r->tally.swamped[i] += (added->x[i] != 0.0) & (next->x[i] == before->x[i]) & !r->beyond[i];
    count_held(r, next);
}

static void round_into(run_t *r, int node, int which, const ulp_use *use, lanes_t *x, lanes_t *y)
{
    if (!r->counts) {
        round_lanes(r, node, which, use, x, y, r->over);
        return;
    }
    memset(r->beyond, 0, sizeof r->beyond);
    round_lanes(r, node, which, use, x, y, r->beyond);
    count_rounding(r, x, y);
}

/* R(s + t), or with `minus` R(s - t). */
static void round_sum(run_t *r, int node, lanes_t *to, const lanes_t *s, const lanes_t *t, int minus)
{
    lanes_t sum;
    for (int i = 0; i < LANES; i += WIDTH) {
        V term = load(t->x + i);
        save(sum.x + i, odd_sum(load(s->x + i), minus ? -term : term));
    }
    const ulp_use *use = &r->job->nodes[node].sum;
    for (int i = 0; use->rounding == ULP_RD && i < LANES; i++) {
        double term = minus ? -t->x[i] : t->x[i];
        int zeros = s->x[i] == 0.0 && term == 0.0, plus = zeros && !signbit(s->x[i]) && !signbit(term);
        if (sum.x[i] == 0.0)
            sum.x[i] = ulp_zero_is_negative(use, 0, plus) ? -0.0 : 0.0;
    }
    round_into(r, node, SUM, use, &sum, to);
}

/* s = R(s + t), of terms that are not all zero where `added` is not. */
static void add_to(run_t *r, int node, lanes_t *s, const lanes_t *t, const lanes_t *added)
{
    lanes_t before;
    if (r->counts)
        before = *s;
    round_sum(r, node, s, s, t, 0);
    if (r->counts)
        count_step(r, &before, s, added);
}

/* --- states of nodes, one behind the other in scratch memory ------------------------------------------------------ */

typedef struct {
    int64_t count; /* terms of the step or run under way; of a tree, how many it has taken */
    lanes_t value, other; /* other: error of kahan and neumaier, group of fma, what exact splits off */
    lanes_t added;        /* if it counts: not zero where the group of fma has a term that is not */
} plain_state;

typedef struct {
    int64_t count;
    lanes_t pending[]; /* [levels] */
} pairs_state __attribute__((aligned(64)));

typedef struct {
    int64_t count;
} composed_state;

static size_t rounded_up(size_t bytes) { return (bytes + 63) / 64 * 64; } /* to whole cache lines */

/* Room for K products, or for the lanes of an interleave, of which there are at most 2^16. */
static size_t pair_levels(const ulp_job *job)
{
    return 65 - (size_t)__builtin_clzll((uint64_t)(job->k > 1 << 16 ? job->k : 1 << 16));
}

static size_t state_bytes(const ulp_job *job, int node)
{
    const ulp_node *self = &job->nodes[node];
    switch (self->kind) {
    case ULP_TREE:
        return rounded_up(sizeof(pairs_state)) + sizeof(lanes_t) * pair_levels(job);
    case ULP_CHUNK:
        return rounded_up(sizeof(composed_state)) + state_bytes(job, self->inner) + state_bytes(job, self->outer);
    case ULP_INTERLEAVE:
        return rounded_up(sizeof(composed_state)) + (size_t)self->length * state_bytes(job, self->inner) +
               state_bytes(job, self->outer);
    default:
        return rounded_up(sizeof(plain_state));
    }
}

/* In a chunk or interleave what joins the results lies first, then what takes the terms, once a lane. */
static void *outer_state(void *state) { return (char *)state + rounded_up(sizeof(composed_state)); }

static void *inner_state(const run_t *r, int node, void *state, int64_t lane)
{
    const ulp_node *self = &r->job->nodes[node];
    return (char *)outer_state(state) + state_bytes(r->job, self->outer) +
           (size_t)lane * state_bytes(r->job, self->inner);
}

/* Add terms exactly: to one sum what is a multiple of 2^split, to another the rest, of at most half of it. */
static void add_split(const ulp_job *job, plain_state *self, const lanes_t *t)
{
    const V grid = (V){0} + ldexp(1.5, job->split == ULP_NONE ? 0 : job->split + 52);
    for (int i = 0; i < LANES; i += WIDTH) {
        V x = load(t->x + i), high = x;
        if (job->split != ULP_NONE) {
            high = (x + grid) - grid;
            save(self->other.x + i, load(self->other.x + i) + (x - high));
        }
        save(self->value.x + i, load(self->value.x + i) + high);
    }
}

/* Start at the addends, or with c NULL at +0. */
static void begin(run_t *r, int node, void *state, const lanes_t *c)
{
    const ulp_node *self = &r->job->nodes[node];
    *(int64_t *)state = 0;
    switch (self->kind) {
    case ULP_TREE:
        return;
    case ULP_CHUNK:
    case ULP_INTERLEAVE:
        begin(r, self->outer, outer_state(state), c);
        for (int64_t lane = 0; lane < (self->kind == ULP_CHUNK ? 1 : self->length); lane++)
            begin(r, self->inner, inner_state(r, node, state, lane), NULL);
        return;
    default: {
        plain_state *plain = state;
        memset(&plain->value, 0, sizeof plain->value);
        memset(&plain->other, 0, sizeof plain->other);
        for (int i = 0; self->kind == ULP_EXACT && i < LANES; i++)
            plain->other.x[i] = -0.0; /* adds nothing, not even a sign */
        if (c && self->kind == ULP_EXACT && r->job->split != ULP_NONE)
            add_split(r->job, plain, c);
        else if (c)
            plain->value = *c;
    }
    }
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static void kahan_step(run_t *r, int node, plain_state *self, const lanes_t *t)
{
    lanes_t y, z, moved;
    round_sum(r, node, &y, t, &self->other, 1);
    round_sum(r, node, &z, &self->value, &y, 0);
    if (r->counts)
        count_step(r, &self->value, &z, &y);
    round_sum(r, node, &moved, &z, &self->value, 1);
    round_sum(r, node, &self->other, &moved, &y, 1);
    self->value = z;
}

static void neumaier_step(run_t *r, int node, plain_state *self, const lanes_t *t)
{
    lanes_t z, larger, smaller, lost;
    round_sum(r, node, &z, &self->value, t, 0);
    if (r->counts)
        count_step(r, &self->value, &z, t);
    for (int i = 0; i < LANES; i++) {
        int ordered = fabs(self->value.x[i]) >= fabs(t->x[i]);
        larger.x[i] = ordered ? self->value.x[i] : t->x[i];
        smaller.x[i] = ordered ? t->x[i] : self->value.x[i];
    }
    round_sum(r, node, &lost, &larger, &z, 1);
    round_sum(r, node, &lost, &lost, &smaller, 0);
    round_sum(r, node, &self->other, &self->other, &lost, 0);
    self->value = z;
}

/* An integer sum in quanta below 2^52, kept as their value: the sum is exact, then wrapped or clamped. */
static void fixed_step(run_t *r, int node, plain_state *self, lanes_t *t)
{
    const ulp_node *mine = &r->job->nodes[node];
    const ulp_use *use = &mine->sum, *range = mine->tracks ? &mine->product : use;
    const double quantum = use->smallest, lowest = (double)use->lowest * quantum, highest = use->max;
    const double span = highest - lowest + quantum;
    ulp_use wide = *use; /* rounds to a multiple of the quantum; its ends are never met */
    lanes_t rounded, before = self->value;
    uint8_t beyond[LANES], ignored[LANES] = {0}; /* flags are only ever set */
    wide.wraps = 0;
    wide.highest = ((int64_t)1 << 52) - 1;
    wide.lowest = -wide.highest;
    wide.max = (double)wide.highest * quantum;
    round_lanes(r, node, PRODUCT, &wide, t, &rounded, ignored);
    for (int i = 0; i < LANES; i++) {
        double sum = before.x[i] + rounded.x[i];
        beyond[i] = sum > range->max || sum < (double)range->lowest * quantum;
        r->over[i] |= beyond[i];
        int above = sum > highest, below = sum < lowest;
        if (use->wraps)
            sum -= span * floor((sum - lowest) / span);
        else
            sum = above ? highest : below ? lowest : sum;
        self->value.x[i] = sum + 0.0;
    }
    if (!r->counts)
        return;
    memcpy(r->beyond, beyond, sizeof beyond);
    count_rounding(r, t, &rounded);
    count_step(r, &before, &self->value, t);
}

static void group_end(run_t *r, int node, plain_state *self)
{
    add_to(r, node, &self->value, &self->other, &self->added);
    self->count = 0;
}

/* The sum of a pair; it swamps one of two terms if it equals the larger. */
static void pair_sum(run_t *r, int node, lanes_t *to, const lanes_t *s, const lanes_t *t)
{
    lanes_t larger, both;
    for (int i = 0; r->counts && i < LANES; i++) {
        larger.x[i] = fabs(t->x[i]) > fabs(s->x[i]) ? t->x[i] : s->x[i];
        both.x[i] = (s->x[i] != 0.0) & (t->x[i] != 0.0);
    }
    round_sum(r, node, to, s, t, 0);
    if (r->counts)
        count_step(r, &larger, to, &both);
}

/* Take one more leaf: of the pairs that it completes, level by level. */
static void pairs_take(run_t *r, int node, pairs_state *self, const lanes_t *t)
{
    lanes_t up = *t;
    int level = 0;
    for (int64_t count = self->count++; count & 1; count >>= 1, level++)
        pair_sum(r, node, &up, &self->pending[level], &up);
    self->pending[level] = up;
}

/* What is left goes up unchanged until it meets another: the levels that hold something, lowest first. */
static void pairs_end(run_t *r, int node, pairs_state *self, lanes_t *result)
{
    const ulp_node *mine = &r->job->nodes[node];
    int level = 0, held = 0;
    for (int64_t count = self->count; count; count >>= 1, level++) {
        if (!(count & 1))
            continue;
        if (held)
            pair_sum(r, node, result, &self->pending[level], result);
        else
            *result = self->pending[level];
        held = 1;
    }
    if (!held)
        memset(result, 0, sizeof *result);
    if (self->count == 1 && mine->exact_leaves && node == r->job->leaf) { /* a product; a value is rounded already */
        round_into(r, node, SUM, &mine->sum, &self->pending[0], result);
        if (r->counts)
            count_held(r, result);
    }
}

static void finish(run_t *r, int node, void *state, lanes_t *result);

/* Take exact products, or values. */
static void take(run_t *r, int node, void *state, lanes_t *t, int is_value)
{
    const ulp_node *self = &r->job->nodes[node];
    const ulp_use *product = self->kind == ULP_SEQ ? &self->product : &self->sum;
    plain_state *plain = state;
    composed_state *composed = state;
    lanes_t rounded, run;
    if (!is_value && (self->kind == ULP_SEQ || self->kind == ULP_KAHAN || self->kind == ULP_NEUMAIER ||
                      (self->kind == ULP_TREE && !self->exact_leaves))) {
        round_into(r, node, PRODUCT, product, t, &rounded);
        t = &rounded;
    }
    switch (self->kind) {
    case ULP_FMA:
        if (self->length == 1) {
            add_to(r, node, &plain->value, t, t);
            return;
        }
        for (int i = 0; r->counts && i < LANES; i++)
            plain->added.x[i] = (plain->count && plain->added.x[i] != 0.0) | (t->x[i] != 0.0);
        for (int i = 0; i < LANES; i += WIDTH)
            save(plain->other.x + i, plain->count ? load(plain->other.x + i) + load(t->x + i) : load(t->x + i));
        if (++plain->count == self->length)
            group_end(r, node, plain);
        return;
    case ULP_SEQ:
        add_to(r, node, &plain->value, t, t);
        return;
    case ULP_KAHAN:
        kahan_step(r, node, plain, t);
        return;
    case ULP_NEUMAIER:
        neumaier_step(r, node, plain, t);
        return;
    case ULP_FIXED_POINT:
        fixed_step(r, node, plain, t);
        return;
    case ULP_EXACT:
        add_split(r->job, plain, t);
        return;
    case ULP_TREE:
        pairs_take(r, node, state, t);
        return;
    case ULP_INTERLEAVE:
        take(r, self->inner, inner_state(r, node, state, composed->count++ % self->length), t, is_value);
        return;
    default: /* ULP_CHUNK */
        take(r, self->inner, inner_state(r, node, state, 0), t, is_value);
        if (++composed->count == self->length) {
            composed->count = 0;
            finish(r, self->inner, inner_state(r, node, state, 0), &run);
            take(r, self->outer, outer_state(state), &run, 1);
            begin(r, self->inner, inner_state(r, node, state, 0), NULL);
        }
    }
}

/* The accumulated values; the state is used up. */
static void finish(run_t *r, int node, void *state, lanes_t *result)
{
    const ulp_node *self = &r->job->nodes[node];
    plain_state *plain = state;
    composed_state *composed = state;
    lanes_t run;
    switch (self->kind) {
    case ULP_NEUMAIER:
    case ULP_EXACT:
        round_sum(r, node, result, &plain->value, &plain->other, 0);
        if (r->counts && self->kind == ULP_EXACT)
            count_held(r, result);
        return;
    case ULP_TREE:
        pairs_end(r, node, state, result);
        return;
    case ULP_INTERLEAVE:
        for (int64_t lane = 0; lane < self->length; lane++) {
            finish(r, self->inner, inner_state(r, node, state, lane), &run);
            take(r, self->outer, outer_state(state), &run, 1);
        }
        finish(r, self->outer, outer_state(state), result);
        return;
    case ULP_CHUNK:
        if (composed->count) {
            finish(r, self->inner, inner_state(r, node, state, 0), &run);
            take(r, self->outer, outer_state(state), &run, 1);
        }
        finish(r, self->outer, outer_state(state), result);
        return;
    default:
        if (self->kind == ULP_FMA && plain->count)
            group_end(r, node, plain);
        *result = plain->value;
    }
}

/* --- the kernel --------------------------------------------------------------------------------------------------- */

static int node_count(const ulp_job *job, int node)
{
    const ulp_node *self = &job->nodes[node];
    int composed = self->kind == ULP_CHUNK || self->kind == ULP_INTERLEAVE;
    return composed ? node_count(job, self->outer) : node + 1; /* the last one is outermost */
}

static int packs(const ulp_job *job) { return !job->rows && job->k <= PACKED_ROWS; }

/* The scratch memory holds the tables, the state of the root and, if it packs, b. */
static size_t tables_bytes(const ulp_job *job) { return rounded_up((size_t)node_count(job, 0) * 2 * sizeof(cuts)); }

static size_t any_scratch(const ulp_job *job)
{
    return tables_bytes(job) + state_bytes(job, 0) + (packs(job) ? (size_t)job->k * sizeof(lanes_t) : 0);
}

static void make_tables(const ulp_job *job, cuts *tables)
{
    for (int node = 0; node < node_count(job, 0); node++)
        for (int which = 0; which < 2; which++) {
            const ulp_node *self = &job->nodes[node];
            const ulp_use *use = which == PRODUCT && self->kind == ULP_SEQ ? &self->product : &self->sum;
            if (use->family == ULP_POSIT || use->family == ULP_TAKUM)
                make_cuts(&tables[2 * node + which], use);
        }
}

/* LANES elements of a row of b, zeros beyond the last column. */
static void load_b(const ulp_job *job, int64_t k, int64_t column, int64_t columns, lanes_t *to)
{
    const ulp_matrix *b = &job->b;
    int64_t at = k * b->row_stride + column * b->column_stride;
    const float *narrow = (const float *)b->data + at;
    const double *wide = (const double *)b->data + at;
    for (int64_t i = 0; i < columns; i++)
        to->x[i] = b->is_double ? wide[i * b->column_stride] : (double)narrow[i * b->column_stride];
    for (int64_t i = columns; i < LANES; i++)
        to->x[i] = 0.0;
}

/* Add what was counted of a row. */
static void publish(const run_t *r, int64_t row, int64_t column, int64_t columns)
{
    const tally_t *tally = &r->tally;
    for (int64_t first = 0; first < columns; first += ULP_COUNTED_COLUMNS) {
        ulp_counts counts = {0, 0, 0, 0};
        double largest = 0.0;
        for (int64_t i = first; i < columns && i < first + ULP_COUNTED_COLUMNS; i++) {
            counts.overflows += tally->overflows[i];
            counts.underflows += tally->underflows[i];
            counts.swamped += tally->swamped[i];
            largest = fmax(largest, tally->largest[i]);
        }
        memcpy(&counts.largest, &largest, sizeof largest);
        ulp_publish(r->job, &counts, row, column + first);
    }
}

static void any_dense(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *scratch)
{
    run_t r = {.job = job, .consecutive = job->column_index == 1, .counts = job->counts != NULL, .tables = scratch};
    void *state = (char *)scratch + tables_bytes(job);
    lanes_t *panel = (lanes_t *)((char *)state + state_bytes(job, 0)), c, product, loaded;
    int64_t columns = col1 - col0;
    make_tables(job, r.tables);
    for (int64_t k = 0; packs(job) && k < job->k; k++)
        load_b(job, k, col0, columns, &panel[k]);
    for (int64_t row = row0; row < row1; row++) {
        memset(r.used, 0, sizeof r.used);
        memset(r.over, 0, sizeof r.over);
        memset(&r.tally, 0, sizeof r.tally);
        for (int64_t i = 0; i < LANES; i++) {
            r.index[i] = job->first_index + (uint64_t)row * job->row_index + (uint64_t)(col0 + i) * job->column_index;
            c.x[i] = job->c.data && i < columns ? ulp_element(&job->c, row, col0 + i) : 0.0;
        }
        begin(&r, 0, state, &c);
        for (int64_t k = 0; k < job->k; k++) {
            const lanes_t *b = packs(job) ? &panel[k] : &loaded;
            V a = broadcast(ulp_element(&job->a, row, k));
            if (!packs(job))
                load_b(job, k, col0, columns, &loaded);
            for (int i = 0; i < LANES; i += WIDTH)
                save(product.x + i, a * load(b->x + i));
            take(&r, 0, state, &product, 0);
        }
        finish(&r, 0, state, &product);
        for (int64_t i = 0; i < columns; i++)
            ulp_store(job, ulp_place_of(job, row, col0 + i), product.x[i], r.over[i]);
        if (r.counts)
            publish(&r, row, col0, columns);
    }
}

static void any_listed(const ulp_job *job, int64_t first, int64_t last, void *scratch)
{
    run_t r = {.job = job, .tables = scratch};
    void *state = (char *)scratch + tables_bytes(job);
    lanes_t c, product;
    make_tables(job, r.tables);
    for (; first < last; first += LANES) {
        int64_t count = last - first < LANES ? last - first : LANES;
        memset(r.used, 0, sizeof r.used);
        memset(r.over, 0, sizeof r.over);
        for (int64_t i = 0; i < LANES; i++) {
            int64_t row = job->rows[first + (i < count ? i : 0)], column = job->columns[first + (i < count ? i : 0)];
            r.index[i] = job->first_index + (uint64_t)row * job->row_index + (uint64_t)column * job->column_index;
            c.x[i] = job->c.data ? ulp_element(&job->c, row, column) : 0.0;
        }
        begin(&r, 0, state, &c);
        for (int64_t k = 0; k < job->k; k++) {
            for (int64_t i = 0; i < count; i++)
                product.x[i] = ulp_element(&job->a, job->rows[first + i], k) *
                               ulp_element(&job->b, k, job->columns[first + i]);
            for (int64_t i = count; i < LANES; i++)
                product.x[i] = 0.0;
            take(&r, 0, state, &product, 0);
        }
        finish(&r, 0, state, &product);
        for (int64_t i = 0; i < count; i++)
            ulp_store(job, first + i, product.x[i], r.over[i]);
    }
}

const ulp_kernel ISA_NAME(ulp_float64_any) = {any_dense, any_listed, any_scratch, 1, LANES, 0, 0};
