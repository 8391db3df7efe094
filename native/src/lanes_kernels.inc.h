/* The lane kernels: matmul with several outputs in flight, each lane one output, k innermost.
 *
 * Included once per source file. A step is chosen at compile time by constant arguments of an always-inlined function;
 * the conditions under which a step equals the definition are in simulator/arithmetic/conditions.py.
 *
 * dense:   a tile of ROWS x COLUMNS outputs; b is packed into a panel [k][COLUMNS], a is broadcast as it lies.
 * listed:  LISTED outputs anywhere; the rows of a that they need are packed into a panel [k][rows], from which lanes
 *          take theirs by permutation. Where ENOUGH outputs one behind the other lie in the same SPAN columns (the
 *          dispatcher sorts them so that they do), b is taken from a panel [k][SPAN] in the same way; else it is packed
 *          lane by lane.
 *
 * Where overflow is not excluded, a tile is WATCHED first; if it comes near the largest value, it is done again
 * CAREFULLY. One such tile has the next done carefully at once, until one stays below. The bits are the same. */

#include <float.h>

#include "lanes.inc.h"

enum {
#if defined(ISA_AVX512)
    ROWS = 8,
#elif defined(ISA_AVX2)
    ROWS = 6,
#else
    ROWS = 4,
#endif
    COLUMN_VECTORS = 2,
    COLUMNS = COLUMN_VECTORS * WIDTH,
    VECTORS = ROWS * COLUMN_VECTORS,
    LISTED = VECTORS * WIDTH,
    WATCHES = 4,       /* a lane's peak is shared by every fourth vector: short chains in few registers */
    BLOCK = 16,        /* k's gathered at a time */
    GATHERED = LISTED + WIDTH, /* width of a gathered panel: a vector that begins at the last line reads beyond it */
    SPAN = 4 * COLUMNS,        /* columns of b packed for listed outputs; a vector's lie in COLUMNS of them */
    ENOUGH = LISTED / 4,       /* listed outputs for which they are packed */
    PANEL = 1 << 13    /* k's of b packed at a time for a dense tile */
};

enum { STEP_EXACT, STEP_FMA, STEP_FMA_ODD, STEP_SEQ, STEP_SEQ_ODD, STEP_POSIT_FMA_ODD, STEP_POSIT_SEQ_ODD };

INLINE int is_posit(int kind) { return kind == STEP_POSIT_FMA_ODD || kind == STEP_POSIT_SEQ_ODD; }

/* What is counted of a vector of outputs; the meaning of each is that of ulp_counts. Lanes beyond the last column,
 * where b is zero, count nothing: what they add is zero or NaN. Counters of 32 bits suffice: of more products the lanes
 * of float are not asked to count. */
typedef struct {
    COUNTER overflows, underflows, swamped;
    V largest;
} tally_t;

/* R(x); if there is a tally, it is counted, and *beyond is where it overflowed. Where overflow is only watched for, the
 * tile that meets it is done again, and where sums are on the grid none underflows, nor do posits. */
INLINE V rounded(V x, const rounder *r, int posit, int overflow, int on_grid, int signless, V *peak, tally_t *tally,
                 MASK *beyond)
{
    int counts_overflow = tally && (overflow == CAREFUL || overflow == CLAMPED);
    V reached = {0}, *noted = counts_overflow ? &reached : peak;
    V y = posit ? round_posit(x, &r->posit, noted) : round_lane(x, r, overflow, on_grid, signless, noted);
    if (counts_overflow) {
        *peak = maximum(reached, *peak);
        *beyond = above(reached, r->max);
        count(&tally->overflows, *beyond);
    }
    if (tally && !posit && !on_grid)
        count(&tally->underflows, nonzero(x) & equal(y, (V){0}));
    return y;
}

/* Count the step from s to `next`, where `adds` says that what was added is not zero. Of sums that are clamped the
 * largest is known from their peak in the end. */
