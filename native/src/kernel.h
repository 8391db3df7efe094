/* What a kernel is to the dispatcher. */
#ifndef ULPSIM_KERNEL_H
#define ULPSIM_KERNEL_H

#include <stddef.h>

#include "../include/engine.h"

/* Instruction sets, as engine.h numbers them. */
enum { ULP_PORTABLE, ULP_AVX2, ULP_AVX512, ULP_NEON, ULP_ISAS };

/* A kernel computes a rectangle of outputs, or a stretch of the list of outputs, in scratch memory of its own. */
typedef struct {
    void (*dense)(const ulp_job *job, int64_t row0, int64_t row1, int64_t col0, int64_t col1, void *scratch);
    void (*listed)(const ulp_job *job, int64_t first, int64_t last, void *scratch);
    size_t (*scratch_bytes)(const ulp_job *job);
    int row_step, column_step; /* rectangles are cut at multiples of these */
    int list_step;             /* a list comes sorted by blocks of so many columns; 0: in any order */
    int turns;                 /* whether it takes operands that have changed places, b with the tables of a */
} ulp_kernel;

#define LANES(name) extern const ulp_kernel ulp_##name##_portable;
#define SCALAR(name) extern const ulp_kernel ulp_##name;
#include "kernels.def"
#undef LANES
#undef SCALAR

#if defined(__x86_64__) && defined(__GNUC__)
#define ULP_X86 1
#define LANES(name) extern const ulp_kernel ulp_##name##_avx2, ulp_##name##_avx512;
#define SCALAR(name)
#include "kernels.def"
#undef LANES
#undef SCALAR
#endif

/* Elementwise functions, once per instruction set; contracts in engine.h. */
typedef int ulp_quantize_fn(const ulp_array *x, const ulp_array *y, int64_t n, const ulp_use *use,
                            const ulp_place *place, uint8_t *overflow, const ulp_blocks *blocks);
typedef void ulp_decode_fn(const ulp_array *codes, const ulp_array *y, int64_t n, const ulp_use *use);
typedef void ulp_block_maxima_fn(const ulp_array *x, int64_t n, const ulp_blocks *blocks, uint64_t *maxima);
typedef void ulp_profile_of_fn(const ulp_matrix *x, int64_t rows, int64_t columns, ulp_profile *profile);
ulp_quantize_fn ulp_quantize_portable, ulp_quantize_avx2, ulp_quantize_avx512;
ulp_decode_fn ulp_decode_portable, ulp_decode_avx2, ulp_decode_avx512;
ulp_block_maxima_fn ulp_block_maxima_portable, ulp_block_maxima_avx2, ulp_block_maxima_avx512;
ulp_profile_of_fn ulp_profile_of_portable, ulp_profile_of_avx2, ulp_profile_of_avx512;

static inline double ulp_element(const ulp_matrix *x, int64_t row, int64_t column)
{
    int64_t at = x->row_offsets ? x->row_offsets[row] + x->column_offsets[column]
                                : row * x->row_stride + column * x->column_stride;
    return x->is_double ? ((const double *)x->data)[at] : (double)((const float *)x->data)[at];
}

/* Where an output lies, of a job that has no list. */
static inline int64_t ulp_place_of(const ulp_job *job, int64_t row, int64_t column)
{
    return row * job->out_row_stride + column * job->out_column_stride;
}

/* Store one result at its place; a NaN becomes the positive quiet NaN, the same on every instruction set. */
static inline void ulp_store(const ulp_job *job, int64_t at, double value, int overflowed)
{
    if (value != value)
        value = __builtin_nan("");
    if (job->out_is_double)
        ((double *)job->out)[at] = value;
    else
        ((float *)job->out)[at] = (float)value;
    if (overflowed && job->overflow)
        job->overflow[at] = 1;
}

/* Add what was counted of outputs of a row, all in one segment of columns, to the job's counts. Several threads do so;
 * the order does not matter. */
static inline void ulp_publish(const ulp_job *job, const ulp_counts *counts, int64_t row, int64_t column)
{
    int64_t segments = (job->n + ULP_COUNTED_COLUMNS - 1) / ULP_COUNTED_COLUMNS;
    ulp_counts *to = &job->counts[row * segments + column / ULP_COUNTED_COLUMNS];
    __atomic_fetch_add(&to->overflows, counts->overflows, __ATOMIC_RELAXED);
    __atomic_fetch_add(&to->underflows, counts->underflows, __ATOMIC_RELAXED);
    __atomic_fetch_add(&to->swamped, counts->swamped, __ATOMIC_RELAXED);
    int64_t largest = __atomic_load_n(&to->largest, __ATOMIC_RELAXED);
    while (largest < counts->largest && !__atomic_compare_exchange_n(&to->largest, &largest, counts->largest, 1,
                                                                     __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

#endif
