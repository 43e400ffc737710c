"""Panels: a picture with buttons, as a widget. Shown only when asked for, by `panel()` of a picture.

One mechanism for all of them. A `Panel` has a function that reads its picture anew, and actions: each is a
button, and what it does is done in a thread of its own, so that the kernel stays free; afterwards the picture
is read again. A picture that is to stay true by itself gets a thread that says when (`start`). Whatever fails
is one sentence below the buttons.

A panel ends with `close()`, or when the extension is unloaded: its threads end, and the widget on the page
is replaced by its last picture, static. Executed in a batch, where nobody can click, a panel is shown as its
picture. So a saved notebook keeps its tables (see view.py).
"""

from __future__ import annotations

import html
import threading
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ipywidgets

from dockmagic.errors import DockmagicError, translate
from dockmagic.views.view import Bundle, View, watched

if TYPE_CHECKING:
    import docker


@dataclass(frozen=True)
class Action:
    """A button: its label, what it does in words (its tooltip), what it does, and when it can be pressed."""

    label: str
    words: str
    act: Callable[[], object]
    possible: Callable[[], bool] = lambda: True


class Panel(ipywidgets.VBox):
    """A picture and its buttons. `buttons` has them by label."""

    def __init__(self, read: Callable[[], View], actions: Sequence[Action] = ()) -> None:
        self.ended = threading.Event()
        self._widgets: list[Any] = []
        self._display_id: str | None = None
        self._endings: list[Callable[[], object]] = []
        self._read = read
        self._actions = actions or [Action("Refresh", "Read this picture again", lambda: None)]
        self._lock = threading.RLock()
        self._picture = read()
        self._busy = False
        self._threads: list[threading.Thread] = []
        self._content = ipywidgets.HTML(self._picture.html())
        self._message = ipywidgets.HTML(layout={"display": "none"})
        self.buttons = {action.label: self._button(action) for action in self._actions}
        row = ipywidgets.HBox(list(self.buttons.values()))
        self._widgets = [self._content, self._message, row, *row.children]
        super().__init__([self._content, row, self._message])
        self._set_buttons()
        _open.add(self)

    def refresh(self) -> None:
        """Read the picture again and show it. What fails is said in the panel."""
        if self.ended.is_set():
            return
        failure = self._attempt(self._read_again)
        if failure is not None:
            self._say(str(failure), "bad")
        self._set_buttons()

    def start(self, follow: Callable[[], object], end: Callable[[], object] = lambda: None) -> None:
        """Run `follow` in a thread, until it returns. It has to when `ended` is set and `end` was called.

        Where nobody watches it is not run: the picture stays as it was read.
        """
        if not watched():
            return
        thread = threading.Thread(target=self._follow, args=(follow,), name="dockmagic-panel", daemon=True)
        self._threads = [one for one in self._threads if one.is_alive()] + [thread]
        self._endings.append(end)
        thread.start()

    def join(self) -> None:
        """Wait until nothing more is done in the background."""
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join()

    def close(self) -> None:
        """End the panel; where it was shown stays its last picture. Closing twice is closing once."""
        if self.ended.is_set():
            return
        self.ended.set()
        _open.discard(self)
        for end in self._endings:
            end()
        if self._display_id is not None:
            from IPython.display import update_display

            update_display(self._picture.bundle(), raw=True, display_id=self._display_id)
        for widget in self._widgets:
            widget.close()
        super().close()
        # Where ipywidgets forbids a closed widget to be shown: the picture still can be.
        self.__dict__.pop("_repr_mimebundle_", None)

    def text(self) -> str:
        """The picture for a terminal."""
        return self._picture.text()

    def html(self) -> str:
        """The picture for a page."""
        return self._picture.html()

    def _repr_mimebundle_(self, *args: object, **kwargs: object) -> Bundle:
        static = self._picture.bundle()
        if self.ended.is_set() or not watched():
            return static
        return {**super()._repr_mimebundle_(), **static}

    def _ipython_display_(self) -> None:
        if self.ended.is_set() or not watched():
            raise NotImplementedError  # IPython then takes the static bundle as the cell's value
        from IPython.display import display

        self._display_id = self._display_id or uuid4().hex
        display(self._repr_mimebundle_(), raw=True, display_id=self._display_id)

    def __repr__(self) -> str:
        return self.text()

    def _button(self, action: Action) -> Any:
        button = ipywidgets.Button(description=action.label, tooltip=action.words)
        button.on_click(lambda _: self._press(action))
        return button

    def _press(self, action: Action) -> None:
        with self._lock:
            if self._busy or self.ended.is_set():
                return
            self._busy = True
        self._say(f"{action.label} …", "muted")
        self._set_buttons()
        threading.Thread(target=self._do, args=(action,), name="dockmagic-action", daemon=True).start()

    def _do(self, action: Action) -> None:
        failure: DockmagicError | None = None
        try:
            failure = self._attempt(action.act)
            failure = self._attempt(self._read_again) or failure
        finally:
            self._busy = False
            self._say(str(failure or ""), "bad")
            self._set_buttons()

    def _follow(self, follow: Callable[[], object]) -> None:
        failure = self._attempt(follow)
        if failure is not None and not self.ended.is_set():
            self._say(str(failure), "bad")

    def _attempt(self, act: Callable[[], object]) -> DockmagicError | None:
        """Do it; a failure that has a sentence is the answer."""
        try:
            act()
        except Exception as error:
            failure = translate(error)
            if failure is None:
                raise
            return failure
        return None

    def _read_again(self) -> None:
        picture = self._read()
        with self._lock:
            if not self.ended.is_set():
                self._picture = picture
                self._content.value = picture.html()

    def _say(self, words: str, tone: str) -> None:
        with self._lock:
            if not self.ended.is_set():
                sign = "✗ " if tone == "bad" else ""
                style = (
                    f"color:var(--jp-{'error-color1' if tone == 'bad' else 'content-font-color2'},inherit)"
                )
                self._message.value = (
                    f'<span role="status" style="{style}">{sign}{html.escape(words)}</span>' if words else ""
                )
                self._message.layout.display = None if words else "none"

    def _set_buttons(self) -> None:
        with self._lock:
            if not self.ended.is_set():
                for action in self._actions:
                    self.buttons[action.label].disabled = self._busy or not action.possible()


