"""What the routes call: the nouns of one engine, put together by `engine.py`."""

from dataclasses import dataclass

from dockmagic_runtime.build.builder import Builder
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.containers.execs import Execs
from dockmagic_runtime.containers.runs import Runs
from dockmagic_runtime.containers.store import Containers
from dockmagic_runtime.events import EventBus
from dockmagic_runtime.images.pull import Puller
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.networks.store import Networks
from dockmagic_runtime.registry.client import Registry
from dockmagic_runtime.storage.content import ContentStore
from dockmagic_runtime.storage.layers import LayerStore
from dockmagic_runtime.storage.snapshots import SnapshotStore
from dockmagic_runtime.volumes.store import VolumeStore


@dataclass(frozen=True)
class Services:
    """One of each."""

    id: str
    config: EngineConfig
    events: EventBus
    content: ContentStore
    layers: LayerStore
    snapshots: SnapshotStore
    images: ImageStore
    puller: Puller
    volumes: VolumeStore
    networks: Networks
    containers: Containers
    runs: Runs
    execs: Execs
    registry: Registry
    builder: Builder
