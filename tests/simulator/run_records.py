"""Records of runs with figures of a plausible size, and their pages as a reader meets them."""

from __future__ import annotations

import math
from dataclasses import replace
from html.parser import HTMLParser

from simulator.result import Conditions, LayerResult, OperationResult, RunResult

LOW = "chunk(64, fma(fp8_e4m3/sat), seq(fp8_e4m3/sat))"
HIGH = "chunk(16, fma(fp16/sat), seq(fp16/sat))"


def layer(name, m, n, k, *, flagged=0.0, mac=LOW, picojoule=0.1, median=0.1, largest=1.0, **other):
    """A layer whose parts sum to its totals, with costs of a plausible size."""
    macs = m * n * k
    outputs = round(m * n * flagged)
    compute, gather = macs // 1024, outputs * k // 64
    parts = {
        "mul": 0.02e-12 * macs,
        "acc": picojoule * 1e-12 * macs,
        "register": 0.05e-12 * macs,
        "sram": 0.03e-12 * macs,
        "dram": 20.3e-12 * 8 * (n * k + m * k + m * n),
        "gather": 1.2e-12 * outputs * k,
    }
    cycles = compute + gather
    record = LayerResult(
        name=name,
        op="linear",
        m=m,
        n=n,
        k=k,
        mac=mac,
        macs=macs,
        recomputed_outputs=outputs,
        recomputed_macs=outputs * k,
        pass_outputs={"high": outputs},
        cycles=cycles,
        utilisation=0.931,
        latency_s=cycles * 1e-9,
        energy_j=sum(parts.values()),
        energy_low_j=sum(parts.values()) / 2,
        energy_high_j=sum(parts.values()) * 2,
        energy_parts_j=parts,
        max_rel_error=largest,
        mean_rel_error=2 * median,
        median_rel_error=median,
        sqnr_db=31.25,
        rms_error=0.125,
        waste_factor=1.0,
        scales="a per row by max, dynamic, powers of two",
        overflows=0,
        activation="relu",
        cycle_parts={"compute": compute, "gather": gather},
        roofline_cycles=compute,
        traffic_bits={"dram": 8 * (n * k + m * k + m * n), "sram_reads": 16 * macs},
    )
    return replace(record, **other)


def network(mac, picojoule, flagged=(0, 0, 0), medians=(0.155, 0.21, 0.083)):
    shapes = [("fc1", 1500, 784, 784), ("fc2", 1500, 128, 784), ("fc3", 1500, 10, 128)]
    layers = [
        layer(name, m, n, k, flagged=share, mac=mac, picojoule=picojoule, median=median, largest=40 * median)
        for (name, m, n, k), share, median in zip(shapes, flagged, medians, strict=True)
    ]
    return (*layers[:-1], replace(layers[-1], activation="identity", overflows=3))


def conditions(layer="fc1", activation="relu", factor=1.0, last=2000.0):
    """Condition numbers of a layer; factor: of kappa over kappa_v. last: the 99th percentile of kappa_v."""
    kappa_v = {1: 1.5, 5: 2.0, 25: 4.0, 50: 8.0, 75: 16.0, 95: 250.0, 99: last}
    kappa = {percent: value if value is None else factor * value for percent, value in kappa_v.items()}
    return Conditions(layer, activation, 5000, 0.45, kappa, kappa_v, 10.0, 0.2, 0.6)


def totals_of(layers, accumulation_cost):
    sums = {name: sum(getattr(one, name) for one in layers) for name in ("cycles", "latency_s", "energy_j")}
    return {**sums, "accumulation_cost": accumulation_cost}


def example(**other):
    """The bundled perceptron on the edge NPU, with figures of a plausible size."""
    low = network(LOW, 0.06)
    high = network(HIGH, 0.18, medians=(0.0004, 0.0006, 0.0003))
    high = tuple(replace(one, cycles=4 * one.cycles, latency_s=4 * one.latency_s) for one in high)
    both = network(f"{LOW} then {HIGH}", 0.06, flagged=(0.31, 0.28, 0.9), medians=(0.01, 0.02, 0.004))
    record = RunResult(
        hardware="npu",
        model="mlp",
        samples=1500,
        accuracy={"exact": 0.986, "low": 0.962, "high": 0.986, "two_pass": 0.9793},
        agreement={"exact": 1.0, "low": 0.968, "high": 0.9993, "two_pass": 0.984},
        forward_error={"exact": 0.0, "low": 2.79, "high": 0.008, "two_pass": 1.21},
        totals={
            "low": totals_of(low, 0.5),
            "high": totals_of(high, 1.0),
            "two_pass": totals_of(both, 0.807),
        },
        layers=both,
        baseline_layers={"low": low, "high": high},
        tolerance=0.3,
        energy_basis="class fit, within a factor of 2",
        versions={"ulpsim": "0.1.0", "numpy": "2.3.4", "python": "3.11.7"},
        seed=0,
        warnings=("memory.leakage: no figure for 7 nm, taken as 0",),
    )
    return replace(record, **other)


