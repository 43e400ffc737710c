"""`--link`: what a container on the default bridge knows of another one, and by which names.

A link is kept in the record of the container that asked for it (the parent), by the other's (the child's)
id, its last known name and the alias. Each start of the parent makes of it lines of /etc/hosts and variables
(`DB_PORT_5432_TCP_ADDR`, …), and `parent/alias` is one more name of the child. In a network of one's own a
link is an alias that the parent alone resolves; that is the networks' affair.

Names, order and sentences are Docker's (moby's `daemon/links`).
"""

from collections.abc import Iterable
from typing import Any

from dockmagic_runtime.containers.record import Container, Records
from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound

Json = dict[str, Any]

BRIDGE = "bridge"


def parse(text: str) -> tuple[str, str]:
    """`name`, `name:alias`, or as inspect shows it, `/name:/parent/alias`."""
    parts = text.split(":")
    if not text:
        raise InvalidParameter("empty string specified for links")
    if len(parts) > 2:
        raise InvalidParameter(f"bad format for links: {text}")
    if len(parts) == 1:
        return text, text
    if parts[0].startswith("/"):
        return parts[0][1:], parts[1].rpartition("/")[2]
    return parts[0], parts[1]


def settle(asked: Iterable[str], records: Records) -> list[list[str]]:
    """[id, name, alias] of each link of a new container; raises InvalidParameter."""
    settled: dict[str, list[str]] = {}
    for text in asked:
        name, alias = parse(text)
        child = _get(name, records)
        while child.network_mode.startswith("container:"):
            child = _get(child.network_mode.partition(":")[2], records)
        if child.network_mode == "host":
            raise InvalidParameter(
                "conflicting options: host type networking can't be used with links. "
                "This would result in undefined behavior"
            )
        settled.setdefault(alias, [child.id, child.name, alias])
    return list(settled.values())


def _get(name: str, records: Records) -> Container:
    try:
        return records.get(name)
    except NotFound as error:
        raise InvalidParameter(f"could not get container for {name}: {error}") from None


def shown(container: Container, records: Records) -> list[str] | None:
    """HostConfig.Links: `/child:/parent/alias`."""
    return [f"/{name}:/{container.name}/{alias}" for name, alias, _ in _children(container, records)] or None


def _children(container: Container, records: Records) -> list[tuple[str, str, Container | None]]:
    """Name, alias and record of each; the record is None once the child is gone."""
    found = []
    for identity, name, alias in container.links:
        child = records.find(identity)
        found.append((child.name if child else name, alias, child))
    return found


def check(container: Container, records: Records) -> None:
    """Raises Conflict in Docker's words if one that it links to does not run, or is not on the bridge."""
    for name, alias, child in _children(container, records):
        if child is None or not child.state.running:
            raise Conflict(f"Cannot link to a non running container: /{name} AS /{container.name}/{alias}")
        if BRIDGE not in child.endpoints:
            raise Conflict(f"Cannot link to /{name}, as it does not belong to the default network")


def reachable(container: Container, records: Records) -> list[tuple[str, Container]]:
    """Alias and child of each link that leads somewhere now."""
    children = _children(container, records) if container.links else []
    return [(alias, child) for _, alias, child in children if child and address(child)]


def address(child: Container) -> str:
    """Its address on the default bridge; empty if it is not there."""
    endpoint = (child.networks.get("Networks") or {}).get(BRIDGE) or {}
    return str(endpoint.get("IPAddress") or "")


def hosts(children: Iterable[tuple[str, Container]]) -> list[tuple[str, list[str]]]:
    """Lines of /etc/hosts."""
    return [
        (address(child), list(dict.fromkeys([alias, child.config["Hostname"], child.name])))
        for alias, child in children
    ]


def environment(parent: Container, children: Iterable[tuple[str, Container]]) -> list[str]:
    """The variables that tell a program where the other one listens."""
    variables = []
    for alias, child in children:
        prefix = alias.replace("-", "_").upper()
        exposed = sorted(_port(port) for port in child.config.get("ExposedPorts") or {})
        variables += _ports(prefix, address(child), exposed)
        variables.append(f"{prefix}_NAME=/{parent.name}/{alias}")
        for entry in child.config["Env"]:
            name, _, value = entry.partition("=")
            if name not in ("HOME", "PATH"):
                variables.append(f"{prefix}_ENV_{name}={value}")
    return variables


def _port(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return int(number), protocol


def _ports(prefix: str, ip: str, exposed: list[tuple[int, str]]) -> list[str]:
    variables = []
    if exposed:
        number, protocol = exposed[0]
        variables.append(f"{prefix}_PORT={protocol}://{ip}:{number}")
    for first, last in _ranges(exposed):
        for (number, protocol), end in ((first, "START"), (last, "END")):
            # Both are called after the first.
            name = f"{prefix}_PORT_{first[0]}_{protocol.upper()}"
            variables.append(f"{name}_{end}={protocol}://{ip}:{number}")
            variables.append(f"{name}_PORT_{end}={number}")
    for number, protocol in exposed:
        name = f"{prefix}_PORT_{number}_{protocol.upper()}"
        variables += [
            f"{name}={protocol}://{ip}:{number}",
            f"{name}_ADDR={ip}",
            f"{name}_PORT={number}",
            f"{name}_PROTO={protocol}",
        ]
    return variables


def _ranges(exposed: list[tuple[int, str]]) -> list[tuple[tuple[int, str], tuple[int, str]]]:
    """First and last of each run of three or more neighbouring ports."""
    found, start = [], 0
    for index in range(1, len(exposed) + 1):
        if index == len(exposed) or exposed[index][0] > exposed[index - 1][0] + 1:
            if index - start > 2:
                found.append((exposed[start], exposed[index - 1]))
            start = index
    return found
