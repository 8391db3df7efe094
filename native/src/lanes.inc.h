/* SIMD lanes: one vector type V of WIDTH elements of REAL, and the few operations that the kernels need.
 *
 * Included with REAL_IS_DOUBLE (0 or 1) and one of ISA_PORTABLE, ISA_AVX2, ISA_AVX512 defined, once per source file.
 * Written with the compiler's vector extensions, which exist on every target; where these miss a good instruction an
 * instruction set overrides the operation below. All operations are exact or correctly rounded, the same bits
 * everywhere. */
#if !defined(__GNUC__) || defined(__clang__)
#error "the lane kernels need gcc: its vector extensions and its target pragma"
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <math.h>
#include <string.h>

#include "kernel.h"

#if defined(ISA_AVX512)
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#define ISA_NAME(name) name##_avx512
#define VECTOR_BYTES 64
#elif defined(ISA_AVX2)
#pragma GCC target("avx2,fma")
#define ISA_NAME(name) name##_avx2
#define VECTOR_BYTES 32
#else
#define ISA_NAME(name) name##_portable
#define VECTOR_BYTES 16
#endif

#if REAL_IS_DOUBLE
typedef double REAL;
typedef int64_t INTEGER;
#define MANTISSA_BITS 52
#define EXPONENT_BIAS 1023
#define EXPONENT_MASK 0x7FF0000000000000ll
#define SIGN_BIT INT64_MIN
#else
typedef float REAL;
typedef int32_t INTEGER;
#define MANTISSA_BITS 23
#define EXPONENT_BIAS 127
#define EXPONENT_MASK 0x7F800000
#define SIGN_BIT INT32_MIN
#endif

#define WIDTH (VECTOR_BYTES / (int)sizeof(REAL))

typedef REAL V __attribute__((vector_size(VECTOR_BYTES)));
typedef INTEGER B __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL unaligned __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));

#define INLINE static inline __attribute__((always_inline, unused))

INLINE V load(const REAL *p) { return *(const unaligned *)p; }
INLINE void save(REAL *p, V x) { *(unaligned *)p = x; }
INLINE V broadcast(REAL x) { return x - (V){0}; }

/* x > limit ? instead : x, elementwise; a NaN x stays. */
INLINE V replace_above(V x, V limit, V instead)
{
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
    return _mm512_mask_mov_pd(x, _mm512_cmp_pd_mask(x, limit, _CMP_GT_OQ), instead);
#elif defined(ISA_AVX512)
    return _mm512_mask_mov_ps(x, _mm512_cmp_ps_mask(x, limit, _CMP_GT_OQ), instead);
#elif defined(ISA_AVX2) && REAL_IS_DOUBLE
    return _mm256_blendv_pd(x, instead, _mm256_cmp_pd(x, limit, _CMP_GT_OQ));
#elif defined(ISA_AVX2)
    return _mm256_blendv_ps(x, instead, _mm256_cmp_ps(x, limit, _CMP_GT_OQ));
#else
    B above = x > limit;
    return (V)((above & (B)instead) | (~above & (B)x));
#endif
}

/* The larger of two; y where x is NaN. */
INLINE V maximum(V x, V y)
{
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
    return _mm512_max_pd(x, y);
#elif defined(ISA_AVX512)
    return _mm512_max_ps(x, y);
#elif defined(ISA_AVX2) && REAL_IS_DOUBLE
    return _mm256_max_pd(x, y);
#elif defined(ISA_AVX2)
    return _mm256_max_ps(x, y);
#elif defined(__SSE2__) && REAL_IS_DOUBLE
    return _mm_max_pd(x, y);
#elif defined(__SSE2__)
    return _mm_max_ps(x, y);
#else
    B above = x > y;
    return (V)((above & (B)x) | (~above & (B)y));
#endif
}

