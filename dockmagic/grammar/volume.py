"""`docker volume …`: `create` returns the volume, `ls` a table."""

from typing import Any

import click

from dockmagic.grammar import filters, template
from dockmagic.grammar.container import inspected
from dockmagic.grammar.options import labels
from dockmagic.grammar.session import Session, each
from dockmagic.grammar.syntax import DockerGroup, argument, option, switch
from dockmagic.grammar.values import Names

volume = DockerGroup("volume", help="Manage volumes")

VOLUME_FIELDS = {"DRIVER": "Driver", "VOLUME NAME": "Name"}


@volume.command("ls", help="List volumes")
@option("--filter", "-f", multiple=True, help="Provide filter values (e.g. 'dangling=true')")
@option("--format", help="Format output using a Go template, 'table TEMPLATE' or 'json'")
@switch("--quiet", "-q", help="Only display volume names")
@click.pass_obj
def ls(session: Session, filter: tuple[str, ...], format: str | None, quiet: bool) -> Any:
    from dockmagic.views.tables import table

    answer = session.get("/volumes", filters=filters.encoded(filter))
    rows = [
        {
            "Driver": entry["Driver"],
            "Name": entry["Name"],
            "Mountpoint": entry["Mountpoint"],
            "Scope": entry.get("Scope", "local"),
            "Labels": ",".join(f"{k}={v}" for k, v in (entry.get("Labels") or {}).items()),
        }
        for entry in sorted(answer["Volumes"] or (), key=lambda entry: entry["Name"])
    ]
    if quiet and not format:
        return Names(row["Name"] for row in rows)
    if format:
        return template.listing(format, rows, VOLUME_FIELDS)
    cells = [[row[field] for field in VOLUME_FIELDS.values()] for row in rows]
    return table(cells, list(VOLUME_FIELDS), "Volumes", empty="No volumes.")


volume.add_command(ls, "list")


@volume.command("create", help="Create a volume")
@option("--driver", "-d", default="local", help="Specify volume driver name")
@option("--label", multiple=True, help="Set metadata for a volume")
@option("--name", "option_name", help="Specify volume name", hidden=True)
@option("--opt", "-o", multiple=True, help="Set driver specific options")
@argument("name", "[VOLUME]", required=False)
@click.pass_obj
def create(
    session: Session,
    name: str | None,
    option_name: str | None,
    driver: str,
    label: tuple[str, ...],
    opt: tuple[str, ...],
) -> Any:
    body = {
        "Name": name or option_name or "",
        "Driver": driver,
        "DriverOpts": dict(text.partition("=")[::2] for text in opt),
        "Labels": labels(label, ()),
    }
    return session.client.volumes.get(session.post("/volumes/create", body)["Name"])


@volume.command("inspect", help="Display detailed information on one or more volumes")
@option("--format", "-f", help="Format output using a Go template, or 'json'")
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
@option("--filter", multiple=True, help="Provide filter values (e.g. 'label=<label>')")
@switch("--force", "-f", help="Has no effect: a magic does not ask")
@click.pass_obj
def prune(session: Session, all: bool, filter: tuple[str, ...], force: bool) -> Names:
    from dockmagic.views.units import size

    wanted = (*filter, "all=true") if all else filter
    answer = session.post("/volumes/prune", filters=filters.encoded(wanted))
    session.cell.write(f"Total reclaimed space: {size(answer.get('SpaceReclaimed') or 0)}\n")
    return Names(answer.get("VolumesDeleted") or ())
