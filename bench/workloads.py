"""What is timed: each function does one thing once to one engine through docker-py and returns seconds."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import docker

from bench.engines import Engine, parent_of, private_memory, processor_time

IDLE = ["sleep", "100000"]


def lifecycle(api: docker.APIClient, image: str, network: str) -> float:
    """create + start + wait + logs + rm of a container that prints one line."""
    began = time.perf_counter()
    container = api.create_container(image, ["echo", "hello"], host_config={"NetworkMode": network})["Id"]
    api.start(container)
    status = api.wait(container)
    output = api.logs(container)
    api.remove_container(container)
    took = time.perf_counter() - began
    if status["StatusCode"] != 0 or output != b"hello\n":
        raise AssertionError(f"the container ended with {status} and printed {output!r}")
    return took


def execute(api: docker.APIClient, container: str) -> float:
    """A command in a running container: create, start with its output, inspect for its exit code."""
    began = time.perf_counter()
    exec_id = api.exec_create(container, ["echo", "hello"])["Id"]
    output = api.exec_start(exec_id)
    code = api.exec_inspect(exec_id)["ExitCode"]
    took = time.perf_counter() - began
    if code != 0 or output != b"hello\n":
        raise AssertionError(f"the command ended with {code} and printed {output!r}")
    return took


class Crowd:
    """Idle containers of one engine, started `at_once` at a time; removed at the end."""

    def __init__(self, engine: Engine, image: str, count: int, at_once: int) -> None:
        self.engine = engine
        self._image = image
        self._count = count
        self._at_once = at_once
        self.containers: list[str] = []

    def __enter__(self) -> "Crowd":
        clients = [self.engine.another_client() for _ in range(self._at_once)]

        def start(number: int) -> None:
            api = clients[number % self._at_once]
            container = api.create_container(self._image, IDLE, host_config={"NetworkMode": "bridge"})["Id"]
            self.containers.append(container)
            api.start(container)

        began = time.perf_counter()
        try:
            with ThreadPoolExecutor(self._at_once) as threads:
                for _ in threads.map(start, range(self._count)):
                    pass
        except BaseException:
            self.remove()
            raise
        finally:
            for api in clients:
                api.close()
        self.seconds = time.perf_counter() - began
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()

    def remove(self) -> None:
        for container in self.containers:
            self.engine.api.remove_container(container, force=True)

    def shims(self) -> list[int]:
        """The process that watches over each container: the parent of its first process."""
        return [
            parent_of(self.engine.api.inspect_container(each)["State"]["Pid"]) for each in self.containers
        ]

    def memory_per_container(self) -> float:
        """Private bytes of the shims, per container."""
        return sum(private_memory(pid) for pid in set(self.shims())) / len(self.containers)


def idle_processor_share(engine: Engine, shims: list[int], seconds: float) -> float:
    """The part of one processor that an engine with idle containers uses while nobody asks it anything."""
    pids = sorted({*engine.processes(), *shims})
    before = processor_time(pids)
    time.sleep(seconds)
    return (processor_time(pids) - before) / (seconds * 1e9)
