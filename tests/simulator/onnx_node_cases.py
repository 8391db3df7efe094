"""The cases that onnx brings for its operators, run as files; `python -m tests.simulator.onnx_node_cases` lists them.

Each case is a model of one operator, or of the function that defines one, with inputs and the outputs that ONNX's own
implementation recorded. data/onnx_node_cases.txt says of each that it passes, or why it is refused.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from torch import Tensor

from simulator.errors import InputError
from simulator.network.onnx_files import read_onnx
from simulator.network.onnx_tensors import Tensors

LIST = Path(__file__).with_name("data") / "onnx_node_cases.txt"
PASSES = "passes"
COMMAND = "python -m tests.simulator.onnx_node_cases"

# Operators that draw numbers: of their outputs type and shape can be compared.
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)

# Least relative tolerance of narrow types, two units in the last place: where an operator rounds in between, its cases
# do not say. That of bfloat16 is that of onnx's own runner.
LEAST = {torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}

# Cases whose recorded outputs are 1.9e-7 where an inverse transform in float64 gives 0, beyond their own 1e-7: the
# absolute tolerance that they need.
OFF = {"test_dft_inverse": 2e-7, "test_dft_inverse_opset19": 2e-7}


def cases() -> dict[str, Any]:
    """Return the cases by name."""
    with warnings.catch_warnings():  # of the reference implementation, which divides by zero to show what comes out
        warnings.simplefilter("ignore")
        return {case.name: case for case in load_model_tests(kind="node")}


def outcome(case: Any, folder: Path) -> str:
    """Run a case: PASSES, or why it is refused, or what is wrong, which begins with WRONG."""
    path = folder / f"{case.name}.onnx"
    path.write_bytes(case.model.SerializeToString())
    try:
        network = read_onnx(str(path))
        for given, wanted in case.data_sets:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                found = network(*map(value, given))
            found = list(found.values()) if isinstance(found, Mapping) else [found]
            random = any(node.op_type in RANDOM for node in case.model.graph.node)
            tolerance = None if random else (case.rtol, OFF.get(case.name, case.atol))
            wrong = difference(found, [value(one) for one in wanted], tolerance)
            if wrong:
                return f"WRONG: {wrong}"
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ").split("; expected")[0]
        # What an operator raises has a cause; what it declines, or a file is refused for, has none.
        return f"WRONG: {reason}" if error.__cause__ is not None else f"refused: {reason}"
    return PASSES


def value(given: Any) -> Any:
    """Return what a case gives: a tensor, a sequence, or an optional without value."""
    if given is None or isinstance(given, Tensor):
        return given
    if isinstance(given, list):
        return [value(one) for one in given]
    proto = given if isinstance(given, onnx.TensorProto) else numpy_helper.from_array(np.asarray(given))
    return Tensors("the case").read(proto, "value")


def difference(found: Any, wanted: Any, tolerance: tuple[float, float] | None) -> str:
    """Say in what two values differ beyond a tolerance, relative and absolute; integers may not; empty if in nothing.

    Args:
        tolerance: None compares types and shapes only.
    """
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return f"{found!r:.60} and not {len(wanted)} values"
        return next(filter(None, map(difference, found, wanted, [tolerance] * len(wanted))), "")
    if wanted is None or not isinstance(found, Tensor):
        return "" if found is wanted else f"{found!r:.60} and not {wanted!r:.60}"
    if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
        return f"{found.dtype} {tuple(found.shape)} and not {wanted.dtype} {tuple(wanted.shape)}"
    if tolerance is None or not wanted.numel():
        return ""
    exact = not (wanted.is_floating_point() or wanted.is_complex())
    wide = torch.complex128 if wanted.is_complex() else torch.int64 if exact else torch.float64
    rtol, atol = (0.0, 0.0) if exact else (max(tolerance[0], LEAST.get(wanted.dtype, 0.0)), tolerance[1])
    close = torch.isclose(found.to(wide), wanted.to(wide), rtol=rtol, atol=atol, equal_nan=not exact)
    return "" if bool(close.all()) else f"{int((~close).sum())} of {close.numel()} elements"


def outcomes() -> dict[str, str]:
    """Run all cases."""
    with tempfile.TemporaryDirectory() as folder:
        return {name: outcome(case, Path(folder)) for name, case in cases().items()}


def text(found: Mapping[str, str]) -> str:
    """Return what the list is to hold."""
    passing = sum(one == PASSES for one in found.values())
    head = f"# {passing:,} of {len(found):,} node cases of onnx {onnx.__version__} pass; written by {COMMAND}\n"
    return head + "".join(f"{name}: {one}\n" for name, one in sorted(found.items()))


if __name__ == "__main__":
    LIST.parent.mkdir(exist_ok=True)
    LIST.write_text(text(outcomes()), encoding="utf-8")
