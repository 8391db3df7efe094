"""matmul, two passes and a whole network against torch, one thread; operands of matmul already quantised."""

from __future__ import annotations

import numpy as np
import pytest

import formats
import native
import simulator
from simulator.arithmetic import Accumulation, Criterion, mac, two_pass
from simulator.arithmetic.bins import Bins
from simulator.arithmetic.scores import Sensitivity
from simulator.arithmetic.two_pass import TwoPassResult

torch = pytest.importorskip("torch")

from tests.oracles.networks import resnet18  # noqa: E402

SHAPES = [(512, 512, 512), (1500, 784, 784)]
CASES = [
    ("fp8_e4m3", "fma(fp16)", "5 with AVX-512, 9 with AVX2"),
    ("fp8_e4m3", "fma(bf16)", "5 with AVX-512, 9 with AVX2"),
    ("fp16", "fma(fp16)", "8 with AVX-512, 18 with AVX2"),
    ("bf16", "fma(bf16)", "8 with AVX-512, 18 with AVX2"),
    ("fp8_e4m3", "fma(fp8_e4m3)", "8 with AVX-512, 18 with AVX2"),
    ("fp8_e4m3", "seq(fp16)", "9 with AVX-512, 16 with AVX2"),
    ("fp16", "seq(fp16)", "9 with AVX-512, 16 with AVX2"),
    ("fp32", "fma(fp16)", "20 with AVX-512, 40 with AVX2"),
    ("posit16", "fma(posit16)", "30"),
    ("posit16", "seq(posit16)", "30"),
    ("fp8_e4m3", "exact(fp32)", "4"),
    ("fp16", "v100.fp16", "30"),
    ("fp16", "h100.fp16", "30"),
    ("tf32", "h100.tf32", "30"),
    ("fp8_e4m3", "h100.fp8.wgmma", "30"),
    ("fp8_e4m3", "cublas.fp8.slow", "30"),
    ("fp8_e4m3", "h100.fp8.mma_sync", "30"),
    ("fp16", "cdna3.fp16", "30"),
]


def _operands(shape: tuple[int, int, int], fmt: str):
    m, n, k = shape
    rng = np.random.default_rng(0)
    a = formats.get(fmt).quantize(rng.standard_normal((m, k))).astype(np.float32)
    weights = formats.get("fp8_e4m3" if fmt == "fp32" else fmt)
    return a, weights.quantize(rng.standard_normal((k, n)) / 16).astype(np.float32)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


WIDE = [isa for isa in native.available_isas() if isa != "portable"] or ["portable"]


@pytest.mark.parametrize("isa", WIDE)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("fmt", "spec", "reach"), CASES, ids=[f"{c[0]}-{c[1]}" for c in CASES])
def test_matmul(against, monkeypatch, shape, fmt, spec, reach, isa):
    monkeypatch.setenv("ULPSIM_ISA", isa)
    a, b = _operands(shape, fmt)
    work = Accumulation(mac(spec), a, b, None, threads=1)
    theirs = torch.from_numpy(a), torch.from_numpy(b)
    name = f"{isa}: {fmt} {spec} {'x'.join(map(str, shape))} ({work.kernel.name})"
    against(name, work.dense, "torch float32 matmul", lambda: torch.mm(*theirs), reach)


# How much larger the weights are made: at 80 few sums of e4m3 saturate, so that tiles are watched and some done again.
COUNTED = [
    ("fp8_e4m3", "fma(fp16)", 1),
    ("fp16", "fma(fp16)", 1),
    ("fp8_e4m3", "seq(fp16)", 1),
    ("fp8_e4m3", "fma(fp8_e4m3/sat)", 1),
    ("fp8_e4m3", "fma(fp8_e4m3/sat)", 80),
    ("posit16", "fma(posit16)", 1),
    ("fp16", "h100.fp16", 1),
    ("fp8_e4m3", "h100.fp8.wgmma", 1),
    ("fp16", "exact(fp32)", 1),
]


