"""Instructions of processors. Those of x86 and of ARM without EBF treat subnormals as zero, in and out."""

from __future__ import annotations

from .record import FLUSH, Output, Preset

SDM = "Intel Software Developer's Manual, volume 2: VDPBF16PS, TDPBF16PS"
ARM = "Arm Architecture Reference Manual, DDI 0487: BFDOT, BFMMLA, FPCR.EBF"

NO_RECORDING = ("no recording is held here",)
ODD_FIRST = "of each pair the product of odd k enters first"
PADDED = "an odd k is padded with a zero by software; here the last product stands alone"

_BFDOT = Output("chunk(2, tree(fp32:ftz/odd), seq(fp32:ftz/odd))", "documented")

PROCESSORS: dict[str, Preset] = {
    "intel.avx512_bf16": Preset(
        "Intel AVX512-BF16, VDPBF16PS",
        "bf16:ftz",
        {"fp32": Output("reverse(2, fma(fp32:ftz))", "documented")},
        (SDM,),
        notes=(ODD_FIRST, "to nearest whatever MXCSR says", PADDED),
        untested=(*NO_RECORDING, FLUSH),
    ),
    "intel.amx_bf16": Preset(
        "Intel AMX-BF16, TDPBF16PS of k = 32",
        "bf16:ftz",
        {"fp32": Output("chunk(32, interleave(2, fma(fp32:ftz), seq(fp32:ftz)), seq(fp32:ftz))", "documented")},
        (SDM,),
        notes=("even and odd k are kept apart from zero, added, then added to the destination", PADDED),
        untested=(*NO_RECORDING, FLUSH),
    ),
    "amd.zen4.avx512_bf16": Preset(
        "AMD Zen 4 AVX512-BF16, VDPBF16PS",
        "bf16:ftz",
        {"fp32": Output("reverse(2, fma(fp32:ftz))", "verified")},
        ("tests/vectors/cpu/PROVENANCE.md", SDM),
        notes=(ODD_FIRST, "to nearest whatever MXCSR says", PADDED),
        untested=("payloads and signs of NaN, which are not kept here",),
    ),
    "arm.bfdot": Preset(
        "Arm BFDOT with FPCR.EBF = 0",
        "bf16:ftz",
        {"fp32": _BFDOT},
        (ARM,),
        notes=("both products, their sum and the sum with the accumulator are rounded to odd", PADDED),
        untested=NO_RECORDING,
    ),
    "arm.bfmmla": Preset(
        "Arm BFMMLA with FPCR.EBF = 0",
        "bf16:ftz",
        {"fp32": _BFDOT},
        (ARM,),
        notes=("as BFDOT, a pair after another", PADDED),
        untested=NO_RECORDING,
    ),
    "arm.bfdot.ebf": Preset(
        "Arm BFDOT with FPCR.EBF = 1",
        "bf16",
        {"fp32": Output("chunk(2, tree(fp32, leaves=exact), seq(fp32))", "documented")},
        (ARM,),
        notes=("a pair is summed exactly and rounded once, then added; shown with FPCR's default modes", PADDED),
        untested=NO_RECORDING,
    ),
}