INLINE void count_step(tally_t *tally, V s, V next, MASK adds, MASK beyond, int overflow)
{
    V finite = next;
    if (overflow == CAREFUL)
        finite = replace_above(absolute(next), broadcast(REAL_IS_DOUBLE ? (REAL)DBL_MAX : (REAL)FLT_MAX), (V){0});
    count(&tally->swamped, adds & equal(next, s) & ~beyond);
    if (overflow != CLAMPED)
        tally->largest = larger_magnitude(finite, tally->largest);
}

/* One step of one vector of outputs. `on_grid` as in a job; then no state is -0, and no zero's sign matters. */
INLINE V step(V s, V a, V b, int kind, const rounder *product, const rounder *sum, int overflow, int on_grid, V *peak,
              V *product_peak, tally_t *tally)
{
    int posit = is_posit(kind), signless = on_grid >= 1;
    MASK beyond = {0};
    V t = a, total;
    if (kind == STEP_EXACT)
        return plain_fma(s, a, b);
    if (kind == STEP_SEQ || kind == STEP_SEQ_ODD || kind == STEP_POSIT_SEQ_ODD)
        t = rounded(a * b, product, posit, overflow, on_grid >= 2, signless, product_peak, tally, &beyond);
    switch (kind) {
    case STEP_FMA:
        total = plain_fma(s, a, b);
        break;
    case STEP_FMA_ODD:
    case STEP_POSIT_FMA_ODD:
        total = odd_fma(s, a, b);
        break;
    case STEP_SEQ:
        total = s + t;
        break;
    default:
        total = odd_sum(s, t);
    }
    V next = rounded(total, sum, posit, overflow, on_grid >= 1, signless, peak, tally, &beyond);
    if (tally) {
        int fma = kind == STEP_FMA || kind == STEP_FMA_ODD || kind == STEP_POSIT_FMA_ODD;
        MASK adds = fma ? nonzero(a) & nonzero(b) : nonzero(t);
        count_step(tally, s, next, adds, beyond, posit && overflow == CLAMPED ? BOUNDED : overflow); /* no peak tells */
    }
    return next;
}

typedef struct context context_t;
typedef struct tile tile_t;
typedef void leaf_fn(context_t *, const tile_t *, int64_t k0, int64_t k1);

/* The leaf of a kernel, compiled on its own for what is known of overflow and of the grid. */
typedef struct {
    leaf_fn *careful, *clamped, *watched[3], *bounded[3];
} leaves_t;

/* What stays the same through a whole job, and one thread's memory. */
struct context {
    const ulp_job *job;
    leaf_fn *leaf, *careful;                /* for all tiles; for one that came near overflow */
    int near;                               /* the last tile did */
    rounder product, sum, join[ULP_MAX_JOINS];
    V state[ULP_MAX_JOINS + 1][VECTORS];    /* level 0 is the leaf */
    V peak[ULP_MAX_JOINS + 1][VECTORS];     /* largest magnitude of the sums of a level */
    V product_peak[VECTORS];                /* if watched, the first WATCHES of the leaf's are shared by all vectors */
    tally_t tally[VECTORS];                 /* of all levels together */
    REAL a_panel[BLOCK * GATHERED];         /* listed only */
    int64_t column, columns;                /* of b, that the panel holds */
    int64_t packed, packed_end;             /* the k's that it holds */
    const int64_t *along;                   /* dense: offsets of a's elements along k */
    REAL *wide;                             /* dense: [ROWS][panel_length] of floats widened; NULL if a is REAL */
    REAL b_panel[] __attribute__((aligned(64))); /* [k - packed][COLUMNS or SPAN]; lane by lane: [BLOCK][GATHERED] */
};

/* The tile under way. */
struct tile {
    int64_t row, rows, column, columns;     /* dense */
    int64_t at[ROWS];                       /* dense: where a's rows begin; over the edge the last is repeated */
    const int64_t *row_list, *column_list;  /* listed */
    int64_t first, listed;
    int together;                           /* listed: in the columns that the panel holds */
    int64_t output[LISTED];                 /* listed: which one each lane is; -1 for none */
    int64_t lines[LISTED], line_count;      /* listed: rows of a, one for each change of row in the list */
    int64_t begin[VECTORS], from[VECTORS];  /* listed: where in the panels of a and b a vector looks */
    B line[VECTORS], place[VECTORS];        /* listed: where from there on each lane does */
};

