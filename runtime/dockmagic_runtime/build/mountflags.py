"""`RUN --mount=type=…,…`: the options of one mount, checked by BuildKit's rules."""

import csv
from dataclasses import dataclass

from dockmagic_runtime.build.parser import Node

_ALIASES = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly", "rw": "readwrite"}
_SWITCHES = frozenset(("readonly", "readwrite", "required"))
_OPTIONS = {
    "bind": {"target", "source", "from", "readonly", "readwrite"},
    "cache": {*("target", "source", "from", "readonly", "readwrite", "id", "sharing", "mode", "uid", "gid")},
    "tmpfs": {"target", "size"},
    "secret": {"target", "id", "required", "mode", "uid", "gid", "env"},
    "ssh": {"target", "id", "required", "mode", "uid", "gid"},
}


@dataclass(frozen=True)
class MountFlag:
    """One `--mount`, variables not expanded yet. An option that was not given is not in `options`."""

    kind: str
    options: tuple[tuple[str, str], ...]
    written: str

    def get(self, name: str, default: str = "") -> str:
        return dict(self.options).get(name, default)

    def switch(self, name: str) -> bool:
        return self.get(name) == "true"

    @property
    def piece(self) -> str:
        """What the instruction's Node calls it."""
        return f"--mount={self.written}"

    @property
    def writable(self) -> bool:
        """A cache is unless told otherwise, a bind only if told."""
        return self.switch("readwrite") or (self.kind == "cache" and not self.switch("readonly"))


def mount_flag(node: Node, text: str) -> MountFlag:
    """Raises DockerfileError."""
    flag = f"--mount={text}"
    pairs: dict[str, str] = {}
    for field in next(csv.reader([text]), []):
        key, equals, value = field.partition("=")
        key = _ALIASES.get(key.lower(), key.lower())
        if key in _SWITCHES:
            value = value.lower() or "true"
            if value not in ("true", "false", "1", "0"):
                raise node.error(f"invalid value for {key}: {value}", flag, field)
            value = {"1": "true", "0": "false"}.get(value, value)
            # Each of the two says the opposite of the other.
            pairs.update(_opposites(key, value))
        elif not equals:
            raise node.error(f"invalid field '{field}' must be a key=value pair", flag, field)
        else:
            pairs[key] = value
    kind = pairs.pop("type", "bind")
    known = _OPTIONS.get(kind)
    if known is None:
        raise node.error(f'unsupported mount type "{kind}"', flag)
    for key in pairs:
        if key not in known:
            raise node.error(f"unexpected key '{key}' for mount type '{kind}'", flag)
    if kind in ("bind", "cache", "tmpfs") and not pairs.get("target"):
        raise node.error(f"a mount of type {kind} needs a target", flag)
    if kind == "secret" and not (pairs.get("id") or pairs.get("target")):
        raise node.error("a mount of type secret needs an id or a target", flag)
    if pairs.get("sharing", "shared") not in ("shared", "private", "locked"):
        raise node.error(f'unsupported sharing value "{pairs["sharing"]}"', flag)
    if "$" in pairs.get("from", ""):
        raise node.error(
            f"'from' doesn't support variable expansion, define alias stage instead: {pairs['from']}", flag
        )
    return MountFlag(kind, tuple(sorted(pairs.items())), text)


def _opposites(key: str, value: str) -> dict[str, str]:
    other = {"readonly": "readwrite", "readwrite": "readonly"}.get(key)
    return {key: value, **({other: "false" if value == "true" else "true"} if other else {})}
