"""From the body of POST /containers/create to a container's record. Nothing runs yet."""

import os
import posixpath
import re
import secrets
from typing import Any

from dockmagic_runtime import identifiers, timestamps
from dockmagic_runtime.containers import (
    joining,
    limits,
    links,
    logoptions,
    modes,
    mountpoints,
    names,
    security,
    settings,
)
from dockmagic_runtime.containers.record import Container, Records
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.volumes.store import VolumeStore

Json = dict[str, Any]


def new_container(
    body: Json, name: str, image: Image, records: Records, volumes: VolumeStore
) -> tuple[Container, list[str]]:
    """A complete record, and warnings for the client; volumes it needs are made.

    Raises InvalidParameter for what makes no sense.
    """
    if not isinstance(body, dict):
        raise InvalidParameter("invalid JSON: the body must be an object")
    identity = identifiers.new()
    host = settings.complete_host_config(body.get("HostConfig"))
    warnings = [*limits.check(host), *modes.check(body, host)]
    config = settings.merge_config(body, image.config.get("config") or {})
    if config["WorkingDir"]:
        config["WorkingDir"] = posixpath.normpath(config["WorkingDir"])
    if not config["Hostname"]:
        config["Hostname"] = os.uname().nodename if host["NetworkMode"] == "host" else identity[:12]
    # Said now, not at the start: what these parse to is needed only then.
    security.SecurityOptions.parse(host["SecurityOpt"] or [])
    security.granted_capabilities(host)
    logoptions.check(host["LogConfig"]["Type"], host["LogConfig"]["Config"])
    _check_ports(config, host)
    chosen = names.check(name) if name else _free_name(records)
    records.check_free(chosen)  # before anything is made
    joining.settle(host, records)
    endpoints = _endpoints(body.get("NetworkingConfig"), host["NetworkMode"], config)
    container = Container(
        id=identity,
        name=chosen,
        created=timestamps.now(),
        image=image.id,
        config=config,
        host_config=host,
        endpoints=endpoints,
        mounts=mountpoints.settle(config, host, volumes, records),
        layers=list(image.diff_ids),
        links=_links(host, endpoints, records),
    )
    return container, warnings


def _links(host: Json, endpoints: dict[str, Json], records: Records) -> list[list[str]]:
    """On the default bridge links are the container's own, in a network of one's own the endpoint's."""
    asked, mode = host["Links"] or [], host["NetworkMode"]
    host["Links"] = None
    if mode in ("bridge", "none"):
        return links.settle(asked, records)
    if mode in endpoints and asked and not endpoints[mode].get("Links"):
        endpoints[mode]["Links"] = [":".join(links.parse(text)) for text in asked]
    return []


def _free_name(records: Records) -> str:
    while True:
        name = names.generate()
        if records.holder(name) is None:
            return name
        # The word list is finite: a number keeps this from turning for ever.
        name = f"{name}{secrets.randbelow(10_000)}"
        if records.holder(name) is None:
            return name


def _endpoints(networking: Json | None, mode: str, config: Json) -> dict[str, Json]:
    """Network name -> endpoint settings; the mode's own network first."""
    given = (networking or {}).get("EndpointsConfig") or {}
    if not isinstance(given, dict) or not all(
        value is None or isinstance(value, dict) for value in given.values()
    ):
        raise InvalidParameter("invalid JSON: NetworkingConfig.EndpointsConfig must map names to objects")
    if config.get("NetworkDisabled"):
        return {"none": {}}
    if mode.startswith("container:"):
        if given:
            raise InvalidParameter(
                "conflicting options: custom network settings and the container type network mode"
            )
        return {}
    # A bare "default" in EndpointsConfig is the mode's network under another name.
    endpoints = {
        ("bridge" if name == "default" else name): dict(value or {}) for name, value in given.items()
    }
    ordered = {mode: endpoints.pop(mode, {})} | endpoints
    if config.get("MacAddress") and not ordered[mode].get("MacAddress"):
        ordered[mode]["MacAddress"] = config["MacAddress"]
    return ordered


_PORT = re.compile(r"(\d{1,5})(?:/(tcp|udp|sctp))?")


def _check_ports(config: Json, host: Json) -> None:
    """Bring every port to the form `80/tcp`, and all published ports among the exposed ones."""
    bindings: Json = {}
    for port, where in host["PortBindings"].items():
        if where is not None and not isinstance(where, list):
            raise InvalidParameter("invalid JSON: HostConfig.PortBindings must map ports to lists")
        for binding in where or []:
            number = str((binding or {}).get("HostPort") or "0").partition("-")[0]
            if not number.isdigit() or int(number) > 65535:
                raise InvalidParameter(f'invalid port specification: "{binding.get("HostPort")}"')
        bindings[_port(port)] = where or [{"HostIp": "", "HostPort": ""}]
    host["PortBindings"] = bindings
    exposed: Json = {_port(port): {} for port in config.get("ExposedPorts") or {}}
    exposed |= {port: {} for port in bindings}
    if exposed:
        config["ExposedPorts"] = exposed


def _port(text: str) -> str:
    match = _PORT.fullmatch(text)
    if not match or not 0 < int(match[1]) < 65536:
        raise InvalidParameter(f'invalid port specification: "{text}"')
    return f"{int(match[1])}/{match[2] or 'tcp'}"
