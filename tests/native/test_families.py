"""The elementwise engine, family by family: overflow flags, the search of codebooks, largest magnitudes, statuses."""

import math

import numpy as np
import pytest

import formats
import native
from formats import CodebookFormat, Rounding, Use, dyadic
from native import ffi, lib
from native.block_twins import _amax
from native.twins import decode, quantize
from native.uses import use_fields, use_record
from tests.oracles.bits import assert_same_bits

SEED = 900
MODES = ["rne", "rna", "rnz", "rz", "ru", "rd", "odd", "sr", "sr:4:b"]
NAMES = [
    "posit8", "posit16e1", "posit32", "takum8", "takum16", "fix8.4", "ufix8.4", "int8", "fix53.1000", "fix20.1040",
    "ue4m3", "e8m0", "dlfloat16", "binary8p3uf", "binary8p1se", "fp64", "e5m2:ftz",
]  # fmt: skip


def around_the_ends(fmt):
    rng = np.random.default_rng(SEED)
    ends = np.array([fmt.max, -fmt.max, fmt.smallest_subnormal, -fmt.smallest_subnormal])
    with np.errstate(all="ignore"):
        x = np.concatenate(
            [np.multiply.outer(ends, [0.25, 0.5, 0.99, 1, 1.01, 1.05, 1.25, 1.5, 2, 3, 2**17, 2**33]).ravel(), ends]
        )
        x = np.concatenate([x, np.nextafter(x, np.inf), np.nextafter(x, -np.inf), rng.standard_normal(300)])
    return np.concatenate([x[np.isfinite(x)], [0.0, -0.0]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_overflow_flags_are_those_of_the_definition(name, mode, isa):
    fmt = formats.get(name)
    x = around_the_ends(fmt)
    flags = np.zeros(x.shape, bool)
    quantize(x, Use(fmt, mode, "sat"), overflow=flags, seed=SEED)

    def overflows(i, v):
        if v == 0:
            return False
        return fmt.overflows(*dyadic.from_float(v), Use(fmt, mode).mode, formats.philox.word(SEED, i))

    expected = [overflows(i, v) for i, v in enumerate(x.tolist())]
    wrong = [v.hex() for v, got, want in zip(x.tolist(), flags.tolist(), expected, strict=True) if got != want]
    assert not wrong, f"{name}/{mode} {isa} seed {SEED}: {wrong[:5]}"
    never = mode in ("rz", "odd") and name.startswith("posit")  # all longer strings begin with maxpos
    assert any(expected) != (never or name == "fp64")


def test_a_codebook_flags_what_lies_beyond_its_ends(isa):
    fmt = CodebookFormat("ends", (-1.0, 0.0, 3.0))
    flags = np.zeros(6, bool)
    x = np.array([-1.0, -1.1, 2.9, 3.0, math.nextafter(3.0, 4.0), -math.inf])
    assert_same_bits(quantize(x, Use(fmt), overflow=flags), [-1.0, -1.0, 3.0, 3.0, 3.0, -1.0])
    assert flags.tolist() == [False, True, False, False, True, True]


def codebooks():
    rng = np.random.default_rng(SEED)
    yield "two values", [1.0, 1.5]
    yield "neighbouring doubles", [1.0, math.nextafter(1.0, 2), math.nextafter(1.0, 2) + 2.0**-52, 2.0]
    yield "all in one small corner", (1 + np.arange(5000) * 2.0**-52).tolist()
    yield "every binade, both signs", sorted({*(2.0 ** np.arange(-1074, 1024)), *(-(2.0 ** np.arange(-1074, 1024)))})
    yield "evenly spaced", np.linspace(-1, 1, 65536).tolist()
    yield "around zero", [-5e-324, 0.0, 5e-324, 1e-323]
    yield "the largest doubles", [-1.7976931348623157e308, 1.0, 1.7976931348623155e308, 1.7976931348623157e308]
    yield "a cluster among few", sorted({-3.0, 4.0, *(1 + rng.random(3000) * 2.0**-30)})


@pytest.mark.parametrize("mode", ["rne", "rna", "rnz", "ru", "rd", "odd"])
@pytest.mark.parametrize(("what", "values"), list(codebooks()), ids=lambda v: v if isinstance(v, str) else "")
def test_the_search_finds_the_number_of_thresholds_that_do_not_exceed_x(what, values, mode, isa):
    rng = np.random.default_rng(SEED)
    fmt = CodebookFormat(what.replace(" ", "_"), tuple(values))
    thresholds = fmt.thresholds(Rounding(mode))
    assert (thresholds[1:] > thresholds[:-1]).all()
    some = rng.choice(thresholds, min(thresholds.size, 3000), replace=False)
    with np.errstate(over="ignore"):
        x = np.concatenate([some, np.nextafter(some, np.inf), np.nextafter(some, -np.inf), rng.standard_normal(500)])
    x = np.concatenate([x, [0.0, -0.0, math.inf, -math.inf, 1e308, -1e308]])
    expected = np.searchsorted(thresholds, x + 0.0, side="right")
    codes = quantize(x, Use(fmt, mode), fmt.code_dtype)
    wrong = np.flatnonzero(codes != expected)
    assert not wrong.size, f"{what}/{mode} {isa}: {x[wrong[0]].hex()} got {codes[wrong[0]]}, {expected[wrong[0]]}"
    assert_same_bits(quantize(x, Use(fmt, mode)), np.array(values)[expected] + 0.0, x, what)


@pytest.mark.parametrize("mode", ["rne", "rna", "rnz", "rz", "ru", "rd", "odd"])
def test_thresholds_are_the_smallest_doubles_that_the_definition_takes_further(mode):
    rng = np.random.default_rng(SEED)
    fmt = CodebookFormat("some", (*np.unique(-rng.random(20)).tolist(), 0.0, *np.unique(rng.random(20)).tolist()))
    for code, threshold in enumerate(fmt.thresholds(Rounding(mode)).tolist(), 1):
        assert fmt.index_of(threshold, Rounding(mode)) >= code, threshold.hex()
        assert fmt.index_of(math.nextafter(threshold, -math.inf), Rounding(mode)) < code, threshold.hex()


def test_thresholds_of_a_rounding_that_is_no_step_function_are_refused():
    fmt = CodebookFormat("gap", (-1.0, 2.0))
    with pytest.raises(ValueError, match="gap: rz is not monotone where values of both signs have no zero between"):
        fmt.thresholds(Rounding("rz"))
    assert_same_bits(fmt.quantize([-0.5, 0.5, -0.0], "rz"), [2.0, -1.0, -1.0])


def test_stochastic_distances_that_126_bits_do_not_hold_are_left_to_the_definition(isa):
    fmt = CodebookFormat("wide", (-(2.0**900), -(2.0**-900), 0.0, 2.0**-1074, 0.125, 0.5, 1.0, 2.0**900))
    rng = np.random.default_rng(SEED)
    x = np.concatenate(
        [np.ldexp(rng.standard_normal(400), rng.integers(-1070, 900, 400)), rng.integers(1, 99, 400) / 100]
    )
    raw = quantize(x, Use(fmt, "sr"), seed=SEED)
    assert 0.1 < np.isnan(raw).mean() < 0.9, "no longer a mixture of the two ways"
    mode = formats.Use(fmt, "sr").mode
    expected = [fmt.project(v, mode, "sat", formats.philox.word(SEED, i)) for i, v in enumerate(x.tolist())]
    assert_same_bits(fmt.quantize(x, "sr", seed=SEED), expected, x, f"seed {SEED} {isa}")
    assert_same_bits(fmt.decode(fmt.encode(x, "sr", seed=SEED)), expected, x, f"seed {SEED} {isa}")


@pytest.mark.parametrize(("values", "x"), [((-3.0, 2.0**62), 2.0**60 - 2), ((-1.0, 2.0**70), 2.0**68)])
def test_stochastic_distances_are_known_beyond_64_bits(values, x, isa):
    """A quarter and less than 2^-64 more: rounded to one bit it is a half, whereas a quarter exactly is nothing."""
    ups = quantize(np.full(400, x), Use(CodebookFormat("far", values), "sr:1:c"), seed=SEED) == values[1]
    assert ups.tolist() == [formats.philox.word(SEED, i) >> 63 == 1 for i in range(400)]


def test_stochastic_distances_around_126_bits_are_those_of_the_definition(isa):
    fmt = CodebookFormat("ends", (-1.5, 1.5))
    x = np.repeat(np.ldexp(1.0, -np.arange(110, 140)), 12)
    mode = Use(fmt, "sr").mode
    expected = [fmt.project(v, mode, "sat", formats.philox.word(SEED, i)) for i, v in enumerate(x.tolist())]
    assert_same_bits(fmt.quantize(x, "sr", seed=SEED), expected, x, f"seed {SEED} {isa}")


@pytest.mark.parametrize(("name", "bits", "signed"), [("int8", 8, True), ("ufix8.4", 8, False), ("fix20.6", 20, True)])
def test_integers_of_any_size_wrap_modulo_2_to_their_bits(name, bits, signed, isa):
    fmt = formats.get(name)
    rng = np.random.default_rng(SEED)
    quanta = [int(n) << k for k in range(140) for n in rng.integers(-(1 << 53), 1 << 53, 4)]
    x = np.array([math.ldexp(n, -fmt.fraction_bits) for n in quanta])
    codes = [n % (1 << bits) for n in quanta]
    values = [math.ldexp(c - (c >> (bits - 1) << bits if signed else 0), -fmt.fraction_bits) for c in codes]
    assert_same_bits(fmt.quantize(x, overflow="wrap"), values, x, f"{name} {isa} seed {SEED}")
    assert fmt.encode(x, overflow="wrap").tolist() == codes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "axis"), [((7,), 0), ((600, 3), 0), ((3, 1030), 1), ((2, 5, 700), 1), ((0, 4), 1)])
