"""`run`, `create`, `start`, `attach` and `exec`: a program, and its output in the cell.

A foreground program that ends with another code than 0 makes the cell fail, as a shell script with `set -e`
would; `--no-check` returns its Result instead. What Stop does to it is told in foreground.py; with
`--sig-proxy=false` Stop leaves the program alone and only ends the cell.
"""

from pathlib import Path
from typing import Any

import click

from dockmagic.errors import ContainerExit, DockmagicError, UsageMistake, translate
from dockmagic.grammar import foreground
from dockmagic.grammar.conflicts import explained
from dockmagic.grammar.container.group import changed, container, some_containers
from dockmagic.grammar.creation import container_config, environment
from dockmagic.grammar.flags import conflict
from dockmagic.grammar.options import container_options
from dockmagic.grammar.pulling import pull_image, with_tag
from dockmagic.grammar.session import Session, each, host_path, one_or_all
from dockmagic.grammar.specifications import ENVIRONMENT
from dockmagic.grammar.syntax import argument, detach_keys, option, refused_option, switch

PULL = ("always", "missing", "never")

check_option = switch(
    "--no-check", help="Return the result of a program that fails, instead of failing the cell"
)
sig_proxy_option = switch("--sig-proxy", default=True, help="Stop interrupts the program (default true)")


@container.command("run", interspersed=False, help="Create and run a new container from an image")
@container_options
@switch("--detach", "-d", help="Run container in background")
@detach_keys
@sig_proxy_option
@check_option
@argument("image", "IMAGE")
@argument("command", "[COMMAND] [ARG...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(
    session: Session,
    image: str,
    command: tuple[str, ...],
    detach: bool,
    no_check: bool,
    sig_proxy: bool,
    **given: Any,
) -> Any:
    if detach and given["attach"]:
        raise UsageMistake("conflicting options: cannot specify both --attach and --detach", exit_code=125)
    stdin = fed(session, given["interactive"])
    streams = () if detach else given["attach"] or ("stdout", "stderr")
    identity = create_container(session, image, command, given, streams)
    with starting(session, "" if given["rm"] else given["name"] or identity[:12]):
        if detach:
            session.post(f"/containers/{identity}/start")
            if stdin is not None:
                foreground.attach(session, identity, stdin=True).feed(stdin, tty=given["tty"])
            return session.container(identity)
        result = foreground.run_attached(
            session,
            identity,
            tty=given["tty"],
            stdin=stdin,
            streams=streams,
            removed=given["rm"],
            grace=given["stop_timeout"],
            proxied=sig_proxy,
        )
    return foreground.checked(result, check=not no_check, what="container")


