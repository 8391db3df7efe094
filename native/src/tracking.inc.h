/* Noise of elements, for one type: REAL, and NAME(x) of its functions. What is NaN passes every comparison, since NaN
 * stands for an infinite bound. */

static REAL NAME(size)(REAL x) { return x < 0 ? -x : x; }

static inline REAL NAME(weight)(REAL x, REAL factor, REAL tiny)
{
    REAL size = NAME(size)(x), found = size * factor;
    found = found < tiny ? tiny : found;
    return size == 0 ? 0 : found;
}

CLONED static void NAME(weighted)(const REAL *restrict x, const REAL *restrict noise, REAL *restrict y, int64_t n,
                                  REAL factor, REAL tiny)
{
    if (noise)
        for (int64_t i = 0; i < n; i++)
            y[i] = noise[i] + NAME(weight)(x[i], factor, tiny);
    else
        for (int64_t i = 0; i < n; i++)
            y[i] = NAME(weight)(x[i], factor, tiny);
}

CLONED static void NAME(grown)(REAL *x, int64_t n, REAL factor, REAL more)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = x[i] * factor + more;
}

CLONED static void NAME(kept)(const REAL *x, const REAL *noise, REAL *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = x[i] + noise[i] <= 0 ? 0 : noise[i];
}

static inline REAL NAME(gate)(REAL own, REAL g, REAL v, REAL d, REAL within, REAL growth, REAL *decided)
{
    REAL size = NAME(size)(g), reach = v + d, below = d - v * within;
    own = reach <= 0 ? 0 : own;
    size = reach <= 0 ? 0 : size;
    size = below <= 0 ? 0 : size;
    REAL more = (own + size) * growth;
    *decided = size == 0 ? 1 : 0;
    return size == 0 ? own : more;
}

CLONED static int64_t NAME(gated)(const REAL *restrict g, const REAL *restrict noise_g, const REAL *restrict x,
                                  const REAL *restrict noise_x, REAL *restrict y, int64_t n, REAL within, REAL growth)
{
    int64_t undecided = n;
    for (int64_t from = 0; from < n; from += BLOCK) {
        int64_t to = from + BLOCK < n ? from + BLOCK : n;
        REAL decided[BLOCK];
        WHOLE found = 0;
        if (noise_g)
            for (int64_t i = from; i < to; i++)
                y[i] = NAME(gate)(noise_g[i], g[i], x[i], noise_x[i], within, growth, decided + (i - from));
        else
            for (int64_t i = from; i < to; i++)
                y[i] = NAME(gate)(0, g[i], x[i], noise_x[i], within, growth, decided + (i - from));
        for (int64_t i = 0; i < to - from; i++)
            found += (WHOLE)decided[i];
        undecided -= found;
    }
    return undecided;
}

CLONED static void NAME(multiple_added)(const REAL *z, const REAL *y, const REAL *noise_x, const REAL *noise_y,
                                        REAL *to, int64_t n, const REAL *by)
{
    REAL of_y = by[0], of_z = by[1], of_noise = by[2], tiny = by[3], growth = by[4];
    for (int64_t i = 0; i < n; i++) {
        REAL found = NAME(size)(y[i]) * of_y + NAME(size)(z[i]) * of_z + (y[i] == 0 ? 0 : tiny);
        if (noise_x)
            found += noise_x[i];
        if (noise_y)
            found += (noise_y[i] + (noise_y[i] == 0 ? 0 : tiny)) * of_noise;
        to[i] = found * growth;
    }
}

/* The largest products of some rows of a with b, into rows of y; several at once read b less often. */
CLONED static void NAME(max_rows)(const REAL *a, const REAL *b, REAL *restrict y, int64_t rows, int64_t inner,
                                  int64_t columns)
{
    for (int64_t k = 0; k < inner; k++, b += columns)
        for (int64_t i = 0; i < rows; i++) {
            REAL by = a[i * inner + k], *restrict row = y + i * columns;
            for (int64_t j = 0; j < columns; j++) {
                REAL v = by * b[j];
                row[j] = (v > row[j]) | (v != v) ? v : row[j];
            }
        }
}

