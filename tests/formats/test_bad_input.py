"""Bad input to the library: defined results, or one clear message that says what was found and what was expected."""

import math
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest

import formats
from formats import BlockFormat, CodebookFormat, FixedFormat, FloatFormat, PositFormat, TakumFormat, Use
from tests.oracles.bits import assert_same_bits

# One of each family: what is checked before a family comes in must be checked in all of them.
KINDS = [
    formats.get("fp16"), formats.get("binary16p1se"), formats.get("posit16"), formats.get("takum16"),
    formats.get("int8"), formats.get("mxfp4"), formats.get("nvfp4"), CodebookFormat("book", (0.0, 1.0, 2.0)),
]  # fmt: skip
SCALAR = [fmt for fmt in KINDS if not fmt.has_blocks]


@pytest.fixture(params=KINDS, ids=str)
def fmt(request):
    return request.param


@pytest.fixture(params=SCALAR, ids=str)
def scalar(request):
    return request.param


# --- arrays ----------------------------------------------------------------------------------------------------------

NO_ARRAYS = {
    "complex": [1j],
    "text": ["1"],
    "bytes": [b"1"],
    "none": [None],
    "mixed": [1.0, None],
    "objects": np.array([1.0, 2.0], object),
    "fraction": [Fraction(1, 3)],
    "decimal": [Decimal("1.5")],
    "long double": np.array([1.0], np.longdouble),
    "beyond 64 bits": [1 << 70],
    "dates": np.array(["2020"], "M8[Y]"),
    "records": np.zeros(2, "f4,f4"),
    "ml_dtypes": np.array([1.0], ml_dtypes.bfloat16),
    "dictionary": {},
    "set": {1.0},
}


@pytest.mark.parametrize("x", NO_ARRAYS.values(), ids=NO_ARRAYS)
def test_what_is_no_array_of_numbers_is_refused_with_its_type_and_a_remedy(fmt, x):
    message = r"^got an array of dtype .*; expected floats of at most 64 bits, or integers; convert it, with astype"
    for operation in (fmt.quantize, fmt.encode):
        with pytest.raises(TypeError, match=message):
            operation(x)


def test_masked_arrays_are_refused_since_the_mask_would_be_lost(fmt):
    masked = np.ma.array([1.0, 2.0], mask=[False, True])
    for operation in (fmt.quantize, fmt.encode):
        with pytest.raises(
            TypeError, match=r"got a masked array, whose mask would be lost; expected an array without one; fill it"
        ):
            operation(masked)


def test_codes_in_masked_arrays_are_refused(scalar):
    with pytest.raises(TypeError, match="got a masked array"):
        scalar.decode(np.ma.array([1, 2], mask=[False, True]))


def test_ragged_lists_are_refused_with_what_numpy_says(fmt):
    with pytest.raises(ValueError, match=r"^got list, of which numpy says: .*inhomogen.*; expected an array of num"):
        fmt.quantize([[1.0], [1.0, 2.0]])


def test_integers_that_float64_does_not_hold_are_refused(fmt):
    for x in ([(1 << 53) + 1], [-(1 << 63)], [(1 << 64) - 1]):
        with pytest.raises(TypeError, match=r"got 64-bit integers beyond 2\*\*53; expected ones that float64 holds"):
            fmt.quantize(x)


def test_arrays_of_integers_and_truth_values_are_taken_as_numbers(fmt):
    for x in ([0, 1, 1], np.array([False, True, True]), np.array([0, 1, 1], np.uint8), range(2)):
        assert_same_bits(fmt.quantize(x), fmt.quantize(np.asarray(x, np.float64)), note=str(fmt))


def test_torch_tensors_are_taken_as_arrays_and_refused_with_torch_s_own_words(fmt):
    torch = pytest.importorskip("torch")
    x = torch.tensor([[1.25, -0.5], [0.0, 3.0]])
    assert_same_bits(fmt.quantize(x), fmt.quantize(x.numpy()), note=str(fmt))
    assert_same_bits(fmt.quantize(x.T), fmt.quantize(x.numpy().T), note=str(fmt))
    with pytest.raises(TypeError, match=r"got Tensor, of which numpy says: .*tensor\.detach\(\)\.numpy\(\)"):
        fmt.quantize(torch.tensor([1.0], requires_grad=True))
    with pytest.raises(TypeError, match="got Tensor, of which numpy says: Got unsupported ScalarType BFloat16"):
        fmt.quantize(torch.tensor([1.0], dtype=torch.bfloat16))


