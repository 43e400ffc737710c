"""Load, save and import, with skopeo, umoci and a real Docker on the other side."""

import gzip
import io
import json
import os
import subprocess
import tarfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.images import describe, importing, loading, saving
from dockmagic_runtime.oci.reference import parse_reference

from tests.runtime.images.conftest import Bench
from tests.runtime.images.made import digest, layer_tar, small
from tests.runtime.registry.servers import run, tool


async def pieces(data: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def saved(bench: Bench, *names: str) -> bytes:
    return b"".join([piece async for piece in saving.save(bench.images, names)])


def docker(*arguments: str, data: bytes | None = None) -> bytes:
    done = subprocess.run([tool("docker"), *arguments], input=data, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.mark.usefixtures("real_docker")
async def test_what_docker_saves_we_load(bench: Bench) -> None:
    await loading.load(bench.images, pieces(docker("save", "busybox")), bench.messages.append)
    image = bench.images.get("busybox")
    theirs = json.loads(docker("inspect", "busybox"))[0]
    ours = describe.inspect(bench.images, image)
    assert bench.messages == [{"stream": "Loaded image: busybox:latest\n"}]
    for name in ("Id", "RepoTags", "Created", "Comment", "Architecture", "Os", "RootFS", "Config", "Author"):
        assert ours[name] == theirs[name], name
    assert (bench.images.layers.paths(image.diff_ids)[0] / "bin/busybox").stat().st_size > 500_000


@pytest.mark.usefixtures("real_docker")
async def test_docker_loads_what_we_save(bench: Bench) -> None:
    name = f"dockmagic-test-{uuid.uuid4().hex[:8]}:v1"
    made = bench.build("for docker", "second layer", names=(name,))
    try:
        told = docker("load", data=await saved(bench, name)).decode()
        assert f"Loaded image: {name}" in told
        assert json.loads(docker("inspect", name))[0]["Id"] == made.id
    finally:
        docker("rmi", "-f", name)


async def test_an_archive_comes_back_as_it_was(bench: Bench, tmp_path: Path) -> None:
    one = bench.build("shared", "one", names=("first:v1", "first:v2"))
    two = bench.build("shared", "two", names=("second:v1",))
    data = await saved(bench, "first", two.id)
    other = Bench.at(tmp_path / "other")
    loaded = await loading.load(other.images, pieces(data), other.messages.append)
    assert [image.id for image in loaded] == [one.id, two.id]
    assert other.images.get("first:v2").repo_tags == ["first:v1", "first:v2"]
    assert other.images.get(two.id).repo_tags == []
    assert other.messages[-1] == {"stream": f"Loaded image ID: {two.id}\n"}
    assert len(other.images.layers.diff_ids()) == 3
    assert await saved(other, "first", two.id) == data


async def test_a_save_is_an_image_layout_too(bench: Bench, tmp_path: Path) -> None:
    made = bench.build("one", "two", names=("thing:v1",))
    with tarfile.open(fileobj=io.BytesIO(await saved(bench, "thing:v1"))) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "layout", filter="data")
    assert {"oci-layout", "index.json", "manifest.json", "repositories"} <= set(names)
    assert len(names) == len(set(names))
    again = tmp_path / "again.tar"
    run("skopeo", "copy", f"oci:{tmp_path / 'layout'}:v1", f"docker-archive:{again}:thing:v2")
    run("umoci", "unpack", "--image", f"{tmp_path / 'layout'}:v1", str(tmp_path / "unpacked"))
    assert (tmp_path / "unpacked/rootfs/layer0").read_bytes() == b"one"
    other = Bench.at(tmp_path / "other")
    (image,) = await loading.load(other.images, pieces(again.read_bytes()))
    assert image.id == made.id
    assert image.repo_tags == ["thing:v2"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_oci_archives(bench: Bench, tmp_path: Path, compression: str) -> None:
    made = small(compression=compression)
    layout = made.layout(tmp_path / "layout", "registry.example/thing:v1")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        tar.add(layout, arcname=".")
    (image,) = await loading.load(bench.images, pieces(out.getvalue()))
    assert image.id == made.id
    assert image.repo_tags == ["registry.example/thing:v1"]
    inspected = json.loads(run("skopeo", "inspect", f"oci:{bench.root / 'images'}:registry.example/thing:v1"))
    assert len(inspected["Layers"]) == 2


async def test_loading_moves_a_name(bench: Bench) -> None:
    new = bench.build("new", names=("thing:v1",))
    data = await saved(bench, "thing:v1")
    old = bench.build("old", names=("thing:v1",))
    await loading.load(bench.images, pieces(data), bench.messages.append)
    assert bench.images.get("thing:v1").id == new.id
    assert bench.messages[0] == {
        "stream": "The image thing:v1 already exists, renaming the old one with ID "
        f"{old.id} to empty string\n"
    }


def bad_archive(**changes: Any) -> bytes:
    made = small("one")
    files = {
        "config.json": made.config,
        "layer.tar": made.layers[0],
        "manifest.json": json.dumps(
            [{"Config": "config.json", "RepoTags": ["x:v1"], "Layers": ["layer.tar"]}]
        ).encode(),
    }
    files.update({name.replace("_", "."): data for name, data in changes.items() if data is not None})
    for name in [name.replace("_", ".") for name, data in changes.items() if data is None]:
        del files[name]
    return layer_tar(files)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"garbage", "invalid archive"),
        (b"", "invalid archive"),
        (bad_archive(manifest_json=None), "does not contain a manifest.json"),
        (bad_archive(config_json=None), "config.json is missing"),
        (bad_archive(layer_tar=None), "layer layer.tar is missing"),
        (bad_archive(layer_tar=layer_tar({"f": b"other"})), "invalid diffID for layer 0"),
        (bad_archive(manifest_json=b'{"a": 1}'), "malformed manifest"),
        (bad_archive(manifest_json=b"[nonsense"), "malformed manifest"),
        (bad_archive(config_json=b"{}"), "layers length mismatch"),
        (bad_archive(config_json=b'{"created": 5}'), "invalid image config: created: not a string"),
        (bad_archive(manifest_json=b"[" * 100_000), "malformed manifest"),
        (bad_archive()[:3000], "invalid archive"),
    ],
)
async def test_bad_archives_leave_nothing(bench: Bench, data: bytes, sentence: str) -> None:
    with pytest.raises(InvalidParameter, match=sentence):
        await loading.load(bench.images, pieces(data))
    assert bench.images.list() == []
    assert bench.images.layers.diff_ids() == []
    assert bench.images.content.digests() == []


