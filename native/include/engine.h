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

typedef enum { ULP_OK = 0, ULP_NO_MEMORY, ULP_BAD_ISA, ULP_BAD_KERNEL, ULP_INEXACT } ulp_status;

/* Rounding modes, as formats/rounding.py defines them. */
enum { ULP_RNE = 0, ULP_RNA, ULP_RNZ, ULP_RZ, ULP_RU, ULP_RD, ULP_ODD, ULP_SR };

/* The families of formats (formats/floats.py, posit.py, takum.py, fixed.py, codebook.py). */
enum { ULP_FLOAT = 0, ULP_POSIT, ULP_TAKUM, ULP_FIXED, ULP_CODEBOOK };

/* A codebook, with the thresholds of one rounding mode: the code of x is the number of thresholds <= x. They are found
 * by buckets of the order of doubles: for each sign and exponent (the first 12 bits), by so many bits of the fraction
 * that `shift` others are left; starts[offset + those bits] thresholds lie below that bucket. */
typedef struct {
    int32_t offset, shift;
} ulp_bucket;
typedef struct {
    int64_t count;            /* of values, ascending */
    const double *values;
    const double *ladder;     /* the same with the thresholds between them, and NaN at the end */
    const ulp_bucket *binades; /* 4096 */
    const uint32_t *starts;   /* one more than there are buckets */
} ulp_codebook;

/* A use of a format: how a real number is rounded and what becomes of overflow. */
typedef struct {
    int32_t family;           /* ULP_FLOAT .. ULP_CODEBOOK */
    int32_t code_bits;        /* width of a code */
    int32_t rounding;         /* ULP_RNE .. ULP_SR */
    int32_t random_bits;      /* N of ULP_SR, 1..64 */
    int32_t variant;          /* of ULP_SR: 0, 1, 2 for a, b, c */
    int32_t is_signed;        /* 0: values that are negative once rounded become `below_zero` */
    int32_t unsigned_zero;    /* no -0 */
    double smallest;          /* smallest positive value; of fixed point the quantum 2^-F */
    double max;               /* largest finite value */
    double overflowed;        /* magnitude that replaces positive finite results beyond max: max, Inf or NaN */
    double overflowed_below;  /* the same for negative ones */
    double infinite;          /* what +Inf becomes */
    double infinite_below;    /* what -Inf becomes */
    double zero;              /* what +0 becomes: 0, or in floats without zero the smallest value or NaN */
    /* floats */
    int32_t precision;        /* p, hidden bit included, 1..53 */
    int32_t min_exponent;     /* exponent of the smallest normal value */
    int32_t bias;             /* exponent bias */
    int32_t flush_subnormals; /* results below the smallest normal become zero, after rounding */
    int32_t gap;              /* 1: no subnormals, magnitudes below `smallest` round to zero or to it */
    double below_zero;        /* what negative values become where there is no sign */
    uint64_t top_code;        /* code of max; codes of magnitudes above are NaN or Inf */
    uint64_t infinity_code, nan_code; /* all ones where there is none */
    /* posits */
    int32_t exponent_bits;    /* es */
    /* fixed point */
    int32_t fraction_bits;    /* F */
    int32_t wraps;            /* overflow wraps around; else it goes to the nearer end */
    int64_t lowest, highest;  /* ends of the range, in quanta */
    /* codebooks */
    const ulp_codebook *codebook;
} ulp_use;

/* Where a rounding happens: the key of its random word (formats/philox.py). `which` is 0 or 1. */
typedef struct {
    uint32_t seed, step;
    uint64_t index;
    uint32_t k, site;
    int32_t which;
} ulp_place;

/* An accumulator as a tree: node 0 is the root, the others follow in the order of `numbered` in
 * simulator/arithmetic/accumulators.py. Their exact meaning is simulator/arithmetic/reference. */
enum { ULP_FMA = 0, ULP_SEQ, ULP_TREE, ULP_INTERLEAVE, ULP_CHUNK, ULP_KAHAN, ULP_NEUMAIER, ULP_ALIGNED, ULP_EXACT,
       ULP_FIXED_POINT };
typedef struct {
    int32_t kind;
    int32_t inner, outer;     /* nodes of a chunk, and of interleave (outer: join) */
    int64_t length;           /* of a run; products of a step (fma, aligned), of a group (tree); number of lanes */
    int32_t exact_leaves;     /* tree: its products are not rounded */
    int32_t tracks;           /* fixed point: overflow is judged by `product`, a narrower use than `sum` */
    /* aligned */
    int32_t fraction;         /* F: terms keep bits down to 2^(E - F) */
    int32_t late;             /* c joins after the sum of the products */
    int32_t align;            /* ULP_RZ, ULP_RD or ULP_RNE */
    int32_t keeps_zeros, two_of_four, group, parts;
    int32_t min_exponent;     /* floor of E; ULP_NONE: none. Also for the following ones */
    int32_t part_fraction, sum_fraction, c_fraction, c_reach;
    int32_t a_min_exponent, b_min_exponent; /* of the smallest normals of the operands' formats */
    ulp_use product, sum;     /* sum: use of the state */
} ulp_node;

