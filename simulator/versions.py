"""What a result stood on: versions of this project and of the libraries that took part."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version

# Counts what changed the bits or the bill of an unchanged run: results of another number are not taken for what would
# be computed now. tests/simulator/test_numerics_version.py fails where such a change has not raised it.
NUMERICS = 6


def versions() -> dict[str, str]:
    """Return names and versions, only of libraries that are loaded; the instruction set changes no bit."""
    import native  # here, so that a version can be told where the engine is not built

    found = {"ulpsim": version_of("ulpsim"), "python": platform.python_version(), "numpy": version_of("numpy")}
    if "torch" in sys.modules:
        found["torch"] = version_of("torch")
    found["instruction set"] = native.isa()
    return found


def version_of(name: str) -> str:
    """Return the version of an installed distribution, or that it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown (not installed)"
