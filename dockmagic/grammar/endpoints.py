"""`--network`, and the flags that say how a container is in its first network: `--ip`, `--link`, aliases.

`--network NAME` or `--network name=…,alias=…,ip=…`; the rules are docker/cli's `opts/network.go` and
`parseNetworkOpts`. The answer is the Engine API's `NetworkingConfig.EndpointsConfig`.
"""

import re
from typing import Any

from dockmagic.grammar.flags import conflict
from dockmagic.grammar.kinds import Kind, integer
from dockmagic.grammar.specifications import fields, halves

Endpoint = dict[str, Any]

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_ADDRESSES = {"ip": "IPv4Address", "ip6": "IPv6Address"}


def attachment(spec: str) -> tuple[str, Endpoint]:
    """One `--network`: the network's name, and the endpoint as far as it is described there."""
    if not re.search(r"\w+=\w+", spec):
        return spec, {}
    name, endpoint = "", Endpoint()
    for field in fields(spec):
        key, equals, value = (part.strip() for part in field.partition("="))
        if not equals or not key:
            raise ValueError(f"invalid field {field}")
        match key.lower():
            case "name":
                name = value
            case "alias":
                endpoint.setdefault("Aliases", []).append(value)
            case "ip" | "ip6":
                endpoint.setdefault("IPAMConfig", {})[_ADDRESSES[key.lower()]] = value
            case "link-local-ip":
                endpoint.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
            case "mac-address":
                endpoint["MacAddress"] = value
            case "driver-opt":
                option, text = driver_option(value, "invalid key value pair format in driver options")
                endpoint.setdefault("DriverOpts", {})[option] = text
            case "gw-priority":
                endpoint["GwPriority"] = _priority(value)
            case _:
                raise ValueError(f"invalid field key {key.lower()}")
    if not name:
        raise ValueError("network name/id is not specified")
    return name, endpoint


def driver_option(text: str, sentence: str = "invalid key/value pair format in driver options") -> Any:
    if "=" not in text:
        raise ValueError(sentence)
    return halves(text)


def _priority(text: str) -> int:
    try:
        return integer(text)
    except ValueError:
        raise ValueError(f"invalid gw-priority ({text}): invalid syntax") from None


NETWORK = Kind("network", attachment)


def endpoints(given: dict[str, Any]) -> dict[str, Endpoint]:
    """`EndpointsConfig`; empty where the networks' names say all. Raises UsageMistake."""
    networks: tuple[tuple[str, Endpoint], ...] = given["network"] or (("default", {}),)
    if any(not name for name, _ in networks):
        raise conflict("no name set for network")
    names = [name for name, _ in networks]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise conflict(f'network "{repeated}" is specified multiple times')
    if len({user_defined(name) for name in names}) > 1:
        raise conflict(
            "conflicting options: cannot attach both user-defined and non-user-defined network-modes"
        )
    configs = {name: dict(endpoint) for name, endpoint in networks}
    configs[names[0]] = _first(names[0], configs[names[0]], given)
    for endpoint in configs.values():
        mac = endpoint.get("MacAddress")
        if mac and not _MAC.fullmatch(mac):
            raise conflict(f"{mac} is not a valid mac address")
    if len(configs) == 1 and not any(configs.values()):
        return {}
    return configs


def user_defined(name: str) -> bool:
    return name not in ("default", "bridge", "host", "none") and not name.startswith("container:")


def _first(name: str, endpoint: Endpoint, given: dict[str, Any]) -> Endpoint:
    """The first network's endpoint with the flags that are older than `--network name=…`."""
    if given["network_alias"]:
        if endpoint.get("Aliases"):
            raise conflict("conflicting options: cannot specify both --network-alias and per-network alias")
        endpoint["Aliases"] = list(given["network_alias"])
    addresses = dict(endpoint.get("IPAMConfig") or {})
    for flag, words in (("ip", "IPv4 address"), ("ip6", "IPv6 address")):
        if given[flag]:
            if _ADDRESSES[flag] in addresses:
                raise conflict(f"conflicting options: cannot specify both --{flag} and per-network {words}")
            addresses[_ADDRESSES[flag]] = given[flag]
    if given["link_local_ip"]:
        addresses["LinkLocalIPs"] = list(given["link_local_ip"])
    if addresses:
        endpoint["IPAMConfig"] = addresses
    if given["mac_address"]:
        if endpoint.get("MacAddress"):
            raise conflict(
                "conflicting options: cannot specify both --mac-address and per-network MAC address"
            )
        endpoint["MacAddress"] = given["mac_address"]
    if given["link"] and user_defined(name):
        # On a network of one's own a link is one more name there; on the default bridge it is HostConfig's.
        endpoint["Links"] = list(given["link"])
    return endpoint
