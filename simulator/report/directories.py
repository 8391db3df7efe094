"""A directory of results, or a file, replaced whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from simulator.errors import InputError, first_line

# Files that are written alone, by the end of their names: what they are, and what one could be called.
KINDS = {".html": ("an HTML page", "report"), ".json": ("a JSON file", "trace")}


@dataclass(frozen=True)
class Contents:
    """What a directory of earlier results holds, and nothing else.

    Args:
        what: the results, with their article. always: files that are there. sometimes: files that may be.
        replaced: whether earlier ones are, in place of being refused.
    """

    what: str
    always: tuple[str, ...]
    sometimes: tuple[str, ...] = ()
    replaced: bool = True

    def __str__(self) -> str:
        *most, last = (*self.always, *self.sometimes)
        return f"{', '.join(most)} and {last}" if most else last


def replace_directory(directory: str | os.PathLike[str], contents: Contents, files: Mapping[str, str]) -> Path:
    """Write files, by name, in place of earlier ones in `directory`.

    They are written to a new directory beside the target, which then takes its place; parents are created where
    missing. Whatever fails before that leaves the earlier results as they were and nothing else behind; a process that
    is killed may leave more, see `_take_place`.

    Returns:
        The absolute path of the directory.

    Raises:
        InputError: `directory` must not be replaced (see `check_replaceable`) or could not be written.
    """
    target = check_replaceable(directory, contents)
    tag = secrets.token_hex(4)
    fresh = target.with_name(f".{target.name}.new-{tag}")
    missing = [parent for parent in target.parents if not parent.exists()]
    try:
        fresh.mkdir(parents=True)
        for name, text in files.items():
            _write(fresh / name, text)
        _take_place(fresh, target, target.with_name(f".{target.name}.previous-{tag}"))
    except BaseException as error:
        shutil.rmtree(fresh, ignore_errors=True)
        for parent in missing:
            # Only parents made above and still empty go; another process may have begun to use one of them.
            try:
                parent.rmdir()
            except OSError:
                break
        if isinstance(error, OSError):
            raise InputError(
                f"{directory}: results could not be written there ({error.strerror or error}); expected a place where "
                "a directory can be made and renamed; free some space or choose another (nothing was changed)"
            ) from error
        raise
    return target


def write_file(path: Path, content: str | bytes) -> None:
    """Write a file in place of an earlier one, whole or not at all.

    Raises:
        InputError: it cannot be written.
    """
    with replacing(path) as fresh:
        _write(fresh, content)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the name of a file to write, which takes the place of an earlier one at `path` at the end, or is removed.

    Raises:
        InputError: it cannot be written.
    """
    fresh = path.absolute().with_name(f".{secrets.token_hex(8)}.new")
    try:
        yield fresh
        os.replace(fresh, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or first_line(error)}); expected a place where files can be "
            "made; name another"
        ) from None
    finally:
        with suppress(OSError):  # such as of a parent that is a file
            fresh.unlink()


def check_writable(path: str | os.PathLike[str], suffix: str | None = None, option: str = "--out") -> None:
    """Check, without changing anything, that a file can be written to this path by `write_file`.

    Args:
        suffix: that its name must have, one of KINDS; None: any. option: that gave the path, for the message.
    Raises:
        InputError: a name with another suffix, no name of a file, a directory, or no place where files can be made.
    """
    where = Path(path)
    if suffix is not None and where.suffix != suffix:
        kind, name = KINDS[suffix]
        shown = f"{where.stem or name}{suffix}"
        raise InputError(f"{option}: got {os.fspath(path)!r}; expected the name of {kind}; write {shown}")
    parent = where.absolute().parent
    if not os.fspath(path) or where.is_dir():
        found = f"found the directory {where}" if os.fspath(path) else "got no name"
        raise InputError(f"{os.fspath(path) or repr('')}: {found}; expected the name of a file; give one")
    if not parent.is_dir() or not _takes_files(parent):
        reason = "is no directory" if not parent.is_dir() else "cannot be written to"
        raise InputError(
            f"{path}: cannot be written ({parent} {reason}); expected a place where files can be made; name another"
        )


