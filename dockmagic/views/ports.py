"""Where a connection to the host goes: to a container, by a published port, or to a process that listens.

Our engine answers from the kernel's own map (the nftables set its forwarding rules look up) and from the
sockets in /proc/net, not from its records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dockmagic.views.engine import extension
from dockmagic.views.parts import Cell, Column, Note, Part, Table
from dockmagic.views.view import View

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

    from dockmagic.views.panel import Panel

FROM_KERNEL = "Read from the kernel's map."
FROM_RECORDS = "This engine does not show the kernel's map: these are its records, from docker inspect."


class PortMap(View):
    """The published ports of one container, or of all."""

    def __init__(self, client: docker.DockerClient, container: Container | str | None = None) -> None:
        if isinstance(container, str):
            container = client.containers.get(container)
        published = extension(client, "ports")
        self.kernel = published is not None
        self.data: list[dict[str, Any]] = published if published is not None else recorded(client)
        self.listeners: list[dict[str, Any]] | None = None
        if container is not None:
            self.data = [port for port in self.data if port["container_id"] == container.id]
        elif self.kernel:
            self.listeners = extension(client, "listeners")
        name = container.name if container else None
        super().__init__(*parts(self.data, name, kernel=self.kernel, listeners=self.listeners))
        self._again = lambda: PortMap(client, container)

    def panel(self) -> Panel:
        """The picture as a widget with a button that reads it again."""
        from dockmagic.views.panel import Panel

        return Panel(self._again)


def parts(
    ports: Sequence[dict[str, Any]],
    name: str | None = None,
    *,
    kernel: bool,
    listeners: Sequence[dict[str, Any]] | None = None,
) -> list[Part]:
    """The picture of `[{"protocol", "host_ip", "host_port", "container_ip", "container_port",
    "container_name"}]` and, with `listeners`, of `[{"protocol", "address", "port", "pid", "command"}]`.
    """
    columns = [
        Column("Host", code=True),
        Column(""),
        Column("Container"),
        Column("Address in its network", code=True),
        Column("Protocol"),
    ]
    ordered = sorted(ports, key=lambda port: (port["host_port"], port["protocol"], port["host_ip"]))
    rows = [
        [
            f"{_address(port['host_ip'])}:{port['host_port']}",
            "→",
            port["container_name"],
            f"{_address(port['container_ip']) if port['container_ip'] else ''}:{port['container_port']}",
            port["protocol"],
        ]
        for port in ordered
    ]
    caption = f"Published ports of {name}" if name else "Published ports"
    picture: list[Part] = [
        Table(caption, columns, rows, "No port is published."),
        Note(FROM_KERNEL if kernel else FROM_RECORDS),
    ]
    return picture if listeners is None else [*picture, _listening(listeners)]


def _listening(listeners: Sequence[dict[str, Any]]) -> Table:
    columns = [
        Column("Host", code=True),
        Column("Process"),
        Column("PID", numeric=True),
        Column("Protocol"),
    ]
    rows = [
        [
            f"{_address(each['address'])}:{each['port']}",
            each["command"] or Cell("not known", "muted"),
            str(each["pid"] or ""),
            each["protocol"],
        ]
        for each in listeners
    ]
    return Table("Processes of this host that listen", columns, rows, "None.")


def recorded(client: docker.DockerClient) -> list[dict[str, Any]]:
    """The ports as `inspect` of each running container has them."""
    ports = []
    for container in client.containers.list():
        settings = container.attrs["NetworkSettings"]
        addresses = [net.get("IPAddress") for net in (settings.get("Networks") or {}).values()]
        for inside, bindings in (settings.get("Ports") or {}).items():
            number, _, protocol = inside.partition("/")
            for binding in bindings or []:
                ports.append(
                    {
                        "protocol": protocol,
                        "host_ip": binding["HostIp"],
                        "host_port": int(binding["HostPort"]),
                        "container_ip": next(filter(None, addresses), ""),
                        "container_port": int(number),
                        "container_id": container.id,
                        "container_name": container.name,
                    }
                )
    return ports


def _address(address: str) -> str:
    return f"[{address}]" if ":" in address else address or "0.0.0.0"
