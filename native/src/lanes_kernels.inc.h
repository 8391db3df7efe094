/* The lane kernels: matmul with several outputs in flight, each lane one output, k innermost.
 *
 * Included once per source file. A step is chosen at compile time by constant arguments of an always-inlined function;
 * the conditions under which a step equals the definition are in simulator/arithmetic/kernels.py.
 *
 * dense:   a tile of ROWS x COLUMNS outputs; b is packed into a panel [k][COLUMNS], a is broadcast as it lies.
 * listed:  LISTED outputs anywhere; a and b are both packed into panels [k][LISTED]. */

#include "lanes.inc.h"

enum {
    ROWS = 4,
    COLUMN_VECTORS = 2,
    COLUMNS = COLUMN_VECTORS * WIDTH,
    VECTORS = ROWS * COLUMN_VECTORS,
    LISTED = VECTORS * WIDTH,
    BLOCK = 64,        /* k's gathered at a time */
    PANEL = 1 << 13    /* k's of b packed at a time for a dense tile */
};

enum { STEP_EXACT, STEP_FMA, STEP_FMA_ODD, STEP_SEQ, STEP_SEQ_ODD, STEP_POSIT_FMA_ODD, STEP_POSIT_SEQ_ODD };

/* One step of one vector of outputs. */
INLINE V step(V s, V a, V b, int kind, const rounder *product, const rounder *sum, int clamps, V *peak,
                  V *product_peak)
{
    V t;
    switch (kind) {
    case STEP_EXACT:
        return plain_fma(s, a, b);
    case STEP_FMA:
        return round_lane(plain_fma(s, a, b), sum, clamps, peak);
    case STEP_FMA_ODD:
        return round_lane(odd_fma(s, a, b), sum, clamps, peak);
    case STEP_SEQ:
        t = round_lane(a * b, product, clamps, product_peak);
        return round_lane(s + t, sum, clamps, peak);
    case STEP_POSIT_FMA_ODD:
        return round_posit(odd_fma(s, a, b), &sum->posit, peak);
    case STEP_POSIT_SEQ_ODD:
        t = round_posit(a * b, &product->posit, product_peak);
        return round_posit(odd_sum(s, t), &sum->posit, peak);
    default:
        t = round_lane(a * b, product, clamps, product_peak);
        return round_lane(odd_sum(s, t), sum, clamps, peak);
    }
}

/* What stays the same through a whole job, and one thread's memory. */
typedef struct {
    const ulp_job *job;
    rounder product, sum, join[ULP_MAX_JOINS];
    V state[ULP_MAX_JOINS + 1][VECTORS];    /* level 0 is the leaf */
    V peak[ULP_MAX_JOINS + 1][VECTORS];     /* largest magnitude of the sums of a level */
    V product_peak[VECTORS];
    REAL a_panel[BLOCK * LISTED];           /* listed only */
    int64_t column, columns;                /* dense: of b, that the panel holds */
    int64_t packed, packed_end;             /* dense: the k's that the panel holds */
    REAL b_panel[];                         /* dense: [k - packed][COLUMNS]; listed: [k][LISTED] */
} context_t;

/* The tile under way. */
typedef struct {
    const REAL *rows[ROWS];                 /* dense, operand a in the lanes' own type */
    const float *narrow_rows[ROWS];         /* dense, operand a as float while lanes are double */
    int64_t stride;                         /* between a's elements along k */
    const int64_t *row_list, *column_list;  /* listed */
    int64_t listed;
} tile_t;

static void start(context_t *context, const ulp_job *job)
{
    const ulp_node *leaf = &job->nodes[job->leaf];
    context->job = job;
    context->sum = make_rounder(&leaf->sum);
    context->product = make_rounder(leaf->kind == ULP_SEQ ? &leaf->product : &leaf->sum);
    for (int i = 0; i < job->join_count; i++)
        context->join[i] = make_rounder(&job->join[i]);
}