def check_enterable(directory: str | os.PathLike[str]) -> None:
    """Check, without changing anything, that files can be written into a directory, which is made if it is missing.

    Raises:
        InputError: a file, no name, or a place where no directory or no file can be made.
    """
    target = Path(directory).absolute()
    if not os.fspath(directory):
        raise InputError("'': got no name; expected that of a directory for results; give one")
    place = next(place for place in (target, *target.parents) if place.exists())
    if not place.is_dir() or not _takes_files(place):
        reason = f"{place} cannot be written to" if place.is_dir() else f"{place} is a file"
        raise InputError(
            f"{directory}: {reason}; expected a directory for results, or where one can be made; name another"
        )


def check_replaceable(directory: str | os.PathLike[str], contents: Contents) -> Path:
    """Return the absolute path of `directory` if results may be written there, without changing anything.

    That is so for a path that does not exist, an empty directory, and a directory with earlier results of the same kind
    and nothing else, in a parent that can be written to.

    Raises:
        InputError: any other path.
    """
    target = Path(directory).resolve()
    if target.exists() and not target.is_dir():
        raise InputError(
            f"{directory}: found a file; expected a directory for results or a new name; choose another name"
        )
    if target == Path.cwd() or target in Path.cwd().parents:
        raise InputError(
            f"{directory}: found the current directory or one above it; expected one that can be replaced whole; "
            "choose a new name below it"
        )
    parent = next(place for place in target.parents if place.exists())
    if not parent.is_dir():
        raise InputError(f"{directory}: {parent} is a file; expected a directory; choose another place")
    if not _takes_files(parent):
        raise InputError(
            f"{directory}: {parent} cannot be written to; expected a directory in which results can be made; "
            "choose another place or change its permissions"
        )
    if target.is_dir():
        found = {entry.name for entry in target.iterdir()}
        strangers = sorted(found - {*contents.always, *contents.sometimes})
        if strangers or (found and not found >= {*contents.always}):
            listed = strangers or sorted(found)
            shown = ", ".join(listed[:3]) + (f" and {len(listed) - 3} more" if len(listed) > 3 else "")
            whole = f", or one with {contents} alone, which is replaced whole" if contents.replaced else ""
            raise InputError(
                f"{directory}: found {shown}, which is not {contents.what}; expected a new or empty directory{whole}; "
                "move what is yours out of it, or choose another name"
            )
    return target


def _takes_files(directory: Path) -> bool:
    """Whether files can be made in a directory; permissions alone do not tell, as of /proc where root may do all."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _write(path: Path, content: str | bytes) -> None:
    """Write a file through to the disk, so that a full disk shows here and not after the earlier results are gone.

    Half of a surrogate pair, which UTF-8 cannot hold, is written as its escape.
    """
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _take_place(fresh: Path, target: Path, previous: Path) -> None:
    """Rename `fresh` to `target`; what was there goes to `previous` until then, and back if that fails.

    A process killed outright (SIGKILL, loss of power) between the two renames leaves no `target`: the earlier results
    are whole in `.<name>.previous-<tag>` and the new ones whole in `.<name>.new-<tag>`, to be renamed by hand. Killed
    before, it leaves the earlier results in place and an unfinished `.new-<tag>`; after, the new ones in place and some
    of `.previous-<tag>`.
    """
    if not target.exists():
        fresh.rename(target)
        return
    target.rename(previous)
    try:
        fresh.rename(target)
    except BaseException:
        previous.rename(target)
        raise
    shutil.rmtree(previous, ignore_errors=True)
    if previous.exists():
        warnings.warn(
            f"{previous}: the earlier results could not be removed; the new ones are in {target}", stacklevel=4
        )
