"""One engine: its nouns put together, served on its socket, and taken apart again.

    spawner (forked before all of this) ── database ── stores ── networks ── containers ── routes ── socket

Nothing in memory that the next engine can't rebuild: `start` reads the database, takes up the running
containers and sweeps what a crash has left; `stop` lets go of them without ending any.
"""

import asyncio
import logging
import secrets
import socket
from pathlib import Path

from aiohttp import web

from dockmagic_runtime.api import archive as archive_api
from dockmagic_runtime.api import build as build_api
from dockmagic_runtime.api import containers as containers_api
from dockmagic_runtime.api import execs as execs_api
from dockmagic_runtime.api import extensions as extensions_api
from dockmagic_runtime.api import images as images_api
from dockmagic_runtime.api import networks as networks_api
from dockmagic_runtime.api import pruning as pruning_api
from dockmagic_runtime.api import refused as refused_api
from dockmagic_runtime.api import streams as streams_api
from dockmagic_runtime.api import system as system_api
from dockmagic_runtime.api import volumes as volumes_api
from dockmagic_runtime.api.request import make_request
from dockmagic_runtime.api.router import Router
from dockmagic_runtime.api.services import Services
from dockmagic_runtime.build.builder import Builder
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.containers import restoring
from dockmagic_runtime.containers.execs import Execs
from dockmagic_runtime.containers.health import HealthChecks
from dockmagic_runtime.containers.launch import Launcher
from dockmagic_runtime.containers.places import Places
from dockmagic_runtime.containers.record import Records
from dockmagic_runtime.containers.runs import Runs
from dockmagic_runtime.containers.store import Containers
from dockmagic_runtime.containers.volumeuse import VolumeUse
from dockmagic_runtime.errors import SystemFailure
from dockmagic_runtime.events import EventBus
from dockmagic_runtime.images.pull import Puller
from dockmagic_runtime.images.store import ImageStore, Use
from dockmagic_runtime.kernel.cgroups import Cgroup
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.process.spawner import Spawner
from dockmagic_runtime.registry.client import Registry
from dockmagic_runtime.storage.content import ContentStore
from dockmagic_runtime.storage.database import Database
from dockmagic_runtime.storage.layers import LayerStore
from dockmagic_runtime.storage.snapshots import SnapshotStore
from dockmagic_runtime.volumes.store import VolumeStore

log = logging.getLogger(__name__)

_READ_AHEAD = 1 << 20
_LONGEST_HEAD = 1 << 20


