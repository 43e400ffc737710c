"""`docker volume …`: `create` returns the volume, `ls` a table with its users.

Docker has no `export`, `import`, `clone` and `rename`; the first two are spelled as Podman's.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dockmagic.errors import UsageMistake
from dockmagic.grammar import pruning, rows
from dockmagic.grammar.copying import opened, output_path, save_stream
from dockmagic.grammar.filters import Filter, encoded
from dockmagic.grammar.listing import (
    filter_option,
    format_option,
    inspected,
    listed,
    listing_options,
)
from dockmagic.grammar.pruning import force_switch
from dockmagic.grammar.session import Session, each
from dockmagic.grammar.specifications import LABEL, PAIR, halves
from dockmagic.grammar.syntax import (
    DockerGroup,
    Refused,
    argument,
    option,
    refused_option,
    refused_switch,
    switch,
)
from dockmagic.grammar.values import Names

F = TypeVar("F", bound=Callable[..., Any])

volume = DockerGroup("volume", help="Manage volumes")

CLUSTER = "cluster volumes belong to Swarm, and the engine is one machine"
LACKS = "{} volumes: copy the files with a container that mounts the volume and a directory"
RUNNING = " (running)"
VOLUME_FIELDS = {"DRIVER": "Driver", "VOLUME NAME": "Name", "SIZE": "Size", "USED BY": "UsedBy"}


@volume.command("ls", help="List volumes, and who uses them")
@listing_options
@switch("--size", "-s", help="Display the bytes of each volume's files (dockmagic)")
@refused_switch("--cluster", why=CLUSTER)
@click.pass_obj
def ls(session: Session, filter: tuple[Filter, ...], format: str | None, quiet: bool, size: bool) -> Any:
    answer = session.get("/volumes", filters=encoded(filter))
    entries = sorted(answer["Volumes"] or (), key=lambda entry: rows.natural(entry["Name"]))
    if size:
        usage = {each["Name"]: each for each in session.get("/system/df", type="volume")["Volumes"] or ()}
        entries = [usage.get(entry["Name"], entry) for entry in entries]
    users = {} if quiet and not format else _users(session)
    found = [
        {**rows.of_volume(entry), "UsedBy": ", ".join(users.get(entry["Name"], ()))} for entry in entries
    ]
    columns = ["DRIVER", "VOLUME NAME", *(["SIZE"] if size else []), "USED BY"]
    names = "Name" if quiet else None
    return listed(
        found, VOLUME_FIELDS, "Volumes", empty="No volumes.", format=format, names=names, columns=columns
    )


def _users(session: Session) -> dict[str, list[str]]:
    """Of each volume the containers that have it mounted, whether they run or not."""
    found: dict[str, list[str]] = {}
    for container in session.get("/containers/json", all=1):
        name = container["Names"][0].removeprefix("/")
        running = container["State"] in ("running", "paused", "restarting")
        mounts = container.get("Mounts") or ()
        for used in {mount["Name"] for mount in mounts if mount["Type"] == "volume"}:
            found.setdefault(used, []).append(name + RUNNING if running else name)
    return {name: sorted(users) for name, users in found.items()}


volume.add_command(ls, "list")


def cluster_options(command: F) -> F:
    """Docker's words for volumes of a Swarm's cluster."""
    for name in ("availability", "group", "limit-bytes", "required-bytes", "scope", "secret", "sharing",
                 "topology-preferred", "topology-required", "type"):  # fmt: skip
        command = refused_option(f"--{name}", why=CLUSTER)(command)
    return command


@volume.command("create", help="Create a volume")
@option("--driver", "-d", default="local", help="Specify volume driver name")
@option("--label", multiple=True, type=LABEL, help="Set metadata for a volume")
@option("--name", "option_name", help="Specify volume name", hidden=True)
@option("--opt", "-o", multiple=True, type=PAIR, help="Set driver specific options")
@cluster_options
@argument("name", "[VOLUME]", required=False)
@click.pass_obj
def create(
    session: Session,
    name: str | None,
    option_name: str | None,
    driver: str,
    label: tuple[str, ...],
    opt: tuple[tuple[str, str], ...],
) -> Any:
    if name and option_name:
        raise UsageMistake(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )
    body = {
        "Name": name or option_name or "",
        "Driver": driver,
        "DriverOpts": dict(opt),
        "Labels": dict(map(halves, label)),
    }
    return session.client.volumes.get(session.post("/volumes/create", body)["Name"])


@volume.command("inspect", help="Display detailed information on one or more volumes")
@format_option("--format", "-f")
@argument("volumes", "VOLUME [VOLUME...]", nargs=-1, required=True)
@click.pass_obj
def inspect(session: Session, volumes: tuple[str, ...], format: str | None) -> Any:
    return inspected(each(volumes, lambda name: session.get(f"/volumes/{name}")), format)


@volume.command("rm", help="Remove one or more volumes")
@switch("--force", "-f", help="Force the removal of one or more volumes")
@argument("volumes", "VOLUME [VOLUME...]", nargs=-1, required=True)
@click.pass_obj
def rm(session: Session, volumes: tuple[str, ...], force: bool) -> Names:
    def remove(name: str) -> str:
        session.api.remove_volume(name, force=force)
        return name

    return Names(each(volumes, remove))


volume.add_command(rm, "remove")


@volume.command("prune", help="Remove unused local volumes")
@switch("--all", "-a", help="Remove all unused volumes, not just anonymous ones")
@filter_option()
@force_switch
@click.pass_obj
def prune(session: Session, all: bool, filter: tuple[Filter, ...], force: bool) -> Names:
    return pruning.prune(session, pruning.volumes(filter, all=all), force=force)


@volume.command("export", help="Save the files of a volume as a tar archive (dockmagic)")
@option("--output", "-o", help="Write to a file")
@argument("name", "VOLUME")
@click.pass_obj
def export(session: Session, name: str, output: str | None) -> Path:
    target = output_path(output)
    users = [used.removesuffix(RUNNING) for used in _users(session).get(name, ()) if used.endswith(RUNNING)]
    if users:
        session.warn(
            f"{', '.join(users)} may be writing to {name} meanwhile: stop or pause for a backup of one moment"
        )
    response = session.extension("GET", f"/volumes/{name}/export", LACKS.format("export"), stream=True)
    return save_stream(response, target)


@volume.command("import", help="Fill a new or empty volume from a tar archive (dockmagic)")
@argument("name", "VOLUME")
@argument("source", "FILE")
@click.pass_obj
def import_(session: Session, name: str, source: str) -> Any:
    with opened(source) as archive:
        session.extension("POST", f"/volumes/{name}/import", LACKS.format("import"), data=archive)
    return session.client.volumes.get(name)


@volume.command("clone", help="Copy a volume with its files and labels (dockmagic)")
@argument("name", "VOLUME")
@argument("new", "NEW_NAME")
@click.pass_obj
def clone(session: Session, name: str, new: str) -> Any:
    return _under_another_name(session, "clone", name, new)


@volume.command("rename", help="Rename a volume that no container uses (dockmagic)")
@argument("name", "VOLUME")
@argument("new", "NEW_NAME")
@click.pass_obj
def rename(session: Session, name: str, new: str) -> Any:
    return _under_another_name(session, "rename", name, new)


def _under_another_name(session: Session, verb: str, name: str, new: str) -> Any:
    session.extension("POST", f"/volumes/{name}/{verb}", LACKS.format(verb), params={"to": new})
    return session.client.volumes.get(new)


volume.add_command(Refused("update", CLUSTER))
