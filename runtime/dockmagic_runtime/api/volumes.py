"""Routes of the tag Volume, and what Docker has not: archives of volumes, clones, other names."""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import web

from dockmagic_runtime import streams
from dockmagic_runtime.api.call import Call, answer, nothing
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.api.tarstream import send_tar
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.filters import Filters, check, fits_labels
from dockmagic_runtime.threads import in_own_thread, settled
from dockmagic_runtime.volumes import archive
from dockmagic_runtime.volumes.store import ANONYMOUS_LABEL, Volume, VolumeStore

routes = Routes()

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


@routes.get("/volumes")
async def list_(call: Call) -> web.StreamResponse:
    filters = call.filters()
    check(filters, {"dangling", "driver", "label", "name"})
    users_of = call.services.containers.records.users_of_volume
    for value in filters.get("dangling", []):
        if value not in _TRUTHS:
            raise InvalidParameter(f"invalid filter 'dangling=[{value}]'")

    def matches(volume: Volume) -> bool:
        return (
            fits_labels(volume.labels, filters)
            and all(driver == "local" for driver in filters.get("driver", []))
            and _named(volume.name, filters.get("name", []))
            and all(_TRUTHS[value] != bool(users_of(volume.name)) for value in filters.get("dangling", []))
        )

    found = [volume.inspect() for volume in call.services.volumes.list() if matches(volume)]
    return answer({"Volumes": found, "Warnings": None})


def _named(name: str, patterns: list[str]) -> bool:
    """Any of the patterns, as a regular expression or else as a part of the name."""
    for pattern in patterns:
        try:
            if re.search(pattern, name):
                return True
        except re.error:
            if pattern in name:
                return True
    return not patterns


@routes.post("/volumes/create")
async def create(call: Call) -> web.StreamResponse:
    body = await call.body()
    name, labels, options = body.get("Name") or "", body.get("Labels") or {}, body.get("DriverOpts") or {}
    if not isinstance(name, str) or not isinstance(labels, dict) or not isinstance(options, dict):
        raise InvalidParameter("invalid JSON: Name must be a string, Labels and DriverOpts objects")
    driver = body.get("Driver") or "local"
    try:
        made = call.services.volumes.create(name, driver=driver, labels=labels, options=options)
    except NotFound as error:
        raise NotFound(f"create {name}: {error}") from None
    return answer(made.inspect(), 201)


@routes.get("/volumes/{name}")
async def inspect(call: Call) -> web.StreamResponse:
    return answer(call.services.volumes.get(call["name"]).inspect())


@routes.delete("/volumes/{name}")
async def remove(call: Call) -> web.StreamResponse:
    call.services.volumes.remove(call["name"], force=call.flag("force"))
    return nothing()


@routes.post("/volumes/prune")
async def prune(call: Call) -> web.StreamResponse:
    removed, freed = call.services.volumes.prune(**prune_options(call, call.filters()))
    call.tell_prune("volume", freed)
    return answer({"VolumesDeleted": list(removed) or None, "SpaceReclaimed": freed})


def prune_options(call: Call, filters: Filters) -> dict[str, Any]:
    """What the filters of a prune mean, as `VolumeStore.prune` is told it. Raises InvalidParameter."""
    check(filters, {"all", "label", "label!"})
    # Since API 1.42 named volumes are kept unless `all` is asked for.
    everything = call.version < (1, 42) or filters.get("all", ["false"])[0] in ("true", "1")
    return {
        "anonymous_only": not everything,
        "matches": lambda volume: fits_labels(volume.labels, filters),
    }


@routes.get("/dockmagic/volumes/{name}/export")
async def export(call: Call) -> web.StreamResponse:
    """All files of the volume as a tar."""
    return await send_tar(call, _exported(call.services.volumes, call["name"]))


async def _exported(volumes: VolumeStore, name: str) -> AsyncGenerator[bytes, None]:
    """Held until the last piece, and no longer: who has the whole archive may remove the volume."""
    volume = volumes.get(name)
    async with (
        volumes.held([volume], "export"),
        contextlib.aclosing(streams.tap(lambda out: archive.write(volume.path, out))) as pieces,
    ):
        async for piece in pieces:
            yield piece


@routes.post("/dockmagic/volumes/{name}/import")
async def import_(call: Call) -> web.StreamResponse:
    """A new or empty volume's files, from a tar, compressed or not."""
    volumes, name = call.services.volumes, call["name"]
    async with volumes.incoming(name) as place:
        await streams.feed(call.pieces(), lambda source: archive.read(source, place))
    return answer(volumes.get(name).inspect(), 201)


@routes.post("/dockmagic/volumes/{name}/clone")
async def clone(call: Call) -> web.StreamResponse:
    """A new volume `to` with the same labels and a copy of the files."""
    volumes = call.services.volumes
    volume, name = volumes.get(call["name"]), _wanted_name(call)
    labels = {key: value for key, value in volume.labels.items() if key != ANONYMOUS_LABEL}
    async with volumes.held([volume], "clone"), volumes.incoming(name, labels) as place:
        copying = in_own_thread(lambda: archive.copy(volume.path, place))
        try:
            await asyncio.shield(copying)
        finally:
            await settled(copying)  # before the place is cleared away
    return answer(volumes.get(name).inspect(), 201)


@routes.post("/dockmagic/volumes/{name}/rename")
async def rename(call: Call) -> web.StreamResponse:
    return answer(call.services.volumes.rename(call["name"], _wanted_name(call)).inspect())


def _wanted_name(call: Call) -> str:
    name = call.text("to")
    if not name:
        raise InvalidParameter("missing parameter to: the name of the new volume")
    return name