static void NAME(max_product)(const REAL *a, const REAL *b, REAL *y, int64_t rows, int64_t inner, int64_t columns)
{
    enum { AT_ONCE = 4 };
    memset(y, 0, (size_t)(rows * columns) * sizeof *y);
    for (int64_t i = 0; i < rows; i += AT_ONCE)
        NAME(max_rows)(a + i * inner, b, y + i * columns, rows - i < AT_ONCE ? rows - i : AT_ONCE, inner, columns);
}

/* What is known of each window of a row so far: its largest and second largest element; bad: whether one is NaN. */
typedef struct {
    REAL *first, *second, *bad;
} NAME(row);

static inline void NAME(take)(REAL v, REAL *first, REAL *second, REAL *bad)
{
    REAL lower = v < *first ? v : *first;
    *bad = v == v ? *bad : 1;
    *first = v > *first ? v : *first;
    *second = lower > *second ? lower : *second;
}

/* Windows of the output row (d, h) of a plane. */
static void NAME(windows)(const REAL *plane, const ulp_windows *w, int64_t d, int64_t h, NAME(row) r)
{
    REAL *restrict first = r.first, *restrict second = r.second, *restrict bad = r.bad;
    int64_t width = w->out[2], step = w->stride[2];
    for (int64_t i = 0; i < width; i++)
        first[i] = second[i] = -(REAL)INFINITY, bad[i] = 0;
    for (int64_t kd = 0; kd < w->kernel[0]; kd++) {
        int64_t id = d * w->stride[0] + kd * w->dilation[0] - w->padding[0];
        if (id < 0 || id >= w->in[0])
            continue;
        for (int64_t kh = 0; kh < w->kernel[1]; kh++) {
            int64_t ih = h * w->stride[1] + kh * w->dilation[1] - w->padding[1];
            if (ih < 0 || ih >= w->in[1])
                continue;
            const REAL *line = plane + (id * w->in[1] + ih) * w->in[2];
            for (int64_t kw = 0; kw < w->kernel[2]; kw++) {
                int64_t start = kw * w->dilation[2] - w->padding[2];
                int64_t from = start < 0 ? (-start + step - 1) / step : 0;
                int64_t to = start >= w->in[2] ? 0 : (w->in[2] - 1 - start) / step + 1;
                to = to < width ? to : width;
                for (int64_t i = from; i < to; i++)
                    NAME(take)(line[start + i * step], first + i, second + i, bad + i);
            }
        }
    }
}

/* Whether windows are the commonest ones: two by two, next to each other. */
static int NAME(quarters)(const ulp_windows *w)
{
    return w->kernel[0] == 1 && w->kernel[1] == 2 && w->kernel[2] == 2 && w->stride[0] == 1 && w->stride[1] == 2 &&
           w->stride[2] == 2 && !w->padding[0] && !w->padding[1] && !w->padding[2] && w->dilation[1] == 1 &&
           w->dilation[2] == 1 && w->in[0] == w->out[0] && w->in[1] >= 2 * w->out[1] && w->in[2] >= 2 * w->out[2];
}

CLONED static void NAME(largest_quarters)(const REAL *restrict x, REAL *restrict y, int64_t rows, int64_t width,
                                          int64_t line)
{
    for (int64_t h = 0; h < rows; h++, x += 2 * line, y += width)
        for (int64_t i = 0; i < width; i++) {
            REAL a = x[2 * i], b = x[2 * i + 1], c = x[line + 2 * i], e = x[line + 2 * i + 1];
            REAL high = a > b ? a : b, higher = c > e ? c : e, found = high > higher ? high : higher;
            found = a == a ? found : a;
            found = b == b ? found : b;
            found = c == c ? found : c;
            y[i] = e == e ? found : e;
        }
}

