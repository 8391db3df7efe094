"""MAC specs of every accumulator, plain and within each other, in formats of every family: what the engine must run."""

import formats
from formats import CodebookFormat, Use
from simulator.arithmetic.accumulators import Chunk, Fma, Interleave, Kahan, Tree
from simulator.arithmetic.spec import MacSpec


def _split(text: str) -> list[str]:
    return [part.strip() for line in text.strip().splitlines() for part in line.split("  ")]


SPECS = _split("""
fma(fp16)  fma(fp16, 4)  fma(fp8_e4m3/sat, 3)  fma(bf16/rz, 2)  fma(posit8)  fma(posit8, 2)  fma(takum16)
fma(fix12.4/wrap)  fma(fix12.4/rz/wrap, 3)  fma(e5m2:ftz, 2)  fma(fp32/odd, 5)  fma(binary8p3se, 4)  fma(uint8/wrap)
seq(fp16)  seq(fp8_e4m3/sat, fp16)  seq(fix16.8/wrap, fix12.4/wrap)  seq(fp8_e5m2/rz, posit16)  seq(dlfloat16)
tree(fp16)  tree(fp8_e4m3/sat, 4)  tree(bf16, 3, leaves=exact)  pairwise(posit16, leaves=exact)  tree(fp32, 16)
late(tree(fp16, 3)) -> fp8_e4m3  tree(fp16) -> bf16/ru  tree(fix12.4/wrap, leaves=exact)
interleave(2, fma(fp16), seq(fp16))  interleave(3, tree(fp16), kahan(bf16))  interleave(1, seq(fp16), seq(bf16))
interleave(4, fixed(8, 2, wrap), fixed(10, 1, sat))  interleave(16, fma(fp16), tree(fp16))
late(interleave(2, seq(bf16), tree(fp16, 2, leaves=exact))) -> fp16
chunk(5, fma(fp16), seq(fp16))  chunk(4, interleave(2, seq(fp8_e4m3), fma(fp16)), tree(fp16))
chunk(3, exact(fp16), exact(fp8_e5m2))  chunk(2, chunk(2, fma(bf16), neumaier(fp16)), seq(fp8_e4m3, fp32))
interleave(2, chunk(2, kahan(bf16), seq(fp16)), chunk(1, fma(fp16), tree(fp16)))
kahan(fp8_e5m2)  kahan(fp16)  kahan(fix12.4/wrap)  neumaier(fp16)  neumaier(fp8_e4m3/sat)  late(neumaier(bf16))
neumaier(posit16)  late(kahan(fp16)) -> fp8_e5m2
exact(posit16)  exact(fp16/rd)  exact(fix8.2/wrap)  exact(fp8_e4m3/sat)  late(exact(fp16)) -> bf16
fixed(12, 2, wrap)  fixed(6, 0, sat)  fixed(8, 3, track)  fixed(8, 3, wrap, rz)  fixed(8, 3, sat, odd)
fixed(20, 10, sat, rna)  fixed(20, 10, wrap, rd)  fixed(53, 30, wrap, ru)  fixed(9, 3, track, rnz)
aligned(4, 23, fp32/rz)  aligned(4, 5, fp16)  aligned(8, 6, e8m13/rz, e_min=-10)  aligned(8, 6, fp32/rz, c=late)
aligned(4, 8, fp16, order=two_of_four)  aligned(3, 8, fp16, order=two_of_four)  aligned(4, 8, fp16/sat, align=rne)
aligned(4, 8, bf16, align=rne, zero=keep)  aligned(4, 8, bf16, align=rd, zero=keep, e_min=-3)
aligned(8, 7, fp32/rz, group=4)  aligned(8, 6, fp32, c=late, sum_frac=9, c_frac=5)  aligned(4, 6, fix12.4)
aligned(8, 6, fp32, c=late, parts=2, sum_frac=9, c_frac=5, c_reach=3)  late(aligned(4, 8, fp16))
aligned(4, 6, fix12.4/wrap)  chunk(8, aligned(4, 8, fp16, order=two_of_four), seq(fp16))
aligned(8, 6, fp32, c=late, parts=2, part_frac=7, sum_frac=9, c_frac=6, c_reach=8)
reverse(2, fma(fp16))  chunk(5, reverse(3, seq(fp16)), kahan(bf16))  reverse(4, interleave(2, tree(fp16), seq(bf16)))
interleave(3, reverse(2, reverse(3, fma(fp16, 2))), tree(fp16))  late(reverse(8, aligned(4, 6, fp16)))
interleave(2, seq(fp16), aligned(2, 6, fp16))  fma(fp16) -> posit8  exact(fp32) -> fp8_e4m3/sat
""")

# With stochastic roundings, alone and in several places, of all variants.
STOCHASTIC = _split("""
fma(fp16/sr)  fma(fp16/sr:10)  fma(bf16/sr:8, 4)  fma(posit8/sr:6)  fma(fix12.4/sr:5/wrap)  fma(takum16/sr)
seq(fp8_e4m3/sr:4, fp16/sr)  seq(fp16/sr, fp16)  tree(fp8_e5m2/sr:6:b)  tree(fp16/sr, 3, leaves=exact)
kahan(fp16/sr:5:c)  neumaier(fp8_e5m2/sr)  exact(fp32/sr:9)  exact(posit16/sr)  fixed(8, 3, sat, sr:8)
fixed(20, 6, wrap, sr)  aligned(4, 5, fp8_e4m3/sr:3)  aligned(2, 9, fp16/sr, c=late)
interleave(2, seq(fp16/sr), fma(fp16/sr))  chunk(4, seq(fp16/sr), seq(fp32/sr:3))
interleave(3, chunk(2, fma(bf16/sr:4), kahan(fp16/sr)), tree(fp16/sr:7))
chunk(6, reverse(4, seq(fp16/sr)), fma(fp16/sr:5))
late(fma(fp16/sr:3)) -> fp8_e4m3/sr:2  tree(fp16/sr) -> fp8_e5m2/sr:63:b  fp8_e4m3/sr -> fma(fp16/sr)
fp16/sr:5*fp8_e5m2/sr -> late(chunk(3, fma(fp16/sr), exact(bf16/sr))) -> fp8_e4m3/sr
""")

_VALUES = (-1, -0.7, -0.5, -0.4, -0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.25, 0.3, 0.5, 0.6, 0.7, 1)
_NF = Use(CodebookFormat("sixteen", _VALUES))
_FP16 = Use(formats.get("fp16"))

# Codebooks, which only the definition runs.
CODEBOOKS = [
    MacSpec(Fma(_NF)), MacSpec(Tree(_NF)), MacSpec(Chunk(3, Fma(_FP16), Kahan(_NF))), MacSpec(Fma(_FP16), None, _NF),
    MacSpec(Interleave(2, Fma(_NF), Tree(_FP16)), None, _NF),
]  # fmt: skip