def test_empty_arrays_keep_their_shape_and_have_no_codes(fmt):
    for shape in ((0,), (0, 3), (3, 0, 2)):
        assert fmt.quantize(np.zeros(shape)).shape == shape
        assert fmt.encode(np.zeros(shape)).shape == shape


def test_nan_is_refused_or_stays(fmt):
    x = [math.nan, 1.0]
    if fmt.has_nan:
        assert np.isnan(fmt.quantize(x)[0])
    else:
        with pytest.raises(
            ValueError, match=f"{fmt} has no NaN, and the array holds one; replace it before quantising"
        ):
            fmt.quantize(x)


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", [5, True, b"rne", ["rne"], formats.get("fp16"), 0.5])
def test_a_rounding_that_is_no_name_is_refused(fmt, rounding):
    with pytest.raises(TypeError, match=r"^rounding: got .* \(\w+\); expected a name such as 'rne'"):
        fmt.quantize([1.0], rounding)


@pytest.mark.parametrize(
    "rounding", ["", "RNE", "nearest", "rne ", "sr:", "sr:0", "sr:-1", "sr:65", "sr:64:c", "sr:1.5"]
)
def test_an_unknown_rounding_is_refused_with_the_known_ones(fmt, rounding):
    with pytest.raises(ValueError, match=r"^rounding '.*; expected (one of rne, rna|1 to 6[34] for variant)"):
        fmt.quantize([1.0], rounding)


@pytest.mark.parametrize("overflow", [5, True, "", "SAT", "saturate", ["sat"]])
def test_an_unknown_overflow_mode_is_refused_with_the_known_ones(fmt, overflow):
    with pytest.raises(ValueError, match=r"^overflow .* is unknown; expected one of ieee, sat, satprop, nan, wrap"):
        fmt.quantize([1.0], None, overflow)


def test_none_stands_for_the_defaults(fmt):
    assert_same_bits(fmt.quantize([1.0, 0.5], None, None, None), fmt.quantize([1.0, 0.5]))


@pytest.mark.parametrize("seed", [1.0, True, "1", [1], np.float64(2), np.array([3, 4])])
def test_a_seed_that_is_no_whole_number_is_refused(fmt, seed):
    with pytest.raises(TypeError, match=r"^seed: got .*; expected a whole number from 0 to 2\*\*32 - 1"):
        fmt.quantize([1.0], "sr", seed=seed)


@pytest.mark.parametrize("seed", [-1, 1 << 32, np.int64(-5)])
def test_a_seed_out_of_range_is_refused(fmt, seed):
    with pytest.raises(ValueError, match=rf"^seed: got {int(seed)}; expected a whole number from 0 to 2\*\*32 - 1"):
        fmt.quantize([1.0], "sr", seed=seed)


def test_a_seed_is_the_same_in_every_integer_type(fmt):
    x = np.linspace(0.1, 1.9, 40)
    expected = fmt.quantize(x, "sr", seed=200)
    for seed in (np.uint8(200), np.int64(200), np.array(200)):
        assert_same_bits(fmt.quantize(x, "sr", seed=seed), expected, x, str(fmt))


@pytest.mark.parametrize(("offset", "error"), [(-1, ValueError), (1 << 64, ValueError), (1.0, TypeError),
                                               (None, TypeError), (True, TypeError)])  # fmt: skip
@pytest.mark.parametrize("rounding", ["rne", "sr"])
def test_an_offset_that_is_no_index_is_refused(fmt, offset, error, rounding):
    with pytest.raises(error, match=r"^offset: got .*; expected a whole number from 0 to 2\*\*64 - 1"):
        fmt.quantize([1.0], rounding, offset=offset)


@pytest.mark.parametrize("axis", [1.0, "0", None, True, (0,)])
def test_an_axis_that_is_no_whole_number_is_refused_where_blocks_lie_along_it(axis):
    for name in ("mxfp4", "nvfp4"):
        with pytest.raises(TypeError, match=rf"^{name}: axis: got .*; expected a whole number"):
            formats.get(name).quantize([[1.0]], axis=axis)


# --- codes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codes", [[1.0], [True], ["1"], [None], [1 << 70]])
def test_codes_that_are_no_integers_are_refused(scalar, codes):
    with pytest.raises(TypeError, match=f"^codes of {scalar}: got .*; expected integers; convert them"):
        scalar.decode(codes)