static int NAME(largest)(const REAL *x, REAL *y, const ulp_windows *w)
{
    int64_t in = w->in[0] * w->in[1] * w->in[2], width = w->out[2];
    if (NAME(quarters)(w)) {
        const int64_t plane = w->in[1] * w->in[2], outputs = w->out[1] * width;
        for (int64_t p = 0; p < w->planes * w->in[0]; p++)
            NAME(largest_quarters)(x + p * plane, y + p * outputs, w->out[1], width, w->in[2]);
        return ULP_OK;
    }
    REAL *scratch = malloc((size_t)(2 * width + 1) * sizeof *scratch);
    if (!scratch)
        return ULP_NO_MEMORY;
    for (int64_t p = 0; p < w->planes; p++)
        for (int64_t d = 0; d < w->out[0]; d++)
            for (int64_t h = 0; h < w->out[1]; h++, y += width) {
                NAME(row) r = {y, scratch, scratch + width};
                NAME(windows)(x + p * in, w, d, h, r);
                for (int64_t i = 0; i < width; i++)
                    y[i] = r.bad[i] != 0 ? (REAL)NAN : y[i];
            }
    free(scratch);
    return ULP_OK;
}

/* Adds what is NaN of two to a third, which is not: NaN stands for what is above everything. */
static inline REAL NAME(or_nan)(REAL v, REAL one, REAL other)
{
    return v + (one == one ? 0 : one) + (other == other ? 0 : other);
}

/* undecided, of a plane of windows that are quarters: first down the columns, then along the rows, of so many windows
 * at once that registers are full. */
CLONED static int64_t NAME(undecided_quarters)(const REAL *restrict x, const REAL *restrict noise,
                                               const REAL *restrict jump, REAL *restrict y, int64_t rows,
                                               int64_t width, int64_t line, REAL twice, REAL tiny)
{
    const int64_t wide = width < BLOCK ? width : BLOCK, high = BLOCK / (wide ? wide : 1);
    REAL upper[2 * BLOCK], lower[2 * BLOCK], largest[2 * BLOCK];
    WHOLE found = 0;
    for (int64_t top = 0; top < rows; top += high)
        for (int64_t left = 0; left < width; left += wide) {
            int64_t tall = rows - top < high ? rows - top : high, across = width - left < wide ? width - left : wide;
            for (int64_t h = 0; h < tall; h++) {
                int64_t from = 2 * (top + h) * line + 2 * left, to = 2 * h * across;
                for (int64_t i = 0; i < 2 * across; i++) {
                    REAL a = x[from + i], c = x[from + line + i], d = noise[from + i], g = noise[from + line + i];
                    upper[to + i] = NAME(or_nan)(a > c ? a : c, a, c);
                    lower[to + i] = a > c ? c : a;
                    largest[to + i] = NAME(or_nan)(d > g ? d : g, d, g);
                }
            }
            /* Blocks are either of whole rows or of a part of one, so that results lie one behind the other. */
            const REAL *own = jump + top * width + left;
            REAL *restrict out = y + top * width + left;
            for (int64_t i = 0; i < tall * across; i++) {
                REAL a = upper[2 * i], b = upper[2 * i + 1], d = largest[2 * i], f = largest[2 * i + 1];
                REAL first = a > b ? a : b, between = a > b ? b : a, beside = a > b ? lower[2 * i] : lower[2 * i + 1];
                REAL second = between > beside ? between : beside, most = NAME(or_nan)(d > f ? d : f, d, f);
                REAL reach = NAME(or_nan)(most * twice - (first - second), a, b), to = own[i];
                to = reach <= -tiny ? 0 : to;
                to = most <= 0 ? 0 : to;
                out[i] = to;
                found += to == 0 ? 0 : 1;
            }
        }
    return found;
}