_open: weakref.WeakSet[Panel] = weakref.WeakSet()


def close_all() -> None:
    """End all panels: the extension is unloaded."""
    for panel in list(_open):
        panel.close()


def follow_container(panel: Panel, client: docker.DockerClient, identity: str) -> None:
    """Refresh the panel whenever something happened to the container, until it is removed."""
    follow(
        panel,
        client,
        ["container"],
        concerns=lambda event: event["Actor"]["ID"] == identity,
        last=lambda event: event["Action"] == "destroy",
    )


def follow(
    panel: Panel,
    client: docker.DockerClient,
    types: list[str],
    *,
    concerns: Callable[[Any], bool] = lambda event: True,
    last: Callable[[Any], bool] = lambda event: False,
) -> None:
    """Refresh the panel after each event of these types that concerns it, until the last one."""
    stream: list[Any] = []

    def read() -> None:
        events: Any = client.events(decode=True, filters={"type": types})
        stream.append(events)
        if panel.ended.is_set():
            hang_up(events)
            return
        panel.refresh()  # for what happened before we listened
        try:
            for event in events:
                if not concerns(event):
                    continue
                panel.refresh()
                if panel.ended.is_set() or last(event):
                    break
        except (ValueError, AttributeError):
            if not panel.ended.is_set():  # else close() has taken the socket away under the reader
                raise
        finally:
            hang_up(events)

    panel.start(read, lambda: list(map(hang_up, stream)))


def hang_up(stream: Any) -> None:
    """Close a stream of docker-py, also one whose other end is gone already."""
    with suppress(OSError, AttributeError):
        stream.close()