def test_a_code_is_the_same_in_every_integer_type_and_refused_outside_the_format(scalar):
    for code in (1, np.int64(1), np.uint8(1), np.array(1)):
        if scalar.name != "binary16p1se":
            assert scalar.value_of(code) == scalar.value_of(1)
    top = len(scalar.table()) - 1 if scalar.fits_float64 else 65535
    for code in (-1, top + 1, np.int64(-1)):
        with pytest.raises(ValueError, match=rf"^code {int(code)} of {scalar} lies outside 0 \.\. {top}"):
            scalar.value_of(code)
    for code in (1.0, "1", None, True):
        with pytest.raises(TypeError, match=rf"^code of {scalar}: got .*; expected a whole number from 0 to {top}"):
            scalar.value_of(code)


def test_block_codes_are_expected_where_blocks_are_decoded():
    with pytest.raises(TypeError, match="codes of mxfp4: got list; expected BlockCodes; give what encode returns"):
        formats.get("mxfp4").decode([1])


# --- records ---------------------------------------------------------------------------------------------------------

FP4, E8M0 = formats.get("fp4_e2m1"), formats.get("e8m0")
RECORDS = {
    "m: exponent_bits: got 4.0 (float); expected a whole number": lambda: FloatFormat("m", 4.0, 3),
    "m: fraction_bits: got '3' (str); expected a whole number": lambda: FloatFormat("m", 4, "3"),
    "m: bias: got 1.5 (float); expected a whole number": lambda: FloatFormat("m", 4, 3, bias=1.5),
    "m: exponent_bits: got True (bool); expected a whole number": lambda: FloatFormat("m", True, 3),
    "m: total_bits: got 8.0 (float); expected a whole number": lambda: FixedFormat("m", 8.0),
    "m: n: got 8.5 (float); expected a whole number": lambda: TakumFormat("m", 8.5),
    "m: es: got 1.0 (float); expected a whole number": lambda: PositFormat("m", 8, 1.0),
    "m: size: got 4.0 (float); expected a whole number": lambda: BlockFormat("m", FP4, 4.0, E8M0, "floor"),
    "m: got 'fp4_e2m1' as the format of elements; expected a format": lambda: BlockFormat(
        "m", "fp4_e2m1", 4, E8M0, "floor"
    ),
    "got 'fp16'; expected a format; give one, or a name to Use.parse": lambda: Use("fp16"),
    "got NoneType; expected the use of a format; give e.g. 'fp8_e4m3/sat'": lambda: Use.parse(None),
    "got bytes; expected the use of a format; give e.g. 'fp8_e4m3/sat'": lambda: Use.parse(b"fp16"),
    "format 'mine': got 'fp16' (str); expected a format, such as a FloatFormat": lambda: formats.register(
        "mine", "fp16"
    ),
    "format 'mine': got None (NoneType); expected a format, such as a FloatFormat": lambda: formats.register(
        "mine", None
    ),
    "got bytes; expected the name of a format; give e.g. 'fp8_e4m3'": lambda: formats.get(b"fp16"),
}


@pytest.mark.parametrize(("message", "call"), RECORDS.items(), ids=RECORDS)
def test_a_value_of_the_wrong_type_is_refused_by_name(message, call):
    with pytest.raises(TypeError) as caught:
        call()
    assert str(caught.value) == message


def test_parameters_are_kept_as_python_integers():
    assert FloatFormat("m", np.int64(4), np.uint8(3)) == FloatFormat("m", 4, 3)
    assert FloatFormat("m", np.int64(4), np.uint8(3)).max == 240.0
    assert PositFormat("m", np.int64(16)).value_of(1) == 2.0**-56


def test_a_malformed_name_to_register_is_refused():
    with pytest.raises(ValueError, match="format name 5: expected a lower-case identifier such as 'mine8'"):
        formats.register(5, FloatFormat("m", 4, 3))


# --- names -----------------------------------------------------------------------------------------------------------

