"""What a build tells its client: Docker's classic builder stream, and our own step records beside it.

A record is `{"aux": {"dockmagic.step": {index, total, instruction, line, state, seconds, size}}}`, where
`state` is `running`, `cached`, `built` or `failed`; clients that do not know it pass it over.
"""

import time
from collections.abc import Callable
from typing import Any

from dockmagic_runtime.build.instructions import Instruction

Json = dict[str, Any]


class Progress:
    """Counts the steps of one build and words their messages."""

    def __init__(self, emit: Callable[[Json], None], total: int, *, quiet: bool = False) -> None:
        self._emit = emit
        self._total = total
        self._quiet = quiet
        self._index = 0
        self._step: Json = {}
        self._started = 0.0

    def grow(self, steps: int) -> None:
        """There are more steps than were known: a base image's ONBUILD triggers."""
        self._total += steps
        if steps:
            self._say(f"# Executing {steps} build trigger{'s' if steps > 1 else ''}\n")

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

    def failed(self) -> None:
        self._record("failed", 0)

    def warn(self, text: str) -> None:
        self._say(f"[Warning] {text}\n")

    def done(self, image_id: str, tags: list[str]) -> None:
        self._emit({"aux": {"ID": image_id}})
        if self._quiet:
            self._emit({"stream": f"{image_id}\n"})
            return
        self._say(f"Successfully built {image_id[7:19]}\n")
        for tag in tags:
            self._say(f"Successfully tagged {tag}\n")

    def _record(self, state: str, size: int, seconds: float | None = None) -> None:
        spent = time.monotonic() - self._started if seconds is None else seconds
        step = {**self._step, "state": state, "seconds": round(spent, 4), "size": size}
        self._emit({"aux": {"dockmagic.step": step}})

    def _say(self, text: str) -> None:
        if not self._quiet:
            self._emit({"stream": text})
