"""What a start prepares, in order: account, volumes, network, files of /etc, OCI configuration, spawner.

Nothing is undone here: what a failed start leaves is the container's network, which its owner gives back.
"""

import logging
from pathlib import Path
from typing import Any

from dockmagic_runtime.containers import etcfiles, logoptions, spec, subpaths
from dockmagic_runtime.containers.accounts import Account, AccountFiles, read_account_files
from dockmagic_runtime.containers.copyup import copy_up
from dockmagic_runtime.containers.live import Live
from dockmagic_runtime.containers.places import Places
from dockmagic_runtime.containers.record import Container, Records
from dockmagic_runtime.errors import Conflict, InvalidParameter
from dockmagic_runtime.networks.sandbox import Sandbox
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.process.client import RunRequest, Shim
from dockmagic_runtime.process.spawner import Spawner
from dockmagic_runtime.storage.overlay import Rootfs
from dockmagic_runtime.storage.snapshots import SnapshotStore

Json = dict[str, Any]
log = logging.getLogger(__name__)


class Launcher:
    """Starts the programs of containers."""

    def __init__(
        self,
        places: Places,
        snapshots: SnapshotStore,
        networks: Networks,
        spawner: Spawner,
        records: Records,
    ) -> None:
        self._places = places
        self._snapshots = snapshots
        self._networks = networks
        self._spawner = spawner
        self._records = records
        self._account_files: dict[tuple[str, ...], AccountFiles] = {}

    async def launch(self, container: Container, live: Live) -> Shim:
        """Returns when the program has been executed; raises StartFailed, and what the networks raise.

        On failure the caller gives the networks back.
        """
        directory = self._places.directory(container)
        rootfs = self._snapshots.get(container.id)
        account = self._account(container, rootfs)
        copy_up(container.mounts, rootfs)
        namespaces, etc_mounts = await self._connect(container)
        around = spec.Surroundings(
            account, self._places.cgroup(container), namespaces, etc_mounts, self._shared_memory(container)
        )
        attachments, live.waiting_attachments = live.waiting_attachments, []
        host, config = container.host_config, container.config
        bundle_config = spec.build(container, around)
        with subpaths.held(container.mounts, bundle_config):
            shim = await self._spawner.run(
                RunRequest(
                    id=container.id,
                    bundle=directory,
                    config=bundle_config,
                    rootfs=rootfs,
                    socket=self._places.shim_socket(container),
                    log=logoptions.log_spec(self._places.log(container), container),
                    open_stdin=config["OpenStdin"],
                    stdin_once=config["StdinOnce"],
                    init=bool(host["Init"]),
                    streams=attachments,
                )
            )
        for warning in shim.warnings:
            log.warning("container %s: %s", container.short_id, warning)
        return shim

    async def _connect(self, container: Container) -> tuple[dict[str, str | None], list[Json]]:
        """The container's namespaces (kind -> path to join, None: new) and its mounts over /etc."""
        host, mode = container.host_config, container.network_mode
        namespaces: dict[str, str | None] = {"mount": None}
        namespaces |= self._joined("pid", host["PidMode"])
        namespaces |= self._joined("ipc", host["IpcMode"])
        if host["CgroupnsMode"] == "private" and not host["Privileged"]:
            namespaces["cgroup"] = None
        if host["UTSMode"] != "host":
            namespaces["uts"] = None
        if mode.startswith("container:"):
            other = self._records.get(mode.partition(":")[2])
            pid = self._running_pid(other)
            namespaces["network"] = f"/proc/{pid}/ns/net"
            return namespaces, etcfiles.mounts(self._places.directory(other))
        sandbox = await self._networks.allocate(
            container.id,
            container.name,
            spec.hostname(container),
            dict(container.endpoints),
            host["PortBindings"],
            dns=host["Dns"],
            dns_search=host["DnsSearch"],
            dns_options=host["DnsOptions"],
            exposed=list(container.config.get("ExposedPorts") or {}),
            publish_all=host["PublishAllPorts"],
        )
        return namespaces | sandbox.namespaces, self.record_networks(container, sandbox)

    def record_networks(self, container: Container, sandbox: Sandbox) -> list[Json]:
        """Note in the record and in its files of /etc what networks it is in; the mounts of those files."""
        container.networks = sandbox.settings()
        return etcfiles.write(
            self._places.directory(container),
            spec.hostname(container),
            [(address, spec.host_names(container)) for address, _ in sandbox.hosts],
            container.host_config["ExtraHosts"] or [],
            sandbox.resolv_conf,
            container.networks.get("Gateway") or "127.0.0.1",
        )

    def _joined(self, kind: str, mode: str) -> dict[str, str | None]:
        if mode == "host":
            return {}
        if mode.startswith("container:"):
            pid = self._running_pid(self._records.get(mode.partition(":")[2]))
            return {kind: f"/proc/{pid}/ns/{kind}"}
        if mode not in ("", "private", "shareable", "none"):
            raise InvalidParameter(f"invalid {kind.upper()} mode: {mode}")
        return {kind: None}

    def _running_pid(self, other: Container) -> int:
        if not other.state.running:
            raise Conflict(f"cannot join network of a non running container: {other.id}")
        return other.state.pid

    def _shared_memory(self, container: Container) -> str | None:
        mode = container.host_config["IpcMode"]
        if mode == "host":
            return "/dev/shm"
        if mode.startswith("container:"):
            return f"/proc/{self._running_pid(self._records.get(mode.partition(':')[2]))}/root/dev/shm"
        return None

    def _account(self, container: Container, rootfs: Rootfs) -> Account:
        files = self._files_of(container, rootfs)
        return files.resolve(container.config["User"], tuple(container.host_config["GroupAdd"] or ()))

    def _files_of(self, container: Container, rootfs: Rootfs) -> AccountFiles:
        """Read once per stack of layers, as long as the container has written no /etc of its own."""
        if rootfs.host or (rootfs.upper and Path(rootfs.upper, "etc").exists()):
            return read_account_files(rootfs)
        key = tuple(container.layers)
        if key not in self._account_files:
            self._account_files[key] = read_account_files(rootfs)
        return self._account_files[key]

    def account_for(self, container: Container, user: str) -> Account:
        """Whom `exec -u` means in this container."""
        groups = tuple(container.host_config["GroupAdd"] or ())
        return self._files_of(container, self._snapshots.get(container.id)).resolve(user, groups)
