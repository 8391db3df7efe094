/* Rounding whole arrays of doubles into floats and fixed point, in lanes. Included by elementwise.inc.h. */

enum { STRETCH = 512 }; /* elements that are handled together; a multiple of every lane count */

INLINE V choose(B which, V yes, V no) { return (V)((which & (B)yes) | (~which & (B)no)); }
INLINE int any(B which)
{
    INTEGER all = 0;
    for (int i = 0; i < WIDTH; i++)
        all |= which[i];
    return all != 0;
}

/* Whether magnitudes whose fraction of a quantum is v go up, as ulp_goes_up decides; words for ULP_SR only. Fractions
 * of doubles have at most 53 bits, so that scaling them by powers of two is exact. */
INLINE B goes_up(V v, B negative, B odd, const ulp_use *use, const uint64_t *words)
{
    const V zero = {0}, half = zero + 0.5;
    B inexact = v > zero, up = inexact;
    switch (use->rounding) {
    case ULP_RNE:
        return (v > half) | ((v == half) & odd);
    case ULP_RNA:
        return v >= half;
    case ULP_RNZ:
        return v > half;
    case ULP_RU:
        return inexact & ~negative;
    case ULP_RD:
        return inexact & negative;
    case ULP_ODD:
        return inexact & ~odd;
    case ULP_SR:
        for (int i = 0; i < WIDTH; i++) {
            /* v < 1 has a last bit at 2^-64 or above, or is cut there, as the definition cuts it to 64 bits. NaNs, and
             * what one element at a time will decide, are not fractions and fit no integer. */
            double scaled = v[i] > 0 && v[i] < 1 ? v[i] * 0x1p64 : 0;
            uint64_t fraction = (uint64_t)scaled;
            up[i] = scaled > 0 && ulp_goes_up(fraction, scaled != (double)fraction, 0, 0, use, words[i]) ? -1 : 0;
        }
        return up;
    default:
        return zero > zero;
    }
}

typedef uint64_t U __attribute__((vector_size(VECTOR_BYTES)));

/* Products of the low halves. */
INLINE U multiply_halves(U x, U y)
{
#if defined(ISA_AVX512)
    return (U)_mm512_mul_epu32((__m512i)x, (__m512i)y);
#elif defined(ISA_AVX2)
    return (U)_mm256_mul_epu32((__m256i)x, (__m256i)y);
#elif defined(__SSE2__)
    return (U)_mm_mul_epu32((__m128i)x, (__m128i)y);
#else
    return (x & 0xFFFFFFFF) * (y & 0xFFFFFFFF);
#endif
}

/* The random words of the elements of a stretch: ulp_word, side by side. */
static void draw(uint64_t *words, const ulp_place *place, int n)
{
    const U zero = {0}, half = zero + 0xFFFFFFFF;
    const U multiplier_0 = zero + ULP_PHILOX_0, multiplier_1 = zero + ULP_PHILOX_1;
    for (int i = 0; i < n; i += WIDTH) {
        U index, c0, c1, c2 = zero + place->k, c3 = zero + place->site;
        U k0 = zero + place->seed, k1 = zero + place->step;
        for (int lane = 0; lane < WIDTH; lane++)
            index[lane] = place->index + (uint64_t)(i + lane);
        c0 = index & half;
        c1 = index >> 32;
        for (int round = 0; round < 10; round++) {
            U first = multiply_halves(multiplier_0, c0), second = multiply_halves(multiplier_1, c2);
            c0 = (second >> 32) ^ c1 ^ (k0 & half);
            c1 = second & half;
            c2 = (first >> 32) ^ c3 ^ (k1 & half);
            c3 = first & half;
            k0 += ULP_WEYL_0;
            k1 += ULP_WEYL_1;
        }
        U word = place->which ? c2 << 32 | c3 : c0 << 32 | c1;
        memcpy(words + i, &word, sizeof word); /* STRETCH is a multiple of WIDTH */
    }
}

