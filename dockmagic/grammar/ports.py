"""`-p` and `--expose`: Docker's port specifications (docker/go-connections, nat.ParsePortSpecs)."""

import ipaddress

from dockmagic.grammar.flags import conflict
from dockmagic.grammar.kinds import unsigned

PortMap = dict[str, list[dict[str, str]]]


def port_map(specifications: tuple[str, ...]) -> PortMap:
    """`PortBindings` of the API for `8080:80`, `127.0.0.1:53:53/udp`, `[::1]::80`, `8000-8002:80-82`…"""
    bindings: PortMap = {}
    for specification in map(_standard, specifications):
        for port, binding in _bindings(specification):
            bindings.setdefault(port, []).append(binding)
    return bindings


def exposed(specifications: tuple[str, ...]) -> list[str]:
    """`80/tcp` names for `--expose 80`, `--expose 7000-7002/udp`."""
    names = []
    for specification in specifications:
        if ":" in specification:
            raise conflict(f"invalid port format for --expose: {specification}")
        ports, _, protocol = specification.partition("/")
        try:
            first, last = _numbers(ports)
        except ValueError as error:
            raise conflict(f"invalid range format for --expose: {ports}, error: {error}") from None
        names += [f"{port}/{protocol.lower() or 'tcp'}" for port in range(first, last + 1)]
    return names


def _standard(specification: str) -> str:
    """`target=80,published=8080,protocol=udp` as `8080:80/udp`."""
    if "=" not in specification:
        return specification
    fields = {"published": "", "target": "", "protocol": "tcp"}
    for part in specification.split(","):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise conflict(f"invalid publish opts format (should be name=value but got '{part}')")
        fields[key] = value
    return f"{fields['published']}:{fields['target']}/{fields['protocol']}"


def _bindings(specification: str) -> list[tuple[str, dict[str, str]]]:
    where, _, container = specification.rpartition(":")
    container, _, protocol = container.partition("/")
    ip, _, host = where.rpartition(":")
    ip = _address(ip)
    if not container:
        raise conflict(f"no port specified: {specification}<empty>")
    first, last = _range(container, "containerPort")
    host_first, host_last = _range(host, "hostPort") if host else (0, 0)
    if host and last - first != host_last - host_first and first != last:
        raise conflict(f"invalid ranges specified for container and host Ports: {container} and {host}")
    protocol = protocol.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise conflict(f"invalid proto: {protocol}")
    result = []
    for offset in range(last - first + 1):
        if not host:
            published = ""
        elif first == last and host_first != host_last:
            published = host  # one container port on any free one of a range
        else:
            published = str(host_first + offset)
        result.append((f"{first + offset}/{protocol}", {"HostIp": ip, "HostPort": published}))
    return result


def _address(text: str) -> str:
    """An address of this machine, that of version 6 in brackets or not; nothing for all of them."""
    if not text:
        return ""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        raise conflict(f"invalid IP address: {text}") from None


def _range(text: str, what: str) -> tuple[int, int]:
    try:
        return _numbers(text)
    except ValueError:
        raise conflict(f"invalid {what}: {text}") from None


def _numbers(text: str) -> tuple[int, int]:
    """The first and the last port of `80` or `80-82`. Raises ValueError."""
    low, dash, high = text.partition("-")
    first, last = unsigned(low), unsigned(high) if dash else unsigned(low)
    if not first <= last <= 65535:
        raise ValueError(f"invalid range specified for port: {text}")
    return first, last
