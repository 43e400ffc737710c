"""Who is still to read the context: the last COPY of a build may take its files instead of copying them."""

from dockmagic_runtime.build.instructions import Command, Copy, From, Instruction
from dockmagic_runtime.build.planner import Plan


class Readers:
    """The instructions to come that may read the context, in all stages of one build."""

    def __init__(self) -> None:
        self._left: list[Instruction] = []

    def expect(self, planned: Plan) -> None:
        """Of a FROM it is not known before its image is there: it may have triggers (ONBUILD)."""
        for stage in planned.stages:
            self._left += [each for each in (stage.start, *stage.steps) if _may_read(each)]

    def done(self, instruction: Instruction) -> None:
        """It has read whatever it reads."""
        self._left = [each for each in self._left if each is not instruction]

    def is_last(self, instruction: Instruction) -> bool:
        """Whether nobody reads the context after it, nor beside it."""
        return len(self._left) == 1 and self._left[0] is instruction


def _may_read(instruction: Instruction) -> bool:
    if isinstance(instruction, Copy):
        return instruction.stage is None
    return isinstance(instruction, From) or (isinstance(instruction, Command) and bool(instruction.mounts))
