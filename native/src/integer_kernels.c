/* The scalar integer kernel: slow, and right for every accumulator. What it does step by step is defined by
 * simulator/arithmetic/reference. */
#include <stddef.h>

#include "kernel.h"
#include "roundpack.h"
#include "wide_sum.h"

/* What a node takes: the product a*b, or, where is_value is set, the value a. */
typedef struct {
    double a, b; /* b is 1 for a value */
    int is_value;
} term;

enum { PRODUCT, SUM }; /* which of a place's two words, as in simulator/arithmetic/places.py */

/* One output under way. */
typedef struct {
    const ulp_job *job;
    ulp_place place;
    uint32_t used[ULP_MAX_NODES][2]; /* random words, by node and by what is rounded */
    int overflowed;
    ulp_counts counts;
    ulp_wide *wide; /* for sums of groups */
} output;

/* --- one rounding ------------------------------------------------------------------------------------------------ */

static const ulp_place *next_place(output *o, int node, const ulp_use *use, int which)
{
    if (use->rounding != ULP_SR)
        return NULL;
    o->place.k = o->used[node][which]++;
    o->place.site = (uint32_t)node << 24 | o->job->site;
    o->place.which = which;
    return &o->place;
}

/* Count what a rounding met; `nonzero`: what was rounded is finite and not zero. */
static double counted(output *o, double value, int nonzero, int overflowed)
{
    o->overflowed |= overflowed;
    o->counts.overflows += overflowed;
    o->counts.underflows += nonzero && value == 0.0;
    return value;
}

/* Note a sum that is held: whether it was left unchanged by what was added, and how large it is. */
static double held(output *o, double value, int unchanged)
{
    double magnitude = fabs(value), largest;
    memcpy(&largest, &o->counts.largest, sizeof largest);
    if (isfinite(value) && magnitude > largest)
        memcpy(&o->counts.largest, &magnitude, sizeof magnitude);
    o->counts.swamped += unchanged;
    return value;
}

static int all_finite(double s, term t) { return isfinite(s) && isfinite(t.a) && isfinite(t.b); }

static double round_product(output *o, int node, const ulp_use *use, term t)
{
    int overflowed = 0, nonzero = t.a != 0.0 && t.b != 0.0 && all_finite(0.0, t);
    double value = ulp_product(t.a, t.b, use, next_place(o, node, use, PRODUCT), &overflowed);
    return counted(o, value, nonzero, overflowed);
}

/* R(s + t). */
static double round_sum(output *o, int node, const ulp_use *use, double s, term t, int *overflowed)
{
    const ulp_place *place = next_place(o, node, use, SUM);
    if (!all_finite(s, t)) {
        double value = ulp_fma(s, t.a, t.b, use, place, overflowed);
        return counted(o, value, 0, *overflowed);
    }
    ulp_exact sum = ulp_fma_exact(s, t.a, t.b, use);
    double value = ulp_round_exact(sum, use, place, overflowed);
    return counted(o, value, sum.significand != 0, *overflowed);
}

/* The same as the next value of a sum that is held. */
static double round_step(output *o, int node, const ulp_use *use, double s, term t)
{
    int overflowed = 0;
    double value = round_sum(o, node, use, s, t, &overflowed);
    return held(o, value, value == s && !overflowed && t.a != 0.0 && t.b != 0.0 && all_finite(s, t));
}

static term of_value(double value)
{
    return (term){value, 1.0, 1};
}

/* R(s + t) of two values on the way to the next one. */
static double round_aside(output *o, int node, const ulp_use *use, double s, double t)
{
    int overflowed = 0;
    return round_sum(o, node, use, s, of_value(t), &overflowed);
}

/* R(the sum in `wide`). */
static double round_wide(output *o, int node, const ulp_use *use, ulp_wide *wide, int *overflowed)
{
    const ulp_place *place = next_place(o, node, use, SUM);
    if (wide->special != 0.0) {
        double value = ulp_special(wide->special, use, overflowed);
        return counted(o, value, 0, *overflowed);
    }
    /* Of arithmetic modulo 2^N the lowest bits count, which a sum of many bits would lose. */
    int beyond = use->family == ULP_FIXED && use->wraps && ulp_wide_modulo(wide, use->code_bits - use->fraction_bits);
    ulp_exact sum = ulp_wide_collect(wide);
    if (!sum.significand)
        sum.negative = ulp_zero_is_negative(use, wide->minus_zero, wide->plus_zero);
    double value = ulp_round_exact(sum, use, place, overflowed);
    *overflowed |= beyond;
    return counted(o, value, beyond || sum.significand, *overflowed);
}

