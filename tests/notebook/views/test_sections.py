"""A live picture of several sections: each is a display of its own, and only what changed is sent again.

A browser keeps a fold as its reader left it for as long as its display is not replaced.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.testing.globalipapp import get_ipython as start_shell

from dockmagic.views import progress, view
from dockmagic.views.parts import Note
from dockmagic.views.view import LiveView, Sections
from tests.notebook.views.reading import check_says_the_same

cell: ContextVar[str] = ContextVar("cell", default="")


class Page:
    """What a front end makes of what is published: displays by their ids, each with all its states."""

    def __init__(self) -> None:
        self.displays: dict[str, list[dict[str, str]]] = {}
        self.cells: list[str] = []
        self.updates = 0

    def publish(
        self,
        data: dict[str, str],
        *args: Any,
        transient: dict[str, str],
        update: bool = False,
        **kwargs: Any,
    ) -> None:
        assert update is (transient["display_id"] in self.displays), "new ones are placed, others replaced"
        self.displays.setdefault(transient["display_id"], []).append(data)
        self.cells.append(cell.get())
        self.updates += update

    def now(self, form: str = "text/plain") -> list[str]:
        """What each display shows, from top to bottom."""
        return [states[-1][form] for states in self.displays.values()]

    def states(self, beginning: str) -> int:
        """How often the display that shows this was sent."""
        (states,) = (one for one in self.displays.values() if one[-1]["text/plain"].startswith(beginning))
        return len(states)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    shell: InteractiveShell = start_shell() or InteractiveShell.instance()
    page = Page()
    monkeypatch.setattr(shell.display_pub, "publish", page.publish)
    monkeypatch.setenv("DOCKMAGIC_LIVE", "1")
    yield page


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every change is sent by itself."""
    monkeypatch.setattr(view, "UPDATE_INTERVAL", 0.0)


INSTRUCTIONS = ["FROM a", "RUN one", "RUN two"]


def our_engine(step: int, lines: list[str]) -> Iterator[dict[str, Any]]:
    """What our engine says of one step."""
    told = {"index": step, "seconds": 1.0, "size": 0}
    yield {"aux": {"dockmagic.step": {**told, "state": "running"}}}
    for line in lines:
        yield {"stream": line, "dockmagic.step": step}
    yield {"stream": " ---> Removed intermediate container 1\n ---> 2\n", "dockmagic.step": step}
    yield {"aux": {"dockmagic.step": {**told, "state": "built"}}}


def another_engine(step: int, lines: list[str]) -> Iterator[dict[str, Any]]:
    """What Docker says of one step. That it is over is known by what comes next."""
    for line in (f"Step {step}/3 : {INSTRUCTIONS[step - 1]}\n", *lines, " ---> 2\n"):
        yield {"stream": line}


PLAN = {
    "aux": {
        "dockmagic.plan": {
            "steps": [
                {"index": number, "instruction": text, "line": number, "stage": "stage 0"}
                for number, text in enumerate(INSTRUCTIONS, 1)
            ],
            "skipped": ["unused"],
        }
    }
}


@pytest.mark.parametrize(
    ("begin", "engine"),
    [([PLAN], our_engine), (another_engine(1, []), another_engine)],
    ids=["ours", "docker"],
)
def test_a_step_that_is_over_is_not_sent_again(
    page: Page,
    at_once: None,
    begin: Iterable[dict[str, Any]],
    engine: Callable[..., Iterator[dict[str, Any]]],
) -> None:
    build = progress.BuildProgress("Building")
    build.show()
    for message in (*begin, *engine(2, ["first\n", "  second\n", "\n", "\n"])):
        build.feed(message)
    further = engine(3, [f"line {number}\n" for number in range(30)])
    build.feed(next(further))
    over = "Step 2, 2 lines of output\n    first\n      second"
    before, table = page.states(over), page.states("Building")
    for message in (*further, {"stream": "Successfully built 2\n"}, {"aux": {"ID": "sha256:2"}}):
        build.feed(message)
    build.measure([{"Size": 1}, {"Size": 2}, {"Size": 3}])
    build.close()
    assert page.states(over) == before
    assert page.states("Building") > table
    assert page.states("Step 3, 30 lines of output") >= 30


