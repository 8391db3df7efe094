"""A checkpoint: the state of a training as a file, there whole or not at all, and read without running code."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from simulator.errors import InputError, first_line
from simulator.network.state_dicts import NeedsCodeError, read_torch_file
from simulator.report.directories import check_writable, write_file
from simulator.versions import NUMERICS

from .loop import Data, Training

VERSION = 1
_FORM = "ulpsim training"
_PLAIN = (bool, int, float, str, type(None))  # and no subclasses of them, such as numpy has


def settings(training: Training) -> dict[str, Any]:
    """Return what a training is, as plain data by name: two with the same settings take the same steps."""
    model, recipe, optimizer = training.model, training.recipe, training.optimizer
    named = [*model.named_parameters(), *model.named_buffers()]
    shapes = "\n".join(f"{name} {tuple(x.shape)} {x.dtype} {x.requires_grad}" for name, x in named)
    found: dict[str, Any] = {
        "numerics": NUMERICS,
        "torch": str(torch.__version__),
        "network": type(model).__qualname__,
        "shapes of the network": hashlib.sha256(shapes.encode()).hexdigest()[:16],
        **{f"layer {path or 'of all'}": _layer(module) for path, module in model.named_modules()},
        "data": _digest(training.data),
        "test": _digest(training.test),
        "loss": str(getattr(training.loss, "__qualname__", type(training.loss).__qualname__)),
        "batch_size": training.batch_size,
        "seed": training.seed,
        "causes": training.causes,
        "optimizer": type(optimizer).__qualname__,
    }
    for number, group in enumerate(optimizer.param_groups):
        of_group = f" of group {number}" if number else ""
        found |= {f"{key}{of_group}": _word(value) for key, value in group.items() if key != "params"}
    scale = recipe.loss_scale
    found |= {f"recipe: {name}": str(use) for name, use in recipe.points.items()}
    found |= {f"recipe: mac {name}": unit for name, unit in recipe.macs.items()}
    return found | {f"recipe: loss_scale.{name}": getattr(scale, name) for name in ("start", "dynamic", "every")}


class Checkpoint:
    """The checkpoint of a training.

    Args:
        training: before its first step. path: of the file.
    Raises:
        InputError: a path that cannot be written to.
    """

    def __init__(self, training: Training, path: str | os.PathLike[str]) -> None:
        check_writable(path)
        self._training, self.path = training, Path(path)
        self._settings = settings(training)

    def write(self) -> None:
        """Write the state of the training; what was there is replaced once all of it is on the disk.

        Raises:
            InputError: the file cannot be written, or the optimiser keeps something else than tensors and numbers.
        """
        content = {"form": _FORM, "version": VERSION, "settings": self._settings, "state": self._training.state()}
        for leaf in tree_leaves(content):
            if not isinstance(leaf, Tensor) and type(leaf) not in _PLAIN:
                raise InputError(
                    f"{self.path}: the optimizer keeps a {type(leaf).__name__}, which a checkpoint cannot hold; "
                    "expected tensors, numbers and texts; train without a checkpoint, or with another optimizer"
                )
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_file(self.path, buffer.getvalue())

    def restore(self, epochs: int) -> None:
        """Have the training go on from the file.

        Args:
            epochs: that the training is to have in all.
        Raises:
            InputError: the file is missing or damaged, is no checkpoint, has other settings, or more epochs; the
                training is as it was.
        """
        content = read(self.path)
        differences = _differences(content["settings"], self._settings)
        if differences:
            raise InputError(
                f"{self.path}: is of a training with other settings: {'; '.join(differences)}; expected the same to go "
                "on; give those of the checkpoint, or begin a training elsewhere"
            )
        try:
            done = len(content["state"]["epochs"])
            if done <= epochs:
                self._training.restore(content["state"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise _damaged(self.path, f"{type(error).__name__}: {first_line(error)}") from None
        if done > epochs:
            raise InputError(
                f"{self.path}: holds {done} epochs; expected at most the {epochs} that are asked for; ask for more "
                "epochs, or begin a training elsewhere"
            )


def read(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds: `settings` and `state`; nothing in the file is ever run.

    Raises:
        InputError: the file is missing or damaged, or is no checkpoint.
    """
    try:
        content = read_torch_file(os.fspath(path))
    except NeedsCodeError as error:
        raise _other(path, f"code ({error}; nothing was run)") from None
    if not isinstance(content, Mapping) or content.get("form") != _FORM:
        raise _other(path, "something else")
    if content.get("version") != VERSION:
        raise InputError(
            f"{path}: is a checkpoint of version {content.get('version')}; expected {VERSION}; go on with the ulpsim "
            "that wrote it"
        )
    if not all(isinstance(content.get(key), Mapping) for key in ("settings", "state")):
        raise _damaged(path, "settings or state are missing")
    return dict(content)


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Say what differs, in the order of what is asked for."""
    return [
        f"{name} is {_shown(there, name)} there and {_shown(here, name)} here"
        for name in dict.fromkeys([*here, *there]) if there.get(name, _ABSENT) != here.get(name, _ABSENT)
    ]  # fmt: skip


_ABSENT = object()


def _shown(found: Mapping[str, Any], name: str) -> str:
    return str(found[name]) if name in found else "not set"


def _word(value: Any) -> Any:
    """Return a setting of an optimiser as it is compared: as a number or as text."""
    return value if type(value) in _PLAIN else str(value)


def _layer(module: nn.Module) -> str:
    """Return a module without those in it, as it shows itself; in one line."""
    return " ".join(f"{type(module).__qualname__}({module.extra_repr()})".split())


def _digest(data: Data) -> str:
    digest, (inputs, y) = hashlib.sha256(), data
    named = {"": inputs} if isinstance(inputs, Tensor) else inputs
    for name, x in (*sorted(named.items()), ("", y)):
        digest.update(f"{name}{tuple(x.shape)} {x.dtype}".encode())
        digest.update(x.detach().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: a checkpoint that is damaged ({reason}); expected a whole one; take a copy of it, or begin anew"
    )


def _other(path: Path, found: str) -> InputError:
    return InputError(
        f"{path}: holds {found}; expected a checkpoint of a training; name the file that `checkpoint` wrote"
    )