INLINE void flag(uint8_t *overflow, B beyond, int i, int n)
{
    for (int lane = 0; overflow && lane < WIDTH && i + lane < n; lane++)
        if (beyond[lane])
            overflow[i + lane] = 1;
}

/* --- floats ------------------------------------------------------------------------------------------------------- */

/* Where adding the constant of round_lane stays below the largest double, whatever the precision. */
#define LIMIT 0x1p900

/* Whether the lanes round into this use; what they cannot decide they leave to one element at a time. */
static int has_lanes(const ulp_use *use)
{
    return use->precision <= 51 && use->min_exponent >= -1022 && use->min_exponent <= 900;
}

/* Round n values, n at most STRETCH, x padded to it. Returns whether some are `undecided`, whose results mean nothing.
 * `plain` says that the use has a sign, -0 and subnormals, which spares the most usual formats some blends. */
INLINE int float_lanes(double *x, double *y, int n, const ulp_use *use, const ulp_place *place, uint8_t *overflow,
                       B *undecided, int nearest, int plain)
{
    const rounder r = make_rounder(use);
    const V zero = {0}, to_quantum = zero + ldexp(1.0, 1 - use->precision), max = r.max;
    const V overflowed = r.overflowed, overflowed_below = broadcast(use->overflowed_below);
    const V infinity = zero + (double)INFINITY, infinite = broadcast(use->infinite);
    const V infinite_below = broadcast(use->infinite_below), below_zero = broadcast(use->below_zero);
    const V smallest = broadcast(use->smallest), of_zero = broadcast(use->zero), limit = zero + LIMIT;
    const int one_bit = use->precision == 1, parity = (use->bias + EXPONENT_BIAS) & 1;
    uint64_t words[STRETCH];
    B some = {0};
    if (use->rounding == ULP_SR)
        draw(words, place, n);
    for (int i = 0; i < n; i += WIDTH) {
        V value = load(x + i), magnitude = absolute(value);
        B sign = (B)value & ((B){0} + SIGN_BIT), negative = value < zero, endless = magnitude == infinity;
        V rounded = absolute(round_lane(value, &r, BOUNDED, 0, 1, NULL));
        B skip = (magnitude >= limit) & ~endless;
        if (!nearest) {
            V power = maximum((V)((B)value & ((B){0} + EXPONENT_MASK)), r.smallest_normal);
            V quantum = power * to_quantum;
            V floor = choose(rounded > magnitude, rounded - quantum, rounded);
            B odd = (B)(floor / quantum + 0x1p52) << 63 != 0; /* the last bit of an integer below 2^52 */
            if (one_bit) /* the code is even or odd, the floor always odd */
                odd = (floor > zero) & ((((B)power >> MANTISSA_BITS) & 1) != parity);
            V fraction = choose(endless, zero, (magnitude - floor) / quantum);
            skip |= (fraction == zero) & (magnitude > floor) & ~endless; /* it underflowed */
            V up = choose(goes_up(fraction, negative, odd, use, words + i), quantum, zero);
            rounded = choose(endless, rounded, floor + up);
        }
        B beyond = rounded > max;
        V replaced = choose(negative, overflowed_below, overflowed);
        if (plain) {
            V result = choose(beyond, choose(endless, infinite, replaced), rounded);
            save(y + i, (V)((B)result | sign));
        } else {
            if (use->flush_subnormals) {
                /* Whether it reaches the smallest normal with all its bits, not with a subnormal's? */
                skip |= (magnitude < r.smallest_normal) & (rounded >= r.smallest_normal);
                rounded = choose(rounded < r.smallest_normal, zero, rounded);
            }
            V result = (V)((B)choose(beyond, replaced, rounded) | sign);
            result = choose(endless, choose(negative, infinite_below, infinite), result);
            if (!use->is_signed) {
                B below = negative & ~endless & ((rounded > zero) | ((B){0} - (INTEGER)(use->zero != 0.0)));
                result = choose(below, below_zero, result);
                beyond = (beyond & ~negative) | below | endless;
            }
            if (use->unsigned_zero)
                result = choose(result == zero, zero, result);
            result = choose(magnitude == zero, use->unsigned_zero ? of_zero : (V)((B)of_zero | sign), result);
            if (use->gap)
                skip |= (magnitude < smallest) & (magnitude > zero);
            save(y + i, result);
        }
        flag(overflow, beyond & ~skip, i, n);
        undecided[i / WIDTH] = skip;
        some |= skip;
    }
    return any(some);
}

