/* Rounding whole arrays of doubles into posits and takums. Included by elementwise.inc.h. */

/* By the exponent field of a double, where the cut of its string lies behind the first bit of the fraction: how many of
 * the double's low bits are dropped, and the code of the power of two. 0 where the cut lies before, where there is no
 * such exponent, or where a takum's exponents end: from there a carry leads to no other power of two. (Where a posit's
 * end, no bit of the fraction is left.) */
typedef struct {
    int64_t dropped[2048];
    uint64_t code[2048];
} cuts;

static void make_cuts(cuts *c, const ulp_use *use)
{
    int keep = use->code_bits - 1, es = use->exponent_bits;
    memset(c, 0, sizeof *c);
    for (int field = 1; field < 2047; field++) {
        int leading = field - 1023, prefix;
        if (use->family == ULP_TAKUM) {
            unsigned characteristic = (unsigned)(leading >= 0 ? leading + 1 : -leading);
            prefix = leading <= -255 || leading >= 254 ? keep : 4 + 31 - __builtin_clz(characteristic);
        } else {
            int regime = leading >> es;
            prefix = (regime >= 0 ? regime + 2 : 1 - regime) + es;
        }
        if (keep <= prefix)
            continue;
        ulp_u128 string = use->family == ULP_TAKUM ? ulp_takum_string(0, leading) : ulp_posit_string(0, leading, es);
        c->dropped[field] = 52 - (keep - prefix);
        c->code[field] = (uint64_t)(string >> (128 - keep));
    }
}

/* Where the cut lies within the fraction, rounding the string is rounding the double at that bit: a carry leads to the
 * next power of two, as it does in the string. */
INLINE int tapered_lanes(const uint64_t *x, uint64_t *y, int n, const cuts *c, int rounding)
{
    uint64_t undecided = 0;
    for (int i = 0; i < n; i++) {
        uint64_t magnitude = x[i] & INT64_MAX, negative = (uint64_t)((int64_t)x[i] >> 63);
        uint64_t dropped = (uint64_t)c->dropped[magnitude >> 52];
        uint64_t mask = (1ull << dropped) - 1, half = (1ull << dropped) >> 1, last = magnitude >> dropped & 1;
        uint64_t add = rounding == ULP_RNE   ? half - 1 + last
                       : rounding == ULP_RNA ? half
                       : rounding == ULP_RNZ ? half - 1
                       : rounding == ULP_RU  ? mask & ~negative
                       : rounding == ULP_RD  ? mask & negative
                       : rounding == ULP_ODD ? mask & (last - 1)
                                             : 0;
        y[i] = ((magnitude + add) & ~mask) | (negative << 63);
        undecided |= !dropped;
    }
    return undecided != 0;
}

/* The same, stochastically; a double has no bits beyond those of the fraction that is dropped here. */
static int tapered_random(const uint64_t *x, uint64_t *y, int n, const cuts *c, const ulp_use *use,
                          const ulp_place *place)
{
    uint64_t undecided = 0, words[STRETCH];
    draw(words, place, n);
    for (int i = 0; i < n; i++) {
        uint64_t magnitude = x[i] & INT64_MAX, dropped = (uint64_t)c->dropped[magnitude >> 52];
        uint64_t unit = 1ull << dropped, rest = magnitude & (unit - 1);
        uint64_t up = (uint64_t)ulp_goes_up(rest << (63 - dropped) << 1, 0, 0, 0, use, words[i]);
        y[i] = (magnitude - rest + (up << dropped)) | (x[i] & ~(uint64_t)INT64_MAX);
        undecided |= !dropped;
    }
    return undecided != 0;
}

static void round_tapered(const double *x, double *y, int n, const ulp_use *use, const ulp_place *place,
                          uint8_t *overflow, const cuts *c)
{
    uint64_t in[STRETCH], out[STRETCH];
    int undecided = 1;
    memcpy(in, x, (size_t)n * sizeof *x);
    switch (c ? use->rounding : -1) {
#define ONE_LOOP(mode)                                                                                                 \
    case mode:                                                                                                         \
        undecided = tapered_lanes(in, out, n, c, mode);                                                                \
        break;
        ONE_LOOP(ULP_RNE)
        ONE_LOOP(ULP_RNA)
        ONE_LOOP(ULP_RNZ)
        ONE_LOOP(ULP_RZ)
        ONE_LOOP(ULP_RU)
        ONE_LOOP(ULP_RD)
        ONE_LOOP(ULP_ODD)
#undef ONE_LOOP
    case ULP_SR:
        undecided = tapered_random(in, out, n, c, use, place);
    }
    memcpy(y, out, (size_t)n * sizeof *y);
    for (int i = 0; undecided && i < n; i++)
        if (!c || !c->dropped[in[i] >> 52 & 0x7FF])
            round_one(x[i], y + i, i, use, place, overflow);
}

/* The codes of values of the format. */
static void encode_tapered(const double *value, uint64_t *codes, int n, const ulp_use *use, const cuts *c)
{
    const uint64_t sign = 1ull << (use->code_bits - 1);
    for (int i = 0; i < n; i++) {
        uint64_t bits, field;
        memcpy(&bits, value + i, sizeof bits);
        field = bits >> 52 & 0x7FF;
        if (c && c->dropped[field]) {
            uint64_t code = c->code[field] + ((bits & 0xFFFFFFFFFFFFFull) >> c->dropped[field]);
            codes[i] = bits >> 63 ? 2 * sign - code : code;
        } else {
            codes[i] = ulp_tapered_code(value[i], use);
        }
    }
}

/* ulp_tapered_value of posits, without branches: half of the codes are negative, half of the regimes are ones. */
static void decode_posits(const uint64_t *codes, double *value, int n, const ulp_use *use)
{
    const int keep = use->code_bits - 1, es = use->exponent_bits;
    const uint64_t sign = 1ull << keep;
    for (int i = 0; i < n; i++) {
        uint64_t negative = codes[i] >> keep, magnitude = ((codes[i] ^ (0 - negative)) + negative) & (sign - 1);
        uint64_t string = magnitude << (64 - keep), ones = (uint64_t)((int64_t)string >> 63);
        int64_t run = __builtin_clzll((string ^ ones) | 1);
        int64_t regime = ((int64_t)ones & (2 * run - 1)) - run;
        uint64_t rest = string << run << 1, bits;
        bits = (uint64_t)(regime * (1 << es) + (int64_t)(rest >> 1 >> (63 - es)) + 1023) << 52 | rest << es >> 12;
        bits = magnitude ? bits | negative << 63 : negative * 0x7FF8000000000000ull; /* 0 or NaR */
        memcpy(value + i, &bits, sizeof bits);
    }
}
