"""Pull, from a real registry and from one that misbehaves."""

import asyncio
import gzip
import json
import os
import subprocess
from pathlib import Path

import pytest
from aiohttp import ClientSession
from dockmagic_runtime.errors import (
    EngineError,
    InvalidParameter,
    NotFound,
    NotImplementedHere,
    Unauthorized,
    Unavailable,
)
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci.reference import parse_reference
from dockmagic_runtime.registry.repository import SCHEMA_1

from tests.runtime.images.conftest import Bench
from tests.runtime.images.made import Made, digest, layer_tar, small
from tests.runtime.registry.servers import PASSWORD, USER, FaultyRegistry, registry, run


def seed(made: Made, folder: Path, target: str, *options: str) -> None:
    """Push with skopeo, as somebody else's tool."""
    layout = made.layout(folder / "seed", "seed")
    run(
        "skopeo",
        "copy",
        "--dest-tls-verify=false",
        *options,
        f"oci:{layout}:seed",
        f"docker://{target}",
    )


def files_of(bench: Bench, made: Made) -> dict[str, bytes]:
    """Every file of an image's unpacked layers."""
    found = {}
    for path in bench.images.layers.paths(made.diff_ids):
        found.update({each.name: each.read_bytes() for each in path.iterdir()})
    return found


@pytest.mark.parametrize(("form", "compression"), [("oci", "gzip"), ("oci", "zstd"), ("v2s2", "gzip")])
async def test_pull_from_a_real_registry(bench: Bench, tmp_path: Path, form: str, compression: str) -> None:
    made = small(compression=compression)
    with registry(tmp_path) as address:
        seed(made, tmp_path, f"{address}/some/thing:v1", "--format", form)
        image = await bench.pull(f"{address}/some/thing:v1")
        again = await bench.pull(f"{address}/some/thing:v1")
    assert image.id == again.id == made.id
    assert image.repo_tags == [f"{address}/some/thing:v1"]
    assert len(image.repo_digests) == 1
    assert files_of(bench, made) == {"layer0": b"one", "layer1": b"two"}
    assert bench.messages[0] == {"status": "Pulling from some/thing", "id": "v1"}
    texts = [message["status"] for message in bench.messages]
    assert f"Status: Downloaded newer image for {address}/some/thing:v1" in texts
    assert texts[-1] == f"Status: Image is up to date for {address}/some/thing:v1"
    assert texts.count("Pull complete") == 2
    assert texts.count("Already exists") == 2


async def test_the_store_is_an_image_layout_that_other_tools_read(bench: Bench, tmp_path: Path) -> None:
    made = small()
    with registry(tmp_path) as address:
        seed(made, tmp_path, f"{address}/thing:v1", "--format", "v2s2")
        await bench.pull(f"{address}/thing:v1")
    layout = f"{bench.root / 'images'}:{address}/thing:v1"
    inspected = json.loads(run("skopeo", "inspect", f"oci:{layout}"))
    assert len(inspected["Layers"]) == 2
    run("umoci", "unpack", "--image", layout, str(tmp_path / "unpacked"))
    assert (tmp_path / "unpacked/rootfs/layer1").read_bytes() == b"two"


async def test_layers_are_told_in_dockers_order(bench: Bench, tmp_path: Path) -> None:
    made = small()
    with registry(tmp_path) as address:
        seed(made, tmp_path, f"{address}/thing:v1")
        await bench.pull(f"{address}/thing:v1")
    for blob in made.blobs:
        told = list(dict.fromkeys(bench.statuses(digest(blob)[7:19])))
        assert told == [
            "Pulling fs layer",
            "Downloading",
            "Verifying Checksum",
            "Download complete",
            "Extracting",
            "Pull complete",
        ]


