"""Push into a real registry, and back."""

import asyncio
import hashlib
import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
from aiohttp import web
from dockmagic_runtime.errors import EngineError, NotFound, Unauthorized
from dockmagic_runtime.images.blobs import blob_for
from dockmagic_runtime.images.push import push, push_all
from dockmagic_runtime.oci.reference import parse_reference

from tests.runtime.images.conftest import Bench
from tests.runtime.images.made import small
from tests.runtime.images.test_pull import seed
from tests.runtime.registry.servers import PASSWORD, USER, registry, run


async def test_an_image_built_here_is_pushed(bench: Bench, tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        name = parse_reference(f"{address}/mine:v1")
        made = bench.build("one", "two", names=(name.familiar(),))
        pushed = await push(bench.images, bench.registry, name, progress=bench.messages.append)
        inspected = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"docker://{address}/mine:v1"))
        assert inspected["Digest"] == pushed
        assert bench.messages[0] == {"status": f"The push refers to repository [{address}/mine]"}
        told = [message.get("status") for message in bench.messages]
        assert told.count("Pushed") == 2
        assert bench.messages[-1]["aux"]["Digest"] == pushed
        assert bench.images.get(made.id).repo_digests == [f"{address}/mine@{pushed}"]
        bench.messages.clear()
        assert await push(bench.images, bench.registry, name, progress=bench.messages.append) == pushed
        assert [message.get("status") for message in bench.messages].count("Layer already exists") == 2
        other = Bench.at(tmp_path / "other")
        assert (await other.pull(f"{address}/mine:v1")).id == made.id
        await other.registry.close()


@pytest.mark.parametrize("form", ["oci", "v2s2"])
async def test_what_was_pulled_keeps_its_digest(bench: Bench, tmp_path: Path, form: str) -> None:
    made = small()
    with registry(tmp_path) as address:
        seed(made, tmp_path, f"{address}/theirs:v1", "--format", form)
        image = await bench.pull(f"{address}/theirs:v1")
        bench.images.tag(image, parse_reference(f"{address}/copy:v2"))
        pushed = await push(bench.images, bench.registry, parse_reference(f"{address}/copy:v2"))
    assert image.repo_digests == [f"{address}/theirs@{pushed}"]