/* Whether all doubles but infinities are values of the use. */
static int holds_doubles(const ulp_use *use)
{
    return use->precision == 53 && use->min_exponent == -1022 && use->max >= 0x1.fffffffffffffp1023 && use->is_signed &&
           !use->unsigned_zero && !use->flush_subnormals && !use->gap;
}

static void keep_doubles(const double *x, double *y, int n, const ulp_use *use, uint8_t *overflow)
{
    for (int i = 0; i < n; i++) {
        int endless = fabs(x[i]) > use->max;
        y[i] = !endless ? x[i] : x[i] < 0 ? use->infinite_below : use->infinite;
        if (overflow)
            overflow[i] |= (uint8_t)endless;
    }
}

static void round_floats(double *x, double *y, int n, const ulp_use *use, const ulp_place *place, uint8_t *overflow)
{
    B undecided[STRETCH / WIDTH];
    int plain = use->is_signed && !use->unsigned_zero && !use->flush_subnormals && !use->gap;
    int nearest = use->rounding == ULP_RNE && use->precision > 1, some = 0;
    for (int i = n; i % WIDTH; i++)
        x[i] = 0.0;
    if (nearest && plain)
        some = float_lanes(x, y, n, use, place, overflow, undecided, 1, 1);
    else if (nearest)
        some = float_lanes(x, y, n, use, place, overflow, undecided, 1, 0);
    else
        some = float_lanes(x, y, n, use, place, overflow, undecided, 0, plain);
    for (int i = 0; some && i < n; i++)
        if (undecided[i / WIDTH][i % WIDTH])
            round_one(x[i], y + i, i, use, place, overflow);
}

/* --- fixed point -------------------------------------------------------------------------------------------------- */

/* Round n values, x padded to STRETCH; needs 2^F to be a double and overflow to saturate. */
static void round_fixed(double *x, double *y, int n, const ulp_use *use, const ulp_place *place, uint8_t *overflow)
{
    const V zero = {0}, scale = zero + ldexp(1.0, use->fraction_bits), quantum = broadcast(use->smallest);
    const V whole = zero + 0x1p52; /* from here on doubles are integers */
    const V lowest = broadcast((double)use->lowest), highest = broadcast((double)use->highest);
    uint64_t words[STRETCH];
    for (int i = n; i % WIDTH; i++)
        x[i] = 0.0;
    if (use->rounding == ULP_SR)
        draw(words, place, n);
    for (int i = 0; i < n; i += WIDTH) {
        V value = load(x + i) * scale, magnitude = absolute(value);
        B sign = (B)value & ((B){0} + SIGN_BIT), negative = value < zero, large = magnitude >= whole;
        V rounded = (magnitude + whole) - whole;
        V floor = choose(rounded > magnitude, rounded - 1.0, rounded);
        B odd = (B)(floor + whole) << 63 != 0;
        B goes = goes_up(choose(large, zero, magnitude - floor), negative, odd, use, words + i);
        V up = choose(goes, zero + 1.0, zero);
        V quanta = (V)((B)choose(large, magnitude, floor + up) | sign);
        B under = quanta < lowest, over = quanta > highest;
        flag(overflow, under | over, i, n);
        save(y + i, choose(under, lowest, choose(over, highest, quanta)) * quantum + 0.0); /* no -0 */
    }
}
