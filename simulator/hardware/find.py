"""A YAML file by its path, or a bundled one by its name."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, NamedTuple

from simulator.errors import InputError

from .document import Document, read_document
from .quantities import describe

_PACKAGE = "hwconfigs"


class Found(NamedTuple):
    """A file as it was read: its document, the directory it is in and its name without ending."""

    document: Document
    folder: Path
    stem: str


class Shelf(NamedTuple):
    """Bundled files of one kind.

    Args:
        option: what messages begin with. kind: of the files, in a word. example: name of one of them.
        folder: where they are within hwconfigs; empty for hwconfigs itself.
    """

    option: str
    kind: str
    example: str
    folder: str = ""

    @property
    def names(self) -> list[str]:
        """Names of its files, without ending."""
        return sorted(f.name.removesuffix(".yaml") for f in self._place.iterdir() if f.name.endswith(".yaml"))

    @property
    def _place(self) -> Any:
        return files(_PACKAGE) / self.folder if self.folder else files(_PACKAGE)

    def read(self, path_or_name: str | os.PathLike[str], known: Sequence[str] | None = None) -> Found:
        """Find a file and read it as plain data.

        Args:
            path_or_name: path of a YAML file, or the bare name of a bundled one. known: these; None for `names`.
        Raises:
            InputError: no such file or name, or no YAML mapping.
        """
        shown = os.fspath(path_or_name) if isinstance(path_or_name, os.PathLike) else path_or_name
        if not isinstance(shown, str) or not shown.strip():
            raise InputError(
                f"{self.option}: got {describe(shown)}; expected a path or a name; give e.g. {self.example}"
            )
        known = self.names if known is None else known
        if Path(shown).name == shown and not Path(shown).suffix and not Path(shown).is_file():
            return self._bundled(shown, known)
        path = Path(shown)
        if path.stem in known and not os.path.lexists(shown):
            raise InputError(
                f"{shown}: no such file; expected a YAML file; write {path.stem} for the bundled {self.kind} of that "
                "name"
            )
        return Found(read_document(path, shown), path.parent, path.stem)

    def _bundled(self, name: str, known: Sequence[str]) -> Found:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f'did you mean "{near[0]}"?' if near else "name one of them, or give the path of a YAML file"
            raise InputError(
                f"{self.option}: got {name!r}, no file and no bundled {self.kind}; expected one of {', '.join(known)}; "
                f"{hint}"
            )
        with as_file(self._place / f"{name}.yaml") as path:
            inside = f"{self.folder}/" if self.folder else ""
            return Found(read_document(path, f"{_PACKAGE}/{inside}{name}.yaml"), path.parent, name)
