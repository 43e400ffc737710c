"""A real registry (Debian's docker-registry) and a misbehaving one, both on loopback, for one test each."""

import asyncio
import base64
import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from aiohttp import web

USER, PASSWORD = "alice", "open sesame"
# bcrypt of PASSWORD, cost 5: what `htpasswd -Bbn -C 5 alice 'open sesame'` prints.
HTPASSWD = "alice:$2b$05$7Sw9Xu1V69Z6SH8GXB/57u0Pfu/3sWubGHROn9hNLjSZJSyDj1sai\n"


def tool(name: str) -> str:
    """The path of a program that a test needs; absent, the test fails and says how to get it."""
    path = shutil.which(name)
    if path is None:
        package = {"docker-registry": "docker-registry", "docker": "docker-cli"}.get(name, name)
        raise AssertionError(f"{name} is not installed: apt-get install {package}")
    return path


def run(*command: str, **options: object) -> str:
    """Run a program to its end; its output. Fails with what it printed."""
    done = subprocess.run(
        [tool(command[0]), *command[1:]], capture_output=True, text=True, timeout=60, **options
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def registry(
    folder: Path, *, address: str = "127.0.0.1", password: bool = False, tls: tuple[Path, Path] | None = None
) -> Iterator[str]:
    """A docker-registry for as long as the block lasts; gives `host:port`."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port = probe.getsockname()[1]
    config: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}, "delete": {"enabled": True}},
        "http": {"addr": f"{address}:{port}"},
    }
    if tls:
        certificate, key = tls
        config["http"]["tls"] = {"certificate": str(certificate), "key": str(key)}  # type: ignore[index]
    if password:
        (folder / "htpasswd").write_text(HTPASSWD)
        config["auth"] = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    (folder / "registry.yml").write_text(json.dumps(config))
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen(
            [tool("docker-registry"), "serve", str(folder / "registry.yml")], stdout=log, stderr=log
        )
        try:
            _wait_for_port(process, address, port, folder / "registry.log")
            yield f"{address}:{port}"
        finally:
            process.terminate()
            process.wait()


def _wait_for_port(process: subprocess.Popen[bytes], address: str, port: int, log: Path) -> None:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((address, port), 1):
            return
        time.sleep(0.02)
    raise AssertionError(f"docker-registry does not listen: {log.read_text()}")


class SilentRegistry:
    """Says that it is a registry, and then nothing to anybody, however long they wait.

    `asked` is set when somebody waits, `let_go` when one of them has given up.
    """

    def __init__(self) -> None:
        self.asked, self.let_go = asked, let_go = threading.Event(), threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if self.path == "/v2/":
                    self.send_response(200)
                    self.send_header("Content-Length", "2")
                    self.end_headers()
                    self.wfile.write(b"{}")
                    return
                asked.set()
                self.connection.recv(1)
                let_go.set()
                self.close_connection = True

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "SilentRegistry":
        threading.Thread(target=self._server.serve_forever).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Faults:
    """What the next answers of a `FaultyRegistry` do wrong; blobs only from 10 kB on, not configs."""

    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Answers (status, headers) given instead, in order."""
    cut_at: list[int] = field(default_factory=list)
    """Blob answers that break off after so many bytes."""
    ignore_range: bool = False
    stall: asyncio.Event | None = None
    """Blob answers wait for it after their first bytes."""


@dataclass
class FaultyRegistry:
    """The part of the distribution protocol that a pull needs, from memory, with faults on demand."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    token: str | None = None
    """If set: this bearer token is asked for, and `/token` gives it, or `given` instead."""
    given: str = ""
    challenge_error: str = ""
    address: str = ""

    def add_blob(self, data: bytes) -> str:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def add_manifest(self, name: str, media_type: str, document: object) -> str:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        self.manifests[name] = self.manifests[digest] = (media_type, data)
        return digest

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["FaultyRegistry"]:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        self.address = f"127.0.0.1:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path, request.headers.get("Range")))
        self.authorizations.append(request.headers.get("Authorization"))
        if request.path == "/token":
            return self._token(request)
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            error = (
                f',error="{self.challenge_error}"' if self.challenge_error and len(self.requests) > 2 else ""
            )
            realm = f'Bearer realm="http://{self.address}/token",service="faulty"{error}'
            return _error(401, "UNAUTHORIZED", "authentication required", {"WWW-Authenticate": realm})
        if request.path == "/v2/":
            return web.json_response({})
        if self.faults.statuses:
            status, headers = self.faults.statuses.pop(0)
            return web.Response(status=status, headers=headers)
        kind, _, name = request.path.rpartition("/")
        if kind.endswith("/manifests") and name in self.manifests:
            media_type, data = self.manifests[name]
            return web.Response(body=data, content_type=media_type)
        if kind.endswith("/manifests"):
            return _error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        if kind.endswith("/tags"):
            names = sorted(name for name in self.manifests if not name.startswith("sha256:"))
            return web.json_response({"tags": names})
        if name in self.blobs:
            return await self._blob(request, self.blobs[name])
        return _error(404, "BLOB_UNKNOWN", "blob unknown to registry")

    def _token(self, request: web.Request) -> web.Response:
        given = request.headers.get("Authorization")
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if given not in (None, wanted):
            return web.json_response({"details": "incorrect username or password"}, status=401)
        return web.json_response({"token": self.given or self.token, "expires_in": 300})

    async def _blob(self, request: web.Request, data: bytes) -> web.StreamResponse:
        faults = self.faults
        is_layer = len(data) > 10_000
        start = request.http_range.start or 0
        if faults.ignore_range:
            start = 0
        body = data[start:]
        response = web.StreamResponse(
            status=206 if start else 200, headers={"Content-Length": str(len(body))}
        )
        await response.prepare(request)
        if faults.stall and is_layer:
            await response.write(body[: len(body) // 2])
            await faults.stall.wait()
            body = body[len(body) // 2 :]
        if faults.cut_at and is_layer:
            await response.write(body[: faults.cut_at.pop(0)])
            assert request.transport
            request.transport.close()
            return response
        await response.write(body)
        return response


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"errors": [{"code": code, "message": message}]}, status=status, headers=headers)
