"""From running to gone: `stop`, `restart`, `kill`, `pause`, `wait`, `rename`, `update`, `rm`, `prune`."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from dockmagic.grammar import foreground, pruning
from dockmagic.grammar.container.group import changed, container, some_containers
from dockmagic.grammar.container.running import starting
from dockmagic.grammar.creation import shape_config, update_config
from dockmagic.grammar.filters import Filter
from dockmagic.grammar.kinds import INTEGER
from dockmagic.grammar.listing import filter_option
from dockmagic.grammar.options import MOUNT, resource_options
from dockmagic.grammar.pruning import force_switch
from dockmagic.grammar.session import Session, each, one_or_all
from dockmagic.grammar.syntax import argument, option, switch
from dockmagic.grammar.values import Names

F = TypeVar("F", bound=Callable[..., Any])

signal_option = option("--signal", "-s", help="Signal to send to the container")


def ending_options(command: F) -> F:
    """How `stop` and `restart` end what runs."""
    seconds = option(
        "seconds",
        "--timeout",
        "--time",
        "-t",
        type=INTEGER,
        help="Seconds to wait before killing the container",
    )
    return seconds(signal_option(command))


@container.command("stop", help="Stop one or more running containers")
@ending_options
@some_containers
@click.pass_obj
def stop(session: Session, containers: tuple[str, ...], seconds: int | None, signal: str | None) -> Any:
    return one_or_all(each(containers, lambda name: ended(session, name, "stop", t=seconds, signal=signal)))


@container.command("restart", help="Restart one or more containers")
@ending_options
@some_containers
@click.pass_obj
def restart(session: Session, containers: tuple[str, ...], seconds: int | None, signal: str | None) -> Any:
    return one_or_all(
        each(containers, lambda name: changed(session, name, "restart", t=seconds, signal=signal))
    )


@container.command("kill", help="Kill one or more running containers")
@signal_option
@some_containers
@click.pass_obj
def kill(session: Session, containers: tuple[str, ...], signal: str | None) -> Any:
    return one_or_all(each(containers, lambda name: ended(session, name, "kill", signal=signal)))


def ended(session: Session, name: str, action: str, **params: Any) -> Any:
    """As `changed`, for actions after which a container with `--rm` is gone: then the container as it was."""
    import docker.errors

    found = session.container(name)
    session.post(f"/containers/{found.id}/{action}", **{k: v for k, v in params.items() if v is not None})
    if found.attrs["HostConfig"].get("AutoRemove"):
        return found
    try:
        found.reload()
    except docker.errors.NotFound:
        return found
    return found


@container.command("pause", help="Pause all processes within one or more containers")
@some_containers
@click.pass_obj
def pause(session: Session, containers: tuple[str, ...]) -> Any:
    return one_or_all(each(containers, lambda name: changed(session, name, "pause")))


@container.command("unpause", help="Unpause all processes within one or more containers")
@some_containers
@click.pass_obj
def unpause(session: Session, containers: tuple[str, ...]) -> Any:
    return one_or_all(each(containers, lambda name: changed(session, name, "unpause")))


@container.command("wait", help="Block until one or more containers stop, then return their exit codes")
@some_containers
@click.pass_obj
def wait(session: Session, containers: tuple[str, ...]) -> Any:
    return one_or_all(
        each(containers, lambda name: foreground.Wait(session, name, "not-running").exit_code())
    )


@container.command("rename", help="Rename a container")
@argument("old", "CONTAINER")
@argument("new", "NEW_NAME")
@click.pass_obj
def rename(session: Session, old: str, new: str) -> Any:
    session.post(f"/containers/{old}/rename", name=new)
    return session.container(new)


@container.command("update", help="Update configuration of one or more containers")
@resource_options
@option("--publish", "-p", multiple=True, help="Publish a port of a container that exists (dockmagic)")
@option("--unpublish", multiple=True, help="Publish a port no longer: 80, 53/udp (dockmagic)")
@option("--volume", "-v", multiple=True, help="Mount a volume into a container that exists (dockmagic)")
@option("--mount", multiple=True, type=MOUNT, help="Attach a mount to a container that exists (dockmagic)")
@option("--unmount", multiple=True, help="Take away what is mounted at a path (dockmagic)")
@some_containers
@click.pass_obj
def update(session: Session, containers: tuple[str, ...], **given: Any) -> Any:
    """Ports and mounts take a stop and a start of a container that runs; its files stay."""
    shape = shape_config(given)
    body = update_config(given, needed=not shape)

    def apply(name: str) -> Any:
        if body:
            answer = session.post(f"/containers/{name}/update", body) or {}
            session.warn(*(answer.get("Warnings") or ()))
        if shape:
            _reshape(session, name, shape)
        return session.container(name)

    with starting(session):
        return one_or_all(each(containers, apply))


def _reshape(session: Session, name: str, shape: dict[str, Any]) -> None:
    session.extension(
        "POST",
        f"/containers/{name}/reshape",
        "change the ports or mounts of a container that exists (dockmagic's can): "
        "remove the container and run it again with these options",
        json=shape,
    )


@container.command("rm", help="Remove one or more containers")
@switch("--force", "-f", help="Force the removal of a running container (uses SIGKILL)")
@switch("--volumes", "-v", help="Remove anonymous volumes associated with the container")
@switch("--link", "-l", help="Remove the specified link")
@some_containers
@click.pass_obj
def rm(session: Session, containers: tuple[str, ...], force: bool, volumes: bool, link: bool) -> Names:
    def remove(name: str) -> str:
        session.api.remove_container(name, v=volumes, link=link, force=force)
        return name

    return Names(each(containers, remove))


container.add_command(rm, "remove")


@container.command("prune", help="Remove all stopped containers")
@filter_option()
@force_switch
@click.pass_obj
def prune(session: Session, filter: tuple[Filter, ...], force: bool) -> Names:
    return pruning.prune(session, pruning.containers(filter), force=force)
