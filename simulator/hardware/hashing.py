"""Records that compute their hash once: the caches of the cost model look machines up thousands of times."""

from __future__ import annotations

from typing import Any, TypeVar

_Record = TypeVar("_Record")
_KEPT = "_hash"


def remembers_hash(record: type[_Record]) -> type[_Record]:
    """Make a frozen dataclass, written below this, keep its hash; a pickle has none, as other processes hash anew."""
    methods: Any = record
    computed = record.__hash__

    def hash_once(self: Any) -> int:
        kept: int | None = self.__dict__.get(_KEPT)
        if kept is None:
            kept = computed(self)
            self.__dict__[_KEPT] = kept
        return kept

    def without_hash(self: Any) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != _KEPT}

    methods.__hash__, methods.__getstate__ = hash_once, without_hash
    return record
