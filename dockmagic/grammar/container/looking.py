"""`ls`, `inspect`, `logs`, `top`, `stats`, `port` and `diff`."""

from typing import Any

import click

from dockmagic.errors import DockmagicError
from dockmagic.grammar import rows
from dockmagic.grammar.container.group import container, some_containers
from dockmagic.grammar.filters import MOMENT, Filter, encoded
from dockmagic.grammar.kinds import INTEGER
from dockmagic.grammar.listing import (
    LISTING_FORMAT,
    format_option,
    inspected,
    listed,
    listing_options,
    no_trunc_option,
)
from dockmagic.grammar.session import Session, each
from dockmagic.grammar.syntax import argument, option, switch
from dockmagic.grammar.values import Text
from dockmagic.streams import output, response_reader

AT_ONCE = 8  # containers that `stats` asks about together: each answer takes a second or two

PS_COLUMNS = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
PS_FIELDS = {
    "CONTAINER ID": "ID",
    "IMAGE": "Image",
    "COMMAND": "Command",
    "CREATED": "RunningFor",
    "STATUS": "Status",
    "PORTS": "Ports",
    "NAMES": "Names",
    "SIZE": "Size",
}


@container.command("ls", help="List containers")
@switch("--all", "-a", help="Show all containers (default shows just running)")
@listing_options
@no_trunc_option
@option("--last", "-n", type=INTEGER, default=-1, help="Show n last created containers (all states)")
@switch("--latest", "-l", help="Show the latest created container (includes all states)")
@switch("--size", "-s", help="Display total file sizes")
@click.pass_obj
def ls(
    session: Session,
    all: bool,
    filter: tuple[Filter, ...],
    format: str | None,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> Any:
    size = size or ".Size" in (format or "")
    params: dict[str, Any] = {"all": int(all), "size": int(size), "filters": encoded(filter)}
    limit = 1 if latest else last
    if limit > 0:
        params["limit"] = limit
    return listed(
        [
            rows.of_container(summary, no_trunc=no_trunc)
            for summary in session.get("/containers/json", **params)
        ],
        PS_FIELDS,
        "Containers" if all or limit > 0 else "Running containers",
        empty="No containers.",
        format=format,
        names="ID" if quiet else None,
        columns=[*PS_COLUMNS, "SIZE"] if size else PS_COLUMNS,
    )


container.add_command(ls, "ps")
container.add_command(ls, "list")


@container.command("inspect", help="Display detailed information on one or more containers")
@format_option("--format", "-f")
@switch("--size", "-s", help="Display total file sizes")
@some_containers
@click.pass_obj
def inspect(session: Session, containers: tuple[str, ...], format: str | None, size: bool) -> Any:
    documents = each(containers, lambda name: session.get(f"/containers/{name}/json", size=int(size)))
    return inspected(documents, format)


@container.command("logs", help="Fetch the logs of a container")
@switch("--follow", "-f", help="Follow log output")
@option(
    "--since",
    type=MOMENT,
    help="Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m)",
)
@option("--until", type=MOMENT, help="Show logs before a timestamp or relative (e.g. 42m)")
@option("--tail", "-n", default="all", help="Number of lines to show from the end of the logs")
@switch("--timestamps", "-t", help="Show timestamps")
@switch("--details", help="Show extra details provided to logs")
@argument("name", "CONTAINER")
@click.pass_obj
def logs(
    session: Session,
    name: str,
    follow: bool,
    since: str | None,
    until: str | None,
    tail: str,
    timestamps: bool,
    details: bool,
) -> Text:
    """Without `-f` the logs are the value; with it they stream into the cell until the end, or Stop."""
    found = session.container(name)
    params: dict[str, Any] = {"stdout": 1, "stderr": 1, "follow": int(follow), "tail": tail}
    params.update(timestamps=int(timestamps), details=int(details))
    params.update({k: v for k, v in (("since", since), ("until", until)) if v})
    response = session.stream("GET", f"/containers/{name}/logs", params=params)
    parts = []
    for stream, text in output(response_reader(response), tty=found.attrs["Config"]["Tty"]):
        parts.append(text)
        if follow:
            session.cell.write(text, stream)
    return Text("".join(parts), shown=follow)


@container.command("top", interspersed=False, help="Display the running processes of a container")
@argument("name", "CONTAINER")
@argument("options", "[ps OPTIONS]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def top(session: Session, name: str, options: tuple[str, ...]) -> Any:
    from dockmagic.views.tables import table

    answer = session.get(f"/containers/{name}/top", **({"ps_args": " ".join(options)} if options else {}))
    return table(answer["Processes"] or [], answer["Titles"], f"Processes of {name}")


@container.command("stats", help="Display container resource usage statistics, once")
@switch("--all", "-a", help="Show all containers (default shows just running)")
@format_option(help=LISTING_FORMAT)
@switch("--no-stream", help="Has no effect: `%container resources NAME` shows usage over time")
@no_trunc_option
@argument("containers", "[CONTAINER...]", nargs=-1)
@click.pass_obj
def stats(
    session: Session,
    containers: tuple[str, ...],
    all: bool,
    format: str | None,
    no_stream: bool,
    no_trunc: bool,
) -> Any:
    from dockmagic.grammar import usage

    names = containers or tuple(summary["Id"] for summary in session.get("/containers/json", all=int(all)))

    def row(name: str) -> dict[str, str]:
        return usage.row(session.get(f"/containers/{name}/stats", stream=0), name, no_trunc=no_trunc)

    return listed(
        each(names, row, at_once=AT_ONCE),
        usage.FIELDS,
        "Resource usage",
        empty="No running containers.",
        format=format,
    )


@container.command("port", help="List port mappings or a specific mapping for the container")
@argument("name", "CONTAINER")
@argument("private", "[PRIVATE_PORT[/PROTO]]", required=False)
@click.pass_obj
def port(session: Session, name: str, private: str | None) -> Text:
    bindings = session.container(name).attrs["NetworkSettings"].get("Ports") or {}
    wanted = private if private is None or "/" in private else f"{private}/tcp"
    lines = []
    for inside, hosts in sorted(bindings.items(), key=lambda item: _numbered(item[0])):
        for host in hosts or ():
            address = f"[{host['HostIp']}]" if ":" in host["HostIp"] else host["HostIp"]
            if wanted is None:
                lines.append(f"{inside} -> {address}:{host['HostPort']}")
            elif wanted == inside:
                lines.append(f"{address}:{host['HostPort']}")
    if wanted is not None and not lines:
        raise DockmagicError(f"Error: No public port '{wanted}' published for {name}")
    return Text("\n".join(lines))


def _numbered(port: str) -> tuple[int, str]:
    number, _, protocol = port.partition("/")
    return int(number), protocol


@container.command("diff", help="Inspect changes to files or directories on a container's filesystem")
@argument("name", "CONTAINER")
@click.pass_obj
def diff(session: Session, name: str) -> Any:
    from dockmagic.views.tables import table

    changes = session.get(f"/containers/{name}/changes") or []
    rows = [["CAD"[change["Kind"]], change["Path"]] for change in changes]
    return table(rows, ["CHANGE", "PATH"], f"Changed in {name}", empty="Nothing changed.")
