"""What a pull, a push or a build is doing, while it does it, and what it has done when it is over.

Both take the JSON objects of Docker's progress streams one by one (`feed`), from any thread, in whatever
portions the engine sends them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dockmagic.views import source
from dockmagic.views.layers import INSTRUCTION_WIDTH
from dockmagic.views.parts import Cell, Column, Fold, Note, Part, Table, Tone
from dockmagic.views.units import shorten, size
from dockmagic.views.view import LiveView, Sections

LINES_SHOWN = 400
TAIL = 15
"""Lines of a step at work, or of one that failed: the last ones."""

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")

DONE = ("Pull complete", "Already exists", "Pushed", "Layer already exists", "Mounted from", "Loaded")


class Progress(LiveView):
    """A pull, push or load: one row a layer. `show()` it, `feed()` it, `close()` it.

    `error` holds the engine's sentence when the stream ended with one.
    """

    def __init__(self, caption: str) -> None:
        super().__init__()
        self.caption = caption
        self.error: str | None = None
        self._layers: dict[str, dict[str, Any]] = {}
        self._notes: list[str] = []

    def feed(self, message: Mapping[str, Any]) -> None:
        """Take one object of the stream."""
        with self._lock:
            self._take(message)
        self.refresh()

    @property
    def parts(self) -> list[Part]:
        with self._lock:
            picture: list[Part] = []
            if self._layers or not self._notes:
                columns = [
                    Column("Layer", code=True),
                    Column("Status", whole=True),
                    Column("Done", numeric=True),
                ]
                rows: list[list[str | Cell]] = [
                    [layer, _status(state), _done(state)] for layer, state in self._layers.items()
                ]
                picture.append(Table(self.caption, columns, rows, _nothing_yet(self.closed)))
            picture += [Note(note) for note in self._notes]
            if self.error:
                picture.append(Note(f"✗ {self.error}", "bad"))
            return picture

    def _take(self, message: Mapping[str, Any]) -> None:
        if message.get("error"):
            self.error = message["error"]
        elif "progressDetail" in message and message.get("id"):
            layer = self._layers.setdefault(message["id"], {})
            detail = message["progressDetail"] or {}
            layer["status"] = message.get("status") or ""
            if detail.get("total"):
                layer["total"] = detail["total"]
            layer["current"] = detail.get("current")
        else:
            words = (message.get("status") or message.get("stream") or "").strip()
            if words:
                self._notes.append(f"{message['id']}: {words}" if message.get("id") else words)


@dataclass
class Step:
    """One instruction of a build, as far as it has come. `began` and `ended` are monotonic seconds."""

    number: int
    instruction: str
    began: float | None
    ended: float | None = None
    state: str = "running"
    image: str = ""
    output: list[str] = field(default_factory=list)
    bytes: int | None = None
    line: int | None = None
    stage: str = ""
    rest: str = ""
    fault: tuple[int, int] | None = None
    """The line and the column of the mistake."""

    def seconds(self, now: float) -> str:
        return "" if self.began is None else f"{(self.ended or now) - self.began:.1f}"

    def said(self) -> list[str]:
        """Its output, without blank lines at the end: none is taken back when the step is over."""
        end = len(self.output)
        while end and not self.output[end - 1].strip():
            end -= 1
        return self.output[:end]


STEP_STATES = {
    "waiting": Cell("· waiting", "muted"),
    "not run": Cell("○ not run", "muted"),
    "running": Cell("… running"),
    "base": Cell("= base"),
    "cached": Cell("✓ cached", "good"),
    "built": Cell("+ built", "accent"),
    "failed": Cell("✗ failed", "bad"),
    "stopped": Cell("○ stopped", "muted"),
}


class BuildProgress(LiveView):
    """A build: one row a step, each step's output folded below, the failing step open and its line marked.
    A step's output is a section of its own, so that one which is over and was opened stays so.

    `image` is the id of what was built, `error` the engine's sentence when it failed. Our engine tells its
    plan first, and of each step its seconds and size, for stages are built side by side; of another the steps
    appear one by one, and the seconds are measured here, between its messages.
    """

    def __init__(
        self, caption: str, dockerfile: str = "", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self.caption = caption
        self.dockerfile = dockerfile
        self.image: str | None = None
        self.error: str | None = None
        self.steps: list[Step] = []
        self._clock = clock
        self._rest = ""
        self._notes: list[str] = []
        self._planned = False
        self._skipped: Sequence[str] = ()
        self._stages = 0

    def feed(self, message: Mapping[str, Any]) -> None:
        """Take one object of the stream."""
        with self._lock:
            self._take(message)
        self.refresh()

    def refuse(self, sentence: str) -> None:
        """The engine did not take the build."""
        with self._lock:
            self.error = sentence
        self.refresh()

    def measure(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Fill in the sizes, from the history (newest first) of the image that was built."""
        with self._lock:
            if self._planned:
                return
            stage: list[Step] = []
            for step in self.steps:
                stage = [step] if step.instruction.upper().startswith("FROM") else [*stage, step]
            if len(stage) > len(history) or not stage:
                return
            for step, entry in zip(reversed(stage[1:]), history, strict=False):
                step.bytes = entry["Size"]
            stage[0].bytes = sum(entry["Size"] for entry in history[len(stage) - 1 :])
        self.refresh()

    def close(self) -> None:
        with self._lock:
            if self._planned:
                self._stop()
            else:
                self._end_step("stopped" if self.image is None else None)
        super().close()

    @property
    def parts(self) -> list[Part]:
        return [part for section in self.sections.values() for part in section]

    @property
    def sections(self) -> Sections:
        with self._lock:
            end: list[Part] = [*(self._failure() if self.error else []), *map(Note, self._notes)]
            if self.error and not self.steps:  # where the engine refuses the Dockerfile there is no plan
                return {"steps": end}
            sections: dict[str, list[Part]] = {"steps": [self._table()]}
            if self._skipped:
                sections["steps"].append(
                    Note(f"Not built, for nothing needs it: {', '.join(self._skipped)}.")
                )
            sections.update((f"step {step.number}", _output(step)) for step in self.steps)
            sections["end"] = end
            return {name: parts for name, parts in sections.items() if parts}

    def _take(self, message: Mapping[str, Any]) -> None:
        if message.get("error"):
            self.error = message["error"].strip()
            if not self._planned:
                self._end_step("failed")
        elif "aux" in message:
            told = message["aux"] or {}
            self.image = told.get("ID") or self.image
            if "dockmagic.plan" in told:
                self._plan(told["dockmagic.plan"])
            elif "dockmagic.step" in told:
                self._record(told["dockmagic.step"])
        elif self._planned and "dockmagic.step" in message:
            self._say(self.steps[message["dockmagic.step"] - 1], message.get("stream") or "")
        elif "stream" in message:
            *lines, self._rest = (self._rest + message["stream"]).split("\n")
            for line in lines:
                self._line(_plain(line))

    def _plan(self, plan: Mapping[str, Any]) -> None:
        self._planned = True
        self.steps = [
            Step(number, each["instruction"], None, None, "waiting", line=each["line"], stage=each["stage"])
            for number, each in enumerate(plan["steps"], 1)
        ]
        self._stages = len({step.stage for step in self.steps})
        self._skipped = plan["skipped"]

    def _record(self, told: Mapping[str, Any]) -> None:
        step = self.steps[told["index"] - 1]
        now = self._clock()
        if step.began is None:
            step.began = now
        if told["state"] == "running":
            step.state = "running"
            return
        step.began, step.ended = now - told["seconds"], now
        is_base = told["state"] == "cached" and step.instruction.upper().startswith("FROM")
        step.state = "base" if is_base else told["state"]
        step.bytes = None if told["state"] == "failed" else told["size"]
        if told["state"] == "failed" and told.get("column"):
            step.fault = told["line"], told["column"]

    @staticmethod
    def _say(step: Step, text: str) -> None:
        *lines, step.rest = (step.rest + text).split("\n")
        for line in lines:
            if not line.startswith(("Step ", " ---> ")) and (line.strip() or step.output):
                step.output.append(_plain(line))

    def _stop(self) -> None:
        running = [step for step in self.steps if step.state == "running"]
        failed = any(step.state == "failed" for step in self.steps)
        if self.error and not failed and len(running) == 1:
            running[0].state, running[0].ended = "failed", self._clock()  # the engine named no other
        for step in self.steps:
            if step.rest:
                self._say(step, "\n")
            if step.state == "running":
                step.state, step.ended = "stopped", self._clock()
            elif step.state == "waiting":
                step.state = "not run"

    def _line(self, line: str) -> None:
        if line.startswith("Step ") and " : " in line:
            self._end_step(None)
            self.steps.append(Step(len(self.steps) + 1, line.partition(" : ")[2].strip(), self._clock()))
        elif line.startswith("Successfully "):
            self._end_step(None)
            self._notes.append(line)
        elif self._planned or not self.steps:  # of the build, and of no step of it
            if line.strip():
                self._notes.append(line)
        elif line == " ---> Using cache":
            self.steps[-1].state = "cached"
        elif line.startswith(" ---> Running in ") or line.startswith("Removing intermediate container "):
            return
        elif line.startswith(" ---> "):
            self.steps[-1].image = line.removeprefix(" ---> ")
        elif line or self.steps[-1].output:
            self.steps[-1].output.append(line)

    def _end_step(self, state: str | None) -> None:
        """The step at work is over: `state` says how, or None for well."""
        if not self.steps or self.steps[-1].ended is not None:
            return
        step = self.steps[-1]
        step.ended = self._clock()
        if state is not None:
            step.state = state
        elif step.state == "running":
            step.state = "base" if step.instruction.upper().startswith("FROM") else "built"

    def _table(self) -> Table:
        several = self._stages > 1
        columns = [
            Column("Step"),
            *([Column("Stage", whole=True)] if several else []),
            Column("Instruction", code=True),
            Column("State", whole=True),
            Column("Seconds", numeric=True),
            Column("Size", numeric=True),
        ]
        rows: list[list[str | Cell]] = [
            [
                str(step.number),
                *([step.stage] if several else []),
                shorten(step.instruction, INSTRUCTION_WIDTH),
                STEP_STATES[step.state],
                step.seconds(self._clock()),
                "" if step.bytes is None else size(step.bytes),
            ]
            for step in self.steps
        ]
        return Table(self.caption, columns, rows, _nothing_yet(self.closed))

    def _failure(self) -> list[Part]:
        assert self.error is not None
        told = source.refusal(self.error, self.dockerfile)
        line, column = self._failed_place()
        # A sentence with a place of its own knows better than the step it is about.
        if len(told) > 1 or line is None:
            return told
        return [*told, *source.excerpt(self.dockerfile, line, column)]

    def _failed_place(self) -> tuple[int | None, int | None]:
        """The line that failed, and the column if the mistake is less than the instruction."""
        if self._planned:
            step = next((step for step in self.steps if step.state == "failed"), None)
            if step and step.fault and not source.is_beginning(self.dockerfile, *step.fault):
                return step.fault
            return step.line if step else None, None
        return (source.line_of(self.dockerfile, len(self.steps)) if self.steps else None), None


