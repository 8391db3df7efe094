"""Records that notebooks show as tables, their numbers written as reports write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from formats.notebook import MOST_ROWS, Table, View, frame
from formats.notebook import Shown as ShownPlainly

if TYPE_CHECKING:
    from formats.notebook import DataFrame

    from .report.bill import Billed

__all__ = ["MOST_ROWS", "Bill", "Shown", "Table", "View", "frame"]


class Shown(ShownPlainly):
    """A record that notebooks show as tables. Names of columns end in their units, as names of fields do."""

    __slots__ = ()

    def _heading(self, column: str) -> str:
        from .report.notebook import heading

        return heading(column)

    def _written(self, column: str, value: Any) -> str:
        from .report.notebook import written

        return written(column, value)


class Bill(Shown):
    """What has a bill: the cost of an operation in one mode, or the record of a layer."""

    __slots__ = ()

    def _view(self: Billed) -> View:
        from .report.notebook import bill_view

        return bill_view(self)

    def to_frame(self: Billed) -> DataFrame:
        """Return the bill as a DataFrame, a row for each part of cycles and of energy with its formula; needs pandas.

        The amounts of a quantity sum to its total.
        """
        from .report.notebook import BILL, bill_rows

        return frame(bill_rows(self), BILL)
