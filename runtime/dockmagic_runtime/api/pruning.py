"""What prunes would take away, before they do: `POST /dockmagic/prunable`. Nothing is changed by it.

The body has a key for each noun that is to be pruned, with the filters that its prune would get:
`{"containers": {}, "images": {"dangling": ["false"]}}`. The answer's `Rows` are in Docker's order
(containers, networks, volumes, images, build cache), each found as if what comes before it were gone, and
`SpaceReclaimed` is their sum: a layer that two images share counts once, one that something keeps not at all.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from dockmagic_runtime.api import networks as networks_api
from dockmagic_runtime.api import volumes as volumes_api
from dockmagic_runtime.api.call import Call, answer
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.api.services import Services
from dockmagic_runtime.containers import inspection, listing
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.filters import Filters, decoded
from dockmagic_runtime.images import removal
from dockmagic_runtime.images.image import Image

routes = Routes()

Row = dict[str, Any]

_NOUNS = ("containers", "networks", "volumes", "images", "build")


@routes.post("/dockmagic/prunable")
async def prunable(call: Call) -> web.StreamResponse:
    body = await call.body()
    if unknown := set(body) - set(_NOUNS):
        raise InvalidParameter(f"nothing called {min(unknown)} can be pruned: one of {', '.join(_NOUNS)}")
    asked = {noun: decoded(given) for noun, given in body.items()}
    services = call.services
    gone = listing.prunable(services.containers, asked["containers"]) if "containers" in asked else []
    rows = [await _container(services, each) for each in gone]
    if "networks" in asked:
        unused = services.networks.unused(networks_api.matcher(asked["networks"]))
        rows += [_row("network", each.name, each.driver, 0) for each in unused]
    if "volumes" in asked:
        rows += await _volumes(call, asked["volumes"], {each.id for each in gone})
    rows += _layers(services, asked, gone)
    return answer({"Rows": rows, "SpaceReclaimed": sum(row["Size"] for row in rows)})


def _row(kind: str, name: str, detail: str, size: int) -> Row:
    return {"Kind": kind, "Name": name, "Detail": detail, "Size": size}


async def _container(services: Services, container: Container) -> Row:
    image = inspection.image_name(container, services.images)
    detail = f"{container.state.status}, of {image}"
    size = await asyncio.to_thread(services.containers.usage, container)
    return _row("container", container.name, detail, size)


async def _volumes(call: Call, filters: Filters, gone: set[str]) -> list[Row]:
    found = call.services.volumes.prunable(**volumes_api.prune_options(call, filters), gone=gone)
    return [
        _row(
            "volume",
            each.name,
            "anonymous" if each.anonymous else "named",
            await asyncio.to_thread(each.usage),
        )
        for each in found
    ]


def _layers(services: Services, asked: Mapping[str, Filters], gone: list[Container]) -> list[Row]:
    """Images, and what only the build cache has."""
    identities = {each.id for each in gone}
    doomed: list[Image] = []
    if "images" in asked:
        doomed = removal.prunable(services.images, asked["images"], gone=identities)
    kept = {diff_id for image in services.images.list() if image not in doomed for diff_id in image.diff_ids}
    kept.update(
        diff_id
        for container in services.containers.records.all()
        if container.id not in identities
        for diff_id in container.layers
    )
    cached = services.builder.cache.layers()
    if "build" not in asked:
        kept |= cached
    rows = []
    for image in doomed:
        name = ", ".join(reference.familiar() for reference in image.references)
        rows.append(
            _row(
                "image",
                name or image.short_id,
                _named(image),
                services.layers.size_of(set(image.diff_ids) - kept),
            )
        )
        kept.update(image.diff_ids)
    if "build" in asked:
        if steps := cached - kept:
            rows.append(_row("build cache", f"{len(steps)} steps", "layers", services.layers.size_of(steps)))
        for _, identity, size, used in services.builder.cache_mounts.listed():
            if not used:
                rows.append(_row("build cache", identity, "cache mount", size))
    return rows


def _named(image: Image) -> str:
    return "no container uses it" if image.references else "no name, no container"