def _nothing_yet(over: bool) -> str:
    return "The engine sent nothing." if over else "Waiting for the engine."


def _output(step: Step) -> list[Part]:
    """What a step says: all of it when it went well, else the end of it for all to see."""
    output = step.said()
    if not output:
        return []
    count = "1 line" if len(output) == 1 else f"{len(output)} lines"
    if step.state in ("built", "cached", "base"):
        return [Fold(f"Step {step.number}, {count} of output", _last(output, LINES_SHOWN))]
    tone: Tone = "bad" if step.state == "failed" else ""
    tail = output[-TAIL:]
    earlier = output[: -len(tail)]
    if not earlier:
        return [Fold(f"Step {step.number}, {count} of output", tail, open=True, tone=tone)]
    picture: list[Part] = []
    if step.ended is not None:
        lines = "1 earlier line" if len(earlier) == 1 else f"{len(earlier)} earlier lines"
        picture.append(Fold(f"Step {step.number}, {lines} of output", _last(earlier, LINES_SHOWN)))
    summary = f"Step {step.number}, the last {len(tail)} of {count} of output"
    return [*picture, Fold(summary, tail, open=True, tone=tone)]


def _last(lines: Sequence[str], count: int) -> Sequence[str]:
    hidden = len(lines) - count
    return lines if hidden <= 0 else [f"… {hidden} earlier lines not shown", *lines[hidden:]]


def _plain(line: str) -> str:
    """A line as a terminal would leave it: what a carriage return overwrites is gone, and so are colours."""
    return _ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2])


def _status(layer: Mapping[str, Any]) -> Cell:
    words = layer["status"]
    return Cell(f"✓ {words}", "good") if words.startswith(DONE) else Cell(words)


def _done(layer: Mapping[str, Any]) -> Cell:
    total, current = layer.get("total"), layer.get("current")
    if layer["status"].startswith(DONE):
        return Cell(size(total), share=1) if total else Cell("")
    if current is None:
        return Cell("")
    if not total:
        return Cell(size(current))
    return Cell(f"{size(current)} / {size(total)}", share=current / total)
