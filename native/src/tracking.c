/* What precision tracking does with noise element by element: each function in one pass over the memory. */
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel.h"

/* Compiled once for each width of registers, which the loader chooses from; without contraction the bits are the same.
 * Sanitizers are not there yet when the loader chooses. */
#if defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__) && defined(__GLIBC__) && \
    !defined(__SANITIZE_ADDRESS__)
#define CLONED __attribute__((target_clones("default", "avx2", "avx512f")))
#else
#define CLONED
#endif

enum { BLOCK = 1024 }; /* elements of which decisions are counted at once */

#define REAL float
#define WHOLE int32_t
#define NAME(name) name##_float
#include "tracking.inc.h"
#undef REAL
#undef WHOLE
#undef NAME
#define REAL double
#define WHOLE int64_t
#define NAME(name) name##_double
#include "tracking.inc.h"
#undef REAL
#undef WHOLE
#undef NAME

#define DEFAULT_ENVIRONMENT(call)      \
    do {                               \
        fenv_t environment;            \
        fegetenv(&environment);        \
        fesetenv(FE_DFL_ENV);          \
        call;                          \
        fesetenv(&environment);        \
    } while (0)

void ulp_noise_weighted(int wide, const void *x, const void *noise, void *y, int64_t n, double factor)
{
    DEFAULT_ENVIRONMENT(wide ? weighted_double(x, noise, y, n, factor, DBL_MIN)
                             : weighted_float(x, noise, y, n, (float)factor, FLT_MIN));
}

void ulp_noise_grown(int wide, void *x, int64_t n, double factor, double more)
{
    DEFAULT_ENVIRONMENT(wide ? grown_double(x, n, factor, more) : grown_float(x, n, (float)factor, (float)more));
}

void ulp_noise_kept(int wide, const void *x, const void *noise, void *y, int64_t n)
{
    DEFAULT_ENVIRONMENT(wide ? kept_double(x, noise, y, n) : kept_float(x, noise, y, n));
}

int64_t ulp_noise_gated(int wide, const void *g, const void *noise_g, const void *x, const void *noise_x, void *y,
                        int64_t n, double within, double growth)
{
    int64_t found;
    DEFAULT_ENVIRONMENT(found = wide ? gated_double(g, noise_g, x, noise_x, y, n, within, growth)
                                     : gated_float(g, noise_g, x, noise_x, y, n, (float)within, (float)growth));
    return found;
}

void ulp_noise_multiple_added(int wide, const void *z, const void *y, const void *noise_x, const void *noise_y,
                              void *to, int64_t n, const double *by)
{
    float narrow[5] = {(float)by[0], (float)by[1], (float)by[2], (float)by[3], (float)by[4]};
    DEFAULT_ENVIRONMENT(wide ? multiple_added_double(z, y, noise_x, noise_y, to, n, by)
                             : multiple_added_float(z, y, noise_x, noise_y, to, n, narrow));
}

void ulp_noise_max_product(int wide, const void *a, const void *b, void *y, int64_t rows, int64_t inner,
                           int64_t columns)
{
    DEFAULT_ENVIRONMENT(wide ? max_product_double(a, b, y, rows, inner, columns)
                             : max_product_float(a, b, y, rows, inner, columns));
}

int ulp_noise_largest(int wide, const void *x, void *y, const ulp_windows *windows)
{
    int status;
    DEFAULT_ENVIRONMENT(status = wide ? largest_double(x, y, windows) : largest_float(x, y, windows));
    return status;
}

int64_t ulp_noise_undecided(int wide, const void *x, const void *noise, const void *jump, void *y,
                            const ulp_windows *windows, double twice, double tiny)
{
    int64_t found;
    DEFAULT_ENVIRONMENT(found = wide ? undecided_double(x, noise, jump, y, windows, twice, tiny)
                                     : undecided_float(x, noise, jump, y, windows, (float)twice, (float)tiny));
    return found;
}

int64_t ulp_noise_spread(int wide, const void *jump, void *y, const ulp_windows *windows, double growth)
{
    int64_t found;
    DEFAULT_ENVIRONMENT(found = wide ? spread_double(jump, y, windows, growth)
                                     : spread_float(jump, y, windows, (float)growth));
    return found;
}

void ulp_copied_runs(const void *x, void *y, int64_t runs, int64_t bytes, int64_t step)
{
    const char *from = x;
    char *to = y;
    for (int64_t i = 0; i < runs; i++, from += step, to += bytes)
        memcpy(to, from, (size_t)bytes);
}
