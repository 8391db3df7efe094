"""The main job: a network on a machine, from a YAML file to a record, as one list of steps."""

from __future__ import annotations

import os
from dataclasses import replace

from .hardware import Machine, load_hardware
from .network.evaluation import check_choices, evaluate
from .network.model_files import load_model, made_by_code
from .network.samples import load_samples
from .progress import OpenProgress
from .result import RunResult


def run(
    hw: Machine | str | os.PathLike[str],
    model: str = "mlp",
    data: str | None = None,
    samples: int | None = None,
    tolerance: float | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: OpenProgress | None = None,
    keep_partial: bool = False,
    weights: str | None = None,
    allow_code: bool = False,
    fidelity: str = "analytic",
) -> RunResult:
    """Run a network on a machine in every mode: exact, uniform low, uniform high and two-pass.

    The record has the condition numbers of the layers too, of the first samples, see evaluate.

    Args:
        hw: a machine, hardware YAML file, or the name of a bundled one.
        model: what load_model takes as name: mlp, cnn, `module:attribute`, or a file: `.onnx`, `.keras`, `.pt2`, or
            of a whole pickled module.
        data: `.npz` file with x and y, or a directory of images; None for the bundled digits.
        samples: how many; None for all.
        tolerance: of the two-pass policy; None for the file's.
        seed: of every random choice. threads: at most so many; None for all processors available.
        progress, keep_partial: as evaluate takes them.
        weights: file of a state dict for the network. allow_code: whether a file given as model may run code.
        fidelity: of the cycles, as evaluate takes it.
    Raises:
        InputError: input that the user can put right.
    """
    check_choices(threads, seed, "--")
    machine = hw if isinstance(hw, Machine) else load_hardware(hw)
    network = load_model(model, weights, allow_code, seed)
    inputs = load_samples(data, samples, network)
    result = evaluate(
        network, machine, inputs.x, inputs.y, tolerance=tolerance, seed=seed, threads=threads, progress=progress,
        keep_partial=keep_partial, fidelity=fidelity, conditions=True,
    )  # fmt: skip
    notes = []
    if weights is None and any(True for _ in network.parameters()) and made_by_code(model):
        notes.append(
            f"no --weights: they are what the code of {model} makes them, at random by seed {seed} unless it loads "
            "some or sets a seed of its own"
        )
    return replace(result, model=model, warnings=(*result.warnings, *notes))
