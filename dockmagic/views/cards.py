"""Cards: one container, image, network or volume on a page, as its facts.

A container's card is live: given the engine's events it reads the container again whenever something happened
to it. It shows times of day, not ages, so that a saved card stays true.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import docker.errors

from dockmagic.views import life, units
from dockmagic.views.parts import Cell, Facts, Part
from dockmagic.views.view import LiveView, View

if TYPE_CHECKING:
    from docker.models.containers import Container
    from docker.models.images import Image
    from docker.models.networks import Network
    from docker.models.volumes import Volume

    from dockmagic.views.panel import Panel

Subscribe = Callable[[Callable[[dict[str, Any]], None]], Callable[[], None]]

CODE = frozenset(
    {"Id", "Command", "Entrypoint", "Ports", "Subnet", "Gateway", "Mountpoint", "Working directory"}
)

Pairs = list[tuple[str, str | Cell]]


class ContainerCard(LiveView):
    """One container. With `follow`, the card changes when the container does, until it is removed."""

    def __init__(self, container: Container) -> None:
        super().__init__()
        self.container = container
        self._unsubscribe: Callable[[], None] | None = None
        self._removed = False
        container.reload()

    @property
    def parts(self) -> list[Part]:
        return container_parts(self.container.attrs, removed=self._removed)

    def follow(self, subscribe: Subscribe) -> None:
        """Stay true from now on. `subscribe(callback)` starts the calls with the engine's events and answers
        with the function that ends them."""
        self._unsubscribe = subscribe(self.on_event)

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Take notice of one event of the engine; those of other things are passed over."""
        actor = event.get("Actor") or {}
        if event.get("Type") != "container" or actor.get("ID") != self.container.id or self.closed:
            return
        if str(event.get("Action")).startswith("exec_"):  # each run of a health check is one
            return
        self._removed = event.get("Action") == "destroy"
        if not self._removed:
            try:
                self.container.reload()
            except docker.errors.NotFound:
                self._removed = True
        if self._removed:
            self.close()
        else:
            self.refresh()

    def panel(self) -> Panel:
        """The card as a widget that follows the container, with buttons to stop, start, restart, remove."""
        from dockmagic.views.panel import Action, Panel, follow_container

        container = self.container
        name = container.name

        def now() -> View:
            try:
                return ContainerCard(container)
            except docker.errors.NotFound:
                gone.add(True)
                return View(*container_parts(container.attrs, removed=True))

        def runs() -> bool:
            return not gone and container.status in ("running", "paused", "restarting")

        def rests() -> bool:
            return not gone and container.status in ("created", "exited", "dead")

        gone: set[bool] = set()
        panel = Panel(
            now,
            [
                Action("Stop", f"Stop container {name}", container.stop, runs),
                Action("Start", f"Start container {name}", container.start, rests),
                Action("Restart", f"Restart container {name}", container.restart, lambda: not gone),
                Action("Remove", f"Remove container {name}, once it is stopped", container.remove, rests),
            ],
        )
        if not gone:
            assert container.client is not None and container.id is not None
            follow_container(panel, container.client, container.id)
        return panel

    def close(self) -> None:
        super().close()
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None


class ImageCard(View):
    """One image."""

    def __init__(self, image: Image) -> None:
        super().__init__(*image_parts(image.attrs))


class NetworkCard(View):
    """One network and the containers in it."""

    def __init__(self, network: Network) -> None:
        network.reload()
        super().__init__(*network_parts(network.attrs))


class VolumeCard(View):
    """One volume."""

    def __init__(self, volume: Volume) -> None:
        super().__init__(*volume_parts(volume.attrs))


def container_parts(attrs: Mapping[str, Any], *, removed: bool = False) -> list[Part]:
    """The card of a container, from its `inspect`."""
    config, state, settings = attrs["Config"], attrs["State"], attrs.get("HostConfig") or {}
    name = attrs["Name"].lstrip("/")
    pairs: Pairs = [
        ("Status", life.status({**state, "Status": "removed"} if removed else state)),
        ("Id", units.short(attrs["Id"])),
        ("Image", config["Image"]),
        ("Command", shlex.join([attrs.get("Path") or "", *(attrs.get("Args") or [])])),
    ]
    network = attrs.get("NetworkSettings") or {}
    running = state.get("Status") in ("running", "paused") and not removed
    ports = list(published(network.get("Ports") or {})) if running else []
    if ports:
        pairs.append(("Ports", ", ".join(ports)))
    if running:
        pairs.append(("Networks", _addresses(network.get("Networks") or {})))
    mounts = [f"{_source(mount)} → {mount['Destination']}" for mount in attrs.get("Mounts") or []]
    if mounts:
        pairs.append(("Mounts", ", ".join(mounts)))
    limits = list(_limits(settings))
    if limits:
        pairs.append(("Limits", ", ".join(limits)))
    checks, restarts = life.checks(state) if running else None, life.restarts(attrs)
    if checks:
        pairs.append(("Health check", checks))
    if restarts:
        pairs.append(("Restarts", restarts))
    if units.moment(state.get("StartedAt")):
        pairs.append(("Started", units.clock(state["StartedAt"])))
    if not running and units.moment(state.get("FinishedAt")):
        pairs.append(("Finished", units.clock(state["FinishedAt"])))
    return [Facts(f"Container {name}", pairs, CODE)]