enum { ULP_NONE = -32768 };

/* What stats count, over 16 neighbouring outputs of a row: roundings beyond the largest finite value, non-zero exact
 * values rounded to zero, additions of something that left the sum unchanged, and the largest finite sum, as the bits
 * of a double. */
typedef struct {
    int64_t overflows, underflows, swamped, largest;
} ulp_counts;
enum { ULP_COUNTED_COLUMNS = 16 };

enum { ULP_MAX_NODES = 15, ULP_MAX_JOINS = 7 }; /* cffi wants the numbers again below */
enum { ULP_MAX_THREADS = 256 };

/* A matrix of float or double: element [i, j] lies at i * row_stride + j * column_stride or, if tables are given, at
 * row_offsets[i] + column_offsets[j]. All count elements; strides may be 0 or negative. Of a job only operand a may
 * have tables: they read a convolution's input without copying it into a matrix. */
typedef struct {
    const void *data;
    int64_t row_stride, column_stride;
    int32_t is_double;
    const int64_t *row_offsets, *column_offsets; /* both or neither NULL */
} ulp_matrix;

/* A job: out[m, n] = sum over k of a[m, k] * b[k, n], plus c[m, n], rounded as `nodes` prescribe.
 *   a, b      operands, exact in float or double
 *   c         addend, already a value of the outermost state's format; data NULL: none, the state starts at +0
 *   out       float or double, [m, n] at m * out_row_stride + n * out_column_stride; must not overlap an input
 *   overflow  NULL, or bytes at the same places: set to 1 where a rounding met a result beyond max (others left alone)
 *   rows, columns, count   NULL, or the `count` outputs to compute; output i then goes to out[i] and overflow[i]
 * NaNs come out as the positive quiet NaN. */
