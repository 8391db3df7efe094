"""The network that a user names: a bundled one, a torch module by `module:attribute`, or a file that holds one."""

from __future__ import annotations

import difflib
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import is_lazy

from simulator.errors import InputError, first_line, missing

from . import bundled
from .exported_files import load_exported
from .keras_files import load_keras
from .keras_network import network_of
from .limits import check_fits
from .state_dicts import NeedsCodeError, described, is_state_dict, load_weights, read_torch_file

TORCH_FILES, ONNX, KERAS, EXPORTED = (".pt", ".pth"), ".onnx", ".keras", ".pt2"
_LISTED = f"{', '.join(TORCH_FILES)} or {EXPORTED}"  # what may hold code
_TOO_LARGE = "take a smaller network, or a machine with more memory"


def load_model(name: str, weights: str | None = None, allow_code: bool = False, seed: int = 0) -> nn.Module:
    """Return a network on the CPU, in eval mode and without gradients.

    Args:
        name: mlp or cnn; `module:attribute`, where the module is importable, from the current directory too, and the
            attribute an nn.Module or a Keras model, or a class or function that makes one without arguments; or a file:
            `.onnx`, `.keras`, `.pt2` of torch.export, or `.pt` or `.pth` of a whole pickled module, whose own code then
            runs.
        weights: file of a state dict for it, as torch.save or safetensors writes it; None for the weights it has.
        allow_code: whether a file given as name may run code. seed: of weights that the network's own code draws.
    Raises:
        InputError: there is no such network, its code fails, or its weights do not fit, are not finite, or too large.
    """
    suffix = Path(name).suffix
    if allow_code and suffix not in (*TORCH_FILES, EXPORTED):
        raise InputError(
            f"--allow-code: given with --model {name}, which is no {_LISTED} file; expected only with one, whose own "
            "code it allows to run; leave it out"
        )
    # Weights drawn at random by the network's code are the same in every run, and the caller's random state is kept.
    with torch.random.fork_rng(devices=[]), _parameters_within_memory(name):
        torch.manual_seed(seed)
        if name in bundled.NAMES:
            model = bundled.load(name)
        elif suffix in TORCH_FILES:
            model = _read_module(name, allow_code)
        elif suffix == ONNX:
            model = _read_onnx(name)
        elif suffix == KERAS:
            model = load_keras(name)
        elif suffix == EXPORTED:
            model = load_exported(name, allow_code)
        elif ":" in name and not os.path.exists(name):
            model = network_of(_import_module(name, seed))
        else:
            _refuse(name)
    if weights is not None:
        load_weights(model, weights)
    _check_values(model, weights or f"--model {name}")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model.cpu().eval()


def made_by_code(name: str) -> bool:
    """Whether a name that load_model has loaded is a class or a function, which made the network and its weights."""
    module, _, attribute = name.partition(":")
    return module in sys.modules and not isinstance(attrgetter(attribute)(sys.modules[module]), nn.Module)


def _refuse(name: str) -> NoReturn:
    near = difflib.get_close_matches(name, bundled.NAMES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    if name.endswith(".safetensors"):
        hint = "; that file holds weights alone: give --model module:attribute --weights FILE"
    raise InputError(
        f"--model: got {name!r}; expected one of {', '.join(bundled.NAMES)}, module:attribute, or a "
        f"{', '.join((ONNX, KERAS, EXPORTED, *TORCH_FILES[:-1]))} or {TORCH_FILES[-1]} file; choose one{hint}"
    )


# --- module:attribute -----------------------------------------------------------------------------------------------


def _import_module(name: str, seed: int) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    parts = [*module_name.split("."), *attribute.split(".")]
    file = Path(module_name)
    if file.suffix == ".py" or not all(part.isidentifier() for part in parts):
        hint = f"; did you mean '{file.stem}:{attribute}'?" if file.suffix == ".py" else ""
        raise InputError(
            f"--model: got {name!r}; expected module:attribute, names as in Python's import and no path; correct "
            f"it{hint}"
        )
    _find_modules_here()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(
                f"--model {name}: importing {module_name} needs the module {error.name}{_place(error)}, which is "
                "not installed; expected code that runs as it is; install it"
            ) from None
        raise InputError(
            f"--model {name}: no module {error.name!r}; expected one in the current directory ({os.getcwd()}) or "
            "installed; correct the name, or change to its directory"
        ) from None
    except (Exception, SystemExit) as error:
        _refuse_failing(name, f"importing {module_name}", error)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            candidates = [key for key, value in vars(module).items() if _makes_module(value)]
            near = difflib.get_close_matches(part, candidates or dir(module), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"--model {name}: {module_name} ({getattr(module, '__file__', None) or 'built in'}) has no "
                f"{attribute!r}; expected one of its networks{': ' + ', '.join(candidates[:6]) if candidates else ''}; "
                f"correct the name{hint}"
            )
        found = getattr(found, part)
    return _made(name, found, seed)


def _makes_module(value: Any) -> bool:
    return isinstance(value, nn.Module) or (isinstance(value, type) and issubclass(value, nn.Module))


def _made(name: str, found: Any, seed: int) -> nn.Module:
    """Return the network that an attribute is, or that it makes without arguments."""
    if isinstance(found, nn.Module):
        return found
    expected = "expected an nn.Module, or a class or function that makes one without arguments"
    if not callable(found) or (isinstance(found, type) and not issubclass(found, nn.Module)):
        kind = f"the class {found.__name__}" if isinstance(found, type) else f"of type {type(found).__name__}"
        raise InputError(f"--model {name}: is {kind}; {expected}; name another one")
    needed = _required(found)
    if needed:
        raise InputError(
            f"--model {name}: needs the arguments {', '.join(needed)}; {expected}; write a function that gives them, "
            f"as in `def network(): return {getattr(found, '__name__', 'Net')}({needed[0]}=...)`"
        )
    torch.manual_seed(seed)  # again: the first import of a module may have drawn numbers
    try:
        model = found()
    except InputError:
        raise
    except (Exception, SystemExit) as error:
        _refuse_failing(name, "making the network", error)
    if not isinstance(model, nn.Module):
        raise InputError(
            f"--model {name}: returned an object of type {type(model).__name__}; {expected}; correct the function"
        )
    return model


def _required(function: Any) -> list[str]:
    """Names of the arguments that a function cannot do without."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of some functions in C
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in variable]


def _find_modules_here() -> None:
    """Find modules of the current directory, as `python -m` does and installed commands do not."""
    here = os.getcwd()
    if not sys.flags.safe_path and here not in sys.path:
        sys.path.insert(0, here)


def _refuse_failing(name: str, action: str, error: BaseException) -> NoReturn:
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        raise InputError(
            f"--model {name}: {action} needs more memory than there is ({first_line(error)}){_place(error)}; expected "
            f"a network that fits; {_TOO_LARGE}"
        ) from None
    raise InputError(
        f"--model {name}: {action} failed ({type(error).__name__}: {first_line(error)}){_place(error)}; expected code "
        "that runs as it is; correct it"
    ) from None


def _place(error: BaseException) -> str:
    """Say where in the user's code an exception arose: the innermost place outside of torch and of Python itself."""
    if isinstance(error, SyntaxError):
        return f" at {error.filename}:{error.lineno}"
    own = str(Path(__file__).parent)
    inside = (os.path.dirname(torch.__file__), os.path.dirname(os.__file__) + os.sep + "importlib", "<frozen", own)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith(inside)]
    return f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