def one_mac(**other):
    run = example()
    return example(
        accuracy={"exact": 0.986, "low": 0.962, "high": None, "two_pass": None},
        agreement={"exact": 1.0, "low": 0.968, "high": None, "two_pass": None},
        forward_error={"exact": 0.0, "low": 2.79, "high": None, "two_pass": None},
        totals={"low": run.totals["low"], "high": None, "two_pass": None},
        layers=run.baseline_layers["low"],
        baseline_layers={"low": run.baseline_layers["low"]},
        tolerance=None,
        **other,
    )


def measured(**other):
    """The same with metrics and operations, interrupted, and with layers of the backward pass."""
    run = example()
    metrics = {
        "top1": run.accuracy,
        "top5": {"exact": 1.0, "low": 0.99, "high": 1.0, "two_pass": 0.999},
        "agreement": run.agreement,
        "cosine": {"exact": 1.0, "low": 0.87, "high": 0.99997512, "two_pass": 0.9912},
        "kl": {"exact": 0.0, "low": 0.3, "high": 1e-7, "two_pass": math.inf},
        "perplexity": {"exact": 60.51151, "low": 60.41554, "high": 60.51422, "two_pass": 60.53455},
        "mse": {"exact": 0.0, "low": 7.78, "high": 6.4e-5, "two_pass": 1.46},
        "sqnr_db": {"exact": None, "low": 12.125, "high": 60.0, "two_pass": 18.0},
        "my[b]\n": {"exact": 2.0, "low": 1.5, "high": 2.0, "two_pass": 1.9},
    }
    norms = tuple(f"layers.{i}.norm" for i in range(12))
    operations = (
        OperationResult("addmm", "forward", "MAC array", "fp8_e4m3", 3, ("fc1", "fc2", "fc3"), 10**9, 0.9),
        OperationResult("native_layer_norm", "input gradient", "torch", "float32", 4, norms, 10**7, 0.0123),
        OperationResult("relu", "forward", "vector unit", "float32", 2, ("act1", "act2"), 10**6, 0.03),
        *(OperationResult(f"op{i}", "forward", "torch", "float32", 1, ("x",), 5, 0.001) for i in range(9)),
    )
    gradients = tuple(replace(run.layers[0], phase=f"{what} gradient") for what in ("weight", "input"))
    warnings = ("interrupted after 1,500 of 60,000 samples: all figures are of these",)
    changes = {"metrics": metrics, "operations": operations, "complete": False, "warnings": warnings,
               "conditions": (conditions(), conditions("fc2"), conditions("fc3", "identity")), "condition_samples": 64,
               "layers": run.layers + gradients}  # fmt: skip
    return replace(run, **{**changes, **other})


def sweep_record(**other):
    """Points of a sweep over two parameters, as plain data: a front of three, points beside it, one that failed."""
    points = [
        {
            "parameters": {"array.rows": rows, "policy.tolerance": tolerance},
            "values": {
                "accuracy": 0.9 + 0.002 * rows - 0.01 * tolerance, "energy_j": (100 + rows * rows) * 1e-6,
                "latency_s": 1e-3 / rows, "area_mm2": None,
            },
            "error": None, "refused": False, "feasible": True, "on_front": tolerance == 0.5,
        }
        for rows in (8, 16, 32)
        for tolerance in (0.5, 1.0, 2.0)
    ]  # fmt: skip
    failed = {"parameters": {"array.rows": 0}, "values": {}, "error": "array.rows: got 0", "refused": True,
              "feasible": False, "on_front": False}  # fmt: skip
    record = {
        "name": "rows", "store": "rows", "objectives": {"accuracy": "max", "energy_j": "min"},
        "numbers": {"accuracy": "share", "energy_j": "J", "latency_s": "s"}, "constraints": {}, "search": None,
        "missing": 0, "why_none": "no point has accuracy and energy", "points": [*points, failed],
    }  # fmt: skip
    return {**record, **other}


def search_record():
    """Four objectives over three parameters: rows tell energy, latency and area, the tolerance accuracy, idle none."""
    points = []
    for rows in (8, 16, 32):
        for tolerance in (0.5, 1.0):
            for idle in ("a", "b"):
                values = {"energy_j": rows * 1e-6, "latency_s": 1 / rows, "area_mm2": rows, "cycles": 8 + tolerance,
                          "accuracy": 0.9 - tolerance / 100 + 1e-5 * rows}  # fmt: skip
                points.append({"parameters": {"idle": idle, "policy.tolerance": tolerance, "array.rows": rows},
                               "values": values, "error": None, "refused": False, "feasible": True,
                               "on_front": False})  # fmt: skip
    objectives = {"accuracy": "max", "energy_j": "min", "latency_s": "min", "area_mm2": "min"}
    numbers = {"accuracy": "share", "energy_j": "J", "latency_s": "s", "area_mm2": "mm²", "cycles": "cycles"}
    return sweep_record(objectives=objectives, numbers=numbers, points=points)


class Page(HTMLParser):
    """The elements of a page, the addresses it refers to, the names of its places, and the text that a reader sees."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.names, self.text, self._inside = [], [], [], "", None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        self.names += [value for name, value in attributes if name == "id"]
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text += data
