"""An image as the API shows it: inspect, history, and the layers as pictures want them.

The shapes are those of the Docker Engine API 1.47 (`ImageInspect`, `ImageHistoryResponseItem`).
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from dockmagic_runtime.images.image import UNDATED, Image
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.oci.image import history_layers

_SETTINGS: dict[str, Any] = {
    "Hostname": "",
    "Domainname": "",
    "User": "",
    "AttachStdin": False,
    "AttachStdout": False,
    "AttachStderr": False,
    "Tty": False,
    "OpenStdin": False,
    "StdinOnce": False,
    "Env": None,
    "Cmd": None,
    "Image": "",
    "Volumes": None,
    "WorkingDir": "",
    "Entrypoint": None,
    "OnBuild": None,
    "Labels": None,
}
"""Docker's container config: these fields are always there."""

_LEGACY_NO_LAYER = "#(nop)"


def inspect(images: ImageStore, image: Image) -> dict[str, Any]:
    """`GET /images/{name}/json`"""
    variant = {"Variant": image.platform.variant} if image.config.get("variant") else {}
    version = {"OsVersion": image.config["os.version"]} if image.config.get("os.version") else {}
    return {
        "Id": image.id,
        "RepoTags": image.repo_tags,
        "RepoDigests": image.repo_digests,
        "Parent": image.parent,
        "Comment": _comment(image.config),
        "Created": image.created,
        "DockerVersion": image.config.get("docker_version") or "",
        "Author": image.config.get("author") or "",
        "Config": container_config(image.settings),
        "Architecture": image.platform.architecture,
        **variant,
        "Os": image.platform.os,
        **version,
        "Size": image.size,
        "GraphDriver": {"Name": "overlay2", "Data": _directories(images, image)},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": image.last_tagged or UNDATED},
    }


def container_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """An image's settings as Docker's `Config`: every field that Docker always gives, and those it has."""
    return {**_SETTINGS, **{name: value for name, value in settings.items() if value not in (None, "", [])}}


def history(images: ImageStore, image: Image) -> list[dict[str, Any]]:
    """`GET /images/{name}/history`: newest first. Only the image itself, and its parents, have an ID."""
    rows = [
        {
            "Id": "<missing>",
            "Created": unix_time(entry.get("created")),
            "CreatedBy": entry.get("created_by") or "",
            "Tags": None,
            "Size": _size(images, diff_id),
            "Comment": entry.get("comment") or "",
        }
        for entry, diff_id in history_layers(image.config)
    ]
    rows.reverse()
    step: Image | None = image
    for row in rows:
        if step is None:
            break
        row["Id"], row["Tags"] = step.id, step.repo_tags or None
        step = images.by_id(step.parent) if step.parent else None
    return rows


def layers(images: ImageStore, image: Image) -> list[dict[str, Any]]:
    """Each step of the image, bottom first, with its layer and the other images that share it."""
    others = [other for other in images.list() if other.id != image.id]
    rows = []
    for entry, diff_id in history_layers(image.config):
        shared = [_name(other) for other in others if diff_id and diff_id in other.diff_ids]
        created_by = entry.get("created_by") or entry.get("comment") or ""
        rows.append(
            {
                "instruction": instruction(created_by),
                "created_by": created_by,
                "diff_id": diff_id,
                "size": _size(images, diff_id),
                "empty": diff_id is None,
                "origin": _origin(image, diff_id, others),
                "shared_with": sorted(shared),
            }
        )
    return rows


def _origin(image: Image, diff_id: str | None, others: Iterable[Image]) -> str:
    """How a layer came here: one that a built image took over from another came as that one did."""
    if diff_id in image.cached:
        return "cached"
    if image.origin == "built":
        for other in others:
            if diff_id in other.diff_ids and other.origin != "built":
                return other.origin
    return image.origin


def instruction(created_by: str) -> str:
    """The Dockerfile line that a history entry was made by, freed of what builders wrap it in.

    The legacy builder writes `/bin/sh -c #(nop)  CMD ["sh"]` and `/bin/sh -c make`; BuildKit writes
    `RUN /bin/sh -c make # buildkit`, with build arguments as `|1 NAME=value` before the shell.
    """
    text = created_by.removesuffix("# buildkit").strip()
    _, nop, rest = text.partition(_LEGACY_NO_LAYER)
    if nop:
        return rest.strip()
    head, shell, command = text.partition("/bin/sh -c ")
    if shell and (head in ("", "RUN ") or head.startswith(("|", "RUN |"))):
        return f"RUN {command.strip()}"
    return text


def unix_time(created: str | None) -> int:
    """Seconds since the epoch of an RFC 3339 time; Go's zero time if there is none."""
    try:
        return int(datetime.fromisoformat(created or UNDATED).timestamp())
    except ValueError:
        return int(datetime.fromisoformat(UNDATED).timestamp())


def _comment(config: Mapping[str, Any]) -> str:
    """Docker's: the config's own, or that of the newest step."""
    steps = config.get("history") or [{}]
    return config.get("comment") or steps[-1].get("comment") or ""


def _directories(images: ImageStore, image: Image) -> dict[str, str]:
    if not image.diff_ids:
        return {}
    upper, *lower = [str(path) for path in images.layers.paths(image.diff_ids)]
    return {**({"LowerDir": ":".join(lower)} if lower else {}), "UpperDir": upper}


def _size(images: ImageStore, diff_id: str | None) -> int:
    layer = images.layers.get(diff_id) if diff_id else None
    return layer.size if layer else 0


def _name(image: Image) -> str:
    return image.repo_tags[0] if image.repo_tags else image.short_id
