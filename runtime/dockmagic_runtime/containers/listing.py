"""Which containers `docker ps` and prune mean: Docker's filters, applied to records."""

import re
from collections.abc import Callable
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.containers.store import Containers
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.filters import Filters, check, fits_labels, has_label, point_in_time
from dockmagic_runtime.images.store import ImageStore

Json = dict[str, Any]

_STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")


def select(
    containers: Containers, filters: Filters, *, everything: bool = False, limit: int = 0
) -> list[Container]:
    """Newest first. Without `everything`, `limit` or a status filter: only what runs."""
    check(filters, {*_MATCHERS, "before", "since", "ancestor", "is-task", "isolation"})
    for status in filters.get("status", []):
        if status not in _STATUSES:
            raise InvalidParameter(f"invalid filter 'status={status}'")
    found = sorted(containers.records.all(), key=lambda container: container.created, reverse=True)
    if not (everything or limit or "status" in filters or "exited" in filters):
        found = [container for container in found if container.state.running]
    for bound, keep in (("before", _older), ("since", _newer)):
        for reference in filters.get(bound, []):
            pivot = containers.get(reference)
            found = [container for container in found if keep(container, pivot)]
    if "ancestor" in filters:
        images = set().union(*(_family(containers.images, name) for name in filters["ancestor"]))
        found = [container for container in found if container.image in images]
    for name, values in filters.items():
        matches = _MATCHERS.get(name)
        if matches:
            # Labels must all hold; of everything else one is enough.
            combine = all if name == "label" else any
            found = [
                container for container in found if combine(matches(container, value) for value in values)
            ]
    return found[:limit] if limit > 0 else found


def _family(images: ImageStore, reference: str) -> set[str]:
    """The ids of an image and of all images that have its layers below their own."""
    try:
        base = images.get(reference)
    except NotFound:
        return set()
    depth = len(base.diff_ids)
    return {image.id for image in images.list() if image.diff_ids[:depth] == base.diff_ids}


def prunable(containers: Containers, filters: Filters) -> list[Container]:
    """What `docker container prune` removes: those that do not run. Raises InvalidParameter."""
    check(filters, {"label", "label!", "until"})
    untils = [point_in_time(until) for until in filters.get("until", [])]
    return [
        container
        for container in containers.records.all()
        if not container.state.running
        and fits_labels(container.labels, filters)
        and all(timestamps.parse(container.created) < until for until in untils)
    ]


def _older(container: Container, pivot: Container) -> bool:
    return timestamps.parse(container.created) < timestamps.parse(pivot.created)


def _newer(container: Container, pivot: Container) -> bool:
    return timestamps.parse(container.created) > timestamps.parse(pivot.created)


def _has_name(container: Container, pattern: str) -> bool:
    try:
        return (
            re.search(pattern, f"/{container.name}") is not None
            or re.search(pattern, container.name) is not None
        )
    except re.error:
        raise InvalidParameter(f"invalid filter 'name={pattern}'") from None


def _exited_with(container: Container, code: str) -> bool:
    if not code.lstrip("-").isdigit():
        raise InvalidParameter(f"invalid filter 'exited={code}'")
    return container.state.status == "exited" and container.state.exit_code == int(code)


def _in_network(container: Container, network: str) -> bool:
    settings: Json = container.networks.get("Networks") or container.endpoints
    return any(
        network == name or (values.get("NetworkID") or "-").startswith(network)
        for name, values in settings.items()
    )


def _has_volume(container: Container, volume: str) -> bool:
    return any(
        volume in (point.get("Name"), point["Destination"], point["Source"]) for point in container.mounts
    )


def _port(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


_MATCHERS: dict[str, Callable[[Container, str], bool]] = {
    "id": lambda container, value: container.id.startswith(value),
    "name": _has_name,
    "label": lambda container, value: has_label(container.labels, value),
    "status": lambda container, value: container.state.status == value,
    "exited": _exited_with,
    "network": _in_network,
    "volume": _has_volume,
    "publish": lambda container, value: _port(value) in container.host_config["PortBindings"],
    "expose": lambda container, value: _port(value) in (container.config.get("ExposedPorts") or {}),
    "health": lambda container, value: value == (container.state.health or {"Status": "none"})["Status"],
}
