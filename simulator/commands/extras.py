"""What of ulpsim's own requirements is installed, by extra, as its metadata has them, made of pyproject.toml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from simulator.errors import install_command

_OURS = "ulpsim"


@dataclass(frozen=True)
class Extra:
    """An extra, or what ulpsim needs in any case.

    Args:
        name: of the extra; empty for what is needed in any case. includes: extras whose libraries are its too.
        found: versions of its libraries by name.
        unfit: of those found, the libraries of a version that it does not take, with those that it does.
        missing: libraries that are not installed, with the versions that it takes.
    """

    name: str
    includes: tuple[str, ...]
    found: Mapping[str, str]
    unfit: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def install(self) -> str | None:
        """The command that installs what is missing or unfit; None if nothing is."""
        return install_command(self.name) if self.unfit or self.missing else None


def extras() -> list[Extra]:
    """Return what is needed in any case, then every extra in the order of pyproject.toml; none if not installed."""
    try:
        names = metadata(_OURS).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return []
    return [_extra(name) for name in ("", *names)]


def _extra(name: str) -> Extra:
    found, unfit, missing = {}, [], []
    includes = [other for wanted in _required(name) if _is_ours(wanted) for other in sorted(wanted.extras)]
    for wanted in dict.fromkeys(_libraries(name)):
        try:
            found[wanted.name] = version(wanted.name)
        except PackageNotFoundError:
            missing.append(f"{wanted.name}{wanted.specifier}")
            continue
        if not wanted.specifier.contains(found[wanted.name], prereleases=True):
            unfit.append(f"{wanted.name}{wanted.specifier}")
    return Extra(name, tuple(includes), found, tuple(unfit), tuple(missing))


def _libraries(extra: str) -> Iterator[Requirement]:
    """Yield the libraries of an extra, those of the extras that it includes among them."""
    for wanted in _required(extra):
        if _is_ours(wanted):
            for other in sorted(wanted.extras):
                yield from _libraries(other)
        else:
            wanted.marker = None
            yield wanted


def _required(extra: str) -> Iterator[Requirement]:
    """Yield what stands under an extra on this machine; for no extra, what is needed in any case."""
    for wanted in map(Requirement, requires(_OURS) or []):
        of_extras = wanted.marker is not None and "extra" in str(wanted.marker)
        if of_extras == bool(extra) and (wanted.marker is None or wanted.marker.evaluate({"extra": extra})):
            yield wanted


def _is_ours(wanted: Requirement) -> bool:
    return canonicalize_name(wanted.name) == _OURS
