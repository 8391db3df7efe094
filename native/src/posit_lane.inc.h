/* Rounding lanes into posits, to nearest, ties to the even code. Included by lanes.inc.h.
 *
 * For a regime r let w = r where r >= 0, and w = -1 - r below. The string of a number of exponent e has the regime
 * r = e >> es in w + 2 bits, then the low es bits of e, then the fraction. The latter two are the low bits of the lane,
 * once the bias is taken off. So rounding the string is rounding this integer u where n - 1 bits of the string end: at
 * a bit that lies one further left with each w. A carry leads to the next regime, in u as in the string. */

/* Constants of a posit format. */
typedef struct {
    int regime_shift;   /* from u to the regime */
    INTEGER dropped;    /* bits of u dropped for w = 0; one more with each w */
    V scale;            /* 2^dropped */
    B limit;            /* 2w + 1 of the last w for which a bit of the fraction is kept */
    V min, max, beyond; /* of magnitudes; those from `beyond` on overflow */
    B instead;          /* all ones where an overflow gives NaN, else zeros */
} posit_rounder;

INLINE posit_rounder make_posit_rounder(const ulp_use *use)
{
    int es = use->exponent_bits, fraction_bits = use->code_bits - 3 - es; /* kept for w = 0 */
    posit_rounder r;
    r.regime_shift = MANTISSA_BITS + es;
    r.dropped = MANTISSA_BITS - fraction_bits;
    r.scale = broadcast((REAL)ldexp(1.0, (int)r.dropped));
    r.limit = (B){0} + (INTEGER)(2 * fraction_bits - 1);
    r.min = broadcast((REAL)use->smallest);
    r.max = broadcast((REAL)use->max);
    r.beyond = broadcast((REAL)ldexp(use->max, 1 << es));
    r.instead = (B){0} - (use->overflowed != use->overflowed);
    return r;
}

INLINE B absolute_integer(B x)
{
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
    return (B)_mm512_abs_epi64((__m512i)x);
#elif defined(ISA_AVX512)
    return (B)_mm512_abs_epi32((__m512i)x);
#elif defined(ISA_AVX2) && !REAL_IS_DOUBLE
    return (B)_mm256_abs_epi32((__m256i)x);
#else
    B sign = x >> (8 * (int)sizeof(REAL) - 1);
    return (x ^ sign) - sign;
#endif
}

/* Whether a lane that exceeds the limit in x is not zero in y. */
INLINE int any_above(B x, B limit, B y)
{
#if defined(ISA_AVX512) && REAL_IS_DOUBLE
    __mmask8 above = _mm512_cmpgt_epi64_mask((__m512i)x, (__m512i)limit);
    return _mm512_mask_test_epi64_mask(above, (__m512i)y, (__m512i)y) != 0;
#elif defined(ISA_AVX512)
    __mmask16 above = _mm512_cmpgt_epi32_mask((__m512i)x, (__m512i)limit);
    return _mm512_mask_test_epi32_mask(above, (__m512i)y, (__m512i)y) != 0;
#elif defined(ISA_AVX2)
    return !_mm256_testz_si256((__m256i)(x > limit), (__m256i)y);
#else
    B both = (x > limit) & y;
    INTEGER any = 0;
    for (int i = 0; i < WIDTH; i++)
        any |= both[i];
    return any != 0;
#endif
}

/* Round u, whatever w. Where no bit of e is kept, the last bit of the code is the one that ends the regime: 0 behind
 * ones, 1 behind zeros. `peak` becomes infinite where a magnitude overflows. */
INLINE V round_any_posit(V x, const posit_rounder *r, V *peak)
{
    const B bias = (B){0} + ((INTEGER)EXPONENT_BIAS << MANTISSA_BITS);
    const V infinity = broadcast((REAL)INFINITY);
    V magnitude = absolute(x);
    B u = (B)maximum(clamp(magnitude, r->max), r->min) - bias;
    B zeros = u >> (8 * (int)sizeof(REAL) - 1); /* in the regime: all ones below 1 */
    B dropped = ((u >> r->regime_shift) ^ zeros) + r->dropped;
    B regime_only = dropped >= r->regime_shift;
    dropped = (dropped & ~regime_only) | (r->regime_shift & regime_only); /* no code is shorter than that of max */
    B odd = (((u >> dropped) & ~regime_only) | (zeros & regime_only)) & 1;
    B mask = (((B){0} + 1) << dropped) - 1;
    u = ((u + (mask >> 1) + odd) & ~mask) + bias;
    B zero = (B)(magnitude == (V){0}), real = (B)(magnitude < infinity), beyond = (B)(magnitude >= r->beyond);
    *peak = (V)((B)*peak | (beyond & (B)infinity));
    B sign = (B)x & ((B){0} + SIGN_BIT);
    return (V)(((sign | u) & ~zero) | ~real | (beyond & r->instead));
}

/* Round a sum, exact or rounded to odd, that is no subnormal. Where a bit of the fraction is kept, which is so for all
 * but few sums, ties look at a bit of the lane's own fraction, and adding and subtracting 1.5 * 2^(e + bits dropped)
 * does it as in round_lane: (2w + 1) << (MANTISSA_BITS - 1) is w in the exponent and .5 in the fraction. No zero result
 * has a sign. `peak` becomes infinite where a magnitude overflows. */
INLINE V round_posit(V x, const posit_rounder *r, V *peak)
{
    B power = (B)x & ((B){0} + EXPONENT_MASK);
    B exponent = power - ((B){0} + ((INTEGER)EXPONENT_BIAS << MANTISSA_BITS));
    B regime = absolute_integer(exponent >> (r->regime_shift - 1) | 1); /* |2r + 1| = 2w + 1 */
    V m = (V)(power + (regime << (MANTISSA_BITS - 1)));
    if (__builtin_expect(any_above(regime, r->limit, power), 0))
        return round_any_posit(x, r, peak);
    return plain_fma(plain_fma(x, m, r->scale), m, -r->scale);
}
