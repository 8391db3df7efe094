"""Matrix cores of AMD."""

from __future__ import annotations

from .record import FLUSH, MMA_SIM, Output, Preset

FTTN = "FTTN, arXiv 2403.00232"

NO_RECORDING = ("no recording is held here", "overflow, infinities and NaN; signed zeros")
LATE = "c joins by one sum at the end of an instruction, and is the state of a chain"


def _cdna1(unit: str, operands: str, n: int) -> Preset:
    return Preset(
        unit,
        operands,
        {"fp32": Output(f"chunk({n}, tree(fp32), seq(fp32))", "assumed")},
        (MMA_SIM, FTTN),
        notes=("a pairwise sum, to nearest; another source has an exact sum, rounded once", LATE),
        untested=NO_RECORDING,
    )


def _cdna2(unit: str, operands: str, n: int) -> Preset:
    return Preset(
        unit,
        f"{operands}:ftz",
        {"fp32": Output(f"chunk({n}, tree(fp32:ftz), seq(fp32:ftz))", "modelled")},
        (MMA_SIM, FTTN),
        notes=("subnormals count as zero, in operands and in every sum", LATE),
        untested=(*NO_RECORDING, FLUSH),
    )


def _cdna3(unit: str, operands: str) -> Preset:
    return Preset(
        unit,
        operands,
        {"fp32": Output("aligned(8, 24, fp32, c=late, sum_frac=31, c_frac=24)", "documented")},
        (MMA_SIM,),
        notes=("the sum of the products, and c, are rounded down before they meet: results are biased",),
        untested=NO_RECORDING,
    )


AMD: dict[str, Preset] = {
    "cdna1.fp16": _cdna1("AMD MI100 matrix core", "fp16", 4),
    "cdna1.bf16": _cdna1("AMD MI100 matrix core", "bf16", 2),
    "cdna2.fp16": _cdna2("AMD MI210 and MI250 matrix core", "fp16", 4),
    "cdna2.bf16_1k": _cdna2("AMD MI210 and MI250 matrix core, instructions _1k", "bf16", 4),
    "cdna2.bf16": _cdna2("AMD MI210 and MI250 matrix core, other instructions than _1k", "bf16", 2),
    "cdna3.fp16": _cdna3("AMD MI300 matrix core", "fp16"),
    "cdna3.bf16": _cdna3("AMD MI300 matrix core", "bf16"),
    "cdna3.fp8": Preset(
        "AMD MI300 matrix core, FP8",
        "fp8_e4m3fnuz",
        {
            "fp32": Output(
                "aligned(16, 24, fp32, c=late, parts=2, part_frac=24, sum_frac=31, c_frac=24, c_reach=25)", "modelled"
            )
        },
        (MMA_SIM,),
        fits=("fp8_e5m2fnuz",),
        notes=("even and odd k are aligned apart and meet rounded down; c is dropped if it is 25 exponents below",),
        untested=NO_RECORDING,
    ),
    "cdna3.fp32": Preset(
        "AMD MI300 matrix core, FP32",
        "fp32",
        {"fp32": Output("fma(fp32)", "documented")},
        (MMA_SIM,),
        untested=NO_RECORDING,
    ),
    "cdna3.fp64": Preset(
        "AMD MI300 matrix core, FP64",
        "fp64",
        {"fp64": Output("fma(fp64)", "documented")},
        (MMA_SIM,),
        untested=NO_RECORDING,
    ),
}
