"""Lists, which options take as texts with commas."""

from __future__ import annotations

from typing import TypeVar

from simulator.errors import InputError

Number = TypeVar("Number", int, float)


def words(text: str) -> tuple[str, ...]:
    """Return the words of a list without the blanks around them; empty ones are left out."""
    return tuple(word for part in text.split(",") if (word := part.strip()))


def numbers(option: str, text: str, kind: type[Number], example: str) -> tuple[Number, ...]:
    """Return the numbers of a list.

    Args:
        option: whose list it is, with its command. kind: int for whole numbers only, or float.
    Raises:
        InputError: a word that is no such number.
    """
    try:
        return tuple(kind(word) for word in text.split(","))
    except ValueError:
        expected = "whole numbers" if kind is int else "numbers"
        raise InputError(
            f"{option}: got {text!r}; expected {expected} with commas between them; write e.g. {example}"
        ) from None
