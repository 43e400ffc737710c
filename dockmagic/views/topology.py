"""The networks of an engine as a map: this host, the bridges, who is plugged into them, what is published.

Our engine reads it from the kernel; of another one it is what `inspect` says. The map is one SVG, drawn in
three columns (host, networks, containers) in the colours of the page. Each thing in it can be reached with
the Tab key and then shows what it is connected with; whoever does not see it, or saves the notebook, has the
same in the tables below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from dockmagic.views.engine import extension
from dockmagic.views.parts import Column, Drawing, Note, Part, Table
from dockmagic.views.ports import recorded as recorded_ports
from dockmagic.views.units import shorten
from dockmagic.views.view import View

if TYPE_CHECKING:
    import docker

    from dockmagic.views.panel import Panel

Json = dict[str, Any]

FROM_KERNEL = "Read from the kernel: interfaces, addresses, ports of bridges, published ports."
FROM_RECORDS = "This engine does not show the kernel's side: these are its records, from docker inspect."


class Topology(View):
    """All networks and running containers. `panel()` follows what happens to them."""

    def __init__(self, client: docker.DockerClient) -> None:
        self._client = client
        found = extension(client, "topology")
        self.kernel = found is not None
        self.data: Json = found if found is not None else recorded(client)
        super().__init__(*parts(self.data, kernel=self.kernel))

    def panel(self) -> Panel:
        """The map as a widget that is drawn again whenever a container or a network changes."""
        from dockmagic.views.panel import Panel, follow

        panel = Panel(lambda: Topology(self._client))
        follow(panel, self._client, ["container", "network"])
        return panel


def parts(data: Json, *, kernel: bool) -> list[Part]:
    """The picture of `{"host": {"interfaces", "way_out"}, "networks": […], "containers": […]}`."""
    networks, containers = data["networks"], data["containers"]
    published = sum(len(each["ports"]) for each in containers)
    sentence = (
        f"{_count(len(networks), 'network')}, {_count(len(containers), 'running container')}, "
        f"{_count(published, 'published port')}."
    )
    return [
        Drawing(draw(data), sentence, reachable=True),
        _networks(networks),
        _containers(containers),
        Note(_host(data["host"])),
        Note(FROM_KERNEL if kernel else FROM_RECORDS),
    ]


def _networks(networks: Sequence[Json]) -> Table:
    columns = [Column("Network"), Column("Driver"), Column("Bridge", code=True), Column("Subnet", code=True),
               Column("Its address here", code=True), Column("Reach")]  # fmt: skip
    rows = [
        [
            each["name"],
            each["driver"],
            each["interface"],
            ", ".join(each["subnets"]),
            ", ".join(address.partition("/")[0] for address in each["addresses"]),
            _reach(each),
        ]
        for each in networks
    ]
    return Table("Networks", columns, rows, "No networks.")


def _reach(network: Json) -> str:
    if network["driver"] == "host":
        return "this host itself"
    if network["driver"] == "null":
        return "nothing"
    return "only its own containers" if network["internal"] else "its own containers and outside"


def _containers(containers: Sequence[Json]) -> Table:
    columns = [Column("Container"), Column("Network"), Column("Interface", code=True),
               Column("Address", code=True), Column("Port of the bridge", code=True),
               Column("Published", code=True)]  # fmt: skip
    rows = []
    for each in containers:
        ports = ", ".join(map(_published, each["ports"]))
        if each["joins"]:
            rows.append([each["name"], f"that of {each['joins']}", "", "", "", ports])
        for number, endpoint in enumerate(each["endpoints"]):
            rows.append(
                [
                    each["name"],
                    endpoint["network"],
                    endpoint["interface"],
                    ", ".join(endpoint["addresses"]),
                    endpoint["port"],
                    "" if number else ports,
                ]
            )
    return Table("Running containers", columns, rows, "No container is running.")


def _published(port: Json) -> str:
    address = port["host_ip"] or "0.0.0.0"
    address = f"[{address}]" if ":" in address else address
    return f"{address}:{port['host_port']} → {port['container_port']}/{port['protocol']}"


def _host(host: Json) -> str:
    named = [f"{each['name']} {', '.join(each['addresses'])}" for each in host["interfaces"]]
    if not named:
        return "What this host has besides is not known."
    way = host["way_out"]
    out = f"its way out is {way['interface']}, by {way['gateway'] or 'no gateway'}" if way else "no way out"
    return f"This host has {'; '.join(named)}; {out}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def recorded(client: docker.DockerClient) -> Json:
    """The same of an engine that only has Docker's API."""
    ports = recorded_ports(client)
    containers = []
    for each in client.containers.list():
        settings = each.attrs["NetworkSettings"].get("Networks") or {}
        mode = each.attrs["HostConfig"].get("NetworkMode") or ""
        joined = mode.partition(":")[2] if mode.startswith("container:") else ""
        endpoints = [
            {
                "network": name,
                "interface": "",
                "addresses": [a for a in (net.get("IPAddress"), net.get("GlobalIPv6Address")) if a],
                "mac": net.get("MacAddress") or "",
                "port": "",
            }
            for name, net in settings.items()
        ]
        own = [port for port in ports if port["container_id"] == each.id]
        containers.append(
            {"id": each.id, "name": each.name, "joins": joined[:12], "endpoints": endpoints, "ports": own}
        )
    networks = [_recorded_network(each.attrs) for each in client.networks.list()]
    return {
        "host": {"interfaces": [], "way_out": None},
        "networks": sorted(networks, key=lambda each: each["name"]),
        "containers": sorted(containers, key=lambda each: each["name"]),
    }


