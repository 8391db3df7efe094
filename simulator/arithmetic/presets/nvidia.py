"""Tensor cores of NVIDIA. Subnormals are kept, in and out; e_min is the floor of the exponent that terms align to."""

from __future__ import annotations

from .record import MMA_SIM, Output, Preset

MODELS = "Khattak and Mikaitis, Accurate Models of NVIDIA Tensor Cores, doi 10.1145/3830409, arXiv 2512.07004"
FASI = "Fasi, Higham, Mikaitis, Pranesh, Numerical behavior of NVIDIA tensor cores, PeerJ CS 7:e330, 2021"
DEEPSEEK = "DeepSeek-V3 technical report, arXiv 2412.19437, section 3.3"

RANGE = "overflow, infinities, NaN, signed zeros; exponents of subnormal operands; whether zero products count"
FLOOR = "e_min: recordings near 1 do not reach it"
CHAIN = "more than one instruction: chains over k and split-K are read from the instruction's own addend"
OUT16 = "fp16 output: another source puts e_min at {}"
TF32 = "float32 operands are rounded to nearest; a unit that drops their low bits takes tf32/rz"

V16 = (RANGE, FLOOR, CHAIN, OUT16.format(-19), "fp16 output: F and the place of c within the step")
A16 = (RANGE, FLOOR, CHAIN, OUT16.format(-20))
H16 = (RANGE, FLOOR, CHAIN, OUT16.format(-21))
ONE = (RANGE, FLOOR, CHAIN)
NO_RECORDING = (RANGE, FLOOR, CHAIN, "no recording is held here")


def _ampere(unit: str, label: str, sources: tuple[str, ...], notes: tuple[str, ...] = ()) -> dict[str, Preset]:
    """The three units of Ampere, which Ada has too; `label` is that of the fp32 outputs."""
    step16 = Output("aligned(8, 24, fp32/rz, e_min=-132)", label)
    half = Output("aligned(8, 24, fp16, e_min=-132)", "modelled")
    step32 = Output("aligned(4, 24, fp32/rz, e_min=-132)", label)
    rest = ONE if label == "verified" else NO_RECORDING
    return {
        "fp16": Preset(unit, "fp16", {"fp32": step16, "fp16": half}, sources, notes=notes, untested=(*rest, A16[-1])),
        "bf16": Preset(unit, "bf16", {"fp32": step16}, sources, notes=notes, untested=rest),
        "tf32": Preset(unit, "tf32", {"fp32": step32}, sources, notes=(*notes, TF32), untested=rest),
    }


def _ada_fp8(unit: str, label: str) -> Preset:
    return Preset(
        unit,
        "fp8_e4m3",
        {
            "fp32": Output("aligned(16, 13, e8m13/rz, e_min=-132)", label),
            "fp16": Output("aligned(16, 13, fp16, e_min=-132)", label),
        },
        (MODELS, MMA_SIM, DEEPSEEK),
        fits=("fp8_e5m2",),
        notes=("an instruction of k = 32 is two steps of 16",),
        untested=(*NO_RECORDING, A16[-1]),
    )


def _hopper(unit: str, label: str, half: str, rest: tuple[str, ...]) -> dict[str, Preset]:
    """The three units of Hopper, which Blackwell has too; `label` and `half` are those of fp32 and fp16 outputs."""
    step = Output("aligned(16, 25, fp32/rz, e_min=-133)", label)
    fp16 = Output("aligned(16, 25, fp16, e_min=-133)", half)
    four = "for steps of 4 products; the step of 8 is modelled" if label == "verified" else ""
    tf32 = Output("aligned(8, 25, fp32/rz, e_min=-133)", label, four)
    sources = (MODELS, MMA_SIM)
    return {
        "fp16": Preset(unit, "fp16", {"fp32": step, "fp16": fp16}, sources, untested=(*rest, H16[-1])),
        "bf16": Preset(unit, "bf16", {"fp32": step}, sources, untested=rest),
        "tf32": Preset(unit, "tf32", {"fp32": tf32}, sources, notes=(TF32,), untested=rest),
    }


_A100 = _ampere(
    "NVIDIA A100 and A2 tensor core",
    "verified",
    (MODELS, MMA_SIM, FASI),
    ("an instruction of twice the step's products is two steps", "recorded on A100, with fp32 output"),
)
_A30 = _ampere("NVIDIA A30 tensor core", "modelled", (MODELS, MMA_SIM))
_ADA = _ampere("NVIDIA Ada tensor core", "modelled", (MODELS, MMA_SIM))
_L40S = _ampere("NVIDIA L40S tensor core", "modelled", (MODELS, MMA_SIM))
_H100 = _hopper("NVIDIA H100 and H200 tensor core", "verified", "modelled", ONE)
_B200 = _hopper("NVIDIA B200 and RTX 50 tensor core", "reported", "reported", NO_RECORDING)

