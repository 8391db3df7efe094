"""Element by element the same wherever it lies: random words, lengths of arrays, shared or unaligned memory."""

import math

import numpy as np
import pytest

import formats
import native
from formats import CodebookFormat, Format, Use
from formats.philox import word
from native import ffi, lib
from native.twins import decode, quantize
from native.uses import use_record
from tests.oracles.bits import assert_same_bits
from tests.oracles.integers import philox

SEED = 700
COUNTS = (0, 1, *(width + step for width in (2, 4, 8) for step in (-1, 1)), 511, 512, 513, 1024)
GUARD = 64

ENGINE_TYPES = {
    "f8": lib.ULP_F64,
    "f4": lib.ULP_F32,
    "u1": lib.ULP_U8,
    "u2": lib.ULP_U16,
    "u4": lib.ULP_U32,
    "u8": lib.ULP_U64,
}


def record(x):
    return ffi.new("ulp_array *", {"data": ffi.cast("void *", x.ctypes.data), "type": ENGINE_TYPES[x.dtype.str[1:]]})


def engine(x, y, use, place=None, flags=None, count=None):
    """Call the engine as Python's twins do, but with any place, any memory and any count."""
    bytes_of_flags = ffi.NULL if flags is None else ffi.cast("uint8_t *", flags.ctypes.data)
    where = ffi.new("ulp_place *", place or {})
    isa, count = native.isa_index(), x.size if count is None else count
    assert lib.ulp_quantize(isa, record(x), record(y), count, use_record(use), where, bytes_of_flags, ffi.NULL) == 0


# --- random words ----------------------------------------------------------------------------------------------------

# What is rounded; the value below, the step to the one above, how many bits of a double tell places between apart.
STEPS = {
    "a float": (Use.parse("e2m1:ieee/sr:64"), 1.0, 0.5, 51),
    "a float in lanes' way": (Use(formats.get("e11m51"), "sr:64"), 0.0, 2.0**-1073, 1),
    "an integer": (Use.parse("int8/sr:64"), 0.0, 1.0, 53),
    "an integer that wraps": (Use(formats.get("int8"), "sr:64", "wrap"), 0.0, 1.0, 53),
    "a posit": (Use.parse("posit16/sr:64"), 1.0, 2.0**-11, 41),
    "a takum": (Use.parse("takum16/sr:64"), 1.0, 2.0**-11, 41),
    "a codebook": (Use(CodebookFormat("ends", (0.0, 1.0)), "sr:64"), 0.0, 1.0, 53),
}
PLACES = [
    {"seed": 3},
    {"seed": 2**32 - 1, "step": 2**32 - 1, "index": 2**32 - 100},
    {"seed": 1, "step": 9, "index": 2**33 - 511, "k": 2**32 - 1, "site": 5},
    {"index": 2**64 - 300, "k": 7, "site": 2**32 - 1},
    {"index": 2**63 + 2**32 - 513, "seed": 2**31},
]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("what", STEPS)
def test_the_word_of_a_place_is_that_of_philox_to_the_last_bit_that_a_double_shows(what, which, isa):
    """The smallest fraction that a word carries up goes up, and the largest that it does not carry stays."""
    use, low, step, bits = STEPS[what]
    for place in PLACES:
        for count in (9, 600):  # alone, and by the tables of whole arrays
            index = np.array([(place.get("index", 0) + i) % 2**64 for i in range(count)], np.uint64)
            key = place.get("seed", 0), place.get("step", 0)
            words = philox(key, index, place.get("k", 0), place.get("site", 0))[which]
            stays = [(1 << bits) - 1 - (int(w) >> (64 - bits)) for w in words]
            for numerators, expected in ((stays, low), ([n + 1 for n in stays], low + step)):
                x = np.array([low + math.ldexp(n, -bits) * step for n in numerators])
                y = np.empty(count)
                engine(x, y, use, place | {"which": which})
                assert_same_bits(y, np.full(count, expected), x, f"{what} {place} which {which} {isa}")


# --- counts and memory -----------------------------------------------------------------------------------------------

USES = [
    "fp16", "e8m13/sat", "e5m2:ftz", "fp8_e4m3fnuz/sr", "ue4m3/ru", "e8m0/rz", "e3m0/rna", "dlfloat16/sr:5:c",
    "fp64/sat", "posit16", "posit16/sr", "posit8e0/rd", "takum16/odd", "takum12/sr:9:b", "fix16.8/rnz", "int8/sr:3",
    "fix20.1040/rne", "ufix8.4", "few/rna", "few/sr",
]  # fmt: skip

FEW = CodebookFormat("few", tuple(np.linspace(-1, 1, 15).tolist()))


def use_of(text):
    name, _, mode = text.partition("/")
    return Use(FEW, mode) if name == FEW.name else Use.parse(text)


