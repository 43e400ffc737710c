"""Instructions that change the config alone: what each does to it, with its variables expanded."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dockmagic_runtime.build.instructions import (
    Arg,
    Command,
    Healthcheck,
    Instruction,
    Pairs,
    Shell,
    Text,
    Words,
)
from dockmagic_runtime.build.state import State
from dockmagic_runtime.containers.settings import parse_signal
from dockmagic_runtime.errors import InvalidParameter

_PORT = re.compile(r"(\d+)(?:-(\d+))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)


def apply(instruction: Instruction, state: State) -> tuple[State, str]:
    """The state after it, without history; and the instruction as the history tells it."""
    if isinstance(instruction, Pairs):
        return _pairs(instruction, state)
    if isinstance(instruction, Command):
        return _command(instruction, state)
    if isinstance(instruction, Words):
        return _words(instruction, state)
    if isinstance(instruction, Shell):
        return state.with_config(Shell=list(instruction.argv)), f"SHELL {_show(instruction.argv)}"
    if isinstance(instruction, Healthcheck):
        return _healthcheck(instruction, state)
    assert isinstance(instruction, Text)
    return _text(instruction, state)


def declare(
    instruction: Arg, state: State, given: dict[str, str], outer: dict[str, str]
) -> tuple[State, str]:
    """ARG: the value is the client's, else the default, else that of an ARG before the first FROM."""
    told: list[str] = []
    for name, default in instruction.defaults:
        value = given.get(name)
        if value is None and default is not None:
            value = expand(instruction, default, state)
        if value is None:
            value = outer.get(name)
        state = state.with_arguments({name: value})
        told.append(name if value is None else f"{name}={value}")
    return state, f"ARG {' '.join(told)}"


def expand(instruction: Instruction, text: str, state: State, flag: str = "", *, last: bool = False) -> str:
    """One argument with its variables, or a text in a flag. Raises DockerfileError."""
    piece = (flag, text) if flag else (text,)
    return instruction.node.expanded(state.environment, *piece, last=last)


def _pairs(instruction: Pairs, state: State) -> tuple[State, str]:
    # All values of one instruction see the environment from before it.
    pairs = [(expand(instruction, k, state), expand(instruction, v, state)) for k, v in instruction.pairs]
    for (key, _), (written, _) in zip(pairs, instruction.pairs, strict=True):
        if not key:
            raise instruction.node.error(f"{instruction.node.name} names can not be blank", written)
    told = f"{instruction.node.name} {' '.join(f'{key}={value}' for key, value in pairs)}"
    if instruction.node.name == "LABEL":
        return state.with_config(Labels={**(state.config.get("Labels") or {}), **dict(pairs)}), told
    environment = list(state.config.get("Env") or [])
    for key, value in pairs:
        entry = f"{key}={value}"
        places = [number for number, old in enumerate(environment) if old.partition("=")[0] == key]
        if places:
            environment[places[0]] = entry
        else:
            environment.append(entry)
    return state.with_config(Env=environment), told


def _command(instruction: Command, state: State) -> tuple[State, str]:
    name = instruction.node.name
    if instruction.shell is not None:
        argv: list[str] | None = [*state.shell, instruction.shell]
    else:
        argv = list(instruction.exec) or None
    told = f"{name} {_show(argv or ())}"
    if name == "CMD":
        return replace(state.with_config(Cmd=argv), has_command=True), told
    # A CMD from before this stage was meant for the entrypoint there.
    command = state.config.get("Cmd") if state.has_command else None
    return state.with_config(Entrypoint=argv, Cmd=command), told


def _words(instruction: Words, state: State) -> tuple[State, str]:
    found = [expand(instruction, text, state) for text in instruction.words]
    if instruction.node.name == "VOLUME":
        found = [word.strip() for word in found]
        volumes = {**(state.config.get("Volumes") or {}), **{word: {} for word in found}}
        return state.with_config(Volumes=volumes), f"VOLUME [{' '.join(found)}]"
    # A variable may have several ports, and not several paths.
    listed = [
        (word, written)
        for text, written in zip(found, instruction.words, strict=True)
        for word in text.split()
    ]
    ports: dict[str, Any] = dict(state.config.get("ExposedPorts") or {})
    for word, written in listed:
        # A port of the machine says nothing here: BuildKit passes over it.
        match = _PORT.fullmatch(word.rpartition(":")[2])
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not match or not 0 < first <= last < 65536:
            raise instruction.node.error(f"invalid containerPort: {word}", written)
        for port in range(first, last + 1):
            ports[f"{port}/{(match[3] or 'tcp').lower()}"] = {}
    return state.with_config(ExposedPorts=ports), f"EXPOSE {' '.join(word for word, _ in listed)}"


def _text(instruction: Text, state: State) -> tuple[State, str]:
    name = instruction.node.name
    if name == "ONBUILD":
        triggers = [*(state.config.get("OnBuild") or []), instruction.text]
        return state.with_config(OnBuild=triggers), f"ONBUILD {instruction.text}"
    if name == "MAINTAINER":
        author = {"author": instruction.text}
        return replace(state, document={**state.document, **author}), f"MAINTAINER {instruction.text}"
    # Expanded it may be empty: then the user is root and the directory the same as before.
    text = expand(instruction, instruction.text, state)
    if name == "USER":
        return state.with_config(User=text), f"USER {text}"
    if name == "STOPSIGNAL":
        try:
            parse_signal(text)
        except InvalidParameter as error:
            raise instruction.node.error(str(error), instruction.text) from None
        return state.with_config(StopSignal=text), f"STOPSIGNAL {text}"
    path = absolute(text, state).rstrip("/") or "/"
    return state.with_config(WorkingDir=path), f"WORKDIR {path}"


def absolute(path: str, state: State) -> str:
    """`path` in the working directory, without `.` and `..`; a last slash stays."""
    joined = path if path.startswith("/") else f"{state.config.get('WorkingDir') or '/'}/{path}"
    parts: list[str] = []
    for part in joined.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    slash = "/" if parts and (path.endswith("/") or path.rpartition("/")[2] == ".") else ""
    return "/" + "/".join(parts) + slash


def _healthcheck(instruction: Healthcheck, state: State) -> tuple[State, str]:
    test = list(instruction.test) if instruction.test else ["CMD-SHELL", instruction.shell or ""]
    check: dict[str, Any] = {"Test": test, **dict(instruction.options)}
    return state.with_config(Healthcheck=check), instruction.node.original


def _show(argv: Sequence[str]) -> str:
    """As Go prints a list of strings with %q."""
    return "[" + " ".join(f'"{word}"' for word in argv) + "]"
