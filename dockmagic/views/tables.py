"""Lists as pandas DataFrames which look like Docker's tables: its headings, its order, its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from dockmagic.views.parts import Column, Table
from dockmagic.views.view import Bundle, View

# Headings whose values are numbers or sizes, set to the right; and ids and commands, set in the code font.
NUMERIC = frozenset({"SIZE", "PIDS", "CPU %", "MEM %", "PID", "PPID", "LINKS"})
CODE = frozenset(
    {"COMMAND", "CONTAINER ID", "IMAGE ID", "NETWORK ID", "CREATED BY", "CMD", "PORTS", "MOUNTPOINT"}
)


class Listing(pandas.DataFrame):
    """A DataFrame that shows itself as a captioned table. What is computed from it is a plain DataFrame."""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Bundle:
        return self.view().bundle()

    def view(self) -> View:
        """The picture of this list."""
        columns = [Column(title, title in NUMERIC, title in CODE) for title in map(str, self.columns)]
        rows = [
            ["" if value is None else str(value) for value in row] for row in self.itertuples(index=False)
        ]
        return View(Table(self.attrs.get("caption", ""), columns, rows, self.attrs.get("empty", "None.")))

    def __repr__(self) -> str:
        return self.view().text()

    # pandas would otherwise answer for these two with its own index column.
    def _repr_html_(self) -> str:
        return self.view().html()


def table(
    rows: Sequence[Mapping[str, Any] | Sequence[Any]],
    columns: Sequence[str],
    caption: str,
    *,
    empty: str = "None.",
) -> Listing:
    """A list with Docker's `columns` as headings.

    `rows` are mappings by heading (other keys are left out) or sequences in the order of the headings.
    """
    values = [[row.get(name) for name in columns] if isinstance(row, Mapping) else list(row) for row in rows]
    listing = Listing(values, columns=list(columns), dtype=object)
    listing.attrs.update(caption=caption, empty=empty)
    return listing
