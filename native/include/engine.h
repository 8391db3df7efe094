/* The engine on one page: what Python may call, with contracts.
 *
 * Nothing here prints, aborts or keeps state between calls; errors come back as ulp_status. Every function sets the
 * default floating-point environment for its own duration, so that a caller's flush-to-zero mode changes no bit.
 * Results do not depend on the ISA, the number of threads or the way the work is split.
 */
#ifndef ULPSIM_ENGINE_H
#define ULPSIM_ENGINE_H

#include <stdint.h>

#ifdef __FAST_MATH__
#error "an emulator cannot be built with -ffast-math"
#endif

typedef enum { ULP_OK = 0, ULP_NO_MEMORY = 1, ULP_BAD_ISA = 2, ULP_BAD_KERNEL = 3, ULP_NO_THREAD = 4 } ulp_status;

/* Rounding modes, as formats/rounding.py defines them. */
enum { ULP_RNE = 0, ULP_RNA, ULP_RNZ, ULP_RZ, ULP_RU, ULP_RD, ULP_ODD, ULP_SR };

/* A use of a float format: how a real number is rounded and what becomes of overflow. */
typedef struct {
    int32_t precision;        /* p, hidden bit included, 1..53 */
    int32_t min_exponent;     /* exponent of the smallest normal value */
    int32_t rounding;         /* ULP_RNE .. ULP_SR */
    int32_t random_bits;      /* N of ULP_SR, 1..64 */
    int32_t variant;          /* of ULP_SR: 0, 1, 2 for a, b, c */
    int32_t flush_subnormals; /* results below the smallest normal become zero, after rounding */
    int32_t unsigned_zero;    /* no -0 */
    int32_t is_signed;        /* 0: negative values become `below_zero` */
    int32_t gap;              /* 1: no subnormals, magnitudes below `smallest` round to zero or to it */
    int32_t bias;             /* exponent bias, which decides what is even where p = 1 */
    double smallest;          /* smallest positive value */
    double max;               /* largest finite value */
    double overflowed;        /* magnitude that replaces positive finite results beyond max: max, Inf or NaN */
    double overflowed_below;  /* the same for negative ones */
    double infinite;          /* what +Inf becomes */
    double infinite_below;    /* what -Inf becomes */
    double below_zero;        /* what finite negative values become where there is no sign */
    double zero;              /* what +0 becomes: 0, or in formats without zero the smallest value or NaN */
} ulp_use;

/* Where a rounding happens: the key of its random word (formats/philox.py). `which` is 0 or 1. */
typedef struct {
    uint32_t seed, step;
    uint64_t index;
    uint32_t k, site;
    int32_t which;
} ulp_place;

/* An accumulator as a tree, for the integer kernel; node 0 is the root. */
enum { ULP_FMA = 0, ULP_SEQ = 1, ULP_CHUNK = 2, ULP_EXACT = 3 };
typedef struct {
    int32_t kind;
    int32_t inner, outer;     /* nodes of a chunk */
    int64_t length;           /* run length of a chunk */
    ulp_use product, sum;     /* of fma (sum only), seq and exact (sum only) */
} ulp_node;

enum { ULP_MAX_NODES = 15, ULP_MAX_JOINS = 7 }; /* cffi wants the numbers again below */

/* A strided matrix of float or double. Strides count elements and may be 0 or negative. */
typedef struct {
    const void *data;
    int64_t row_stride, column_stride;
    int32_t is_double;
} ulp_matrix;

/* out[m, n] = sum over k of a[m, k] * b[k, n], plus c[m, n], rounded after every step as `nodes` prescribe.
 *   a, b      operands, exact in float or double
 *   c         addend, already a value of the outermost state's format; data NULL: none, the state starts at +0
 *   out       float or double, [m, n] at m * out_stride + n; must not overlap an input
 *   overflow  NULL, or bytes at the same places: set to 1 where a rounding met a result beyond max (others left alone)
 *   rows, columns, count   NULL, or the `count` outputs to compute; output i then goes to out[i] and overflow[i]
 * NaNs come out as the positive quiet NaN. */
typedef struct {
    int64_t m, n, k;
    ulp_matrix a, b, c;
    void *out;
    int64_t out_stride;
    int32_t out_is_double;
    uint8_t *overflow;
    const int64_t *rows, *columns;
    int64_t count;
    int32_t threads;
    ulp_node nodes[15];
    /* The same accumulator for the lane kernels, if it is a leaf with runs of runs: innermost join first. */
    int32_t join_count;
    int64_t join_length[7];
    ulp_use join[7];
    int32_t leaf;             /* node index of the leaf */
} ulp_job;

/* Kernels by their index in kernels.def; the caller has proved that the kernel's condition holds for this job. */
int ulp_kernel_count(void);
const char *ulp_kernel_name(int kernel);
int ulp_matmul(int kernel, int isa, const ulp_job *job);

/* Instruction sets: 0 portable, 1 avx2, 2 avx512, 3 neon. */
int ulp_isa_count(void);
const char *ulp_isa_name(int isa);
int ulp_isa_supported(int isa);      /* 1 if this build and this processor have it */
const char *ulp_status_text(int status);

/* y[i] = R(x[i]); in and out float or double; overflow NULL or n bytes, set to 1 where |R| lies beyond max.
 * x and y may be the same array of the same type. Correctly rounded; element i is rounded at place->index + i. */
int ulp_quantize(int isa, const void *x, int x_is_double, void *y, int y_is_double, int64_t n, const ulp_use *use,
                 const ulp_place *place, uint8_t *overflow);

/* codes[i]: the number of thresholds <= x[i], NaN as `nan_code`; thresholds ascend. `starts` has 2^15 + 1 entries: how many
 * thresholds lie below each of 2^15 equal parts of the order of doubles. codes of 2 bytes. */
int ulp_search(const double *x, int64_t n, const double *thresholds, const uint32_t *starts, uint16_t nan_code,
               uint16_t *codes);

/* y[i] = R(x[i] + c[i]) with one rounding of the exact sum; otherwise as ulp_quantize. All arrays double. */
int ulp_add(const double *x, const double *c, double *y, int64_t n, const ulp_use *use, uint8_t *overflow);

/* What the conditions of the kernels ask of an operand: over its finite, non-zero elements the largest exponent
 * floor(log2|x|), the smallest exponent of a last significant bit, and the most significant bits of any element.
 * finite is 0 if an infinity or NaN is present. All three are 0 and nonzero is 0 for an array without such elements. */
typedef struct {
    int32_t max_exponent, min_last_bit, significant_bits, finite, nonzero;
} ulp_profile;
int ulp_profile_of(const ulp_matrix *x, int64_t rows, int64_t columns, ulp_profile *profile);

#endif
