"""What a rule gets and what it gives: a Dockerfile by its stages, and findings."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dockmagic_runtime.build import words
from dockmagic_runtime.build.instructions import Arg as ArgInstruction
from dockmagic_runtime.build.instructions import Command, From, Instruction


@dataclass(frozen=True)
class Finding:
    """`line` is of the Dockerfile, from 1."""

    line: int
    rule: str
    reason: str
    fix: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Stage:
    """`base` is the stage that it begins with, None for an image: `image`, with the defaults of ARG."""

    start: From
    steps: list[Instruction]
    base: "Stage | None"
    image: str

    def named(self, *names: str) -> list[Instruction]:
        return [step for step in self.steps if step.node.name in names]

    @property
    def lineage(self) -> list["Stage"]:
        """The stages whose layers and settings it has, the first one first."""
        return [*(self.base.lineage if self.base else []), self]

    def inherited(self, *names: str) -> list[Instruction]:
        """As `named`, with those of the stages that it begins with."""
        return [step for stage in self.lineage for step in stage.named(*names)]


@dataclass(frozen=True)
class File:
    """`last` is the stage that becomes the image; `arguments` stand before any FROM."""

    stages: list[Stage]
    last: Stage
    arguments: list[ArgInstruction]
    ignores: bool | None

    @property
    def kept(self) -> list[Stage]:
        """The stages whose layers the image has; those of the others are left behind."""
        return self.last.lineage


def stages_of(instructions: Sequence[Instruction]) -> tuple[list[Stage], list[ArgInstruction]]:
    stages: list[Stage] = []
    arguments: list[ArgInstruction] = []
    defaults: dict[str, str] = {}
    for instruction in instructions:
        if isinstance(instruction, From):
            image = words.with_defaults(instruction.image, defaults)
            base = next((each for each in reversed(stages) if each.start.name == image.lower()), None)
            stages.append(Stage(instruction, [], base, image))
        elif stages:
            stages[-1].steps.append(instruction)
        elif isinstance(instruction, ArgInstruction):
            arguments.append(instruction)
            for name, default in instruction.defaults:
                if default is not None:
                    defaults[name] = words.with_defaults(default, defaults)
    return stages, arguments


def script(step: Instruction) -> str:
    if not isinstance(step, Command):
        return ""
    said = step.shell if step.shell is not None else " ".join(step.exec)
    return said + "".join(f"\n{heredoc.content}" for heredoc in step.node.heredocs)