static int64_t panel_length(const ulp_job *job) { return job->k < PANEL ? job->k : PANEL; }
static int is_narrow(const ulp_job *job) { return REAL_IS_DOUBLE && !job->a.is_double; }

static size_t scratch_bytes(const ulp_job *job)
{
    size_t bytes = sizeof(context_t);
    size_t panel = (size_t)panel_length(job) * sizeof(REAL), gathered = sizeof(REAL) * BLOCK * GATHERED;
    if (job->rows)
        bytes += panel * SPAN > gathered ? panel * SPAN : gathered;
    else
        bytes += panel * (COLUMNS + (is_narrow(job) ? ROWS : 0)) + (size_t)job->k * sizeof(int64_t);
    return (bytes + 63) / 64 * 64;
}

static void start(context_t *context, const ulp_job *job, const leaves_t *leaves)
{
    const ulp_node *leaf = &job->nodes[job->leaf];
    int clamps = leaf->sum.overflowed == leaf->sum.max &&
                 (leaf->kind != ULP_SEQ || leaf->product.overflowed == leaf->product.max);
    context->job = job;
    context->near = 0;
    context->leaf = (job->bounded ? leaves->bounded : leaves->watched)[job->on_grid];
    context->careful = clamps ? leaves->clamped : leaves->careful;
    context->sum = make_rounder(&leaf->sum);
    context->product = make_rounder(leaf->kind == ULP_SEQ ? &leaf->product : &leaf->sum);
    for (int i = 0; i < job->join_count; i++)
        context->join[i] = make_rounder(&job->join[i]);
    if (job->rows)
        return;
    REAL *behind = context->b_panel + panel_length(job) * COLUMNS;
    context->wide = is_narrow(job) ? behind : NULL;
    int64_t *along = (int64_t *)(behind + (is_narrow(job) ? ROWS * panel_length(job) : 0));
    for (int64_t k = 0; k < job->k; k++)
        along[k] = job->a.column_offsets ? job->a.column_offsets[k] : k * job->a.column_stride;
    context->along = along;
}

/* Copy a line of a matrix, widening or (exactly) narrowing it. */
static void copy_line(REAL *to, int64_t to_step, const ulp_matrix *x, int64_t at, int64_t step, int64_t count)
{
    if (x->is_double) {
        const double *from = (const double *)x->data + at;
        for (int64_t i = 0; i < count; i++)
            to[i * to_step] = (REAL)from[i * step];
    } else {
        const float *from = (const float *)x->data + at;
        for (int64_t i = 0; i < count; i++)
            to[i * to_step] = (REAL)from[i * step];
    }
}

/* The same of a line whose elements lie at offsets. */
static void gather_line(REAL *to, const ulp_matrix *x, int64_t at, const int64_t *offsets, int64_t count)
{
    if (x->is_double) {
        const double *from = (const double *)x->data + at;
        for (int64_t i = 0; i < count; i++)
            to[i] = (REAL)from[offsets[i]];
    } else {
        const float *from = (const float *)x->data + at;
        for (int64_t i = 0; i < count; i++)
            to[i] = (REAL)from[offsets[i]];
    }
}

/* Have the panel, `width` columns wide, hold k, with as many k's behind it as fit; a short inner product is packed once
 * for all rows. */
INLINE void pack(context_t *context, int64_t k, int width)
{
    const ulp_matrix *b = &context->job->b;
    if (k >= context->packed && k < context->packed_end)
        return;
    int64_t count = context->job->k - k < PANEL ? context->job->k - k : PANEL;
    int64_t at = k * b->row_stride + context->column * b->column_stride;
    context->packed = k;
    context->packed_end = k + count;
    if (context->columns < width)
        memset(context->b_panel, 0, (size_t)(count * width) * sizeof(REAL));
    if (b->column_offsets)
        for (int64_t i = 0; i < count; i++)
            gather_line(context->b_panel + i * width, b, b->row_offsets[k + i], b->column_offsets + context->column,
                        context->columns);
    else if (b->column_stride == 1)
        for (int64_t i = 0; i < count; i++)
            copy_line(context->b_panel + i * width, 1, b, at + i * b->row_stride, 1, context->columns);
    else
        for (int64_t j = 0; j < context->columns; j++)
            copy_line(context->b_panel + j, width, b, at + j * b->column_stride, b->row_stride, count);
}

