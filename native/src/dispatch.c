/* From a kernel's index and an instruction set to the function that runs; and the threads that run it. */
#include <fenv.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

static const char *const isa_names[ULP_ISAS] = {"portable", "avx2", "avx512", "neon"};

static const char *const kernel_names[] = {
#define LANES(name) #name,
#define SCALAR(name) #name,
#include "kernels.def"
#undef LANES
#undef SCALAR
};

enum { KERNELS = sizeof kernel_names / sizeof *kernel_names };

/* The portable kernels first; an instruction set overrides those that it has. NULL: take the portable one. */
static const ulp_kernel *const table[ULP_ISAS][KERNELS] = {
    [ULP_PORTABLE] = {
#define LANES(name) &ulp_##name##_portable,
#define SCALAR(name) &ulp_##name,
#include "kernels.def"
#undef LANES
#undef SCALAR
    },
#ifdef ULP_X86
    [ULP_AVX2] = {
#define LANES(name) &ulp_##name##_avx2,
#define SCALAR(name) NULL,
#include "kernels.def"
#undef LANES
#undef SCALAR
    },
    [ULP_AVX512] = {
#define LANES(name) &ulp_##name##_avx512,
#define SCALAR(name) NULL,
#include "kernels.def"
#undef LANES
#undef SCALAR
    },
#endif
};

int ulp_kernel_count(void) { return KERNELS; }
const char *ulp_kernel_name(int kernel) { return kernel >= 0 && kernel < KERNELS ? kernel_names[kernel] : NULL; }
int ulp_isa_count(void) { return ULP_ISAS; }
const char *ulp_isa_name(int isa) { return isa >= 0 && isa < ULP_ISAS ? isa_names[isa] : NULL; }

int ulp_isa_supported(int isa)
{
    switch (isa) {
    case ULP_PORTABLE:
        return 1;
#ifdef ULP_X86
    case ULP_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case ULP_AVX512:
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
#endif
    default:
        return 0;
    }
}

const char *ulp_status_text(int status)
{
    switch (status) {
    case ULP_OK:
        return "done";
    case ULP_NO_MEMORY:
        return "out of memory; use fewer threads, smaller matrices, or an accumulator with fewer lanes";
    case ULP_BAD_ISA:
        return "this build or this processor lacks the instruction set; see native.available_isas()";
    case ULP_BAD_KERNEL:
        return "no such kernel; see native.kernels()";
    case ULP_INEXACT:
        return "a result that float64 may not hold";
    default:
        return "unknown status";
    }
}

/* Work is cut into items, which the threads take one after the other; no item's result depends on who runs it. */
typedef struct {
    const ulp_job *job;
    const ulp_kernel *kernel;
    int64_t items, row_items, row_span, column_span, list_span;
    atomic_llong next;
    atomic_int status;
} work;

enum { ITEMS_PER_THREAD = 8 }; /* so many keep all threads busy to the end */

/* More scratch memory for one thread is refused: a system that promises memory which it lacks would end the process. */
enum { MAX_SCRATCH_BYTES = 1 << 30 };

static void *run(void *argument)
{
    work *w = argument;
    const ulp_job *job = w->job;
    size_t bytes = w->kernel->scratch_bytes(job);
    void *scratch = NULL;
    fenv_t environment;
    if (bytes > MAX_SCRATCH_BYTES || (bytes && posix_memalign(&scratch, 64, bytes))) {
        atomic_store(&w->status, ULP_NO_MEMORY);
        return NULL;
    }
    fegetenv(&environment);
    fesetenv(FE_DFL_ENV);
    for (;;) {
        int64_t item = atomic_fetch_add(&w->next, 1);
        if (item >= w->items)
            break;
        if (job->rows) {
            int64_t first = item * w->list_span, last = first + w->list_span;
            w->kernel->listed(job, first, last < job->count ? last : job->count, scratch);
        } else {
            int64_t row0 = item % w->row_items * w->row_span, row1 = row0 + w->row_span;
            int64_t col0 = item / w->row_items * w->column_span, col1 = col0 + w->column_span;
            w->kernel->dense(job, row0, row1 < job->m ? row1 : job->m, col0, col1 < job->n ? col1 : job->n, scratch);
        }
    }
    fesetenv(&environment);
    free(scratch);
    return NULL;
}

static int run_all(const ulp_job *job, const ulp_kernel *kernel)
{
    int threads = job->threads < 1 ? 1 : job->threads > ULP_MAX_THREADS ? ULP_MAX_THREADS : job->threads;
    work w = {.job = job, .kernel = kernel};
    if (job->rows) {
        w.list_span = job->count / (ITEMS_PER_THREAD * threads);
        /* Outputs of a long stretch share more of what is packed; a very long one would keep other threads waiting. */
        w.list_span = w.list_span < 1024 ? 1024 : w.list_span > 8192 ? 8192 : w.list_span;
        w.items = (job->count + w.list_span - 1) / w.list_span;
    } else {
        int64_t steps = (job->m + kernel->row_step - 1) / kernel->row_step;
        int64_t columns = (job->n + kernel->column_step - 1) / kernel->column_step;
        /* Rows are cut only if the columns do not make enough items. */
        int64_t cuts = threads == 1 ? 1 : (ITEMS_PER_THREAD * threads + columns - 1) / columns;
        cuts = cuts > steps ? steps : cuts;
        w.row_span = (steps + cuts - 1) / cuts * kernel->row_step;
        w.row_items = (job->m + w.row_span - 1) / w.row_span;
        w.column_span = kernel->column_step;
        w.items = w.row_items * columns;
    }
    if (threads > w.items)
        threads = (int)w.items;
    pthread_t others[ULP_MAX_THREADS];
    int started = 0;
    while (started < threads - 1 && !pthread_create(&others[started], NULL, run, &w))
        started++;
    run(&w); /* should the system refuse threads, this one does all the work */
    for (int i = 0; i < started; i++)
        pthread_join(others[i], NULL);
    /* A thread that gets no memory leaves its items to the others; some remain only if no thread got any. */
    return atomic_load(&w.next) < w.items ? atomic_load(&w.status) : ULP_OK;
}