static size_t scratch_bytes(const ulp_job *job)
{
    int64_t panel = job->rows ? (int64_t)BLOCK * LISTED : (job->k < PANEL ? job->k : PANEL) * COLUMNS;
    size_t bytes = sizeof(context_t) + (size_t)panel * sizeof(REAL);
    return (bytes + 63) / 64 * 64;
}

/* Have the panel hold k, with as many k's behind it as fit; a short inner product is packed once for all rows. */
static void pack(context_t *context, int64_t k)
{
    const ulp_job *job = context->job;
    if (k >= context->packed && k < context->packed_end)
        return;
    context->packed = k;
    context->packed_end = job->k - k < PANEL ? job->k : k + PANEL;
    for (; k < context->packed_end; k++)
        for (int64_t j = 0; j < COLUMNS; j++)
            context->b_panel[(k - context->packed) * COLUMNS + j] =
                j < context->columns ? (REAL)ulp_element(&job->b, k, context->column + j) : 0;
}

/* Run the leaf over k0 <= k < k1 of a dense tile. */
INLINE void dense_leaf(context_t *context, const tile_t *tile, int64_t k0, int64_t k1, int kind, int clamps,
                           int track, int narrow)
{
    V s[VECTORS], peak[VECTORS], product_peak[VECTORS];
    const rounder product = context->product, sum = context->sum;
    for (int i = 0; i < VECTORS; i++) {
        s[i] = context->state[0][i];
        peak[i] = context->peak[0][i];
        product_peak[i] = context->product_peak[i];
    }
    while (k0 < k1) {
        pack(context, k0);
        int64_t end = context->packed_end < k1 ? context->packed_end : k1, offset = k0 * tile->stride;
        const REAL *b = context->b_panel + (k0 - context->packed) * COLUMNS;
        for (; k0 < end; k0++, b += COLUMNS, offset += tile->stride) {
            V bs[COLUMN_VECTORS];
            for (int j = 0; j < COLUMN_VECTORS; j++)
                bs[j] = load(b + j * WIDTH);
            for (int i = 0; i < ROWS; i++) {
                V a = broadcast(narrow ? (REAL)tile->narrow_rows[i][offset] : tile->rows[i][offset]);
                for (int j = 0; j < COLUMN_VECTORS; j++) {
                    int v = i * COLUMN_VECTORS + j;
                    s[v] = step(s[v], a, bs[j], kind, &product, &sum, clamps, track ? &peak[v] : NULL,
                                track ? &product_peak[v] : NULL);
                }
            }
        }
    }
    for (int i = 0; i < VECTORS; i++) {
        context->state[0][i] = s[i];
        context->peak[0][i] = peak[i];
        context->product_peak[i] = product_peak[i];
    }
}

/* Gather one lane of an operand, element by element. */
static void gather_lane(REAL *to, const ulp_matrix *x, int64_t at, int64_t along, int64_t count)
{
    if (x->is_double) {
        const double *from = (const double *)x->data + at;
        for (int64_t k = 0; k < count; k++)
            to[k * LISTED] = (REAL)from[k * along];
    } else {
        const float *from = (const float *)x->data + at;
        for (int64_t k = 0; k < count; k++)
            to[k * LISTED] = (REAL)from[k * along];
    }
}

/* Gather LISTED rows (or columns) of an operand, k0 <= k < k1, into a panel [k - k0][LISTED]. Lanes are filled a vector
 * at a time: by broadcast where all want the same row, by transposing blocks where k is contiguous. */
