"""`docker system …`, `docker version` and `docker inspect`."""

import json
from typing import Any

import click

from dockmagic.errors import DockmagicError
from dockmagic.grammar import filters, template
from dockmagic.grammar.container import inspected
from dockmagic.grammar.pulling import messages
from dockmagic.grammar.session import Session, each
from dockmagic.grammar.syntax import DockerGroup, argument, option, switch
from dockmagic.grammar.values import Document, Names

system = DockerGroup("system", help="Manage Docker")

DF_COLUMNS = ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]


@system.command("version", help="Show the version of the engine and of dockmagic")
@option("--format", "-f", help="Format output using a Go template, or 'json'")
@click.pass_obj
def version(session: Session, format: str | None) -> Any:
    import docker

    from dockmagic import __version__

    server = session.get("/version")
    document = Document(
        Client={"Version": __version__, "Sdk": docker.__version__, "ApiVersion": session.api.api_version},
        Server=server,
    )
    return template.lines(format, [document]) if format else document


@system.command("info", help="Display system-wide information")
@option("--format", "-f", help="Format output using a Go template, or 'json'")
@click.pass_obj
def info(session: Session, format: str | None) -> Any:
    document = Document(session.get("/info"))
    return template.lines(format, [document]) if format else document


@system.command("df", help="Show docker disk usage")
@option("--format", help="Format output using a Go template, or 'json'")
@click.pass_obj
def df(session: Session, format: str | None) -> Any:
    from dockmagic.views.tables import table
    from dockmagic.views.units import size

    usage = session.get("/system/df")
    images, containers = usage.get("Images") or [], usage.get("Containers") or []
    volumes, cache = usage.get("Volumes") or [], usage.get("BuildCache") or []
    running = [entry for entry in containers if entry.get("State") in ("running", "paused", "restarting")]
    used_images = [entry for entry in images if (entry.get("Containers") or 0) > 0]
    unused = sum(
        entry["Size"] - max(entry.get("SharedSize") or 0, 0) for entry in images if entry not in used_images
    )
    mounted = [entry for entry in volumes if (entry.get("UsageData") or {}).get("RefCount", 0) > 0]

    def volume_size(entries: list[Any]) -> int:
        return sum(max((entry.get("UsageData") or {}).get("Size", 0), 0) for entry in entries)

    stopped = [entry for entry in containers if entry not in running]
    cached = [entry for entry in cache if not entry.get("InUse")]
    lines = [
        ("Images", images, used_images, usage.get("LayersSize") or 0, unused),
        ("Containers", containers, running, _sum(containers, "SizeRw"), _sum(stopped, "SizeRw")),
        (
            "Local Volumes",
            volumes,
            mounted,
            volume_size(volumes),
            volume_size([v for v in volumes if v not in mounted]),
        ),
        (
            "Build Cache",
            cache,
            [e for e in cache if e.get("InUse")],
            _sum(cache, "Size"),
            _sum(cached, "Size"),
        ),
    ]
    rows = [
        {
            "Type": kind,
            "TotalCount": str(len(every)),
            "Active": str(len(active)),
            "Size": size(total),
            "Reclaimable": f"{size(free)} ({100 * free // total}%)" if total else size(free),
        }
        for kind, every, active, total, free in lines
    ]
    fields = dict(zip(DF_COLUMNS, ("Type", "TotalCount", "Active", "Size", "Reclaimable"), strict=True))
    if format:
        return template.listing(format, rows, fields)
    return table([list(row.values()) for row in rows], DF_COLUMNS, "Disk usage")


def _sum(entries: list[dict[str, Any]], key: str) -> int:
    return sum(entry.get(key) or 0 for entry in entries)


@system.command("events", help="Show real time events from the engine until --until, or Stop")
@option("--filter", "-f", multiple=True, help="Filter output based on conditions provided")
@option("--format", help="Format output using a Go template, or 'json'")
@option("--since", help="Show all events created since timestamp")
@option("--until", help="Stream events until this timestamp")
@click.pass_obj
def events(
    session: Session, filter: tuple[str, ...], format: str | None, since: str | None, until: str | None
) -> None:
    params: dict[str, Any] = {"filters": filters.encoded(filter)}
    params.update({k: filters.timestamp(v) for k, v in (("since", since), ("until", until)) if v})
    response = session.stream("GET", "/events", params=params)
    line = template.Template(format) if format and format != "json" else None
    for event in messages(response):
        if line is not None:
            text = line.render(event)
        elif format == "json":
            text = json.dumps(event)
        else:
            text = event_line(event)
        session.cell.write(f"{text}\n")


def event_line(event: dict[str, Any]) -> str:
    """An event as `docker events` prints it."""
    from datetime import datetime

    seconds, fraction = divmod(event["timeNano"], 10**9)
    moment = datetime.fromtimestamp(seconds).astimezone()
    zone = moment.strftime("%z")
    stamp = f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}{zone[:3]}:{zone[3:]}"
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{k}={v}" for k, v in sorted((actor.get("Attributes") or {}).items()))
    return f"{stamp} {event['Type']} {event['Action']} {actor.get('ID', '')} ({attributes})"


@system.command("prune", help="Remove unused data: stopped containers, unused networks and images")
@switch("--all", "-a", help="Remove all unused images not just dangling ones")
@option("--filter", multiple=True, help="Provide filter values (e.g. 'label=<key>=<value>')")
@switch("--force", "-f", help="Has no effect: a magic does not ask")
@switch("--volumes", help="Prune anonymous volumes")
@click.pass_obj
def prune(session: Session, all: bool, filter: tuple[str, ...], force: bool, volumes: bool) -> Names:
    from dockmagic.views.units import size

    dangling = (*filter, f"dangling={'false' if all else 'true'}")
    gone, space = Names(), 0
    todo = [("containers", "ContainersDeleted", filter), ("networks", "NetworksDeleted", filter)]
    if volumes:
        todo.append(("volumes", "VolumesDeleted", filter))
    for noun, key, wanted in [*todo, ("images", "ImagesDeleted", dangling)]:
        answer = session.post(f"/{noun}/prune", filters=filters.encoded(wanted))
        space += answer.get("SpaceReclaimed") or 0
        for entry in answer.get(key) or ():
            gone.append(entry if isinstance(entry, str) else next(iter(entry.values())))
    session.cell.write(f"Total reclaimed space: {size(space)}\n")
    return gone


@system.command("inspect", hidden=True, help="Return low-level information on objects, whatever they are")
@option("--format", "-f", help="Format output using a Go template, or 'json'")
@option(
    "--type", "kind", type=click.Choice(["container", "image", "network", "volume"]), help="Only this type"
)
@switch("--size", "-s", help="Display total file sizes if the type is container")
@argument("names", "NAME|ID [NAME|ID...]", nargs=-1, required=True)
@click.pass_obj
def inspect(
    session: Session, names: tuple[str, ...], format: str | None, kind: str | None, size: bool
) -> Any:
    import docker.errors

    paths = {
        "container": "/containers/{}/json",
        "image": "/images/{}/json",
        "network": "/networks/{}",
        "volume": "/volumes/{}",
    }

    def look(name: str) -> Any:
        for path in [paths[kind]] if kind else paths.values():
            try:
                return session.get(path.format(name))
            except docker.errors.NotFound:
                continue
        raise DockmagicError(f"Error: No such {kind or 'object'}: {name}")

    return inspected(each(names, look), format)