def _recorded_network(attrs: Json) -> Json:
    pools = (attrs.get("IPAM") or {}).get("Config") or []
    given = (attrs.get("Options") or {}).get("com.docker.network.bridge.name")
    bridge = given or (f"br-{attrs['Id'][:12]}" if attrs["Driver"] == "bridge" else "")
    return {
        "id": attrs["Id"],
        "name": attrs["Name"],
        "driver": attrs["Driver"],
        "interface": bridge,
        "up": True,
        "addresses": [pool["Gateway"] for pool in pools if pool.get("Gateway")],
        "subnets": [pool["Subnet"] for pool in pools if pool.get("Subnet")],
        "internal": bool(attrs.get("Internal")),
    }


# The drawing. Sizes are in user units, which are pixels as long as the page is wide enough.
LINE, PAD, GAP = 17, 9, 14
HOST_X, HOST_WIDTH = 1, 150
NETWORK_X, NETWORK_WIDTH = 232, 190
CONTAINER_X, CONTAINER_WIDTH = 504, 234
LONGEST = 30  # characters that a box has room for


@dataclass(frozen=True)
class Box:
    """A rounded rectangle with lines of text, the first of them its name."""

    x: float
    y: float
    width: float
    lines: Sequence[str]

    @property
    def height(self) -> float:
        return 2 * PAD + LINE * len(self.lines) - 4

    @property
    def middle(self) -> float:
        return self.y + self.height / 2

    def svg(self, height: float = 0) -> str:
        """`height`: where it is to be taller than its lines."""
        rows = "".join(self._row(number, line) for number, line in enumerate(self.lines))
        return (
            f'<rect x="{self.x:g}" y="{self.y:g}" width="{self.width:g}" height="{height or self.height:g}" '
            f'rx="5"/>'
            f"{rows}"
        )

    def _row(self, number: int, line: str) -> str:
        style = ' class="dm-soft"' if number else ' font-weight="600"'
        y = self.y + PAD + 9 + LINE * number
        return f'<text x="{self.x + PAD:g}" y="{y:g}"{style}>{escape(shorten(line, LONGEST))}</text>'


def draw(data: Json) -> str:
    """The map as SVG."""
    known = {each["name"]: each for each in data["networks"]}
    drivers = {name: each["driver"] for name, each in known.items()}

    def bridged(container: Json) -> bool:
        return any(drivers.get(each["network"]) not in ("host", "null") for each in container["endpoints"])

    plugged = _placed(data, drivers, [each for each in data["containers"] if bridged(each)], 1)
    networks = _network_boxes(data, plugged)
    below = max(
        (box.y + box.height + GAP for box in (*networks.values(), *(box for _, box in plugged))), default=1
    )
    others = _placed(data, drivers, [each for each in data["containers"] if not bridged(each)], below)
    host = Box(HOST_X, 1, HOST_WIDTH, _host_lines(data["host"]))
    boxes = [*networks.values(), *(box for _, box in (*plugged, *others)), host]
    tall = max(box.y + box.height for box in boxes) - 1
    drawn = [_node(f"this host: {_host(data['host'])}", host.svg(tall))]
    for name, box in networks.items():
        drawn.append(_node(_network_words(known[name]), _to_host(known[name], box) + box.svg()))
    for each, box in (*plugged, *others):
        places = [endpoint["network"] for endpoint in each["endpoints"]]
        lines = [_to_network(box, networks[place]) for place in places if place in networks]
        lines += [_to_edge(box) for place in places if drivers.get(place) == "host"]
        drawn.append(_node(_container_words(each), "".join(lines) + box.svg()))
    width, height = CONTAINER_X + CONTAINER_WIDTH + 1, tall + 2
    return (
        f'<svg class="dm-map" xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height:g}" '
        f'viewBox="0 0 {width} {height:g}">{"".join(drawn)}</svg>'
    )


