"""What bounds the score sensitivity: the same with the errors of the low pass known, which no hardware knows.

python -m tests.bench.two_pass_oracle [NETWORK ...]    bundled networks, mlp_deep if none is named

The effect of a column on the network's outputs stays what calibration gives, an average over samples.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from unittest import mock

import numpy as np

import simulator
from simulator.arithmetic.activations import SLOPE, Values
from simulator.arithmetic.scores import Seen, Sensitivity
from simulator.network import bundled
from simulator.network.calibrated_policy import Scored
from simulator.network.samples import load_samples

CALIBRATION, BUDGETS = 128, (0.05, 0.1, 0.2)
SAMPLES = {"transformer": 628}  # those that calibrate too; of the others 1,500


@dataclass(frozen=True, eq=False)
class Oracle(Sensitivity):
    """Sensitivity with the error itself in place of what is to be expected."""

    def __call__(self, seen: Seen) -> Values:
        assert seen.product is not None
        exact = seen.product.exact[0][seen.rows].astype(np.float64) * seen.scale + seen.shift
        return self.of(seen.v - exact, exact, seen.activation)

    def of(self, error: Values, exact: Values, activation: str) -> Values:
        """Return the scores of errors."""
        with np.errstate(over="ignore", invalid="ignore"):
            slope = np.abs(SLOPE[activation](exact.copy()))
            found: Values = np.abs(error) * slope * self.effect / np.sqrt(self.macs)
        return found


def _finish(layer: Scored) -> None:
    of = layer.sensitivity()
    oracle = Oracle(of.bins, of.errors, of.effect, of.macs, of.columns)
    layer.criterion = replace(layer.criterion, score=oracle)
    parts = zip(layer.v, layer.errors, strict=True)
    layer.scores = [
        oracle.part(gemm, v.shape[1]).of(error, v - error, layer.activation)  # type: ignore[attr-defined]
        for (gemm, v), error in parts
    ]


def _main(names: list[str]) -> None:
    machine = simulator.load_hardware("npu")
    assert machine.policy is not None
    for name in names:
        model = bundled.load(name)
        samples = load_samples(None, SAMPLES.get(name, 1500), model)
        (x,), _ = samples.batch(slice(None))
        y = samples.y
        assert y is not None
        for budget in BUDGETS:
            policy = replace(machine.policy, score="sensitivity", tolerance=0.0, budget=budget, budget_over="network")
            errors = []
            for known in (False, True):
                with mock.patch.object(Scored, "finish", _finish if known else Scored.finish):
                    record = simulator.evaluate(
                        model, replace(machine, policy=policy), x[CALIBRATION:], y[CALIBRATION:],
                        calibration=x[:CALIBRATION],
                    )  # fmt: skip
                errors.append(record.forward_error["two_pass"])
            print(f"{name:12} {budget:4.0%}  sensitivity {errors[0]:.4f}  errors known {errors[1]:.4f}", flush=True)


if __name__ == "__main__":
    _main(sys.argv[1:] or ["mlp_deep"])
