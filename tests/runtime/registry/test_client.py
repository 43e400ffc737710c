"""The client against registries and token servers that answer oddly, late, or not at all."""

import asyncio
import contextlib
import email.utils
import itertools
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from dockmagic_runtime.config import EngineConfig
from dockmagic_runtime.oci.reference import parse_reference
from dockmagic_runtime.registry import transport
from dockmagic_runtime.registry.client import Registry
from dockmagic_runtime.registry.failures import RegistryError, Unreachable
from dockmagic_runtime.registry.repository import Repository

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
DIGEST = "sha256:" + "0" * 64


@pytest.fixture
async def registry() -> AsyncIterator[Registry]:
    opened = Registry(EngineConfig())
    yield opened
    await opened.close()


@contextlib.asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[str]:
    """A server whose every answer is `answer`'s; gives `host:port`."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    finally:
        await runner.cleanup()


async def opened(registry: Registry, address: str, auth: dict[str, str] | None = None) -> Repository:
    reference = parse_reference(f"{address}/thing:v1")
    endpoint = registry.endpoints(reference)[-1]
    assert endpoint.url == f"http://{address}"
    return await registry.open(endpoint, reference, auth)


@pytest.mark.parametrize(
    ("token", "sentence"),
    [
        ("<html>", "answers with no JSON object"),
        ("[1]", "answers with no JSON object"),
        ("{}", "authorization server did not include a token"),
    ],
)
async def test_a_token_server_that_is_none(registry: Registry, token: str, sentence: str) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.Response(text=token)
        realm = f'Bearer realm="http://{request.host}/token"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})

    async with serving(answer) as address:
        repository = await opened(registry, address)
        with pytest.raises((RegistryError, Unreachable), match=sentence):
            await repository.manifest("v1")


async def test_a_token_that_is_valid_for_a_word(registry: Registry) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            return web.json_response({"token": "t", "expires_in": "long"})
        if request.headers.get("Authorization") == "Bearer t":
            return web.json_response({"schemaVersion": 2})
        realm = f'Bearer realm="http://{request.host}/token"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})

    async with serving(answer) as address:
        assert (await (await opened(registry, address)).manifest("v1")).document == {"schemaVersion": 2}


async def test_a_refresh_token_is_exchanged(registry: Registry) -> None:
    """What `docker login` leaves at registries that give such: no password goes over the wire again."""
    asked: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/token":
            asked.append(dict(await request.post()))
            return web.json_response({"access_token": "t"})
        if request.headers.get("Authorization") == "Bearer t":
            return web.json_response({})
        realm = f'Bearer realm="http://{request.host}/token",service="s"'
        return web.Response(status=401, headers={"WWW-Authenticate": realm})

    async with serving(answer) as address:
        repository = await opened(registry, address, {"identitytoken": "refresh"})
        await repository.manifest("v1")
    (form,) = asked
    assert (form["grant_type"], form["refresh_token"], form["service"]) == ("refresh_token", "refresh", "s")
    assert form["scope"] == "repository:thing:pull"


async def test_credentials_stay_at_their_host(registry: Registry) -> None:
    """A blob that is elsewhere (a redirect to a content network) is fetched without them."""
    seen: list[str | None] = []

    async def elsewhere(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(body=b"blob")

    async with serving(elsewhere) as other:

        async def answer(request: web.Request) -> web.Response:
            if not request.headers.get("Authorization"):
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
            raise web.HTTPTemporaryRedirect(f"http://{other}/blob")

        async with serving(answer) as address:
            repository = await opened(registry, address, {"username": "a", "password": "secret"})
            assert b"".join([piece async for piece in repository.blob(DIGEST, 4)]) == b"blob"
    assert seen == [None]


@pytest.mark.parametrize(
    ("auth", "sentence"),
    [
        ({"Username": "alice", "Password": "x"}, r"alice has no right to that at 127\.0\.0\.1:\d+\)$"),
        (None, r"requested access to the resource is denied$"),
    ],
)
async def test_a_right_that_one_does_not_have(
    registry: Registry, auth: dict[str, str] | None, sentence: str
) -> None:
    """The names of credentials may have capitals: docker-py writes those of a credential helper so."""

    async def answer(request: web.Request) -> web.Response:
        if auth and not request.headers.get("Authorization"):
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
        return web.json_response({}, status=200 if request.path == "/v2/" else 403)

    async with serving(answer) as address:
        repository = await opened(registry, address, auth)
        with pytest.raises(RegistryError, match=rf"^denied: .*{sentence}"):
            await repository.upload(DIGEST, 1, lambda offset: b"x")


async def test_an_upload_without_a_place(registry: Registry) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=202 if request.method == "POST" else 200)

    async with serving(answer) as address:
        repository = await opened(registry, address)
        with pytest.raises(RegistryError, match="does not say where to send the blob"):
            await repository.upload(DIGEST, 1, lambda offset: b"x")


async def test_tags_that_are_none(registry: Registry) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.Response(text="<html>")

    async with serving(answer) as address:
        with pytest.raises(RegistryError, match=f"http://{address}/v2/thing/tags/list answers with no JSON"):
            await (await opened(registry, address)).tags()


async def test_retry_after_may_be_a_date(registry: Registry) -> None:
    times: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        if len(times) > 1:
            return web.json_response({})
        # A date has whole seconds: two from now is at least one.
        date = email.utils.formatdate(time.time() + 2, usegmt=True)
        return web.Response(status=429, headers={"Retry-After": date})

    async with serving(answer) as address:
        await opened(registry, address)
    assert 0.9 < times[1] - times[0] < 5


async def test_pauses_grow(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []
    monkeypatch.setattr(transport, "FIRST_PAUSE", 0.05)

    async def answer(request: web.Request) -> web.Response:
        times.append(time.monotonic())
        return web.Response(status=503)

    async with serving(answer) as address:
        with pytest.raises(RegistryError, match="service unavailable"):
            await opened(registry, address)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert len(pauses) == 4
    assert all(pause >= 0.05 * 2**number for number, pause in enumerate(pauses))


async def test_who_never_answers_a_connection_is_asked_once(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a host that is switched off: five times the patience would be a minute of silence."""
    monkeypatch.setattr(transport, "_TIMEOUT", aiohttp.ClientTimeout(total=None, sock_connect=0.3))
    with socket.socket() as silent, contextlib.ExitStack() as stack:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        address = "{}:{}".format(*silent.getsockname())
        for _ in range(3):  # who fills its queue, so that the kernel drops whoever comes next
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(silent.getsockname())
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(Unreachable, match="Timeout"):
            await opened(registry, address)
        assert loop.time() - begun < 2