/* Widen a row of the tile's a, k0 <= k < k1, into k - k0. */
static const REAL *widen(const context_t *context, const tile_t *tile, int row, int64_t k0, int64_t k1)
{
    const ulp_matrix *a = &context->job->a;
    const float *from = (const float *)a->data + tile->at[row];
    REAL *to = context->wide + row * panel_length(context->job);
    if (!a->column_offsets && a->column_stride == 1)
        for (int64_t k = k0; k < k1; k++)
            to[k - k0] = from[k];
    else
        for (int64_t k = k0; k < k1; k++)
            to[k - k0] = from[context->along[k]];
    return to;
}

/* The outputs in flight, what is known of how large they became, and what was counted. */
typedef struct {
    V s[VECTORS], peak[VECTORS], product_peak[VECTORS];
    tally_t tally[VECTORS];
} flight_t;

#define PEAKS(overflow) ((overflow) == WATCHED ? WATCHES : VECTORS)

INLINE void take_off(flight_t *f, const context_t *context, int overflow, int counts)
{
    for (int i = 0; i < VECTORS; i++) {
        f->s[i] = context->state[0][i];
        if (counts)
            f->tally[i] = context->tally[i];
    }
    for (int i = 0; i < PEAKS(overflow); i++) {
        f->peak[i] = context->peak[0][i];
        f->product_peak[i] = context->product_peak[i];
    }
}

INLINE void land(const flight_t *f, context_t *context, int kind, int overflow, int counts)
{
    for (int i = 0; i < VECTORS; i++) {
        context->state[0][i] = f->s[i];
        if (counts)
            context->tally[i] = f->tally[i];
        if (counts && overflow == CLAMPED && !is_posit(kind))
            context->tally[i].largest = maximum(clamp(f->peak[i], context->sum.max), f->tally[i].largest);
    }
    for (int i = 0; i < PEAKS(overflow); i++) {
        context->peak[0][i] = f->peak[i];
        context->product_peak[i] = f->product_peak[i];
    }
}

/* Run the leaf over k0 <= k < k1 of a dense tile. */
INLINE void dense_steps(context_t *context, const tile_t *tile, int64_t k0, int64_t k1, int kind, int overflow,
                        int on_grid, int counts)
{
    flight_t f;
    const rounder product = context->product, sum = context->sum;
    take_off(&f, context, overflow, counts);
    while (k0 < k1) {
        pack(context, k0, COLUMNS);
        int64_t end = context->packed_end < k1 ? context->packed_end : k1;
        const REAL *b = context->b_panel + (k0 - context->packed) * COLUMNS, *rows[ROWS];
        const int64_t *along = context->wide ? NULL : context->along + k0;
        for (int i = 0; i < ROWS; i++)
            rows[i] = context->wide ? widen(context, tile, i, k0, end)
                                    : (const REAL *)context->job->a.data + tile->at[i];
        for (int64_t k = 0; k < end - k0; k++, b += COLUMNS) {
            int64_t at = along ? along[k] : k;
            V bs[COLUMN_VECTORS];
            for (int j = 0; j < COLUMN_VECTORS; j++)
                bs[j] = load(b + j * WIDTH);
#pragma GCC unroll 8
            for (int i = 0; i < ROWS; i++) {
                V a = broadcast(rows[i][at]);
                for (int j = 0; j < COLUMN_VECTORS; j++) {
                    int v = i * COLUMN_VECTORS + j, p = v % PEAKS(overflow);
                    f.s[v] = step(f.s[v], a, bs[j], kind, &product, &sum, overflow, on_grid, &f.peak[p],
                                  &f.product_peak[p], counts ? &f.tally[v] : NULL);
                }
            }
        }
        k0 = end;
    }
    land(&f, context, kind, overflow, counts);
}

INLINE void dense_leaf(context_t *context, const tile_t *tile, int64_t k0, int64_t k1, int kind, int overflow,
                       int on_grid)
{
    dense_steps(context, tile, k0, k1, kind, overflow, on_grid, 0);
}

