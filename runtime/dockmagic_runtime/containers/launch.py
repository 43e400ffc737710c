"""What a start prepares, in order: account, network, files of /etc, OCI configuration, spawner.

Nothing is undone by itself: after a run or a failed start the caller has `give_back` take away what is left,
but for the container's networks, which are given back where they were taken.
"""

import logging
from pathlib import Path
from typing import Any

from dockmagic_runtime.containers import etcfiles, joining, links, logoptions, spec, subpaths
from dockmagic_runtime.containers.accounts import Account, AccountFiles, read_account_files
from dockmagic_runtime.containers.live import Live
from dockmagic_runtime.containers.places import Places
from dockmagic_runtime.containers.record import Container, Records
from dockmagic_runtime.networks.sandbox import Sandbox
from dockmagic_runtime.networks.sandboxes import Sandboxes
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
        sandboxes: Sandboxes,
        spawner: Spawner,
        records: Records,
    ) -> None:
        self._places = places
        self._snapshots = snapshots
        self._sandboxes = sandboxes
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
        namespaces, etc_mounts = await self._connect(container)
        around = spec.Surroundings(
            account,
            self._places.cgroup(container),
            namespaces,
            etc_mounts,
            joining.shared_memory(container, self._records, self._places),
            self.link_environment(container),
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
        host = container.host_config
        namespaces = joining.namespaces(container, self._records)
        if other := joining.network_owner(container, self._records):
            namespaces["network"] = f"/proc/{other.state.pid}/ns/net"
            # As what it finds in the other one's /etc/hosts.
            container.config |= {name: other.config.get(name, "") for name in ("Hostname", "Domainname")}
            return namespaces, etcfiles.mounts(self._places.directory(other))
        links.check(container, self._records)  # said before anything is made
        sandbox = await self._sandboxes.allocate(
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
        etc_mounts = self.record_networks(container, sandbox)
        for parent, _ in self._records.parents(container.id):
            self.tell_links(parent)
        return namespaces | sandbox.namespaces, etc_mounts

    def tell_links(self, parent: Container) -> None:
        """Where those are that a running container links to, in its /etc/hosts."""
        sandbox = self._sandboxes.find(parent.id)
        if sandbox and parent.state.running:
            self.record_networks(parent, sandbox)

    def record_networks(self, container: Container, sandbox: Sandbox) -> list[Json]:
        """Note in the record and in its files of /etc what networks it is in; the mounts of those files."""
        container.networks = sandbox.settings()
        linked = links.hosts(links.reachable(container, self._records))
        own = [(address, spec.host_names(container)) for address, _ in sandbox.hosts]
        return etcfiles.write(
            self._places.directory(container),
            spec.hostname(container),
            [*linked, *own],
            container.host_config["ExtraHosts"] or [],
            sandbox.resolv_conf,
            container.networks.get("Gateway") or "127.0.0.1",
            as_host=sandbox.on_host,
        )

    def give_back(self, container: Container) -> None:
        """What a start made that outlives the container's processes, but for its network."""
        joining.take_away(container, self._places)

    def link_environment(self, container: Container) -> list[str]:
        return links.environment(container, links.reachable(container, self._records))

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
