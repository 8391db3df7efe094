"""Records of studies, bounds and tracked runs as plain data, small, with what their pages can show."""

from __future__ import annotations

from dataclasses import asdict

from tests.simulator.run_records import conditions


def study_record():
    """A two-pass study: a score at two budgets, a control of it and a static plan, condition numbers of two layers."""

    def row(score, budget, error, share, control_of=None, seed=0):
        layers = [
            {"name": name, "recomputed_fraction": share, "rms_error": error / 2, "median_rel_error": error,
             "mean_rel_error": 2 * error, "sqnr_db": 20.0}
            for name in ("fc1", "fc2")
        ]  # fmt: skip
        return {
            "score": score, "control_of": control_of, "seed": seed, "tolerance": 0.0, "budget": budget,
            "over": "network", "recomputed_outputs_fraction": share, "recomputed_macs_fraction": share,
            "logit_error_rms": error, "logit_error_interval": [0.8 * error, 1.2 * error], "accuracy": 0.97,
            "accuracy_interval": [0.95, 0.98], "changed_decisions": 0.01, "accumulation_cost": 0.5 + share,
            "accumulation_cost_vs_low": 1 + 2 * share, "energy_j": 1e-4, "cycles": 1000, "saturated_outputs": 0,
            "layers": [] if score == "static" else layers,
        }  # fmt: skip

    points = [row("kappa_prime", 0.1, 0.29, 0.1), row("kappa_prime", 0.2, 0.2, 0.2)]
    for one in ("random", "largest", "static"):
        points += [row(one, budget, 0.3, budget, "kappa_prime") for budget in (0.1, 0.2)]
    baselines = {"low": row("", None, 0.32, 0.0), "high": row("", None, 0.01, 0.0), "exact": {"accuracy": 0.98}}
    found = [conditions(factor=2.0), conditions("fc2", "identity", last=None)]
    return {
        "study": "two-pass", "hardware": "npu", "model": "mlp", "samples": 10, "calibration": 10,
        "baselines": baselines, "points": points, "conditions": [asdict(one) for one in found], "computed": 8,
        "warnings": ["policy.sign_safe is left out: scores are compared without it"], "by": "budget",
    }  # fmt: skip


def bounds_record():
    """Bounds of three samples, two of them certified, with what each operation adds and the bits that suffice."""
    samples = [
        {"certified": bound < margin, "top": 7, "margin": margin, "bound": bound, "range_effect": 1e-10,
         "method": "forward", "logit_bounds": [bound / 2] * 10}
        for margin, bound in ((0.1, 0.03), (0.02, 0.03), (0.4, 0.05))
    ]  # fmt: skip
    required = {
        "quantiles": {"0.5": 9, "1.0": None}, "confidence_quantiles": {"0.5": 10, "1.0": 14}, "bits": [9, 9, None],
        "confidence_bits": [10, 10, 14],
    }  # fmt: skip
    return {
        "model": "mlp", "guarantee": "proved", "unit": "seq(fp32)", "precision": None, "certified_share": 2 / 3,
        "samples": samples, "contributions": {"fc1": 0.02, "features.0.a_long_name_of_a_module.fc2": 0.004},
        "certified_accuracy": 0.5, "required_precision": required, "methods": {"forward": 3},
    }  # fmt: skip


def truncation_record():
    """A study of truncation in training: two roundings and two widths at three widths of the significand."""
    rows = [
        {"setting": setting, "bits": bits, "seeds": 2, "accuracy": accuracy - step, "deviation": 0.01}
        for step, setting in ((0.0, "rz"), (0.01, "rne"), (0.02, "exponent 4"), (0.03, "exponent 8"))
        for bits, accuracy in ((0, 0.97), (8, 0.95), (4, 0.5))
    ]
    base = {"hidden": [32], "lr": 0.1, "batch": 32, "epochs": 20}
    critical = [
        {"setting": "rz", "rounding": "rz", "predicted_bits": 8.3, "first_losing_bits": 4},
        {"setting": "rne", "rounding": "rne", "predicted_bits": 6.1, "first_losing_bits": None},
    ]
    return {
        "data": "digits", "test": 390, "train": 1407, "base": base, "rows": rows, "critical": critical,
        "panels": {"rounding": {"rz": "rz", "rne": "rne"}},
    }  # fmt: skip
