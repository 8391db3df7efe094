"""What a result stood on: versions of this project and of the libraries that took part."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

import native

# Counts what changed the bits or the bill of an unchanged run: results of another number are not taken for what would
# be computed now. tests/simulator/test_numerics_version.py fails where such a change has not raised it.
NUMERICS = 6


def versions() -> dict[str, str]:
    """Return names and versions, only of libraries that are loaded; the instruction set changes no bit."""
    found = {"ulpsim": _version("ulpsim"), "python": platform.python_version(), "numpy": _version("numpy")}
    if "torch" in sys.modules:
        found["torch"] = _version("torch")
    found["instruction set"] = native.isa()
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown (not installed)"