@container.command("create", interspersed=False, help="Create a new container")
@container_options
@argument("image", "IMAGE")
@argument("command", "[COMMAND] [ARG...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def create(session: Session, image: str, command: tuple[str, ...], **given: Any) -> Any:
    streams = given["attach"] or ("stdout", "stderr")
    return session.container(create_container(session, image, command, given, streams))


def fed(session: Session, interactive: bool) -> bytes | None:
    """What goes to the program's stdin: the cell's body; with `-i` and no body, an end of file at once."""
    if session.cell.body is not None:
        return session.cell.body.encode()
    return b"" if interactive else None


def create_container(
    session: Session, image: str, command: tuple[str, ...], given: dict[str, Any], streams: tuple[str, ...]
) -> str:
    """Create a container, pulling its image as `--pull` says; returns its id."""
    if given["pull"] not in (None, "", *PULL):
        words = '"always", "missing" or "never"'
        raise conflict(f"invalid pull option: '{given['pull']}': must be one of {words}")
    stdin = session.cell.body is not None
    config = container_config(image, command, given, stdin=stdin)
    config.update(
        AttachStdout="stdout" in streams,
        AttachStderr="stderr" in streams,
        AttachStdin=bool(streams) and config["OpenStdin"],
    )
    cidfile = Path(host_path(given["cidfile"])) if given["cidfile"] else None
    if cidfile is not None and cidfile.exists():
        raise conflict(
            "container ID file found, make sure the other container isn't running or delete "
            f"{given['cidfile']}"
        )
    with starting():
        if given["pull"] == "always":
            pull_image(session, image, platform=given["platform"], quiet=given["quiet"])
        answer = _created(session, config, given)
    session.warn(*(answer.get("Warnings") or ()))
    identity: str = answer["Id"]
    if cidfile is not None:
        cidfile.write_text(identity)
    return identity


def _created(session: Session, config: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    import docker.errors

    api = session.api
    try:
        return api.create_container_from_config(config, given["name"], given["platform"])
    except docker.errors.ImageNotFound:
        if given["pull"] == "never":
            raise
    session.cell.write(f"Unable to find image '{with_tag(config['Image'])}' locally\n", "stderr")
    pull_image(session, config["Image"], platform=given["platform"], quiet=given["quiet"])
    return api.create_container_from_config(config, given["name"], given["platform"])


class starting:
    """Inside, a failure of the engine has the exit code 125, 126 or 127 of `docker run`.

    With a `session` a port that is taken is explained; `created` is the container that then stays behind.
    """

    def __init__(self, session: Session | None = None, created: str = "") -> None:
        self._session = session
        self._created = created

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, ContainerExit):
            failure = translate(error, starting=True)
            if failure is not None and self._session is not None:
                failure = explained(self._session, failure, self._created)
            if failure is not None and failure is not error:
                raise failure from None


@container.command("start", help="Start one or more stopped containers")
@switch("--attach", "-a", help="Attach STDOUT/STDERR")
@switch("--interactive", "-i", help="Attach container's STDIN: the cell's body")
@refused_option("--checkpoint", why="checkpoints need CRIU, which the engine does not drive")
@refused_option("--checkpoint-dir", why="checkpoints need CRIU, which the engine does not drive")
@detach_keys
@check_option
@some_containers
@click.pass_obj
def start(
    session: Session, containers: tuple[str, ...], attach: bool, interactive: bool, no_check: bool
) -> Any:
    if not attach and not interactive:
        with starting(session):
            return one_or_all(each(containers, lambda name: changed(session, name, "start")))
    if len(containers) != 1:
        raise DockmagicError("you cannot start and attach multiple containers at once")
    found = session.container(containers[0])
    with starting(session):
        result = foreground.run_attached(
            session,
            found.id,
            tty=found.attrs["Config"]["Tty"],
            stdin=fed(session, interactive),
            removed=found.attrs["HostConfig"]["AutoRemove"],
            grace=found.attrs["Config"].get("StopTimeout"),
        )
    return foreground.checked(result, check=not no_check, what=f"container {found.name}")


@container.command("attach", help="Show the output of a running container until it ends, or Stop")
@switch("--no-stdin", help="Do not attach STDIN")
@detach_keys
@sig_proxy_option
@check_option
@argument("name", "CONTAINER")
@click.pass_obj
def attach(session: Session, name: str, no_stdin: bool, sig_proxy: bool, no_check: bool) -> Any:
    """A cell is no terminal: what goes in is its body, what comes out streams into it."""
    found = session.container(name)
    if found.status != "running":
        raise DockmagicError(
            "cannot attach to a paused container, unpause it first"
            if found.status == "paused"
            else "cannot attach to a stopped container, start it first"
        )
    result = foreground.attached(session, found, None if no_stdin else session.cell.body, proxied=sig_proxy)
    return foreground.checked(result, check=not no_check, what=f"container {found.name}")


@container.command("exec", interspersed=False, help="Execute a command in a running container")
@switch("--detach", "-d", help="Detached mode: run command in the background")
@detach_keys
@option("--env", "-e", multiple=True, type=ENVIRONMENT, help="Set environment variables")
@option("--env-file", multiple=True, help="Read in a file of environment variables")
@switch("--interactive", "-i", help="Keep STDIN open: it is the cell's body")
@switch("--privileged", help="Give extended privileges to the command")
@switch("--tty", "-t", help="Allocate a pseudo-TTY")
@option("--user", "-u", default="", help="Username or UID (format: <name|uid>[:<group|gid>])")
@option("--workdir", "-w", default="", help="Working directory inside the container")
@check_option
@argument("name", "CONTAINER")
@argument("command", "COMMAND [ARG...]", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def exec_(
    session: Session,
    name: str,
    command: tuple[str, ...],
    detach: bool,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    interactive: bool,
    privileged: bool,
    tty: bool,
    user: str,
    workdir: str,
    no_check: bool,
) -> Any:
    found = session.container(name)
    stdin = None if detach else fed(session, interactive)
    body = {
        "AttachStdin": stdin is not None,
        "AttachStdout": not detach,
        "AttachStderr": not detach,
        "Cmd": list(command),
        "Env": environment(env, env_file),
        "Privileged": privileged,
        "Tty": tty,
        "User": user,
        "WorkingDir": workdir,
        "Detach": detach,
    }
    with starting():
        if detach:
            identity = session.post(f"/containers/{found.id}/exec", body)["Id"]
            session.post(f"/exec/{identity}/start", {"Detach": True, "Tty": tty})
            return None
        result = foreground.exec_attached(session, found, body, stdin=stdin)
    return foreground.checked(result, check=not no_check, what="the command")
