"""The `--flags` of an instruction: which are known to it, once or several times, and of what kind."""

from dockmagic_runtime.build.parser import Node

# What BuildKit knows and this builder does not.
_LATER = frozenset((("RUN", "device"), ("ADD", "keep-git-dir"), ("ADD", "unpack")))


class Flags:
    """The flags of `node`. Raises DockerfileError for one that is unknown or given twice."""

    def __init__(self, node: Node, *known: str, several: tuple[str, ...] = ()) -> None:
        self._node = node
        self.given: dict[str, str] = {}
        self._several: dict[str, list[str]] = {name: [] for name in several}
        for name, value in node.flags:
            if name in self._several:
                self._several[name].append(value)
            elif name not in known:
                if (node.name, name) in _LATER:
                    raise node.lacking(f"{node.name} --{name} is not supported by this builder", f"--{name}")
                raise node.error(f"unknown flag: --{name}", f"--{name}")
            elif name in self.given:
                raise node.error(f"duplicate flag specified: --{name}", f"--{name}={value}")
            else:
                self.given[name] = value

    def text(self, name: str) -> str | None:
        value = self.given.get(name)
        if value == "":
            raise self._node.error(f"missing a value on flag: {name}", f"--{name}")
        return value

    def boolean(self, name: str) -> bool:
        """`--link` says true, and so does `--link=true`."""
        value = self.given.get(name, "false").lower()
        if value not in ("", "true", "false"):
            raise self._node.error(
                f"expecting boolean value for flag {name}, not: {self.given[name]}", f"--{name}"
            )
        return value != "false"

    def several(self, name: str) -> tuple[str, ...]:
        return tuple(self._several[name])
