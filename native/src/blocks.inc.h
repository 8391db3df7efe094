/* Blocks that share a scale: their largest magnitudes, and quotients by and products with their scales. Included by
 * elementwise.inc.h. */

/* What the blocks have, for each of n elements from element `at` of the array on. */
static void spread(const ulp_blocks *blocks, const double *of_block, int64_t at, double *scale, int n)
{
    int64_t count = (blocks->length + blocks->size - 1) / blocks->size;
    int64_t column = at % blocks->inner, row = at / blocks->inner % blocks->length;
    int64_t outer = at / blocks->inner / blocks->length;
    for (int i = 0; i < n;) {
        const double *scales = of_block + (outer * count + row / blocks->size) * blocks->inner + column;
        int64_t left = n - i, run;
        if (blocks->inner == 1) {
            int64_t end = (row / blocks->size + 1) * blocks->size;
            run = (end < blocks->length ? end : blocks->length) - row;
            run = run < left ? run : left;
            for (int64_t j = 0; j < run; j++)
                scale[i + j] = *scales;
            row += run;
        } else {
            run = blocks->inner - column;
            run = run < left ? run : left;
            memcpy(scale + i, scales, (size_t)run * sizeof *scale);
            column += run;
            row += column == blocks->inner;
            column = column == blocks->inner ? 0 : column;
        }
        outer += row == blocks->length;
        row = row == blocks->length ? 0 : row;
        i += (int)run;
    }
}

/* Divide by scales, if all the quotients are doubles because the scales are powers of two and nothing underflows. */
static int divide(const double *x, const double *scale, double *quotient, int n)
{
    int64_t inexact = 0;
    for (int i = 0; i < n; i++) {
        uint64_t bits, inverse_bits;
        double inverse, magnitude = fabs(x[i]);
        memcpy(&bits, scale + i, sizeof bits);
        inverse_bits = (2046ull << 52) - bits;
        memcpy(&inverse, &inverse_bits, sizeof inverse);
        quotient[i] = x[i] * inverse;
        double size = fabs(quotient[i]);
        inexact |= (bits << 12 != 0) | (bits >> 52 == 0) | (bits >> 52 >= 2046);
        inexact |= (magnitude > 0) & ((size < 0x1p-1022) | (size > 0x1.fffffffffffffp1023)) & (magnitude < INFINITY);
    }
    return !inexact;
}

/* x / scale, jammed below 117 bits; both finite and not zero, scale positive. */
static ulp_exact exact_quotient(double x, double scale)
{
    ulp_exact dividend = ulp_unpack(x), divisor = ulp_unpack(scale), quotient;
    uint64_t d = (uint64_t)divisor.significand, n = (uint64_t)dividend.significand;
    int up = __builtin_clzll(d) - 11, lead = __builtin_clzll(n) - 11; /* both get 53 bits */
    d <<= up;
    n <<= lead;
    ulp_u128 first = ((ulp_u128)n << 64) / d, rest = ((ulp_u128)n << 64) % d;
    ulp_u128 second = (rest << 60) / d;
    quotient.significand = first << 60 | second | ((rest << 60) % d != 0);
    quotient.exponent = dividend.exponent - lead - (divisor.exponent - up) - 124;
    quotient.negative = dividend.negative;
    return quotient;
}

static void round_quotients(const double *x, const double *scale, double *y, int n, const ulp_use *use,
                            const ulp_place *place, uint8_t *overflow)
{
    ulp_place here = *place;
    for (int i = 0; i < n; i++, here.index++) {
        int overflowed = 0;
        if (x[i] == 0.0 || !isfinite(x[i]))
            y[i] = ulp_special(x[i], use, &overflowed);
        else
            y[i] = ulp_round_exact(exact_quotient(x[i], scale[i]), use, &here, &overflowed);
        if (overflowed && overflow)
            overflow[i] = 1;
    }
}

/* Multiply by scales. Returns whether a product of finite numbers may not be exact, given that their significands are
 * narrow enough: it left the normal range. */
static int multiply(double *y, const double *scale, int n)
{
    int64_t lost = 0;
    for (int i = 0; i < n; i++) {
        double product = y[i] * scale[i], size = fabs(product);
        lost |= (y[i] != 0.0) & (fabs(y[i]) < INFINITY) & ((size < 0x1p-1022) | (size > 0x1.fffffffffffffp1023));
        y[i] = product;
    }
    return lost != 0;
}

/* The larger of a magnitude's bits and the largest so far. */
INLINE uint64_t larger(double x, uint64_t largest)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= INT64_MAX;
    return bits > largest ? bits : largest;
}

void ISA_NAME(ulp_block_maxima)(const ulp_array *x, int64_t n, const ulp_blocks *blocks, uint64_t *maxima)
{
    int64_t length = blocks->length, inner = blocks->inner, count = (length + blocks->size - 1) / blocks->size;
    double in[STRETCH];
    memset(maxima, 0, (size_t)(n / length * count) * sizeof *maxima);
    for (int64_t at = 0, row = 0; at < n; row++) { /* a row of a block of columns; where inner is 1, a whole block */
        int64_t of_outer = row % (inner == 1 ? count : length), outer = row / (inner == 1 ? count : length);
        int64_t start = of_outer * blocks->size, end = start + blocks->size < length ? start + blocks->size : length;
        int64_t block = outer * count + (inner == 1 ? of_outer : of_outer / blocks->size);
        int64_t width = inner == 1 ? end - start : inner;
        for (int64_t column = 0; column < width; column += STRETCH) {
            int part = width - column < STRETCH ? (int)(width - column) : STRETCH;
            load_values(x, at + column, in, part);
            if (inner == 1) {
                uint64_t largest = maxima[block];
                for (int i = 0; i < part; i++)
                    largest = larger(in[i], largest);
                maxima[block] = largest;
            } else {
                for (int i = 0; i < part; i++)
                    maxima[block * inner + column + i] = larger(in[i], maxima[block * inner + column + i]);
            }
        }
        at += width;
    }
}
