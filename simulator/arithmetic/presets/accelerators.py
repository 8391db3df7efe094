"""Other accelerators. Vendors say little: most of these stand for what is known, not for bits.

Tesla's Dojo is not among them: its formats are published (CFloat8: 1-4-3 and 1-5-2 with a bias to choose), its
accumulator is not.
"""

from __future__ import annotations

from .record import Output, Preset

NO_RECORDING = "no recording is held here"
ORDER = "order of summation and roundings: unpublished; read as fp32, to nearest, one product after another"

ACCELERATORS: dict[str, Preset] = {
    "tenstorrent.fpu": Preset(
        "Tenstorrent Wormhole and Blackhole matrix unit, all four fidelity phases",
        "bf16:ftz",
        {
            "fp32": Output("chunk(16, fma(tf32:ftz/rna, 16), seq(fp32:ftz))", "documented"),
            "bf16": Output("chunk(16, fma(tf32:ftz/rna, 16), seq(bf16:ftz/rna))", "documented"),
        },
        ("tenstorrent/tt-isa-documentation, MVMUL and MatrixUnit, which calls itself a rough guide",),
        fits=("tf32:ftz",),
        notes=(
            "16 products are one exact sum, rounded to TF32 with ties away, then added to the destination",
            "a multiplier takes 5 by 7 bits: fewer fidelity phases, which drop low bits, are not expressed",
            "a bf16 destination is said to round to TF32 and then to BF16; here the sum with it is rounded once",
        ),
        untested=(NO_RECORDING, "order and width of the sums inside; infinities and NaN, which are not IEEE 754's"),
    ),
    "tpu.mxu": Preset(
        "Google TPU matrix unit",
        "bf16",
        {"fp32": Output("chunk(128, fma(fp32), seq(fp32))", "assumed")},
        ("Jouppi et al., TPU v4, ISCA 2023, arXiv 2304.01433",),
        notes=(
            "exact products are summed in fp32, to nearest, down a column of 128; later units have 256",
            "a float32 matmul is 1, 3 or 6 passes of bf16, which are not expressed here",
        ),
        untested=(NO_RECORDING, "order of summation and roundings: unpublished"),
    ),
    "gaudi2.fp8": Preset(
        "Intel Gaudi 2 matrix engine, FP8",
        "e4m3:ieee",
        {"fp32": Output("fma(fp32)", "assumed")},
        ("Lee et al., Faster Inference of LLMs using FP8 on the Intel Gaudi, arXiv 2503.09975",),
        fits=("fp8_e5m2",),
        notes=("E4M3 ends at 240",),
        untested=(NO_RECORDING, ORDER),
    ),
    "gaudi3.fp8": Preset(
        "Intel Gaudi 3 matrix engine, FP8",
        "fp8_e4m3",
        {"fp32": Output("fma(fp32)", "assumed")},
        ("Lee et al., Faster Inference of LLMs using FP8 on the Intel Gaudi, arXiv 2503.09975",),
        fits=("fp8_e5m2",),
        notes=("E4M3 ends at 448",),
        untested=(NO_RECORDING, ORDER),
    ),
    "trainium": Preset(
        "AWS Trainium tensor engine",
        "bf16",
        {"fp32": Output("fma(fp32)", "assumed")},
        ("AWS Neuron documentation: data types and rounding modes",),
        fits=("fp16", "fp8_e5m2", "fp8_e4m3", "fp8_e3m4", "mxfp8_e4m3", "mxfp8_e5m2", "mxfp4"),
        notes=("sums are kept in fp32 (PSUM); casts of results are to nearest or stochastic: write -> bf16/sr",),
        untested=(NO_RECORDING, ORDER, "which E4M3 the configurable FP8 means on each generation"),
    ),
    "ipu": Preset(
        "Graphcore IPU matrix unit",
        "fp16",
        {"fp32": Output("fma(fp32)", "documented"), "fp16": Output("fma(fp16/nan)", "documented")},
        ("Graphcore, AI-Float: Mixed-Precision Arithmetic for AI, a Hardware Perspective",),
        notes=("the unit can also round stochastically and clip: fma(fp16/sr/sat)",),
        untested=(NO_RECORDING, "order of summation and roundings inside the unit; read as one product after another"),
    ),
    "ibm.chunk64": Preset(
        "IBM, training with 8-bit floats: chunks of 64",
        "fp8_e5m2",
        {"dlfloat16": Output("chunk(64, seq(dlfloat16), seq(dlfloat16))", "documented")},
        ("Wang et al., Training Deep Neural Networks with 8-bit Floats, NeurIPS 2018, arXiv 1812.08011",),
        notes=("sums in the 1-6-9 format, to nearest; only updates of weights are stochastic",),
        untested=(NO_RECORDING,),
    ),
}
