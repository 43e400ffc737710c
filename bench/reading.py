"""Reading back: a long log, and the list of many containers."""

import time

from bench.engines import Engine
from bench.table import Row, interleaved
from bench.workloads import Crowd

_LINES = 200_000
_LISTED = 50


def rows(engines: tuple[Engine, Engine], image: str, times: int) -> list[Row]:
    return [_log(engines, image, max(3, times // 4)), _list(engines, image, times)]


def _log(engines: tuple[Engine, Engine], image: str, times: int) -> Row:
    """Lines that a container wrote, read back whole by its ending."""
    command = ["sh", "-c", f"seq 1 {_LINES}"]
    made = {}
    try:
        for engine in engines:
            made[engine.name] = engine.api.create_container(image, command)["Id"]
            engine.api.start(made[engine.name])
            engine.api.wait(made[engine.name])

        def read(engine: Engine) -> float:
            began = time.perf_counter()
            # Whole, without looking at it: what docker-py does with each line is not the engine's.
            url = f"http+docker://localhost/containers/{made[engine.name]}/logs"
            response = engine.api.get(url, params={"stdout": 1, "stderr": 1})
            took = time.perf_counter() - began
            if response.content.count(b"\n") != _LINES:
                raise AssertionError(f"{engine.name} gave {len(response.content)} bytes of log")
            return took

        ours, dockers = interleaved(engines, times, read)
    finally:
        for engine in engines:
            if engine.name in made:
                engine.api.remove_container(made[engine.name])
    return Row(f"{_LINES:,} lines of log read back", ours, dockers, "ms", 0.3, "<= 0.3")


def _list(engines: tuple[Engine, Engine], image: str, times: int) -> Row:
    with Crowd(engines[0], image, _LISTED, 8), Crowd(engines[1], image, _LISTED, 8):

        def listed(engine: Engine) -> float:
            began = time.perf_counter()
            found = engine.api.containers()
            took = time.perf_counter() - began
            if len(found) < _LISTED:
                raise AssertionError(f"{engine.name} lists {len(found)} containers")
            return took

        ours, dockers = interleaved(engines, times, listed)
    return Row(f"list {_LISTED} running containers", ours, dockers, "ms", 1.0, "<= 1")
