/* Records VDPBF16PS: d = c + a0*b0 + a1*b1 as the processor computes it.
 *
 *   gcc -std=c11 -O1 record.c -o record && ./record >vectors.bin
 *
 * For each rounding direction in MXCSR (nearest, down, up, toward zero), ROWS rows of five 32-bit words: the pair of a
 * (element 0 in the low half), the pair of b, c, d, 0. Rows are made from a fixed seed, a family after another:
 * values near one, wide apart, any bit pattern, sums that cancel, c that cancels a product, underflows, overflows,
 * specials, and sums that lie just below the smallest normal number until they are rounded. */
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>

enum { ROWS = 1152, FAMILIES = 9 };

static uint64_t state = 0x9E3779B97F4A7C15u;

static uint32_t random_bits(void) {
    state ^= state >> 12, state ^= state << 25, state ^= state >> 27; /* xorshift64* */
    return (uint32_t)((state * 0x2545F4914F6CDD1Du) >> 32);
}

/* A number of sign, 23 fraction bits and an exponent from [low, high]. */
static uint32_t number(int low, int high) {
    uint32_t bits = random_bits();
    uint32_t exponent = (uint32_t)(low + (int)(random_bits() % (uint32_t)(high - low + 1)) + 127);
    return (bits & 0x807FFFFFu) | exponent << 23;
}

static uint32_t bf16(int low, int high) { return number(low, high) >> 16; }

static uint32_t special(void) {
    static const uint16_t values[] = {0x0000, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0x0001, 0x8001, 0x007F,
                                      0x0080, 0x8080, 0x3F80, 0xBF80, 0x7F7F, 0xFF7F, 0x4000, 0x0100};
    return values[random_bits() % 16];
}

static uint32_t of_float(float x) {
    union { float value; uint32_t bits; } u = {x};
    return u.bits;
}

static float to_float(uint32_t bits) {
    union { uint32_t bits; float value; } u = {bits};
    return u.value;
}

static void row(int family, uint32_t a[2], uint32_t b[2], uint32_t *c) {
    for (int i = 0; i < 2; i++) {
        int wide = family == 1 ? 30 : 3;
        a[i] = family == 2 ? random_bits() >> 16 : bf16(-wide, wide);
        b[i] = family == 2 ? random_bits() >> 16 : bf16(-wide, wide);
    }
    *c = family == 2 ? random_bits() : number(family == 1 ? -60 : -6, family == 1 ? 60 : 6);
    if (family == 3) { /* the second product nearly cancels the first, c is small */
        b[1] = b[0] ^ (random_bits() & 1), a[1] = a[0] ^ 0x8000u ^ (random_bits() & 1);
        *c = number(-30, -8);
    }
    if (family == 4) /* c cancels one product, or nearly */
        *c = of_float(-to_float(a[random_bits() & 1] << 16) * to_float(b[random_bits() & 1] << 16)) ^
             (random_bits() & 1);
    if (family == 5) /* products and sums around the smallest normal number */
        for (int i = 0; i < 2; i++)
            a[i] = bf16(-66, -60), b[i] = bf16(-66, -60), *c = number(-130 + 4, -120) & ~(random_bits() & 0x7F800000u);
    if (family == 6) /* products and sums around the largest number */
        for (int i = 0; i < 2; i++)
            a[i] = bf16(60, 64), b[i] = bf16(60, 64), *c = number(120, 127);
    if (family == 7) {
        for (int i = 0; i < 2; i++)
            a[i] = special(), b[i] = special();
        *c = special() << 16;
    }
    if (family == 8) {
        *c = 0x00800000u | (random_bits() & 0x80000001u);
        for (int i = 0; i < 2; i++)
            a[i] = bf16(-80, -74), b[i] = (bf16(-80, -74) & 0x7FFFu) | ((a[i] ^ 0x8000u ^ *c >> 16) & 0x8000u);
    }
}

int main(void) {
    static const unsigned roundings[] = {_MM_ROUND_NEAREST, _MM_ROUND_DOWN, _MM_ROUND_UP, _MM_ROUND_TOWARD_ZERO};
    for (int mode = 0; mode < 4; mode++)
        for (int i = 0; i < ROWS; i++) {
            uint32_t a[2], b[2], c;
            row(i % FAMILIES, a, b, &c);
            uint32_t words[5] = {a[1] << 16 | a[0], b[1] << 16 | b[0], c};
            __m128 addend = _mm_castsi128_ps(_mm_set1_epi32((int)c));
            __m128i pair_a = _mm_set1_epi32((int)words[0]), pair_b = _mm_set1_epi32((int)words[1]);
            unsigned saved = _mm_getcsr();
            _mm_setcsr((saved & ~0x6000u) | roundings[mode]);
            __m128 d = addend;
            __asm__ volatile("vdpbf16ps %2, %1, %0" : "+v"(d) : "v"(pair_a), "v"(pair_b));
            _mm_setcsr(saved);
            words[3] = (uint32_t)_mm_cvtsi128_si32(_mm_castps_si128(d));
            fwrite(words, sizeof words[0], 5, stdout);
        }
    return 0;
}
