"""What notebooks show of a record in place of its repr: a title, sentences and small tables, as HTML.

The one place that writes this HTML. It takes the colours of the page that it is in, light or dark, runs no script, and
escapes all that it is given.
"""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from pandas import DataFrame

MOST_ROWS = 40  # of a table that is shown; a data frame has all of them
MISSING = "–"

# Rules and stripes in the colour of the text, which a dark page has light.
_STYLE = (
    ".ulpsim{font-size:.92em;line-height:1.45}.ulpsim p{margin:.2em 0;max-width:60em}.ulpsim .title{font-weight:600}"
    ".ulpsim .wide{overflow-x:auto;margin:.6em 0}.ulpsim table{border-collapse:collapse;border:0;margin:0;"
    "color:inherit;font-variant-numeric:tabular-nums}.ulpsim caption{text-align:left;caption-side:top;padding:.2em 0;"
    "color:inherit;opacity:.75;white-space:nowrap}.ulpsim th,.ulpsim td{padding:.2em .7em .2em 0;border:0;"
    "background:none;color:inherit;border-bottom:1px solid rgba(128,128,128,.35);text-align:right;vertical-align:top;"
    "max-width:34em}.ulpsim th{font-weight:600}.ulpsim td{white-space:nowrap}"
    ".ulpsim .text{text-align:left;white-space:normal}"
)


class Table(NamedTuple):
    """Rows with the same columns, of values as they are.

    Args:
        caption: what they are. rows: (column, value) pairs each; a column of texts is set to the left.
        columns: of them, in order; None: of the first row.
    """

    caption: str
    rows: Sequence[Mapping[str, Any]]
    columns: Sequence[str] | None = None

    @property
    def names(self) -> Sequence[str]:
        """The columns."""
        return self.columns if self.columns is not None else list(self.rows[0]) if self.rows else ()


class View(NamedTuple):
    """What is shown of a record: its title, sentences about it, tables."""

    title: str
    facts: Sequence[str] = ()
    tables: Sequence[Table] = ()


class Shown(ABC):
    """A record that notebooks show as tables: of a class that says which, in `_view`."""

    __slots__ = ()

    @abstractmethod
    def _view(self) -> View:
        """Return what is shown of the record."""

    def _heading(self, column: str) -> str:
        """Return what stands above a column."""
        return column.replace("_", " ")

    def _written(self, column: str, value: Any) -> str:
        """Return a value of a column as people read it."""
        match value:
            case None:
                return MISSING
            case bool():
                return "yes" if value else "no"
            case float():
                return repr(value).removesuffix(".0")
        return str(value)

    def _repr_html_(self) -> str:
        return as_html(self._view(), self._heading, self._written)


def as_html(view: View, heading: Callable[[str], str], written: Callable[[str, Any], str]) -> str:
    """Return a view as HTML.

    Args:
        view: what to show. heading: what stands above a column. written: a value of a column, in words.
    """
    facts = "".join(f"<p>{html.escape(fact)}</p>" for fact in view.facts if fact)
    tables = "".join(_table(table, heading, written) for table in view.tables if table.rows)
    title = f'<p class="title">{html.escape(view.title)}</p>'
    return f'<div class="ulpsim"><style>{_STYLE}</style>{title}{facts}{tables}</div>'


def frame(rows: Sequence[Any], columns: Sequence[str] | None = None) -> DataFrame:
    """Return rows as a pandas DataFrame.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError('a data frame needs pandas; install it with: pip install "ulpsim[report]"') from error
    return pandas.DataFrame(list(rows), columns=None if columns is None else list(columns))


def _table(table: Table, heading: Callable[[str], str], written: Callable[[str, Any], str]) -> str:
    texts = {name for name in table.names if any(isinstance(row.get(name), str) for row in table.rows)}

    def cell(kind: str, name: str, text: str) -> str:
        aligned = ' class="text"' if name in texts else ""
        return f"<{kind}{aligned}>{html.escape(text)}</{kind[:2]}>"

    head = "".join(cell('th scope="col"', name, heading(name)) for name in table.names)
    body = "".join(
        f"<tr>{''.join(cell('td', name, written(name, row.get(name))) for name in table.names)}</tr>"
        for row in table.rows[:MOST_ROWS]
    )
    more = len(table.rows) - MOST_ROWS
    caption = f"{table.caption}, {MOST_ROWS} of {len(table.rows):,}" if more > 0 else table.caption
    return (
        f'<div class="wide"><table><caption>{html.escape(caption)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
