"""The exceptions for what the user can put right."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input from the user: the message says where, what was found, what was expected and what to do.

    The command line prints the message without a traceback and ends with exit code 2.
    """


class MissingLibraryError(InputError, ImportError):
    """A library of an optional extra is not installed: the message says how to install it."""


def missing(what: str, library: str | None, extra: str) -> MissingLibraryError:
    """Return the error of something that needs a library which is not there."""
    return MissingLibraryError(
        f"{what}: needs {library}, which is not installed; expected the extra {extra}; install it with "
        f"{install_command(extra)}"
    )


def install_command(extra: str = "") -> str:
    """Return the command that installs an extra, or ulpsim with what it needs in any case."""
    return f"pip install 'ulpsim[{extra}]'" if extra else "pip install ulpsim"


def unknown(key: str, known: Iterable[str], remedy: str = "remove it") -> str:
    """Return what to do about a key that is none of those known: the one that it may be meant to be, or all."""
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1)
    return f'did you mean "{near[0]}"?' if near else f"expected one of {', '.join(names)}; {remedy}"


def first_line(error: BaseException) -> str:
    """Return what a library's exception says, in one line that fits in a message of ours."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if len(line) <= 200 else line[:197] + "..."
