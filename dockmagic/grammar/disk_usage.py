"""`docker system df`: what takes space, summed up, and with `--verbose` thing by thing."""

from collections.abc import Iterable
from typing import Any

import click

from dockmagic.grammar import template
from dockmagic.grammar.listing import LISTING_FORMAT, Row, format_option, listed
from dockmagic.grammar.session import Session
from dockmagic.grammar.syntax import DockerCommand, switch

SUMMARY_FIELDS = {
    "TYPE": "Type",
    "TOTAL": "TotalCount",
    "ACTIVE": "Active",
    "SIZE": "Size",
    "RECLAIMABLE": "Reclaimable",
}
# What `--verbose` lists: the name in `--format`, the caption, and headings with their fields.
SECTIONS = {
    "Images": {
        "REPOSITORY": "Repository",
        "TAG": "Tag",
        "IMAGE ID": "ID",
        "CREATED": "CreatedSince",
        "SIZE": "Size",
        "SHARED SIZE": "SharedSize",
        "UNIQUE SIZE": "UniqueSize",
        "CONTAINERS": "Containers",
    },
    "Containers": {
        "CONTAINER ID": "ID",
        "IMAGE": "Image",
        "COMMAND": "Command",
        "LOCAL VOLUMES": "LocalVolumes",
        "SIZE": "Size",
        "CREATED": "RunningFor",
        "STATUS": "Status",
        "NAMES": "Names",
    },
    "Local Volumes": {"VOLUME NAME": "Name", "LINKS": "Links", "SIZE": "Size"},
    "Build cache": {
        "CACHE ID": "ID",
        "CACHE TYPE": "CacheType",
        "SIZE": "Size",
        "CREATED": "CreatedSince",
        "LAST USED": "LastUsedSince",
        "USAGE": "UsageCount",
        "SHARED": "Shared",
    },
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
        return template.lines(format, [{name.title().replace(" ", ""): found[name] for name in SECTIONS}])
    return _picture(found)


def summary(usage: dict[str, Any]) -> list[Row]:
    """One row for images, containers, volumes and build cache each."""
    images, containers = usage.get("Images", []), usage.get("Containers", [])
    volumes, cache = usage.get("Volumes", []), usage.get("BuildCache", [])
    running = [entry for entry in containers if entry.get("State") in ("running", "paused", "restarting")]
    used = [entry for entry in images if (entry.get("Containers") or 0) > 0]
    unused = sum(_unique(entry) for entry in images if entry not in used)
    mounted = [entry for entry in volumes if _of_volume(entry, "RefCount") > 0]
    in_use = [entry for entry in cache if entry.get("InUse")]
    stopped_size = _sum((entry for entry in containers if entry not in running), "SizeRw")
    unmounted_size = sum(_of_volume(entry, "Size") for entry in volumes if entry not in mounted)
    cached_size = _sum((entry for entry in cache if entry not in in_use), "Size")
    volumes_size = sum(_of_volume(entry, "Size") for entry in volumes)
    return [
        _summed("Images", images, used, usage.get("LayersSize") or 0, unused),
        _summed("Containers", containers, running, _sum(containers, "SizeRw"), stopped_size),
        _summed("Local Volumes", volumes, mounted, volumes_size, unmounted_size),
        _summed("Build Cache", cache, in_use, _sum(cache, "Size"), cached_size),
    ]


def _summed(kind: str, every: list[Any], active: list[Any], total: int, free: int) -> Row:
    from dockmagic.views.units import size

    return {
        "Type": kind,
        "TotalCount": str(len(every)),
        "Active": str(len(active)),
        "Size": size(total),
        "Reclaimable": f"{size(free)} ({100 * free // total}%)" if total else size(free),
    }


def details(usage: dict[str, Any]) -> dict[str, list[Row]]:
    """The rows of each section."""
    from dockmagic.grammar.container.looking import ps_row
    from dockmagic.grammar.image import image_rows
    from dockmagic.views.units import size

    return {
        "Images": [
            {
                **row,
                "SharedSize": size(max(entry.get("SharedSize") or 0, 0)),
                "UniqueSize": size(_unique(entry)),
                "Containers": str(max(entry.get("Containers") or 0, 0)),
            }
            for entry in usage.get("Images", [])
            for row in image_rows(entry, no_trunc=False)
        ],
        "Containers": [
            {**ps_row(entry, no_trunc=False), "Size": size(entry.get("SizeRw") or 0)}
            for entry in usage.get("Containers", [])
        ],
        "Local Volumes": [
            {
                "Name": entry["Name"],
                "Links": str(_of_volume(entry, "RefCount")),
                "Size": size(_of_volume(entry, "Size")),
            }
            for entry in usage.get("Volumes", [])
        ],
        "Build cache": [cache_row(entry) for entry in usage.get("BuildCache", [])],
    }


def cache_row(entry: dict[str, Any]) -> Row:
    from dockmagic.views.units import ago, short, size

    return {
        "ID": short(entry["ID"]),
        "CacheType": entry.get("Type", ""),
        "Size": size(entry.get("Size") or 0),
        "CreatedSince": ago(entry.get("CreatedAt")),
        "LastUsedSince": ago(entry.get("LastUsedAt")),
        "UsageCount": str(entry.get("UsageCount") or 0),
        "Shared": str(bool(entry.get("Shared"))).lower(),
    }


def _picture(found: dict[str, list[Row]]) -> Any:
    from dockmagic.views.tables import table
    from dockmagic.views.view import View

    return View(
        *(
            part
            for name, fields in SECTIONS.items()
            for part in table(
                [[row[field] for field in fields.values()] for row in found[name]],
                list(fields),
                f"{name} space usage" if name != "Build cache" else "Build cache usage",
                empty=f"No {name.lower()}.",
            )
            .view()
            .parts
        )
    )


def _unique(image: dict[str, Any]) -> int:
    return int(image["Size"] - max(image.get("SharedSize") or 0, 0))


def _of_volume(volume: dict[str, Any], key: str) -> int:
    return max((volume.get("UsageData") or {}).get(key) or 0, 0)


def _sum(entries: Iterable[dict[str, Any]], key: str) -> int:
    return sum(entry.get(key) or 0 for entry in entries)