# --- files ----------------------------------------------------------------------------------------------------------


def _read_module(path: str, allow_code: bool) -> nn.Module:
    _find_modules_here()
    try:
        found = read_torch_file(path, allow_code)
    except NeedsCodeError as error:
        raise InputError(
            f"{path}: holds a pickled object, and loading it would run {error} and whatever else the file says, with "
            "all your rights (nothing was run); expected --model module:attribute --weights FILE with a state dict, "
            "which runs nothing of a file; or, if you trust where the file comes from, add --allow-code"
        ) from None
    if isinstance(found, nn.Module):
        return found
    if is_state_dict(found):
        raise InputError(
            f"{path}: a state dict, weights without the network's code; expected a whole module; give --model "
            "module:attribute --weights FILE"
        )
    raise InputError(
        f"{path}: holds {described(found)}; expected a whole module; write it with torch.save(model, path), or "
        "give --model module:attribute --weights FILE"
    )


def _read_onnx(path: str) -> nn.Module:
    try:
        from .onnx_files import read_onnx
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "onnx":
            raise
        raise missing(f"--model {path}", "the library onnx", "onnx") from None
    return read_onnx(path)


# --- what a network may hold ----------------------------------------------------------------------------------------


@contextmanager
def _parameters_within_memory(name: str) -> Iterator[None]:
    """While a network is made, refuse parameters beyond memory before they are filled, which is when they take it."""
    sizes: dict[int, int] = {}

    def check(module: nn.Module, key: str, parameter: Tensor | None) -> None:
        if parameter is None or is_lazy(parameter) or parameter.is_meta:
            return
        sizes[id(parameter)] = parameter.numel() * parameter.element_size()
        check_fits(f"--model {name}: parameters of the network", sum(sizes.values()), 1, _TOO_LARGE)

    hook = register_module_parameter_registration_hook(check)
    try:
        yield
    finally:
        hook.remove()


def _check_values(model: nn.Module, source: str) -> None:
    """Refuse parameters and buffers that are no numbers which hardware could hold."""
    total = 0
    for name, value, is_parameter in (
        *((name, value, True) for name, value in model.named_parameters()),
        *((name, value, False) for name, value in model.named_buffers()),
    ):
        if is_lazy(value) or value.is_meta:
            raise InputError(
                f"{source}: {name} has no values yet; expected a network with weights; give them with --weights "
                "FILE, or make the network on the CPU"
            )
        if value.layout is not torch.strided or value.is_quantized:
            kind = "quantised" if value.is_quantized else "sparse"
            raise InputError(f"{source}: {name} is {kind}; expected dense, plain numbers; convert it first")
        total += value.numel() * value.element_size()
        if not value.is_floating_point() or not value.numel():
            continue
        # Smallest and largest are NaN if any is, and take no memory.
        extremes = torch.stack((value.float() if value.element_size() == 1 else value).aminmax())
        # Infinities are usual in buffers, as in masks of attention.
        if bool((~extremes.isfinite() if is_parameter else extremes.isnan()).any()):
            raise InputError(
                f"{source}: {name} holds NaN{' or infinities' if is_parameter else ''}; expected finite weights; train "
                "the network anew, or save it before it diverged"
            )
    check_fits(f"{source}: parameters and buffers of the network", total, 1, _TOO_LARGE)