async def test_an_index_gives_the_image_of_the_platform(bench: Bench, tmp_path: Path) -> None:
    several = [
        small("amd64"),
        small("v8", architecture="arm64", variant="v8"),
        small("v6", architecture="arm", variant="v6"),
        small("v7", architecture="arm", variant="v7"),
    ]
    with registry(tmp_path) as address:
        entries = []
        async with ClientSession(f"http://{address}") as session:
            for made in several:
                for data in (made.config, *made.blobs):
                    started = await session.post("/v2/multi/blobs/uploads/")
                    location = started.headers["Location"].removeprefix(f"http://{address}")
                    done = await session.put(f"{location}&digest={digest(data)}", data=data)
                    assert done.status == 201
                url = f"/v2/multi/manifests/{digest(made.manifest)}"
                put = await session.put(url, data=made.manifest, headers={"Content-Type": made.media_type})
                assert put.status == 201
                entries.append(
                    {
                        "mediaType": made.media_type,
                        "digest": digest(made.manifest),
                        "size": len(made.manifest),
                        "platform": made.platform,
                    }
                )
            index = {"schemaVersion": 2, "mediaType": descriptor.OCI_INDEX, "manifests": entries}
            headers = {"Content-Type": descriptor.OCI_INDEX}
            put = await session.put("/v2/multi/manifests/all", json=index, headers=headers)
            assert put.status == 201, await put.text()
            index_digest = put.headers["Docker-Content-Digest"]
        host = await bench.pull(f"{address}/multi:all", "linux/amd64")
        assert host.id == several[0].id
        assert host.repo_digests == [f"{address}/multi@{index_digest}"]
        assert (await bench.pull(f"{address}/multi:all", "linux/arm64")).id == several[1].id
        assert (await bench.pull(f"{address}/multi:all", "linux/arm/v6")).id == several[2].id
        assert (await bench.pull(f"{address}/multi:all", "linux/arm")).id == several[3].id
        with pytest.raises(NotFound, match="no matching manifest for linux/riscv64 in the manifest list"):
            await bench.pull(f"{address}/multi:all", "linux/riscv64")
        by_digest = await bench.pull(f"{address}/multi@{index_digest}", "linux/amd64")
        assert by_digest.id == several[0].id


async def test_password(bench: Bench, tmp_path: Path) -> None:
    made = small()
    auth = {"username": USER, "password": PASSWORD}
    with registry(tmp_path, password=True) as address:
        seed(made, tmp_path, f"{address}/thing:v1", "--dest-creds", f"{USER}:{PASSWORD}")
        with pytest.raises(
            EngineError,
            match=rf'Get "http://{address}/.*": no basic auth credentials \(log in to {address} fi',
        ):
            await bench.pull(f"{address}/thing:v1")
        with pytest.raises(
            Unauthorized,
            match=rf"^unauthorized: authentication required \(log in to {address} again, as {USER}\)$",
        ):
            await bench.pull(f"{address}/thing:v1", auth={**auth, "password": "wrong"})
        assert (await bench.pull(f"{address}/thing:v1", auth=auth)).id == made.id


async def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Loopback is never verified, as in Docker; so the registry listens on another address of this machine.
    address = subprocess.run(["hostname", "-I"], capture_output=True, text=True, check=True).stdout.split()[0]
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    run(
        *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"),
        *("-addext", f"subjectAltName=IP:{address}", "-keyout", str(key), "-out", str(certificate)),
    )
    made = small()
    roots = tmp_path / "certs.d"
    with registry(tmp_path, address=address, tls=(certificate, key)) as host:
        seed(made, tmp_path, f"{host}/thing:v1")
        strict = Bench.at(tmp_path / "strict")
        with pytest.raises(
            Unavailable, match=f"x509: certificate signed by unknown authority .*/certs.d/{host}/ca.crt"
        ):
            await strict.pull(f"{host}/thing:v1")
        insecure = Bench.at(tmp_path / "insecure", insecure_registries=(f"{address}/32",))
        assert (await insecure.pull(f"{host}/thing:v1")).id == made.id
        (roots / host).mkdir(parents=True)
        (roots / host / "ca.crt").write_bytes(certificate.read_bytes())
        monkeypatch.setattr("dockmagic_runtime.registry.endpoints.CERTIFICATE_ROOTS", (roots,))
        trusting = Bench.at(tmp_path / "trusting")
        assert (await trusting.pull(f"{host}/thing:v1")).id == made.id
    for bench in (strict, insecure, trusting):
        await bench.registry.close()


