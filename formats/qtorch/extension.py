"""Compiling, loading and calling the C++ code of the packages: the only file here that imports torch."""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Distribution -> the version whose behaviour is known. The Python package has an underscore for the hyphen.
VERSIONS = {"qtorch": "0.3.0", "qtorch-plus": "0.2.0"}
INSTALL = "pip install 'ulpsim[qtorch]'"
BUILD_WAIT_SECONDS = 600.0  # for another process to finish compiling, which takes about 30 s on an idle machine
CHUNK = 1 << 20  # elements per call: the packages count them in 32 bits
# No contraction, or other instruction sets would give other floats; they read floats as integers through pointers.
COMPILER_FLAGS = ["-O2", "-ffp-contract=off", "-fno-strict-aliasing"]


def run(function: Callable[..., Any], x: NDArray[np.float32], parameters: tuple[float, ...]) -> NDArray[np.float64]:
    """Apply a rounding function of an extension to an array of any shape."""
    import torch

    flat = x.ravel()
    result = np.empty(flat.shape, np.float64)
    for start in range(0, flat.size, CHUNK):
        part = slice(start, start + CHUNK)
        result[part] = function(torch.from_numpy(flat[part]), *parameters).numpy()
    return result.reshape(x.shape)


def require(package: str, name: str) -> Path:
    """Check that all is there to compile a package for the format `name`; import nothing.

    Args:
        package: key of VERSIONS.
    Returns:
        Folder of the package's C++ sources.
    Raises:
        ImportError: one sentence that says what to install.
    """
    if importlib.util.find_spec("torch") is None:
        raise ImportError(f"{name} needs torch; install it with `pip install torch`, then `{INSTALL}`")
    version = VERSIONS[package]
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(f"{name} needs {package} {version}; install it with `{INSTALL}`")
    try:
        installed = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        installed = "an unknown version"
    if installed != version:
        raise ImportError(f"{name} needs {package} {version}, and {installed} is installed; repair it with `{INSTALL}`")
    if _ninja() is None:
        raise ImportError(f"{name} needs ninja to compile {package}; install it with `pip install ninja`")
    compiler = _compiler()
    if shutil.which(compiler) is None:
        raise ImportError(
            f"{name} needs a C++ compiler, which `{INSTALL}` does not bring, and {compiler!r} is not found; "
            "install g++ or clang++, or name yours in the environment variable CXX"
        )
    return Path(next(iter(spec.submodule_search_locations)), "quant", "quant_cpu")


def _ninja() -> str | None:
    # The second place is where pip puts it, outside PATH when an environment is used without being activated.
    return shutil.which("ninja") or shutil.which("ninja", path=sysconfig.get_path("scripts"))


def _compiler() -> str:
    return (shlex.split(os.environ.get("CXX", "")) or ["c++"])[0]


def build_folder(package: str, torch_version: str) -> Path:
    """Return the folder in which a package is compiled, one for each combination of versions."""
    root = os.environ.get("TORCH_EXTENSIONS_DIR") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root, "ulpsim", f"{package}-{VERSIONS[package]}-torch-{torch_version}-{sys.implementation.cache_tag}")


@functools.cache
def extension(package: str, name: str) -> Any:
    """Compile a package's C++ code, unless that is done, and load it.

    Args:
        package: key of VERSIONS. name: of the format that needs it, for messages.
    Raises:
        ImportError: something is missing, or the compiler refuses. TimeoutError: another process does not finish.
    """
    sources = require(package, name)
    import torch
    from torch.utils import cpp_extension

    folder = build_folder(package, torch.__version__)
    with sole_builder(folder, BUILD_WAIT_SECONDS), _ninja_in_path():
        try:
            return cpp_extension.load(
                f"ulpsim_{package.replace('-', '_')}",
                [str(path) for path in sorted(sources.glob("*.cpp"))],
                extra_cflags=COMPILER_FLAGS,
                build_directory=str(folder),
            )
        except RuntimeError as error:
            raise ImportError(
                f"{name}: {package} does not compile with {_compiler()!r} in {folder}; torch's message is above"
            ) from error


@contextlib.contextmanager
def sole_builder(folder: Path, seconds: float) -> Iterator[None]:
    """Make a folder and keep other processes from compiling in it; remove what a killed build left.

    torch marks a build by a file `lock`, and waits for ever if a killed build left one. Here the operating system holds
    the lock, on another file, and lets go of it when its owner ends: whoever has it knows that `lock` has no owner.

    Args:
        seconds: how long to wait for another process.
    Raises:
        TimeoutError: another process holds the folder.
    """
    import fcntl  # not on Windows, where all else here can be imported

    folder.mkdir(parents=True, exist_ok=True)
    held = folder / "held"
    with held.open("w") as handle:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(
                        f"{held}: another process has been compiling in this folder for more than {seconds:g} s; wait "
                        "for it or end it; if there is none (a network file system may keep a lock), delete this file"
                    ) from None
                time.sleep(0.1)
        (folder / "lock").unlink(missing_ok=True)
        yield


@contextlib.contextmanager
def _ninja_in_path() -> Iterator[None]:
    """Let torch find a ninja that lies beside this Python only."""
    before = os.environ.get("PATH", "")
    found = _ninja()
    if found is not None and shutil.which("ninja") is None:
        os.environ["PATH"] = os.pathsep.join([before, str(Path(found).parent)])
    try:
        yield
    finally:
        os.environ["PATH"] = before
