"""The layers of an image, top first: what made each, how big it is, where it came from and who else uses it.

Of a container, the writable layer lies on top, with the changes it holds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import docker.errors
from docker.models.containers import Container
from docker.models.images import Image

from dockmagic.views.engine import extension
from dockmagic.views.parts import Cell, Column, Fold, Note, Part, Table
from dockmagic.views.units import short, shorten, size, visible
from dockmagic.views.view import View

if TYPE_CHECKING:
    from docker import DockerClient

    from dockmagic.views.panel import Panel

INSTRUCTION_WIDTH = 88
CHANGES_SHOWN = 200

ORIGINS = {
    "built": Cell("+ built", "accent"),
    "cached": Cell("✓ cached", "good"),
    "pulled": Cell("↓ pulled"),
    "loaded": Cell("↓ loaded"),
    "imported": Cell("↓ imported"),
    "host": Cell("this machine"),
}
KINDS = ("added", "changed", "removed")
CHANGE_KINDS = {0: "changed", 1: "added", 2: "removed"}  # of Docker's GET /containers/{id}/changes


class Layers(View):
    """The layers of an image or of a container, given as an object, a name or an id."""

    def __init__(self, client: DockerClient, image_or_container: Image | Container | str) -> None:
        thing = (
            _find(client, image_or_container) if isinstance(image_or_container, str) else image_or_container
        )
        self.data = (
            read_container(client, thing) if isinstance(thing, Container) else read_image(client, thing)
        )
        super().__init__(*parts(self.data))
        self._again = lambda: Layers(client, thing)

    def panel(self) -> Panel:
        """The picture as a widget with a button that reads it again."""
        from dockmagic.views.panel import Panel

        return Panel(self._again)


def parts(data: dict[str, Any]) -> list[Part]:
    """The picture of `{"name", "image", "layers": [bottom first], "writable": {"size", "changes"}, "note"}`.

    A layer is `{"instruction", "created_by", "size", "empty", "origin", "shared_with"}`, None for unknown.
    An image has no `writable`.
    """
    layers: Sequence[dict[str, Any]] = data["layers"]
    writable = data.get("writable")
    largest = max([layer["size"] for layer in layers] + [writable["size"] if writable else 0, 1])
    rows: list[list[str | Cell]] = []
    if writable is not None:
        rows.append(
            [
                "writable",
                Cell(f"changes made in {data['name']}"),
                Cell(size(writable["size"]), share=writable["size"] / largest),
                Cell("+ written", "accent")
                if writable["size"] or writable["changes"]
                else Cell("○ empty", "muted"),
                "only this container",
            ]
        )
    for number in range(len(layers), 0, -1):
        layer = layers[number - 1]
        rows.append(
            [
                str(number),
                shorten(instruction(layer), INSTRUCTION_WIDTH),
                _size(layer, largest),
                _origin(layer),
                _sharers(layer),
            ]
        )
    columns = [
        Column("Layer"),
        Column("Instruction", code=True),
        Column("Size", numeric=True),
        Column("Origin", whole=True),
        Column("Shared with"),
    ]
    caption = f"Layers of {data['name']}" + (f" on {data['image']}" if writable is not None else "")
    picture: list[Part] = [Table(caption, columns, rows, "No layers."), Note(_summary(layers))]
    if data.get("files"):
        picture += _files(layers, data["files"])
    if writable is not None and writable.get("changes"):
        picture.append(_changes(writable["changes"]))
    if data.get("note"):
        picture.append(Note(data["note"]))
    return picture


def instruction(layer: dict[str, Any]) -> str:
    """The Dockerfile instruction behind a history entry, without the shell and builder marks around it."""
    given = layer.get("instruction") or layer.get("created_by") or ""
    given = re.sub(r"\s*# buildkit$", "", given).replace("#(nop)", "").strip()
    given = re.sub(r"\b(file|dir|multi):([0-9a-f]{12})[0-9a-f]{52}\b", r"\1:\2", given)
    shell = re.match(r"(?:RUN )?(?:\|\d+ .*?)?/bin/sh -c\s+(.*)", given, re.DOTALL)
    if not shell:
        return given
    rest = shell[1].strip()
    made_no_process = "#(nop)" in (layer.get("created_by") or "")
    return rest if made_no_process else f"RUN {rest}"


def read_image(client: DockerClient, image: Image) -> dict[str, Any]:
    """The layers as the store has them; from another engine, as `history` and `inspect` tell."""
    name = _name(image)
    told = extension(client, f"images/{image.id}/layers")
    if told is not None:
        files = extension(client, f"images/{image.id}/files")
        return {"name": name, "image": name, "layers": told, "writable": None, "files": files}
    return {
        "name": name,
        "image": name,
        "layers": _recorded(client, image),
        "writable": None,
        "note": "This engine does not tell whether a layer was pulled, built or taken from its cache.",
    }


def read_container(client: DockerClient, container: Container) -> dict[str, Any]:
    """The layers below a container and its writable one."""
    told = extension(client, f"containers/{container.id}/layers")
    image_name = container.attrs["Config"]["Image"]
    if told is not None:
        return {**told, "name": container.name, "image": image_name}
    summary = client.api.containers(all=True, size=True, filters={"id": container.id})[0]
    changes = container.diff() or []
    image = read_image(client, client.images.get(container.attrs["Image"]))
    writable = {"size": summary.get("SizeRw") or 0, "files": len(changes), "changes": changes}
    return {**image, "name": container.name, "image": image_name, "writable": writable}


def _find(client: DockerClient, name: str) -> Image | Container:
    """A container by that name if there is one, else an image: as `docker inspect` looks things up."""
    try:
        return client.containers.get(name)
    except docker.errors.NotFound:
        return client.images.get(name)


def _recorded(client: DockerClient, image: Image) -> list[dict[str, Any]]:
    diff_ids = image.attrs["RootFS"].get("Layers") or []
    history = list(reversed(image.history()))
    filled = [entry for entry in history if _makes_layer(entry)]
    # `history` does not say which entries have a layer: only when their number fits is it known.
    depth = {id(entry): place for place, entry in enumerate(filled)} if len(filled) == len(diff_ids) else {}
    others = [other for other in client.images.list() if other.id != image.id]
    layers = []
    for entry in history:
        place = depth.get(id(entry))
        layers.append(
            {
                "created_by": entry["CreatedBy"],
                "size": entry["Size"],
                "empty": place is None if depth else None,
                "origin": None,
                "shared_with": None if place is None else _sharing(others, diff_ids[: place + 1]),
            }
        )
    return layers


def _name(image: Image) -> str:
    """The shortest of its names: the one without a registry, where it has such."""
    return min(image.tags, key=len) if image.tags else short(image.id or "")


def _makes_layer(entry: dict[str, Any]) -> bool:
    """Docker's builder adds a layer for these instructions, also when it holds no bytes."""
    keyword = instruction({"created_by": entry["CreatedBy"]}).partition(" ")[0]
    return bool(entry["Size"]) or keyword in ("RUN", "COPY", "ADD", "WORKDIR")


