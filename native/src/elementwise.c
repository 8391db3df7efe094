/* Elementwise functions: the one of the instruction set, in the default floating-point environment. */
#include <fenv.h>

#include "kernel.h"
#include "roundpack.h"

typedef struct {
    ulp_quantize_fn *quantize;
    ulp_decode_fn *decode;
    ulp_block_maxima_fn *block_maxima;
    ulp_profile_of_fn *profile_of;
} functions;

static const functions table[ULP_ISAS] = {
    [ULP_PORTABLE] = {ulp_quantize_portable, ulp_decode_portable, ulp_block_maxima_portable, ulp_profile_of_portable},
#ifdef ULP_X86
    [ULP_AVX2] = {ulp_quantize_avx2, ulp_decode_avx2, ulp_block_maxima_avx2, ulp_profile_of_avx2},
    [ULP_AVX512] = {ulp_quantize_avx512, ulp_decode_avx512, ulp_block_maxima_avx512, ulp_profile_of_avx512},
#endif
};

int ulp_quantize(int isa, const ulp_array *x, const ulp_array *y, int64_t n, const ulp_use *use, const ulp_place *place,
                 uint8_t *overflow, const ulp_blocks *blocks)
{
    fenv_t environment;
    if (!ulp_isa_supported(isa))
        return ULP_BAD_ISA;
    fegetenv(&environment);
    fesetenv(FE_DFL_ENV);
    int status = table[isa].quantize(x, y, n, use, place, overflow, blocks);
    fesetenv(&environment);
    return status;
}

int ulp_decode(int isa, const ulp_array *codes, const ulp_array *y, int64_t n, const ulp_use *use)
{
    fenv_t environment;
    if (!ulp_isa_supported(isa))
        return ULP_BAD_ISA;
    fegetenv(&environment);
    fesetenv(FE_DFL_ENV);
    table[isa].decode(codes, y, n, use);
    fesetenv(&environment);
    return ULP_OK;
}

int ulp_block_maxima(int isa, const ulp_array *x, int64_t n, const ulp_blocks *blocks, uint64_t *maxima)
{
    fenv_t environment;
    if (!ulp_isa_supported(isa))
        return ULP_BAD_ISA;
    fegetenv(&environment);
    fesetenv(FE_DFL_ENV); /* widening a float must not flush it */
    table[isa].block_maxima(x, n, blocks, maxima);
    fesetenv(&environment);
    return ULP_OK;
}

int ulp_profile_of(int isa, const ulp_matrix *x, int64_t rows, int64_t columns, ulp_profile *profile)
{
    fenv_t environment;
    if (!ulp_isa_supported(isa))
        return ULP_BAD_ISA;
    fegetenv(&environment);
    fesetenv(FE_DFL_ENV); /* widening a float must not flush it */
    table[isa].profile_of(x, rows, columns, profile);
    fesetenv(&environment);
    return ULP_OK;
}

/* y[i] = R(x[i] * factor + c[i]); c NULL: R(x[i] * factor), which keeps the sign of a zero. */
static int combine(const double *x, double factor, const double *c, double *y, int64_t n, const ulp_use *use,
                   const ulp_place *place, uint8_t *overflow)
{
    fenv_t environment;
    fegetenv(&environment);
    fesetenv(FE_DFL_ENV);
    ulp_place here = *place;
    for (int64_t i = 0; i < n; i++, here.index++) {
        int overflowed = 0;
        double value = c ? ulp_fma(c[i], x[i], factor, use, &here, &overflowed)
                         : ulp_product(x[i], factor, use, &here, &overflowed);
        y[i] = value != value ? __builtin_nan("") : value;
        if (overflowed && overflow)
            overflow[i] = 1;
    }
    fesetenv(&environment);
    return ULP_OK;
}

int ulp_add(const double *x, const double *c, double *y, int64_t n, const ulp_use *use, const ulp_place *place,
            uint8_t *overflow)
{
    return combine(x, 1.0, c, y, n, use, place, overflow);
}

int ulp_scale(const double *x, double factor, double *y, int64_t n, const ulp_use *use, const ulp_place *place,
              uint8_t *overflow)
{
    return combine(x, factor, NULL, y, n, use, place, overflow);
}

int ulp_environment_size(void) { return (int)sizeof(fenv_t); }

void ulp_default_environment(void *saved)
{
    fegetenv(saved);
    fesetenv(FE_DFL_ENV);
}

void ulp_restore_environment(const void *saved) { fesetenv(saved); }
