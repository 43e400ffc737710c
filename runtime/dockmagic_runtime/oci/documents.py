"""Manifests, indexes and image configs from elsewhere: JSON of the shape that the image-spec says.

What has passed here is as the rest of the engine takes it to be. An image whose config has a number where a
text should be is refused when it comes, and not met again by whoever lists all images.
"""

import json
from typing import Any, Required, TypedDict

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.oci import shape

Json = dict[str, Any]

Platform = TypedDict(
    "Platform",
    {"os": str, "architecture": str, "variant": str, "os.version": str, "os.features": list[str]},
    total=False,
)


class Blob(TypedDict, total=False):
    """A descriptor (`descriptor.md`)."""

    mediaType: str
    digest: Required[str]
    size: Required[int]
    urls: list[str]
    annotations: dict[str, str]
    platform: Platform


class Manifest(TypedDict, total=False):
    """A manifest or an index (`manifest.md`, `image-index.md`), of OCI or of Docker."""

    schemaVersion: int
    mediaType: str
    config: Blob
    layers: list[Blob]
    manifests: list[Blob]


class Healthcheck(TypedDict, total=False):
    Test: list[str]
    Interval: int
    Timeout: int
    StartPeriod: int
    StartInterval: int
    Retries: int


class Settings(TypedDict, total=False):
    """The field `config` of an image config, with Docker's own fields."""

    User: str
    ExposedPorts: dict[str, Any]
    Env: list[str]
    Entrypoint: list[str]
    Cmd: list[str]
    Volumes: dict[str, Any]
    WorkingDir: str
    Labels: dict[str, str]
    StopSignal: str
    StopTimeout: int
    Healthcheck: Healthcheck
    OnBuild: list[str]
    Shell: list[str]


class Step(TypedDict, total=False):
    created: str
    author: str
    created_by: str
    comment: str
    empty_layer: bool


class RootFs(TypedDict, total=False):
    type: str
    diff_ids: list[str]


class Config(TypedDict, total=False):
    """An image config (`config.md`)."""

    created: str
    author: str
    comment: str
    architecture: str
    variant: str
    os: str
    config: Settings
    rootfs: RootFs
    history: list[Step]


def read_manifest(data: bytes) -> Json:
    """A manifest or index. Raises InvalidParameter."""
    return _read(data, Manifest, "manifest")


def read_config(data: bytes) -> Json:
    """An image config. Raises InvalidParameter."""
    return _read(data, Config, "image config")


def _read(data: bytes, kind: Any, what: str) -> Json:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidParameter(f"invalid {what}: not JSON") from None
    try:
        shape.check(document, kind)
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid {what}: {error}") from None
    return dict(document)
