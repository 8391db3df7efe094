"""Networks from `.keras` files, which nobody has to trust: a graph of Keras' own layers, and tensors that fit it."""

from __future__ import annotations

import copy
import io
import json
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from simulator.errors import InputError, first_line, missing

from .archives import read_members, shown_name
from .files import check_file
from .keras_network import KerasNetwork
from .limits import check_fits

_EXPECTED = "a .keras file as model.save(path) of Keras 3 writes it"
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"

# Where in Keras the objects of a graph are: what else its modules hold can read files, or allow code.
_FUNCTIONS = frozenset({"activations", "constraints", "initializers", "ops", "random", "regularizers"})
_CLASSES = _FUNCTIONS | {"dtype_policies", "layers", "models"}
_TOP = frozenset({"Sequential", "Model", "Functional", "DTypePolicy", "Variable"})
# Layers that are or load code.
_CODE = frozenset({"Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "__lambda__", "__typespec__"})
_DATA = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__"})


def load_keras(path: str) -> KerasNetwork:
    """Return the network of a `.keras` file, on the CPU; nothing in the file is ever run.

    Args:
        path: of the file, of Keras 3.
    Raises:
        InputError: the file is damaged, of another kind, too large, holds code, or weights that its layers do not have.
        MissingLibraryError: there is no Keras.
    """
    check_file(path, _EXPECTED)
    members = read_members(path, _EXPECTED, (_CONFIG, _WEIGHTS), (_METADATA,))
    config = _read_config(path, members[_CONFIG])
    keras = _keras(path)
    with warnings.catch_warnings(action="ignore"):  # of layers, which only the file's author can change
        try:
            # First without memory: how large the graph says that it is.
            with keras.device("meta"):
                sketch = _model_of(keras, config)
            size = sum(variable.value.numel() * variable.value.element_size() for variable in sketch.variables)
        except Exception as error:
            raise InputError(
                f"{path}: its {_CONFIG} makes no network ({_reason(error)}); expected {_EXPECTED}; write it anew"
            ) from None
        remedy = "take a smaller network, or a machine with more memory"
        check_fits(f"{path}: variables of the network", size, 1, remedy)
        _check_weights(path, members.pop(_WEIGHTS))
        try:
            with keras.device("cpu"):
                model = _model_of(keras, config)
                model.load_weights(path)
        except Exception as error:
            raise InputError(
                f"{path}: its weights do not fit its layers ({_reason(error)}); expected {_EXPECTED}; write it anew"
            ) from None
    return KerasNetwork(model)


def _keras(path: str) -> Any:
    """Return the library, which takes its backend when it is first imported and never again."""
    if "keras" not in sys.modules:
        os.environ["KERAS_BACKEND"] = "torch"
    try:
        import keras
    except ImportError:
        raise missing(path, "keras", "keras") from None
    if keras.backend.backend() != "torch":
        raise InputError(
            f"{path}: keras is imported already, with the backend {keras.backend.backend()}; expected torch; set "
            "KERAS_BACKEND=torch before anything imports keras, or start a new process"
        )
    return keras


def _model_of(keras: Any, config: dict[str, Any]) -> Any:
    from keras.src.saving.serialization_lib import ObjectSharingScope

    with ObjectSharingScope():  # as Keras reads a file: what layers share is one object
        model = keras.saving.deserialize_keras_object(copy.deepcopy(config), safe_mode=True)  # which it changes
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(f"a {type(model).__name__} that is no built model")
    return model


def _reason(error: Exception) -> str:
    """The first line of what Keras says, which may go on with the whole configuration."""
    return f"{type(error).__name__}: {first_line(error)[:160]}"


# --- what the graph may name ----------------------------------------------------------------------------------------


def _read_config(path: str, text: bytes) -> dict[str, Any]:
    """Return the graph; InputError names whatever in it is or needs code."""
    try:
        config = json.loads(text, object_hook=_uncompiled)
        foreign = dict.fromkeys(_foreign(config))
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: its {_CONFIG} cannot be read ({first_line(error)}); expected {_EXPECTED}; write it anew"
        ) from None
    if not isinstance(config, dict) or "class_name" not in config:
        raise InputError(f"{path}: its {_CONFIG} names no model; expected {_EXPECTED}; write it anew")
    if foreign:
        raise InputError(
            f"{path}: needs code beside Keras' own layers: {', '.join(list(foreign)[:8])} (nothing was run); expected "
            "a graph of these layers; write a module with the code and a function that returns "
            "keras.saving.load_model(path, custom_objects=...), and give --model module:function"
        )
    return config


def _uncompiled(found: dict[str, Any]) -> dict[str, Any]:
    """Leave out how a model, or one within it, was compiled: losses and optimisers, which may be code."""
    return {key: value for key, value in found.items() if key != "compile_config"}


def _foreign(config: Any) -> Iterator[str]:
    """Yield what a configuration names that is none of Keras' own objects of a graph."""
    if isinstance(config, list):
        for value in config:
            yield from _foreign(value)
    if not isinstance(config, dict):
        return
    if isinstance(config.get("class_name"), str) and "config" in config:
        name = config["class_name"]
        if name in _CODE or (name not in _DATA and not _is_of_keras(config, name)):
            yield shown_name(str(config.get("registered_name") or (config["config"] if name == "function" else name)))
            return
    for value in config.values():
        yield from _foreign(value)


def _is_of_keras(config: dict[str, Any], name: str) -> bool:
    module, registered = config.get("module"), config.get("registered_name")
    if not isinstance(module, str) or registered not in (None, name, config["config"]):
        return False
    if module == "builtins":  # functions by name alone, which Keras finds among its own
        return name == "function" and isinstance(config["config"], str)
    if module == "keras":
        return name in _TOP
    room = module.removeprefix("keras.").removeprefix("src.").split(".")[0]
    return module.startswith("keras.") and room in (_FUNCTIONS if name == "function" else _CLASSES)


# --- weights --------------------------------------------------------------------------------------------------------


def _check_weights(path: str, content: bytes) -> None:
    """Refuse weights that are no plain numbers, not within the file, or larger than memory when they are read."""
    import h5py

    sizes: list[int] = []

    def visit(name: str, found: Any) -> None:
        if not isinstance(found, h5py.Dataset):
            return
        if found.external or found.is_virtual or found.dtype.kind not in "fiub":
            raise ValueError(f"{name} of {found.dtype}, or in another file")
        sizes.append(found.nbytes)

    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            file.visititems(visit)
    except Exception as error:
        raise InputError(
            f"{path}: its {_WEIGHTS} cannot be read ({first_line(error)}); expected {_EXPECTED}; write it anew"
        ) from None
    check_fits(f"{path}: weights", sum(sizes), 1, "write the file anew if its weights are not so large")
