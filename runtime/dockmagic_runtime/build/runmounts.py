"""`RUN --mount`: what a step sees beside its own root.

    bind     the context, a stage or an image, or a part of it; what is written there is thrown away
    cache    a directory that outlives the build (`cachemounts`)
    tmpfs    memory
    secret   a file or a variable of the client's (`sessions`): in no layer, no cache key and no log
    ssh      the client's agent (`agents`)

A source is resolved below its tree by openat2(2) and handed on as a descriptor, or is mounted by the step's
own first process: a link that another step swaps in between leads nowhere else (CVE-2024-23651).
"""

import contextlib
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockmagic_runtime.build import agents, copying
from dockmagic_runtime.build.cachemounts import CacheMounts, Kind
from dockmagic_runtime.build.context import Context, tree
from dockmagic_runtime.build.entries import Reading, checksum
from dockmagic_runtime.build.instructions import Command
from dockmagic_runtime.build.mountflags import MountFlag
from dockmagic_runtime.build.mountplaces import with_places
from dockmagic_runtime.build.sessions import Session
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.kernel import paths
from dockmagic_runtime.storage.overlay import Rootfs, mount_rootfs
from dockmagic_runtime.threads import in_thread

Json = dict[str, Any]

_READING = Reading(owners=True)


@dataclass(frozen=True)
class Sources:
    """Where the mounts of a build come from. `tree_of` is of `from=`, and None means the context."""

    context: Context
    tree_of: Callable[[str], Awaitable[Rootfs]]
    caches: CacheMounts
    session: Session
    sockets: Path
    """A directory of short paths that is gone after a reboot; for what must be on no disk."""


@dataclass(frozen=True)
class Held:
    """What a step needs for its mounts, while it runs: OCI mounts, variables, and its root with places."""

    rootfs: Rootfs
    mounts: list[Json]
    variables: list[str]


@dataclass(frozen=True)
class _Mount:
    """A flag, its variables expanded and its defaults filled in."""

    flag: MountFlag
    target: str
    source: str
    id: str
    tree: Rootfs | None = field(default=None, compare=False)

    @property
    def owner(self) -> tuple[int, int]:
        return self.number("uid"), self.number("gid")

    def number(self, name: str) -> int:
        text = self.flag.get(name, "0")
        if not text.isdecimal():
            raise InvalidParameter(f"invalid value for {name}: {text}")
        return int(text)

    def mode(self, default: int) -> int:
        text = self.flag.get("mode")
        try:
            return int(text, 8) if text else default
        except ValueError:
            raise InvalidParameter(f"invalid value for mode: {text}") from None

    def size(self) -> list[str]:
        """Of a tmpfs, `100m` or bytes."""
        text = self.flag.get("size").lower().removesuffix("b")
        if not text:
            return []
        if not text.rstrip("kmg").isdecimal() or len(text) - len(text.rstrip("kmg")) > 1:
            raise InvalidParameter(f"invalid value for size: {self.flag.get('size')}")
        return [f"size={text}"]