@pytest.mark.parametrize("isa", WIDE)
@pytest.mark.parametrize(("stats", "reach"), [("overflows", "at most 1.3"), (True, "at most 3")], ids=str)
@pytest.mark.parametrize(("fmt", "spec", "scale"), COUNTED, ids=[f"{c[0]}-{c[1]}-{c[2]}" for c in COUNTED])
def test_counting(against, monkeypatch, fmt, spec, scale, stats, reach, isa):
    monkeypatch.setenv("ULPSIM_ISA", isa)
    a, b = _operands(SHAPES[1], fmt)
    work = Accumulation(mac(spec), a, scale * b, None, threads=1)
    name = f"{isa}: {fmt} {spec} with weights x {scale}, stats={stats!r}"
    against(name, lambda: work.dense(stats), "without", work.dense, reach)


def test_two_threads(against):
    a, b = _operands(SHAPES[1], "fp8_e4m3")
    one, two = (Accumulation(mac("fma(fp16)"), a, b, None, threads=t) for t in (1, 2))
    against("one thread, fp8_e4m3 fma(fp16)", one.dense, "two threads", two.dense, "at least 1.85")


@pytest.mark.parametrize("isa", WIDE)
@pytest.mark.parametrize("score", ["tolerance", "kappa_prime", "norm2", "sensitivity"])
def test_two_pass_with_a_tenth_recomputed(against, monkeypatch, score, isa):
    """By a tolerance, and by a budget, for which the scores of each row are sorted."""
    monkeypatch.setenv("ULPSIM_ISA", isa)
    a, b = _operands(SHAPES[1], "fp8_e4m3")
    b = np.asfortranarray(b)  # weights as a network holds them, k contiguous
    low = "chunk(64, fma(fp8_e4m3/sat), seq(fp8_e4m3/sat))"
    high = "chunk(16, fma(fp16/sat), seq(fp16/sat))"
    first = Accumulation(mac(low), a, b, None, threads=1)
    v = first.dense()[0].astype(np.float64)
    if score == "tolerance":
        criterion = Criterion(float(1 / np.quantile(np.abs(v), 0.1)))
    else:
        rng, bins = np.random.default_rng(0), Bins(np.quantile(v, np.arange(1, 64) / 64))
        calibrated = Sensitivity(bins, rng.random(64), rng.random(v.shape[1]), a.shape[1], rng.random(v.shape[1]))
        criterion = Criterion(0.0, calibrated if score == "sensitivity" else score, budget=0.1)

    def passes() -> TwoPassResult:
        return two_pass(a, b, low, high, threads=1, criterion=criterion)

    share = passes().recomputed.mean()
    against(
        f"{isa}: two-pass, {share:.1%} recomputed by {score}",
        passes,
        "its low pass with flags",
        lambda: Accumulation(mac(low), a, b, None, threads=1).dense("overflows"),
        "1.35" if score == "tolerance" else "1.8",
    )


@pytest.mark.parametrize("isa", WIDE)
def test_a_resnet18_of_one_image(against, monkeypatch, isa):
    """1.8 GMAC, from the image to the logits: quantising, windows, record and bill included."""
    monkeypatch.setenv("ULPSIM_ISA", isa)
    model, x = resnet18(), torch.randn((1, 3, 224, 224), generator=torch.Generator().manual_seed(0))

    def emulated() -> None:
        with torch.no_grad(), simulator.emulate(model, "npu", layers={"*": "fp8_e4m3 -> fma(fp16)"}, threads=1) as run:
            model(x)
        assert run.result.layers

    def plain() -> None:
        with torch.no_grad():
            model(x)

    name = f"{isa}: ResNet-18 of one image, fp8_e4m3 -> fma(fp16)"
    against(name, emulated, "torch float32", plain, "8 with AVX-512, 12 with AVX2")