/* --- the states of nodes, one behind the other in scratch memory ------------------------------------------------- */

typedef struct {
    double value, error; /* error: of kahan and neumaier */
    union {
        int64_t count;  /* terms of the step under way */
        int64_t quanta; /* fixed point: the sum */
    };
} plain_state;

typedef struct {
    plain_state plain;
    ulp_wide wide; /* the products of the step under way; of exact all terms */
} wide_state;

typedef struct {
    plain_state plain;
    term terms[]; /* the products of the step under way */
} aligned_state;

typedef struct {
    int64_t count; /* terms in the run under way; of interleave all terms */
} composed_state;

typedef struct {
    int64_t levels;  /* in use */
    int64_t pending[64];
    term terms[];    /* [level][radix] */
} tree_state;

static size_t rounded_up(size_t bytes) { return (bytes + 15) / 16 * 16; }

/* No node takes more terms than there are products, or lanes of the interleave that it joins. */
static int64_t tree_levels(const ulp_job *job, const ulp_node *node)
{
    int64_t levels = 2, most = job->k;
    for (int i = 0; i < ULP_MAX_NODES; i++)
        if (job->nodes[i].kind == ULP_INTERLEAVE && job->nodes[i].length > most)
            most = job->nodes[i].length;
    for (int64_t left = most; left > 1; left = (left + node->length - 1) / node->length)
        levels++;
    return levels;
}

static int64_t aligned_terms(const ulp_node *node) { return node->length * (node->two_of_four ? 2 : 1); }

static size_t state_bytes(const ulp_job *job, int node)
{
    const ulp_node *self = &job->nodes[node];
    switch (self->kind) {
    case ULP_FMA:
        return self->length > 1 ? rounded_up(sizeof(wide_state)) : rounded_up(sizeof(plain_state));
    case ULP_EXACT:
        return rounded_up(sizeof(wide_state));
    case ULP_ALIGNED:
        return rounded_up(sizeof(aligned_state) + (size_t)aligned_terms(self) * sizeof(term));
    case ULP_TREE:
        return rounded_up(sizeof(tree_state) + (size_t)(tree_levels(job, self) * self->length) * sizeof(term));
    case ULP_CHUNK:
        return rounded_up(sizeof(composed_state)) + state_bytes(job, self->inner) + state_bytes(job, self->outer);
    case ULP_INTERLEAVE:
        return rounded_up(sizeof(composed_state)) + (size_t)self->length * state_bytes(job, self->inner) +
               state_bytes(job, self->outer);
    default:
        return rounded_up(sizeof(plain_state));
    }
}

static void *part(void *state, size_t offset) { return (char *)state + offset; }

/* In a chunk or interleave what joins the results lies first, then what takes the terms, once a lane. */
static void *outer_state(void *state) { return part(state, rounded_up(sizeof(composed_state))); }

static void *inner_state(const output *o, int node, void *state, int64_t lane)
{
    const ulp_node *self = &o->job->nodes[node];
    return part(outer_state(state),
                state_bytes(o->job, self->outer) + (size_t)lane * state_bytes(o->job, self->inner));
}

