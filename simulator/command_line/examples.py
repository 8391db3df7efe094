"""What the help of each command ends with: one to three commands as they are typed, each of which the tests parse."""

from __future__ import annotations

_TYPED = "python -m simulator"

# By command, behind what is typed for all; the main job has no name.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "": ("--hw npu", "--hw npu --model cnn --samples 200 --out cnn", "--hw npu --explain-cost fc1 --fidelity event"),
    "formats": ("formats", "formats fp8_e4m3", "formats --compare fp8_e4m3 e4m3:ieee"),
    "explain": ('explain "fp8_e4m3 -> fma(fp16)"', "explain h100.fp16 --shape 64 100 784"),
    "estimate": (
        "estimate --hw npu --gemm 64 64 784 --flagged 0.02",
        "estimate --hw npu --gemm 64 64 784 --explain-cost",
        "estimate --hw npu --gemm 64 64 784 --fidelity event --trace timeline.json",
    ),
    "show": ("show npu", "show npu --json", "show --schema"),
    "compare": (
        "compare npu tpu_v1 --model cnn --samples 200", "compare npu tpu_v1 --samples 200 --out both.html",
        "compare coarse fine",
    ),
    "sweep": ("sweep rows.yaml --dry-run", "sweep rows.yaml --out rows --workers 2"),
    "search": (
        "search best.yaml --dry-run", "search best.yaml --out best",
        "search best.yaml --out best --points 100 --seed 1 --workers 2",
    ),
    "plan": ("plan --hw npu --budget 0.1 --out plan.json",),
    "runs": ("runs rows", "runs rows --export rows.csv"),
    "report": ("report out", "report rows --out rows.html", "report out cnn --out both.html"),
    "train": ("train --model cnn --recipe fp8_hybrid", "train --storage e8m6 --epochs 2 --out e8m6"),
    "doctor": ("doctor", "doctor --json"),
    "bounds": ('bounds --mac "fma(fp32)" --samples 10', "bounds --required --samples 10",
               'bounds --mac "fma(fp32)" --samples 10 --certificate mlp.json'),
    "bounds check": ("bounds check mlp.json", "bounds check mlp.json --model mlp --samples 10"),
    "track": ("track --model mlp --samples 64", "track --model mlp --train 50 --out track"),
    "track compare": ("track compare a/track.json b/track.json",),
    "study two-pass": ("study two-pass --hw npu --budgets 0.05,0.2 --out study",),
    "study truncation": ("study truncation --settings rz,rne,sr --bits 0,8,6,4",),
    "study points": ("study points --recipe fp8_hybrid",),
    "study laws": ("study laws --bits 6",),
}  # fmt: skip


def epilog(command: str = "") -> str:
    r"""Return what help ends with; \b keeps its lines as they are."""
    return "\n".join(["\b", "Examples:", *(f"  {_TYPED} {arguments}" for arguments in EXAMPLES[command])])
