"""A Dockerfile in plain words: beside every instruction what it does to the image, made from what it says.

Nothing is built and nothing is looked up: a variable without a default stays as it is written, and whether an
image is here or will be pulled is not known.
"""

import posixpath
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from dockmagic_runtime.build import checks, words
from dockmagic_runtime.build.instructions import (
    Arg,
    Command,
    Copy,
    From,
    Healthcheck,
    Instruction,
    Pairs,
    Shell,
    Text,
    Words,
    typed,
)
from dockmagic_runtime.build.mountflags import MountFlag
from dockmagic_runtime.build.parser import parse
from dockmagic_runtime.build.planner import SCRATCH, plan
from dockmagic_runtime.errors import InvalidParameter

Json = dict[str, Any]

_LONGEST = 60
"""Characters of a command in a sentence about it."""
_THEIR_DIRECTORY = "the base image's directory"


@dataclass
class _Stage:
    """What is known of a stage at some line of it. `directory` is None where only the base image knows it."""

    name: str
    directory: str | None = None
    user: str = ""
    shell: tuple[str, ...] = ("/bin/sh", "-c")
    entrypoint: str = ""
    stages: Mapping[str, "_Stage"] = field(default_factory=dict)
    """The named ones before it."""
    arguments: dict[str, str] = field(default_factory=dict)
    """The defaults of those before any FROM."""

    def path(self, text: str) -> str:
        """From the root; what a variable stands for is not known."""
        if text.startswith("$"):
            return text
        if self.directory is None and not text.startswith("/"):
            inside = posixpath.normpath(text)
            return _THEIR_DIRECTORY if inside == "." else f"{inside} in {_THEIR_DIRECTORY}"
        return posixpath.normpath(posixpath.join(self.directory or "/", text))

    def base(self, image: str) -> "_Stage | None":
        return self.stages.get(image.lower())

    def begun(self, it: From, number: int) -> "_Stage":
        """The stage that a FROM below begins: with what the one that it names has become."""
        stages = {**self.stages, self.name: self} if self.name else self.stages
        new = _Stage(it.name or f"stage {number}", stages=stages, arguments=self.arguments)
        if old := new.base(it.image):
            return replace(old, name=new.name, stages=stages)
        return replace(new, directory="/") if it.image == SCRATCH else new


def explain(text: str, *, ignores: bool | None = None, target: str | None = None) -> Json:
    """`{"steps": [{line, instruction, stage, does}], "findings": [{line, rule, reason, fix}], "skipped"}`.

    `ignores`: whether the context has a .dockerignore; None if there is no context. Raises DockerfileError.
    """
    instructions = [typed(node) for node in parse(text)]
    stage, count = _Stage(""), 0
    steps: list[Json] = []
    for instruction in instructions:
        if isinstance(instruction, From):
            stage, count = stage.begun(instruction, count), count + 1
        steps.append(
            {
                "line": instruction.line,
                "instruction": instruction.node.original,
                "stage": stage.name,
                "does": _sentence(instruction, stage),
            }
        )
    return {
        "steps": steps,
        "findings": [
            each.as_json() for each in checks.check(text, instructions, ignores=ignores, target=target)
        ],
        "skipped": _skipped(instructions, target),
    }


def _skipped(instructions: list[Instruction], target: str | None) -> list[str]:
    """Stages that the target does not need."""
    try:
        planned = plan(instructions, {}, target)
    except InvalidParameter:
        return []  # a FROM of a variable that only a --build-arg gives a value
    kept = {stage.index for stage in planned.stages}
    return [name or f"stage {number}" for number, name in enumerate(planned.names) if number not in kept]


def _sentence(instruction: Instruction, stage: _Stage) -> str:
    return _WORDS[instruction.node.name](instruction, stage)


def _from(it: From, stage: _Stage) -> str:
    called = f", called {it.name}," if it.name else ""
    if it.image == SCRATCH:
        return f"Begins a stage{called} from nothing: without a single file."
    if stage.base(it.image):
        return f"Begins a stage{called} with all that the stage {it.image.lower()} has become."
    where = f" for {it.platform}" if it.platform else ""
    image = words.with_defaults(it.image, stage.arguments)
    usual = f" ({image}, if the build says nothing else)" if image != it.image else ""
    return f"Begins a stage{called} with the files and settings of the image {it.image}{usual}{where}."


def _arg(it: Arg, stage: _Stage) -> str:
    named = [name if default is None else f"{name}, by default {default!r}" for name, default in it.defaults]
    for_whom = "for the instructions below" if stage.name else "for the FROM lines below"
    if not stage.name:
        given = {name: default for name, default in it.defaults if default is not None}
        stage.arguments.update(
            {name: words.with_defaults(default, stage.arguments) for name, default in given.items()}
        )
    return f"Takes a build argument {for_whom}: {'; '.join(named)}. Containers do not get it."


def _env(it: Pairs, stage: _Stage) -> str:
    pairs = _and([f"{key}={value}" for key, value in it.pairs])
    return f"Sets {pairs} for the instructions below and in every container."


def _label(it: Pairs, stage: _Stage) -> str:
    return f"Notes {_and([f'{key}={value}' for key, value in it.pairs])} in the image's description."