def test_largest_magnitudes_of_blocks(shape, axis, dtype, isa):
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal(shape).astype(dtype)
    x[rng.random(shape) < 0.01] = np.inf
    x[rng.random(shape) < 0.01] = -np.nan
    x[rng.random(shape) < 0.1] = 0
    fmt = formats.get("block(fp4_e2m1,3,scale=e8m0,mode=floor)")
    starts = np.arange(0, shape[axis], 3)
    expected = np.maximum.reduceat(np.abs(x), starts, axis=axis) if x.size else np.zeros((0, 2))
    assert_same_bits(_amax(fmt, x, axis), expected, note=f"{shape} {axis} {isa} seed {SEED}")


@pytest.mark.parametrize("name", ["posit32", "takum32", "fp32", "e11m51", "fix53.20", "fp8_e4m3", "takum2"])
def test_every_count_of_codes_decodes_alike(name, isa):
    """Narrow formats are looked up once there are more codes than the format has."""
    fmt = formats.get(name)
    rng = np.random.default_rng(SEED)
    codes = rng.integers(0, fmt.code_count, 1500, dtype=np.uint64).astype(fmt.code_dtype)
    whole = decode(codes, fmt)
    for count in (0, 1, 3, 511, 512, 513):
        assert_same_bits(decode(codes[:count], fmt), whole[:count], codes[:count], f"{name} {count} {isa}")
    assert_same_bits(whole[:200], [fmt.value_of(code) for code in codes[:200].tolist()], codes[:200], name)


