"""Routes of the tag Volume."""

from aiohttp import web

from dockmagic_runtime.api.call import Call, answer, nothing
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.images.listing import fits_labels
from dockmagic_runtime.volumes.store import Volume

routes = Routes()


@routes.get("/volumes")
async def list_(call: Call) -> web.StreamResponse:
    filters = call.filters()
    unknown = set(filters) - {"dangling", "driver", "label", "name"}
    if unknown:
        raise InvalidParameter(f"invalid filter '{sorted(unknown)[0]}'")
    users_of = call.services.containers.users_of_volume

    def matches(volume: Volume) -> bool:
        return (
            fits_labels(volume.labels, filters)
            and all(driver == "local" for driver in filters.get("driver", []))
            and all(name in volume.name for name in filters.get("name", []))
            and all(
                (value in ("true", "1")) != bool(users_of(volume.name))
                for value in filters.get("dangling", [])
            )
        )

    found = [volume.inspect() for volume in call.services.volumes.list() if matches(volume)]
    return answer({"Volumes": found, "Warnings": None})


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
    filters = call.filters()
    # Since API 1.42 named volumes are kept unless `all` is asked for.
    everything = call.version < (1, 42) or filters.get("all", ["false"])[0] in ("true", "1")
    removed, freed = call.services.volumes.prune(
        anonymous_only=not everything, matches=lambda volume: fits_labels(volume.labels, filters)
    )
    call.tell_prune("volume", freed)
    return answer({"VolumesDeleted": list(removed) or None, "SpaceReclaimed": freed})