async def test_documents_do_not_fill_the_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen megabytes of blanks are few bytes when they are packed, and so are a thousand times that."""
    monkeypatch.setattr(loading, "_DOCUMENTS_LIMIT", 1 << 20)
    packed = gzip.compress(layer_tar({f"{i}.json": b" " * 100_000 for i in range(11)}))
    with pytest.raises(InvalidParameter, match="documents of more than 1048576 bytes"):
        await loading.load(bench.images, pieces(packed))
    with pytest.raises(InvalidParameter, match="documents of more than 1048576 bytes"):
        await loading.load(bench.images, pieces(layer_tar({f"{i}": b"" for i in range(2100)})))


async def test_a_number_that_is_none(bench: Bench) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x")
        info.pax_headers = {"GNU.sparse.map": "0,five"}
        tar.addfile(info)
    with pytest.raises(InvalidParameter, match="invalid archive"):
        await loading.load(bench.images, pieces(out.getvalue()))


async def test_a_layer_that_climbs_out_is_refused(bench: Bench, tmp_path: Path) -> None:
    evil = bad_archive(layer_tar=layer_tar({"../../escaped": b"!"}))
    with pytest.raises(InvalidParameter):
        await loading.load(bench.images, pieces(evil))
    assert not list(tmp_path.rglob("escaped"))


async def test_an_upload_that_breaks_off_loads_nothing(bench: Bench) -> None:
    data = bad_archive()

    async def broken() -> AsyncIterator[bytes]:
        yield data[:2000]
        raise ConnectionResetError("client gone")

    with pytest.raises(ConnectionResetError):
        await loading.load(bench.images, broken())
    assert bench.images.list() == []


async def test_saving_what_is_not_there(bench: Bench) -> None:
    with pytest.raises(NotFound, match=r"^No such image: nothing:latest$"):
        await saved(bench, "nothing")
    with pytest.raises(InvalidParameter, match="'host' is a reserved name"):
        await saved(bench, "host")


async def test_a_reader_that_leaves_early_ends_the_save(bench: Bench) -> None:
    bench.build(os.urandom(1_500_000).hex(), names=("thing:v1",))
    pieces_of_it = saving.save(bench.images, ["thing:v1"])
    assert await anext(pieces_of_it)
    await pieces_of_it.aclose()
    await bench.images.collect()
    assert bench.images.get("thing:v1")


@pytest.mark.parametrize("compressed", [False, True])
async def test_import(bench: Bench, compressed: bool) -> None:
    data = layer_tar({"hello": b"world"})
    if compressed:
        data = gzip.compress(data)
    image = await importing.import_(
        bench.images,
        pieces(data),
        parse_reference("made:v1"),
        settings={"Cmd": ["/hello"]},
        message="by hand",
    )
    shown = describe.inspect(bench.images, bench.images.get("made:v1"))
    assert shown["Id"] == image.id == digest(bench.images.content.read(image.id))
    assert shown["Comment"] == "by hand"
    assert shown["Config"]["Cmd"] == ["/hello"]
    assert describe.history(bench.images, image)[0]["Comment"] == "by hand"
    assert (bench.images.layers.paths(image.diff_ids)[0] / "hello").read_bytes() == b"world"
