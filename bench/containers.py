"""The life of containers, many at once, an engine that idles, and the start of an engine."""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

from bench import workloads
from bench.engines import Engine, connect, pull, started, started_dockerd
from bench.floor import floor
from bench.notebook import load_to_first_output
from bench.table import Row, interleaved


def rows(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    return timings(engines, image, times) + crowds(engines, image)


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


_IDLE = 5.0  # seconds an idle engine is watched


def crowds(engines: tuple[Engine, Engine], image: str) -> list[Row]:
    seconds, memory, share = {}, {}, {}
    for engine in engines:
        with workloads.Crowd(engine, image, 40, 8) as crowd:
            seconds[engine.name] = crowd.seconds
            memory[engine.name] = crowd.memory_per_container()
            time.sleep(1)  # what starting them set off has settled
            share[engine.name] = workloads.idle_processor_share(engine, crowd.shims(), _IDLE)
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