def _sharing(others: Sequence[Image], chain: Sequence[str]) -> list[str]:
    return [
        _name(other)
        for other in others
        if (other.attrs["RootFS"].get("Layers") or [])[: len(chain)] == list(chain)
    ]


def _size(layer: dict[str, Any], largest: int) -> Cell:
    if layer.get("origin") == "host":
        return Cell("not counted", "muted")
    return Cell(size(layer["size"]), share=layer["size"] / largest)


def _origin(layer: dict[str, Any]) -> Cell:
    if layer.get("empty") and layer.get("origin") != "host":
        return Cell("settings only", "muted")
    return ORIGINS.get(layer.get("origin") or "", Cell("not known", "muted"))


def _sharers(layer: dict[str, Any]) -> Cell:
    if layer.get("empty"):
        return Cell("")
    sharers = layer.get("shared_with")
    if sharers is None:
        return Cell("not known", "muted")
    return Cell("= " + ", ".join(sharers), "accent") if sharers else Cell("not shared", "muted")


def _summary(layers: Sequence[dict[str, Any]]) -> str:
    if any(layer.get("origin") == "host" for layer in layers):
        return "This machine's own files, read-only: what is written goes into a layer of its own."
    filled = [layer for layer in layers if not layer.get("empty")]
    shared = [layer for layer in filled if layer.get("shared_with")]
    count = "1 layer" if len(filled) == 1 else f"{len(filled)} layers"
    total = size(sum(layer["size"] for layer in filled))
    if not shared:
        return f"{count}, {total}, read-only."
    part = size(sum(layer["size"] for layer in shared))
    return f"{count}, {total}, read-only; {part} of it stored once for several images."


def _files(layers: Sequence[dict[str, Any]], files: Sequence[dict[str, Any]]) -> list[Part]:
    """What each layer adds, changes and removes, top first; and the bytes that no container sees."""
    filled = [number for number, layer in enumerate(layers, 1) if not layer.get("empty")]
    if len(filled) != len(files):
        return []
    picture: list[Part] = []
    wasted = sum(layer["hidden"] for layer in files)
    if wasted:
        words = (
            f"{size(wasted)} are hidden by later layers: they are in the image, and no container sees them."
        )
        picture.append(Note(words, "warn"))
    for number, layer in reversed(list(zip(filled, files, strict=True))):
        found = [(layer[kind], kind) for kind in KINDS if layer[kind]]
        counts = [f"{count} {kind}" for count, kind in found[1:]]
        for count, kind in found[:1]:
            counts.insert(0, f"{count} {'file' if count == 1 else 'files'} {kind}")
        hidden = f", {size(layer['hidden'])} hidden by later layers" if layer["hidden"] else ""
        lines = [
            f"{change['kind']:<7}  {size(change['size']):>6}  {visible(change['path'])}"
            + (", hidden by a later layer" if change.get("hidden") else "")
            for change in layer["largest"]
        ]
        rest = sum(count for count, _ in found) - len(lines)
        lines += [f"… {rest} more, none of them larger"] if rest else []
        summary = f"Layer {number}: {', '.join(counts) or 'no files'}{hidden}"
        picture.append(Fold(summary, lines) if lines else Note(summary))
    return picture


def _changes(changes: Sequence[dict[str, Any]]) -> Fold:
    lines = [
        f"{CHANGE_KINDS.get(change['Kind'], '?'):<7}  {visible(change['Path'])}"
        for change in changes[:CHANGES_SHOWN]
    ]
    if len(changes) > CHANGES_SHOWN:
        lines.append(f"… {len(changes) - CHANGES_SHOWN} more")
    count = "1 change" if len(changes) == 1 else f"{len(changes)} changes"
    return Fold(f"{count} in the writable layer", lines)