class Engine:
    """See the module. `start` once, `stop` once."""

    def __init__(self, config: EngineConfig, spawner: Spawner) -> None:
        root = config.data_root
        self._spawner = spawner
        database = self._database = Database(root / "engine.db")
        events = EventBus()
        content, layers = ContentStore(root / "images"), LayerStore(root / "layers", limit=config.layer_limit)
        images = ImageStore(database, content, layers)
        registry = Registry(config)
        snapshots = SnapshotStore(root / "containers", layers)
        records = Records(database)
        networks = Networks(database, config, events.publish)
        volumes = VolumeStore(database, root / "volumes", records.users_of_volume, events.publish)
        places, volume_use = Places(config), VolumeUse(volumes, events)
        launcher = Launcher(places, snapshots, networks.sandboxes, spawner, records)
        runs = Runs(places, records, launcher, volume_use, networks.sandboxes, events)
        containers = Containers(
            places, records, images, snapshots, volume_use, networks, launcher, runs, events
        )
        images.in_use = lambda image_id: [
            Use(container.id, container.state.running) for container in records.of_image(image_id)
        ]
        puller = Puller(images, registry)
        builder = Builder(config, database, layers, images, puller, networks, spawner)
        images.held_layers = lambda: builder.held_layers().union(
            *(container.layers for container in records.all())
        )
        images.publish_event = lambda action, image_id, attributes: events.publish(
            "image", action, image_id, dict(attributes)
        )
        execs = Execs(runs, launcher, events)
        self._health = HealthChecks(records, runs, execs, events)
        self.services = Services(
            id=self._identity(),
            config=config,
            events=events,
            content=content,
            layers=layers,
            snapshots=snapshots,
            images=images,
            puller=puller,
            volumes=volumes,
            networks=networks,
            containers=containers,
            runs=runs,
            execs=execs,
            registry=registry,
            builder=builder,
        )
        self._runner: web.ServerRunner | None = None

    def _identity(self) -> str:
        """A name for this engine that stays the same over restarts (`docker info`'s ID)."""
        self._database.migrate("engine", "CREATE TABLE engine (id TEXT)")
        row = self._database.one("SELECT id FROM engine")
        if row:
            return str(row["id"])
        with self._database.transaction() as connection:
            identity = secrets.token_hex(16)
            connection.execute("INSERT INTO engine VALUES (?)", (identity,))
        return identity

    async def start(self) -> None:
        """Take up what runs, then serve."""
        services = self.services
        services.content.sweep()
        services.layers.sweep()
        services.images.drop_incomplete()
        services.builder.sweep()
        containers, runs = services.containers, services.runs
        await restoring.restore(
            containers.places, containers.records, runs, services.networks, containers.volumes
        )
        await self._remove_empty_cgroup(kill=True)
        await services.images.collect()
        self._runner = web.ServerRunner(
            web.Server(
                Router(
                    services,
                    archive_api.routes,
                    build_api.routes,
                    containers_api.routes,
                    execs_api.routes,
                    extensions_api.routes,
                    images_api.routes,
                    networks_api.routes,
                    pruning_api.routes,
                    refused_api.routes,
                    streams_api.routes,
                    system_api.routes,
                    volumes_api.routes,
                ),
                request_factory=make_request,
                # As Go's: filters and the credentials for a build (X-Registry-Config) may be long.
                max_line_size=_LONGEST_HEAD,
                max_field_size=_LONGEST_HEAD,
                access_log=None,
                # Idle clients of a local socket cost nothing; docker-py keeps its connections for long.
                keepalive_timeout=3600,
                # A build context of hundreds of megabytes: fewer stops of a client that sends it.
                read_bufsize=_READ_AHEAD,
            ),
            # Streams that never end by themselves (events, logs -f, stats) are cut off at the engine's end.
            shutdown_timeout=1,
        )
        await self._runner.setup()
        await web.SockSite(self._runner, _listen(services.config.socket_path)).start()
        # Behind our back: clients need not wait for them.
        runs.in_background(restoring.start_by_policy(containers.records, runs))

    async def stop(self) -> None:
        """Stop serving and let go. Containers go on; what no running container needs is taken away."""
        services = self.services
        services.config.socket_path.unlink(missing_ok=True)
        if self._runner:
            await self._runner.cleanup()
        await services.builder.stop()
        await self._health.close()
        await services.runs.let_go()
        await services.networks.stop()
        await services.registry.close()
        self._spawner.close()
        await self._remove_empty_cgroup()
        self._database.close()
        self._remove_empty(services.config.run_root)

    async def _remove_empty_cgroup(self, *, kill: bool = False) -> None:
        """The parent of the containers' groups, with what a crash left in it, while no container runs."""
        group = Cgroup.open(self.services.config.cgroup_parent)
        if not self.services.containers.records.running() and group.exists():
            await asyncio.to_thread(group.remove, kill=kill)

    @staticmethod
    def _remove_empty(run_root: Path) -> None:
        for directory in (run_root / "shims", run_root / "netns", run_root):
            try:
                directory.rmdir()
            except OSError:
                log.debug("%s stays: it is in use", directory)


def _listen(path: Path) -> socket.socket:
    """A listening socket that only its owner and group may use. One of a dead engine is replaced."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(temporary))
    except OSError as error:
        raise SystemFailure(f"cannot listen on {path}: {error.strerror or error}") from error
    temporary.chmod(0o660)
    listener.listen(512)
    # A client finds either the old socket or one that already listens.
    temporary.rename(path)
    return listener
