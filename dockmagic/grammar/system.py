"""`docker system …`, `docker version` and `docker inspect`."""

import json
from typing import Any

import click

from dockmagic.errors import DockmagicError, UsageMistake
from dockmagic.grammar import pruning, template
from dockmagic.grammar.disk_usage import df
from dockmagic.grammar.filters import MOMENT, Filter, encoded
from dockmagic.grammar.listing import filter_option, format_option, inspected
from dockmagic.grammar.pruning import force_switch
from dockmagic.grammar.pulling import messages
from dockmagic.grammar.session import Session, each
from dockmagic.grammar.syntax import DockerGroup, argument, option, switch
from dockmagic.grammar.values import Document, Documents, Names

system = DockerGroup("system", help="Manage Docker")


INSPECTED = {
    "container": "/containers/{}/json",
    "image": "/images/{}/json",
    "network": "/networks/{}",
    "volume": "/volumes/{}",
}


@system.command("version", help="Show the version of the engine and of dockmagic")
@format_option("--format", "-f")
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
@format_option("--format", "-f")
@click.pass_obj
def info(session: Session, format: str | None) -> Any:
    document = Document(session.get("/info"))
    return template.lines(format, [document]) if format else document


system.add_command(df)


@system.command("events", help="Show real time events from the engine until --until, or Stop")
@filter_option("--filter", "-f")
@format_option()
@option("--since", type=MOMENT, help="Show all events created since timestamp")
@option("--until", type=MOMENT, help="Stream events until this timestamp")
@click.pass_obj
def events(
    session: Session, filter: tuple[Filter, ...], format: str | None, since: str | None, until: str | None
) -> Documents:
    """The value is what was shown: the events themselves."""
    line = template.Template(format) if format and format != "json" else None
    params = {"filters": encoded(filter), "since": since, "until": until}
    seen = []
    for event in messages(session.stream("GET", "/events", params=params)):
        seen.append(event)
        if line is not None:
            text = line.render(event)
        elif format == "json":
            text = json.dumps(event)
        else:
            text = event_line(event)
        session.cell.write(f"{text}\n")
    return Documents(seen, shown=True)


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


@system.command(
    "prune", help="Remove unused data: stopped containers, unused networks and images, build cache"
)
@switch("--all", "-a", help="Remove all unused images not just dangling ones")
@filter_option()
@force_switch
@switch("--volumes", help="Prune anonymous volumes")
@click.pass_obj
def prune(session: Session, all: bool, filter: tuple[Filter, ...], force: bool, volumes: bool) -> Names:
    if volumes and any(key == "until" for key, _ in filter):
        raise UsageMistake('The "until" filter is not supported with "--volumes"')
    steps = [pruning.containers(filter), pruning.networks(filter)]
    if volumes:
        steps.append(pruning.volumes(filter))
    steps += [pruning.images(filter, all=all), pruning.build(filter)]
    return pruning.prune(session, *steps, force=force)


@system.command("inspect", hidden=True, help="Return low-level information on objects, whatever they are")
@format_option("--format", "-f")
@option("--type", "kind", help="Only this type: container, image, network or volume")
@switch("--size", "-s", help="Display total file sizes if the type is container")
@argument("names", "NAME|ID [NAME|ID...]", nargs=-1, required=True)
@click.pass_obj
def inspect(
    session: Session, names: tuple[str, ...], format: str | None, kind: str | None, size: bool
) -> Any:
    import docker.errors

    if kind and kind not in INSPECTED:
        known = ", ".join(f'"{word}"' for word in INSPECTED)
        raise UsageMistake(f'unknown type: "{kind}": must be one of {known}')

    def look(name: str) -> Any:
        for path in [INSPECTED[kind]] if kind else INSPECTED.values():
            try:
                return session.get(path.format(name))
            except docker.errors.NotFound:
                continue
        raise DockmagicError(f"Error: No such {kind or 'object'}: {name}")

    return inspected(each(names, look), format)