async def test_mirrors_are_tried_in_order(tmp_path: Path) -> None:
    made = small()
    with registry(tmp_path) as address:
        seed(made, tmp_path, f"{address}/library/thing:v1")
        bench = Bench.at(
            tmp_path / "root",
            registry_mirrors=("http://127.0.0.1:1", f"http://{address}/", "http://127.0.0.1:2"),
        )
        image = await bench.pull("thing:v1")
    await bench.registry.close()
    assert image.id == made.id
    assert image.repo_tags == ["thing:v1"]


async def test_what_is_not_there(bench: Bench, tmp_path: Path) -> None:
    with registry(tmp_path) as address:
        with pytest.raises(NotFound) as missing:
            await bench.pull(f"{address}/none:v2")
    assert (
        str(missing.value) == f"manifest for {address}/none:v2 not found: manifest unknown: manifest unknown"
    )
    with pytest.raises(Unavailable) as refused:
        await bench.pull("127.0.0.1:1/none:v2")
    sentence = 'Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused'
    assert str(refused.value) == sentence
    with pytest.raises(
        Unavailable, match=r'^Get "https://no-such-host.invalid/v2/": dial tcp: lookup no-such'
    ):
        await bench.pull("no-such-host.invalid/x")
    with pytest.raises(InvalidParameter, match="'host' is a reserved name"):
        await bench.pull("host")
    assert bench.messages == []
    assert bench.images.list() == []


def put(server: FaultyRegistry, made: Made, tag: str = "v1") -> str:
    for data in (made.config, *made.blobs):
        server.add_blob(data)
    server.add_manifest(tag, made.media_type, made.manifest)
    return f"{server.address}/thing:{tag}"


def big() -> Made:
    """An image whose layers do not compress: about 600 kB each."""
    return Made([layer_tar({f"random{i}": os.urandom(600_000)}) for i in range(2)])


async def test_a_broken_download_goes_on_where_it_stopped(bench: Bench) -> None:
    made = Made([layer_tar({"random": os.urandom(6_000_000)})])
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        server.faults.cut_at = [4_000_000]
        assert (await bench.pull(name)).id == made.id
    (wanted,) = [wanted for _, path, wanted in server.requests if "/blobs/" in path and wanted]
    assert 1_000_000 < int(wanted[6:-1]) <= 4_000_000


async def test_a_server_without_range_sends_all_again(bench: Bench) -> None:
    made = big()
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        server.faults.cut_at = [200_000, 100_000]
        server.faults.ignore_range = True
        assert (await bench.pull(name)).id == made.id


async def test_a_corrupt_blob_is_refused_and_nothing_is_kept(bench: Bench) -> None:
    made = small()
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        server.add_blob(made.config)
        server.blobs[digest(made.blobs[0])] = made.blobs[0][:-1] + b"?"
        with pytest.raises(InvalidParameter, match=f"verification failed for digest {digest(made.blobs[0])}"):
            await bench.pull(name)
    assert bench.images.list() == []
    assert not bench.images.content.has(digest(made.blobs[0]))
    assert bench.images.layers.get(made.diff_ids[0]) is None
    await bench.images.collect()
    assert bench.images.content.digests() == []
    assert bench.images.layers.diff_ids() == []


async def test_a_blob_that_is_not_there(bench: Bench) -> None:
    made = small("one")
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        del server.blobs[digest(made.blobs[0])]
        with pytest.raises(NotFound, match="blob unknown"):
            await bench.pull(name)
    assert list((bench.root / "images/ingest").iterdir()) == []


async def test_a_truncated_blob_is_refused(bench: Bench) -> None:
    made = small("one")
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        server.blobs[digest(made.blobs[0])] = made.blobs[0][:-20]
        with pytest.raises(EngineError):
            await bench.pull(name)
    assert bench.images.list() == []
    assert bench.images.layers.diff_ids() == []


