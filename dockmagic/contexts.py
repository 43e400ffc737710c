"""Which engine the magics talk to: find one that answers, or start our own.

In this order: `DOCKMAGIC_SOCKET`; `DOCKER_HOST`; a dockmagic engine's own socket (root's under `/run`,
a user's under `$XDG_RUNTIME_DIR`); else start the embedded engine, a process of its own session that
outlives the kernel and serves every notebook of this user; where that is impossible (no Linux, no root,
runtime not installed), a Docker that answers on its usual socket. `%docker context use` chooses otherwise.

Environment, for CI and tests: `DOCKMAGIC_DATA_ROOT` (where a started engine keeps its things),
`DOCKMAGIC_SOCKET`, `DOCKMAGIC_REGISTRY_MIRROR` (base URLs, separated by blanks).

The connection is docker-py's, with one addition: the sockets of a running command are known, so that Stop
can shut them down (waiting.py). This works for unix sockets; over TCP or ssh an interrupted command ends
in the notebook at once, and its request ends when the engine answers it.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dockmagic.errors import DockmagicError, EngineUnavailable
from dockmagic.waiting import track

if TYPE_CHECKING:
    import docker

DOCKER_SOCKET = "unix:///var/run/docker.sock"
DATA_ROOT = Path("/var/lib/dockmagic")
FOREVER: Any = None  # docker-py's timeouts may be None, which its type stubs don't know
READY_TIMEOUT = 30.0  # seconds an engine may take to recover its state before we give up on it

NO_ROOT = (
    "dockmagic's engine needs root and this notebook runs as an ordinary user: run `sudo dockmagic engine` "
    "in a terminal and give it a socket you may open (DOCKMAGIC_SOCKET), "
    "or set DOCKER_HOST to a Docker or Podman."
)
NO_RUNTIME = (
    "No container engine answers and dockmagic-runtime is not installed: "
    "run `%pip install dockmagic-runtime`, or set DOCKER_HOST to a Docker or Podman."
)
NO_LINUX = (
    "dockmagic's engine runs on Linux only, and no other container engine answers: "
    "set DOCKER_HOST to a Docker or Podman."
)


@dataclass(frozen=True)
class Context:
    """A name for an engine, as in `docker context ls`. `tls` is docker-py's TLSConfig where one is needed."""

    name: str
    host: str
    description: str
    tls: Any = None

    @property
    def socket_path(self) -> Path | None:
        return Path(self.host.removeprefix("unix://")) if self.host.startswith("unix://") else None


