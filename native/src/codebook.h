/* Codebooks: the code of a double is the number of thresholds that do not exceed it. */
#ifndef ULPSIM_CODEBOOK_H
#define ULPSIM_CODEBOOK_H

#include "rounding.h"

/* Doubles as integers in the order of their values. */
static inline uint64_t ulp_order(double x)
{
    uint64_t bits;
    x += 0.0; /* -0 becomes +0 */
    memcpy(&bits, &x, sizeof bits);
    return bits ^ ((uint64_t)-(int64_t)(bits >> 63) | 1ull << 63);
}

static inline uint32_t ulp_codebook_code(double x, const ulp_codebook *book)
{
    uint64_t order = ulp_order(x);
    ulp_bucket binade = book->binades[order >> 52];
    const uint32_t *bucket = book->starts + binade.offset + ((order & 0xFFFFFFFFFFFFFull) >> binade.shift);
    uint32_t low = bucket[0], high = bucket[1];
    const double *thresholds = book->ladder + 1;
    if (high - low <= 1) /* where none is left, the next threshold lies above x */
        return low + (thresholds[2 * low] <= x);
    while (low < high) { /* the first threshold above x */
        uint32_t middle = (low + high) / 2;
        if (thresholds[2 * middle] <= x)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* |x - near| / |far - near| as a cut significand; 0 where 126 bits do not hold the distances. */
static inline int ulp_distance_ratio(double x, double near, double far, ulp_cut *cut)
{
    ulp_exact of[3] = {ulp_unpack(x), ulp_unpack(near), ulp_unpack(far)};
    int lowest = 4096, highest = -4096;
    ulp_u128 aligned[3];
    for (int i = 0; i < 3; i++)
        if (of[i].significand) {
            int trailing = __builtin_ctzll((uint64_t)of[i].significand);
            of[i].significand >>= trailing;
            of[i].exponent += trailing;
            int above = of[i].exponent + ulp_bit_length(of[i].significand);
            lowest = of[i].exponent < lowest ? of[i].exponent : lowest;
            highest = above > highest ? above : highest;
        }
    if (highest - lowest > 124)
        return 0;
    for (int i = 0; i < 3; i++) {
        aligned[i] = of[i].significand ? of[i].significand << (of[i].exponent - lowest) : 0;
        aligned[i] = of[i].negative ? 0 - aligned[i] : aligned[i]; /* two's complement */
    }
    ulp_u128 distance = aligned[0] - aligned[1], width = aligned[2] - aligned[1];
    if (width >> 127) {
        distance = 0 - distance;
        width = 0 - width;
    }
    *cut = (ulp_cut){0, 0, 0};
    if (width >> 63 == 0) {
        ulp_u128 shifted = distance << 64;
        cut->fraction = (uint64_t)(shifted / (uint64_t)width);
        cut->more = shifted % (uint64_t)width != 0;
        return 1;
    }
    for (int i = 0; i < 64; i++) { /* long division */
        distance <<= 1;
        cut->fraction = cut->fraction << 1 | (distance >= width);
        if (distance >= width)
            distance -= width;
    }
    cut->more = distance != 0;
    return 1;
}

/* The code to which x is rounded stochastically; -1 where 126 bits do not hold the distances. The thresholds are the
 * values from the second on. */
static inline int64_t ulp_codebook_random(double x, const ulp_use *use, const ulp_place *place)
{
    const ulp_codebook *book = use->codebook;
    int64_t low = ulp_codebook_code(x, book);
    if (low == book->count - 1 || x <= book->values[low])
        return low;
    int64_t near = x >= 0 ? low : low + 1, far = x >= 0 ? low + 1 : low;
    ulp_cut cut;
    if (!ulp_distance_ratio(x, book->values[near], book->values[far], &cut))
        return -1;
    return ulp_rounded(cut, 0, x < 0, use, place) ? far : near;
}

#endif