async def test_a_layer_of_another_diff_id_is_refused(bench: Bench) -> None:
    made, other = small("one"), small("other")
    forged = Made(made.layers)
    async with FaultyRegistry().serving() as server:
        manifest = json.loads(forged.manifest)
        blob = other.blobs[0]
        manifest["layers"] = [{"mediaType": forged.layer_type, "digest": digest(blob), "size": len(blob)}]
        for data in (forged.config, blob):
            server.add_blob(data)
        server.add_manifest("v1", forged.media_type, manifest)
        with pytest.raises(InvalidParameter, match="diff ID"):
            await bench.pull(f"{server.address}/thing:v1")
    assert bench.images.list() == []
    assert bench.images.layers.diff_ids() == []


async def test_a_rotten_leftover_is_downloaded_again(bench: Bench) -> None:
    made = small("one")
    blob = made.blobs[0]
    with bench.images.content.writer(digest(blob), len(blob)) as writer:
        writer.write(b"\0" * 20)
    async with FaultyRegistry().serving() as server:
        assert (await bench.pull(put(server, made))).id == made.id


async def test_busy_and_failing_servers_are_asked_again(bench: Bench) -> None:
    made = small()
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        server.faults.statuses = [(429, {"Retry-After": "0"}), (503, {}), (500, {})]
        assert (await bench.pull(name)).id == made.id
        server.faults.statuses = [(429, {})] * 5
        with pytest.raises(EngineError, match=r"^toomanyrequests: too many requests$"):
            await bench.pull(name)


async def test_retry_after_is_honoured(bench: Bench) -> None:
    made = small()
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        server.faults.statuses = [(429, {"Retry-After": "1"})]
        loop = asyncio.get_running_loop()
        start = loop.time()
        await bench.pull(name)
        assert loop.time() - start >= 1


async def test_token(bench: Bench) -> None:
    made = small()
    async with FaultyRegistry(token="t0ken").serving() as server:
        name = put(server, made)
        assert (await bench.pull(name)).id == made.id
        with pytest.raises(Unauthorized, match=r"^unauthorized: incorrect username or password \(log in to"):
            await bench.pull(name, auth={"username": USER, "password": "wrong"})
        assert (await bench.pull(name, auth={"username": USER, "password": PASSWORD})).id == made.id
    assert "Bearer t0ken" in server.authorizations


async def test_pull_access_denied(bench: Bench) -> None:
    async with FaultyRegistry(token="t0ken", challenge_error="insufficient_scope").serving() as server:
        put(server, small())
        server.given = "another"
        with pytest.raises(NotFound) as denied:
            await bench.pull(f"{server.address}/secret:v1")
    assert str(denied.value) == (
        f"pull access denied for {server.address}/secret, repository does not exist or may require "
        "'docker login': denied: requested access to the resource is denied"
    )


async def test_schema_1_is_refused(bench: Bench) -> None:
    async with FaultyRegistry().serving() as server:
        server.add_manifest("v1", f"{SCHEMA_1}".replace("+json", "+prettyjws"), {"schemaVersion": 1})
        with pytest.raises(
            NotImplementedHere, match="manifest version 2, schema 1, which is no longer supported"
        ):
            await bench.pull(f"{server.address}/old:v1")


async def test_a_tampered_manifest_is_refused(bench: Bench) -> None:
    made = small()
    async with FaultyRegistry().serving() as server:
        put(server, made)
        wanted = digest(made.manifest)
        server.manifests[wanted] = (made.media_type, small("evil").manifest)
        with pytest.raises(EngineError, match=f"manifest verification failed for digest {wanted}"):
            await bench.pull(f"{server.address}/thing@{wanted}")


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        (b"<html>please log in</html>", "not JSON"),
        ({"layers": "abc"}, "layers: not a list"),
        ({"mediaType": []}, "mediaType: not a string"),
        ({"manifests": [1]}, r"manifests\[0\]: not an object"),
    ],
)
async def test_a_manifest_that_is_none(bench: Bench, document: object, sentence: str) -> None:
    async with FaultyRegistry().serving() as server:
        server.add_manifest("v1", descriptor.OCI_MANIFEST, document)
        with pytest.raises(EngineError, match=f"^manifest invalid: {sentence}.*: {server.address}$"):
            await bench.pull(f"{server.address}/thing:v1")
    assert bench.messages == []