INLINE void counted_leaf(context_t *context, const tile_t *tile, int64_t k0, int64_t k1, int kind, int overflow,
                         int on_grid)
{
    dense_steps(context, tile, k0, k1, kind, overflow, on_grid, 1);
}

/* Gather lines of an operand (rows of a, columns of b), k0 <= k < k1, into a panel [k - k0][GATHERED]: a vector of
 * lines at a time, by transposing blocks where k is contiguous. */
static void gather(REAL *panel, const ulp_matrix *x, int transposed, const int64_t *lines, int64_t line_count,
                   int64_t k0, int64_t k1)
{
    int64_t stride = transposed ? x->row_stride : x->column_stride;
    int64_t across = transposed ? x->column_stride : x->row_stride;
    int same_type = (x->is_double ? sizeof(double) : sizeof(float)) == sizeof(REAL);
    int contiguous = same_type && stride == 1 && !x->row_offsets;
    int64_t along[BLOCK], count = k1 - k0;
    for (int64_t k = 0; k < count; k++)
        along[k] = x->row_offsets ? x->column_offsets[k0 + k] : (k0 + k) * stride;
    for (int64_t first = 0; first < line_count; first += WIDTH, panel += WIDTH) {
        int64_t at[WIDTH], done = 0;
        for (int i = 0; i < WIDTH; i++) {
            int64_t line = lines[first + i < line_count ? first + i : line_count - 1];
            at[i] = x->row_offsets ? x->row_offsets[line] : line * across;
        }
        if (contiguous)
            for (; done + WIDTH <= count; done += WIDTH) {
                V block[WIDTH];
                for (int i = 0; i < WIDTH; i++) {
                    const REAL *from = (const REAL *)x->data + at[i] + along[done];
                    block[i] = load(from);
                    __builtin_prefetch(from + BLOCK); /* no hardware follows so many lines */
                }
                transpose(block);
                for (int i = 0; i < WIDTH; i++)
                    save(panel + (done + i) * GATHERED, block[i]);
            }
        for (; done < count; done++)
            for (int i = 0; i < WIDTH; i++) {
                int64_t k = at[i] + along[done];
                panel[done * GATHERED + i] = x->is_double ? (REAL)((const double *)x->data)[k]
                                                          : (REAL)((const float *)x->data)[k];
            }
    }
}

/* Run the leaf over k0 <= k < k1 of a tile of listed outputs. */
INLINE void listed_leaf(context_t *context, const tile_t *tile, int64_t k0, int64_t k1, int kind, int overflow,
                        int on_grid)
{
    flight_t f;
    const rounder product = context->product, sum = context->sum;
    const int64_t b_step = tile->together ? SPAN : GATHERED;
    take_off(&f, context, overflow, 0);
    while (k0 < k1) {
        int64_t end = k0 + BLOCK < k1 ? k0 + BLOCK : k1;
        const REAL *a = context->a_panel, *b = context->b_panel;
        if (tile->together) {
            pack(context, k0, SPAN);
            end = context->packed_end < end ? context->packed_end : end;
            b += (k0 - context->packed) * SPAN;
        } else {
            gather(context->b_panel, &context->job->b, 1, tile->column_list, tile->listed, k0, end);
        }
        gather(context->a_panel, &context->job->a, 0, tile->lines, tile->line_count, k0, end);
        for (; k0 < end; k0++, a += GATHERED, b += b_step) {
#pragma GCC unroll 16
            for (int v = 0; v < VECTORS; v++) {
                const REAL *from = b + tile->from[v];
                V as = __builtin_shuffle(load(a + tile->begin[v]), tile->line[v]);
                V bs = __builtin_shuffle(load(from), load(from + WIDTH), tile->place[v]);
                int p = v % PEAKS(overflow);
                f.s[v] = step(f.s[v], as, bs, kind, &product, &sum, overflow, on_grid, &f.peak[p],
                              &f.product_peak[p], NULL);
            }
        }
    }
    land(&f, context, kind, overflow, 0);
}

