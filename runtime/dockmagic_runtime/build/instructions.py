"""Typed instructions: each Node checked and taken apart, nothing expanded yet.

Variables are expanded when a step is reached, for only then its environment is known. Sentences are Docker's.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from dockmagic_runtime.build import words
from dockmagic_runtime.build.flags import Flags
from dockmagic_runtime.build.mountflags import MountFlag, mount_flag
from dockmagic_runtime.build.parser import Node

_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
# Go's time.ParseDuration.
_AMOUNT = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"\+?(?:0|(?:{_AMOUNT})+)")
_UNITS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_SHORTEST = 10**6


@dataclass(frozen=True)
class Instruction:
    """What all have: where it is from."""

    node: Node

    @property
    def line(self) -> int:
        return self.node.line


@dataclass(frozen=True)
class From(Instruction):
    """`FROM image AS name`; `image` may be an earlier stage, or `scratch`."""

    image: str
    name: str | None
    platform: str | None


@dataclass(frozen=True)
class Arg(Instruction):
    """`ARG name=default …`; None where there is no default."""

    defaults: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True)
class Pairs(Instruction):
    """`ENV` and `LABEL`: names and values as written."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Command(Instruction):
    """`RUN`, `CMD`, `ENTRYPOINT`: `exec` for the JSON form, else `shell` is the line for the shell."""

    shell: str | None
    exec: tuple[str, ...] = ()
    mounts: tuple[MountFlag, ...] = ()
    network: str = "default"
    insecure: bool = False


@dataclass(frozen=True)
class Copy(Instruction):
    """`COPY` and `ADD`. `stage` is `--from`; `unpack` says that archives are unpacked (`ADD`).

    Among the sources are the here-documents of the node, as `<<NAME`.
    """

    sources: tuple[str, ...]
    target: str
    stage: str | None
    chown: str | None
    chmod: str | None
    unpack: bool
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str | None = None


@dataclass(frozen=True)
class Words(Instruction):
    """`EXPOSE` and `VOLUME`: several arguments."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Text(Instruction):
    """`WORKDIR`, `USER`, `STOPSIGNAL`, `MAINTAINER`, `ONBUILD`: one argument."""

    text: str


@dataclass(frozen=True)
class Shell(Instruction):
    """`SHELL`: what the shell form runs in."""

    argv: tuple[str, ...]


@dataclass(frozen=True)
class Healthcheck(Instruction):
    """`HEALTHCHECK`, as Docker's image config has it; durations in nanoseconds."""

    test: tuple[str, ...] | None
    shell: str | None
    options: tuple[tuple[str, int], ...]


def typed(node: Node) -> Instruction:
    """The instruction of a Node. Raises DockerfileError with line and column."""
    make = _MAKERS.get(node.name)
    if make is None:
        raise node.error(f"unknown instruction: {node.name}")
    if not node.text and node.name not in ("CMD", "ENTRYPOINT"):
        raise node.error(f"{node.name} requires at least one argument")
    try:
        return make(node)
    except words.Unreadable as error:
        raise node.error(str(error), error.about) from None


def _from(node: Node) -> From:
    platform = Flags(node, "platform").text("platform")
    parts = node.text.split()
    if len(parts) == 1:
        return From(node, parts[0], None, platform)
    if len(parts) != 3 or parts[1].lower() != "as":
        raise node.error("FROM requires either one or three arguments")
    name = parts[2].lower()
    if not _STAGE_NAME.fullmatch(name):
        raise node.error(
            f'invalid name for build stage: "{parts[2]}", name can\'t start with a number or contain symbols',
            parts[2],
        )
    return From(node, parts[0], name, platform)


def _arg(node: Node) -> Arg:
    Flags(node)
    defaults: list[tuple[str, str | None]] = []
    for word in words.tokens(node.text, node.escape):
        name, equals, value = word.partition("=")
        if not name:
            raise node.error("ARG names can not be blank")
        defaults.append((name, value if equals else None))
    return Arg(node, tuple(defaults))


def _pairs(node: Node) -> Pairs:
    Flags(node)
    pieces = words.tokens(node.text, node.escape)
    if "=" not in pieces[0]:
        # The old form, `ENV name the whole rest`.
        old = node.text.split(None, 1)
        if len(old) < 2:
            raise node.error(f"{node.name} must have two arguments")
        return Pairs(node, ((old[0], old[1]),))
    pairs: list[tuple[str, str]] = []
    for piece in pieces:
        name, equals, value = piece.partition("=")
        if not equals:
            raise node.error(
                f'Syntax error - can\'t find = in "{piece}". Must be of the form: name=value', piece
            )
        if not name:
            raise node.error(f"{node.name} names can not be blank")
        pairs.append((name, value))
    return Pairs(node, tuple(pairs))


def _command(node: Node) -> Command:
    known = ("network", "security") if node.name == "RUN" else ()
    flags = Flags(node, *known, several=("mount",) if node.name == "RUN" else ())
    mounts = tuple(mount_flag(node, text) for text in flags.several("mount")) if known else ()
    network, security = flags.text("network") or "default", flags.text("security") or "sandbox"
    if network not in ("default", "none", "host"):
        raise node.error(f'invalid network mode "{network}"', "--network", network)
    if security not in ("sandbox", "insecure"):
        raise node.error(f'security mode "{security}" is not valid', "--security", security)
    argv = _json_list(node)
    if argv == () and node.name == "RUN":
        raise node.error("RUN requires at least one argument", node.text)
    shell = None if argv is not None else node.text
    return Command(node, shell, argv or (), mounts, network, security == "insecure")


