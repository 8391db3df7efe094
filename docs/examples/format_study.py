"""What number formats do to a network: its outputs, its layers and its bill, format by format, beside float32.

The examples silero_study.py, digits_study.py and fashion_study.py say which network and which measure of its task;
minilm_study.py, whose outputs are no answers, takes the formats alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import simulator
from simulator.errors import InputError
from simulator.hardware import Machine
from simulator.hardware.template import Template
from simulator.report.directories import write_file
from simulator.report.figures import count, percent, quantity, score, shorten, significant
from simulator.report.tables import write_table
from simulator.studies.directory import RESULTS, check_study_directory

LONGEST = 24  # characters of a layer's path in the table

# The same array for all: that of npu, one MAC for each PE and cycle, without its second pass.
_NPU = {"policy": None, "side_engine": None}


class Format(NamedTuple):
    """Arithmetic on a machine: hw, with `mac` as its only MAC."""

    hw: str
    mac: Mapping[str, str]

    def machine(self) -> Machine:
        """Return the machine."""
        return Template(self.hw).machine({"mac": {"low": dict(self.mac)}, **(_NPU if self.hw == "npu" else {})})


FORMATS = (
    *(
        Format("npu", {"operands": operands, "accumulator": f"fma({accumulator})"})
        for operands, accumulator in (
            ("fp8_e4m3/sat", "fp8_e4m3/sat"), ("fp8_e4m3/sat", "bf16"), ("fp8_e4m3/sat", "fp16/sat"),
            ("fp8_e4m3/sat", "fp32"), ("bf16", "fp32"), ("fp16", "fp32"), ("posit16", "posit16"),
        )
    ),
    # Rates and what is stored as in hwconfigs/nvidia_h100.yaml.
    Format("nvidia_h100", {"operands": "fp8_e4m3", "accumulator": "h100.fp8.wgmma", "stored": "fp8_e4m3",
                           "rate": "32 MAC/cycle"}),
    Format("nvidia_h100", {"accumulator": "h100.bf16", "stored": "bf16", "rate": "16 MAC/cycle"}),
    Format("nvidia_h100", {"accumulator": "h100.fp16", "stored": "fp16", "rate": "16 MAC/cycle"}),
)  # fmt: skip


class Task(NamedTuple):
    """A network, what it is given and how good what it gives is.

    Args:
        name: of the network. network, inputs: the one as it takes the others, samples in the first axis.
        measures: shares by their names, of the network's outputs and those of float32.
    """

    name: str
    network: nn.Module
    inputs: Tensor
    measures: Callable[[Tensor, Tensor], Mapping[str, float]]


class Outcome(NamedTuple):
    """What a format does.

    Args:
        network, hardware, mac: the network, the machine, and its arithmetic in words.
        measures: those of the task. difference: of the outputs to those of float32, mean of magnitudes.
        cycles, latency_s, energy_j: the bill of all samples in one batch (estimate).
        errors: by layer, norm of output minus that of float32 over norm of that of float32; it includes what layers
            before it have done, and of a layer that is called several times all outputs.
    """

    network: str
    hardware: str
    mac: str
    measures: Mapping[str, float]
    difference: float
    cycles: int
    latency_s: float
    energy_j: float
    errors: Mapping[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """The layer with the largest error, and that."""
        return max(self.errors.items(), key=lambda item: item[1])

    def row(self) -> dict[str, str | float]:
        """Return all but the errors of layers."""
        layer, error = self.worst
        return {
            "network": self.network, "hardware": self.hardware, "mac": self.mac, **self.measures,
            "difference": self.difference, "worst_layer": layer, "worst_relative_error": error,
            "cycles": self.cycles, "latency_s": self.latency_s, "energy_j": self.energy_j,
        }  # fmt: skip


def study(task: Task, formats: Iterable[Format] = FORMATS) -> Iterator[Outcome]:
    """Run a task in every format.

    Raises:
        InputError: a format whose MAC has no price.
    """
    network, inputs = task.network, task.inputs
    layers = layers_of(network, inputs[:1])
    with torch.no_grad(), outputs_of(network, layers) as known:
        reference = network(inputs)
    expected = {name: torch.cat(parts) for name, parts in known.items()}
    for form in formats:
        machine = form.machine()
        with torch.no_grad(), outputs_of(network, layers) as found, simulator.emulate(network, machine) as run:
            outputs = network(inputs)
        totals = run.result.totals["low"]
        if totals is None:
            raise InputError(f"{machine.name}: {machine.mac.low.spec} has no price; expected one that has; choose it")
        yield Outcome(
            task.name, machine.name, str(machine.mac.low.spec), task.measures(outputs, reference),
            float((outputs - reference).abs().mean()), int(totals["cycles"]), totals["latency_s"], totals["energy_j"],
            {name: float((torch.cat(found[name]) - value).norm() / value.norm()) for name, value in expected.items()},
        )  # fmt: skip


def layers_of(network: nn.Module, inputs: Tensor) -> list[str]:
    """Return the paths of the modules that a machine has products of, in the order of their first call."""
    with torch.no_grad(), simulator.emulate(network, "npu", layers={"*": "float32"}) as run:
        network(inputs)
    return list(dict.fromkeys(layer.name.partition("#")[0] for layer in run.result.layers))


@contextmanager
def outputs_of(network: nn.Module, layers: Iterable[str]) -> Iterator[dict[str, list[Tensor]]]:
    """Keep what modules give, by their paths and call by call; of several outputs the first."""
    kept: dict[str, list[Tensor]] = {name: [] for name in layers}

    def keep(output: Any, to: list[Tensor]) -> None:
        to.append(output[0] if isinstance(output, tuple) else output)

    hooks = [
        network.get_submodule(name).register_forward_hook(lambda _, __, output, to=to: keep(output, to))
        for name, to in kept.items()
    ]
    try:
        yield kept
    finally:
        for hook in hooks:
            hook.remove()


def classes(labels: Tensor) -> Callable[[Tensor, Tensor], Mapping[str, float]]:
    """Return the measures of a classifier, of logits (N, classes): right answers, and the same ones as float32."""

    def measures(outputs: Tensor, reference: Tensor) -> Mapping[str, float]:
        answers = outputs.argmax(1)
        return {"right": share(answers == labels), "as float32": share(answers == reference.argmax(1))}

    return measures


def share(of: Tensor) -> float:
    """Return the share of true values."""
    return float(of.double().mean())


def table(outcomes: Iterable[Outcome]) -> str:
    """Return the table as Markdown."""
    outcomes = list(outcomes)
    names = list(outcomes[0].measures)
    heads = [
        "network",
        "machine",
        "arithmetic",
        *names,
        "outputs off by",
        "worst layer",
        "its error",
        "cycles",
        "energy",
    ]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for of in outcomes:
        layer, error = of.worst
        cells = [
            f"`{of.network}`", f"`{of.hardware}`", f"`{of.mac}`", *(score(of.measures[name]) for name in names),
            significant(of.difference), f"`{shorten(layer, LONGEST)}`", percent(error),
            count(of.cycles), quantity(of.energy_j, "J"),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def run(study_name: str, tasks: Callable[[], Iterable[Task]], arguments: list[str]) -> None:
    """Run the study of a script, write study.json, formats.csv and layers.csv to its directory, and print the table.

    Args:
        study_name: its name, which is also that of the directory if the arguments name none.
        tasks: what makes the networks and their samples. arguments: the script's own.
    """
    if len(arguments) > 1:
        sys.exit(f"usage: python {study_name}_study.py [DIR]")
    out = Path(*arguments) if arguments else Path(study_name)
    try:
        check_study_directory(out, study_name)
        outcomes = [outcome for task in tasks() for outcome in study(task)]
        out.mkdir(parents=True, exist_ok=True)
        record = {"study": study_name, "formats": [of._asdict() for of in outcomes]}
        write_file(out / RESULTS, json.dumps(record, indent=2, allow_nan=False) + "\n")
        write_table([of.row() for of in outcomes], out / "formats.csv")
        write_table(
            [{"network": of.network, "hardware": of.hardware, "mac": of.mac, "layer": name, "relative_error": error}
             for of in outcomes for name, error in of.errors.items()],
            out / "layers.csv",
        )  # fmt: skip
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    print(f"In {out}\n\n{table(outcomes)}")
