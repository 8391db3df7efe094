/* Where bits are dropped: the random words and the one decision between a value and its neighbour. */
#ifndef ULPSIM_ROUNDING_H
#define ULPSIM_ROUNDING_H

#include "exact.h"

/* Of Philox4x32-10. */
#define ULP_PHILOX_0 0xD2511F53ull
#define ULP_PHILOX_1 0xCD9E8D57ull
#define ULP_WEYL_0 0x9E3779B9u
#define ULP_WEYL_1 0xBB67AE85u

/* The random word of a place: 64 bits of Philox4x32-10. */
static inline uint64_t ulp_word(const ulp_place *place)
{
    uint32_t k0 = place->seed, k1 = place->step;
    uint32_t c0 = (uint32_t)place->index, c1 = (uint32_t)(place->index >> 32), c2 = place->k, c3 = place->site;
    for (int round = 0; round < 10; round++) {
        uint64_t first = ULP_PHILOX_0 * c0, second = ULP_PHILOX_1 * c2;
        c0 = (uint32_t)(second >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)second;
        c2 = (uint32_t)(first >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)first;
        k0 += ULP_WEYL_0;
        k1 += ULP_WEYL_1;
    }
    return place->which ? (uint64_t)c2 << 32 | c3 : (uint64_t)c0 << 32 | c1;
}

/* Whether a fraction strictly between 0 and 1 goes up. It is given by its first 64 bits and whether more follow. */
static inline int ulp_goes_up(uint64_t fraction, int more, int odd, int negative, const ulp_use *use, uint64_t word)
{
    const uint64_t half = 1ull << 63;
    switch (use->rounding) {
    case ULP_RNE:
        return fraction > half || (fraction == half && (more || odd));
    case ULP_RNA:
        return fraction >= half;
    case ULP_RNZ:
        return fraction > half || (fraction == half && more);
    case ULP_RU:
        return !negative;
    case ULP_RD:
        return negative;
    case ULP_ODD:
        return !odd;
    case ULP_SR: { /* a carry out of the first n bits of the fraction and the word */
        uint64_t unit = 1ull << (64 - use->random_bits) % 64, mask = 0 - unit; /* of 64 bits: unit 1 */
        uint64_t random = word & mask, first = fraction & mask;
        if (use->variant == 1) { /* one more bit of the fraction, and half a unit added */
            first = fraction & (0 - unit / 2);
            random |= unit / 2;
        } else if (use->variant == 2) { /* the fraction rounded to n bits, ties to even */
            uint64_t rest = fraction - first;
            first += rest > unit / 2 || (rest == unit / 2 && (more || (first & unit))) ? unit : 0;
            if (first < (fraction & mask))
                return 1;
        }
        return first + random < first;
    }
    default:
        return 0;
    }
}

/* A significand cut `shift` bits above its end: what is kept (its low 64 bits), the first 64 bits of the fraction that
 * is dropped, and whether more follow. */
typedef struct {
    uint64_t kept, fraction;
    int more;
} ulp_cut;

static inline ulp_cut ulp_cut_at(ulp_u128 significand, int shift)
{
    if (shift >= 192)
        return (ulp_cut){0, 0, significand != 0};
    ulp_u128 dropped = shift < 128 ? significand & (((ulp_u128)1 << shift) - 1) : significand;
    ulp_cut cut = {shift < 128 ? (uint64_t)(significand >> shift) : 0, 0, 0};
    if (shift > 64) {
        cut.fraction = (uint64_t)(dropped >> (shift - 64));
        cut.more = (dropped & (((ulp_u128)1 << (shift - 64)) - 1)) != 0;
    } else {
        cut.fraction = (uint64_t)(dropped << (64 - shift));
    }
    return cut;
}

/* What is kept, rounded; floor_is_odd says what counts as its parity. */
static inline uint64_t ulp_rounded(ulp_cut cut, int floor_is_odd, int negative, const ulp_use *use,
                                   const ulp_place *place)
{
    if (!cut.fraction && !cut.more)
        return cut.kept;
    uint64_t word = use->rounding == ULP_SR ? ulp_word(place) : 0;
    return cut.kept + (uint64_t)ulp_goes_up(cut.fraction, cut.more, floor_is_odd, negative, use, word);
}

#endif
