"""A container as clients see it: the JSON of inspect, and one row of `docker ps`."""

import os
import time
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.containers import links
from dockmagic_runtime.containers.execs import Execs
from dockmagic_runtime.containers.mountpoints import shown
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.containers.store import Containers
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.images.store import ImageStore

Json = dict[str, Any]


def inspect(container: Container, containers: Containers, execs: Execs, *, size: bool = False) -> Json:
    """GET /containers/{id}/json."""
    directory = containers.places.directory(container)
    started = container.state.started_at != timestamps.NEVER
    argv = container.argv

    def file(name: str) -> str:
        return str(directory / name) if started else ""

    return {
        "Id": container.id,
        "Created": container.created,
        "Path": argv[0],
        "Args": argv[1:],
        "State": container.state.inspect(),
        "Image": container.image,
        "ResolvConfPath": file("resolv.conf"),
        "HostnamePath": file("hostname"),
        "HostsPath": file("hosts"),
        "LogPath": file(f"{container.id}-json.log") if _logs_to_json(container) else "",
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": "overlay2",
        "Platform": container.platform,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": execs.of(container) or None,
        "HostConfig": container.host_config | {"Links": links.shown(container, containers.records)},
        "GraphDriver": {"Data": _directories(container, containers), "Name": "overlay2"},
        **(_sizes(container, containers) if size else {}),
        "Mounts": [point for point in shown(container.mounts) if not _by_flag(container, point)],
        "Config": container.config,
        "NetworkSettings": network_settings(container),
    }


def _directories(container: Container, containers: Containers) -> Json | None:
    """What its root is put together from; None where a layer is lost."""
    try:
        rootfs = containers.rootfs(container)
    except NotFound:
        return None
    return {
        "LowerDir": ":".join(rootfs.lower) if not rootfs.host else "/",
        "MergedDir": str(containers.places.directory(container) / "merged"),
        "UpperDir": rootfs.upper,
        "WorkDir": rootfs.work,
    }


def _logs_to_json(container: Container) -> bool:
    """Docker tells the path of this driver's log only."""
    return container.host_config["LogConfig"]["Type"] == "json-file"


def _by_flag(container: Container, point: Json) -> bool:
    """`--tmpfs` is told under HostConfig.Tmpfs only, `--mount type=tmpfs` under Mounts."""
    return point["Type"] == "tmpfs" and point["Destination"] in (container.host_config["Tmpfs"] or {})


def _sizes(container: Container, containers: Containers) -> Json:
    written, image = containers.usage(container), containers.images.by_id(container.image)
    return {"SizeRw": written, "SizeRootFs": written + (image.size if image else 0)}


def network_settings(container: Container) -> Json:
    """As the sandbox says while it runs; before and after only the networks' names."""
    empty: Json = {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": "",
        "Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "MacAddress": "",
        "Networks": {name: _resting(settings) for name, settings in container.endpoints.items()},
    }
    settings = empty | container.networks
    if container.network_mode == "none" and container.state.running:
        settings["SandboxKey"] = f"/proc/{container.state.pid}/ns/net"
    return settings


def _resting(settings: Json) -> Json:
    return {
        "IPAMConfig": settings.get("IPAMConfig"),
        "Links": settings.get("Links"),
        "Aliases": settings.get("Aliases"),
        "MacAddress": settings.get("MacAddress") or "",
        "DriverOpts": settings.get("DriverOpts"),
        "NetworkID": "",
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def image_name(container: Container, images: ImageStore) -> str:
    """What `docker ps` shows: the name the user gave, or the id if that name now means another image."""
    given: str = container.config["Image"]
    try:
        current = images.get(given).id
    except (NotFound, InvalidParameter):
        return container.image
    return given if current == container.image else container.image


def summary(container: Container, containers: Containers, *, size: bool = False) -> Json:
    """One element of GET /containers/json."""
    settings = network_settings(container)
    return {
        "Id": container.id,
        "Names": [
            f"/{container.name}",
            *(f"/{parent.name}/{alias}" for parent, alias in containers.records.parents(container.id)),
        ],
        "Image": image_name(container, containers.images),
        "ImageID": container.image,
        "Command": " ".join(_quoted(word) for word in container.argv),
        "Created": timestamps.parse(container.created) // 1_000_000_000,
        "Ports": _ports(container, settings["Ports"] or {}),
        **(_sizes(container, containers) if size else {}),
        "Labels": container.labels,
        "State": container.state.status,
        "Status": status(container),
        "HostConfig": {"NetworkMode": container.network_mode},
        "NetworkSettings": {"Networks": settings["Networks"]},
        "Mounts": [point for point in shown(container.mounts) if not _by_flag(container, point)],
    }


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word


def _ports(container: Container, published: Json) -> list[Json]:
    if not container.state.running:
        return []
    rows: list[Json] = []
    for port, bindings in published.items():
        number, _, protocol = port.partition("/")
        if not bindings:
            rows.append({"PrivatePort": int(number), "Type": protocol})
        for binding in bindings or []:
            rows.append(
                {
                    "IP": binding["HostIp"],
                    "PrivatePort": int(number),
                    "PublicPort": int(binding["HostPort"]),
                    "Type": protocol,
                }
            )
    return rows


def status(container: Container) -> str:
    """`Up 5 minutes`, `Exited (0) 2 hours ago`, …: Docker's words for it."""
    state = container.state
    if state.running:
        suffix = " (Paused)" if state.status == "paused" else ""
        if state.status == "restarting":
            return f"Restarting ({state.exit_code}) {_since(state.finished_at)} ago"
        if state.health and not suffix:
            status = state.health["Status"]
            suffix = " (health: starting)" if status == "starting" else f" ({status})"
        return f"Up {_since(state.started_at)}{suffix}"
    if state.status == "created":
        return "Created"
    if state.status == "removing":
        return "Removal In Progress"
    return f"Exited ({state.exit_code}) {_since(state.finished_at)} ago"


def _since(moment: str) -> str:
    """go-units' HumanDuration of the time since `moment`."""
    seconds = int((time.time_ns() - timestamps.parse(moment)) / 1e9)
    minutes, hours = seconds // 60, (seconds + 1800) // 3600
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if hours < 24 * 7 * 2:
        return f"{days} days"
    if hours < 24 * 30 * 2:
        return f"{days // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{days // 30} months"
    return f"{days // 365} years"


def namespaces(container: Container) -> Json:
    """The namespaces of a running container beside the engine's own, read from proc(5)."""
    kinds = []
    for kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"):
        try:
            inode = os.stat(f"/proc/{container.state.pid}/ns/{kind}").st_ino  # noqa: PTH116
            host = os.stat(f"/proc/self/ns/{kind}").st_ino  # noqa: PTH116
        except FileNotFoundError:
            continue  # a kind this kernel does not have
        kinds.append({"kind": kind, "inode": inode, "host_inode": host, "shared": inode == host})
    return {"pid": container.state.pid, "kinds": kinds}