def test_what_is_said_of_no_step_leaves_the_last_one_alone(page: Page, at_once: None) -> None:
    build = progress.BuildProgress("Building")
    build.show()
    for message in (PLAN, *our_engine(3, ["last\n"])):
        build.feed(message)
    before = page.states("Step 3, 1 line of output")
    build.feed({"stream": "[Warning] One or more build-args were not consumed\n"})
    build.close()
    assert page.states("Step 3, 1 line of output") == before
    assert page.now()[-1] == "[Warning] One or more build-args were not consumed"


def test_a_step_that_went_well_is_left_alone_when_a_later_one_fails(page: Page, at_once: None) -> None:
    build = progress.BuildProgress("Building", "\n".join(INSTRUCTIONS))
    build.show()
    for message in (PLAN, *our_engine(2, ["well\n"])):
        build.feed(message)
    before = page.states("Step 2, 1 line of output")
    *told, _end, _built = our_engine(3, [f"line {number}\n" for number in range(30)])
    for message in told:
        build.feed(message)
    failed = {"index": 3, "seconds": 1.0, "size": 0, "state": "failed"}
    build.feed({"aux": {"dockmagic.step": failed}})
    build.feed({"error": "no"})
    build.close()
    assert page.states("Step 2, 1 line of output") == before
    assert [text.partition("\n")[0] for text in page.now()] == [
        "Building",
        "Step 2, 1 line of output",
        "Step 3, 15 earlier lines of output",
        "✗ no",
    ]


def test_the_displays_together_are_the_picture(page: Page, at_once: None) -> None:
    build = progress.BuildProgress("Building <x>")
    build.show()
    for message in (PLAN, *our_engine(2, ["<b>\n"]), *our_engine(3, ["&\n"]), {"stream": "Successfully x\n"}):
        build.feed(message)
    build.close()
    assert len(page.displays) == 4
    assert "\n\n".join(page.now()) == build.text()
    for states in page.displays.values():
        for state in states:
            check_says_the_same(state["text/plain"], state["text/html"])
    assert ["<style>" in form for form in page.now("text/html")] == [True, False, False, False]


def test_what_was_refused_takes_the_place_of_the_table(page: Page, at_once: None) -> None:
    build = progress.BuildProgress("Building", "FRM a")
    build.show()
    build.refuse("dockerfile parse error on line 1: unknown instruction: FRM")
    build.close()
    assert page.now() == [build.text()]
    assert "Building" not in build.text()


def test_what_was_over_before_it_was_shown_is_one_display(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKMAGIC_LIVE", "0")
    build = progress.BuildProgress("Building")
    build.show()
    for message in (PLAN, *our_engine(2, ["one\n"]), *our_engine(3, ["two\n"])):
        build.feed(message)
    assert not page.displays
    build.close()
    assert list(page.displays.values()) == [[build.bundle()]]


class Pair(LiveView):
    """Two sections that both change; the second comes with the first change."""

    number = 0

    @property
    def sections(self) -> Sections:
        first = {"first": [Note(f"first {self.number}")]}
        return {**first, "second": [Note(f"second {self.number}")]} if self.number else first


def test_several_sections_are_sent_no_more_often_than_one(page: Page) -> None:
    pair = Pair()
    pair.number = 1
    pair.show()
    begin = time.monotonic()
    while time.monotonic() - begin < 0.55:
        pair.number += 1
        pair.refresh()
    pair.close()
    took = time.monotonic() - begin
    assert page.now() == [f"first {pair.number}", f"second {pair.number}"]
    assert 2 <= page.updates <= took * 10 + 3, "ten a second, and the last ones"


def test_a_section_that_comes_late_finds_its_cell(page: Page) -> None:
    cell.set("mine")
    pair = Pair()
    pair.show()
    pair.number = 1
    pair.refresh()
    assert pair._timer is not None
    pair._timer.join()
    assert page.now() == ["first 1", "second 1"]
    assert page.cells == ["mine"] * 3
    pair.close()
