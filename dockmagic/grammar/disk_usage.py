"""`docker system df`: what takes space, summed up, and with `--verbose` thing by thing."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from dockmagic.grammar import rows, template
from dockmagic.grammar.listing import LISTING_FORMAT, format_option, listed
from dockmagic.grammar.rows import Row
from dockmagic.grammar.session import Session
from dockmagic.grammar.syntax import DockerCommand, switch

if TYPE_CHECKING:
    from dockmagic.views.parts import Part

SUMMARY_FIELDS = {
    "TYPE": "Type",
    "TOTAL": "TotalCount",
    "ACTIVE": "Active",
    "SIZE": "Size",
    "RECLAIMABLE": "Reclaimable",
}
# What `--verbose` lists: the name in `--format`, the caption, and headings with their fields.
SECTIONS: dict[str, tuple[str, dict[str, str]]] = {
    "Images": (
        "Images space usage",
        {
            "REPOSITORY": "Repository",
            "TAG": "Tag",
            "IMAGE ID": "ID",
            "CREATED": "CreatedSince",
            "SIZE": "Size",
            "SHARED SIZE": "SharedSize",
            "UNIQUE SIZE": "UniqueSize",
            "CONTAINERS": "Containers",
        },
    ),
    "Containers": (
        "Containers space usage",
        {
            "CONTAINER ID": "ID",
            "IMAGE": "Image",
            "COMMAND": "Command",
            "LOCAL VOLUMES": "LocalVolumes",
            "SIZE": "Size",
            "CREATED": "RunningFor",
            "STATUS": "Status",
            "NAMES": "Names",
        },
    ),
    "Volumes": ("Local Volumes space usage", {"VOLUME NAME": "Name", "LINKS": "Links", "SIZE": "Size"}),
    "BuildCache": (
        "Build cache usage",
        {
            "CACHE ID": "ID",
            "CACHE TYPE": "CacheType",
            "SIZE": "Size",
            "CREATED": "CreatedSince",
            "LAST USED": "LastUsedSince",
            "USAGE": "UsageCount",
            "SHARED": "Shared",
        },
    ),
}


@click.command("df", cls=DockerCommand, help="Show docker disk usage")
@format_option(help=LISTING_FORMAT)
@switch("--verbose", "-v", help="Show detailed information on space usage")
@click.pass_obj
def df(session: Session, format: str | None, verbose: bool) -> Any:
    usage = {key: value or [] for key, value in session.get("/system/df").items()}
    if not verbose:
        return listed(summary(usage), SUMMARY_FIELDS, "Disk usage", empty="", format=format)
    found = details(usage)
    if format:
        return template.lines(format, [found])
    return _picture(found)


def summary(usage: dict[str, Any]) -> list[Row]:
    """One row for images, containers, volumes and build cache each."""
    images, containers = usage.get("Images", []), usage.get("Containers", [])
    volumes, cache = usage.get("Volumes", []), usage.get("BuildCache", [])
    running = [entry for entry in containers if entry.get("State") in ("running", "paused", "restarting")]
    used = [entry for entry in images if (entry.get("Containers") or 0) > 0]
    mounted = [entry for entry in volumes if _of_volume(entry, "RefCount") > 0]
    in_use = [entry for entry in cache if entry.get("InUse")]
    layers = usage.get("LayersSize") or 0
    # A layer that images share counts as reclaimable, even below one in use: so Docker computes it.
    held = sum(entry["Size"] - max(entry.get("SharedSize") or 0, 0) for entry in used)
    volume_size = sum(_of_volume(entry, "Size") for entry in volumes)
    return [
        _summed("Images", images, used, layers, layers - held),
        _summed("Containers", containers, running, _sizes(containers), _sizes(containers) - _sizes(running)),
        _summed(
            "Local Volumes",
            volumes,
            mounted,
            volume_size,
            volume_size - sum(_of_volume(entry, "Size") for entry in mounted),
        ),
        _summed("Build Cache", cache, in_use, _sizes(cache, "Size"), _cached(cache, in_use)),
    ]


def _cached(cache: list[Row], in_use: list[Row]) -> int:
    return _sizes(cache, "Size") - _sizes(in_use, "Size")


def _summed(kind: str, every: list[Any], active: list[Any], total: int, free: int) -> Row:
    from dockmagic.views.units import size

    share = f" ({100 * free // total}%)" if total and kind != "Build Cache" else ""
    return {
        "Type": kind,
        "TotalCount": str(len(every)),
        "Active": str(len(active)),
        "Size": size(total, digits=4),
        "Reclaimable": f"{size(free, digits=4)}{share}",
    }


def details(usage: dict[str, Any]) -> dict[str, list[Row]]:
    """The rows of each section."""
    return {
        "Images": [
            row
            for entry in usage.get("Images", [])
            for row in rows.of_image(entry, no_trunc=False, digests=False)
        ],
        "Containers": [
            {**rows.of_container(entry, no_trunc=False), "Size": _size(entry.get("SizeRw") or 0)}
            for entry in usage.get("Containers", [])
        ],
        "Volumes": [rows.of_volume(entry) for entry in usage.get("Volumes", [])],
        "BuildCache": [rows.of_build_cache(entry) for entry in usage.get("BuildCache", [])],
    }


def _size(count: int) -> str:
    from dockmagic.views.units import size

    return size(count)


def _picture(found: dict[str, list[Row]]) -> Any:
    from dockmagic.views.tables import table
    from dockmagic.views.view import View

    parts: list[Part] = []
    for name, (caption, fields) in SECTIONS.items():
        cells = [[row[field] for field in fields.values()] for row in found[name]]
        parts += table(cells, list(fields), caption, empty="None.").view().parts
    return View(*parts)


def _of_volume(volume: Row, key: str) -> int:
    return max((volume.get("UsageData") or {}).get(key) or 0, 0)


def _sizes(entries: Iterable[Row], key: str = "SizeRw") -> int:
    return sum(entry.get(key) or 0 for entry in entries)
