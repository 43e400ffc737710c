"""RUN: one command in a stage's root, through the same process layer as any container, but unrecorded.

A build has one network sandbox, made at its first RUN and shared by the others: it is the steps' own work
that should take the time. Interrupted, the step's process is killed and awaited before the interrupt goes on.
"""

import asyncio
import codecs
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.containers import etcfiles, joining, spec
from dockmagic_runtime.containers.accounts import read_account_files
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.containers.settings import CONFIG_FIELDS, HOST_CONFIG_FIELDS, complete
from dockmagic_runtime.errors import NotImplementedHere
from dockmagic_runtime.networks.sandbox import Sandbox
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.process.client import Attachment, LogSpec, RunRequest, Shim
from dockmagic_runtime.process.frames import Frames
from dockmagic_runtime.process.spawner import Spawner
from dockmagic_runtime.storage.overlay import Rootfs
from dockmagic_runtime.threads import settled

Json = dict[str, Any]

_SIGKILL = 9


@dataclass(frozen=True)
class Command:
    """What a RUN step runs: argv, the stage's image config, variables of this build (`NAME=value`), OCI
    mounts; `network` is `default`, `none` or `host`; `insecure` gives it all that the engine may do."""

    id: str
    argv: Sequence[str]
    config: Json
    variables: Sequence[str]
    mounts: Sequence[Json] = ()
    network: str = "default"
    insecure: bool = False


@dataclass(frozen=True)
class Limits:
    """Options of `docker build` about its RUN steps."""

    network: str = "bridge"
    extra_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    host_config: tuple[tuple[str, Any], ...] = ()
    """Memory, CpuShares and the like, as in HostConfig."""


class Runner:
    """Runs the commands of one build. Close it: that gives the network back."""

    def __init__(
        self, build_id: str, config: EngineConfig, networks: Networks, spawner: Spawner, limits: Limits
    ) -> None:
        if limits.network.startswith("container:"):
            raise NotImplementedHere("a build in the network of a container is not supported by this builder")
        self._id = build_id
        self._config, self._networks, self._spawner, self._limits = config, networks, spawner, limits
        self._sandbox: Sandbox | None = None
        self._allocating: asyncio.Future[Sandbox] | None = None
        self._making = asyncio.Lock()

    @property
    def network(self) -> str:
        """What a RUN without `--network` has."""
        return self._limits.network

    async def close(self) -> None:
        """No error if there never was a RUN."""
        if self._allocating is not None:
            await settled(self._allocating)
        await self._networks.sandboxes.release(self._id)
        self._sandbox = None

    async def run(self, command: Command, rootfs: Rootfs, bundle: Path, output: Callable[[str], None]) -> int:
        """The exit code (128+n after signal n). Raises StartFailed if the program could not be executed."""
        container = self._container(command)
        namespaces, etc = await self._network(command, bundle)
        files = await asyncio.to_thread(read_account_files, rootfs)
        around = spec.Surroundings(
            files.resolve(container.config["User"]),
            f"{self._config.cgroup_parent}/{command.id}",
            {"mount": None, "pid": None, "ipc": None, "uts": None, "cgroup": None, **namespaces},
            etc,
            joining.own_shared_memory(container),
        )
        config = spec.build(container, around)
        config["mounts"] += command.mounts
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        with ours:
            starting = asyncio.ensure_future(
                self._spawner.run(
                    RunRequest(
                        id=command.id,
                        bundle=bundle,
                        config=config,
                        rootfs=rootfs,
                        socket=shim_socket(self._config, command.id),
                        log=LogSpec("none", bundle / "log"),
                        streams=[Attachment(theirs)],
                    )
                )
            )
            try:
                shim = await asyncio.shield(starting)
            except asyncio.CancelledError:
                # It may be starting at this very moment: wait until it can be killed.
                with contextlib.suppress(Exception):
                    await _kill(await starting)
                raise
            try:
                await _relay(ours, output)
                return (await shim.exited).code
            except BaseException:
                await _kill(shim)
                raise
            finally:
                # A shim removes it itself, if it does not find the disk full.
                shim_socket(self._config, command.id).unlink(missing_ok=True)

    def _container(self, command: Command) -> Container:
        config = complete(
            {
                **{name: command.config.get(name) for name in ("User", "WorkingDir")},
                "Env": [*(command.config.get("Env") or ()), *command.variables],
                "Cmd": list(command.argv),
            },
            CONFIG_FIELDS,
            "Config",
        )
        asked: Json = {"NetworkMode": self._limits.network, **dict(self._limits.host_config)}
        if command.insecure:
            asked |= {"Privileged": True, "MaskedPaths": [], "ReadonlyPaths": []}
        if self._limits.shm_size:
            asked["ShmSize"] = self._limits.shm_size
        host = complete(asked, HOST_CONFIG_FIELDS, "HostConfig")
        return Container(command.id, command.id[:12], timestamps.now(), "", config, host, {}, [], [])

    async def _network(self, command: Command, bundle: Path) -> tuple[dict[str, str | None], list[Json]]:
        """Namespaces to join, and the mounts over /etc."""
        mode = self._limits.network if command.network == "default" else command.network
        if mode == "none":
            mounts = etcfiles.write(bundle, command.id[:12], [], self._limits.extra_hosts, "", "127.0.0.1")
            return {"network": None}, mounts
        if mode == "host":
            text = Path("/etc/resolv.conf")
            resolv_conf = text.read_text() if text.exists() else ""
            mounts = etcfiles.write(
                bundle, os.uname().nodename, [], self._limits.extra_hosts, resolv_conf, "127.0.0.1"
            )
            return {}, mounts
        async with self._making:
            if self._sandbox is None:
                asked: dict[str, Json | None] = {self._limits.network: None}
                self._allocating = asyncio.ensure_future(
                    self._networks.sandboxes.allocate(self._id, self._id[:12], self._id[:12], asked)
                )
                # An interrupt does not stop it half-made: `close` waits for it, and gives it back whole.
                self._sandbox = await asyncio.shield(self._allocating)
        gateway = self._sandbox.settings().get("Gateway") or "127.0.0.1"
        mounts = etcfiles.write(
            bundle,
            command.id[:12],
            self._sandbox.hosts,
            self._limits.extra_hosts,
            self._sandbox.resolv_conf,
            gateway,
        )
        return self._sandbox.namespaces, mounts


def shim_socket(config: EngineConfig, step: str) -> Path:
    """Where the shim of a step listens."""
    return config.run_root / "shims" / f"{step[:16]}.sock"


async def _kill(shim: Shim) -> None:
    """Kill and wait, so that nothing of the step is left when the files it used are removed."""
    await shim.signal(_SIGKILL)
    await asyncio.shield(shim.exited)


async def _relay(sock: socket.socket, output: Callable[[str], None]) -> None:
    """Docker's multiplexed frames to text, both streams as they come; UTF-8 may be cut anywhere."""
    loop = asyncio.get_running_loop()
    decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in (1, 2)}
    frames = Frames()
    while data := await loop.sock_recv(sock, 1 << 16):
        for stream, piece in frames.feed(data):
            if text := decoders[stream].decode(piece):
                output(text)
