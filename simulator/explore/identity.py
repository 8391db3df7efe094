"""What a point is addressed by: a digest of all that decides on its result, whatever file or name it came from.

Of a run these are the machine as its records, the network (its weights, and the source of the code that runs it), the
samples, the seed and the version of the numerics; of a bill the machine, the products and the share of flags. What does
not decide is left out: threads, paths, library versions.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from simulator.hardware import Machine
from simulator.versions import NUMERICS


def of_run(machine: Machine, network: str, samples: str, calibration: str | None, seed: int) -> Mapping[str, Any]:
    """Return the identity of a network's run on a machine; network and samples by their digests."""
    what = {"network": network, "samples": samples, "seed": int(seed)}
    if calibration is not None:
        what["calibration"] = calibration
    return {"machine": of_machine(machine), **what, "numerics": NUMERICS}


def of_bill(machine: Machine, workload: str, flagged: float) -> Mapping[str, Any]:
    """Return the identity of the bill of products on a machine; these by their digest."""
    return {
        "machine": of_machine(machine), "workload": workload, "flagged": plain(float(flagged)), "numerics": NUMERICS,
    }  # fmt: skip


def key(identity: Mapping[str, Any]) -> str:
    """Return the key of a point: SHA-256 of its identity as canonical JSON."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest(value: Any) -> str:
    """Return a digest of a value of records."""
    return key({"value": plain(value)})


def of_machine(machine: Machine) -> Mapping[str, Any]:
    """Return a machine as plain data, without its name and the path of its file."""
    return {
        field.name: _shared(part) if field.name == "technology" else plain(part)
        for field in fields(machine)
        if field.compare and field.name not in ("name", "source") and (part := getattr(machine, field.name)) is not None
    }


def plain(value: Any) -> Any:
    """Return a value of records as JSON takes it: records as mappings with the name of their class, floats exactly.

    Raises:
        TypeError: a value whose meaning this does not know.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return (value + 0.0).hex()  # -0.0 is 0
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if is_dataclass(value) and not isinstance(value, type):
        # What is None by default adds nothing, so that a record may get such a field without new keys.
        parts = {field.name: getattr(value, field.name) for field in fields(value) if field.compare}
        said = {
            name: plain(part) for name, part in parts.items() if part is not None or not _none_by_default(value, name)
        }
        return {"record": type(value).__name__, **said}
    raise TypeError(f"identity: a {type(value).__name__} says not what it is: {value!r}")


def _none_by_default(record: Any, name: str) -> bool:
    return getattr(type(record), name, ...) is None


@lru_cache(maxsize=256)
def _shared(part: Any) -> Any:
    """Return the digest of what many machines share."""
    return digest(part)
