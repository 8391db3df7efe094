"""The string and the YAML form of every accumulator, and what is said about wrong ones."""

import random

import pytest

import simulator
from simulator.arithmetic import accumulator
from simulator.arithmetic.accumulators import innermost, joins_late, outermost, parts, result_use, uses, walk
from simulator.arithmetic.presets import PRESETS
from tests.oracles.specs import SPECS, STOCHASTIC

SEED = 850

# String as written: canonical string, YAML.
FORMS = {
    "fma(fp16, 4)": ("fma(fp16, 4)", {"fma": "fp16", "products": 4}),
    "fma(fp16,1)": ("fma(fp16)", {"fma": "fp16", "products": "1"}),
    "fma(products=2, sum=bf16/rz)": ("fma(bf16/rz, 2)", {"fma": "bf16/rz", "products": 2}),
    "fma(fp16/sr:64)": ("fma(fp16/sr)", {"fma": "fp16/sr:64:a"}),
    "seq(sum=fp16, product=exact)": ("fma(fp16)", {"seq": "fp16", "product": "exact"}),
    "seq(product=bf16, sum=fp32)": ("seq(bf16, fp32)", {"seq": "fp32", "product": "bf16"}),
    "tree(fp16)": ("tree(fp16)", {"tree": "fp16"}),
    "pairwise(fp16,2)": ("tree(fp16)", {"pairwise": "fp16", "radix": 2}),
    "tree(fp16, 16)": ("tree(fp16, 16)", {"tree": "fp16", "radix": 16}),
    "tree(fp16, leaves=exact)": ("tree(fp16, leaves=exact)", {"tree": "fp16", "leaves": "exact"}),
    "tree(fp16, 3, exact)": ("tree(fp16, 3, leaves=exact)", {"tree": "fp16", "radix": 3, "leaves": "exact"}),
    "tree(fp16, leaves=rounded)": ("tree(fp16)", {"tree": "fp16", "leaves": "rounded"}),
    "interleave(2,fma(fp16),seq(bf16))": (
        "interleave(2, fma(fp16), seq(bf16))",
        {"interleave": 2, "inner": {"fma": "fp16"}, "join": "seq(bf16)"},
    ),
    "chunk(8, tree(fp16, 4), interleave(2, kahan(fp16), exact(fp32)))": (
        "chunk(8, tree(fp16, 4), interleave(2, kahan(fp16), exact(fp32)))",
        {
            "chunk": 8,
            "inner": {"tree": "fp16", "radix": 4},
            "outer": {"interleave": 2, "inner": {"kahan": "fp16"}, "join": {"exact": "fp32"}},
        },
    ),
    "reverse(2, fma(fp16))": ("reverse(2, fma(fp16))", {"reverse": 2, "inner": {"fma": "fp16"}}),
    "late( neumaier( fp16 ) )": ("late(neumaier(fp16))", {"late": {"neumaier": "fp16"}}),
    "exact(posit32)": ("exact(posit32)", {"exact": "posit32"}),
    "fixed(24, 8, wrap)": ("fixed(24, 8, wrap)", {"fixed": 24, "frac": 8, "mode": "wrap"}),
    "fixed(24,8,track,rne)": ("fixed(24, 8, track)", {"fixed": 24, "frac": 8, "mode": "track", "rounding": "rne"}),
    "fixed(bits=8, frac=0, mode=sat, rounding=sr:4:b)": (
        "fixed(8, 0, sat, sr:4:b)",
        {"fixed": 8, "frac": 0, "mode": "sat", "rounding": "sr:4:b"},
    ),
    "aligned(4, 23, fp32/rz)": (
        "aligned(n=4, frac=23, out=fp32/rz)",
        {"aligned": 4, "frac": 23, "out": "fp32/rz"},
    ),
    "aligned(n=16, frac=25, out=fp32/rz, c=late, align=rd, e_min=-133, zero=keep, order=two_of_four)": (
        "aligned(n=16, frac=25, out=fp32/rz, c=late, align=rd, e_min=-133, zero=keep, order=two_of_four)",
        {
            "aligned": 16, "frac": 25, "out": "fp32/rz", "c": "late", "align": "rd", "e_min": -133, "zero": "keep",
            "order": "two_of_four",
        },
    ),
    "aligned(8, 13, e8m13/rz, c=early, group=4, e_min=-132)": (
        "aligned(n=8, frac=13, out=e8m13/rz, e_min=-132, group=4)",
        {"aligned": 8, "frac": 13, "out": "e8m13/rz", "e_min": "-132", "group": 4},
    ),
    "aligned(8, 24, fp32, c=late, parts=2, sum_frac=31, c_frac=24, c_reach=25)": (
        "aligned(n=8, frac=24, out=fp32, c=late, parts=2, sum_frac=31, c_frac=24, c_reach=25)",
        {
            "aligned": 8, "frac": 24, "out": "fp32", "c": "late", "parts": 2, "sum_frac": 31, "c_frac": 24,
            "c_reach": 25,
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", FORMS)
def test_string_and_yaml_are_one_accumulator_with_one_canonical_string(text):
    printed, mapping = FORMS[text]
    spec = simulator.mac(text)
    assert str(spec) == printed
    assert simulator.mac(printed) == spec == simulator.mac({"accumulator": mapping}) == simulator.mac(spec.accumulator)
    assert hash(simulator.mac(printed)) == hash(spec)


@pytest.mark.parametrize("text", [*SPECS, *STOCHASTIC, *PRESETS])
def test_every_spec_reads_back_what_it_prints(text):
    spec = simulator.mac(text)
    assert simulator.mac(str(spec)) == spec
    assert str(simulator.mac(str(spec))) == str(spec)
    for part in walk(spec.accumulator):
        assert simulator.mac(part).accumulator == simulator.mac(str(part)).accumulator == part


INNERMOST = [
    "fma(fp16)", "tree(bf16, 3)", "fixed(8, 2, sat, rz)", "kahan(fp8_e5m2/sr:3)", "exact(posit16)", "fma(fp16, 7)",
    "aligned(n=4, frac=9, out=fp16)", "seq(fp8_e4m3/sat, fp16)",
]  # fmt: skip


def nested(rng, depth):
    if depth == 0:
        return rng.choice(INNERMOST)
    inner, outer = nested(rng, depth - 1), nested(rng, rng.randrange(depth))
    return f"{rng.choice(['chunk', 'interleave'])}({rng.randrange(1, 9)}, {inner}, {outer})"


def test_random_nestings_read_back_and_know_their_ends():
    rng = random.Random(SEED)
    for _ in range(300):
        text = nested(rng, rng.randrange(4))
        spec = simulator.mac(text)
        assert str(spec) == text
        first, last = innermost(spec.accumulator), outermost(spec.accumulator)
        assert not parts(first) and not parts(last)
        assert list(walk(spec.accumulator))[-1] == last and first in list(walk(spec.accumulator))
        assert result_use(spec.accumulator) == last.sum == uses(spec.accumulator)[-1]
        assert joins_late(spec.accumulator) == str(last).startswith("tree")
        assert joins_late(simulator.mac(f"late({text})").accumulator)


WRONG = {
    "h100.fp16(": "'h100.fp16(': expected h100.fp16, or its output format in parentheses behind",
    "fma(fp16, 0)": "fma: the number of products of a step: got 0; expected a whole number from 1 to 4096",
    "fma(fp16, 4097)": "fma: the number of products of a step: got 4097; expected a whole number from 1 to 4096",
    "fma(fp16, 2.5)": "fma: products: got '2.5'; expected a whole number",
    "fma(fp16, sum=bf16)": "sum is given twice",
    "fma(sum=fp16, bf16)": "fma: products: got 'bf16'; expected a whole number",
    "fma(fp16, lanes=2)": "fma has no argument 'lanes'; expected fma(sum, products?)",
    "tree(fp16, 1)": "tree: the radix: got 1; expected a whole number from 2 to 4096",
    "tree(fp16, 2, 3)": "tree: leaves: got '3'; expected rounded or exact",
    "tree(fp16, leaves=raw)": "tree: leaves: got 'raw'; expected rounded or exact",
    "interleave(0, fma(fp16), fma(fp16))": "the number of lanes: got 0; expected a whole number from 1 to 4096",
    "interleave(2, fma(fp16))": "interleave: join is missing; expected interleave(ways, inner, join)",
    "interleave(2, late(fma(fp16)), fma(fp16))": "interleave: write late(interleave(...))",
    "chunk(9223372036854775808, fma(fp16), fma(fp16))": "chunk: the length of a run: got 9223372036854775808; expected",
    "chunk(2, fp16, fma(fp16))": "accumulator 'fp16' is unknown; it is a format, write e.g. fma(fp16)",
    "fp8_e4m3/sat": "accumulator 'fp8_e4m3/sat' is unknown; it is a format, write e.g. fma(fp8_e4m3/sat)",
    "chunk(99999999999999999999, fma(fp16), seq(fp16))": "got 99999999999999999999; expected a whole number from 1 to",
    "chunk(4, h100.fp16 -> fp16, seq(fp16))": "'->' stands within parentheses; there the output of a unit is written",
    "seq(fp16, fp32, fp64)": "expected seq(product?, sum); 'fp64' is too much",
    "fp16 -> fma(fp16": "'fma(fp16': expected fma(sum, products?); the closing parenthesis is missing",
    "kahan()": "an argument is empty",
    "kahan": "'kahan': expected kahan(sum)",
    "neumaier(fp16": "'neumaier(fp16': expected neumaier(sum)",
    "late(tree(fp16), fp16)": "'fp16' is too much",
    "exact(mxfp8_e4m3)": "accumulators and outputs are single values",
    "reverse(0, fma(fp16))": "reverse: the length of a run: got 0; expected a whole number from 1 to 2**63 - 1",
    "reverse(2, late(fma(fp16)))": "reverse: write late(reverse(...))",
    "chunk(2, fma(fp16), reverse(2, fma(fp16)))": "chunk: reverse is for products; write it around or inside",
    "aligned(4, 8, fp16, part_frac=8)": "aligned: part_frac is for parts=2",
    "fixed(1, 0, wrap)": "fixed: bits: got 1; expected a whole number from 2 to 53",
    "fixed(54, 0, wrap)": "fixed: bits: got 54; expected a whole number from 2 to 53",
    "fixed(8, -1, wrap)": "fixed: frac: got -1; expected a whole number from 0 to 1074",
    "fixed(8, 0)": "fixed: mode is missing; expected fixed(bits, frac, mode, rounding?)",
    "fixed(8, 0, clip)": "fixed: mode: got 'clip'; expected wrap, sat or track",
    "fixed(8, 0, wrap, near)": "rounding 'near' is unknown",
    "aligned(0, 8, fp16)": "aligned: n, the products of a step: got 0; expected a whole number from 1 to 1024",
    "aligned(4, 0, fp16)": "aligned: frac: got 0; expected a whole number from 1 to 60",
    "aligned(4, 61, fp16)": "aligned: frac: got 61; expected a whole number from 1 to 60",
    "aligned(4, 8)": "aligned: out is missing",
    "aligned(4, 8, fp16, c=never)": "aligned: c: got 'never'; expected early or late",
    "aligned(4, 8, fp16, align=ru)": "aligned: align: got 'ru'; expected rz or rd or rne",
    "aligned(4, 8, fp16, zero=skip)": "aligned: zero: got 'skip'; expected drop or keep",
    "aligned(4, 8, fp16, order=down)": "aligned: order: got 'down'; expected ascending or two_of_four",
    "aligned(4, 8, fp16, e_min=low)": "aligned: e_min: got 'low'; expected a whole number",
    "aligned(4, 8, fp16, group=3)": "aligned: groups of 3 do not divide steps of n=4",
    "aligned(4, 8, fp16, group=8)": "aligned: group: got 8; expected a whole number from 1 to 4",
    "aligned(4, 8, fp16, parts=2)": "are for c=late",
    "aligned(4, 8, fp16, c=late, parts=3)": "aligned: parts: got 3; expected a whole number from 1 to 2",
    "aligned(4, 8, fp16, c=late, parts=2, group=2)": "aligned: groups of products are for one part in ascending order",
    "trees(fp16)": "accumulator 'trees' is unknown; did you mean tree?",
    "late(late(tree(fp16)))": "late(late(...)) says the same thing twice; write late once",
    "fma(fp16/sr:65)": "rounding 'sr:65': 65 random bits; expected 1 to 64 for variant a",
    "fma(" * 300 + "fp16" + ")" * 300: "accumulator of 1504 characters; expected at most 1000",
}


@pytest.mark.parametrize(("text", "message"), WRONG.items(), ids=lambda v: v[:50])
def test_a_wrong_string_is_refused_with_the_part_that_is_wrong(text, message):
    with pytest.raises(ValueError) as caught:
        simulator.mac(text)
    assert message in str(caught.value)


WRONG_YAML = [
    ({"tree": "fp16", "fan": 3}, "tree: unknown key 'fan'; expected radix, leaves"),
    ({"tree": "fp16", "radix": True}, "tree: radix: got True; expected a whole number"),
    ({"tree": "fp16", "leaves": 3}, "tree: leaves: got 3; expected a word"),
    ({"kahan": "fp16", "sum": "fp16"}, "kahan: unknown key 'sum'; expected no other key"),
    ({"kahan": {"fma": "fp16"}}, "kahan: sum: got {'fma': 'fp16'}; expected a format; write e.g. fp16/sat"),
    ({"kahan": "fp16", "neumaier": "fp16"}, "accumulator: got kahan, neumaier; expected one of the keys"),
    ({"interleave": 2, "inner": 3, "join": "fma(fp16)"}, "interleave: inner: got 3; expected an accumulator"),
    ({"interleave": "two", "inner": "fma(fp16)", "join": "fma(fp16)"}, "interleave: ways: got 'two'; expected"),
    ({"fixed": 8, "frac": 2.0, "mode": "wrap"}, "fixed: frac: got 2.0; expected a whole number"),
    ({"aligned": 4, "out": "fp16"}, "aligned: frac is missing"),
    ({}, "accumulator: got no key; expected one of the keys fma"),
]


@pytest.mark.parametrize(("form", "message"), WRONG_YAML, ids=str)
def test_a_wrong_mapping_is_refused_with_the_key_that_is_wrong(form, message):
    with pytest.raises(ValueError) as caught:
        simulator.mac({"accumulator": form})
    assert message in str(caught.value)


def test_mappings_without_end_are_refused():
    form = {"chunk": 2, "outer": "fma(fp16)"}
    form["inner"] = form
    with pytest.raises(ValueError) as caught:
        accumulator(form)
    assert str(caught.value) == "accumulator: its mappings are nested too deeply, or within themselves"
