"""Podman reads what we push, save and store, and we read what it pushes and saves."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from dockmagic_runtime.images import loading, removal
from dockmagic_runtime.images.push import push
from dockmagic_runtime.oci.reference import parse_reference

from tests.runtime.images.conftest import Bench
from tests.runtime.images.test_archive import pieces, saved
from tests.runtime.registry.servers import registry, run

Podman = Callable[..., str]


@pytest.fixture
def podman() -> Iterator[Podman]:
    """Podman with a storage of its own, in a shorter path than pytest makes; podman wants that."""
    folder = Path(tempfile.mkdtemp(prefix="dm-podman-"))
    storage = ("--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs")
    yield lambda *arguments: run("podman", *storage, *arguments).strip()
    shutil.rmtree(folder)


async def test_podman_reads_ours(bench: Bench, tmp_path: Path, podman: Podman) -> None:
    with registry(tmp_path) as address:
        name = parse_reference(f"{address}/mine:v1")
        made = bench.build("one", "two", names=(name.familiar(),))
        digest = await push(bench.images, bench.registry, name)
        identity = made.id.removeprefix("sha256:")
        by_digest = f"{name.familiar_name}@{digest}"
        assert podman("pull", "-q", "--tls-verify=false", by_digest) == identity
        podman("rmi", "-a", "-f")
        (tmp_path / "saved.tar").write_bytes(await saved(bench, name.familiar()))
        assert f"Loaded image: {name.familiar()}" in podman("load", "-q", "-i", str(tmp_path / "saved.tar"))
        assert podman("image", "inspect", "-f", "{{.Id}}", name.familiar()) == identity
        podman("rmi", "-a", "-f")
        await removal.remove(bench.images, name.familiar())
        await bench.pull(name.familiar())  # so that its manifest is in the store
        assert podman("pull", "-q", f"oci:{bench.root / 'images'}:{name.familiar()}") == identity


async def test_we_read_podmans(bench: Bench, tmp_path: Path, podman: Podman) -> None:
    made = bench.build("one", "two", names=("mine:v1",))
    (tmp_path / "saved.tar").write_bytes(await saved(bench, "mine:v1"))
    podman("load", "-q", "-i", str(tmp_path / "saved.tar"))
    for form in ("docker-archive", "oci-archive"):
        theirs = tmp_path / f"{form}.tar"
        podman("save", "-q", "--format", form, "-o", str(theirs), "mine:v1")
        other = Bench.at(tmp_path / form)
        (image,) = await loading.load(other.images, pieces(theirs.read_bytes()))
        assert list(image.diff_ids) == made.diff_ids
    with registry(tmp_path) as address:
        for form in ("v2s2", "oci"):
            name = f"{address}/theirs:{form}"
            podman("push", "-q", "--tls-verify=false", "--format", form, "mine:v1", f"docker://{name}")
            other = Bench.at(tmp_path / form)
            assert list((await other.pull(name)).diff_ids) == made.diff_ids
            await other.registry.close()