/* Start at a value, which is +0 but for the addend. */
static void start(output *o, int node, void *state, double c)
{
    const ulp_node *self = &o->job->nodes[node];
    plain_state *plain = state;
    wide_state *wide = state;
    switch (self->kind) {
    case ULP_CHUNK:
    case ULP_INTERLEAVE:
        ((composed_state *)state)->count = 0;
        start(o, self->outer, outer_state(state), c);
        for (int64_t lane = 0; lane < (self->kind == ULP_CHUNK ? 1 : self->length); lane++)
            start(o, self->inner, inner_state(o, node, state, lane), 0.0);
        return;
    case ULP_TREE:
        ((tree_state *)state)->levels = 0;
        return;
    case ULP_EXACT:
        ulp_wide_clear(&wide->wide);
        ulp_wide_add_product(&wide->wide, c, 1.0);
        return;
    case ULP_FIXED_POINT:
        plain->quanta = isfinite(c) ? (int64_t)ldexp(c, self->sum.fraction_bits) : 0;
        break;
    case ULP_FMA:
        if (self->length > 1)
            ulp_wide_clear(&wide->wide);
        plain->count = 0;
        break;
    default:
        plain->count = 0;
    }
    plain->value = c;
    plain->error = 0.0;
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static double rounded_term(output *o, int node, const ulp_use *use, term t)
{
    return t.is_value ? t.a : round_product(o, node, use, t);
}

static void kahan_step(output *o, int node, plain_state *self, term t)
{
    const ulp_use *use = &o->job->nodes[node].sum;
    double value = rounded_term(o, node, use, t), s = self->value;
    double y = round_aside(o, node, use, value, -self->error);
    double z = round_step(o, node, use, s, of_value(y));
    double moved = round_aside(o, node, use, z, -s);
    self->error = round_aside(o, node, use, moved, -y);
    self->value = z;
}

static void neumaier_step(output *o, int node, plain_state *self, term t)
{
    const ulp_use *use = &o->job->nodes[node].sum;
    double value = rounded_term(o, node, use, t), s = self->value;
    double z = round_step(o, node, use, s, of_value(value));
    int ordered = fabs(s) >= fabs(value);
    double lost = round_aside(o, node, use, ordered ? s : value, -z);
    lost = round_aside(o, node, use, lost, ordered ? value : s);
    self->error = round_aside(o, node, use, self->error, lost);
    self->value = z;
}

static void fma_group_end(output *o, int node, wide_state *self)
{
    const ulp_use *use = &o->job->nodes[node].sum;
    int overflowed = 0, added = self->wide.high >= 0;
    double before = self->plain.value;
    ulp_wide_add_product(&self->wide, before, 1.0);
    double after = round_wide(o, node, use, &self->wide, &overflowed);
    self->plain.value = held(o, after, after == before && added && !overflowed);
    self->plain.count = 0;
    ulp_wide_clear(&self->wide);
}

static void fixed_step(output *o, int node, plain_state *self, term t)
{
    const ulp_node *mine = &o->job->nodes[node];
    const ulp_use *use = &mine->sum;
    const ulp_place *place = next_place(o, node, use, PRODUCT);
    int overflowed = 0;
    if (!isfinite(self->value) || !isfinite(t.a) || !isfinite(t.b)) {
        self->value = ulp_fma(self->value, t.a, t.b, use, NULL, &overflowed);
        self->quanta = isfinite(self->value) ? (int64_t)ldexp(self->value, use->fraction_bits) : 0;
        counted(o, self->value, 0, overflowed);
        return;
    }
    ulp_exact product = ulp_exact_product(t.a, t.b);
    ulp_quanta quanta = ulp_to_quanta(product, use, place);
    int64_t before = self->quanta;
    uint64_t sum = (uint64_t)before + (uint64_t)quanta.low;
    const ulp_use *range = mine->tracks ? &mine->product : use;
    overflowed = quanta.large || (int64_t)sum < range->lowest || (int64_t)sum > range->highest;
    int beyond = quanta.large || (int64_t)sum < use->lowest || (int64_t)sum > use->highest;
    int negative = quanta.large ? product.negative : (int64_t)sum < 0;
    if (!beyond)
        self->quanta = (int64_t)sum;
    else if (use->wraps)
        self->quanta = ulp_fixed_wrapped(sum, use);
    else
        self->quanta = negative ? use->lowest : use->highest;
    self->value = (double)self->quanta * use->smallest;
    o->overflowed |= overflowed;
    o->counts.overflows += overflowed;
    o->counts.underflows += product.significand && !quanta.low && !quanta.large;
    held(o, self->value, product.significand && self->quanta == before && !overflowed);
}

/* --- tree --------------------------------------------------------------------------------------------------------- */

static void tree_close(output *o, int node, tree_state *self, int64_t level);

static void tree_enter(output *o, int node, tree_state *self, int64_t level, term t)
{
    int64_t radix = o->job->nodes[node].length;
    if (level == self->levels)
        self->pending[self->levels++] = 0;
    self->terms[level * radix + self->pending[level]++] = t;
    if (self->pending[level] == radix)
        tree_close(o, node, self, level);
}

/* The sum of a group. It swamps the others if it equals the largest of them, though they are not all zero. */
static term tree_sum(output *o, int node, const term *terms, int64_t count)
{
    const ulp_use *use = &o->job->nodes[node].sum;
    double largest = 0.0;
    int64_t others = -1;
    ulp_wide_clear(o->wide);
    for (int64_t i = 0; i < count; i++) {
        double value = terms[i].a * terms[i].b; /* what is no double is not equal to the sum either, or nearly so */
        ulp_wide_add_product(o->wide, terms[i].a, terms[i].b);
        others += terms[i].a != 0.0 && terms[i].b != 0.0;
        if (fabs(value) > fabs(largest))
            largest = value;
    }
    int overflowed = 0;
    double sum = round_wide(o, node, use, o->wide, &overflowed);
    return of_value(held(o, sum, others > 0 && sum == largest && !overflowed));
}

static void tree_close(output *o, int node, tree_state *self, int64_t level)
{
    const term *terms = self->terms + level * o->job->nodes[node].length;
    int64_t count = self->pending[level];
    self->pending[level] = 0;
    tree_enter(o, node, self, level + 1, count == 1 ? terms[0] : tree_sum(o, node, terms, count));
}

static double tree_finish(output *o, int node, tree_state *self)
{
    for (int64_t level = 0; level < self->levels; level++) {
        int alone = self->pending[level] == 1;
        for (int64_t above = level + 1; above < self->levels; above++)
            alone &= !self->pending[above];
        const term *terms = self->terms + level * o->job->nodes[node].length;
        if (alone)
            return terms[0].is_value ? terms[0].a : tree_sum(o, node, terms, 1).a;
        if (self->pending[level])
            tree_close(o, node, self, level);
    }
    return 0.0; /* no products */
}

/* --- aligned ------------------------------------------------------------------------------------------------------ */

enum { STATE_MIN_EXPONENT = -126 };

static int leading(ulp_exact x) { return ulp_bit_length(x.significand) - 1 + x.exponent; }
static int larger(int x, int y) { return x > y ? x : y; }

/* Round to a multiple of 2^last. */
static ulp_exact cut(ulp_exact x, int last, int rounding)
{
    int shift = last - x.exponent;
    if (shift <= 0 || !x.significand)
        return x;
    ulp_use use = {.rounding = rounding};
    ulp_cut c = ulp_cut_at(x.significand, shift); /* what is kept has at most 63 bits: 2^(E - F) with F <= 60 */
    return (ulp_exact){ulp_rounded(c, (int)(c.kept & 1), x.negative, &use, NULL), last, x.negative};
}

static int operand_exponent(double x, int least)
{
    return x == 0.0 ? least : larger(ilogb(x), least);
}

/* The exponent of a product as the sum of its operands'; ULP_NONE where it has none. */
static int nominal_exponent(const ulp_node *node, term t)
{
    if (t.is_value)
        return t.a == 0.0 ? ULP_NONE : larger(ilogb(t.a), STATE_MIN_EXPONENT);
    if ((t.a == 0.0 && node->a_min_exponent == ULP_NONE) || (t.b == 0.0 && node->b_min_exponent == ULP_NONE))
        return ULP_NONE;
    if (!node->keeps_zeros && (t.a == 0.0 || t.b == 0.0))
        return ULP_NONE;
    return operand_exponent(t.a, node->a_min_exponent) + operand_exponent(t.b, node->b_min_exponent);
}

/* Terms of a step with their exponents. */
typedef struct {
    ulp_exact value;
    int exponent;
} aligned_term;

/* The exact sum of the terms, each cut at `fraction` bits below the largest exponent, to which *top is raised. */
static ulp_exact aligned_sum(output *o, const ulp_node *node, const aligned_term *terms, int count, int *top)
{
    for (int i = 0; i < count; i++)
        *top = larger(*top, terms[i].exponent);
    ulp_wide_clear(o->wide);
    for (int i = 0; i < count; i++) {
        ulp_exact kept = cut(terms[i].value, *top - node->fraction, node->align);
        o->counts.swamped += terms[i].value.significand && !kept.significand;
        ulp_wide_add(o->wide, kept);
    }
    return ulp_wide_collect(o->wide);
}

/* The products first, first + parts, ... as terms, or if there are groups (then of one part) the sums of these. */
static int product_terms(output *o, const ulp_node *node, const term *products, int first, aligned_term *terms)
{
    int count = 0, group = node->group;
    for (int64_t i = first; i < node->length; i += node->parts * group) {
        aligned_term *t = &terms[count];
        if (group > 1) {
            ulp_wide_clear(o->wide);
            for (int j = 0; j < group; j++)
                ulp_wide_add_product(o->wide, products[i + j].a, products[i + j].b);
            t->value = ulp_wide_collect(o->wide);
            t->exponent = t->value.significand ? leading(t->value) : ULP_NONE;
        } else {
            t->value = ulp_exact_product(products[i].a, products[i].b);
            t->exponent = nominal_exponent(node, products[i]);
        }
        count += t->exponent != ULP_NONE;
    }
    return count;
}

enum { MAX_TERMS = 1024 + 1 }; /* the most products of a step, and the state */

static void aligned_step(output *o, int node, aligned_state *self, const term *products)
{
    const ulp_node *mine = &o->job->nodes[node];
    const ulp_use *use = &mine->sum;
    const ulp_place *place = next_place(o, node, use, SUM);
    double special = isfinite(self->plain.value) ? 0.0 : self->plain.value;
    int overflowed = 0;
    for (int64_t i = 0; i < mine->length; i++)
        if (!isfinite(products[i].a) || !isfinite(products[i].b))
            special += products[i].a * products[i].b;
    if (special != 0.0) {
        self->plain.value = ulp_special(special, use, &overflowed);
        counted(o, self->plain.value, 0, overflowed);
        return;
    }
    aligned_term terms[MAX_TERMS];
    ulp_exact c = ulp_unpack(self->plain.value), sums[2] = {{0}};
    int c_exponent = c.significand ? larger(leading(c), STATE_MIN_EXPONENT) : ULP_NONE, top = ULP_NONE;
    for (int i = 0; i < mine->parts; i++) {
        int count = product_terms(o, mine, products, i, terms), part_top = mine->min_exponent;
        if (!mine->late && c.significand)
            terms[count++] = (aligned_term){c, c_exponent};
        sums[i] = aligned_sum(o, mine, terms, count, &part_top);
        top = larger(top, part_top);
    }
    for (int i = 0; i < mine->parts && mine->part_fraction != ULP_NONE; i++)
        sums[i] = cut(sums[i], top - mine->part_fraction, ULP_RD);
    ulp_exact total = sums[0];
    if (mine->late) {
        int dropped = mine->c_reach != ULP_NONE && top != ULP_NONE && c_exponent < top - mine->c_reach;
        int highest = larger(top, c_exponent);
        ulp_wide_clear(o->wide);
        for (int i = 0; i < mine->parts; i++)
            ulp_wide_add(o->wide, mine->sum_fraction == ULP_NONE
                                      ? sums[i]
                                      : cut(sums[i], highest - mine->sum_fraction, ULP_RD));
        if (c.significand && !dropped)
            ulp_wide_add(o->wide, mine->c_fraction == ULP_NONE ? c : cut(c, highest - mine->c_fraction, ULP_RD));
        total = ulp_wide_collect(o->wide);
    }
    if (!total.significand) {
        self->plain.value = ulp_special(0.0, use, &overflowed);
        return;
    }
    double value = ulp_round_exact(total, use, place, &overflowed);
    if (overflowed)
        value = ulp_special(total.negative ? -(double)INFINITY : (double)INFINITY, use, &overflowed);
    self->plain.value = held(o, counted(o, value, 1, overflowed), 0);
}

static void aligned_steps(output *o, int node, aligned_state *self)
{
    const ulp_node *mine = &o->job->nodes[node];
    const term zero = {0.0, 0.0, 0};
    for (int64_t i = self->plain.count; i < aligned_terms(mine); i++)
        self->terms[i] = zero;
    self->plain.count = 0;
    if (!mine->two_of_four) {
        aligned_step(o, node, self, self->terms);
        return;
    }
    term taken[2 * MAX_TERMS];
    int64_t count = 0;
    for (int half = 0; half < 2; half++)
        for (int64_t i = 0; i < 2 * mine->length; i++)
            if (i % 4 / 2 == half)
                taken[count++] = self->terms[i];
    aligned_step(o, node, self, taken);
    aligned_step(o, node, self, taken + mine->length);
}

/* --- any node ----------------------------------------------------------------------------------------------------- */

static double finish(output *o, int node, void *state);

static void push(output *o, int node, void *state, term t)
{
    const ulp_node *self = &o->job->nodes[node];
    plain_state *plain = state;
    wide_state *wide = state;
    composed_state *composed = state;
    aligned_state *aligned = state;
    switch (self->kind) {
    case ULP_FMA:
        if (self->length == 1) {
            plain->value = round_step(o, node, &self->sum, plain->value, t);
            return;
        }
        ulp_wide_add_product(&wide->wide, t.a, t.b);
        if (++plain->count == self->length)
            fma_group_end(o, node, wide);
        return;
    case ULP_SEQ:
        plain->value =
            round_step(o, node, &self->sum, plain->value, of_value(rounded_term(o, node, &self->product, t)));
        return;
    case ULP_KAHAN:
        kahan_step(o, node, plain, t);
        return;
    case ULP_NEUMAIER:
        neumaier_step(o, node, plain, t);
        return;
    case ULP_FIXED_POINT:
        fixed_step(o, node, plain, t);
        return;
    case ULP_EXACT:
        ulp_wide_add_product(&wide->wide, t.a, t.b);
        return;
    case ULP_TREE:
        tree_enter(o, node, state, 0, self->exact_leaves ? t : of_value(rounded_term(o, node, &self->sum, t)));
        return;
    case ULP_ALIGNED:
        aligned->terms[plain->count++] = t;
        if (plain->count == aligned_terms(self))
            aligned_steps(o, node, aligned);
        return;
    case ULP_INTERLEAVE:
        push(o, self->inner, inner_state(o, node, state, composed->count++ % self->length), t);
        return;
    default: /* ULP_CHUNK */
        push(o, self->inner, inner_state(o, node, state, 0), t);
        if (++composed->count == self->length) {
            composed->count = 0;
            double run = finish(o, self->inner, inner_state(o, node, state, 0));
            push(o, self->outer, outer_state(state), of_value(run));
            start(o, self->inner, inner_state(o, node, state, 0), 0.0);
        }
    }
}

/* The accumulated value; the state is used up. */
static double finish(output *o, int node, void *state)
{
    const ulp_node *self = &o->job->nodes[node];
    plain_state *plain = state;
    wide_state *wide = state;
    composed_state *composed = state;
    int overflowed = 0;
    switch (self->kind) {
    case ULP_FMA:
        if (plain->count)
            fma_group_end(o, node, state);
        return plain->value;
    case ULP_NEUMAIER:
        return round_aside(o, node, &self->sum, plain->value, plain->error);
    case ULP_EXACT:
        return held(o, round_wide(o, node, &self->sum, &wide->wide, &overflowed), 0);
    case ULP_TREE:
        return tree_finish(o, node, state);
    case ULP_ALIGNED:
        if (plain->count)
            aligned_steps(o, node, state);
        return plain->value;
    case ULP_INTERLEAVE:
        for (int64_t lane = 0; lane < self->length; lane++)
            push(o, self->outer, outer_state(state),
                 of_value(finish(o, self->inner, inner_state(o, node, state, lane))));
        return finish(o, self->outer, outer_state(state));
    case ULP_CHUNK:
        if (composed->count)
            push(o, self->outer, outer_state(state),
                 of_value(finish(o, self->inner, inner_state(o, node, state, 0))));
        return finish(o, self->outer, outer_state(state));
    default:
        return plain->value;
    }
}

/* --- the kernel --------------------------------------------------------------------------------------------------- */

static size_t scratch_bytes(const ulp_job *job) { return rounded_up(sizeof(ulp_wide)) + state_bytes(job, 0); }

static void compute(const ulp_job *job, int64_t row, int64_t column, int64_t at, void *scratch)
{
    output o = {.job = job, .wide = scratch};
    void *state = part(scratch, rounded_up(sizeof(ulp_wide)));
    o.place = (ulp_place){.seed = job->seed, .step = job->step,
                          .index = job->first_index + (uint64_t)row * job->row_index +
                                   (uint64_t)column * job->column_index};
    start(&o, 0, state, job->c.data ? ulp_element(&job->c, row, column) : 0.0);
    for (int64_t k = 0; k < job->k; k++)
        push(&o, 0, state, (term){ulp_element(&job->a, row, k), ulp_element(&job->b, k, column), 0});
    double value = finish(&o, 0, state);
    ulp_store(job, at, value, o.overflowed);
    if (job->counts)
        ulp_publish(job, &o.counts, row, column);
}

static void dense(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *scratch)
{
    memset(scratch, 0, scratch_bytes(job));
    for (int64_t row = row0; row < row1; row++)
        for (int64_t column = col0; column < col1; column++)
            compute(job, row, column, ulp_place_of(job, row, column), scratch);
}

static void listed(const ulp_job *job, int64_t first, int64_t last, void *scratch)
{
    memset(scratch, 0, scratch_bytes(job));
    for (int64_t i = first; i < last; i++)
        compute(job, job->rows[i], job->columns[i], i, scratch);
}

const ulp_kernel ulp_integer_any = {dense, listed, scratch_bytes, 1, 16, 0, 0};
