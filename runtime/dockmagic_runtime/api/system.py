"""Routes of the tags System and Auth: ping, version, info, events, disk use, login."""

import asyncio
import os
import platform
from pathlib import Path
from typing import Any

from aiohttp import web

import dockmagic_runtime
from dockmagic_runtime import timestamps
from dockmagic_runtime.api.call import Call, JsonStream, answer
from dockmagic_runtime.api.request import API_VERSION, MINIMUM_API_VERSION
from dockmagic_runtime.api.router import Routes
from dockmagic_runtime.containers import inspection, logoptions
from dockmagic_runtime.errors import InvalidParameter, Unauthorized
from dockmagic_runtime.events import FILTERS, fits
from dockmagic_runtime.filters import check
from dockmagic_runtime.images import listing
from dockmagic_runtime.kernel.cgroups import layout
from dockmagic_runtime.registry.failures import RegistryError

routes = Routes()
Json = dict[str, Any]

VERSION = ".".join(map(str, API_VERSION))
MINIMUM_VERSION = ".".join(map(str, MINIMUM_API_VERSION))
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@routes.get("/_ping")
@routes.head("/_ping")
async def ping(call: Call) -> web.StreamResponse:
    headers = {"Builder-Version": "1", "Swarm": "inactive", "Pragma": "no-cache"}
    headers["Cache-Control"] = "no-cache, no-store, must-revalidate"
    return web.Response(text="OK" if call.request.method == "GET" else "", headers=headers)


@routes.get("/version")
async def version(call: Call) -> web.StreamResponse:
    machine = os.uname()
    architecture = ARCHITECTURES.get(machine.machine, machine.machine)
    details = {
        "ApiVersion": VERSION,
        "MinAPIVersion": MINIMUM_VERSION,
        "Arch": architecture,
        "Os": "linux",
        "KernelVersion": machine.release,
        "PythonVersion": platform.python_version(),
        "Experimental": "true",
    }
    own = dockmagic_runtime.__version__
    return answer(
        {
            "Platform": {"Name": "dockmagic"},
            "Components": [
                {"Name": "Engine", "Version": own, "Details": details},
                {"Name": "dockmagic-runtime", "Version": own, "Details": {}},
            ],
            "Version": own,
            "ApiVersion": VERSION,
            "MinAPIVersion": MINIMUM_VERSION,
            "GitCommit": "",
            "GoVersion": "",
            "Os": "linux",
            "Arch": architecture,
            "KernelVersion": machine.release,
            "BuildTime": "",
        }
    )