class RunMounts:
    """The mounts of one RUN: what fails is about the flag.

    `expand` puts variables into a text of a flag; `absolute` makes a path one in the root.
    """

    def __init__(
        self,
        instruction: Command,
        sources: Sources,
        expand: Callable[[str, str], str],
        absolute: Callable[[str], str],
    ) -> None:
        self._sources = sources
        self._node = instruction.node
        self._flags = instruction.mounts
        self._expand, self._absolute = expand, absolute
        self._mounts: list[_Mount] = []

    async def depends(self) -> tuple[str, ...]:
        """What the outcome of the step depends on: the mounts' options, and the content of binds."""
        if not self._flags:
            return ()
        agents_before = 0
        told: list[str] = []
        for flag in self._flags:
            with self._node.blamed(flag.piece):
                self._mounts.append(await self._resolved(flag, agents_before))
                told.append(await in_thread(self._told, self._mounts[-1]))
            agents_before += flag.kind == "ssh"
        return tuple(told)

    @asynccontextmanager
    async def held(self, rootfs: Rootfs, directory: Path) -> AsyncIterator[Held]:
        """`directory` is the step's own. Raises InvalidParameter if a source is not there."""
        if not self._mounts:
            yield Held(rootfs, [], [])
            return
        entries: list[tuple[Json, bool]] = []
        variables: list[str] = []
        async with AsyncExitStack() as stack:
            for number, mount in enumerate(self._mounts):
                place = directory / f"mount-{number}"
                with self._node.blamed(mount.flag.piece):
                    made = await self._entry(mount, place, variables, stack)
                if made:
                    entries.append(({"destination": mount.target, **made[0]}, made[1]))
            # What lies inside another comes after it.
            entries.sort(key=lambda each: each[0]["destination"].count("/"))
            targets = [(entry["destination"], is_directory) for entry, is_directory in entries]
            furnished = await in_thread(with_places, rootfs, targets, directory / "places")
            yield Held(furnished, [entry for entry, _ in entries], variables)

    async def _resolved(self, flag: MountFlag, agents_before: int) -> _Mount:
        target, source, identity = (
            self._expand(flag.get(name), flag.piece) for name in ("target", "source", "id")
        )
        if flag.kind == "secret":
            identity = identity or target.rpartition("/")[2]
            target = target or ("" if flag.get("env") else f"/run/secrets/{identity.rpartition('/')[2]}")
        elif flag.kind == "ssh":
            identity = identity or "default"
            target = target or f"/run/buildkit/ssh_agent.{agents_before}"
        origin = flag.get("from")
        root = await self._sources.tree_of(origin) if origin else None
        return _Mount(flag, target and self._absolute(target).rstrip("/"), source, identity, root)

    def _told(self, mount: _Mount) -> str:
        told = [mount.flag.kind, mount.target, mount.source, mount.id]
        told += [
            f"{key}={value}" for key, value in mount.flag.options if key not in ("target", "source", "id")
        ]
        if mount.flag.kind != "bind":
            return "\0".join(told)
        if mount.tree is not None and mount.source.strip("/") in ("", "."):
            # Of a whole stage or image its layers say it all.
            return "\0".join([*told, *mount.tree.lower])
        with tree(self._sources.context, mount.tree) as found:
            try:
                content = checksum(found.find(mount.source or "."), _READING)
            except InvalidParameter as error:
                raise InvalidParameter(f"RUN --mount failed: {error}") from None
        return "\0".join([*told, content])

    async def _entry(
        self, mount: _Mount, place: Path, variables: list[str], stack: AsyncExitStack
    ) -> tuple[Json, bool] | None:
        """The OCI mount but for its destination, and whether a directory; None if there is nothing."""
        kind = mount.flag.kind
        if kind == "tmpfs":
            return {"type": "tmpfs", "source": "tmpfs", "options": mount.size()}, True
        if kind == "secret":
            return self._secret(mount, place, variables, stack)
        if kind == "ssh":
            return await self._agent(mount, place, variables, stack)
        if kind == "cache":
            fill = self._filling(mount)
            origin = "" if mount.tree is None else f"{mount.tree.lower}"
            cache = Kind(mount.id or mount.target, origin, mount.mode(0o755), mount.owner)
            sharing = mount.flag.get("sharing", "shared")
            data = await stack.enter_async_context(self._sources.caches.taken(cache, sharing, fill))
            # What it was filled from is a part of the tree already.
            inside = "" if mount.tree is not None else mount.source
            return await in_thread(self._descriptor, data, inside, mount.flag.writable, stack)
        if not mount.flag.writable and (mount.tree is None or len(mount.tree.lower) == 1):
            top = self._sources.context.path if mount.tree is None else Path(mount.tree.lower[0])
            return await in_thread(self._descriptor, top, mount.source, False, stack)
        return await in_thread(self._merged, mount, place)

    def _filling(self, mount: _Mount) -> Callable[[Path], None]:
        """A new cache directory has what `from` and `source` name."""

        def fill(data: Path) -> None:
            if mount.tree is None:
                return
            with paths.opened(data) as target, tree(self._sources.context, mount.tree) as found:
                sources = found.find(mount.source or ".")
                copying.copy(sources, target, "/", owner=None, reading=_READING)

        return fill

    def _descriptor(self, top: Path, inside: str, writable: bool, stack: AsyncExitStack) -> tuple[Json, bool]:
        """What lies `inside` a directory of the engine's, held open until the step has ended."""
        with paths.opened(top) as root:
            fd = self._opened(root, inside)
        stack.callback(os.close, fd)
        entry = {"type": "bind", "source": f"/proc/{os.getpid()}/fd/{fd}"}
        options = ["bind", "rprivate", "rw" if writable else "ro"]
        return {**entry, "options": options}, stat.S_ISDIR(os.fstat(fd).st_mode)

    def _merged(self, mount: _Mount, place: Path) -> tuple[Json, bool]:
        """A part of merged layers, which exist only once the step's first process mounts them."""
        lower = (str(self._sources.context.path),) if mount.tree is None else mount.tree.lower
        view = mount_rootfs(Rootfs(lower))
        try:
            fd = self._opened(view, mount.source)
            is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
            os.close(fd)
        finally:
            os.close(view)
        options = [f"lowerdir+={path}" for path in lower]
        if mount.flag.writable:
            for name in ("upper", "work"):
                (place / name).mkdir(parents=True, mode=0o755)
            options += [f"upperdir={place / 'upper'}", f"workdir={place / 'work'}"]
        else:
            options.append("ro")
        options.append(f"x-subpath={mount.source or '.'}")
        return {"type": "overlay", "source": "overlay", "options": options}, is_directory

    def _opened(self, root: int, inside: str) -> int:
        try:
            return paths.open_in_root(root, inside or ".", os.O_PATH)
        except OSError as error:
            raise InvalidParameter(f'RUN --mount failed: "{inside}": {error.strerror}') from None

    def _secret(
        self, mount: _Mount, place: Path, variables: list[str], stack: AsyncExitStack
    ) -> tuple[Json, bool] | None:
        value = self._sources.session.secrets.get(mount.id)
        if value is None:
            if mount.flag.switch("required"):
                raise InvalidParameter(f"secret {mount.id}: not found")
            return None
        if name := mount.flag.get("env"):
            variables.append(f"{name}={value.decode(errors='surrogateescape')}")
        if not mount.target:
            return None
        file = self._private(place, stack)
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as out:
            out.write(value)
            os.fchown(out.fileno(), *mount.owner)
            os.fchmod(out.fileno(), mount.mode(0o400))
        return {"type": "bind", "source": str(file), "options": ["bind", "rprivate", "ro", "nosuid"]}, False

    async def _agent(
        self, mount: _Mount, place: Path, variables: list[str], stack: AsyncExitStack
    ) -> tuple[Json, bool] | None:
        agent = self._sources.session.agents.get(mount.id)
        if agent is None:
            if mount.flag.switch("required"):
                raise InvalidParameter(f"unset ssh forward key {mount.id}")
            return None
        file = self._private(place, stack)
        await stack.enter_async_context(agents.relayed(agent, file, mount.mode(0o600), mount.owner))
        if not any(variable.startswith("SSH_AUTH_SOCK=") for variable in variables):
            variables.append(f"SSH_AUTH_SOCK={mount.target}")
        return {"type": "bind", "source": str(file), "options": ["bind", "rprivate", "rw"]}, False

    def _private(self, place: Path, stack: AsyncExitStack) -> Path:
        """A path that nobody else can reach, removed with the step."""
        sockets = self._sources.sockets
        sockets.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = sockets / f"{place.parent.name[:16]}-{place.name.rpartition('-')[2]}"
        stack.callback(_forget, file)
        return file


def _forget(file: Path) -> None:
    """And the directory with the last of them: what has ended leaves nothing."""
    file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        file.parent.rmdir()


def allowed(instruction: Command, session: Session, network: str) -> None:
    """Raises InvalidParameter for what the client has not allowed this Dockerfile (CVE-2024-23653)."""
    asked = [
        *(["network.host"] if instruction.network == "host" and network != "host" else []),
        *(["security.insecure"] if instruction.insecure else []),
    ]
    for name in asked:
        if name not in session.allowed:
            flag, _, value = name.partition(".")
            sentence = f"{name} is not allowed: build with --allow {name} to permit it"
            raise instruction.node.placed(InvalidParameter(sentence), f"--{flag}", value)
