"""The builds of `images`, beside buildah: `python -m bench buildah`.

Buildah has no daemon: a build is a process, its start counts. It gets the context as a directory and the base
image from the same registry, ours the tar that a client would send; each of the two has a disk of its own.
"""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.engines import Engine, own_disk
from bench.images import NAME, build, packed, text
from bench.table import Row, interleaved
from tests.images.registry import Registry


def rows(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    if shutil.which("buildah") is None:
        raise SystemExit("buildah is missing: apt-get install buildah")
    few = max(3, times // 5)
    steps = "\n".join(f"RUN echo {number} > /{number}" for number in range(6))
    many = {f"files/{number // 100}/{number}": b"x" * 2000 for number in range(5000)}
    large = {f"files/{number}": text(75_000_000) for number in range(4)}
    found = []
    with tempfile.TemporaryDirectory(prefix="dockmagic-bench-") as folder, Registry() as registry:
        with own_disk(Path(folder) / "buildah") as disk:
            buildah = Buildah(disk, f"{registry.address}/library/busybox")
            for what, lines, files, nocache in (
                ("build of 6 RUN steps, no cache", steps, {}, True),
                ("the same from the cache", steps, {}, False),
                ("build with a COPY of 5,000 files", "COPY files /files", many, True),
                ("build with a COPY of 300 MB", "COPY files /files", large, True),
            ):
                context = disk / "context"
                for name, data in files.items():
                    (context / name).parent.mkdir(parents=True, exist_ok=True)
                    (context / name).write_bytes(data)
                context.mkdir(exist_ok=True)
                ours, theirs = interleaved(
                    engines, few, _timed(buildah, context, image, lines, files, nocache=nocache)
                )
                found.append(Row(f"{what}, Docker's column: buildah", ours, theirs, "ms"))
                shutil.rmtree(context)
    engines[0].api.remove_image(NAME, force=True)
    return found


class Buildah:
    """Its storage in a folder, and the base image in it."""

    def __init__(self, disk: Path, base: str) -> None:
        self.base = base
        self._command = ["buildah", "--root", str(disk / "root"), "--runroot", str(disk / "run")]
        self._command += ["--storage-driver", "overlay"]
        self.run("pull", "-q", "--tls-verify=false", base)

    def run(self, *arguments: str) -> None:
        subprocess.run([*self._command, *arguments], check=True, capture_output=True)

    def build(self, context: Path, lines: str, *, nocache: bool) -> float:
        (context.parent / "Dockerfile").write_text(f"FROM {self.base}\n{lines}\n")
        options = [
            "--layers",
            "--isolation",
            "oci",
            "--runtime",
            "runc",
            "--tls-verify=false",
            "-q",
            "-t",
            NAME,
        ]
        options += ["--no-cache"] if nocache else []
        began = time.perf_counter()
        self.run("bud", *options, "-f", str(context.parent / "Dockerfile"), str(context))
        return time.perf_counter() - began


def _timed(
    buildah: Buildah, context: Path, image: str, lines: str, files: dict[str, bytes], *, nocache: bool
) -> Callable[[Engine], float]:
    """Ours on the first engine; in the place of the second is buildah."""

    def once(engine: Engine) -> float:
        if engine.name != "ours":
            return buildah.build(context, lines, nocache=nocache)
        with packed({"Dockerfile": f"FROM {image}\n{lines}\n".encode(), **files}) as tar:
            return build(engine, tar, nocache=nocache)

    return once