static void gather(REAL *panel, const ulp_matrix *x, int transposed, const int64_t *list, int64_t listed, int64_t k0,
                   int64_t k1)
{
    int64_t along = transposed ? x->row_stride : x->column_stride;
    int64_t across = transposed ? x->column_stride : x->row_stride;
    int contiguous = along == 1 && (x->is_double ? sizeof(double) : sizeof(float)) == sizeof(REAL);
    for (int64_t first = 0; first < LISTED; first += WIDTH, panel += WIDTH) {
        int64_t at[WIDTH], count = k1 - k0, done = 0;
        int same = 1;
        for (int i = 0; i < WIDTH; i++) {
            at[i] = list[first + i < listed ? first + i : listed - 1] * across + k0 * along;
            same &= at[i] == at[0];
        }
        if (same && contiguous) {
            const REAL *from = (const REAL *)x->data + at[0];
            for (; done < count; done++)
                save(panel + done * LISTED, broadcast(from[done]));
        } else if (contiguous) {
            for (; done + WIDTH <= count; done += WIDTH) {
                V block[WIDTH];
                for (int i = 0; i < WIDTH; i++)
                    block[i] = load((const REAL *)x->data + at[i] + done);
                transpose(block);
                for (int i = 0; i < WIDTH; i++)
                    save(panel + (done + i) * LISTED, block[i]);
            }
        }
        for (int i = 0; done < count && i < WIDTH; i++)
            gather_lane(panel + done * LISTED + i, x, at[i] + done * along, along, count - done);
    }
}

/* Run the leaf over k0 <= k < k1 of a tile of listed outputs. */
INLINE void listed_leaf(context_t *context, const tile_t *tile, int64_t k0, int64_t k1, int kind, int clamps,
                            int track)
{
    V s[VECTORS], peak[VECTORS], product_peak[VECTORS];
    const rounder product = context->product, sum = context->sum;
    for (int i = 0; i < VECTORS; i++) {
        s[i] = context->state[0][i];
        peak[i] = context->peak[0][i];
        product_peak[i] = context->product_peak[i];
    }
    for (; k0 < k1; k0 += BLOCK) {
        int64_t end = k0 + BLOCK < k1 ? k0 + BLOCK : k1;
        gather(context->a_panel, &context->job->a, 0, tile->row_list, tile->listed, k0, end);
        gather(context->b_panel, &context->job->b, 1, tile->column_list, tile->listed, k0, end);
        for (int64_t at = 0; at < (end - k0) * LISTED; at += LISTED)
            for (int v = 0; v < VECTORS; v++) {
                V a = load(context->a_panel + at + v * WIDTH), b = load(context->b_panel + at + v * WIDTH);
                s[v] = step(s[v], a, b, kind, &product, &sum, clamps, track ? &peak[v] : NULL,
                                track ? &product_peak[v] : NULL);
            }
    }
    for (int i = 0; i < VECTORS; i++) {
        context->state[0][i] = s[i];
        context->peak[0][i] = peak[i];
        context->product_peak[i] = product_peak[i];
    }
}

typedef void (*leaf_fn)(context_t *, const tile_t *, int64_t, int64_t);

/* Accumulate k0 <= k < k1 into the state of a level: runs of the level below, each joined when it ends. */
static void accumulate(context_t *context, const tile_t *tile, leaf_fn leaf, int level, int64_t k0, int64_t k1)
{
    if (!level) {
        leaf(context, tile, k0, k1);
        return;
    }
    const ulp_job *job = context->job;
    int64_t length = job->join_length[level - 1];
    const ulp_use *use = &job->join[level - 1];
    const rounder *join = &context->join[level - 1];
    int clamps = use->overflowed == use->max;
    while (k0 < k1) {
        int64_t end = length < k1 - k0 ? k0 + length : k1;
        for (int i = 0; i < VECTORS; i++)
            context->state[level - 1][i] = (V){0};
        accumulate(context, tile, leaf, level - 1, k0, end);
        for (int i = 0; i < VECTORS; i++) {
            V *peak = &context->peak[level][i];
            V sum = odd_sum(context->state[level][i], context->state[level - 1][i]);
            context->state[level][i] = use->family == ULP_POSIT ? round_posit(sum, &join->posit, peak)
                                                                : round_lane(sum, join, clamps, peak);
        }
        k0 = end;
    }
}