def test_an_unknown_instruction_set_is_an_error():
    x = np.ones(3)
    array = ffi.new("ulp_array *", {"data": ffi.cast("void *", x.ctypes.data), "type": lib.ULP_F64})
    place, blocks = ffi.new("ulp_place *"), ffi.new("ulp_blocks *", {"length": 3, "inner": 1, "size": 3})
    maxima = ffi.new("uint64_t[1]")
    for isa in (-1, lib.ulp_isa_count(), *(i for i in range(lib.ulp_isa_count()) if not lib.ulp_isa_supported(i))):
        record = use_record(Use.parse("fp16"))
        assert lib.ulp_quantize(isa, array, array, 3, record, place, ffi.NULL, ffi.NULL) == lib.ULP_BAD_ISA
        assert lib.ulp_decode(isa, array, array, 3, record) == lib.ULP_BAD_ISA
        assert lib.ulp_block_maxima(isa, array, 3, blocks, maxima) == lib.ULP_BAD_ISA
    assert x.tolist() == [1.0, 1.0, 1.0]


def test_a_family_that_the_engine_does_not_know_is_refused_by_name():
    with pytest.raises(TypeError, match="computes with floats, posits, takums and fixed point; mxfp4 is none"):
        use_fields(Use.parse("mxfp4"))


def test_a_subclass_of_a_family_goes_its_own_way():
    class Tripled(formats.FloatFormat):
        def project(self, x, rounding, overflow, word=0):
            return 3.0 * super().project(x, rounding, overflow, word)

    assert_same_bits(Tripled("tripled", 5, 10).quantize([1.0, 2.0]), [3.0, 6.0])
    assert native.isa() in native.available_isas()


def test_a_subclass_of_a_family_goes_its_own_way_in_blocks():
    class Same(formats.FixedFormat):
        pass

    x = np.random.default_rng(SEED).standard_normal(40)
    parts = {"size": 8, "scale": formats.get("e8m0"), "mode": "floor"}
    own = formats.BlockFormat("own", Same("same", 6, 2), **parts)
    known = formats.BlockFormat("known", formats.get("fix6.2"), **parts)
    assert_same_bits(own.quantize(x), known.quantize(x), x)
    assert own.encode(x).elements.tolist() == known.encode(x).elements.tolist()
