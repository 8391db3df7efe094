"""What is printed where: a terminal, a file or a pipe, and readers that go before the end."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from simulator.errors import InputError

WIDTH_OF_FILES = 100
# Where a cell that is too wide may be broken: behind blanks, behind the dots of keys, or else behind signs in words.
BLANKS, DOTS = re.compile(r" +(?=\S)"), re.compile(r"(?<=[^\W\d])\.(?=[^\W\d]|\*)|(?<=\*)\.")
SIGNS = re.compile(r"(?<=\w)[-_/,:=(+](?=[^\W\d])")
NUMBER, UNIT = re.compile(r"[-+<>]?\d[\d.,]*(?:e-?\d+)?"), re.compile(r" (?:[^\W\d]|%)")
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
    kind = Table if no_wrap else FoldingTable
    table = kind(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for heading in left:
        table.add_column(heading, no_wrap=no_wrap)
    for heading in right:
        table.add_column(heading, justify="right", no_wrap=no_wrap)
    return table


class FoldingTable(Table):
    """A table without lines whose cells, where it is too wide, are folded between words and behind the dots of keys.

    Where that is too wide as well, between a number and its unit and behind other signs in a word; inside a word or a
    number only if nothing else makes it fit. rich itself breaks words of the widest columns first.
    """

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        cells = [[_as_text(cell) for cell in (column.header, *column.cells)] for column in self.columns]
        whole = [_widest(column) for column in cells]
        own = self.padding[1]
        if sum(whole) + own * (len(whole) - 1) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        for places, gap in ((_between_words, own), (_between_words, 1), (_within_words, 1)):
            least = [max(_longest_piece(cell.plain, places) for cell in column) for column in cells]
            space = options.max_width - gap * (len(cells) - 1)
            if sum(least) <= space:
                break
        else:  # the widest give most
            most = next((most for most in range(max(least), 0, -1) if _sum_of_at_most(least, most) <= space), 1)
            least = [min(width, most) for width in least]
        for _ in range(2):  # once more with what cells leave of a column that folds earlier
            widths = _widths(least, whole, space)
            columns = [[_folded(cell, width, places) for cell in own] for own, width in zip(cells, widths, strict=True)]
            least = [_widest(column) for column in columns]
        folded = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
        for column, (header, *_) in zip(self.columns, columns, strict=True):
            folded.add_column(header, justify=column.justify, vertical=column.vertical, no_wrap=True)
        for row in zip(*(column[1:] for column in columns), strict=True):
            folded.add_row(*row)
        yield folded


def _as_text(cell: RenderableType) -> Text:
    return cell if isinstance(cell, Text) else Text(str(cell))


def _widest(column: Iterable[Text]) -> int:
    return max(cell_len(line) for cell in column for line in cell.plain.split("\n"))


def _between_words(text: str) -> list[int]:
    """Return where a line may be broken: behind blanks, but for that before a unit, and behind the dots of keys."""
    blanks = [blank.end() for blank in BLANKS.finditer(text) if not UNIT.match(text, blank.start())
              or not NUMBER.fullmatch(text[: blank.start()].rpartition(" ")[2])]  # fmt: skip
    return sorted([*blanks, *(dot.end() for dot in DOTS.finditer(text))])


def _within_words(text: str) -> list[int]:
    """Return where a line may be broken if it must: behind all blanks, and behind signs in words as well."""
    return sorted(place.end() for signs in (BLANKS, DOTS, SIGNS) for place in signs.finditer(text))


def _longest_piece(text: str, places: Callable[[str], list[int]]) -> int:
    lines = text.split("\n")
    return max(cell_len(line[a:b].rstrip()) for line in lines for a, b in pairwise((0, *places(line), len(line))))


def _sum_of_at_most(widths: Sequence[int], most: int) -> int:
    return sum(min(width, most) for width in widths)


def _widths(least: Sequence[int], whole: Sequence[int], space: int) -> list[int]:
    """Return widths of columns that fill a space, in which all take about as many lines as the whole of them needs."""
    found = list(least)
    while sum(found) < space and (narrow := [i for i, width in enumerate(found) if width < whole[i]]):
        found[max(narrow, key=lambda i: whole[i] / found[i])] += 1
    return found


def _folded(text: Text, width: int, places: Callable[[str], list[int]]) -> Text:
    """Return a text with line breaks that make it as narrow as that."""
    lines = []
    for line in text.split("\n"):
        start = 0
        breaks = places(line.plain)
        while cell_len(line.plain[start:]) > width:
            fitting = [end for end in breaks if end > start and cell_len(line.plain[start:end].rstrip()) <= width]
            end = fitting[-1] if fitting else start + max(1, len(set_cell_size(line.plain[start:], width).rstrip()))
            lines.append(line[start:end])
            start = end
        lines.append(line[start:])
    for line in lines:
        line.rstrip()
    return Text("\n").join(lines)


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
