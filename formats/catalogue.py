"""The named formats, each one line with its source."""

from .floats import FloatFormat

_IEEE = "IEEE 754-2019, table 3.5"
_OCP_FP8 = "OCP 8-bit Floating Point Specification 1.0, tables 1 and 2"
_OCP_MX = "OCP Microscaling Formats 1.0, tables 1 to 5"

FLOATS: dict[FloatFormat, str] = {
    FloatFormat("fp64", 11, 52): _IEEE,
    FloatFormat("fp32", 8, 23): _IEEE,
    FloatFormat("fp16", 5, 10): _IEEE,
    FloatFormat("bf16", 8, 7): "Intel bfloat16 white paper, 2018",
    FloatFormat("tf32", 8, 10): "NVIDIA A100 architecture white paper, 2020",
    FloatFormat("fp8_e4m3", 4, 3, dialect="fn"): _OCP_FP8,
    FloatFormat("fp8_e5m2", 5, 2): _OCP_FP8,
    FloatFormat("fp8_e3m4", 3, 4): "IEEE-like; ml_dtypes float8_e3m4",
    FloatFormat("fp8_e4m3fnuz", 4, 3, dialect="fnuz"): "AMD CDNA3 ISA, 2023",
    FloatFormat("fp8_e5m2fnuz", 5, 2, dialect="fnuz"): "AMD CDNA3 ISA, 2023",
    FloatFormat("fp8_e4m3b11fnuz", 4, 3, bias=11, dialect="fnuz"): "ml_dtypes float8_e4m3b11fnuz",
    FloatFormat("fp6_e3m2", 3, 2, dialect="finite"): _OCP_MX,
    FloatFormat("fp6_e2m3", 2, 3, dialect="finite"): _OCP_MX,
    FloatFormat("fp4_e2m1", 2, 1, dialect="finite"): _OCP_MX,
    FloatFormat("e8m0", 8, 0, dialect="scale"): _OCP_MX,
    FloatFormat("ue4m3", 4, 3, dialect="ufn"): "scale of NVFP4, NVIDIA PTX ISA 8.7",
    FloatFormat("dlfloat16", 6, 9, dialect="dlfloat"): "Agrawal et al., DLFloat, ARITH 2019",
    FloatFormat("e8m13", 8, 13): "accumulator of FP8 tensor cores, arXiv 2412.19437",
}

ALIASES = {"e4m3fn": "fp8_e4m3"}

# The same letters name formats whose largest values differ by a factor of two between vendors: never guess.
AMBIGUOUS = {
    "e4m3": "fp8_e4m3 (OCP, largest 448), e4m3:ieee (largest 240), fp8_e4m3fnuz (largest 240, bias 8)",
    "e3m2": "fp6_e3m2 (OCP, largest 28), e3m2:ieee (largest 14)",
    "e2m3": "fp6_e2m3 (OCP, largest 7.5), e2m3:ieee (largest 3.75)",
    "e2m1": "fp4_e2m1 (OCP, largest 6), e2m1:ieee (largest 3)",
}