@pytest.mark.parametrize("change", [{"created": 5}, {"config": "x"}, {"history": [1]}, {"architecture": []}])
async def test_a_config_of_another_shape_is_no_image(bench: Bench, change: dict[str, object]) -> None:
    """Else whoever lists the images would meet it, again and again."""
    made = small("one")
    async with FaultyRegistry().serving() as server:
        config = json.dumps({**json.loads(made.config), **change}).encode()
        manifest = json.loads(made.manifest)
        manifest["config"].update(digest=digest(config), size=len(config))
        for data in (config, *made.blobs):
            server.add_blob(data)
        server.add_manifest("v1", made.media_type, manifest)
        with pytest.raises(InvalidParameter, match=r"^invalid image config: "):
            await bench.pull(f"{server.address}/thing:v1")
    assert bench.images.list() == []


async def test_a_cancelled_pull_leaves_only_what_the_next_one_takes_up(bench: Bench) -> None:
    made = big()
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        server.faults.stall = asyncio.Event()
        pulling = asyncio.create_task(bench.pull(name))
        while not bench.statuses(digest(made.blobs[0])[7:19])[1:]:
            await asyncio.sleep(0.01)
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling
        assert bench.images.list() == []
        assert bench.images.layers.diff_ids() == []
        left = list((bench.root / "images/ingest").iterdir())
        assert left and all(path.stat().st_size for path in left)
        server.faults.stall.set()
        server.faults.stall = None
        server.requests.clear()
        assert (await bench.pull(name)).id == made.id
    assert any(wanted for _, path, wanted in server.requests if "/blobs/" in path)
    assert list((bench.root / "images/ingest").iterdir()) == []
    assert list((bench.root / "layers/tmp").iterdir()) == []


async def test_two_pulls_of_one_image_download_once(bench: Bench) -> None:
    made = big()
    async with FaultyRegistry().serving() as server:
        name = put(server, made)
        first, second = await asyncio.gather(bench.pull(name), bench.pull(name))
    assert first.id == second.id == made.id
    for blob in made.blobs:
        asked = [path for _, path, _ in server.requests if path.endswith(digest(blob))]
        assert len(asked) == 1


async def test_many_pulls_at_once_do_not_starve_each_other(bench: Bench) -> None:
    several = [Made([layer_tar({f"file{i}{j}": os.urandom(50_000)}) for j in range(4)]) for i in range(6)]
    async with FaultyRegistry().serving() as server:
        names = [put(server, made, f"v{i}") for i, made in enumerate(several)]
        images = await asyncio.wait_for(asyncio.gather(*map(bench.pull, names)), 60)
    assert [image.id for image in images] == [made.id for made in several]


async def test_all_tags(bench: Bench) -> None:
    one, two = small("1"), small("2")
    async with FaultyRegistry().serving() as server:
        put(server, one, "v1")
        put(server, two, "v2")
        images = await bench.puller.pull_all(parse_reference(f"{server.address}/thing", default_tag=None))
    assert [image.id for image in images] == [one.id, two.id]


async def test_layers_that_are_here_are_not_downloaded(bench: Bench) -> None:
    base, more = small("base"), small("base", "more")
    async with FaultyRegistry().serving() as server:
        await bench.pull(put(server, base))
        server.requests.clear()
        await bench.pull(put(server, more, "v2"))
    shared = digest(base.blobs[0])
    assert shared == digest(more.blobs[0])
    assert not [path for _, path, _ in server.requests if path.endswith(shared)]
    assert gzip.decompress(bench.images.content.read(shared)) == base.layers[0]
