"""The builds of `images`, beside Docker's own BuildKit: `python -m bench buildkit`.

BuildKit is in the dockerd that is Docker's column elsewhere; to drive it, Debian's docker command 20.10 needs
a variable only (later ones need docker-buildx). Both sides are that one command on one context directory,
timed from its start to its end; ours with DOCKER_BUILDKIT=0, where it sends the whole context as a tar.

BuildKit keeps the context that it was sent and is then sent only what changed. So a COPY is measured twice:
of a context that is new to both (their caches are emptied before, not timed), and of one that BuildKit has.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.cases import Case, cases
from bench.engines import Engine
from bench.images import NAME, forget
from bench.table import Row, interleaved

_COMMAND = Path("/usr/bin/docker")


def rows(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    if not _COMMAND.exists():
        raise SystemExit("the docker command is missing: apt-get install docker.io")
    few = max(3, times // 5)
    found = []
    with tempfile.TemporaryDirectory(prefix="dockmagic-bench-") as folder:
        for case in cases(Path(folder) / "context"):
            (case.context / "Dockerfile").write_text(f"FROM {image}\n{case.lines}\n")
            contexts = {"": True, ", which it has": False} if case.files else {"": False}
            for which, new in contexts.items():
                ours, theirs = interleaved(engines, few, _timed(case, new=new))
                found.append(Row(f"{case.what}{which}, Docker's column: BuildKit", ours, theirs, "ms"))
            forget(engines)
    return found


def _timed(case: Case, *, new: bool) -> Callable[[Engine], float]:
    """`new`: nothing of the context is known."""
    options = ["-q", "-t", NAME, *(["--no-cache"] if case.nocache else [])]

    def once(engine: Engine) -> float:
        if new:
            engine.api.prune_builds(all=True)
            os.sync()  # what that has left to the kernel is not for the build to wait for
        environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{engine.socket}",
            "DOCKER_BUILDKIT": "0" if engine.name == "ours" else "1",
        }
        began = time.perf_counter()
        subprocess.run(
            [_COMMAND, "build", *options, case.context],
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - began

    return once
