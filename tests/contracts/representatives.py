"""Formats that stand for their families in the contracts, besides all those that the registry lists."""

import numpy as np

import formats
from formats import CodebookFormat

FLOATS = (
    "e1m1", "e3m0", "e5m0:ieee", "e2m5", "e5m2:ftz", "e4m3:ieee", "e4m3:fn:b11", "e4m3:fnuz:b3", "e3m3:finite",
    "e3m2:ieee", "e2m1:ieee:ftz", "e4m4:fn", "e10m2:b400", "e5m2:b-990", "e5m2:b1060", "e8m21", "e11m30:ftz", "e11m40",
)  # fmt: skip
P3109 = (
    "binary3p1uf", "binary3p2se", "binary4p2sf", "binary6p1sf", "binary8p1se", "binary8p1ue", "binary8p3se",
    "binary8p4sf", "binary8p4ue", "binary8p4uf", "binary8p7se", "binary8p8uf", "binary11p4se", "binary16p6ue",
    "binary16p8sf",
)  # fmt: skip
POSITS = (
    "posit2", "posit3e1", "posit6e1", "posit8", "posit8e0", "posit10e4", "posit16", "posit16e1", "posit16e6",
    "posit24", "posit32", "posit32e5",
)  # fmt: skip
TAKUMS = ("takum2", "takum6", "takum8", "takum12", "takum16", "takum32")
FIXED = (
    "uint1", "int2", "int4", "int8", "uint8", "fix8.4", "ufix8.4", "fix4.6", "fix16.8", "uint16", "int32", "fix53.20",
    "ufix24.1070",
)  # fmt: skip
BLOCKS = (
    "mxfp8_e4m3:ceil", "mxfp6_e2m3:rceil", "mxfp4:even", "mxint8:rne", "block(fp8_e5m2,16,scale=ue4m3,mode=rne)",
    "block(fp4_e2m1,3,scale=e8m0,mode=even,amax=bf16)", "block(int8,4,scale=bf16,mode=ru)",
    "block(posit8,8,scale=e8m0,mode=rceil)", "block(fp6_e3m2,1,scale=e8m0,mode=floor)",
    "block(int4,5,scale=e5m0:ieee,mode=rceil)",
)  # fmt: skip

# Values of NF4 as printed in Dettmers et al., "QLoRA", arXiv 2305.14314, appendix E.
NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def _random_codebook() -> CodebookFormat:
    rng = np.random.default_rng(71)
    return CodebookFormat("random codebook", np.unique(np.ldexp(rng.standard_normal(1500), rng.integers(-9, 9, 1500))))


CODEBOOKS = (
    CodebookFormat("nf4", NF4),
    CodebookFormat("two values", (-0.25, 3.0)),
    CodebookFormat("five symmetric values", (-4.0, -1.0, 0.0, 1.0, 4.0)),
    CodebookFormat("unlike neighbours", (-1e300, -1.0, -1e-300, 1e-310, 2e-310, 1.0, 1.0000000000000002, 1.7e308)),
    CodebookFormat("without zero", (-3.0, -1.0, 1.0, 5.0)),
    CodebookFormat("negative only", (-7.5, -3.25, -0.1)),
    CodebookFormat("own boundaries", (-2.0, -0.5, 0.0, 0.5, 2.0), (-0.5, -0.4, 0.25, 1.9)),
    _random_codebook(),
)

NAMES = (*FLOATS, *P3109, *POSITS, *TAKUMS, *FIXED, *BLOCKS)


def subjects(names: list[str] | None = None) -> list[formats.Format]:
    """Return the formats to be tested: those named, or else everything registered and the representatives."""
    if names:
        return [formats.get(name) for name in names]
    found = [formats.get(name) for name in (*formats.available(), *NAMES)]
    return [*dict.fromkeys([*found, *CODEBOOKS])]
