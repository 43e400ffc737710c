"""Descriptors, platforms, chain IDs, history."""

import hashlib

import pytest
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.oci import image
from dockmagic_runtime.oci.descriptor import Descriptor, digest_hex
from dockmagic_runtime.oci.image import Platform

A, B = ("sha256:" + letter * 64 for letter in "ab")


def test_chain_ids_are_those_of_the_image_spec() -> None:
    second = "sha256:" + hashlib.sha256(f"{A} {B}".encode()).hexdigest()
    assert image.chain_ids([A, B]) == [A, second]
    assert image.chain_id([A, B]) == second
    assert image.chain_id([]) == ""


@pytest.mark.parametrize("digest", ["", "sha256:", A.upper(), A + "0", "sha256:../../etc", "md5:" + "a" * 32])
def test_a_digest_is_a_safe_file_name(digest: str) -> None:
    with pytest.raises(InvalidParameter):
        digest_hex(digest)


def test_descriptor_keeps_what_it_read() -> None:
    document = {
        "mediaType": "t",
        "digest": A,
        "size": 7,
        "annotations": {"k": "v"},
        "platform": {"os": "linux", "architecture": "amd64"},
    }
    assert Descriptor.from_json(document).as_json() == document
    for broken in ({}, {"digest": A}, {"digest": A, "size": -1}, {"digest": "x", "size": 1}):
        with pytest.raises(InvalidParameter):
            Descriptor.from_json(broken)


def test_platforms() -> None:
    assert str(Platform.parse("linux/arm64/v8")) == "linux/arm64/v8"
    assert Platform.parse("amd64") == Platform("linux", "amd64")
    assert Platform("linux", "arm64").accepts(Platform("linux", "arm64", "v8"))
    assert not Platform("linux", "arm", "v6").accepts(Platform("linux", "arm", "v7"))
    assert Platform.parse("linux") == Platform("linux", Platform.host().architecture)
    assert Platform.parse("aarch64") == Platform("linux", "arm64")
    for unknown in ("a/b/c/d", "foo", ""):
        with pytest.raises(InvalidParameter):
            Platform.parse(unknown)


def test_manifest_is_chosen_by_platform() -> None:
    def entry(digest: str, architecture: str) -> dict[str, object]:
        return {"digest": digest, "size": 1, "platform": {"os": "linux", "architecture": architecture}}

    index = {"manifests": [entry(A, "arm64"), entry(B, "amd64")]}
    assert image.choose_manifest(index, Platform("linux", "amd64")).digest == B
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries"):
        image.choose_manifest(index, Platform("linux", "s390x"))


def test_history_is_matched_to_layers() -> None:
    run, env = {"created_by": "RUN x"}, {"created_by": "ENV a=b", "empty_layer": True}
    config = {"rootfs": {"diff_ids": [A, B]}, "history": [run, env]}
    assert image.history_layers(config) == [(run, A), (env, None), ({}, B)]
