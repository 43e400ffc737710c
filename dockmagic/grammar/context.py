"""`docker context …`: which engine the magics of this notebook talk to."""

from typing import Any

import click

from dockmagic.errors import DockmagicError
from dockmagic.grammar.listing import LISTING_FORMAT, format_option, inspected, listed
from dockmagic.grammar.session import Session, each
from dockmagic.grammar.syntax import DockerGroup, argument, switch
from dockmagic.grammar.values import Text

context = DockerGroup("context", help="Choose the engine that the magics talk to")

CONTEXT_FIELDS = {"NAME": "Name", "DESCRIPTION": "Description", "DOCKER ENDPOINT": "DockerEndpoint"}


@context.command("ls", help="List contexts")
@format_option(help=LISTING_FORMAT)
@switch("--quiet", "-q", help="Only show context names")
@click.pass_obj
def ls(session: Session, format: str | None, quiet: bool) -> Any:
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
    if quiet or format:
        names = "Name" if quiet else None
        return listed(rows, CONTEXT_FIELDS, "Contexts", empty="", format=format, names=names)
    marked = [{**row, "Name": f"{row['Name']} *" if row["Current"] else row["Name"]} for row in rows]
    return listed(marked, CONTEXT_FIELDS, "Contexts (* is the current one)", empty="", format=None)


@context.command("inspect", help="Display detailed information on one or more contexts")
@format_option("--format", "-f")
@argument("names", "[CONTEXT] [CONTEXT...]", nargs=-1)
@click.pass_obj
def inspect(session: Session, names: tuple[str, ...], format: str | None) -> Any:
    known = {context.name: context for context in session.contexts.all()}

    def look(name: str) -> dict[str, Any]:
        if name not in known:
            raise DockmagicError(f'context "{name}": context not found')
        found = known[name]
        return {
            "Name": found.name,
            "Metadata": {"Description": found.description},
            "Endpoints": {"docker": {"Host": found.host, "SkipTLSVerify": False}},
        }

    return inspected(each(names or (current_name(session),), look), format)


@context.command("use", help="Set the current context, for this notebook")
@argument("name", "CONTEXT")
@click.pass_obj
def use(session: Session, name: str) -> Text:
    return Text(session.contexts.use(name).name)


@context.command("show", help="Print the name of the current context")
@click.pass_obj
def show(session: Session) -> Text:
    return Text(current_name(session))


def current_name(session: Session) -> str:
    current = session.contexts.current
    return current.name if current is not None else session.contexts.find().name