def published(ports: Mapping[str, Any]) -> Iterable[str]:
    """`0.0.0.0:8080 → 80/tcp` for each binding, in the order of the container's ports."""
    for inside, bindings in sorted(ports.items(), key=lambda item: int(item[0].partition("/")[0])):
        for binding in bindings or []:
            address = binding.get("HostIp") or "0.0.0.0"
            address = f"[{address}]" if ":" in address else address
            yield f"{address}:{binding['HostPort']} → {inside}"


def image_parts(attrs: Mapping[str, Any]) -> list[Part]:
    """The card of an image, from its `inspect`."""
    config = attrs.get("Config") or {}
    tags = attrs.get("RepoTags") or []
    layers = len((attrs.get("RootFS") or {}).get("Layers") or [])
    pairs: Pairs = [
        ("Id", units.short(attrs["Id"])),
        ("Tags", ", ".join(tags) or "none"),
        ("Size", units.size(attrs["Size"])),
        ("Layers", str(layers)),
        ("Platform", "/".join(filter(None, map(attrs.get, ("Os", "Architecture", "Variant"))))),
        ("Created", units.clock(attrs.get("Created"))),
    ]
    optional = {
        "Entrypoint": shlex.join(config.get("Entrypoint") or []),
        "Command": shlex.join(config.get("Cmd") or []),
        "Working directory": config.get("WorkingDir"),
        "User": config.get("User"),
        "Ports": ", ".join(sorted(config.get("ExposedPorts") or {})),
        "Labels": _labels(config.get("Labels") or {}),
    }
    pairs += [(name, value) for name, value in optional.items() if value]
    return [Facts(f"Image {tags[0] if tags else units.short(attrs['Id'])}", pairs, CODE)]


def network_parts(attrs: Mapping[str, Any]) -> list[Part]:
    """The card of a network, from its `inspect`."""
    pools = (attrs.get("IPAM") or {}).get("Config") or []
    members = (attrs.get("Containers") or {}).values()
    pairs: Pairs = [
        ("Id", units.short(attrs["Id"])),
        ("Driver", attrs["Driver"]),
        ("Scope", attrs.get("Scope") or ""),
        ("Subnet", ", ".join(pool["Subnet"] for pool in pools if pool.get("Subnet")) or "none"),
        ("Gateway", ", ".join(pool["Gateway"] for pool in pools if pool.get("Gateway")) or "none"),
        ("Reach", "only its own containers" if attrs.get("Internal") else "its own containers and outside"),
        ("Containers", _members(members)),
    ]
    return [Facts(f"Network {attrs['Name']}", pairs, CODE)]


def volume_parts(attrs: Mapping[str, Any]) -> list[Part]:
    """The card of a volume, from its `inspect`."""
    labels = attrs.get("Labels") or {}
    pairs: Pairs = [
        ("Driver", attrs["Driver"]),
        ("Scope", attrs.get("Scope") or ""),
        ("Mountpoint", attrs.get("Mountpoint") or ""),
        ("Created", units.clock(attrs.get("CreatedAt"))),
    ]
    if labels:
        pairs.append(("Labels", _labels(labels)))
    return [Facts(f"Volume {attrs['Name']}", pairs, CODE)]


def _labels(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _addresses(networks: Mapping[str, Any]) -> str:
    named = [f"{name} {net.get('IPAddress') or ''}".strip() for name, net in sorted(networks.items())]
    return ", ".join(named) or "none"


def _members(members: Iterable[Mapping[str, Any]]) -> str:
    named = [(one["Name"], (one.get("IPv4Address") or "").partition("/")[0]) for one in members]
    return ", ".join(f"{name} {address}".strip() for name, address in sorted(named)) or "none"


def _source(mount: Mapping[str, Any]) -> str:
    return mount.get("Name") or mount.get("Source") or mount.get("Type") or ""


def _limits(settings: Mapping[str, Any]) -> Iterable[str]:
    if settings.get("Memory"):
        yield f"memory {units.memory(settings['Memory'])}"
    if settings.get("NanoCpus"):
        yield f"{settings['NanoCpus'] / 1e9:g} CPUs"
    if settings.get("CpusetCpus"):
        yield f"CPUs {settings['CpusetCpus']} only"
    if (settings.get("PidsLimit") or 0) > 0:
        yield f"{settings['PidsLimit']} processes"
    if settings.get("ReadonlyRootfs"):
        yield "read-only root"
