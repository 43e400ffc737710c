"""`-p` and `--expose`: Docker's port specifications (docker/go-connections, nat.ParsePortSpecs)."""

import re

from dockmagic.errors import UsageMistake

PortMap = dict[str, list[dict[str, str]]]

_SPEC = re.compile(
    r"^(?:(?P<ip>\[[0-9a-fA-F:.]+\]|[^:\[\]]*):)??(?:(?P<host>[^:]*):)?(?P<container>[^:/]*)(?:/(?P<protocol>\w+))?$"
)


def port_map(specifications: tuple[str, ...]) -> PortMap:
    """`PortBindings` of the API for `8080:80`, `127.0.0.1:53:53/udp`, `[::1]::80`, `8000-8002:80-82`…"""
    bindings: PortMap = {}
    for specification in specifications:
        for port, binding in _bindings(specification):
            bindings.setdefault(port, []).append(binding)
    return bindings


def exposed(specifications: tuple[str, ...]) -> list[str]:
    """`80/tcp` names for `--expose 80`, `--expose 7000-7002/udp`."""
    names = []
    for specification in specifications:
        ports, _, protocol = specification.partition("/")
        first, last = _range(ports, "containerPort", specification)
        names += [f"{port}/{_protocol(protocol)}" for port in range(first, last + 1)]
    return names


def _bindings(specification: str) -> list[tuple[str, dict[str, str]]]:
    match = _SPEC.match(specification)
    if match is None:
        raise UsageMistake(f"docker: invalid port specification: {specification}", exit_code=125)
    ip, host, container = match["ip"] or "", match["host"] or "", match["container"]
    if not container:
        raise UsageMistake(f"docker: no port specified: {specification}<empty>", exit_code=125)
    protocol = _protocol(match["protocol"] or "tcp")
    first, last = _range(container, "containerPort", specification)
    host_first = host_last = 0
    if host:
        host_first, host_last = _range(host, "hostPort", specification)
        if last - first != host_last - host_first and first != last:
            raise UsageMistake(
                f"docker: invalid ranges specified for container and host Ports: {container} and {host}",
                exit_code=125,
            )
    result = []
    for offset in range(last - first + 1):
        if not host:
            published = ""
        elif first == last and host_first != host_last:
            published = host  # one container port on any free one of a range
        else:
            published = str(host_first + offset)
        result.append((f"{first + offset}/{protocol}", {"HostIp": ip.strip("[]"), "HostPort": published}))
    return result


def _range(text: str, what: str, specification: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    try:
        first, last = int(low), int(high) if dash else int(low)
    except ValueError:
        first = last = -1
    if not 0 <= first <= last <= 65535:
        raise UsageMistake(f"docker: invalid {what}: {text}", exit_code=125)
    return first, last


def _protocol(text: str) -> str:
    protocol = text.lower() or "tcp"
    if protocol not in ("tcp", "udp", "sctp"):
        raise UsageMistake(f"docker: invalid proto: {text}", exit_code=125)
    return protocol
