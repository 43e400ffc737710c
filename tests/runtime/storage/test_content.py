"""The content store: durable, verified, resumable; and a layout that another OCI tool reads."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
from dockmagic_runtime.errors import InvalidParameter, NotFound, SystemFailure
from dockmagic_runtime.oci import descriptor, image
from dockmagic_runtime.oci.descriptor import Descriptor
from dockmagic_runtime.storage.content import ContentStore


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_written_is_read(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    digest = store.write(b"hello")
    assert digest == digest_of(b"hello") == store.write(b"hello")
    assert store.has(digest)
    assert (store.read(digest), store.size(digest), store.digests()) == (b"hello", 5, [digest])
    store.delete(digest)
    store.delete(digest)
    assert not store.has(digest)
    with pytest.raises(NotFound):
        store.read(digest)


def test_an_interrupted_download_goes_on_where_it_stopped(tmp_path: Path) -> None:
    digest = digest_of(b"hello world")
    with ContentStore(tmp_path).writer(digest, 11) as writer:
        writer.write(b"hello ")
    store = ContentStore(tmp_path)
    store.sweep()
    assert not store.has(digest)
    with store.writer(digest, 11) as writer:
        assert writer.offset == 6
        writer.write(b"world")
        assert writer.commit() == (digest, 11)
    assert store.read(digest) == b"hello world"
    assert list((tmp_path / "ingest").iterdir()) == []


def test_a_download_that_nobody_goes_on_with_is_swept(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    with store.writer(digest_of(b"hello world"), 11) as writer:
        writer.write(b"hello ")
    (part,) = (tmp_path / "ingest").iterdir()
    assert store.sweep() == 0
    yesterday = part.stat().st_mtime - 24 * 3600
    os.utime(part, (yesterday, yesterday))
    assert store.sweep() == 6
    assert list((tmp_path / "ingest").iterdir()) == []


def test_a_full_disk_is_not_kept_full(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", tmp_path], check=True)
    try:
        store = ContentStore(tmp_path)
        with store.writer(digest_of(b"")) as writer, pytest.raises(SystemFailure) as refused:
            writer.write(bytes(2_000_000))
        assert str(refused.value).startswith("write ")
        assert str(refused.value).endswith(": no space left on device")
        assert list((tmp_path / "ingest").iterdir()) == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_what_does_not_hash_to_its_name_is_dropped(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    digest = digest_of(b"expected")
    with store.writer(digest) as writer:
        writer.write(b"something else")
        with pytest.raises(InvalidParameter, match="verification failed"):
            writer.commit()
    with store.writer(digest, 8) as writer:
        assert writer.offset == 0
        writer.write(b"expec")
        with pytest.raises(InvalidParameter, match="unexpected commit size 5, expected 8"):
            writer.commit()
    with store.writer(digest, 8) as writer, pytest.raises(InvalidParameter, match="larger"):
        writer.write(b"expected and more")
    assert store.digests() == []


def test_an_aborted_anonymous_blob_leaves_nothing(tmp_path: Path) -> None:
    with ContentStore(tmp_path).writer() as writer:
        writer.write(b"x")
    assert list((tmp_path / "ingest").iterdir()) == []


def test_skopeo_reads_the_layout(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    config = json.dumps(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": []}}
    )
    config_digest = store.write(config.encode())
    manifest = json.dumps(
        image.manifest(Descriptor(descriptor.OCI_CONFIG, config_digest, len(config)), [])
    ).encode()
    described = Descriptor(descriptor.OCI_MANIFEST, store.write(manifest), len(manifest))
    store.add_manifest(described, "docker.io/library/a:1")
    store.add_manifest(described, "docker.io/library/b:1")
    store.add_manifest(described, "docker.io/library/a:1")
    assert len(store.index()) == 2
    said = subprocess.run(
        ["skopeo", "inspect", "--config", f"oci:{tmp_path}:docker.io/library/a:1"],
        capture_output=True,
        check=True,
    )
    assert json.loads(said.stdout)["architecture"] == "amd64"
    store.remove_manifest("docker.io/library/a:1")
    assert [entry.annotations[descriptor.REF_NAME] for entry in store.index()] == ["docker.io/library/b:1"]
