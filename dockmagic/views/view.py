"""What all pictures share: how parts become something Jupyter shows, and how a live picture stays true.

How an object gets onto the page:

1. Jupyter asks a cell's value for `_repr_mimebundle_`. A `View` answers with two forms of the same parts:
   `text/plain` for terminals and `text/html`, static, for everything else. Both are saved with the notebook,
   so a reader on GitHub, or of an untrusted notebook, sees the tables.
2. A `LiveView` is shown through `_ipython_display_` instead, as a display with an id of its own. When the
   thing it shows changes, `refresh()` sends both forms again under that id and the page replaces the old ones
   in place, also from another thread, also while a cell runs. What is saved is the last state, as tables.
   What is replaced is new to the page: a fold in it is as it was sent, whatever the reader did with it. So a
   picture with folds is cut into `sections`, each a display of its own, and only those are sent again that
   say something else. A section that is first seen later stands below the others.
3. That is why the live form of a picture is not a widget: the bundle of a widget is preferred by JupyterLab
   over the HTML beside it, and a notebook opened again after its kernel has ended shows `Error displaying
   widget: model not found` where the table was. Widgets are for what is clicked: `panel()` of a picture that
   has buttons.
4. Nobody watches a notebook that is executed as a batch (nbconvert, nbclient, nbval): there a picture is
   shown once, in its final form, so that executing a notebook twice gives the same outputs. `watched()` tells
   the two apart.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from dockmagic.views.parts import Part, Table
from dockmagic.views.style import STYLE

if TYPE_CHECKING:
    import pandas

Bundle = dict[str, Any]
Sections = Mapping[str, Sequence[Part]]

# Seconds that the update of a display takes up: the page gets ten a second of one picture at most.
UPDATE_INTERVAL = 0.1


class View:
    """A picture: parts, in the order they are read."""

    def __init__(self, *parts: Part) -> None:
        self._parts = parts

    @property
    def parts(self) -> Sequence[Part]:
        """The blocks of the picture as they are now."""
        return self._parts

    def text(self) -> str:
        """The picture for a terminal."""
        return _text(self.parts)

    def html(self) -> str:
        """The picture for a page: static, escaped, styled by Jupyter's theme."""
        return _html(self.parts)

    def bundle(self) -> Bundle:
        """Both forms, by media type."""
        return {"text/plain": self.text(), "text/html": self.html()}

    def frame(self) -> pandas.DataFrame:
        """The first table of the picture as a pandas DataFrame of its words, to compute with."""
        import pandas

        table = next((part for part in self.parts if isinstance(part, Table)), None)
        if table is None:
            raise ValueError(f"{type(self).__name__} has no table")
        rows = [[value if isinstance(value, str) else value.words for value in row] for row in table.rows]
        return pandas.DataFrame(rows, columns=[column.title for column in table.columns])

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Bundle:
        return self.bundle()

    def __repr__(self) -> str:
        return self.text()


class LiveView(View):
    """A picture that may change after it was shown. Call `refresh()` when it may have, `close()` when it no
    longer will.

    Updates are held back to ten a second; the last state always gets out, at the latest by `close()`.
    """

    def __init__(self, *parts: Part) -> None:
        super().__init__(*parts)
        self._cell: int | None = None
        self._wanted = False
        self._shown: dict[str, tuple[str, Bundle]] = {}  # by section: its display's id, what stands there
        self._free_at = 0.0  # when the next update may be sent
        self._timer: threading.Timer | None = None
        self._lock = threading.RLock()
        self.closed = False

    @property
    def sections(self) -> Sections:
        """The picture as it is now, cut into what is replaced by itself: parts by a name that stays."""
        return {"": self.parts}

    def show(self) -> None:
        """Put the picture on the page. In a batch it is held back until `close()`, then shown once."""
        with self._lock:
            self._wanted = True
            if not self._shown and (self.closed or watched()):
                self._place()

    def refresh(self) -> None:
        """Show the picture's present state, now or when the interval since the last update is over."""
        with self._lock:
            if not self._shown or self.closed or self._timer is not None:
                return
            wait = self._free_at - time.monotonic()
            if wait <= 0:
                self._send()
            else:
                # In this context a new section finds its cell: a thread without one takes the kernel's last
                # message for it, which may be a widget's.
                self._timer = threading.Timer(wait, copy_context().run, (self._late,))
                self._timer.daemon = True
                self._timer.start()

    def close(self) -> None:
        """Show the final state; nothing changes on the page afterwards. Closing twice is closing once."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._shown:
                self._send()
            elif self._wanted:
                self._place()

    def _ipython_display_(self) -> None:
        if self._shown and self._cell == _cell():
            return  # the same cell has shown it already, as it grew
        if self.closed or not watched():
            raise NotImplementedError  # IPython then takes the static bundle as the cell's value
        self._place()

    def _late(self) -> None:
        with self._lock:
            self._timer = None
            if not self.closed:
                self._send()

    def _place(self) -> None:
        with self._lock:
            self._cell = _cell()
            self._shown.clear()
            self._send()

    def _send(self) -> None:
        from IPython.display import display

        # What is over before it was shown, as in a batch, stays as it is: one display.
        whole = self.closed and not self._shown
        self._free_at = time.monotonic()
        for name, parts in ({"": self.parts} if whole else self.sections).items():
            display_id, before = self._shown.get(name, (uuid4().hex, None))
            first = name == next(iter(self._shown), name)
            bundle = {"text/plain": _text(parts), "text/html": _html(parts, styled=first)}
            if bundle != before:
                self._shown[name] = (display_id, bundle)
                self._free_at += UPDATE_INTERVAL
                display(bundle, raw=True, display_id=display_id, update=before is not None)


def _text(parts: Sequence[Part]) -> str:
    return "\n\n".join(part.text() for part in parts)


def _html(parts: Sequence[Part], *, styled: bool = True) -> str:
    """`styled` is false where the style sheet stands in another display of the same cell."""
    style = f"<style>{STYLE}</style>" if styled else ""
    # Jupyter would set what stands between two dollar signs as a formula, and a shell has many of them.
    return f'<div class="dm mathjax_ignore">{style}{"".join(part.html() for part in parts)}</div>'


def _cell() -> int | None:
    """The number of the cell that runs now."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return None if shell is None else shell.execution_count


def watched() -> bool:
    """Whether somebody looks at the notebook while it runs.

    A kernel started by a Jupyter server has the notebook's path in `JPY_SESSION_NAME`; VS Code leaves its own
    name in the user's namespace. Executed in a batch or in a terminal there is neither. `DOCKMAGIC_LIVE` (0
    or 1) decides where this is wrong.
    """
    chosen = os.environ.get("DOCKMAGIC_LIVE")
    if chosen is not None:
        return chosen not in ("", "0")
    if "JPY_SESSION_NAME" in os.environ:
        return True
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    return shell is not None and "__vsc_ipynb_file__" in shell.user_ns