/* Whether the list of outputs is in the order of blocks of `step` columns, or with 0 need not be. */
static int is_sorted(const ulp_job *job, int64_t step)
{
    for (int64_t i = 1; step && i < job->count; i++)
        if (job->columns[i - 1] / step > job->columns[i] / step)
            return 0;
    return 1;
}

/* Run a list of outputs sorted by the kernel's blocks of columns, so that what outputs share is packed but once. */
static int run_sorted(const ulp_job *job, const ulp_kernel *kernel)
{
    const int64_t step = kernel->list_step, count = job->count, blocks = (job->n + step - 1) / step;
    const size_t width = job->out_is_double ? sizeof(double) : sizeof(float), n = (size_t)count;
    int64_t *memory = malloc(sizeof(int64_t) * (size_t)(blocks + 1 + 3 * count) + n * (width + 1));
    if (!memory)
        return ULP_NO_MEMORY;
    int64_t *next = memory, *from = next + blocks + 1, *rows = from + count, *columns = rows + count;
    char *out = (char *)(columns + count);
    uint8_t *overflow = (uint8_t *)out + n * width;
    memset(next, 0, sizeof(int64_t) * (size_t)(blocks + 1));
    memset(overflow, 0, n);
    for (int64_t i = 0; i < count; i++)
        next[job->columns[i] / step + 1]++;
    for (int64_t block = 0; block < blocks; block++)
        next[block + 1] += next[block];
    for (int64_t i = 0; i < count; i++) {
        int64_t at = next[job->columns[i] / step]++;
        from[at] = i;
        rows[at] = job->rows[i];
        columns[at] = job->columns[i];
    }
    ulp_job sorted = *job;
    sorted.rows = rows;
    sorted.columns = columns;
    sorted.out = out;
    sorted.overflow = job->overflow ? overflow : NULL;
    int status = run_all(&sorted, kernel);
    for (int64_t i = 0; status == ULP_OK && i < count; i++) {
        memcpy((char *)job->out + (size_t)from[i] * width, out + (size_t)i * width, width);
        if (job->overflow && overflow[i])
            job->overflow[from[i]] = 1;
    }
    free(memory);
    return status;
}

static ulp_matrix transpose(const ulp_matrix *x)
{
    return (ulp_matrix){x->data, x->column_stride, x->row_stride, x->is_double, x->column_offsets, x->row_offsets};
}

/* The job whose outputs are the transposed ones, at the same places: each has the same products in the same order. */
static ulp_job turned(const ulp_job *job)
{
    ulp_job other = *job;
    other.m = job->n;
    other.n = job->m;
    other.a = transpose(&job->b);
    other.b = transpose(&job->a);
    other.c = transpose(&job->c);
    other.out_row_stride = job->out_column_stride;
    other.out_column_stride = job->out_row_stride;
    other.row_index = job->column_index;
    other.column_index = job->row_index;
    return other;
}

/* About what tiles of m x n outputs cost, those over the edge included: to pack a k of a column of b costs about as
 * much as a step of PACKED outputs. */
enum { PACKED = 4 };
static double cost(const ulp_kernel *kernel, int64_t m, int64_t n)
{
    double rows = (double)((m + kernel->row_step - 1) / kernel->row_step) * kernel->row_step;
    double columns = (double)((n + kernel->column_step - 1) / kernel->column_step) * kernel->column_step;
    return columns * (rows + PACKED);
}

/* Whether few columns fill tiles so badly that a quarter of the time is saved if they are rows. */
static int is_better_turned(const ulp_kernel *kernel, const ulp_job *job)
{
    return kernel->turns && !job->rows && !job->counts && job->n < job->m &&
           cost(kernel, job->n, job->m) < 0.75 * cost(kernel, job->m, job->n);
}

int ulp_matmul(int kernel, int isa, const ulp_job *job)
{
    if (kernel < 0 || kernel >= KERNELS)
        return ULP_BAD_KERNEL;
    if (!ulp_isa_supported(isa))
        return ULP_BAD_ISA;
    if (job->m <= 0 || job->n <= 0 || (job->rows && job->count <= 0))
        return ULP_OK;
    const ulp_kernel *chosen = table[isa][kernel] ? table[isa][kernel] : table[ULP_PORTABLE][kernel];
    if (is_better_turned(chosen, job)) {
        const ulp_job other = turned(job);
        return run_all(&other, chosen);
    }
    return job->rows && !is_sorted(job, chosen->list_step) ? run_sorted(job, chosen) : run_all(job, chosen);
}