/* Accumulate k0 <= k < k1 into the state of a level: runs of the level below, each joined when it ends. */
static void accumulate(context_t *context, const tile_t *tile, leaf_fn *leaf, int level, int64_t k0, int64_t k1)
{
    if (!level) {
        leaf(context, tile, k0, k1);
        return;
    }
    const ulp_job *job = context->job;
    int64_t length = job->join_length[level - 1];
    const ulp_use *use = &job->join[level - 1];
    const rounder *join = &context->join[level - 1];
    int overflow = use->overflowed == use->max ? CLAMPED : CAREFUL;
    while (k0 < k1) {
        int64_t end = length < k1 - k0 ? k0 + length : k1;
        for (int i = 0; i < VECTORS; i++)
            context->state[level - 1][i] = (V){0};
        accumulate(context, tile, leaf, level - 1, k0, end);
        for (int i = 0; i < VECTORS; i++) {
            V before = context->state[level][i], run = context->state[level - 1][i];
            tally_t *tally = job->counts ? &context->tally[i] : NULL;
            MASK beyond = {0};
            context->state[level][i] = rounded(odd_sum(before, run), join, use->family == ULP_POSIT, overflow, 0, 0,
                                               &context->peak[level][i], tally, &beyond);
            if (tally)
                count_step(tally, before, context->state[level][i], nonzero(run), beyond, CAREFUL);
        }
        k0 = end;
    }
}

/* Where an output of the tile belongs: its row and column in the matrix, and its place in `out`; -1 if nowhere. */
static int64_t place(const ulp_job *job, const tile_t *tile, int lane, int64_t *row, int64_t *column)
{
    if (tile->row_list) {
        int64_t output = tile->output[lane];
        if (output < 0)
            return -1;
        *row = tile->row_list[output];
        *column = tile->column_list[output];
        return tile->first + output;
    }
    *row = tile->row + lane / COLUMNS;
    *column = tile->column + lane % COLUMNS;
    return lane / COLUMNS < tile->rows && lane % COLUMNS < tile->columns ? ulp_place_of(job, *row, *column) : -1;
}

/* Accumulate a tile from its addends, which lie in `addends` if there are any. */
static void accumulate_tile(context_t *context, const tile_t *tile, leaf_fn *leaf, const REAL *addends)
{
    int top = context->job->join_count;
    memset(context->state, 0, (size_t)(top + 1) * sizeof *context->state);
    memset(context->peak, 0, (size_t)(top + 1) * sizeof *context->peak);
    memset(context->product_peak, 0, sizeof context->product_peak);
    if (context->job->counts)
        memset(context->tally, 0, sizeof context->tally);
    for (int i = 0; addends && i < VECTORS; i++)
        context->state[top][i] = load(addends + i * WIDTH);
    accumulate(context, tile, leaf, top, 0, context->job->k);
}

/* Whether the leaf of the tile just done came near the largest value; `peaks` of its peaks count. */
static int near_overflow(const context_t *context, int peaks)
{
    int near = 0;
    for (int i = 0; i < peaks; i++)
        near |= any_reaches(context->peak[0][i], context->sum.watch) |
                any_reaches(context->product_peak[i], context->product.watch);
    return near;
}

/* Store the results of the tile; `careful` says that its leaf has peaks of its own for each output. */
static void store_tile(const context_t *context, const tile_t *tile, int careful)
{
    const ulp_job *job = context->job;
    const ulp_node *node = &job->nodes[job->leaf];
    const V *results = context->state[job->join_count];
    REAL buffer[LISTED] __attribute__((aligned(64)));
    for (int i = 0; i < VECTORS; i++)
        save(buffer + i * WIDTH, results[i]);
    for (int i = 0; i < LISTED; i++) {
        int64_t row, column, at = place(job, tile, i, &row, &column);
        if (at < 0)
            continue;
        int v = i / WIDTH, lane = i % WIDTH, overflowed = 0;
        if (job->overflow) {
            overflowed = careful && context->peak[0][v][lane] > node->sum.max;
            if (careful && node->kind == ULP_SEQ)
                overflowed |= context->product_peak[v][lane] > node->product.max;
            for (int level = 1; level <= job->join_count; level++)
                overflowed |= context->peak[level][v][lane] > job->join[level - 1].max;
        }
        ulp_store(job, at, buffer[i], overflowed);
    }
}