@routes.get("/info")
async def info(call: Call) -> web.StreamResponse:
    services, machine = call.services, os.uname()
    containers = services.containers.records.all()
    states = [container.state.status for container in containers]
    config = services.config
    return answer(
        {
            "ID": services.id,
            "Containers": len(containers),
            "ContainersRunning": states.count("running"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
            "Images": len(services.images.list()),
            "Driver": "overlay2",
            "DriverStatus": [
                ["Backing Filesystem", _filesystem(config.data_root)],
                ["Supports d_type", "true"],
            ],
            "Plugins": {
                "Volume": ["local"],
                "Network": ["bridge", "host", "null"],
                "Authorization": None,
                "Log": list(logoptions.DRIVERS),
            },
            **_abilities(),
            "Debug": config.log_level == "debug",
            "NFd": len(os.listdir("/proc/self/fd")),  # noqa: PTH208
            "NGoroutines": 1,
            "SystemTime": timestamps.now(),
            "LoggingDriver": "json-file",
            "NEventsListener": services.events.listeners,
            "KernelVersion": machine.release,
            "OperatingSystem": _operating_system(),
            "OSVersion": "",
            "OSType": "linux",
            "Architecture": machine.machine,
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": _registries(list(config.registry_mirrors)),
            "NCPU": os.cpu_count(),
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "DockerRootDir": str(config.data_root),
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Name": machine.nodename,
            "Labels": [],
            "ExperimentalBuild": True,
            "ServerVersion": dockmagic_runtime.__version__,
            "Runtimes": {"runc": {"path": "dockmagic-runtime"}},
            "DefaultRuntime": "runc",
            "Swarm": {
                "NodeID": "",
                "NodeAddr": "",
                "LocalNodeState": "inactive",
                "ControlAvailable": False,
                "Error": "",
                "RemoteManagers": None,
            },
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "dockmagic",
            "ContainerdCommit": {"ID": "", "Expected": ""},
            "RuncCommit": {"ID": "", "Expected": ""},
            "InitCommit": {"ID": "", "Expected": ""},
            "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
            "Warnings": None,
        }
    )


def _abilities() -> Json:
    """What this kernel lets the engine do."""
    groups = layout()
    has = groups.controllers
    return {
        "CgroupDriver": "cgroupfs",
        "CgroupVersion": "2" if groups.unified else "1",
        "MemoryLimit": "memory" in has,
        "SwapLimit": "memory" in has and Path("/proc/swaps").exists(),
        "CpuCfsPeriod": "cpu" in has,
        "CpuCfsQuota": "cpu" in has,
        "CPUShares": "cpu" in has,
        "CPUSet": "cpuset" in has,
        "PidsLimit": "pids" in has,
        "OomKillDisable": not groups.unified and "memory" in has,
        "IPv4Forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1",
        "BridgeNfIptables": False,
        "BridgeNfIp6tables": False,
    }


def _registries(mirrors: list[str]) -> Json:
    return {
        "AllowNondistributableArtifactsCIDRs": [],
        "AllowNondistributableArtifactsHostnames": [],
        "InsecureRegistryCIDRs": ["127.0.0.0/8"],
        "IndexConfigs": {
            "docker.io": {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
        },
        "Mirrors": mirrors,
    }


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "Linux"


def _filesystem(path: Path) -> str:
    """The type of the file system that holds `path`, from its entry in /proc/self/mountinfo."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return "unknown"


@routes.get("/events")
async def events(call: Call) -> web.StreamResponse:
    filters = call.filters()
    check(filters, FILTERS)
    since, until = _moment(call, "since"), _moment(call, "until")
    stream = await JsonStream(call).open()
    async for event in call.services.events.subscribe(lambda event: fits(event, filters), since, until):
        await stream.send(event)
    return await stream.close()


def _moment(call: Call, name: str) -> int | None:
    text = call.text(name)
    try:
        return timestamps.parse_relative(text) if text else None
    except ValueError:
        raise InvalidParameter(f'failed to parse value as time or duration: "{text}"') from None


@routes.get("/system/df")
async def disk_use(call: Call) -> web.StreamResponse:
    services = call.services
    wanted = set(call.texts("type")) or {"container", "image", "volume", "build-cache"}
    found: Json = {"LayersSize": 0, "BuildCache": [], "BuilderSize": 0}
    if "image" in wanted:
        images = listing.summaries(services.images, {}, shared_size=True, containers=True)
        layers = {diff_id for image in services.images.list() for diff_id in image.diff_ids}
        found["LayersSize"] = services.layers.size_of(layers)
        found["Images"] = images
    if "build-cache" in wanted:
        found["BuildCache"] = await asyncio.to_thread(services.builder.disk_use)
        found["BuilderSize"] = sum(each["Size"] for each in found["BuildCache"] if not each["Shared"])
    if "container" in wanted:
        records = services.containers.records.all()
        found["Containers"] = [inspection.summary(each, services.containers, size=True) for each in records]
    if "volume" in wanted:
        found["Volumes"] = [
            volume.inspect()
            | {
                "UsageData": {
                    "RefCount": len(services.containers.records.users_of_volume(volume.name)),
                    "Size": volume.usage(),
                }
            }
            for volume in services.volumes.list()
        ]
    return answer(found)


@routes.post("/auth")
async def login(call: Call) -> web.StreamResponse:
    credentials = await call.body()
    if not all(isinstance(value, str | None) for value in credentials.values()):
        raise InvalidParameter("invalid JSON: credentials are strings")
    try:
        await call.services.registry.login(credentials.get("serveraddress") or "docker.io", credentials)
    except RegistryError as error:
        raise Unauthorized(f"login attempt failed: {error}") from error
    return answer({"Status": "Login Succeeded", "IdentityToken": ""})
