"""`docker container …`, and the same words directly under `docker`.

What the value of each command is: `create`, `run -d`, `start`, `stop`, `restart`, `kill`, `pause`,
`unpause`, `rename`, `update`: the container (a list when several were named); `run`, `exec`, `start -a`,
`attach`: a Result with exit code and output; `ls`, `top`, `stats`, `diff`: a table (a DataFrame); `logs`:
text; `inspect`: the documents; `rm`, `prune`: what went.

A foreground program that ends with another code than 0 makes the cell fail, as a shell script with `set -e`
would; `--no-check` returns its Result instead.
"""

from pathlib import Path
from typing import Any

import click

from dockmagic.errors import ContainerExit, DockmagicError, UsageMistake, translate
from dockmagic.grammar import filters, foreground, template
from dockmagic.grammar.options import (
    RESOURCES,
    container_config,
    container_options,
    nano_cpus,
    resource_options,
    restart_policy,
)
from dockmagic.grammar.pulling import pull_image, reference
from dockmagic.grammar.session import Session, each, host_path
from dockmagic.grammar.syntax import DockerGroup, argument, option, switch
from dockmagic.grammar.values import Documents, Names, Result, Text
from dockmagic.streams import output, response_reader

container = DockerGroup("container", help="Manage containers")

check_option = switch(
    "--no-check", help="Return the result of a program that fails, instead of failing the cell"
)


# -- run, create, start --------------------------------------------------------------------------------------


@container.command("run", interspersed=False, help="Create and run a new container from an image")
@container_options
@switch("--detach", "-d", help="Run container in background")
@option("--detach-keys", help="Has no effect in a notebook", hidden=True)
@option("--sig-proxy", type=bool, default=True, help="Has no effect in a notebook", hidden=True)
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
    detach_keys: str | None,
    sig_proxy: bool,
    **given: Any,
) -> Any:
    if detach and given["attach"]:
        raise UsageMistake(
            "docker: conflicting options: cannot specify both --attach and --detach", exit_code=125
        )
    if given["rm"] and given["restart"] not in (None, "no"):
        raise UsageMistake(
            "docker: conflicting options: cannot specify both --restart and --rm", exit_code=125
        )
    stdin = fed(session, given["interactive"])
    identity = create_container(session, image, command, given, attach=not detach)
    with starting():
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
            removed=given["rm"],
            grace=given["stop_timeout"],
        )
    return foreground.checked(result, check=not no_check, what="container")