/* Add what was counted of a dense tile. No vector lies in two segments of columns. */
static void publish_tile(const context_t *context, const tile_t *tile)
{
    for (int64_t row = 0; row < tile->rows; row++)
        for (int64_t column = 0; column < tile->columns; column += WIDTH) {
            const tally_t *tally = &context->tally[row * COLUMN_VECTORS + column / WIDTH];
            ulp_counts counts = {counted(tally->overflows), counted(tally->underflows), counted(tally->swamped), 0};
            double largest = 0.0;
            for (int i = 0; i < WIDTH; i++)
                largest = (double)tally->largest[i] > largest ? (double)tally->largest[i] : largest;
            memcpy(&counts.largest, &largest, sizeof largest);
            ulp_publish(context->job, &counts, tile->row + row, tile->column + column);
        }
}

/* Run a tile from the addends to the stored results. */
static void run_tile(context_t *context, const tile_t *tile)
{
    const ulp_job *job = context->job;
    REAL buffer[LISTED] __attribute__((aligned(64))), *addends = NULL;
    if (job->c.data) {
        addends = buffer;
        for (int i = 0; i < LISTED; i++) {
            int64_t row, column, at = place(job, tile, i, &row, &column);
            buffer[i] = at < 0 ? 0 : (REAL)ulp_element(&job->c, row, column);
        }
    }
    int careful = context->near;
    if (!careful) {
        accumulate_tile(context, tile, context->leaf, addends);
        careful = !job->bounded && near_overflow(context, WATCHES);
    }
    if (careful) {
        accumulate_tile(context, tile, context->careful, addends);
        context->near = near_overflow(context, VECTORS);
    }
    store_tile(context, tile, careful);
    if (job->counts)
        publish_tile(context, tile);
}

static void dense(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *scratch,
                  const leaves_t *leaves)
{
    context_t *context = scratch;
    start(context, job, leaves);
    context->column = col0;
    context->columns = col1 - col0;
    context->packed = context->packed_end = 0; /* nothing yet */
    for (int64_t row = row0; row < row1; row += ROWS) {
        int64_t rows = row1 - row < ROWS ? row1 - row : ROWS;
        tile_t tile = {.row = row, .rows = rows, .column = col0, .columns = col1 - col0};
        for (int i = 0; i < ROWS; i++) {
            int64_t at = row + (i < rows ? i : rows - 1);
            tile.at[i] = job->a.row_offsets ? job->a.row_offsets[at] : at * job->a.row_stride;
        }
        run_tile(context, &tile);
    }
}

/* Take the next outputs of the list, which begins at `first`. Each goes to the vector that is being filled for its
 * COLUMNS columns, until there is none left for it. */
static void take_listed(tile_t *tile, context_t *context, int64_t first, int64_t last)
{
    const ulp_job *job = context->job;
    const int64_t *rows = job->rows + first, *columns = job->columns + first;
    int64_t most = last - first < LISTED ? last - first : LISTED, together = 1;
    while (together < most && columns[together] / SPAN == columns[0] / SPAN)
        together++;
    *tile = (tile_t){.row_list = rows, .column_list = columns, .first = first, .together = together >= ENOUGH};
    int64_t column = tile->together ? columns[0] / SPAN * SPAN : -1;
    if (column != context->column) {
        context->column = column;
        context->columns = job->n - column < SPAN ? job->n - column : SPAN;
        context->packed = context->packed_end = 0;
    }
    int filling[SPAN / COLUMNS], filled[VECTORS], vectors = 0;
    memset(filling, -1, sizeof filling);
    memset(tile->output, -1, sizeof tile->output);
    for (most = tile->together ? together : most; tile->listed < most; tile->listed++) {
        int64_t at = tile->listed, place = tile->together ? columns[at] - column : 0, part = place / COLUMNS;
        int64_t line = at && rows[at] == rows[at - 1] ? tile->line_count - 1 : tile->line_count;
        int v = filling[part];
        if (v < 0 || filled[v] == WIDTH || line - tile->begin[v] >= WIDTH) {
            if (vectors == VECTORS)
                break;
            v = filling[part] = vectors++;
            filled[v] = 0;
            tile->begin[v] = line;
            tile->from[v] = tile->together ? part * COLUMNS : v * WIDTH;
        }
        int lane = filled[v]++;
        tile->lines[line] = rows[at];
        tile->line_count = line + 1;
        tile->line[v][lane] = (INTEGER)(line - tile->begin[v]);
        tile->place[v][lane] = (INTEGER)(tile->together ? place % COLUMNS : lane);
        tile->output[v * WIDTH + lane] = at;
    }
}