/* -limit where x < -limit, limit where x > limit, else x; a NaN x stays. */
INLINE V clamp(V x, V limit)
{
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
    return _mm512_max_pd(-limit, _mm512_min_pd(limit, x));
#elif defined(ISA_AVX512)
    return _mm512_max_ps(-limit, _mm512_min_ps(limit, x));
#elif defined(ISA_AVX2) && REAL_IS_DOUBLE
    return _mm256_max_pd(-limit, _mm256_min_pd(limit, x));
#elif defined(ISA_AVX2)
    return _mm256_max_ps(-limit, _mm256_min_ps(limit, x));
#elif defined(__SSE2__) && REAL_IS_DOUBLE
    return _mm_max_pd(-limit, _mm_min_pd(limit, x));
#elif defined(__SSE2__)
    return _mm_max_ps(-limit, _mm_min_ps(limit, x));
#else
    B above = x > limit, below = x < -limit;
    x = (V)((above & (B)limit) | (~above & (B)x));
    return (V)((below & (B)-limit) | (~below & (B)x));
#endif
}

INLINE V absolute(V x) { return (V)((B)x & ~((B){0} + SIGN_BIT)); }

/* The larger of |x| and y, where y is not negative; y where x is NaN. */
INLINE V larger_magnitude(V x, V y)
{
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
    return _mm512_range_pd(x, y, 0xB); /* the larger magnitude, without a sign */
#elif defined(ISA_AVX512)
    return _mm512_range_ps(x, y, 0xB);
#else
    return maximum(absolute(x), y);
#endif
}

/* y with the sign bit of x, for a y that is zero or has it already. */
INLINE V with_sign(V y, V x)
{
    B sign = (B){0} + SIGN_BIT;
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
    return (V)_mm512_ternarylogic_epi64((__m512i)y, (__m512i)x, (__m512i)sign, 0xF8); /* y | (x & sign) */
#elif defined(ISA_AVX512)
    return (V)_mm512_ternarylogic_epi32((__m512i)y, (__m512i)x, (__m512i)sign, 0xF8);
#else
    return (V)((B)y | ((B)x & sign));
#endif
}

/* Which lanes: a bit each, or all the bits of a lane. & and ~ are those of masks. */
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
typedef __mmask8 MASK;
#define COMPARED(x, operator, name, y) _mm512_cmp_pd_mask(x, y, name)
#elif defined(ISA_AVX512)
typedef __mmask16 MASK;
#define COMPARED(x, operator, name, y) _mm512_cmp_ps_mask(x, y, name)
#else
typedef B MASK;
#define COMPARED(x, operator, name, y) ((B)((x)operator(y)))
#endif

INLINE MASK above(V x, V y) { return COMPARED(x, >, _CMP_GT_OQ, y); }
INLINE MASK equal(V x, V y) { return COMPARED(x, ==, _CMP_EQ_OQ, y); }
INLINE MASK nonzero(V x) { return COMPARED(x, !=, _CMP_NEQ_UQ, (V){0}); }

/* How often something was so in a vector. Where masks come as bits, scalar units count them while lanes compute. */
#if defined(ISA_AVX512) || defined(ISA_AVX2)
typedef int64_t COUNTER;
INLINE void count(COUNTER *counter, MASK which)
{
#if defined(ISA_AVX512)
    *counter += __builtin_popcount(which);
#elif REAL_IS_DOUBLE
    *counter += __builtin_popcount((unsigned)_mm256_movemask_pd((__m256d)which));
#else
    *counter += __builtin_popcount((unsigned)_mm256_movemask_ps((__m256)which));
#endif
}
INLINE int64_t counted(COUNTER counter) { return counter; }
#else
typedef B COUNTER; /* lane by lane */
INLINE void count(COUNTER *counter, MASK which) { *counter -= which; }
INLINE int64_t counted(COUNTER counter)
{
    int64_t sum = 0;
    for (int i = 0; i < WIDTH; i++)
        sum += counter[i];
    return sum;
}
#endif

