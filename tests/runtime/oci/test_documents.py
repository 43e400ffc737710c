"""Documents from elsewhere have the shape that the engine takes them to have, or are refused in a line."""

import json

import pytest
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.oci.documents import read_config, read_manifest

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ([], "the document"),
        (None, "the document"),
        ({"config": "x"}, "config"),
        ({"config": {"digest": DIGEST}}, "config.size"),
        ({"config": {"digest": 1, "size": 1}}, "config.digest"),
        ({"layers": "abc"}, "layers"),
        ({"layers": [1]}, "layers\\[0\\]"),
        ({"layers": [{"digest": DIGEST, "size": True}]}, "layers\\[0\\].size"),
        ({"mediaType": ["x"]}, "mediaType"),
        ({"manifests": {"a": 1}}, "manifests"),
        ({"manifests": [{"digest": DIGEST, "size": 1, "platform": "linux"}]}, "manifests\\[0\\].platform"),
        (
            {"manifests": [{"digest": DIGEST, "size": 1, "platform": {"os": 1}}]},
            "manifests\\[0\\].platform.os",
        ),
    ],
)
def test_manifests_of_another_shape(document: object, where: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^invalid manifest: {where}: ") as refused:
        read_manifest(json.dumps(document).encode())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("document", "where"),
    [
        ([], "the document"),
        ({"created": 5}, "created"),
        ({"architecture": ["x"]}, "architecture"),
        ({"rootfs": "x"}, "rootfs"),
        ({"rootfs": {"diff_ids": [1]}}, "rootfs.diff_ids\\[0\\]"),
        ({"config": "x"}, "config"),
        ({"config": {"Env": "A=1"}}, "config.Env"),
        ({"config": {"Cmd": [1]}}, "config.Cmd\\[0\\]"),
        ({"config": {"Labels": ["a"]}}, "config.Labels"),
        ({"config": {"ExposedPorts": ["80"]}}, "config.ExposedPorts"),
        ({"config": {"Healthcheck": {"Interval": "1s"}}}, "config.Healthcheck.Interval"),
        ({"history": [1]}, "history\\[0\\]"),
        ({"history": [{"created_by": 1}]}, "history\\[0\\].created_by"),
    ],
)
def test_configs_of_another_shape(document: object, where: str) -> None:
    with pytest.raises(InvalidParameter, match=f"^invalid image config: {where}: "):
        read_config(json.dumps(document).encode())


@pytest.mark.parametrize("data", [b"", b"<html>", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(InvalidParameter, match=r"^invalid manifest: not JSON$"):
        read_manifest(data)


def test_unknown_fields_and_null_are_left_alone() -> None:
    document = {"os": "linux", "config": {"Env": None, "ArgsEscaped": True}, "moby.buildkit.cache.v0": {}}
    assert read_config(json.dumps(document).encode()) == document
    index = {"manifests": [{"digest": DIGEST, "size": 1, "artifactType": "x/y"}], "subject": {}}
    assert read_manifest(json.dumps(index).encode()) == index
