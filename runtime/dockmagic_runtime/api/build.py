"""Routes of the builder: the classic build API, a tar as context and a stream of steps as answer."""

import json
from dataclasses import replace
from typing import Any

from aiohttp import web

from dockmagic_runtime.api.call import Call, answer
from dockmagic_runtime.api.images import stream_progress
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.build.options import BuildOptions
from dockmagic_runtime.build.remote import fetched
from dockmagic_runtime.build.run import Limits
from dockmagic_runtime.errors import InvalidParameter, NotImplementedHere

routes = Routes()

_LIMITS = {"memory": "Memory", "memswap": "MemorySwap", "cpushares": "CpuShares", "cpuquota": "CpuQuota"} | {
    "cpuperiod": "CpuPeriod",
    "cpusetcpus": "CpusetCpus",
    "cpusetmems": "CpusetMems",
}


@routes.post("/build")
async def build(call: Call) -> web.StreamResponse:
    if call.text("version") == "2":
        raise NotImplementedHere("BuildKit is not supported by this engine; set DOCKER_BUILDKIT=0")
    options = _options(call)
    if session := call.text("session"):
        options = replace(options, session=call.services.builder.sessions.take(session))
    remote = call.text("remote")
    context = fetched(remote) if remote else call.pieces()
    return await stream_progress(call, lambda tell: call.services.builder.build(context, options, tell))


@routes.post("/dockmagic/build-sessions")
async def open_session(call: Call) -> web.StreamResponse:
    """Secrets, agents and permissions for the build that will name the answer's ID."""
    return answer({"Id": call.services.builder.sessions.open(await call.body())}, status=201)


@routes.post("/build/prune")
async def prune(call: Call) -> web.StreamResponse:
    done = await call.services.builder.prune()
    call.tell_prune("builder", done["SpaceReclaimed"])
    return answer(done)


def _options(call: Call) -> BuildOptions:
    extra_hosts = tuple(entry for entry in call.text("extrahosts").split(",") if entry)
    host_config: tuple[tuple[str, Any], ...] = tuple(
        (field, call.text(name) if name.startswith("cpuset") else call.number(name))
        for name, field in _LIMITS.items()
        if call.text(name) not in ("", "0")
    )
    if ulimits := _list(call.text("ulimits"), "ulimits"):
        host_config += (("Ulimits", ulimits),)
    if security := call.texts("securityopt"):
        host_config += (("SecurityOpt", list(security)),)
    return BuildOptions(
        tags=call.texts("t"),
        dockerfile=call.text("dockerfile") or "Dockerfile",
        build_arguments=_mapping(call.text("buildargs"), "buildargs"),
        labels=_mapping(call.text("labels"), "labels"),
        target=call.text("target") or None,
        no_cache=call.flag("nocache"),
        pull=call.flag("pull"),
        platform=call.text("platform") or None,
        quiet=call.flag("q"),
        cache_from=tuple(map(str, _list(call.text("cachefrom"), "cachefrom"))),
        squash=call.flag("squash"),
        auths=call.credentials("X-Registry-Config"),
        limits=Limits(
            network=call.text("networkmode") if call.text("networkmode") not in ("", "default") else "bridge",
            extra_hosts=extra_hosts,
            shm_size=call.number("shmsize", 0) or 0,
            host_config=host_config,
        ),
    )


def _list(text: str, name: str) -> list[Any]:
    try:
        parsed = json.loads(text) if text else []
    except ValueError:
        parsed = None
    if parsed is not None and not isinstance(parsed, list):
        raise InvalidParameter(f"invalid JSON: {name} must be a list")
    if parsed is None and text.strip() != "null":
        raise InvalidParameter(f"invalid JSON: {name} must be a list")
    return parsed or []


def _mapping(text: str, name: str) -> dict[str, Any]:
    try:
        parsed = json.loads(text) if text else {}
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise InvalidParameter(f"invalid JSON: {name} must be an object")
    return parsed
