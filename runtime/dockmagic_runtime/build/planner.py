"""The graph of stages: which one starts from which, which copies from which, and what the target needs.

A stage is a FROM and the steps up to the next. Stages that the target does not need are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dockmagic_runtime.build import words
from dockmagic_runtime.build.instructions import Arg, Copy, From, Instruction
from dockmagic_runtime.errors import InvalidParameter

SCRATCH = "scratch"


@dataclass(frozen=True)
class Stage:
    """`base` is the index of an earlier stage, or an image's name. `needs` are the stages to build before."""

    index: int
    start: From
    base: int | str
    steps: tuple[Instruction, ...]
    needs: frozenset[int]
    copies: Mapping[str, int | str]
    """For each `COPY --from=x` in it: the stage or image meant by x."""

    @property
    def name(self) -> str | None:
        return self.start.name


@dataclass(frozen=True)
class Plan:
    """Stages in the order they can be built in; the last is the target. `arguments` stand before any FROM."""

    stages: tuple[Stage, ...]
    arguments: Mapping[str, str]

    @property
    def total(self) -> int:
        """Steps, each FROM being one."""
        return sum(1 + len(stage.steps) for stage in self.stages)


def plan(
    instructions: Sequence[Instruction], build_arguments: Mapping[str, str], target: str | None = None
) -> Plan:
    """Raises InvalidParameter: no FROM, unknown target, a copy from a later stage."""
    arguments = dict(build_arguments)
    declared: dict[str, str] = {}
    stages: list[Stage] = []
    pending: list[tuple[From, list[Instruction]]] = []
    for instruction in instructions:
        if isinstance(instruction, From):
            pending.append((instruction, []))
        elif pending:
            pending[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            for name, default in instruction.defaults:
                value = arguments.get(name)
                if value is None and default is not None:
                    value = words.expand(default, declared, instruction.node.escape)
                if value is not None:
                    declared[name] = value
        else:
            raise instruction.node.error("no build stage in current context")
    if not pending:
        raise InvalidParameter("no build stage in current context")
    for index, (start, steps) in enumerate(pending):
        stages.append(_stage(index, start, steps, stages, declared))
    last = _target(stages, target)
    needed = _needed(stages, last)
    return Plan(tuple(stage for stage in stages if stage.index in needed), declared)


def _stage(
    index: int, start: From, steps: list[Instruction], earlier: list[Stage], arguments: Mapping[str, str]
) -> Stage:
    image = words.expand(start.image, arguments, start.node.escape)
    if not image:
        raise start.node.error(f"base name ({start.image}) should not be blank")
    base = _find(image, earlier, by_number=False)
    copies: dict[str, int | str] = {}
    for step in steps:
        if isinstance(step, Copy) and step.stage is not None:
            named = _find(step.stage, earlier, by_number=True)
            if step.stage.isdigit() and not isinstance(named, int):
                raise step.node.error(
                    f"invalid from flag value {step.stage}: refers to current or a later build stage"
                )
            copies[step.stage] = named
    needs = {stage for stage in (base, *copies.values()) if isinstance(stage, int)}
    return Stage(index, start, base, tuple(steps), frozenset(needs), copies)


def _find(name: str, earlier: list[Stage], *, by_number: bool) -> int | str:
    for stage in reversed(earlier):
        if stage.name == name.lower():
            return stage.index
    if by_number and name.isdigit() and int(name) < len(earlier):
        return int(name)
    return name


def _target(stages: list[Stage], target: str | None) -> int:
    if not target:
        return len(stages) - 1
    for stage in stages:
        if stage.name == target.lower():
            return stage.index
    if target.isdigit() and int(target) < len(stages):
        return int(target)
    raise InvalidParameter(f"failed to reach build target {target} in Dockerfile")


def _needed(stages: list[Stage], last: int) -> set[int]:
    needed: set[int] = set()
    pending = [last]
    while pending:
        index = pending.pop()
        if index not in needed:
            needed.add(index)
            pending += stages[index].needs
    return needed