static void listed(const ulp_job *job, int64_t first, int64_t last, void *scratch, const leaves_t *leaves)
{
    context_t *context = scratch;
    start(context, job, leaves);
    context->column = -1;
    tile_t tile;
    for (; first < last; first += tile.listed) {
        take_listed(&tile, context, first, last);
        run_tile(context, &tile);
    }
}

/* A kernel: its leaf for everything that is known only at run time, each compiled on its own. */
#define LEAF(name, where, kind, overflow, on_grid)                                                                     \
    static void name##_##where##_##overflow##_##on_grid(context_t *c, const tile_t *t, int64_t k0, int64_t k1)         \
    {                                                                                                                  \
        where##_leaf(c, t, k0, k1, kind, overflow, on_grid);                                                           \
    }
#define LEAVES(name, where, kind)                                                                                      \
    LEAF(name, where, kind, CAREFUL, 0)                                                                                \
    LEAF(name, where, kind, CLAMPED, 0)                                                                                \
    LEAF(name, where, kind, WATCHED, 0)                                                                                \
    LEAF(name, where, kind, WATCHED, 1)                                                                                \
    LEAF(name, where, kind, WATCHED, 2)                                                                                \
    LEAF(name, where, kind, BOUNDED, 0)                                                                                \
    LEAF(name, where, kind, BOUNDED, 1)                                                                                \
    LEAF(name, where, kind, BOUNDED, 2)                                                                                \
    static const leaves_t name##_##where##_leaves = {                                                                  \
        name##_##where##_CAREFUL_0,                                                                                    \
        name##_##where##_CLAMPED_0,                                                                                    \
        {name##_##where##_WATCHED_0, name##_##where##_WATCHED_1, name##_##where##_WATCHED_2},                          \
        {name##_##where##_BOUNDED_0, name##_##where##_BOUNDED_1, name##_##where##_BOUNDED_2},                          \
    };

#define KERNEL(name, kind)                                                                                             \
    LEAVES(name, dense, kind)                                                                                          \
    LEAVES(name, counted, kind)                                                                                        \
    LEAVES(name, listed, kind)                                                                                         \
    static void name##_dense(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *s)      \
    {                                                                                                                  \
        dense(job, row0, row1, col0, col1, s, job->counts ? &name##_counted_leaves : &name##_dense_leaves);            \
    }                                                                                                                  \
    static void name##_listed(const ulp_job *job, int64_t first, int64_t last, void *s)                                \
    {                                                                                                                  \
        listed(job, first, last, s, &name##_listed_leaves);                                                            \
    }                                                                                                                  \
    const ulp_kernel ISA_NAME(ulp_##name) = {name##_dense, name##_listed, scratch_bytes, ROWS, COLUMNS, SPAN, 1};

#if REAL_IS_DOUBLE
KERNEL(float64_exact, STEP_EXACT)
KERNEL(float64_fma, STEP_FMA)
KERNEL(float64_fma_odd, STEP_FMA_ODD)
KERNEL(float64_seq, STEP_SEQ)
KERNEL(float64_seq_odd, STEP_SEQ_ODD)
#else
KERNEL(float32_exact, STEP_EXACT)
KERNEL(float32_fma, STEP_FMA)
KERNEL(float32_fma_odd, STEP_FMA_ODD)
KERNEL(float32_seq, STEP_SEQ)
KERNEL(float32_posit_fma_odd, STEP_POSIT_FMA_ODD)
KERNEL(float32_posit_seq_odd, STEP_POSIT_SEQ_ODD)
#endif