def _json_list(node: Node, text: str | None = None) -> tuple[str, ...] | None:
    """The exec form, of all the text or of its end; what is no JSON list is the shell form, brackets or not.

    Raises DockerfileError.
    """
    text = node.text if text is None else text
    if not text.startswith("["):
        return None
    try:
        parsed = json.loads(text)
    except ValueError:
        return None
    if not all(isinstance(item, str) for item in parsed):
        raise node.error("when using JSON array syntax, arrays must be comprised of strings only", text)
    return tuple(parsed)


def _copy(node: Node) -> Copy:
    own = ("from", "link", "parents") if node.name == "COPY" else ("link", "checksum")
    flags = Flags(node, *own, "chown", "chmod", several=("exclude",))
    parts = _json_list(node) or tuple(words.tokens(node.text, node.escape))
    if len(parts) < 2:
        raise node.error(
            f"{node.name} requires at least two arguments, but only one was provided."
            " Destination could not be determined"
        )
    if "$" in (flags.given.get("from") or ""):
        raise node.error(
            f"variable expansion is not supported for --from, define a new stage with FROM using ARG from"
            f" global scope as a workaround: {flags.given['from']}",
            *("--from", flags.given["from"]),
        )
    checksum = flags.text("checksum")
    if checksum is not None and len(parts) > 2:
        raise node.error("checksum can't be specified for multiple sources", "--checksum")
    return Copy(
        node,
        parts[:-1],
        parts[-1],
        flags.text("from"),
        flags.text("chown"),
        flags.text("chmod"),
        node.name == "ADD",
        flags.boolean("link"),
        flags.boolean("parents"),
        flags.several("exclude"),
        checksum,
    )


def _words(node: Node) -> Words:
    Flags(node)
    listed = _json_list(node) if node.name == "VOLUME" else None
    found = listed if listed is not None else tuple(words.tokens(node.text, node.escape))
    if not found:
        raise node.error(f"{node.name} requires at least one argument")
    if not all(found):
        raise node.error(f"{node.name} specified can not be an empty string")
    return Words(node, found)


def _text(node: Node) -> Text:
    Flags(node)
    return Text(node, node.text)


def _onbuild(node: Node) -> Text:
    trigger = node.text.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise node.error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise node.error(f"{trigger} isn't allowed as an ONBUILD trigger", trigger)
    Flags(node)
    bodies = "".join(f"\n{heredoc.lines}{heredoc.name}" for heredoc in node.heredocs)
    return Text(node, node.text + bodies)


def _shell(node: Node) -> Shell:
    argv = _json_list(node)
    if not argv:
        raise node.error("SHELL requires the arguments to be in JSON form")
    return Shell(node, argv)


def _healthcheck(node: Node) -> Healthcheck:
    flags = Flags(node, "interval", "timeout", "start-period", "start-interval", "retries")
    kind, *command = node.text.split(None, 1)
    rest = "".join(command)
    if kind.upper() == "NONE":
        if rest:
            raise node.error("HEALTHCHECK NONE takes no arguments", rest)
        return Healthcheck(node, ("NONE",), None, ())
    if kind.upper() != "CMD":
        raise node.error(f'Unknown type "{kind}" in HEALTHCHECK (try CMD)', kind)
    if not rest:
        raise node.error("Missing command after HEALTHCHECK CMD")
    options: list[tuple[str, int]] = []
    for name, value in flags.given.items():
        if name == "retries":
            if not re.fullmatch(r"\+?\d+", value):
                raise node.error(f"--retries must be a number and not negative (not {value})", "--retries")
            options.append(("Retries", int(value)))
        else:
            key = "".join(part.capitalize() for part in name.split("-"))
            options.append((key, _interval(node, name, value)))
    argv = _json_list(node, rest)
    if argv == ():
        raise node.error("Missing command after HEALTHCHECK CMD", rest)
    return Healthcheck(node, ("CMD", *argv) if argv else None, None if argv else rest, tuple(options))


def _interval(node: Node, name: str, text: str) -> int:
    """In nanoseconds; 0 stands for the engine's own."""
    if not _DURATION.fullmatch(text):
        raise node.error(f'time: invalid duration "{text}"', f"--{name}")
    found = int(sum(float(number) * _UNITS[unit] for number, unit in re.findall(_AMOUNT, text)))
    if 0 < found < _SHORTEST:
        raise node.error(f'Interval "{name}" cannot be less than 1ms', f"--{name}")
    return found


_MAKERS: dict[str, Callable[[Node], Instruction]] = {
    "FROM": _from,
    "ARG": _arg,
    "ENV": _pairs,
    "LABEL": _pairs,
    "RUN": _command,
    "CMD": _command,
    "ENTRYPOINT": _command,
    "COPY": _copy,
    "ADD": _copy,
    "EXPOSE": _words,
    "VOLUME": _words,
    "WORKDIR": _text,
    "USER": _text,
    "STOPSIGNAL": _text,
    "MAINTAINER": _text,
    "ONBUILD": _onbuild,
    "SHELL": _shell,
    "HEALTHCHECK": _healthcheck,
}
