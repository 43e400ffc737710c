"""From what `docker network create` asks for to a network, or Docker's sentence why not."""

import re
import secrets
from collections.abc import Sequence
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.errors import Forbidden, InvalidParameter, NotFound, NotImplementedHere
from dockmagic_runtime.networks import ipam
from dockmagic_runtime.networks.network import PREDEFINED, Network

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def check(name: str, driver: str, ipam_driver: str, *, ipv6: bool) -> None:
    """Raises Forbidden, InvalidParameter, NotFound or NotImplementedHere."""
    if name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if not _NAME.fullmatch(name):
        raise InvalidParameter(f"invalid network name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    if driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{driver}" network is allowed')
    if driver in ("macvlan", "ipvlan", "overlay"):
        raise NotImplementedHere(
            f"the network driver {driver} is not supported: this engine has bridge, host and null"
        )
    if driver != "bridge":
        raise NotFound(f'could not find plugin {driver} in v1 plugin registry: plugin "{driver}" not found')
    if ipam_driver not in ("", "default"):
        raise NotImplementedHere(f"the IPAM driver {ipam_driver} is not supported")
    if ipv6:
        raise NotImplementedHere("IPv6 networks are not supported")


def bridged(
    name: str,
    pool: ipam.AddressPool,
    *,
    ipam_config: Sequence[dict[str, Any]],
    ipam_options: dict[str, str] | None,
    internal: bool,
    attachable: bool,
    options: dict[str, str] | None,
    labels: dict[str, str] | None,
) -> Network:
    """A new user-defined bridge network. Raises InvalidParameter for an option out of range."""
    new = Network(
        secrets.token_hex(32),
        name,
        "bridge",
        timestamps.now(),
        pool=pool,
        internal=internal,
        attachable=attachable,
        options=dict(options or {}),
        labels=dict(labels or {}),
        ipam_options=dict(ipam_options or {}),
        user_subnet=any(entry.get("Subnet") for entry in ipam_config),
    )
    new.interface = new.options.get("com.docker.network.bridge.name") or f"br-{new.id[:12]}"
    if len(new.interface.encode()) > 15 or not _NAME.fullmatch(new.interface):
        raise InvalidParameter(f"invalid bridge name: {new.interface}")
    try:
        mtu = new.mtu
    except ValueError:
        raise InvalidParameter(f"invalid MTU: {new.options}") from None
    if not 68 <= mtu <= 65535:
        raise InvalidParameter(f"invalid MTU number: {mtu}")
    ipam.address(new.host_binding)
    return new
