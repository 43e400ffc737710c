"""Other ports and mounts for a container that exists: what Docker has no way to say.

The container keeps its id, its name, its writable layer and all other settings; only what its next start
publishes and mounts is another. A port is named by its number inside, a mount by its place inside.
"""

import posixpath
from dataclasses import dataclass
from typing import Any

from dockmagic_runtime.containers import mountpoints, mountspec, settings
from dockmagic_runtime.containers.record import Container, Records
from dockmagic_runtime.errors import Conflict, InvalidParameter
from dockmagic_runtime.networks import ports
from dockmagic_runtime.volumes.store import VolumeStore

Json = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """The parts of a record that change together."""

    config: Json
    host_config: Json
    mounts: list[Json]

    @classmethod
    def of(cls, container: Container) -> "Shape":
        return cls(container.config, container.host_config, container.mounts)

    def put_on(self, container: Container) -> None:
        container.config, container.host_config, container.mounts = (
            self.config,
            self.host_config,
            self.mounts,
        )


def reshaped(container: Container, body: Json, volumes: VolumeStore, records: Records) -> Shape:
    """The shape that `body` asks for; makes the volumes that it names.

    `PortBindings`, `Binds` and `Mounts` are as in HostConfig: added, or instead of what has the same port or
    place inside. `Unpublish` (`["80/tcp"]`) and `Unmount` (`["/data"]`) take away. Raises InvalidParameter or
    Conflict before anything is made.
    """
    asked = settings.complete(body, settings.HOST_CONFIG_FIELDS, "HostConfig")
    unpublish, unmount = _names(body, "Unpublish"), _names(body, "Unmount")
    if container.host_config["AutoRemove"] and container.state.running:
        raise Conflict(
            f"container {container.name} was started with --rm and would be gone when it stops for this: "
            "start another one with these options"
        )
    config, host = dict(container.config), dict(container.host_config)
    host["PortBindings"], config["ExposedPorts"] = _ports(container, asked["PortBindings"] or {}, unpublish)
    ports.wishes(host["PortBindings"])
    binds, mounts = asked["Binds"] or [], asked["Mounts"] or []
    targets = [mountspec.of_bind(bind, host["VolumeDriver"]).target for bind in binds]
    targets += [mountspec.of_mount(mount).target for mount in mounts]
    gone = {*targets, *map(posixpath.normpath, unmount)}
    if unknown := {*map(posixpath.normpath, unmount)} - {each["Destination"] for each in container.mounts}:
        raise InvalidParameter(f"nothing is mounted at {min(unknown)} in container {container.name}")
    new = {**host, "Binds": binds, "Mounts": mounts, "Tmpfs": None, "VolumesFrom": None}
    added = mountpoints.settle({}, new, volumes, records)
    kept = [each for each in container.mounts if each["Destination"] not in gone]
    host["Binds"], host["Mounts"], host["Tmpfs"] = _spelled(host, gone)
    host["Binds"], host["Mounts"] = [*host["Binds"], *binds] or None, [*host["Mounts"], *mounts] or None
    config["Volumes"] = {
        path: value
        for path, value in (config.get("Volumes") or {}).items()
        if posixpath.normpath(path) not in gone
    } or None
    return Shape(config, host, [*kept, *added])


def _names(body: Json, field: str) -> list[str]:
    found = body.get(field) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidParameter(f"invalid JSON: {field} must be a list of strings")
    return found


def _ports(container: Container, bindings: Json, unpublish: list[str]) -> tuple[Json, Json]:
    """PortBindings and ExposedPorts."""
    published = dict(container.host_config["PortBindings"] or {})
    for each in unpublish:
        number, protocol = ports.parse(each)[::-1]
        if published.pop(f"{number}/{protocol}", None) is None:
            raise InvalidParameter(f"container {container.name} does not publish {number}/{protocol}")
    exposed = (container.config.get("ExposedPorts") or {}) | {port: {} for port in bindings}
    return published | bindings, exposed


def _spelled(host: Json, gone: set[str]) -> tuple[list[str], list[Json], Json | None]:
    """What is left of Binds, Mounts and Tmpfs, as they were asked for."""
    binds = [
        bind
        for bind in host["Binds"] or []
        if mountspec.of_bind(bind, host["VolumeDriver"]).target not in gone
    ]
    mounts = [mount for mount in host["Mounts"] or [] if mountspec.of_mount(mount).target not in gone]
    tmpfs = {
        path: text
        for path, text in (host["Tmpfs"] or {}).items()
        if mountspec.tmpfs_destination(path) not in gone
    }
    return binds, mounts, tmpfs or None
