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

from bench.cases import Case, cases
from bench.engines import Engine, own_disk
from bench.images import NAME, build, forget, packed
from bench.table import Row, interleaved
from tests.images.registry import Registry


def rows(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    if shutil.which("buildah") is None:
        raise SystemExit("buildah is missing: apt-get install buildah")
    few = max(3, times // 5)
    found = []
    with tempfile.TemporaryDirectory(prefix="dockmagic-bench-") as folder, Registry() as registry:
        with own_disk(Path(folder) / "buildah") as disk:
            buildah = Buildah(disk, f"{registry.address}/library/busybox")
            for case in cases(disk / "context"):
                ours, theirs = interleaved(engines, few, _timed(buildah, case, image))
                found.append(Row(f"{case.what}, Docker's column: buildah", ours, theirs, "ms"))
                forget(engines)
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

    def build(self, case: Case) -> float:
        dockerfile = case.context.parent / "Dockerfile"
        dockerfile.write_text(f"FROM {self.base}\n{case.lines}\n")
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
        options += ["--no-cache"] if case.nocache else []
        began = time.perf_counter()
        self.run("bud", *options, "-f", str(dockerfile), str(case.context))
        return time.perf_counter() - began


def _timed(buildah: Buildah, case: Case, image: str) -> Callable[[Engine], float]:
    """Ours on the first engine; in the place of the second is buildah."""

    def once(engine: Engine) -> float:
        if engine.name != "ours":
            return buildah.build(case)
        dockerfile = f"FROM {image}\n{case.lines}\n".encode()
        with packed({"Dockerfile": dockerfile, **case.files}) as tar:
            return build(engine, tar, nocache=case.nocache)

    return once