/* Where the outputs of a tile belong: in the matrix, for the addend, and in `out`; -1 for a lane without an output. */
typedef struct {
    int64_t row[LISTED], column[LISTED], at[LISTED];
} places_t;

/* Run a tile from the addends to the stored results. */
static void run_tile(context_t *context, const tile_t *tile, leaf_fn leaf, const places_t *places)
{
    const ulp_job *job = context->job;
    const ulp_node *node = &job->nodes[job->leaf];
    int top = job->join_count;
    REAL buffer[LISTED] __attribute__((aligned(64)));
    memset(context->state, 0, (size_t)(top + 1) * sizeof *context->state);
    memset(context->peak, 0, (size_t)(top + 1) * sizeof *context->peak);
    memset(context->product_peak, 0, sizeof context->product_peak);
    if (job->c.data) {
        for (int i = 0; i < LISTED; i++)
            buffer[i] = places->at[i] < 0 ? 0 : (REAL)ulp_element(&job->c, places->row[i], places->column[i]);
        for (int i = 0; i < VECTORS; i++)
            context->state[top][i] = load(buffer + i * WIDTH);
    }
    accumulate(context, tile, leaf, top, 0, job->k);
    for (int i = 0; i < VECTORS; i++)
        save(buffer + i * WIDTH, context->state[top][i]);
    for (int i = 0; i < LISTED; i++) {
        if (places->at[i] < 0)
            continue;
        int v = i / WIDTH, lane = i % WIDTH, overflowed = 0;
        if (job->overflow) {
            overflowed = context->peak[0][v][lane] > node->sum.max;
            if (node->kind == ULP_SEQ)
                overflowed |= context->product_peak[v][lane] > node->product.max;
            for (int level = 1; level <= top; level++)
                overflowed |= context->peak[level][v][lane] > job->join[level - 1].max;
        }
        ulp_store(job, places->at[i], buffer[i], overflowed);
    }
}

static void dense(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *scratch,
                      leaf_fn leaf)
{
    context_t *context = scratch;
    start(context, job);
    context->column = col0;
    context->columns = col1 - col0;
    context->packed = context->packed_end = 0; /* nothing yet */
    for (int64_t row = row0; row < row1; row += ROWS) {
        tile_t tile = {.stride = job->a.column_stride};
        places_t places;
        for (int i = 0; i < ROWS; i++) {
            /* A tile that hangs over the edge repeats the last row. */
            int64_t at = (row + i < row1 ? row + i : row1 - 1) * job->a.row_stride;
            tile.rows[i] = (const REAL *)job->a.data + at;
            tile.narrow_rows[i] = (const float *)job->a.data + at;
            for (int j = 0; j < COLUMNS; j++) {
                int lane = i * COLUMNS + j, inside = row + i < row1 && col0 + j < col1;
                places.row[lane] = row + i;
                places.column[lane] = col0 + j;
                places.at[lane] = inside ? (row + i) * job->out_stride + col0 + j : -1;
            }
        }
        run_tile(context, &tile, leaf, &places);
    }
}

static void listed(const ulp_job *job, int64_t first, int64_t last, void *scratch, leaf_fn leaf)
{
    context_t *context = scratch;
    start(context, job);
    for (; first < last; first += LISTED) {
        int64_t listed = last - first < LISTED ? last - first : LISTED;
        places_t places;
        tile_t tile = {.row_list = job->rows + first, .column_list = job->columns + first, .listed = listed};
        for (int i = 0; i < LISTED; i++) {
            places.row[i] = i < listed ? tile.row_list[i] : -1;
            places.column[i] = i < listed ? tile.column_list[i] : -1;
            places.at[i] = i < listed ? first + i : -1;
        }
        run_tile(context, &tile, leaf, &places);
    }
}

