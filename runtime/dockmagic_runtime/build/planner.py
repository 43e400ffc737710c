"""The graph of stages: which one starts from which, which copies from which, and what the target needs.

A stage is a FROM and the steps up to the next. Stages that the target does not need are left out.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from dockmagic_runtime.build.instructions import Arg, Command, Copy, From, Instruction
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.oci.image import Platform

SCRATCH = "scratch"


@dataclass(frozen=True)
class Stage:
    """`base` is the index of an earlier stage, or an image's name. `needs` are the stages to build before."""

    index: int
    start: From
    base: int | str
    steps: tuple[Instruction, ...]
    needs: frozenset[int]
    platform: str | None = None
    """`--platform`, expanded."""

    @property
    def name(self) -> str | None:
        return self.start.name


@dataclass(frozen=True)
class Plan:
    """Stages in the order they can be built in; the last is the target. `arguments` stand before any FROM."""

    stages: tuple[Stage, ...]
    arguments: Mapping[str, str]
    names: tuple[str | None, ...] = ()
    """Of all stages of the Dockerfile, also of those that are left out."""

    @property
    def total(self) -> int:
        """Steps, each FROM being one."""
        return sum(1 + len(stage.steps) for stage in self.stages)

    def meant(self, name: str, stage: int) -> int | str:
        """What `--from=name` in `stage` means: the index of an earlier stage, or an image."""
        return find(name, self.names[:stage], by_number=True)


def plan(
    instructions: Sequence[Instruction],
    build_arguments: Mapping[str, str],
    target: str | None = None,
    automatic: Mapping[str, str] | None = None,
) -> Plan:
    """`automatic` are arguments that are there undeclared, before the first FROM (TARGETPLATFORM, …).

    Raises InvalidParameter: no FROM, unknown target, a copy from a later stage.
    """
    arguments = dict(build_arguments)
    declared: dict[str, str] = {**(automatic or {})}
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
                    value = instruction.node.expanded(declared, default)
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
    kept = tuple(stage for stage in stages if stage.index in needed)
    return Plan(kept, declared, tuple(stage.name for stage in stages))


def _stage(
    index: int, start: From, steps: list[Instruction], earlier: list[Stage], arguments: Mapping[str, str]
) -> Stage:
    image = start.node.expanded(arguments, start.image)
    if not image:
        raise start.node.error(f"base name ({start.image}) should not be blank", start.image)
    platform = None
    if start.platform is not None:
        piece = ("--platform", start.platform)
        platform = start.node.expanded(arguments, *piece)
        if not platform:
            raise start.node.error(f"empty platform value from expression {start.platform}", *piece)
        try:
            Platform.parse(platform)
        except InvalidParameter as error:
            raise start.node.error(str(error), *piece) from None
    names = tuple(stage.name for stage in earlier)
    base = find(image, names, by_number=False)
    needs = {base} if isinstance(base, int) else set()
    for step, name, flag in _named(steps):
        meant = find(name, names, by_number=True)
        if isinstance(meant, int):
            needs.add(meant)
        elif name.isdigit():
            raise step.node.error(
                f"invalid from flag value {name}: refers to current or a later build stage", flag, name
            )
    return Stage(index, start, base, tuple(steps), frozenset(needs), platform)


def _named(steps: list[Instruction]) -> Iterator[tuple[Instruction, str, str]]:
    """Each step that reads another stage or image, what it calls it, and in which flag."""
    for step in steps:
        if isinstance(step, Copy) and step.stage is not None:
            yield step, step.stage, "--from"
        elif isinstance(step, Command):
            yield from ((step, name, mount.piece) for mount in step.mounts if (name := mount.get("from")))


def find(name: str, earlier: Sequence[str | None], *, by_number: bool) -> int | str:
    """The index of the stage of that name, the last of several; or the name itself, as an image's."""
    for index in reversed(range(len(earlier))):
        if earlier[index] == name.lower():
            return index
    if by_number and name.isdigit() and int(name) < len(earlier):
        return int(name)
    return name


def _target(stages: list[Stage], target: str | None) -> int:
    if not target:
        return len(stages) - 1
    for stage in reversed(stages):
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