static int64_t NAME(undecided)(const REAL *x, const REAL *noise, const REAL *restrict jump, REAL *restrict y,
                               const ulp_windows *w, REAL twice, REAL tiny)
{
    int64_t in = w->in[0] * w->in[1] * w->in[2], width = w->out[2], found = 0;
    if (NAME(quarters)(w)) {
        const int64_t plane = w->in[1] * w->in[2], rows = w->out[1], outputs = rows * width;
        for (int64_t p = 0; p < w->planes * w->in[0]; p++)
            found += NAME(undecided_quarters)(x + p * plane, noise + p * plane, jump + p * outputs, y + p * outputs,
                                              rows, width, w->in[2], twice, tiny);
        return found;
    }
    REAL *scratch = malloc((size_t)(6 * width + 1) * sizeof *scratch);
    if (!scratch)
        return -1;
    NAME(row) v = {scratch, scratch + width, scratch + 2 * width};
    NAME(row) d = {scratch + 3 * width, scratch + 4 * width, scratch + 5 * width};
    for (int64_t p = 0; p < w->planes; p++)
        for (int64_t deep = 0; deep < w->out[0]; deep++)
            for (int64_t h = 0; h < w->out[1]; h++, y += width, jump += width) {
                NAME(windows)(x + p * in, w, deep, h, v);
                NAME(windows)(noise + p * in, w, deep, h, d);
                WHOLE here = 0;
                for (int64_t i = 0; i < width; i++) {
                    /* What is NaN makes these NaN, which are above everything. */
                    REAL largest = d.bad[i] == 0 ? d.first[i] : (REAL)NAN;
                    REAL reach = largest * twice - (v.first[i] - v.second[i]), found_here = jump[i];
                    reach = v.bad[i] == 0 ? reach : (REAL)NAN;
                    found_here = reach <= -tiny ? 0 : found_here;
                    found_here = largest <= 0 ? 0 : found_here;
                    y[i] = found_here;
                    here += found_here == 0 ? 0 : 1;
                }
                found += here;
            }
    free(scratch);
    return found;
}

/* spread, of windows that are quarters. */
static int64_t NAME(spread_quarters)(const REAL *jump, REAL *y, const ulp_windows *w, REAL growth)
{
    int64_t width = w->out[2], line = w->in[2], found = 0;
    for (int64_t p = 0; p < w->planes * w->in[0]; p++, y += w->in[1] * line)
        for (int64_t h = 0; h < w->out[1]; h++, jump += width) {
            REAL any = 0;
            for (int64_t i = 0; i < width; i++)
                any = jump[i] == 0 ? any : 1;
            if (any == 0)
                continue;
            REAL *restrict one = y + 2 * h * line, *restrict two = one + line;
            WHOLE here = 0;
            for (int64_t i = 0; i < width; i++) {
                REAL more = jump[i], by = more == 0 ? 1 : growth;
                one[2 * i] = (one[2 * i] + more) * by;
                one[2 * i + 1] = (one[2 * i + 1] + more) * by;
                two[2 * i] = (two[2 * i] + more) * by;
                two[2 * i + 1] = (two[2 * i + 1] + more) * by;
                here += more == 0 ? 0 : 4;
            }
            found += here;
        }
    return found;
}

static int64_t NAME(spread)(const REAL *jump, REAL *y, const ulp_windows *w, REAL growth)
{
    if (NAME(quarters)(w))
        return NAME(spread_quarters)(jump, y, w, growth);
    int64_t in = w->in[0] * w->in[1] * w->in[2], found = 0;
    uint8_t *seen = malloc((size_t)in + 1);
    if (!seen)
        return -1;
    for (int64_t p = 0; p < w->planes; p++, y += in) {
        int any = 0;
        for (int64_t d = 0; d < w->out[0]; d++)
            for (int64_t h = 0; h < w->out[1]; h++)
                for (int64_t i = 0; i < w->out[2]; i++, jump++) {
                    if (*jump == 0)
                        continue;
                    if (!any)
                        memset(seen, 0, (size_t)in), any = 1;
                    for (int64_t kd = 0; kd < w->kernel[0]; kd++)
                        for (int64_t kh = 0; kh < w->kernel[1]; kh++)
                            for (int64_t kw = 0; kw < w->kernel[2]; kw++) {
                                int64_t at[3] = {d * w->stride[0] + kd * w->dilation[0] - w->padding[0],
                                                 h * w->stride[1] + kh * w->dilation[1] - w->padding[1],
                                                 i * w->stride[2] + kw * w->dilation[2] - w->padding[2]};
                                if (at[0] < 0 || at[1] < 0 || at[2] < 0 || at[0] >= w->in[0] || at[1] >= w->in[1] ||
                                    at[2] >= w->in[2])
                                    continue;
                                int64_t e = (at[0] * w->in[1] + at[1]) * w->in[2] + at[2];
                                y[e] = (y[e] + *jump) * growth;
                                found += !seen[e];
                                seen[e] = 1;
                            }
                }
    }
    free(seen);
    return found;
}
