"""A live picture on the page: what a notebook gets to see, when, and what is left in it."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.testing.globalipapp import get_ipython as start_shell

from dockmagic.views import view
from dockmagic.views.parts import Note, Part
from dockmagic.views.view import LiveView


class Counter(LiveView):
    def __init__(self) -> None:
        super().__init__()
        self.number = 0

    @property
    def parts(self) -> list[Part]:
        return [Note(str(self.number))]


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[float, bool, str]]]:
    """What is published: (when, whether it replaces, the text)."""
    shell: InteractiveShell = start_shell() or InteractiveShell.instance()
    published: list[tuple[float, bool, str]] = []

    def publish(data: dict[str, Any], *args: Any, update: bool = False, **kwargs: Any) -> None:
        published.append((time.monotonic(), update, data["text/plain"]))

    monkeypatch.setattr(shell.display_pub, "publish", publish)
    yield published


def test_watched_updates_in_place_and_not_too_often(
    page: list[tuple[float, bool, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKMAGIC_LIVE", "1")
    counter = Counter()
    counter.show()
    begin = time.monotonic()
    while time.monotonic() - begin < 0.55:
        counter.number += 1
        counter.refresh()
    counter.close()
    assert page[0][1:] == (False, "0")
    assert all(update for _, update, _ in page[1:])
    assert page[-1][2] == str(counter.number), "the last state gets out"
    assert 4 <= len(page) - 1 <= 7, "ten a second, and the last one"


def test_the_last_change_gets_out_by_itself(
    page: list[tuple[float, bool, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKMAGIC_LIVE", "1")
    counter = Counter()
    counter.show()
    for number in (1, 2, 3):
        counter.number = number
        thread = threading.Thread(target=counter.refresh)
        thread.start()
        thread.join()
    timer = counter._timer
    assert timer is not None
    timer.join()
    assert page[-1][2] == "3"
    assert not counter.closed
    counter.close()
    assert len(page) == 2, "nothing new to say, nothing sent"


def test_in_a_batch_it_is_shown_once_and_finished(
    page: list[tuple[float, bool, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKMAGIC_LIVE", "0")
    counter = Counter()
    counter.show()
    counter.number = 9
    counter.refresh()
    assert page == []
    counter.close()
    counter.close()
    assert [entry[1:] for entry in page] == [(False, "9")]


def test_as_a_cell_s_value_it_is_shown_once(
    page: list[tuple[float, bool, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKMAGIC_LIVE", "1")
    counter = Counter()
    counter._ipython_display_()
    counter._ipython_display_()
    assert len(page) == 1, "the same cell has it already"
    monkeypatch.setattr(view, "_cell", lambda: -1)
    counter._ipython_display_()
    assert len(page) == 2, "another cell shows it again"
    counter.close()
    monkeypatch.setattr(view, "_cell", lambda: -2)
    with pytest.raises(NotImplementedError):
        counter._ipython_display_()


def test_who_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKMAGIC_LIVE", raising=False)
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert not view.watched()
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/me/a.ipynb")
    assert view.watched()
    monkeypatch.setenv("DOCKMAGIC_LIVE", "0")
    assert not view.watched()