@container.command("create", interspersed=False, help="Create a new container")
@container_options
@argument("image", "IMAGE")
@argument("command", "[COMMAND] [ARG...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def create(session: Session, image: str, command: tuple[str, ...], **given: Any) -> Any:
    return session.container(create_container(session, image, command, given, attach=True))


def fed(session: Session, interactive: bool) -> bytes | None:
    """What goes to the program's stdin: the cell's body; with `-i` and no body, an end of file at once."""
    if session.cell.body is not None:
        return session.cell.body.encode()
    return b"" if interactive else None


def create_container(
    session: Session, image: str, command: tuple[str, ...], given: dict[str, Any], *, attach: bool
) -> str:
    """Create a container, pulling its image as `--pull` says; returns its id."""
    stdin = session.cell.body is not None
    config = container_config(image, command, given, stdin=stdin)
    config.update(AttachStdout=attach, AttachStderr=attach, AttachStdin=attach and config["OpenStdin"])
    cidfile = Path(host_path(given["cidfile"])) if given["cidfile"] else None
    if cidfile is not None and cidfile.exists():
        raise DockmagicError(
            "docker: container ID file found, make sure the other container isn't running or delete "
            f"{cidfile}",
            exit_code=125,
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


def with_tag(image: str) -> str:
    """`busybox` as the engine names it in sentences: `busybox:latest`."""
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


class starting:
    """Inside, a failure of the engine has the exit code 125, 126 or 127 of `docker run`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: Any, error: BaseException | None, _traceback: Any) -> None:
        if isinstance(error, Exception) and not isinstance(error, ContainerExit):
            failure = translate(error, starting=True)
            if failure is not None and failure is not error:
                raise failure from None


@container.command("start", help="Start one or more stopped containers")
@switch("--attach", "-a", help="Attach STDOUT/STDERR")
@switch("--interactive", "-i", help="Attach container's STDIN: the cell's body")
@check_option
@argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)
@click.pass_obj
def start(
    session: Session, containers: tuple[str, ...], attach: bool, interactive: bool, no_check: bool
) -> Any:
    if not attach and not interactive:
        return one_or_all(each(containers, lambda name: changed(session, name, "start")))
    if len(containers) != 1:
        raise DockmagicError("you cannot start and attach multiple containers at once")
    found = session.container(containers[0])
    with starting():
        result = foreground.run_attached(
            session,
            found.id,
            tty=found.attrs["Config"]["Tty"],
            stdin=fed(session, interactive),
            removed=found.attrs["HostConfig"]["AutoRemove"],
            grace=found.attrs["Config"].get("StopTimeout"),
        )
    return foreground.checked(result, check=not no_check, what=f"container {found.name}")


@container.command("attach", help="Show the output of a running container until it ends")
@switch("--no-stdin", help="Do not attach STDIN")
@option("--detach-keys", help="Has no effect in a notebook", hidden=True)
@option("--sig-proxy", type=bool, default=True, help="Has no effect in a notebook", hidden=True)
@check_option
@argument("name", "CONTAINER")
@click.pass_obj
def attach(
    session: Session, name: str, no_stdin: bool, detach_keys: str | None, sig_proxy: bool, no_check: bool
) -> Any:
    found = session.container(name)
    if found.status != "running":
        raise DockmagicError(
            "You cannot attach to a stopped container, start it first"
            if found.status != "paused"
            else "You cannot attach to a paused container, unpause it first"
        )
    wait = foreground.Wait(session, found.id, "not-running")
    body = None if no_stdin else session.cell.body
    streams = foreground.attach(session, found.id, stdin=body is not None)
    tty = found.attrs["Config"]["Tty"]
    if body is not None:
        streams.feed(body.encode(), tty=tty)
    chunks = foreground.follow(session, streams, tty=tty)
    result = Result(found, wait.exit_code(), chunks)
    return foreground.checked(result, check=not no_check, what=f"container {found.name}")


# -- from running to gone ------------------------------------------------------------------------------------


def changed(session: Session, name: str, action: str, **params: Any) -> Any:
    """POST the `action`, and the container as it is afterwards."""
    session.post(f"/containers/{name}/{action}", **{k: v for k, v in params.items() if v is not None})
    return session.container(name)


def one_or_all(values: list[Any]) -> Any:
    """A single value as itself: `web = %container start web` is the container and not a list of it."""
    return values[0] if len(values) == 1 else values


@container.command("stop", help="Stop one or more running containers")
@option("--timeout", "--time", "-t", "seconds", type=int, help="Seconds to wait before killing the container")
@option("--signal", "-s", help="Signal to send to the container")
@argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)
@click.pass_obj
def stop(session: Session, containers: tuple[str, ...], seconds: int | None, signal: str | None) -> Any:
    return one_or_all(each(containers, lambda name: ended(session, name, "stop", t=seconds, signal=signal)))


@container.command("restart", help="Restart one or more containers")
@option("--timeout", "--time", "-t", "seconds", type=int, help="Seconds to wait before killing the container")
@option("--signal", "-s", help="Signal to send to the container")
@argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)
@click.pass_obj
def restart(session: Session, containers: tuple[str, ...], seconds: int | None, signal: str | None) -> Any:
    return one_or_all(
        each(containers, lambda name: changed(session, name, "restart", t=seconds, signal=signal))
    )


@container.command("kill", help="Kill one or more running containers")
@option("--signal", "-s", help="Signal to send to the container")
@argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)
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
@argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)
@click.pass_obj
def pause(session: Session, containers: tuple[str, ...]) -> Any:
    return one_or_all(each(containers, lambda name: changed(session, name, "pause")))


@container.command("unpause", help="Unpause all processes within one or more containers")
@argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)
@click.pass_obj
def unpause(session: Session, containers: tuple[str, ...]) -> Any:
    return one_or_all(each(containers, lambda name: changed(session, name, "unpause")))


@container.command("wait", help="Block until one or more containers stop, then return their exit codes")
@argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)
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


@container.command("rm", help="Remove one or more containers")
@switch("--force", "-f", help="Force the removal of a running container (uses SIGKILL)")
@switch("--volumes", "-v", help="Remove anonymous volumes associated with the container")
@switch("--link", "-l", help="Remove the specified link")
@argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)
@click.pass_obj
def rm(session: Session, containers: tuple[str, ...], force: bool, volumes: bool, link: bool) -> Names:
    def remove(name: str) -> str:
        session.api.remove_container(name, v=volumes, link=link, force=force)
        return name

    return Names(each(containers, remove))


@container.command("prune", help="Remove all stopped containers")
@option("--filter", multiple=True, help="Provide filter values (e.g. 'until=<timestamp>')")
@switch("--force", "-f", help="Has no effect: a magic does not ask")
@click.pass_obj
def prune(session: Session, filter: tuple[str, ...], force: bool) -> Names:
    from dockmagic.views.units import size

    answer = session.post("/containers/prune", filters=filters.encoded(filter))
    gone = Names(answer.get("ContainersDeleted") or ())
    session.cell.write(f"Total reclaimed space: {size(answer.get('SpaceReclaimed') or 0)}\n")
    return gone


@container.command("update", help="Update configuration of one or more containers")
@resource_options
@argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)
@click.pass_obj
def update(
    session: Session, containers: tuple[str, ...], cpus: float | None, restart: str | None, **given: Any
) -> Any:
    body: dict[str, Any] = {
        key: given[name] for name, (_d, _t, key, _h) in RESOURCES.items() if given[name] is not None
    }
    if cpus is not None:
        body["NanoCpus"] = nano_cpus(cpus)
    if restart is not None:
        body["RestartPolicy"] = restart_policy(restart)
    if not body:
        raise UsageMistake("you must provide one or more flags when using this command")

    def apply(name: str) -> Any:
        answer = session.post(f"/containers/{name}/update", body) or {}
        session.warn(*(answer.get("Warnings") or ()))
        return session.container(name)

    return one_or_all(each(containers, apply))


# -- looking -------------------------------------------------------------------------------------------------

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
@option("--filter", "-f", multiple=True, help="Filter output based on conditions provided")
@option("--format", help="Format output using a Go template, 'table TEMPLATE' or 'json'")
@option("--last", "-n", type=int, default=-1, help="Show n last created containers (includes all states)")
@switch("--latest", "-l", help="Show the latest created container (includes all states)")
@switch("--no-trunc", help="Don't truncate output")
@switch("--quiet", "-q", help="Only display container IDs")
@switch("--size", "-s", help="Display total file sizes")
@click.pass_obj
def ls(
    session: Session,
    all: bool,
    filter: tuple[str, ...],
    format: str | None,
    last: int,
    latest: bool,
    no_trunc: bool,
    quiet: bool,
    size: bool,
) -> Any:
    from dockmagic.views.tables import table

    limit = 1 if latest else last
    params: dict[str, Any] = {"all": int(all), "size": int(size), "filters": filters.encoded(filter)}
    if limit > 0:
        params["limit"] = limit
    rows = [ps_row(summary, no_trunc=no_trunc) for summary in session.get("/containers/json", **params)]
    if quiet and not format:
        return Names(row["ID"] for row in rows)
    if format:
        return template.listing(format, rows, PS_FIELDS)
    columns = [*PS_COLUMNS, "SIZE"] if size else PS_COLUMNS
    cells = [[row[PS_FIELDS[column]] for column in columns] for row in rows]
    return table(cells, columns, "Containers" if all else "Running containers", empty="No containers.")


container.add_command(ls, "ps")
container.add_command(ls, "list")


def ps_row(summary: dict[str, Any], *, no_trunc: bool) -> dict[str, Any]:
    """One container with the fields that `docker ps --format` knows."""
    from dockmagic.views.units import ago, clock, short, size

    names = [name.removeprefix("/") for name in summary.get("Names") or ()]
    command = summary.get("Command") or ""
    image = summary.get("Image") or ""
    if not no_trunc:
        names = [name for name in names if "/" not in name] or names
        command = command if len(command) <= 20 else command[:19] + "…"
        image = short(image) if image.startswith("sha256:") else image
    labels = summary.get("Labels") or {}
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in summary.get("Mounts") or ()]
    return {
        "ID": summary["Id"] if no_trunc else summary["Id"][:12],
        "Image": image,
        "Command": f'"{command}"',
        "CreatedAt": clock(summary["Created"]),
        "RunningFor": ago(summary["Created"]),
        "Status": summary.get("Status", ""),
        "State": summary.get("State", ""),
        "Ports": published(summary.get("Ports") or ()),
        "Names": ",".join(names),
        "Size": f"{size(summary.get('SizeRw') or 0)} (virtual {size(summary.get('SizeRootFs') or 0)})",
        "Labels": ",".join(f"{key}={value}" for key, value in labels.items()),
        "Mounts": ",".join(mounts if no_trunc else [mount[:15] for mount in mounts]),
        "Networks": ",".join((summary.get("NetworkSettings") or {}).get("Networks") or {}),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in summary.get("Mounts") or ())),
    }


def published(ports: Any) -> str:
    """`0.0.0.0:8080->80/tcp, 443/tcp`, as `docker ps` writes it."""
    words = []
    for port in sorted(ports, key=lambda p: (p.get("PrivatePort", 0), p.get("Type", ""), p.get("IP", ""))):
        inside = f"{port['PrivatePort']}/{port['Type']}"
        host = port.get("IP", "")
        host = f"[{host}]" if ":" in host else host
        words.append(f"{host}:{port['PublicPort']}->{inside}" if port.get("PublicPort") else inside)
    return ", ".join(words)


@container.command("inspect", help="Display detailed information on one or more containers")
@option("--format", "-f", help="Format output using a Go template, or 'json'")
@switch("--size", "-s", help="Display total file sizes")
@argument("containers", "CONTAINER [CONTAINER...]", nargs=-1, required=True)
@click.pass_obj
def inspect(session: Session, containers: tuple[str, ...], format: str | None, size: bool) -> Any:
    documents = each(containers, lambda name: session.get(f"/containers/{name}/json", size=int(size)))
    return inspected(documents, format)


def inspected(documents: list[dict[str, Any]], format: str | None) -> Any:
    """The documents themselves, or a line for each."""
    return template.lines(format, documents) if format else Documents(documents)


@container.command("logs", help="Fetch the logs of a container")
@switch("--follow", "-f", help="Follow log output")
@option("--since", help="Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m)")
@option("--until", help="Show logs before a timestamp or relative (e.g. 42m)")
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
    params.update({k: filters.timestamp(v) for k, v in (("since", since), ("until", until)) if v})
    response = session.stream("GET", f"/containers/{name}/logs", params=params)
    parts = []
    for stream, text in output(response_reader(response), tty=found.attrs["Config"]["Tty"]):
        parts.append(text)
        if follow:
            session.cell.write(text, stream)
    return Text("".join(parts), shown=follow)


@container.command("exec", interspersed=False, help="Execute a command in a running container")
@switch("--detach", "-d", help="Detached mode: run command in the background")
@option("--detach-keys", help="Has no effect in a notebook", hidden=True)
@option("--env", "-e", multiple=True, help="Set environment variables")
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
    detach_keys: str | None,
    env: tuple[str, ...],
    env_file: tuple[str, ...],
    interactive: bool,
    privileged: bool,
    tty: bool,
    user: str,
    workdir: str,
    no_check: bool,
) -> Any:
    from dockmagic.grammar.options import environment

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
@option("--format", help="Format output using a Go template, 'table TEMPLATE' or 'json'")
@switch("--no-stream", help="Has no effect: `%container resources NAME` shows usage over time")
@switch("--no-trunc", help="Do not truncate output")
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
    from dockmagic.views.tables import table

    names = containers or tuple(summary["Id"] for summary in session.get("/containers/json", all=int(all)))
    rows = each(
        names,
        lambda name: usage.row(session.get(f"/containers/{name}/stats", stream=0), no_trunc=no_trunc),
    )
    if format:
        return template.listing(format, rows, usage.FIELDS)
    cells = [[row[field] for field in usage.FIELDS.values()] for row in rows]
    return table(cells, list(usage.FIELDS), "Resource usage", empty="No running containers.")


@container.command("port", help="List port mappings or a specific mapping for the container")
@argument("name", "CONTAINER")
@argument("private", "[PRIVATE_PORT[/PROTO]]", required=False)
@click.pass_obj
def port(session: Session, name: str, private: str | None) -> Text:
    bindings = session.container(name).attrs["NetworkSettings"].get("Ports") or {}
    wanted = private if private is None or "/" in private else f"{private}/tcp"
    lines = []
    for inside, hosts in sorted(bindings.items()):
        for host in hosts or ():
            address = f"[{host['HostIp']}]" if ":" in host["HostIp"] else host["HostIp"]
            if wanted is None:
                lines.append(f"{inside} -> {address}:{host['HostPort']}")
            elif wanted == inside:
                lines.append(f"{address}:{host['HostPort']}")
    if wanted is not None and not lines:
        raise DockmagicError(f"Error: No public port '{wanted}' published for {name}")
    return Text("\n".join(lines))


@container.command("diff", help="Inspect changes to files or directories on a container's filesystem")
@argument("name", "CONTAINER")
@click.pass_obj
def diff(session: Session, name: str) -> Any:
    from dockmagic.views.tables import table

    changes = session.get(f"/containers/{name}/changes") or []
    rows = [["CAD"[change["Kind"]], change["Path"]] for change in changes]
    return table(rows, ["CHANGE", "PATH"], f"Changed in {name}", empty="Nothing changed.")


# -- files ---------------------------------------------------------------------------------------------------


@container.command("cp", help="Copy files/folders between a container and the local filesystem")
@switch("--archive", "-a", help="Archive mode (copy all uid/gid information)")
@switch("--follow-link", "-L", help="Always follow symbol link in SRC_PATH")
@switch("--quiet", "-q", help="Suppress progress output")
@argument("source", "CONTAINER:SRC_PATH|SRC_PATH")
@argument("destination", "DEST_PATH|CONTAINER:DEST_PATH")
@click.pass_obj
def cp(session: Session, source: str, destination: str, archive: bool, follow_link: bool, quiet: bool) -> Any:
    from dockmagic.grammar import copying

    return copying.copy(session, source, destination, archive=archive, follow_link=follow_link)


@container.command("export", help="Export a container's filesystem as a tar archive")
@option("--output", "-o", required=True, help="Write to a file")
@argument("name", "CONTAINER")
@click.pass_obj
def export(session: Session, name: str, output: str) -> Path:
    from dockmagic.grammar import copying

    response = session.stream("GET", f"/containers/{name}/export")
    return copying.save_stream(response, Path(host_path(output)))


@container.command("commit", help="Create a new image from a container's changes")
@option("--author", "-a", help="Author (e.g. 'John Hannibal Smith <hannibal@a-team.com>')")
@option("--change", "-c", multiple=True, help="Apply Dockerfile instruction to the created image")
@option("--message", "-m", help="Commit message")
@option("--pause", "-p", type=bool, default=True, help="Pause container during commit")
@argument("name", "CONTAINER")
@argument("image", "[REPOSITORY[:TAG]]", required=False)
@click.pass_obj
def commit(
    session: Session,
    name: str,
    image: str | None,
    author: str | None,
    change: tuple[str, ...],
    message: str | None,
    pause: bool,
) -> Any:
    repository, tag = reference(image) if image else (None, None)
    params = {
        "container": name,
        "repo": repository,
        "tag": tag,
        "author": author,
        "comment": message,
        "pause": int(pause),
        "changes": "\n".join(change) or None,
    }
    answer = session.post("/commit", {}, **{key: value for key, value in params.items() if value is not None})
    return session.client.images.get(answer["Id"])


# -- our own verbs: what the kernel did ----------------------------------------------------------------------


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