def _placed(
    data: Json, drivers: Mapping[str, str], containers: Sequence[Json], y: float
) -> list[tuple[Json, Box]]:
    """Boxes from `y` on, the containers of one network below each other."""
    order = {each["name"]: number for number, each in enumerate(data["networks"])}

    def place(container: Json) -> tuple[int, str]:
        first = container["endpoints"][0]["network"] if container["endpoints"] else ""
        return order.get(first, len(order)), container["name"]

    boxes = []
    for each in sorted(containers, key=place):
        lines = [each["name"], *(_endpoint_line(endpoint, drivers) for endpoint in each["endpoints"])]
        lines += [f"in the network of {each['joins']}"] if each["joins"] else []
        lines += [f"⇠ {_published(port)}" for port in each["ports"]]
        box = Box(CONTAINER_X, y, CONTAINER_WIDTH, lines)
        boxes.append((each, box))
        y += box.height + GAP
    return boxes


def _endpoint_line(endpoint: Json, drivers: Mapping[str, str]) -> str:
    known = {"host": "this host's own network", "null": "no network"}
    words = f"{endpoint['interface'] or endpoint['network']} {', '.join(endpoint['addresses'])}".strip()
    return known.get(drivers.get(endpoint["network"], ""), words)


def _network_boxes(data: Json, containers: Sequence[tuple[Json, Box]]) -> dict[str, Box]:
    """Each network beside its containers, or below the one before. `host` and `none` are no boxes."""
    boxes: dict[str, Box] = {}
    y = 1.0
    for each in data["networks"]:
        if each["driver"] in ("host", "null"):
            continue
        lines = [each["name"], *([each["interface"]] if each["interface"] else []), *each["subnets"]]
        lines += ["internal: no way out"] if each["internal"] else []
        middles = [
            box.middle
            for container, box in containers
            if any(endpoint["network"] == each["name"] for endpoint in container["endpoints"][:1])
        ]
        box = Box(NETWORK_X, y, NETWORK_WIDTH, lines)
        wanted = sum(middles) / len(middles) - box.height / 2 if middles else y
        box = Box(NETWORK_X, max(y, wanted), NETWORK_WIDTH, lines)
        boxes[each["name"]] = box
        y = box.y + box.height + GAP
    return boxes


def _host_lines(host: Json) -> list[str]:
    lines = ["this host"]
    for each in host["interfaces"]:
        lines += [each["name"], *(f"  {address}" for address in each["addresses"] if ":" not in address)]
    if host["way_out"]:
        lines.append(f"out by {host['way_out']['gateway'] or host['way_out']['interface']}")
    return lines


def _node(words: str, svg: str) -> str:
    words = escape(words)
    return f'<g class="dm-node" tabindex="0" role="img" aria-label="{words}"><title>{words}</title>{svg}</g>'


def _to_host(network: Json, box: Box) -> str:
    dashes = ' stroke-dasharray="3 4"' if network["internal"] else ""
    return f'<path d="M{HOST_X + HOST_WIDTH} {box.middle:g}H{box.x}"{dashes}/>'


def _to_network(container: Box, network: Box) -> str:
    start, end = network.x + network.width, container.x
    half = (start + end) / 2
    return (
        f'<path d="M{start:g} {network.middle:g}C{half:g} {network.middle:g} {half:g} '
        f'{container.middle:g} {end:g} {container.middle:g}"/>'
    )


def _to_edge(container: Box) -> str:
    """For a container in the host's own network."""
    return f'<path d="M{HOST_X + HOST_WIDTH} {container.middle:g}H{container.x:g}"/>'


def _network_words(network: Json) -> str:
    subnets = ", ".join(network["subnets"])
    return (
        f"network {network['name']}, {network['driver']} {network['interface']} {subnets}: {_reach(network)}"
    )


def _container_words(container: Json) -> str:
    places = [
        f"in {endpoint['network']} {', '.join(endpoint['addresses'])}".strip()
        for endpoint in container["endpoints"]
    ]
    places += [f"in the network of {container['joins']}"] if container["joins"] else []
    places += [f"published {_published(port)}" for port in container["ports"]]
    return f"container {container['name']}: {'; '.join(places) or 'no network'}"