SUGGESTED = {
    "float16": "did you mean fp16?",
    "half": "did you mean fp16?",
    "Float32": "did you mean fp32?",
    "double": "did you mean fp64?",
    "bfloat16": "did you mean bf16?",
    "binary32": "did you mean fp32?",
    "float8_e4m3fn": "did you mean fp8_e4m3?",
    "float8_e4m3": "did you mean e4m3:ieee or fp8_e4m3 (OCP)?",
    "fp8": "did you mean fp8_e4m3 or fp8_e5m2 or fp8_e3m4 or fp8_e4m3fnuz or fp8_e5m2fnuz or fp8_e4m3b11fnuz?",
    "fp4": "did you mean fp4_e2m1?",
    "tf": "did you mean tf32?",
    "mxfp8": "did you mean mxfp8_e4m3 or mxfp8_e5m2?",
    "mxint": "did you mean mxint8?",
    "FP16": "did you mean fp16?",
    "Posit16": "did you mean posit16?",
    "E5M10": "did you mean fp16?",
    "E4M3": "names are lower case; write one of: fp8_e4m3 (OCP, largest 448), e4m3:ieee (largest 240), fp8_e4m3fnuz",
    "posit": "names of this family are written positN[eES], such as posit16",
    "posit016": "names of this family are written positN[eES], such as posit16",
    "int": "names of this family are written [u]intN, such as int8",
    "uint": "names of this family are written [u]intN, such as int8",
    "fix8": "names of this family are written [u]fixN.F, such as fix16.8",
    "takum": "names of this family are written takumN, such as takum16",
    "binary8": "names of this family are written binaryKpP(s|u)(e|f), such as binary8p4se",
    "e5": "names of this family are written eXmY[:ieee|fn|fnuz|finite][:bBIAS][:ftz], such as e5m7",
    "block": "names of this family are written block(ELEMENT,SIZE,scale=FORMAT,mode=MODE[,amax=FORMAT])",
    "qtorch": "names of this family are written qtorch_positN[eES], qtorch_eXmY, such as qtorch_posit16e1",
    "nvfp8": "did you mean nvfp4?",
    "bf17": "did you mean bf16",
    "logarithmic": "expected one of fp64, fp32",
}


@pytest.mark.parametrize(("name", "remedy"), SUGGESTED.items())
def test_an_unknown_name_suggests_the_nearest_known_ones(name, remedy):
    with pytest.raises(ValueError) as caught:
        formats.get(name)
    assert str(caught.value).startswith(f"format '{name}' is unknown; {remedy}")
    assert not remedy.startswith("expected") or str(caught.value).endswith("; take one")


IMPOSSIBLE = {
    "posit16e9": "posit16e9: es = 9 is out of range for n = 16; expected es from 0 to 6",
    "posit33": "posit33: n = 33 is out of range; posits have n from 2 to 32 bits",
    "takum33": "takum33: n = 33 is out of range; takums have n from 2 to 32 bits",
    "int54": "int54: 54 bits are out of range; expected 2 to 53",
    "uint0": "uint0: 0 bits are out of range; expected 1 to 53",
    "fix8.1075": "fix8.1075: 1075 fraction bits are out of range; expected 0 to 1074",
    "binary8p8se": "binary8p8se: P = 8 is out of range for K = 8; expected P from 1 to 7 in signed formats",
    "e12m3": "e12m3: 12 exponent and 3 fraction bits are out of range; expected 1 to 11 and 0 to 52",
    "e5m2:b100000": "e5m2:b100000: a bias of 100000 is out of range; expected -99999 to 99999",
    "binary2p1se": "binary2p1se: K = 2 is out of range; P3109 formats have K from 3 to 16 bits",
    "mxfp4:ftz": "mode 'ftz' is unknown for scales in e8m0, of 1 significand bit; expected floor, ceil, rceil",
    "nvfp4:ceil": "nvfp4:ceil: two levels take scales with a significand, mode rne and no narrowed amax; "
    "got scales in ue4m3 and mode 'ceil'",
    "posit16:ftz": "format 'posit16:ftz': modifiers apply to floats, and posit16 is none",
    **{
        name: f"{name}: binary16p1{kind} has values that float64, in which arrays are kept, does not hold; take"
        for name, kind in (
            ("block(binary16p1se,4,scale=e8m0,mode=floor)", "se"),
            ("block(fp4_e2m1,4,scale=binary16p1ue,mode=ceil)", "ue"),
            ("block(fp4_e2m1,4,scale=e8m0,mode=ceil,amax=binary16p1se)", "se"),
        )
    },
}


@pytest.mark.parametrize(("name", "reason"), IMPOSSIBLE.items())
def test_an_impossible_parameter_says_which_and_why(name, reason):
    with pytest.raises(ValueError) as caught:
        formats.get(name)
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", [name for name in formats.suggestions.FOREIGN.values() if " " not in name])
def test_every_suggested_name_is_one(name):
    assert formats.get(name).name == name