typedef struct {
    int64_t m, n, k;
    ulp_matrix a, b, c;
    void *out;
    int64_t out_row_stride, out_column_stride;
    int32_t out_is_double;
    uint8_t *overflow;
    const int64_t *rows, *columns;
    int64_t count;
    int32_t threads;          /* at most so many; taken as 1 .. ULP_MAX_THREADS */
    ulp_counts *counts;       /* NULL, or [m][n / ULP_COUNTED_COLUMNS, rounded up], to which counts are added */
    /* Stochastic rounding: seed, step, site of the operation; output [m, n] has the index first_index + m * row_index +
     * n * column_index. */
    uint32_t seed, step, site;
    uint64_t first_index, row_index, column_index;
    ulp_node nodes[15];
    /* The same accumulator for the lane kernels, if it is a leaf with runs of runs: innermost join first. */
    int32_t join_count;
    int64_t join_length[7];
    ulp_use join[7];
    int32_t leaf;             /* node index of the leaf */
    /* What the caller has proved besides, for the lane kernels: that no product and no sum of the leaf overflows; and
     * that the sums (1), or sums and products (2), are multiples of their subnormals' quantum and no state is -0. */
    int32_t bounded, on_grid;
    /* For exact sums in lanes: every term is split into a multiple of 2^split and the rest, which are summed apart, or
     * with ULP_NONE it is not. The caller has proved that these sums are exact. */
    int32_t split;
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

/* A contiguous array: of values (float or double), or of codes. */
enum { ULP_F64 = 0, ULP_F32, ULP_U8, ULP_U16, ULP_U32, ULP_U64 };
typedef struct {
    void *data;
    int32_t type;
} ulp_array;

/* Blocks that share a scale: `size` neighbours (the last block may have fewer) along an axis of `length` elements whose
 * steps are `inner` elements of the array, in C order. */
typedef struct {
    int64_t length, inner, size;
    const double *divisors, *factors; /* one a block, finite and positive, in C order of the blocks; or NULL */
} ulp_blocks;

/* y[i] = R(x[i]) if y holds values, its code if y holds codes. overflow NULL or n bytes, set to 1 where |R| lies beyond
 * max. x and y may be the same array of the same type. Correctly rounded; element i is rounded at place->index + i.
 * A codebook's stochastic rounding gives NaN where 126 bits do not hold the distances of x and its neighbours.
 * blocks NULL, or y[i] = R(x[i] / divisor) * factor, the quotient rounded once (codebooks take no divisors), the
 * product exact if the significands of results and factors have 53 bits together. ULP_INEXACT: one left the normal
 * range of doubles and may not be exact; y is written all the same. Codes are those of the quotients. */
int ulp_quantize(int isa, const ulp_array *x, const ulp_array *y, int64_t n, const ulp_use *use, const ulp_place *place,
                 uint8_t *overflow, const ulp_blocks *blocks);

/* y[i] = the value of codes[i], which must be codes of the format. Exact. */
int ulp_decode(int isa, const ulp_array *codes, const ulp_array *y, int64_t n, const ulp_use *use);

/* The largest magnitude of each block, as the bits of doubles order them: infinity beats numbers, and NaN infinity. */
int ulp_block_maxima(int isa, const ulp_array *x, int64_t n, const ulp_blocks *blocks, uint64_t *maxima);

/* y[i] = R(x[i] + c[i]) with one rounding of the exact sum, into any use but those of codebooks; otherwise as
 * ulp_quantize. All arrays double. */
int ulp_add(const double *x, const double *c, double *y, int64_t n, const ulp_use *use, const ulp_place *place,
            uint8_t *overflow);

/* y[i] = R(x[i] * factor), as ulp_add. */
int ulp_scale(const double *x, double factor, double *y, int64_t n, const ulp_use *use, const ulp_place *place,
              uint8_t *overflow);

/* What the conditions of the kernels ask of an operand: over its finite, non-zero elements the largest exponent
 * floor(log2|x|), the smallest exponent of a last significant bit, and the most significant bits of any element; at
 * least the largest sum of squares of a row's finite elements. finite is 0 if an infinity or NaN is present, minus_zero
 * 1 if a -0 is. The first three are 0 and nonzero is 0 for an array without finite, non-zero elements. */
typedef struct {
    int32_t max_exponent, min_last_bit, significant_bits, finite, nonzero, minus_zero;
    double square;
} ulp_profile;
int ulp_profile_of(int isa, const ulp_matrix *x, int64_t rows, int64_t columns, ulp_profile *profile);

/* Noise of tracked values (simulator/tracking/safe.py), element by element; `wide` 1: arrays of double, 0: of float.
 * What is NaN stands for an infinite bound: no comparison closes a gate for it.
 *
 * weighted: y = noise + |x| factor, the latter at least the smallest normal unless x is 0; noise NULL: without it.
 * grown: x = x factor + more, in place.
 * kept: y = noise, 0 where x + noise <= 0.
 * gated: y = noise_g (NULL: 0), 0 where x + noise_x <= 0, and (noise_g + |g|) growth where besides
 * noise_x - x within > 0; returns at how many elements that was, g being none of 0.
 * multiple_added: to = (|y| by[0] + |z| by[1] + by[3] where y is not 0 + noise_x + (noise_y + by[3] where it is not 0)
 * by[2]) by[4]; noises NULL: without them.
 * max_product: y[i, j] = the largest of 0 and a[i, k] b[k, j] over k, NaN if one of these is. */
void ulp_noise_weighted(int wide, const void *x, const void *noise, void *y, int64_t n, double factor);
void ulp_noise_grown(int wide, void *x, int64_t n, double factor, double more);
void ulp_noise_kept(int wide, const void *x, const void *noise, void *y, int64_t n);
int64_t ulp_noise_gated(int wide, const void *g, const void *noise_g, const void *x, const void *noise_x, void *y,
                        int64_t n, double within, double growth);
void ulp_noise_multiple_added(int wide, const void *z, const void *y, const void *noise_x, const void *noise_y,
                              void *to, int64_t n, const double *by);

void ulp_noise_max_product(int wide, const void *a, const void *b, void *y, int64_t rows, int64_t inner,
                           int64_t columns);

/* Windows of pooling over the last three axes of arrays of so many planes, as torch has them. */
typedef struct {
    int64_t planes, in[3], out[3], kernel[3], stride[3], padding[3], dilation[3];
} ulp_windows;

/* largest: y = the largest of each window.
 * undecided: y = jump of the window where its largest noise is not 0 and, `twice` as large, reaches from its largest x
 * to the second, else 0; returns how many are not 0.
 * spread: y = (y + jump) growth at each element of each window whose jump is not 0; returns how many elements that
 * were. -1: out of memory. */
int ulp_noise_largest(int wide, const void *x, void *y, const ulp_windows *windows);
int64_t ulp_noise_undecided(int wide, const void *x, const void *noise, const void *jump, void *y,
                            const ulp_windows *windows, double twice, double tiny);
int64_t ulp_noise_spread(int wide, const void *jump, void *y, const ulp_windows *windows, double growth);

/* Copies runs of so many bytes each, which begin `step` bytes of x apart, one behind the other into y. */
void ulp_copied_runs(const void *x, void *y, int64_t runs, int64_t bytes, int64_t step);

/* The caller's floating-point environment: saved into `size` bytes while the default one is set, and restored. */
int ulp_environment_size(void);
void ulp_default_environment(void *saved);
void ulp_restore_environment(const void *saved);

#endif
