"""What is printed where: a terminal, a file or a pipe, and readers that go before the end."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, OverflowMethod, RenderableType
from rich.table import Table
from rich.text import Text

from simulator.errors import InputError

WIDTH_OF_FILES = 100
ASCII = str.maketrans("µ×–…·•─÷", "ux-~|*-/") | str.maketrans({"∞": "inf", "±": "+-", "≈": "~"})


def standard_output() -> Console:
    """Return standard output, 100 columns wide where it is not a terminal.

    Colours follow the console: none in a file or a pipe, none where NO_COLOR is set. Texts are printed as they are,
    brackets and all, since they hold names and messages of the user's.
    """
    width = None if sys.stdout.isatty() else WIDTH_OF_FILES
    return Console(width=width, highlight=False, markup=False, emoji=False)


def plain_table(left: Iterable[str], right: Iterable[str] = (), gap: int = 2, no_wrap: bool = False) -> Table:
    """Return a table without lines, of columns whose cells stand left and, behind them, such whose cells stand right.

    Args:
        left, right: headings. gap: blanks between two columns.
        no_wrap: whether what a column is too narrow for is cut, and not folded.
    """
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    overflow: OverflowMethod = "ellipsis" if no_wrap else "fold"
    for heading in left:
        table.add_column(heading, no_wrap=no_wrap, overflow=overflow)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=no_wrap, overflow=overflow)
    return table


def text_of(shown: Iterable[RenderableType]) -> str:
    """Return parts of a page as text, as wide as files are."""
    console = Console(file=(out := io.StringIO()), width=WIDTH_OF_FILES, highlight=False, markup=False, emoji=False)
    print_view(console, *shown)
    return out.getvalue().rstrip("\n")


def print_view(console: Console, *parts: RenderableType) -> None:
    """Print parts of a page; an output that is not Unicode gets ASCII in place of signs such as µ."""
    view = Group(*parts)
    if console.is_terminal:
        console.print(view)
        return
    # A file keeps what is printed, so the blanks with which tables fill their lines are taken off.
    with console.capture() as captured:
        console.print(view)
    text = "\n".join(line.rstrip() for line in captured.get().split("\n"))
    if not console.encoding.lower().startswith("utf"):
        text = text.translate(ASCII).encode(console.encoding, "replace").decode(console.encoding)
    console.print(Text(text), end="", soft_wrap=True)


@contextmanager
def to_a_reader() -> Iterator[None]:
    """Print to a reader that may go before the end, as `head` does.

    Raises:
        InputError: standard output is closed, full, or lacks a character.
    """
    if sys.stdout is None:
        raise InputError(
            "standard output: closed; expected one that takes what is printed; open it, or send it to a file"
        )
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # rich turns the one into the other
        _drop_the_rest()
    except UnicodeEncodeError as error:
        lacking = ascii(error.object[error.start])
        raise InputError(
            f"standard output: its encoding {error.encoding} lacks {lacking}; expected one with all characters; set "
            "PYTHONIOENCODING=utf-8"
        ) from None
    except OSError as error:
        if error.filename is not None:  # of another file
            raise
        _drop_the_rest()
        raise InputError(
            f"standard output: cannot be written ({error.strerror}); expected one that takes what is printed; send it "
            "elsewhere"
        ) from None


def _drop_the_rest() -> None:
    """Send what is still in the buffer of standard output nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
