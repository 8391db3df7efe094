"""The version of the numerics is raised by whoever changes a bit or a price.

Points in a store are found by it, so that a result is never taken for one that would be computed differently now. The
digests are of a battery of products and prices; where one is no longer what is recorded here, raise NUMERICS in
simulator/versions.py, say so in CHANGELOG.md under Numerics, and record the new ones. A further bundled machine or
score changes a digest and nothing that was there: record it, with what it is without them checked first.
"""

import hashlib

import numpy as np
import pytest

import simulator
from simulator.arithmetic import Criterion
from simulator.arithmetic.activations import KAPPA_PRIME
from simulator.arithmetic.scores import SCORES
from simulator.cost import Gemm, price
from simulator.hardware import bundled_names, load_hardware
from simulator.versions import NUMERICS

RECORDED = {
    6: {
        "bits": "fd2aad609f5fe6b473b2319da466bb7293e392ca03ae902616b1e9c4f66b05d2",
        "bill": "35a186458092e391b2d37f8afa0abe78a18c927e6b5d4dc3fc3d89e63df986ac",
    },
}

SPECS = [
    "fp8_e4m3/sat -> chunk(64, fma(fp8_e4m3/sat), seq(fp8_e4m3/sat))", "fp8_e5m2 -> fma(fp16)", "bf16 -> seq(bf16)",
    "fp16 -> tree(fp16)", "fp16 -> kahan(fp16)", "fp16 -> interleave(4, fma(fp16), seq(fp16))",
    "posit8 -> fma(posit16)", "takum16 -> seq(takum16)", "int8 -> fixed(12, 0, wrap)", "mxfp4 -> fma(fp32, 32)",
    "fp8_e4m3 -> exact(fp32)", "h100.fp16", "a100.bf16", "fp8_e4m3 -> fma(e5m7/sr)",
]  # fmt: skip


def bits() -> str:
    """Digest of products: values on many scales, zeros among them."""
    rng, digest = np.random.default_rng(7), hashlib.sha256()
    a = rng.standard_normal((24, 96)) * 2.0 ** rng.integers(-6, 6, (24, 96)) * (rng.random((24, 96)) < 0.9)
    b = rng.standard_normal((96, 20))
    for spec in SPECS:
        digest.update(np.ascontiguousarray(simulator.matmul(a, b, spec, seed=3), dtype=np.float64).tobytes())
    two = simulator.two_pass(a, b, low="fp8_e4m3 -> fma(fp8_e4m3/sat)", high="fp8_e4m3 -> fma(fp16)", tolerance=0.3)
    digest.update(np.asarray(two.output, np.float64).tobytes() + two.recomputed.tobytes())
    for activation in KAPPA_PRIME:
        for score in SCORES:
            rule = Criterion(0.3, score, budget=0.4)
            two = simulator.two_pass(
                a, b, "fp8_e4m3 -> fma(fp8_e4m3/sat)", "fp8_e4m3 -> fma(fp16)", activation=activation, criterion=rule
            )
            digest.update(two.recomputed.tobytes())
    return digest.hexdigest()


def bill() -> str:
    """Digest of prices of all bundled machines, in every mode that they have."""
    digest, mask = hashlib.sha256(), np.random.default_rng(5).random((100, 50)) < 0.05
    for name in bundled_names():
        machine = load_hardware(name)
        modes = ["low", *(["high"] if machine.mac.high else []), *(["two_pass"] if machine.policy else [])]
        for mode in modes:
            for shape in ((100, 50, 700), (1500, 784, 784), (1, 4096, 4096)):
                flags = None if mode != "two_pass" else mask if shape[0] == 100 else 0.05
                cost = price(machine, Gemm(*shape), mode, flags)
                numbers = (cost.cycles, f"{cost.energy_j:.9e}", sorted(cost.traffic_bits.items()))
                digest.update(f"{name} {mode} {shape} {numbers}\n".encode())
    return digest.hexdigest()


@pytest.mark.parametrize("battery", [bits, bill])
def test_what_is_computed_is_what_this_version_of_the_numerics_computes(battery):
    assert NUMERICS in RECORDED, "record the digests of the new version"
    assert battery() == RECORDED[NUMERICS][battery.__name__], (
        "bits or prices have changed: raise NUMERICS in simulator/versions.py and record the new digests here"
    )
