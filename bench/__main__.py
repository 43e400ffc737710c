"""`make bench`: measure and print one table. Options: --help.

Exit code 0 whether targets are met or not: the table says so.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import docker

from bench import workloads
from bench.engines import Engine, both, connect, started, started_dockerd
from bench.floor import floor
from bench.notebook import load_to_first_output
from tests.images.registry import Registry


@dataclass(frozen=True)
class Row:
    """One measured thing. `limit` holds for ours/Docker's where there is a Docker, else for ours alone."""

    what: str
    ours: float
    docker: float | None
    unit: str
    limit: float | None = None
    limit_text: str = ""
    floor: float | None = None

    @property
    def met(self) -> bool | None:
        if self.limit is None:
            return None
        return (self.ours if self.docker is None else self.ours / self.docker) <= self.limit

    def cells(self) -> tuple[str, ...]:
        ratio = "" if self.docker is None else _ratio(self.ours / self.docker)
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        return (
            self.what,
            self._text(self.ours),
            self._text(self.docker),
            ratio,
            self.limit_text,
            verdict,
            self._text(self.floor),
        )

    def _text(self, value: float | None) -> str:
        if value is None:
            return ""
        scale, unit = {"ms": (1e3, "ms"), "MB": (1e-6, "MB"), "%": (100.0, "%")}[self.unit]
        return f"{value * scale:.2f} {unit}"


def _ratio(value: float) -> str:
    return f"1/{1 / value:.1f}" if 0 < value < 0.5 else f"{value:.2f}"


def interleaved(engines: tuple[Engine, Engine], times: int, once: Callable[[Engine], float]) -> list[float]:
    """The median of each engine; the two take turns, and so does who goes first."""
    taken: dict[str, list[float]] = {engine.name: [] for engine in engines}
    for engine in engines:
        once(engine)  # not counted: first-time costs
    for turn in range(times):
        for engine in engines if turn % 2 == 0 else engines[::-1]:
            taken[engine.name].append(once(engine))
    return [statistics.median(taken[engine.name]) for engine in engines]


def timings(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    rows = []
    with floor() as nothing:
        for network, fraction in (("bridge", 12), ("none", 15)):
            ours, dockers = interleaved(engines, times, partial(_lifecycle, image, network))
            least = statistics.median(workloads.lifecycle(nothing, image, network) for _ in range(30))
            what = f"create+start+wait+logs+rm, network {network}"
            rows.append(Row(what, ours, dockers, "ms", 1 / fraction, f"<= 1/{fraction}", least))
        with (
            workloads.Crowd(engines[0], image, 1, 1) as mine,
            workloads.Crowd(engines[1], image, 1, 1) as theirs,
        ):
            running = {crowd.engine.name: crowd.containers[0] for crowd in (mine, theirs)}
            ours, dockers = interleaved(
                engines, times, lambda engine: workloads.execute(engine.api, running[engine.name])
            )
            least = statistics.median(workloads.execute(nothing, "0") for _ in range(30))
            rows.append(Row("exec in a running container", ours, dockers, "ms", 1 / 6, "<= 1/6", least))
    return rows


def _lifecycle(image: str, network: str, engine: Engine) -> float:
    return workloads.lifecycle(engine.api, image, network)


def crowds(engines: tuple[Engine, Engine], image: str, idle_seconds: float) -> list[Row]:
    seconds, memory, share = {}, {}, {}
    for engine in engines:
        with workloads.Crowd(engine, image, 40, 8) as crowd:
            seconds[engine.name] = crowd.seconds
            memory[engine.name] = crowd.memory_per_container()
            time.sleep(1)  # what starting them set off has settled
            share[engine.name] = workloads.idle_processor_share(engine, crowd.shims(), idle_seconds)
    ours, dockers = (engine.name for engine in engines)
    what = "processor use of the engine with 40 idle containers"
    return [
        Row("start 40 containers, 8 at a time", seconds[ours], seconds[dockers], "ms", 1 / 8, "<= 1/8"),
        Row("private memory of an idle container's shim", memory[ours], memory[dockers], "MB", 0.6, "<= 0.6"),
        Row(what, share[ours], share[dockers], "%", None, "none measurable"),
    ]


def starts(mirror: str, times: int) -> list[Row]:
    ours, dockers, cold = [], [], []
    for _ in range(times):
        with tempfile.TemporaryDirectory(prefix="dockmagic-bench-") as folder:
            root = Path(folder)
            began = time.perf_counter()
            with started(root, root / "log") as path:
                ours.append(time.perf_counter() - began)
                pull(connect(path), mirror, "busybox")
            cold.append(load_to_first_output(root, root / "engine.sock"))
        with tempfile.TemporaryDirectory(prefix="dockmagic-bench-") as folder:
            root = Path(folder)
            began = time.perf_counter()
            with started_dockerd(root, root / "log", "--bridge=none", "--iptables=false"):
                dockers.append(time.perf_counter() - began)
    return [
        Row("engine start, empty data root", statistics.median(ours), statistics.median(dockers), "ms"),
        Row(
            "cold notebook: %load_ext to first output", statistics.median(cold), None, "ms", 1.5, "<= 1500 ms"
        ),
    ]


def pull(api: docker.APIClient, mirror: str, tag: str) -> None:
    """Pull the busybox stand-in from the loopback registry and call it `tag`."""
    source = f"{mirror.removeprefix('http://')}/library/busybox"
    api.pull(source, tag="latest")
    if not api.tag(f"{source}:latest", tag, force=True):
        raise RuntimeError(f"the image could not be tagged {tag}")
    api.remove_image(f"{source}:latest")


def table(rows: list[Row]) -> str:
    head = ("what (median)", "ours", "Docker", "ratio", "target", "", "docker-py alone")
    cells = [head, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = []
    for line in cells:
        first = line[0].ljust(widths[0])
        lines.append(
            "  ".join([first, *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))])
        )
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join(line.rstrip() for line in lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Our engine beside Docker's.")
    parser.add_argument("--times", type=int, default=20, help="repetitions on each engine (%(default)s)")
    parser.add_argument(
        "--idle", type=float, default=5, help="seconds an idle engine is watched (%(default)s)"
    )
    parser.add_argument("--ours", type=Path, metavar="SOCKET", help="use this engine as ours; start none")
    parser.add_argument("--docker", type=Path, metavar="SOCKET", help="use this engine as Docker's")
    options = parser.parse_args()
    image = "dockmagic-bench-busybox"
    with Registry() as registry:
        with both(options.ours, options.docker) as engines:
            for engine in engines:
                version = engine.api.version()
                print(f"{engine.name}: {version.get('Version')} on {engine.socket}", file=sys.stderr)
                pull(engine.api, registry.mirror_url, image)
            try:
                rows = timings(engines, image, options.times) + crowds(engines, image, options.idle)
            finally:
                for path in {engine.socket for engine in engines}:
                    connect(path).remove_image(image)
        if options.ours is None:
            rows += starts(registry.mirror_url, times=3)
    print(table(rows))
    print(
        "\nCounted: memory is Private_* and swap (smaps_rollup) of the parent of each container's first"
        "\nprocess; processor use is that of the engine, its descendants and those parents; docker-py alone"
        "\nis the same calls to an aiohttp server that does nothing."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
