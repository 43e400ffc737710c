"""Images: building them, pulling and pushing them, unpacking many files."""

import io
import os
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bench.engines import Engine
from bench.table import Row, interleaved
from tests.images.registry import Registry

NAME = "dockmagic-bench-built"
_MB = 1_000_000


def rows(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    few = max(3, times // 5)
    return [
        *_steps(engines, image, few),
        *_copies(engines, image, few),
        *_transfers(engines, max(3, times // 7)),
    ]


def _steps(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    lines = [f"FROM {image}", *(f"RUN echo {number} > /{number}" for number in range(6))]
    with packed({"Dockerfile": "\n".join(lines).encode()}) as context:
        fresh, dockers_fresh = interleaved(
            engines, times, lambda engine: build(engine, context, nocache=True)
        )
        cached, dockers_cached = interleaved(engines, times * 2, lambda engine: build(engine, context))
    forget(engines)
    return [
        Row("build of 6 RUN steps, no cache", fresh, dockers_fresh, "ms", 1 / 12, "1/12"),
        Row("the same from the cache", cached, dockers_cached, "ms", 0.5, "<= 0.5"),
    ]


def _copies(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    dockerfile = f"FROM {image}\nCOPY files /files\n".encode()
    found = []
    many = {f"files/{number // 100}/{number}": b"x" * 2000 for number in range(5000)}
    large = {f"files/{number}": text(75 * _MB) for number in range(4)}
    for what, files, limit, told in (
        ("build with a COPY of 5,000 files", many, 1 / 8, "1/8"),
        ("build with a COPY of 300 MB", large, 1 / 3, "1/3"),
    ):
        with packed({"Dockerfile": dockerfile, **files}) as context:
            ours, dockers = interleaved(engines, times, lambda engine: build(engine, context, nocache=True))
        found.append(Row(what, ours, dockers, "ms", limit, told))
        forget(engines)
    return found


def _transfers(engines: tuple[Engine, Engine], times: int) -> list[Row]:
    layers = {f"{number}": text(40 * _MB) for number in range(6)}
    lines = ["FROM scratch", *(f"COPY {name} /{name}" for name in layers)]
    files = {f"files/{number // 200}/{number}": b"x" * 200 for number in range(50_000)}
    with (
        packed({"Dockerfile": "\n".join(lines).encode(), **layers}) as six,
        packed({"Dockerfile": b"FROM scratch\nCOPY files /files\n", **files}) as many,
    ):
        ours, dockers = interleaved(engines, times, lambda engine: _push(engine, six))
        found = [Row("push of 6 layers, 240 MB", ours, dockers, "ms", 0.6, "<= 0.6")]
        for what, context, limit, told in (
            ("pull of 6 layers, 240 MB", six, 0.6, "<= 0.6"),
            ("pull of 50,000 files", many, 1.0, "<= 1"),
        ):
            with _registry() as registry:
                name = f"{registry}/{NAME}"
                build(engines[1], context, tag=name)
                _checked(engines[1].api.push(name, stream=True, decode=True))
                forget(engines, name)
                ours, dockers = interleaved(engines, times, lambda engine: _pull(engine, name))  # noqa: B023
            found.append(Row(what, ours, dockers, "ms", limit, told))
    return found


def build(engine: Engine, context: IO[bytes], *, nocache: bool = False, tag: str = NAME) -> float:
    context.seek(0)
    began = time.perf_counter()
    _checked(
        engine.api.build(fileobj=context, custom_context=True, nocache=nocache, tag=tag, rm=True, decode=True)
    )
    return time.perf_counter() - began


def forget(engines: tuple[Engine, Engine], name: str = NAME) -> None:
    """Remove what was built, and what a build keeps."""
    for engine in engines:
        for image in engine.api.images(name):
            engine.api.remove_image(image["Id"], force=True)
        engine.api.prune_images()
        engine.api.prune_builds(all=True)


def _push(engine: Engine, context: IO[bytes]) -> float:
    """Of layers that were never pushed, to a registry that has none."""
    with _registry() as registry:
        name = f"{registry}/{NAME}"
        build(engine, context, nocache=True, tag=name)
        began = time.perf_counter()
        _checked(engine.api.push(name, stream=True, decode=True))
        took = time.perf_counter() - began
    engine.api.remove_image(name, force=True)
    return took


def _pull(engine: Engine, name: str) -> float:
    began = time.perf_counter()
    _checked(engine.api.pull(name, "latest", stream=True, decode=True))
    took = time.perf_counter() - began
    engine.api.remove_image(name, force=True)
    return took


def _checked(messages: Iterator[dict[str, str]]) -> None:
    for message in messages:
        if "error" in message:
            raise AssertionError(message["error"])


@contextmanager
def _registry() -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="dockmagic-bench-") as storage,
        Registry(Path(storage)) as registry,
    ):
        yield registry.address


@contextmanager
def packed(files: Mapping[str, bytes]) -> Iterator[IO[bytes]]:
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=spool, mode="w") as tar:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size, member.mtime = len(data), 1_700_000_000
                tar.addfile(member, io.BytesIO(data))
        yield spool


def text(size: int) -> bytes:
    """Bytes that pack to about half, as those of programs do."""
    return os.urandom(size // 2).hex().encode()