def numbers(fmt):
    """Numbers between the values of a format and beyond its ends."""
    rng = np.random.default_rng(SEED)
    few = rng.integers(-3, 2, COUNTS[-1])
    x = np.ldexp(rng.standard_normal(COUNTS[-1]), few) * min(1.0, fmt.max)
    with np.errstate(over="ignore"):
        beyond = 3 * fmt.max * rng.choice([-1.0, 1.0], 1024)
    x = np.where(rng.random(1024) < 0.05, beyond, x)
    x[rng.random(1024) < 0.05] = 0.0
    return np.where(np.isinf(x), fmt.max, x)


def defined(x, use, seed):
    """Every element by the scalar definition."""
    fmt, mode = use.format, use.mode
    return [fmt.project(v, mode, use.overflow, word(seed, i)) for i, v in enumerate(x.tolist())]


@pytest.mark.parametrize("text", USES)
def test_any_count_gives_what_the_definition_gives_and_writes_nothing_beyond(text, isa):
    use = use_of(text)
    fmt, x = use.format, numbers(use.format)
    expected = np.array(defined(x, use, SEED))
    codes = np.array([fmt.code_of(v) for v in expected.tolist()], fmt.code_dtype)
    all_flags = np.zeros(x.size, bool)
    quantize(x, use, overflow=all_flags, seed=SEED)
    for count in COUNTS:
        note = f"{text} {count} {isa} seed {SEED}"
        y, flags = np.full(count + GUARD, 77.0), np.full(count + GUARD, 2, np.uint8)
        to_codes = np.full(count + GUARD, 0x55, fmt.code_dtype)
        flags[:count] = 0
        engine(x, y, use, {"seed": SEED}, flags, count)
        engine(x, to_codes, use, {"seed": SEED}, None, count)
        assert_same_bits(y[:count], expected[:count], x[:count], note)
        assert to_codes[:count].tolist() == codes[:count].tolist(), note
        assert_same_bits(decode(codes[:count], fmt), expected[:count], note=note)
        assert flags[:count].tolist() == all_flags[:count].tolist(), note
        assert (y[count:] == 77.0).all() and (to_codes[count:] == 0x55).all() and (flags[count:] == 2).all(), note


@pytest.mark.parametrize("text", USES)
def test_an_array_may_be_rounded_in_place(text, isa):
    use = use_of(text)
    for dtype in (np.float64, np.float32):
        if dtype == np.float32 and abs(math.frexp(use.format.smallest_subnormal)[1]) > 100:
            continue  # float32 does not hold the values
        x = numbers(use.format).astype(dtype)
        for count in COUNTS:
            expected, place = x[:count].copy(), x[:count].copy()
            engine(x[:count], expected, use, {"seed": SEED})
            engine(place, place, use, {"seed": SEED})
            assert_same_bits(place, expected, x[:count], f"{text} {count} {isa} seed {SEED}")


@pytest.mark.parametrize("name", ["fp16", "posit32", "takum16", "fix16.8", "block(fp4_e2m1,8,scale=e8m0,mode=floor)"])
def test_the_engine_is_given_aligned_memory_whatever_the_caller_has(name, monkeypatch, isa):
    fmt = formats.get(name)
    seen = []

    def seeing(x, record=native.twins.array_record):
        seen.append(x.flags.aligned)
        return record(x)

    def unaligned(x):
        moved = np.frombuffer(b"0" + x.tobytes(), x.dtype, offset=1).reshape(x.shape)
        assert not moved.flags.aligned
        return moved

    for module in (native.twins, native.block_twins):
        monkeypatch.setattr(module, "array_record", seeing)
    x = np.random.default_rng(SEED).standard_normal(515)
    for values in (x, x.astype(np.float32)):
        assert_same_bits(fmt.quantize(unaligned(values)), fmt.quantize(values), values, isa)
    if not fmt.has_blocks:
        codes = fmt.encode(x)
        assert fmt.encode(unaligned(x)).tolist() == codes.tolist()
        assert_same_bits(fmt.decode(unaligned(codes)), fmt.decode(codes), x, isa)
    assert seen and all(seen)


@pytest.mark.parametrize("name", ["mxfp4", "mxint8", "nvfp4", "block(fp8_e4m3,7,scale=e8m0,mode=floor)"])
@pytest.mark.parametrize("inner", [1, 3])
def test_blocks_of_any_length_are_rounded_as_defined(name, inner, monkeypatch, isa):
    fmt = formats.get(name)
    rng = np.random.default_rng(SEED)
    wide = np.ldexp(rng.standard_normal((2, 1024, inner)), rng.integers(-9, 9, (2, 1024, inner)))
    for count in (1, 7, 31, 32, 33, 511, 512, 513):
        x = wide[:, :count]
        got = [fmt.quantize(x, mode, seed=SEED, axis=1) for mode in ("rne", "sr")]
        with monkeypatch.context() as slowly:
            slowly.setattr(Format, "fast_twins", {})
            expected = [fmt.quantize(x, mode, seed=SEED, axis=1) for mode in ("rne", "sr")]
        assert_same_bits(got, expected, note=f"{name} {count} {inner} {isa} seed {SEED}")