class Contexts:
    """The engines this notebook knows, the one it uses, and the connection to it."""

    def __init__(self) -> None:
        self.current: Context | None = None
        self._client: docker.DockerClient | None = None
        self._engine: subprocess.Popen[bytes] | None = None

    def client(self) -> "docker.DockerClient":
        """The connection to the current engine, made when needed and again when the engine was replaced.

        Raises EngineUnavailable when none answers and none can be started.
        """
        if self.current is None:
            self.current = self.find()
        path = self.current.socket_path
        if path is not None and not answers(path):
            self._disconnect()
            if not self._is_embedded(self.current):
                raise EngineUnavailable(
                    f"Cannot connect to the engine at {self.current.host}. Is it running?", exit_code=125
                )
            self.start()
        if self._client is None:
            self._client = connect(self.current)
        return self._client

    def find(self) -> Context:
        """The engine to use when none was chosen; starts the embedded one if nothing answers."""
        if own := os.environ.get("DOCKMAGIC_SOCKET"):
            context = replace(embedded(), host=f"unix://{own}")
            return context if answers(Path(own)) else self._started(context)
        if os.environ.get("DOCKER_HOST"):
            return docker_default()
        for path in own_sockets():
            if answers(path):
                return replace(embedded(), host=f"unix://{path}")
        try:
            check_startable()
        except EngineUnavailable:
            fallback = docker_default()
            if fallback.socket_path and answers(fallback.socket_path):
                return fallback
            raise
        return self._started(embedded())

    def use(self, name: str) -> Context:
        """Talk to the engine of context `name` from now on."""
        known = {context.name: context for context in self.all()}
        if name not in known:
            raise DockmagicError(f'context "{name}": context not found')
        self._disconnect()
        self.current = known[name]
        return self.current

    def all(self) -> list[Context]:
        """Our engine, Docker's default, and the contexts of Docker's own configuration."""
        from docker.context import ContextAPI

        ours = embedded()
        if self.current is not None and self._is_embedded(self.current):
            ours = self.current
        found = [ours, docker_default()]
        for theirs in ContextAPI.contexts():
            if theirs.name != "default":
                description = str(theirs.Metadata.get("Description", "")) if theirs.Metadata else ""
                found.append(Context(theirs.name, str(theirs.Host), description, theirs.TLSConfig))
        return found

    def start(self) -> None:
        """Start the embedded engine of the current context; returns when it serves."""
        assert self.current is not None
        self._started(self.current)

    def close(self) -> None:
        """Drop the connection. Engine and containers stay: they belong to the user, not to a kernel."""
        self._disconnect()
        self.current = None

    def _is_embedded(self, context: Context) -> bool:
        return context.name == "dockmagic"

    def _disconnect(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _started(self, context: Context) -> Context:
        path = context.socket_path
        assert path is not None
        check_startable()
        if self._engine is not None:
            self._engine.poll()  # reaps the one that died
        with starting_alone() as log:
            if not answers(path):
                self._engine = start_engine(path, log)
        return context


def embedded() -> Context:
    """Our own engine, on the socket it uses by default or under `DOCKMAGIC_DATA_ROOT`."""
    path = os.environ.get("DOCKMAGIC_SOCKET") or own_sockets()[0]
    return Context("dockmagic", f"unix://{path}", "dockmagic's own engine")


def docker_default() -> Context:
    """What the `docker` command would talk to: DOCKER_HOST or the usual socket."""
    host = os.environ.get("DOCKER_HOST") or DOCKER_SOCKET
    tls = None
    if os.environ.get("DOCKER_TLS_VERIFY"):
        from docker.utils import kwargs_from_env

        tls = kwargs_from_env().get("tls")
    return Context("default", host, "DOCKER_HOST, or the Docker of this machine", tls)


def data_root() -> Path:
    return Path(os.environ.get("DOCKMAGIC_DATA_ROOT", DATA_ROOT))


def own_sockets() -> list[Path]:
    """Where a dockmagic engine listens, the one we would start first.

    An engine with another data root than the default has a run root named after it, so that two can run
    side by side; the name is computed here as in the runtime, of which this half knows nothing else.
    """
    root = data_root()
    if root != DATA_ROOT:
        instance = hashlib.sha256(str(root).encode()).hexdigest()[:6]
        return [Path(f"/run/dockmagic-{instance}/engine.sock")]
    sockets = [Path("/run/dockmagic/engine.sock")]
    if runtime_dir := os.environ.get("XDG_RUNTIME_DIR"):
        sockets.append(Path(runtime_dir) / "dockmagic/engine.sock")
    return sockets


def answers(path: Path) -> bool:
    """Whether something accepts connections on the unix socket at `path`."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def check_startable() -> None:
    """Raise EngineUnavailable, saying what to do, where the embedded engine cannot run."""
    if not sys.platform.startswith("linux"):
        raise EngineUnavailable(NO_LINUX, exit_code=125)
    if importlib.util.find_spec("dockmagic_runtime") is None:
        raise EngineUnavailable(NO_RUNTIME, exit_code=125)
    if os.geteuid() != 0:
        raise EngineUnavailable(NO_ROOT, exit_code=125)


@contextlib.contextmanager
def starting_alone() -> Iterator[Path]:
    """Hold the lock for starting an engine, so that two kernels start one. Yields the log file's path."""
    root = data_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = os.open(root / "start.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EngineUnavailable(
            f"The data root {root} is not writable: {error.strerror}. "
            "Set DOCKMAGIC_DATA_ROOT to a directory that is.",
            exit_code=125,
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield root / "engine.log"
    finally:
        os.close(lock)


def start_engine(path: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Start an engine on `path` and wait until it serves. Raises EngineUnavailable with its own last line."""
    command = [sys.executable, "-m", "dockmagic_runtime", "--socket", str(path)]
    if "DOCKMAGIC_DATA_ROOT" in os.environ:
        command += ["--data-root", str(data_root())]
    for mirror in os.environ.get("DOCKMAGIC_REGISTRY_MIRROR", "").split():
        command += ["--registry-mirror", mirror]
    read_end, write_end = os.pipe()
    with log.open("ab") as output, os.fdopen(read_end, "rb") as ready:
        try:
            engine = subprocess.Popen(
                [*command, "--ready-fd", str(write_end)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(write_end,),
                start_new_session=True,  # Stop in the notebook must not reach it, nor the kernel's end
                cwd="/",
            )
        finally:
            os.close(write_end)
        if not select.select([ready], [], [], READY_TIMEOUT)[0]:
            engine.kill()
            engine.wait()
            raise EngineUnavailable(
                f"The engine did not come up in {READY_TIMEOUT:.0f} s; see {log}", exit_code=125
            )
        line = ready.readline().decode(errors="replace").strip()
    if not answers(path):
        code = engine.wait()
        raise EngineUnavailable(line or f"The engine exited with code {code}; see {log}", exit_code=125)
    return engine


def connect(context: Context) -> "docker.DockerClient":
    """A docker-py client whose unix sockets are known to the command that uses them."""
    import docker
    from docker.transport import UnixHTTPAdapter
    from docker.transport.unixconn import UnixHTTPConnection, UnixHTTPConnectionPool

    class Connection(UnixHTTPConnection):
        def connect(self) -> None:
            super().connect()
            if self.sock is not None:
                track(self.sock)

        def request(self, *args: Any, **kwargs: Any) -> None:
            if self.sock is not None:
                track(self.sock)
            super().request(*args, **kwargs)

    class Pool(UnixHTTPConnectionPool):
        def _new_conn(self) -> Any:
            return Connection(self.base_url, self.socket_path, FOREVER)

    class Adapter(UnixHTTPAdapter):
        def get_connection(self, url: Any, proxies: Any = None) -> Pool:
            # One pool for all of the engine's addresses (docker-py has one each): connections are reused.
            with self.pools.lock:
                pool = self.pools.get("engine")
                if pool is None:
                    pool = Pool("http+docker://localhost", self.socket_path, self.timeout, self.max_pool_size)
                    self.pools["engine"] = pool
            return pool

    # No read timeout: a wait ends when it is over, when the user stops it, or when the engine goes.
    client: Any = docker.DockerClient(base_url=context.host, version="auto", timeout=FOREVER, tls=context.tls)
    if context.socket_path is not None:
        adapter = Adapter(f"http+unix://{context.socket_path}", timeout=FOREVER)
        client.api._custom_adapter.close()
        client.api._custom_adapter = adapter
        client.api.mount("http+docker://", adapter)
        # Proxies, .netrc and certificates of the environment are for the network; requests would look for
        # them at every call (0.15 ms).
        client.api.trust_env = False
    return client