/* A kernel: its leaf for every combination of what is known only at run time, each compiled on its own. */
#define LEAF(name, kind, clamps, track, narrow)                                                                        \
    static void name##_dense_##clamps##track##narrow(context_t *c, const tile_t *t, int64_t k0, int64_t k1)        \
    {                                                                                                                  \
        dense_leaf(c, t, k0, k1, kind, clamps, track, narrow);                                                 \
    }
#define LISTED_LEAF(name, kind, clamps, track)                                                                         \
    static void name##_listed_##clamps##track(context_t *c, const tile_t *t, int64_t k0, int64_t k1)               \
    {                                                                                                                  \
        listed_leaf(c, t, k0, k1, kind, clamps, track);                                                        \
    }

#if REAL_IS_DOUBLE
#define NARROW(job) (!(job)->a.is_double)
#define NARROW_LEAVES(name, kind)                                                                                      \
    LEAF(name, kind, 0, 0, 1) LEAF(name, kind, 0, 1, 1) LEAF(name, kind, 1, 0, 1) LEAF(name, kind, 1, 1, 1)
#define NARROW_TABLE(name)                                                                                             \
    {{name##_dense_000, name##_dense_001}, {name##_dense_010, name##_dense_011}},                      \
    {{name##_dense_100, name##_dense_101}, {name##_dense_110, name##_dense_111}}
#else
#define NARROW(job) 0 /* float lanes take float operands only */
#define NARROW_LEAVES(name, kind)
#define NARROW_TABLE(name)                                                                                             \
    {{name##_dense_000}, {name##_dense_010}}, {{name##_dense_100}, {name##_dense_110}}
#endif

static int clamps(const ulp_job *job)
{
    const ulp_node *leaf = &job->nodes[job->leaf];
    return leaf->sum.overflowed == leaf->sum.max &&
           (leaf->kind != ULP_SEQ || leaf->product.overflowed == leaf->product.max);
}

#define KERNEL(name, kind)                                                                                             \
    LEAF(name, kind, 0, 0, 0) LEAF(name, kind, 0, 1, 0) LEAF(name, kind, 1, 0, 0) LEAF(name, kind, 1, 1, 0)            \
    NARROW_LEAVES(name, kind)                                                                                          \
    LISTED_LEAF(name, kind, 0, 0) LISTED_LEAF(name, kind, 0, 1) LISTED_LEAF(name, kind, 1, 0)                          \
    LISTED_LEAF(name, kind, 1, 1)                                                                                      \
    static void name##_dense(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *s)  \
    {                                                                                                                  \
        static const leaf_fn leaves[2][2][2] = {NARROW_TABLE(name)};                                               \
        dense(job, row0, row1, col0, col1, s, leaves[clamps(job)][job->overflow != NULL][NARROW(job)]);        \
    }                                                                                                                  \
    static void name##_listed(const ulp_job *job, int64_t first, int64_t last, void *s)                            \
    {                                                                                                                  \
        static const leaf_fn leaves[2][2] = {{name##_listed_00, name##_listed_01},                         \
                                                 {name##_listed_10, name##_listed_11}};                        \
        listed(job, first, last, s, leaves[clamps(job)][job->overflow != NULL]);                               \
    }                                                                                                                  \
    const ulp_kernel ISA_NAME(ulp_##name) = {name##_dense, name##_listed, scratch_bytes, ROWS, COLUMNS};

#if REAL_IS_DOUBLE
KERNEL(float64_exact, STEP_EXACT)
KERNEL(float64_fma, STEP_FMA)
KERNEL(float64_fma_odd, STEP_FMA_ODD)
KERNEL(float64_seq, STEP_SEQ)
KERNEL(float64_seq_odd, STEP_SEQ_ODD)
#else
KERNEL(float32_fma, STEP_FMA)
KERNEL(float32_fma_odd, STEP_FMA_ODD)
KERNEL(float32_seq, STEP_SEQ)
KERNEL(float32_posit_fma_odd, STEP_POSIT_FMA_ODD)
KERNEL(float32_posit_seq_odd, STEP_POSIT_SEQ_ODD)
#endif