NVIDIA: dict[str, Preset] = {
    "v100.fp16": Preset(
        "NVIDIA V100 tensor core",
        "fp16",
        {"fp32": Output("aligned(4, 23, fp32/rz)", "verified"), "fp16": Output("aligned(4, 23, fp16)", "verified")},
        (MODELS, MMA_SIM, FASI),
        untested=V16,
    ),
    "t4.fp16": Preset(
        "NVIDIA T4 (Turing) tensor core",
        "fp16",
        {"fp32": Output("aligned(8, 24, fp32/rz)", "documented"), "fp16": Output("aligned(8, 24, fp16)", "documented")},
        (MMA_SIM, FASI),
        untested=(*NO_RECORDING, A16[-1]),
    ),
    **{f"a100.{name}": preset for name, preset in _A100.items()},
    **{f"a30.{name}": preset for name, preset in _A30.items()},
    **{f"ada.{name}": preset for name, preset in _ADA.items()},
    "ada.fp8": _ada_fp8("NVIDIA Ada tensor core, FP8", "reported"),
    **{f"l40s.{name}": preset for name, preset in _L40S.items()},
    "l40s.fp8": _ada_fp8("NVIDIA L40S tensor core, FP8", "modelled"),
    **{f"h100.{name}": preset for name, preset in _H100.items()},
    "h100.fp8.wgmma": Preset(
        "NVIDIA H100 and H200 tensor core, FP8, wgmma",
        "fp8_e4m3",
        {
            "fp32": Output(
                "aligned(32, 13, e8m13/rz, e_min=-133)",
                "verified",
                "without an addend; c, and with it a chain of instructions, is modelled",
            )
        },
        (MODELS, MMA_SIM, DEEPSEEK),
        fits=("fp8_e5m2",),
        untested=(*ONE, "whether c joins the alignment"),
    ),
    "h100.fp8.mma_sync": Preset(
        "NVIDIA H100, H200 and B200 tensor core, FP8, mma.sync of k = 32",
        "fp8_e4m3",
        {
            "fp32": Output("chunk(32, aligned(16, 25, fp32/rz, e_min=-133, order=two_of_four), seq(fp32))", "modelled"),
            "fp16": Output("chunk(32, aligned(16, 25, fp16, e_min=-133, order=two_of_four), seq(fp16))", "reported"),
        },
        (MODELS,),
        fits=("fp8_e5m2",),
        notes=("two steps of 16 from zero, k mod 4 < 2 first; c is added at the end of an instruction, to nearest",),
        untested=(
            *NO_RECORDING,
            "fp16 output: the rule was found by search on 400 E4M3 results, and confirmed on all others",
            "fp32 output (B200): one sum of 32 fits the results as well",
        ),
    ),
    **{f"b200.{name}": preset for name, preset in _B200.items()},
    "b200.tcgen05.fp8": Preset(
        "NVIDIA B200 tensor core, FP8, FP6 and FP4, tcgen05",
        "fp8_e4m3",
        {"fp32": Output("aligned(32, 25, fp32/rz)", "documented")},
        (MMA_SIM,),
        fits=("fp8_e5m2", "fp6_e3m2", "fp6_e2m3", "fp4_e2m1"),
        notes=("no floor e_min is known",),
        untested=NO_RECORDING,
    ),
    "b200.mxfp4": Preset(
        "NVIDIA B200 tensor core, MXFP4, k = 64",
        "mxfp4",
        {"fp32": Output("aligned(64, 35, fp32/rz, group=16)", "documented")},
        (MMA_SIM,),
        notes=("a term is the exact sum of 16 products times both scales, with the exponent of its value",),
        untested=(*NO_RECORDING, "F: others report 34 to 37"),
    ),
    "b200.nvfp4": Preset(
        "NVIDIA B200 tensor core, NVFP4, k = 64",
        "nvfp4",
        {"fp32": Output("aligned(64, 35, fp32/rz, group=16)", "documented")},
        (MMA_SIM,),
        notes=(
            "a term is the exact sum of 16 products times both scales, with the exponent of its value",
            "the scale of a whole tensor is part of the operands' values here; a unit multiplies the result by it",
        ),
        untested=(*NO_RECORDING, "F: others report 34 to 37"),
    ),
    "cublas.fp8.slow": Preset(
        "NVIDIA H100, cuBLAS FP8 without fast accumulation: a chain of wgmma restarted every 128 k",
        "fp8_e4m3",
        {"fp32": Output("chunk(128, aligned(32, 13, e8m13/rz, e_min=-133), seq(fp32))", "modelled")},
        (DEEPSEEK, MODELS),
        fits=("fp8_e5m2",),
        notes=("partial sums are added in fp32, to nearest",),
        untested=NO_RECORDING,
    ),
    "nvidia.fp64": Preset(
        "NVIDIA tensor core, FP64",
        "fp64",
        {"fp64": Output("fma(fp64)", "documented")},
        (MMA_SIM,),
        untested=("no recording is held here",),
    ),
}
