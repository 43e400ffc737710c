"""Our own verbs: what the kernel did for a container."""

from typing import Any

import click

from dockmagic.grammar.container.group import container
from dockmagic.grammar.session import Session
from dockmagic.grammar.syntax import argument, option


@container.command("panel", help="Show the container as a live card with buttons (dockmagic)")
@argument("name", "CONTAINER")
@click.pass_obj
def panel(session: Session, name: str) -> Any:
    from dockmagic.views.cards import ContainerCard

    return ContainerCard(session.container(name)).panel()


@container.command("namespaces", help="Show the container's namespaces beside the host's (dockmagic)")
@argument("name", "CONTAINER")
@click.pass_obj
def namespaces(session: Session, name: str) -> Any:
    from dockmagic.views.namespaces import Namespaces

    return Namespaces(session.client, session.container(name).id)


@container.command("layers", help="Show the layers that the container stands on (dockmagic)")
@argument("name", "CONTAINER")
@click.pass_obj
def layers(session: Session, name: str) -> Any:
    from dockmagic.views.layers import Layers

    return Layers(session.client, session.container(name))


@container.command("ports", help="Show published ports as the kernel maps them (dockmagic)")
@argument("name", "[CONTAINER]", required=False)
@click.pass_obj
def ports(session: Session, name: str | None) -> Any:
    from dockmagic.views.ports import PortMap

    return PortMap(session.client, session.container(name).id if name else None)


@container.command("resources", help="Show what the container uses over time (dockmagic)")
@option("--seconds", "-s", type=float, default=10.0, help="How long to look")
@argument("name", "CONTAINER")
@click.pass_obj
def resources(session: Session, name: str, seconds: float) -> Any:
    from dockmagic.views.resources import Resources

    return Resources(session.client, session.container(name).id, seconds=seconds)
