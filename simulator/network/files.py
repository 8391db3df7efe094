"""What is said of a file of the user's before a library reads it."""

from __future__ import annotations

from pathlib import Path

from simulator.errors import InputError

from .limits import check_fits


def check_file(path: str, expected: str) -> None:
    """Refuse what is no file, is empty, or is too large for this machine.

    Args:
        path: of the file. expected: what it should be, as in "expected an .npz file with x and y".
    Raises:
        InputError: there is no such file, or it cannot be one of the expected kind.
    """
    file = Path(path)
    if not file.is_file():
        what = "a directory" if file.is_dir() else "not a regular file" if file.exists() else "no such file"
        raise InputError(f"{path}: {what}; expected {expected}; check the path")
    size = file.stat().st_size
    if size == 0:
        raise InputError(f"{path}: empty, so it cannot be read; expected {expected}; write the file anew")
    check_fits(path, size, 1, "take a smaller file, or a machine with more memory")
    try:
        with file.open("rb"):
            pass
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {expected}; check its rights") from None
