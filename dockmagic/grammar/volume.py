"""`docker volume …`: `create` returns the volume, `ls` a table."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from dockmagic.errors import UsageMistake
from dockmagic.grammar import rows
from dockmagic.grammar.filters import Filter, encoded
from dockmagic.grammar.listing import (
    filter_option,
    format_option,
    inspected,
    listed,
    listing_options,
    pruned,
    reclaimed,
)
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
VOLUME_FIELDS = {"DRIVER": "Driver", "VOLUME NAME": "Name"}


@volume.command("ls", help="List volumes")
@listing_options
@refused_switch("--cluster", why=CLUSTER)
@click.pass_obj
def ls(session: Session, filter: tuple[Filter, ...], format: str | None, quiet: bool) -> Any:
    answer = session.get("/volumes", filters=encoded(filter))
    found = [
        rows.of_volume(entry)
        for entry in sorted(answer["Volumes"] or (), key=lambda entry: rows.natural(entry["Name"]))
    ]
    names = "Name" if quiet else None
    return listed(found, VOLUME_FIELDS, "Volumes", empty="No volumes.", format=format, names=names)


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
@switch("--force", "-f", help="Has no effect: a magic does not ask")
@click.pass_obj
def prune(session: Session, all: bool, filter: tuple[Filter, ...], force: bool) -> Names:
    wanted = (*filter, ("all", "true")) if all else filter
    gone, space = pruned(session, "volumes", "VolumesDeleted", wanted)
    reclaimed(session, space)
    return gone


volume.add_command(Refused("update", CLUSTER))