/* Whether any element of x is at least `limit`. */
INLINE int any_reaches(V x, REAL limit)
{
    int reaches = 0;
    for (int i = 0; i < WIDTH; i++)
        reaches |= x[i] >= limit;
    return reaches;
}

/* A sum rounded to nearest and what it lost, as a sum rounded to odd. */
INLINE V odd_neighbour(V sum, V error)
{
#if defined(ISA_AVX2) && REAL_IS_DOUBLE
    B inexact = (B)_mm256_cmp_pd(error, (V){0}, _CMP_NEQ_OQ);
#elif defined(ISA_AVX2)
    B inexact = (B)_mm256_cmp_ps(error, (V){0}, _CMP_NEQ_OQ);
#else
    B inexact = (B)(error < (V){0}) | (B)(error > (V){0});
#endif
    B beyond = ((B)sum ^ (B)error) < 0; /* the sum was rounded away from zero: take the neighbour below */
    return (V)(((B)sum + (beyond & inexact)) | (inexact & 1));
}

/* s + t rounded to odd: the exact sum if it is representable, else that one of its two neighbours with an odd last
 * bit. Nothing may overflow or be NaN in disguise; infinities and NaNs pass as in IEEE addition. */
INLINE V odd_sum(V s, V t)
{
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
    __m512i down = _mm512_castpd_si512(_mm512_add_round_pd(s, t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
    __m512d up = _mm512_add_round_pd(s, t, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    return _mm512_mask_mov_pd(up, _mm512_test_epi64_mask(down, _mm512_set1_epi64(1)), _mm512_castsi512_pd(down));
#elif defined(ISA_AVX512)
    __m512i down = _mm512_castps_si512(_mm512_add_round_ps(s, t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
    __m512 up = _mm512_add_round_ps(s, t, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    return _mm512_mask_mov_ps(up, _mm512_test_epi32_mask(down, _mm512_set1_epi32(1)), _mm512_castsi512_ps(down));
#else
    V sum = s + t, part = sum - s;
    return odd_neighbour(sum, (s - (sum - part)) + (t - part)); /* TwoSum: sum + error == s + t */
#endif
}

/* s + a*b, fused or not: for products that are exact in a lane, where both give the same bits, and for bounds. */
INLINE V plain_fma(V s, V a, V b)
{
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
    return _mm512_fmadd_pd(a, b, s);
#elif defined(ISA_AVX512)
    return _mm512_fmadd_ps(a, b, s);
#elif defined(ISA_AVX2) && REAL_IS_DOUBLE
    return _mm256_fmadd_pd(a, b, s);
#elif defined(ISA_AVX2)
    return _mm256_fmadd_ps(a, b, s);
#else
    return s + a * b;
#endif
}

/* s + a*b rounded to odd, where a*b is exact in a lane; other conditions as for odd_sum. */
INLINE V odd_fma(V s, V a, V b)
{
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
    __m512i down = _mm512_castpd_si512(_mm512_fmadd_round_pd(a, b, s, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
    __m512d up = _mm512_fmadd_round_pd(a, b, s, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    return _mm512_mask_mov_pd(up, _mm512_test_epi64_mask(down, _mm512_set1_epi64(1)), _mm512_castsi512_pd(down));
#elif defined(ISA_AVX512)
    __m512i down = _mm512_castps_si512(_mm512_fmadd_round_ps(a, b, s, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));
    __m512 up = _mm512_fmadd_round_ps(a, b, s, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
    return _mm512_mask_mov_ps(up, _mm512_test_epi32_mask(down, _mm512_set1_epi32(1)), _mm512_castsi512_ps(down));
#elif defined(ISA_AVX2)
    V sum = plain_fma(s, a, b), part = sum - s; /* TwoSum with the product fused in */
    return odd_neighbour(sum, (s - (sum - part)) + plain_fma(-part, a, b));
#else
    return odd_sum(s, a * b);
#endif
}

#include "posit_lane.inc.h"

/* Constants that round a lane into a use. */
typedef struct {
    V smallest_normal;   /* of the use, or of the lane if that is larger */
    V max, overflowed;   /* the largest value, and what replaces magnitudes beyond it */
    B key;               /* makes 1.5 * 2^(e + lane precision - p) of 2^e, added to its bits */
    posit_rounder posit; /* of a posit, in place of all but max and watch */
    REAL watch;          /* 2^exponent(max): magnitudes below it do not overflow */
} rounder;

INLINE rounder make_rounder(const ulp_use *use)
{
    rounder r;
    INTEGER lost_bits = MANTISSA_BITS + 1 - use->precision;
    INTEGER key = lost_bits << MANTISSA_BITS | (INTEGER)1 << (MANTISSA_BITS - 1);
    int lowest = 1 - EXPONENT_BIAS; /* a lane's own smallest normal exponent */
    int exponent = use->min_exponent > lowest ? use->min_exponent : lowest;
    r.smallest_normal = broadcast((REAL)ldexp(1.0, exponent));
    r.max = broadcast((REAL)use->max);
    r.overflowed = broadcast((REAL)use->overflowed);
    r.key = (B){0} + key;
    r.posit = use->family == ULP_POSIT ? make_posit_rounder(use) : (posit_rounder){0};
    r.watch = (REAL)ldexp(1.0, use->max > 0 ? ilogb(use->max) : 0);
    return r;
}

/* What a rounding does about magnitudes beyond max: CAREFUL replaces them, CLAMPED does it where the replacement is max
 * itself; WATCHED only notes how large they become; BOUNDED is for sums that are proved not to come there. */
enum { CAREFUL, CLAMPED, WATCHED, BOUNDED };

/* Round to nearest even at p bits, or at the quantum of the subnormals, by adding and subtracting
 * 1.5 * 2^(max(exponent(x), emin) + lane precision - p). Holds for p at most two bits below the lane's precision and
 * |x| far enough below the lane's largest value; infinities and NaNs stay; zeros keep the sign of x.
 * `on_grid`: x is a multiple of the subnormals' quantum, so that what lies below emin is exact anyhow.
 * `signless`: nobody sees the sign of a zero. `peak` collects the largest magnitude; if watched, the largest
 * 2^exponent(x), infinity for a NaN. */
INLINE V round_lane(V x, const rounder *r, int overflow, int on_grid, int signless, V *peak)
{
    V power = (V)((B)x & ((B){0} + EXPONENT_MASK));
    if (overflow == WATCHED)
        *peak = maximum(power, *peak);
    if (!on_grid)
        power = maximum(power, r->smallest_normal);
    V m = (V)((B)power + r->key);
    V y = (x + m) - m;
    if (!signless)
        y = with_sign(y, x);
    if (overflow == WATCHED || overflow == BOUNDED)
        return y;
    *peak = maximum(absolute(y), *peak);
    if (overflow == CLAMPED)
        return clamp(y, r->max);
    return with_sign(replace_above(absolute(y), r->max, r->overflowed), y);
}

/* The elements of x and y by turns: the first WIDTH of them, or the others. */
INLINE V interleave(V x, V y, int others)
{
    B turns;
    for (int i = 0; i < WIDTH; i++)
        turns[i] = (INTEGER)((i & 1) * WIDTH + i / 2 + (others ? WIDTH / 2 : 0));
    return __builtin_shuffle(x, y, turns);
}

/* Transpose WIDTH vectors: log2(WIDTH) perfect shuffles. */
INLINE void transpose(V x[WIDTH])
{
    V y[WIDTH];
    for (int stage = 1; stage < WIDTH; stage *= 2) {
        for (int i = 0; i < WIDTH / 2; i++) {
            y[2 * i] = interleave(x[i], x[i + WIDTH / 2], 0);
            y[2 * i + 1] = interleave(x[i], x[i + WIDTH / 2], 1);
        }
        for (int i = 0; i < WIDTH; i++)
            x[i] = y[i];
    }
}
