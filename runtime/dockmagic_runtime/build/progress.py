"""What a build tells its client: Docker's classic builder stream, and our own step records beside it.

A record is `{"aux": {"dockmagic.step": {index, total, instruction, line, state, seconds, size}}}`, where
`state` is `running`, `cached`, `built` or `failed`; clients that do not know it pass it over. `line` is where
the instruction begins; of a step that failed it is, with `column` (both from 1), where the mistake is. Before
the first there is the plan: `{"dockmagic.plan": {steps: [{index, instruction, line, stage}], skipped}}`.

Stages are built side by side and told one after another: the text of a stage is held back until those before
it are done, so that the stream reads like the Dockerfile. Records go out at once; a message of text names the
step that it belongs to (`{"stream": "…", "dockmagic.step": index}`).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dockmagic_runtime.build.instructions import Instruction
from dockmagic_runtime.build.parser import Node
from dockmagic_runtime.build.planner import Plan
from dockmagic_runtime.errors import EngineError

Json = dict[str, Any]


class Transcript:
    """All that one build says. `steps` is how many each stage has, its FROM included."""

    def __init__(self, emit: Callable[[Json], None], steps: Sequence[int], *, quiet: bool = False) -> None:
        self._emit = emit
        self._quiet = quiet
        self._total = sum(steps)
        self._held: list[list[Json]] = [[] for _ in steps]
        self._ended = [False for _ in steps]
        self._first = [sum(steps[:number]) for number in range(len(steps))]
        self._live = 0

    def stage(self, number: int) -> "Progress":
        """For the stage built as the `number`th in the order of the Dockerfile."""
        return Progress(self, number, self._first[number], self._total)

    def end(self, number: int) -> None:
        """The stage is done: those after it may speak."""
        self._ended[number] = True
        while self._live < len(self._held) and self._ended[self._live]:
            self._live += 1
            if self._live < len(self._held):
                self.release(self._live)

    def release(self, number: int) -> None:
        """Say what was held back of the stage: it has failed, or its turn has come."""
        held, self._held[number] = self._held[number], []
        for message in held:
            self._emit(message)

    def plan(self, planned: Plan) -> None:
        """What will be done, before anything is."""
        steps: list[Json] = []
        for stage in planned.stages:
            name = stage.name or f"stage {stage.index}"
            for instruction in (stage.start, *stage.steps):
                told = {"instruction": instruction.node.original, "line": instruction.line, "stage": name}
                steps.append({"index": len(steps) + 1, **told})
        kept = {stage.index for stage in planned.stages}
        skipped = [name or f"stage {index}" for index, name in enumerate(planned.names) if index not in kept]
        self._emit({"aux": {"dockmagic.plan": {"steps": steps, "skipped": skipped}}})

    def say(self, number: int, message: Json) -> None:
        if self._quiet:
            return
        if number == self._live:
            self._emit(message)
        else:
            self._held[number].append(message)

    def record(self, step: Json) -> None:
        self._emit({"aux": {"dockmagic.step": step}})

    def warn(self, text: str) -> None:
        if not self._quiet:
            self._emit({"stream": f"[Warning] {text}\n"})

    def done(self, image_id: str, tags: list[str]) -> None:
        self._emit({"aux": {"ID": image_id}})
        if self._quiet:
            self._emit({"stream": f"{image_id}\n"})
            return
        self._emit({"stream": f"Successfully built {image_id[7:19]}\n"})
        for tag in tags:
            self._emit({"stream": f"Successfully tagged {tag}\n"})


class Progress:
    """Counts the steps of one stage and words their messages."""

    def __init__(self, transcript: Transcript, number: int, first: int, total: int) -> None:
        self._transcript, self._number = transcript, number
        self._index, self._total = first, total
        self._step: Json = {}
        self._started = 0.0

    def triggers(self, count: int) -> None:
        """The base image's ONBUILD instructions come now: they belong to the FROM step and have no number."""
        if count:
            self._say(f"# Executing {count} build trigger{'s' if count > 1 else ''}\n")

    def begin(self, instruction: Instruction) -> None:
        self._index += 1
        original = instruction.node.original
        self._say(f"Step {self._index}/{self._total} : {original}\n")
        self._started = time.monotonic()
        self._step = {
            "index": self._index,
            "total": self._total,
            "instruction": original,
            "line": instruction.line,
        }
        self._record("running", 0)

    def base(self, short_id: str, size: int) -> None:
        """The FROM step is done; scratch has no ID."""
        self._say(f" ---> {short_id}\n")
        self._record("cached", size)

    def cached(self, short_id: str, size: int) -> None:
        self._say(" ---> Using cache\n")
        self._say(f" ---> {short_id}\n")
        self._record("cached", size)

    def running(self, step: str) -> None:
        self._say(f" ---> Running in {step[:12]}\n")

    def output(self, text: str) -> None:
        self._say(text)

    def removed(self, step: str) -> None:
        self._say(f" ---> Removed intermediate container {step[:12]}\n")

    def built(self, short_id: str, size: int, seconds: float) -> None:
        self._say(f" ---> {short_id}\n")
        self._record("built", size, seconds)

    @contextmanager
    def failing(self, node: Node) -> Iterator[None]:
        """What fails meanwhile is about a place in the instruction, and so the step's record says."""
        try:
            with node.blamed():
                yield
        except EngineError as error:
            self._failed(error.line, error.column)
            raise
        except Exception:
            self._failed(*node.place())
            raise

    def _failed(self, line: int | None, column: int | None) -> None:
        self._step |= {"line": line, "column": column}
        self._record("failed", 0)

    def _record(self, state: str, size: int, seconds: float | None = None) -> None:
        spent = time.monotonic() - self._started if seconds is None else seconds
        self._transcript.record({**self._step, "state": state, "seconds": round(spent, 4), "size": size})

    def _say(self, text: str) -> None:
        self._transcript.say(self._number, {"stream": text, "dockmagic.step": self._index})
