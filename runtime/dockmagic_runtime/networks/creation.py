"""From what `docker network create` asks for to a network, or Docker's sentence why not."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from dockmagic_runtime import identifiers, timestamps
from dockmagic_runtime.errors import Forbidden, InvalidParameter, NotImplementedHere
from dockmagic_runtime.networks.drivers import driver as driver_of
from dockmagic_runtime.networks.ipam import AddressPool
from dockmagic_runtime.networks.network import PREDEFINED, Network

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def check(name: str, driver: str, ipam_driver: str) -> None:
    """Raises Forbidden, InvalidParameter, NotFound or NotImplementedHere."""
    if name in PREDEFINED:
        raise Forbidden(f"operation is not permitted on predefined {name} network")
    if not _NAME.fullmatch(name):
        raise InvalidParameter(f"invalid network name {name!r}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    driver_of(driver)
    if ipam_driver not in ("", "default"):
        raise NotImplementedHere(f"the IPAM driver {ipam_driver} is not supported")


def new_network(
    name: str,
    driver: str,
    pools: list[AddressPool],
    *,
    ipam_config: Sequence[dict[str, Any]],
    ipam_options: dict[str, str] | None,
    internal: bool,
    attachable: bool,
    options: dict[str, str] | None,
    labels: dict[str, str] | None,
) -> Network:
    """A new user-defined network. Raises InvalidParameter for an option out of range."""
    new = Network(
        identifiers.new(),
        name,
        driver,
        timestamps.now(),
        pools=pools,
        internal=internal,
        attachable=attachable,
        options=dict(options or {}),
        labels=dict(labels or {}),
        ipam_options=dict(ipam_options or {}),
        user_subnet=any(entry.get("Subnet") for entry in ipam_config),
    )
    try:
        mtu = new.mtu
    except ValueError:
        raise InvalidParameter(f"invalid MTU: {new.options}") from None
    if not 68 <= mtu <= 65535:
        raise InvalidParameter(f"invalid MTU number: {mtu}")
    driver_of(driver).settle(new)
    return new


def check_parent(new: Network, others: Iterable[Network]) -> None:
    """Raises Forbidden if another network's interfaces hang on the same parent already."""
    for other in others:
        if not new.bridged and new.addressed and other.parent == new.parent and not other.bridged:
            raise Forbidden(f"network {other.name} is already using parent interface {new.parent}")