def _run(it: Command, stage: _Stage) -> str:
    if it.shell is not None:
        heredocs = it.node.heredocs
        script = heredocs[0].content.strip() if heredocs and it.shell.startswith("<<") else it.shell
        lines = script.splitlines() or [""]
        shown = _short(lines[0]) + (f" … ({len(lines)} lines)" if len(lines) > 1 else "")
        how = f"runs `{shown}` with {' '.join(stage.shell)}"
    else:
        how = f"runs {_short(shlex.join(it.exec))}, without a shell,"
    who = f" as {stage.user}" if stage.user else ""
    inside = f" in {stage.directory}" if stage.directory not in (None, "/") else ""
    extras = [_mount(mount, stage) for mount in it.mounts]
    extras += [f"with the network {it.network}"] if it.network != "default" else []
    extras += ["with all privileges"] if it.insecure else []
    also = f" ({'; '.join(extras)})" if extras else ""
    return f"In a container {how}{who}{inside}{also}; the files that this changes become a layer."


def _mount(mount: MountFlag, stage: _Stage) -> str:
    target = stage.path(mount.get("target")) if mount.get("target") else ""
    source = mount.get("source")
    if mount.kind == "cache":
        return f"{target} is kept from build to build, outside of the image"
    if mount.kind == "tmpfs":
        return f"{target} is in memory"
    if mount.kind == "secret":
        return f"the secret {mount.get('id') or target} is there only meanwhile"
    if mount.kind == "ssh":
        return "your SSH agent can be asked meanwhile"
    origin = mount.get("from") or "the build context"
    return f"{source + ' of ' if source else ''}{origin} is there meanwhile, at {target}"


def _copy(it: Copy, stage: _Stage) -> str:
    sources = ["a here-document" if source.startswith("<<") else source for source in it.sources]
    if it.stage is not None:
        known = stage.base(it.stage) or it.stage.isdigit()
        origin = f" of the {'stage' if known else 'image'} {it.stage}"
    else:
        origin = "" if any("://" in source for source in sources) else " of the build context"
    target = stage.path(it.target)
    if it.target.endswith("/") and target.startswith("/") and target != "/":
        target += "/"
    verb = "Downloads" if it.unpack and any("://" in source for source in sources) else "Copies"
    extras = [f"owned by {it.chown}"] if it.chown else []
    extras += [f"with the mode {it.chmod}"] if it.chmod else []
    extras += [f"but for {_and(list(it.exclude))}"] if it.exclude else []
    extras += ["unpacked if they are archives"] if it.unpack and verb == "Copies" else []
    also = f", {', '.join(extras)}" if extras else ""
    what = "everything" if sources == ["."] else _and(sources)
    return f"{verb} {what}{origin} to {target}{also}, as a layer."


def _expose(it: Words, stage: _Stage) -> str:
    ports = _and([word if "/" in word else f"{word}/tcp" for word in it.words])
    return f"Notes that the program listens on {ports}. Nothing is published: that is for `run -p` or `-P`."


def _volume(it: Words, stage: _Stage) -> str:
    paths = _and(list(it.words))
    return f"Every container gets a volume of its own at {paths}, unless `run -v` names one."


def _workdir(it: Text, stage: _Stage) -> str:
    place = stage.path(it.text)
    stage.directory = place if place.startswith(("/", "$")) else None
    return f"Goes to {place}, made if it is missing: here the rest runs, and the container starts."


def _user(it: Text, stage: _Stage) -> str:
    stage.user = it.text
    return f"From here on everything runs as {it.text}, and so do containers."


def _stopsignal(it: Text, stage: _Stage) -> str:
    return f"`docker stop` sends {it.text} first, instead of SIGTERM."


def _maintainer(it: Text, stage: _Stage) -> str:
    return f"Notes {it.text} as the author."


def _onbuild(it: Text, stage: _Stage) -> str:
    return f"Does nothing now: `{it.text}` runs at the beginning of every build on this image."


def _shell(it: Shell, stage: _Stage) -> str:
    stage.shell = it.argv
    return f"Commands that are no JSON list run with {' '.join(it.argv)} from here on."


def _cmd(it: Command, stage: _Stage) -> str:
    said = it.shell if it.shell is not None else shlex.join(it.exec)
    through = f", through {' '.join(stage.shell)}" if it.shell is not None else ""
    if stage.entrypoint:
        return f"If `docker run` says nothing more, `{stage.entrypoint}` gets the words `{said}`."
    return f"A container runs `{said}`{through}, unless `docker run` names another command."


def _entrypoint(it: Command, stage: _Stage) -> str:
    stage.entrypoint = it.shell if it.shell is not None else shlex.join(it.exec)
    if it.shell is not None:
        return (
            f"Every container runs `{it.shell}`, through {' '.join(stage.shell)}: words after the image's"
            " name are lost, and the shell gets the signals."
        )
    return f"Every container runs `{stage.entrypoint}`, with the words after the image's name behind it."


def _healthcheck(it: Healthcheck, stage: _Stage) -> str:
    if it.test == ("NONE",):
        return "Takes away the health check of the image it begins with."
    command = it.shell if it.shell is not None else shlex.join((it.test or ())[1:])
    options = dict(it.options)
    every = options.get("Interval", 30 * 10**9) / 10**9
    return f"Every {every:g} s `{command}` runs in the container; ending with 0 is healthy."


_WORDS: Mapping[str, Callable[[Any, _Stage], str]] = {
    "FROM": _from,
    "ARG": _arg,
    "ENV": _env,
    "LABEL": _label,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
    "EXPOSE": _expose,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
    "USER": _user,
    "STOPSIGNAL": _stopsignal,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "CMD": _cmd,
    "ENTRYPOINT": _entrypoint,
    "HEALTHCHECK": _healthcheck,
}


def _short(command: str) -> str:
    """On one line, and not all of a long one: it stands beside."""
    line = " ".join(command.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST].rstrip()}…"


def _and(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
