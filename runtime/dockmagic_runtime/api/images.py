"""Routes of the tag Image."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from dockmagic_runtime.api.call import Call, JsonStream, answer
from dockmagic_runtime.api.errors import MISTAKES, unexpected
from dockmagic_runtime.api.presence import while_connected
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.api.tarstream import send_tar
from dockmagic_runtime.build.commit import changed
from dockmagic_runtime.build.stage import StepFailed
from dockmagic_runtime.build.state import State
from dockmagic_runtime.errors import EngineError, InvalidParameter, SystemFailure, Unauthorized, Unavailable
from dockmagic_runtime.images import describe, importing, listing, loading, push, removal, saving
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.remote import download
from dockmagic_runtime.oci.image import Platform
from dockmagic_runtime.oci.reference import Reference, check_tag, parse_reference

routes = Routes()

Progress = Callable[[dict[str, Any]], None]


async def stream_progress(call: Call, work: Callable[[Progress], Awaitable[object]]) -> web.StreamResponse:
    """Run `work` and send what it tells as one JSON object per line, as it comes.

    An error before the first word is an HTTP status; later it is the last object of the stream. When the
    client goes away the work is cancelled, also where it has nothing to tell.
    """
    return await while_connected(call, _progress(call, work))


async def _progress(call: Call, work: Callable[[Progress], Awaitable[object]]) -> web.StreamResponse:
    queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
    task = asyncio.ensure_future(work(queue.put_nowait))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    stream = JsonStream(call)
    try:
        while (message := await queue.get()) is not None:
            await stream.send(message)
        try:
            await task
        except EngineError as error:
            if not stream.opened:
                raise
            # Docker gives a number for one kind only: a step of a build that exited with it.
            code = {"code": error.code} if isinstance(error, StepFailed) else {}
            await stream.send({"errorDetail": {**code, "message": str(error)}, "error": str(error)})
        except (OSError, *MISTAKES) as error:
            if not stream.opened or isinstance(error, ConnectionError):
                raise
            sentence = unexpected(error, f"{call.request.method} {call.request.path}")
            await stream.send({"errorDetail": {"message": sentence}, "error": sentence})
        return await stream.close()
    finally:
        task.cancel()


def _platform(text: str) -> Platform | None:
    return Platform.parse(text) if text else None


@routes.get("/images/json")
async def list_(call: Call) -> web.StreamResponse:
    filters = call.filters()
    if call.text("filter"):
        filters["reference"] = [call.text("filter")]
    return answer(
        listing.summaries(
            call.services.images,
            filters,
            all_images=call.flag("all"),
            shared_size=call.flag("shared-size"),
        )
    )


@routes.post("/images/create")
async def create(call: Call) -> web.StreamResponse:
    """`docker pull`, or with `fromSrc` `docker import`."""
    platform = _platform(call.text("platform"))
    if call.text("fromSrc"):
        return await _import(call, platform)
    name, tag = call.text("fromImage"), call.text("tag")
    if not name:
        raise InvalidParameter("invalid reference format")
    puller, auth = call.services.puller, call.credentials("X-Registry-Auth")
    reference = _with_tag(parse_reference(name, None), tag)
    whole = reference.tag is None and reference.digest is None
    pull = puller.pull_all if whole else puller.pull
    try:
        return await stream_progress(call, lambda tell: pull(reference, platform, auth, tell))
    except Unauthorized as error:
        # As Docker: a 401 would have the docker command ask for a password, and wait.
        raise SystemFailure(str(error)) from None


@routes.get("/distribution/{name:path}/json")
async def distribution(call: Call) -> web.StreamResponse:
    found, platforms = await call.services.puller.look(
        parse_reference(call["name"]), call.credentials("X-Registry-Auth")
    )
    return answer({"Descriptor": found.as_json(), "Platforms": platforms})


def _with_tag(reference: Reference, tag: str) -> Reference:
    """`tag` may also be a digest: the parameter says either."""
    if not tag:
        return reference
    if ":" not in tag:
        check_tag(tag)
    joined = f"{reference.familiar_name}@{tag}" if ":" in tag else f"{reference.familiar_name}:{tag}"
    return parse_reference(joined)


async def _import(call: Call, platform: Platform | None) -> web.StreamResponse:
    source = call.text("fromSrc")
    repository = call.text("repo")
    reference = _with_tag(parse_reference(repository), call.text("tag")) if repository else None
    image = await importing.import_(
        call.services.images,
        call.pieces() if source == "-" else download(source),
        reference,
        settings=changed(State({"config": {}}), call.texts("changes")).config,
        message=call.text("message"),
        platform=platform,
    )
    stream = JsonStream(call)
    await stream.send({"status": image.id})
    return await stream.close()


@routes.get("/images/search")
async def search(call: Call) -> web.StreamResponse:
    raise Unavailable("search is not available: the OCI distribution protocol has no search")


@routes.post("/images/load")
async def load(call: Call) -> web.StreamResponse:
    platform = _platform(call.text("platform"))
    return await stream_progress(
        call, lambda tell: loading.load(call.services.images, call.pieces(), tell, platform)
    )


async def _send_archive(call: Call, names: list[str]) -> web.StreamResponse:
    # Before the first piece the layers that were never sent are packed, which takes a while and says nothing.
    return await while_connected(call, send_tar(call, saving.save(call.services.images, names)))


@routes.get("/images/get")
async def save_several(call: Call) -> web.StreamResponse:
    return await _send_archive(call, call.texts("names"))


@routes.get("/images/{name:path}/get")
async def save(call: Call) -> web.StreamResponse:
    return await _send_archive(call, [call["name"]])


@routes.post("/images/prune")
async def prune(call: Call) -> web.StreamResponse:
    done = await removal.prune(call.services.images, call.filters())
    call.tell_prune("image", done["SpaceReclaimed"])
    return answer(done)


def _formerly(call: Call, image: Image) -> dict[str, object]:
    """What inspect told until the API did without it.

    docker-compose 1 asks in the newest version, and then fails to recreate a container: Docker's own engine
    and it have not fitted together since. Here they do.
    """
    found: dict[str, object] = {}
    if call.version < (1, 45) or call.request.headers.get("User-Agent", "").startswith("docker-compose/1."):
        found |= {"Container": "", "ContainerConfig": describe.container_config({})}
    if call.version < (1, 44):
        found["VirtualSize"] = image.size
    return found


@routes.get("/images/{name:path}/json")
async def inspect(call: Call) -> web.StreamResponse:
    images = call.services.images
    image = images.get(call["name"])
    return answer({**describe.inspect(images, image), **_formerly(call, image)})


@routes.get("/images/{name:path}/history")
async def history(call: Call) -> web.StreamResponse:
    images = call.services.images
    return answer(describe.history(images, images.get(call["name"])))


@routes.post("/images/{name:path}/tag")
async def tag(call: Call) -> web.StreamResponse:
    images = call.services.images
    image = images.get(call["name"])
    reference = _with_tag(parse_reference(call.text("repo")), call.text("tag"))
    images.tag(image, reference)
    return web.Response(status=201)


@routes.post("/images/{name:path}/push")
async def push_(call: Call) -> web.StreamResponse:
    services, auth = call.services, call.credentials("X-Registry-Auth")
    reference = _with_tag(parse_reference(call["name"], None), call.text("tag"))
    if reference.tag is None:
        return await stream_progress(
            call, lambda tell: push.push_all(services.images, services.registry, reference, auth, tell)
        )
    return await stream_progress(
        call, lambda tell: push.push(services.images, services.registry, reference, auth, tell)
    )


@routes.delete("/images/{name:path}")
async def remove(call: Call) -> web.StreamResponse:
    records = await removal.remove(
        call.services.images, call["name"], force=call.flag("force"), noprune=call.flag("noprune")
    )
    return answer(records)
