"""`docker context …`: which engine the magics of this notebook talk to."""

from typing import Any

import click

from dockmagic.grammar import template
from dockmagic.grammar.session import Session
from dockmagic.grammar.syntax import DockerGroup, argument, option, switch
from dockmagic.grammar.values import Names, Text

context = DockerGroup("context", help="Choose the engine that the magics talk to")

CONTEXT_FIELDS = {"NAME": "Name", "DESCRIPTION": "Description", "DOCKER ENDPOINT": "DockerEndpoint"}


@context.command("ls", help="List contexts")
@option("--format", help="Format output using a Go template, 'table TEMPLATE' or 'json'")
@switch("--quiet", "-q", help="Only show context names")
@click.pass_obj
def ls(session: Session, format: str | None, quiet: bool) -> Any:
    from dockmagic.views.tables import table

    current = session.contexts.current
    rows: list[dict[str, Any]] = [
        {
            "Name": known.name,
            "Description": known.description,
            "DockerEndpoint": known.host,
            "Current": current is not None and known.name == current.name,
        }
        for known in session.contexts.all()
    ]
    if quiet and not format:
        return Names(row["Name"] for row in rows)
    if format:
        return template.listing(format, rows, CONTEXT_FIELDS)
    cells = [
        [f"{row['Name']} *" if row["Current"] else row["Name"], row["Description"], row["DockerEndpoint"]]
        for row in rows
    ]
    return table(cells, list(CONTEXT_FIELDS), "Contexts (* is the current one)")


@context.command("use", help="Set the current context, for this notebook")
@argument("name", "CONTEXT")
@click.pass_obj
def use(session: Session, name: str) -> Text:
    return Text(session.contexts.use(name).name)


@context.command("show", help="Print the name of the current context")
@click.pass_obj
def show(session: Session) -> Text:
    current = session.contexts.current
    return Text(current.name if current is not None else session.contexts.find().name)
