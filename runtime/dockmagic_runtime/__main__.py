"""`python -m dockmagic_runtime`: run an engine in the foreground.

The order matters: the spawner is forked while this process has one thread, no event loop and few modules, so
that every container starts from a small and quiet process. Only then are the server and the networks
imported.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from dockmagic_runtime.config import DEFAULT_DATA_ROOT, EngineConfig
from dockmagic_runtime.errors import EngineError, InvalidParameter
from dockmagic_runtime.process.spawner import Spawner

_CONFIG_FILE = Path("/etc/dockmagic/engine.json")
_LEVELS = ("debug", "info", "warning", "error")
_KEYS = ("data-root", "socket", "registry-mirrors", "insecure-registries", "log-level", "layer-limit")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 after SIGTERM or SIGINT, 1 with one line on stderr if it could not start."""
    options = _parser().parse_args(arguments)
    try:
        config = _configure(options)
        if os.geteuid() != 0:
            raise InvalidParameter(
                "the engine needs root to make namespaces and networks: start it with sudo, or point "
                "DOCKER_HOST at an engine that runs already"
            )
        from dockmagic_runtime import locking

        lock = locking.claim(config)
        spawner = Spawner.fork()
    except EngineError as error:
        return _fail(options.ready_fd, str(error))
    from dockmagic_runtime.serving import run

    try:
        return run(config, spawner, options.ready_fd)
    except EngineError as error:
        return _fail(options.ready_fd, str(error))
    finally:
        os.close(lock)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dockmagic engine",
        description="Run a container engine that serves the Docker Engine API on a unix socket.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--socket", metavar="PATH", help="where to listen (default: /run/dockmagic/engine.sock)"
    )
    parser.add_argument(
        "--data-root", metavar="DIR", help=f"images, containers, volumes (default: {DEFAULT_DATA_ROOT})"
    )
    parser.add_argument(
        "--registry-mirror",
        metavar="URL",
        action="append",
        help="try this before Docker Hub; may be repeated",
    )
    parser.add_argument(
        "--insecure-registry",
        metavar="HOST[:PORT]",
        action="append",
        help="speak to this registry without TLS or without checking it; may be repeated",
    )
    parser.add_argument("--log-level", choices=_LEVELS, help="what goes to stderr (default: info)")
    parser.add_argument(
        "--layer-limit",
        metavar="BYTES",
        help="refuse a layer, build context or archive of ADD that unpacks to more, as 20g (default: 100g)",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help=f"JSON with the keys {', '.join(_KEYS)} (default: {_CONFIG_FILE}, if it is there)",
    )
    parser.add_argument("--ready-fd", type=int, metavar="N", help=argparse.SUPPRESS)
    return parser


def _configure(options: argparse.Namespace) -> EngineConfig:
    """Options over file over defaults; raises InvalidParameter."""
    file = _read_file(options.config)
    data_root = Path(options.data_root or file.get("data-root") or DEFAULT_DATA_ROOT).absolute()
    socket = options.socket or file.get("socket")
    return EngineConfig(
        data_root=data_root,
        socket=Path(socket.removeprefix("unix://")).absolute() if socket else None,
        registry_mirrors=tuple(options.registry_mirror or file.get("registry-mirrors") or ()),
        insecure_registries=tuple(options.insecure_registry or file.get("insecure-registries") or ()),
        log_level=options.log_level or file.get("log-level") or "info",
        layer_limit=_bytes(options.layer_limit or file.get("layer-limit") or "100g"),
    )


def _bytes(text: str) -> int:
    """`20g`, `500m`, or a plain number."""
    match = re.fullmatch(r"(\d+)([kmgt]?)b?", text.lower())
    if not match or not int(match[1]):
        raise InvalidParameter(f"layer-limit must be a size such as 20g, not {text!r}")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2]]


def _read_file(name: str | None) -> dict[str, Any]:
    path = Path(name) if name else _CONFIG_FILE
    if not name and not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text())
    except OSError as error:
        raise InvalidParameter(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InvalidParameter(f"{path} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise InvalidParameter(f"{path} must hold one JSON object")
    unknown = sorted(set(settings) - set(_KEYS))
    if unknown:
        raise InvalidParameter(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(_KEYS)}")
    for key, value in settings.items():
        plural = key in ("registry-mirrors", "insecure-registries")
        if not (
            isinstance(value, list) and all(isinstance(v, str) for v in value)
            if plural
            else isinstance(value, str)
        ):
            raise InvalidParameter(f"{path}: {key} must be {'a list of strings' if plural else 'a string'}")
    if settings.get("log-level", "info") not in _LEVELS:
        raise InvalidParameter(f"{path}: log-level must be one of {', '.join(_LEVELS)}")
    return settings


def _fail(ready_fd: int | None, sentence: str) -> int:
    print(f"dockmagic engine: {sentence}", file=sys.stderr)  # noqa: T201
    if ready_fd is not None:
        os.write(ready_fd, f"{sentence}\n".encode())
    return 1


if __name__ == "__main__":
    sys.exit(main())