async def test_all_tags(bench: Bench, tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        bench.build("1", names=(f"{address}/mine:v1", f"{address}/mine:v2"))
        name = parse_reference(f"{address}/mine", default_tag=None)
        assert len(await push_all(bench.images, bench.registry, name)) == 2
        tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{address}/mine"))
    assert tags["Tags"] == ["v1", "v2"]


async def test_refusals(bench: Bench, tmp_path: Path) -> None:
    with registry(tmp_path, password=True) as address:
        name = parse_reference(f"{address}/mine:v1")
        with pytest.raises(NotFound, match=f"An image does not exist locally with the tag: {address}/mine"):
            await push(bench.images, bench.registry, name)
        bench.build("1", names=(name.familiar(),))
        with pytest.raises(EngineError, match=rf"^no basic auth credentials \(log in to {address} first\)$"):
            await push(bench.images, bench.registry, name)
        with pytest.raises(Unauthorized, match="unauthorized: authentication required"):
            await push(bench.images, bench.registry, name, {"username": USER, "password": "wrong"})
        await push(bench.images, bench.registry, name, {"username": USER, "password": PASSWORD})
        await bench.registry.login(address, {"username": USER, "password": PASSWORD})
        sentence = f"login attempt to http://{address}/v2/ failed with status: 401 Unauthorized"
        with pytest.raises(Unauthorized, match=re.escape(sentence)):
            await bench.registry.login(address, {"username": USER, "password": "wrong"})


class Uploads:
    """A registry's upload part, that breaks the first upload of a layer off after some bytes."""

    def __init__(self, cut_at: int, *, resumes: bool) -> None:
        self.cut_at, self.resumes = cut_at, resumes
        self.parts: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.manifest = b""
        self.sent: list[tuple[str, int]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        path, method = request.path, request.method
        if path == "/v2/":
            return web.json_response({})
        if path.endswith("/blobs/uploads/"):
            self.parts[str(len(self.parts))] = b""
            return web.Response(status=202, headers={"Location": f"{path}{len(self.parts) - 1}"})
        if "/blobs/uploads/" in path:
            return await self.upload(request, path.rpartition("/")[2])
        if "/blobs/" in path:
            return web.Response(status=200 if path.rpartition("/")[2] in self.blobs else 404)
        if method == "PUT":
            self.manifest = await request.read()
            return web.Response(status=201)
        return web.Response(status=404)

    async def upload(self, request: web.Request, name: str) -> web.StreamResponse:
        if request.method == "GET":
            if not self.resumes:
                return web.Response(status=404)
            last = max(len(self.parts[name]) - 1, 0)
            return web.Response(status=204, headers={"Location": request.path, "Range": f"0-{last}"})
        length = request.content_length or 0
        received = bytearray()
        async for chunk in request.content.iter_any():
            received += chunk
            if self.cut_at and length > 10_000 and len(received) >= self.cut_at:
                self.parts[name] += bytes(received[: self.cut_at])
                self.cut_at = 0
                assert request.transport
                request.transport.close()
                return web.Response()
        self.sent.append((request.method, len(received)))
        self.parts[name] += bytes(received)
        if request.method == "PATCH":
            assert request.headers["Content-Range"].startswith(f"{len(self.parts[name]) - length}-")
            return web.Response(status=202, headers={"Location": request.path})
        digest = request.query["digest"]
        assert digest == "sha256:" + hashlib.sha256(self.parts[name]).hexdigest()
        self.blobs[digest] = self.parts[name]
        return web.Response(status=201)


@pytest.mark.parametrize("resumes", [True, False])
async def test_an_upload_that_breaks_off_goes_on(bench: Bench, resumes: bool) -> None:
    uploads = Uploads(200_000, resumes=resumes)
    application = web.Application(client_max_size=1 << 30)
    application.router.add_route("*", "/{path:.*}", uploads.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    address = f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]
    try:
        content = os.urandom(1_500_000).hex()
        made = bench.build(content, names=(f"{address}/mine:v1",))
        await push(bench.images, bench.registry, parse_reference(f"{address}/mine:v1"))
    finally:
        await runner.cleanup()
    layer = json.loads(uploads.manifest)["layers"][0]
    assert made.id in uploads.blobs and len(uploads.blobs[layer["digest"]]) == layer["size"]
    large = [(method, size) for method, size in uploads.sent if size > 10_000]
    if resumes:
        assert large == [("PATCH", layer["size"] - 200_000)], "only what was missing"
    else:
        assert large == [("PUT", layer["size"])]


async def test_a_blob_that_has_rotted(bench: Bench, tmp_path: Path) -> None:
    """Of other bytes it makes no tag; one that is too short would be waited for, and is made anew."""
    with registry(tmp_path) as address:
        name = parse_reference(f"{address}/mine:v1")
        made = bench.build(os.urandom(1000).hex(), names=(name.familiar(),))
        async with bench.images.adding():
            blob = await blob_for(bench.images, made.diff_ids[0])
        path = bench.images.content.path(blob.digest)
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + b"?")
        with pytest.raises(EngineError, match=r"^digest invalid: "):
            await push(bench.images, bench.registry, name)
        with pytest.raises(NotFound):
            await bench.pull(name.familiar())
        path.write_bytes(whole[:-100])
        await push(bench.images, bench.registry, name)
        assert path.read_bytes() == whole
        other = Bench.at(tmp_path / "other")
        assert (await other.pull(name.familiar())).id == made.id
        await other.registry.close()


async def test_a_push_that_is_given_up_stops_packing(bench: Bench, tmp_path: Path) -> None:
    ingest = bench.root / "images/ingest"
    with registry(tmp_path) as address:
        name = parse_reference(f"{address}/mine:v1")
        # More than is packed in the time between two looks.
        bench.build(*(os.urandom(20_000_000).hex() for _ in range(3)), names=(name.familiar(),))
        pushing = asyncio.create_task(push(bench.images, bench.registry, name))
        while not list(ingest.iterdir()):
            assert not pushing.done()
            await asyncio.sleep(0.001)
        pushing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pushing
        assert list(ingest.iterdir()) == []
        digests = await asyncio.gather(*(push(bench.images, bench.registry, name) for _ in range(2)))
    assert digests[0] == digests[1]


async def test_what_is_wanted_twice_is_packed_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench.build("one")
    packed: list[str] = []
    tar = bench.images.layers.tar
    monkeypatch.setattr(
        bench.images.layers, "tar", lambda diff_id, out: (packed.append(diff_id), tar(diff_id, out))
    )
    async with bench.images.adding():
        first, second = await asyncio.gather(*(blob_for(bench.images, made.diff_ids[0]) for _ in range(2)))
    assert first == second and packed == [made.diff_ids[0]]


async def test_a_layer_is_mounted_from_another_repository(bench: Bench, tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        first = parse_reference(f"{address}/first:v1")
        made = bench.build("one", names=(first.familiar(),))
        await push(bench.images, bench.registry, first)
        second = parse_reference(f"{address}/second:v1")
        bench.images.tag(bench.images.get(made.id), second)
        bench.messages.clear()
        await push(bench.images, bench.registry, second, progress=bench.messages.append)
        assert "Mounted from first" in [message.get("status") for message in bench.messages]
        other = Bench.at(tmp_path / "other")
        assert (await other.pull(second.familiar())).id == made.id
        await other.registry.close()


async def test_a_private_registry_with_tls_of_our_own(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Password and own CA; what we push there skopeo, podman and umoci read, and we what skopeo pushes."""
    # Loopback is never verified, as in Docker; so the registry listens on another address of this machine.
    address = run("hostname", "-I").split()[0]
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"),
        *("-addext", f"subjectAltName=IP:{address}", "-keyout", str(key), "-out", str(certificate)),
    )
    auth = {"username": USER, "password": PASSWORD}
    roots = tmp_path / "certs.d"
    monkeypatch.setattr("dockmagic_runtime.registry.endpoints.CERTIFICATE_ROOTS", (roots,))
    with registry(tmp_path, address=address, password=True, tls=(certificate, key)) as host:
        trusted = roots / host
        trusted.mkdir(parents=True)
        (trusted / "ca.crt").write_bytes(certificate.read_bytes())
        name = parse_reference(f"{host}/mine:v1")
        made = bench.build("one", "two", names=(name.familiar(),))
        with pytest.raises(EngineError, match="no basic auth credentials"):
            await push(bench.images, bench.registry, name)
        digest = await push(bench.images, bench.registry, name, auth)
        creds, certs = f"{USER}:{PASSWORD}", str(trusted)
        told = json.loads(run("skopeo", "inspect", "--creds", creds, "--cert-dir", certs, f"docker://{name}"))
        assert told["Digest"] == digest
        # Podman wants its path shorter than what pytest makes.
        short = Path(tempfile.mkdtemp(prefix="dm-podman-"))
        storage = ["--root", str(short / "root"), "--runroot", str(short / "run")]
        pulled = run(
            *("podman", *storage, "--storage-driver", "vfs", "pull", "-q", "--creds", creds),
            *("--cert-dir", certs, f"{name.familiar_name}@{digest}"),
        )
        shutil.rmtree(short)
        assert pulled.strip() == made.id.removeprefix("sha256:")
        layout = tmp_path / "layout"
        run(
            "skopeo",
            "copy",
            "--src-creds",
            creds,
            "--src-cert-dir",
            certs,
            f"docker://{name}",
            f"oci:{layout}:v1",
        )
        run("umoci", "unpack", "--image", f"{layout}:v1", str(tmp_path / "unpacked"))
        run(
            "skopeo",
            "copy",
            "--dest-creds",
            creds,
            "--dest-cert-dir",
            certs,
            f"oci:{layout}:v1",
            f"docker://{host}/back:v1",
        )
        other = Bench.at(tmp_path / "other")
        assert list((await other.pull(f"{host}/back:v1", auth=auth)).diff_ids) == list(made.diff_ids)
        await other.registry.close()
