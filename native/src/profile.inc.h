/* What an operand is like (ulp_profile), a vector at a time. Included by elementwise.inc.h. */

typedef struct {
    V largest;              /* magnitude */
    V least;                /* last significant bit, a power of two, negated; -infinity if there is none */
    V span;                 /* its integer, shifted right by the fraction's bits: significant bits less one */
    B special, minus_zero;
} seen_t;

/* Take note of x, and add its square, fused or not: only a bound of the sum is asked for. Last significant bits below
 * 2^-1022 come out wrong, but below that. */
INLINE void look(V x, seen_t *seen, V *square)
{
    const B zero = {0};
    B magnitude = (B)x & ~(zero + SIGN_BIT), special = magnitude >= zero + EXPONENT_MASK;
    seen->special |= special;
    seen->minus_zero |= (B)x == zero + SIGN_BIT;
    magnitude &= ~special;
    B power_of_two = (magnitude & ~(zero + EXPONENT_MASK)) == zero, none = magnitude == zero;
    B last = (B)((V)magnitude - (V)(magnitude & (magnitude - 1) & ~power_of_two));
    seen->largest = maximum((V)magnitude, seen->largest);
    seen->least = maximum((V)(last | (zero + SIGN_BIT) | (none & (zero + EXPONENT_MASK))), seen->least);
    seen->span = maximum((V)(magnitude - last), seen->span);
    *square = plain_fma(*square, (V)magnitude, (V)magnitude);
}

static double largest_of(V x)
{
    double largest = x[0];
    for (int i = 1; i < WIDTH; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

/* The three numbers of doubles with very small last bits, one element after the other. */
static void look_closely(const ulp_matrix *x, int64_t rows, int64_t columns, ulp_profile *p)
{
    p->max_exponent = p->significant_bits = -4096;
    p->min_last_bit = 4096;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t column = 0; column < columns; column++) {
            double value = ulp_element(x, row, column);
            if (value == 0.0 || !isfinite(value))
                continue;
            ulp_exact e = ulp_unpack(value);
            int length = ulp_bit_length(e.significand), trailing = __builtin_ctzll((uint64_t)e.significand);
            if (e.exponent + length - 1 > p->max_exponent)
                p->max_exponent = e.exponent + length - 1;
            if (e.exponent + trailing < p->min_last_bit)
                p->min_last_bit = e.exponent + trailing;
            if (length - trailing > p->significant_bits)
                p->significant_bits = length - trailing;
        }
}

enum { ABREAST = 4 * WIDTH }; /* rows looked at together where they lie side by side */

typedef float narrow __attribute__((vector_size(VECTOR_BYTES / 2), aligned(4), may_alias));

INLINE V load_wide(const ulp_matrix *x, int64_t at)
{
    return x->is_double ? load((const double *)x->data + at)
                        : __builtin_convertvector(*(const narrow *)((const float *)x->data + at), V);
}

/* Look at rows that offsets place side by side, as pixels of a line are; some may be looked at twice. */
INLINE void look_along(const ulp_matrix *x, int64_t from, int64_t to, int64_t columns, seen_t *seen, V *squares)
{
    for (int64_t row = from; row < to; row += WIDTH) {
        const int64_t start = x->row_offsets[row + WIDTH < to ? row : to - WIDTH];
        V square = {0};
        for (int64_t k = 0; k < columns; k++)
            look(load_wide(x, start + x->column_offsets[k]), seen, &square);
        *squares = maximum(square, *squares);
    }
}

void ISA_NAME(ulp_profile_of)(const ulp_matrix *x, int64_t rows, int64_t columns, ulp_profile *profile)
{
    seen_t seen = {.least = broadcast(-(double)INFINITY)};
    double line[STRETCH] __attribute__((aligned(64)));
    V squares = {0};
    int64_t row = 0;
    if (x->row_stride == 1 && !x->row_offsets)
        for (; row + ABREAST <= rows; row += ABREAST) {
            V square[4] = {{0}, {0}, {0}, {0}};
            for (int64_t k = 0; k < columns; k++)
                for (int i = 0; i < 4; i++)
                    look(load_wide(x, row + i * WIDTH + k * x->column_stride), &seen, &square[i]);
            for (int i = 0; i < 4; i++)
                squares = maximum(square[i], squares);
        }
    for (int64_t side = row; row < rows; row++) {
        if (x->row_offsets && row >= side) {
            for (side = row + 1; side < rows && x->row_offsets[side] == x->row_offsets[side - 1] + 1;)
                side++;
            if (side - row >= WIDTH) {
                look_along(x, row, side, columns, &seen, &squares);
                row = side - 1;
                continue;
            }
        }
        V square = {0};
        for (int64_t k = 0; k < columns; k += STRETCH) {
            int count = columns - k < STRETCH ? (int)(columns - k) : STRETCH;
            const float *from = (const float *)x->data + (x->row_offsets ? x->row_offsets[row] : row * x->row_stride);
            if (x->row_offsets && !x->is_double)
                for (int i = 0; i < count; i++)
                    line[i] = from[x->column_offsets[k + i]];
            else if (x->column_stride == 1 && !x->is_double)
                for (int i = 0; i < count; i++)
                    line[i] = from[k + i];
            else
                for (int i = 0; i < count; i++)
                    line[i] = ulp_element(x, row, k + i);
            for (int i = count; i % WIDTH; i++)
                line[i] = 0;
            for (int i = 0; i < count; i += WIDTH)
                look(load(line + i), &seen, &square);
        }
        double sum = 0;
        for (int i = 0; i < WIDTH; i++)
            sum += square[i];
        squares = maximum(broadcast(sum), squares);
    }
    ulp_profile p = {.finite = 1};
    double largest = largest_of(seen.largest), least = -largest_of(seen.least);
    for (int i = 0; i < WIDTH; i++) {
        p.finite &= !seen.special[i];
        p.minus_zero |= seen.minus_zero[i] != 0;
    }
    p.nonzero = largest > 0;
    if (p.nonzero && least < 0x1p-1022) {
        look_closely(x, rows, columns, &p);
    } else if (p.nonzero) {
        double span = largest_of(seen.span);
        int64_t bits;
        memcpy(&bits, &span, sizeof bits);
        p.max_exponent = ilogb(largest);
        p.min_last_bit = ilogb(least);
        p.significant_bits = (int)(bits >> MANTISSA_BITS) + 1;
    }
    /* Every addition errs by 2^-53 of the sum at most, and squares lose less than 2^-1074 each to underflow. */
    p.square = largest_of(squares) * (1 + (double)(columns + 2) * 0x1p-52) + (double)columns * 0x1p-1022;
    *profile = p;
}
