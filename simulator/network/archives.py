"""Members of a zip archive, which nobody has to trust: no paths that leave it, and no more bytes than fit in memory."""

from __future__ import annotations

import posixpath
import zipfile
from collections import Counter
from collections.abc import Iterable

from simulator.errors import InputError, first_line

from .limits import check_fits


def member_names(path: str, expected: str) -> list[str]:
    """Return the names of all members.

    Args:
        path: of the archive. expected: what it should be, as in "expected a .keras file".
    Raises:
        InputError: no archive, one with repeated names or paths that leave it, or more in all than fits in memory.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # broken bytes make zipfile raise several
        raise InputError(
            f"{path}: no whole archive ({first_line(error)}); expected {expected}; write or copy it anew"
        ) from None
    names = [member.filename for member in members]
    odd = [name for name, count in Counter(names).items() if count > 1 or _leaves(name)]
    if odd:
        raise InputError(
            f"{path}: has a member {odd[0]!r}, which leaves the archive or is there twice (nothing was written); "
            f"expected {expected}; write it anew"
        )
    check_fits(
        f"{path}: what its members say that they hold", sum(member.file_size for member in members), 1,
        "take a smaller file, or write it anew if it is not so large",
    )  # fmt: skip
    return names


def read_members(path: str, expected: str, needed: Iterable[str], others: Iterable[str] = ()) -> dict[str, bytes]:
    """Return the contents of an archive by name.

    Args:
        path: of the archive. expected: what it should be. needed: members that must be there. others: that may be.
    Raises:
        InputError: as member_names; or members that lack, are besides, or cannot be read.
    """
    names = member_names(path, expected)
    missing = [name for name in needed if name not in names]
    besides = sorted(set(names) - {*needed, *others})
    if missing or besides:
        parts = [("lacks", missing), ("has besides", besides)]
        found = " and ".join(f"{verb} {', '.join(map(shown_name, some[:4]))}" for verb, some in parts if some)
        raise InputError(f"{path}: {found}; expected {expected}; write it anew")
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in names}
    except Exception as error:
        raise InputError(
            f"{path}: cannot be read ({first_line(error)}); expected {expected}; write or copy it anew"
        ) from None


def shown_name(name: str) -> str:
    """Return a name of a file's for a message: one short line, whatever it is."""
    return name[:80] if name.isprintable() else repr(name[:80])


def _leaves(name: str) -> bool:
    """Whether a member's name is a path to somewhere else, on any system."""
    plain = name.replace("\\", "/")
    return plain.startswith("/") or ":" in plain or ".." in posixpath.normpath(plain).split("/")
