"""The noun, and what its commands share."""

from typing import Any

from dockmagic.grammar.session import Session
from dockmagic.grammar.syntax import DockerGroup, argument

container = DockerGroup("container", help="Manage containers")

# `CONTAINER [CONTAINER...]` of commands that take several.
some_containers = argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)


def changed(session: Session, name: str, action: str, **params: Any) -> Any:
    """POST the `action`, and the container as it is afterwards."""
    session.post(f"/containers/{name}/{action}", **{k: v for k, v in params.items() if v is not None})
    return session.container(name)
