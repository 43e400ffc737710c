"""`docker build` and the `%%dockerfile` magic: a context becomes a tar, the engine builds, the steps are a
picture.

The context is sent through the Engine API's classic build. What `.dockerignore` names stays out of it;
without `--context` the `%%dockerfile` magic sends nothing but the Dockerfile. Stop closes the connection,
and the engine gives the build up.
"""

import json
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from dockmagic.errors import DockmagicError
from dockmagic.grammar import pruning
from dockmagic.grammar.build_context import NAME_IN_CONTEXT, dockerfile_name, ignore_rules, write_context
from dockmagic.grammar.filters import Filter
from dockmagic.grammar.kinds import INTEGER, SIZE, SIZE_OR_UNLIMITED
from dockmagic.grammar.lending import lent
from dockmagic.grammar.listing import filter_option
from dockmagic.grammar.pruning import force_switch
from dockmagic.grammar.pulling import messages
from dockmagic.grammar.session import Session, host_path
from dockmagic.grammar.specifications import ENVIRONMENT, EXTRA_HOST, LABEL, ULIMIT, halves, resolved
from dockmagic.grammar.syntax import DockerCommand, DockerGroup, argument, option, refused_option, switch
from dockmagic.grammar.values import Names

F = TypeVar("F", bound=Callable[..., Any])


BUILDKIT = "this needs BuildKit; the engine builds step by step, as Docker's classic builder does"

# Limits of the RUN steps: flag, kind, and the name in the query of `POST /build`.
LIMITS: list[tuple[str, Any, str]] = [
    ("--memory -m", SIZE, "memory"),
    ("--memory-swap", SIZE_OR_UNLIMITED, "memswap"),
    ("--shm-size", SIZE, "shmsize"),
    ("--cpu-shares -c", INTEGER, "cpushares"),
    ("--cpu-period", INTEGER, "cpuperiod"),
    ("--cpu-quota", INTEGER, "cpuquota"),
    ("--cpuset-cpus", str, "cpusetcpus"),
    ("--cpuset-mems", str, "cpusetmems"),
    ("--cgroup-parent", str, "cgroupparent"),
    ("--isolation", str, "isolation"),
]


def build_options(command: F) -> F:
    """What `docker build` and `%%dockerfile` share."""
    for words, kind, key in LIMITS:
        command = option(key, *words.split(), type=kind, help="As for `run`, for the RUN steps")(command)
    for word in ("--build-context", "--cache-to", "--output", "--provenance", "--sbom"):
        command = refused_option(word, why=BUILDKIT)(command)
    for decorate in (
        option("--tag", "-t", "tags", multiple=True, help="Name and optionally a tag ('name:tag')"),
        option("--build-arg", "build_args", multiple=True, type=ENVIRONMENT, help="Set build-time variables"),
        option("--label", multiple=True, type=LABEL, help="Set metadata for an image"),
        option("--target", help="Set the target build stage to build"),
        option("--network", help="Set the networking mode for the RUN instructions during build"),
        option("--platform", help="Set target platform for build"),
        option("--add-host", multiple=True, type=EXTRA_HOST, help="Add a custom host-to-IP mapping"),
        option("--cache-from", multiple=True, help="Images to consider as cache sources"),
        option("--secret", multiple=True, help="Secret to expose to the build ('id=key,src=key.txt')"),
        option("--ssh", multiple=True, help="SSH agent socket to expose to the build ('default')"),
        option(
            "--allow",
            multiple=True,
            type=click.Choice(["network.host", "security.insecure"]),
            help="Allow extra privileged entitlement",
        ),
        option("--security-opt", multiple=True, help="Security options"),
        option("--ulimit", multiple=True, type=ULIMIT, help="Ulimit options"),
        option("--iidfile", help="Write the image ID to the file"),
        option("--progress", help="Has no effect in a notebook", hidden=True, expose_value=False),
        switch("--no-cache", help="Do not use cache when building the image"),
        switch("--pull", help="Always attempt to pull a newer version of the image"),
        switch("--rm", default=True, help="Remove intermediate containers after success (default true)"),
        switch("--force-rm", help="Always remove intermediate containers"),
        switch("--squash", help="Squash newly built layers into a single new layer"),
        switch("--compress", hidden=True, expose_value=False),  # the context always is
        switch("--disable-content-trust", hidden=True, expose_value=False),
        switch("--load", hidden=True, expose_value=False),  # the image is in the engine
        switch("--quiet", "-q", help="Suppress the build output and show the image"),
    ):
        command = decorate(command)
    return command


@click.command("build", cls=DockerCommand, help="Build an image from a Dockerfile")
@build_options
@option("--file", "-f", help="Name of the Dockerfile (Default is 'PATH/Dockerfile')")
@argument("path", "PATH | URL | -")
@click.pass_obj
def build(session: Session, path: str, file: str | None, **given: Any) -> Any:
    if path == "-":
        if session.cell.body is None:
            raise DockmagicError("`docker build -` reads the Dockerfile from the cell: use %%docker build -")
        return built(session, None, session.cell.body, given)
    if "://" in path or path.startswith("git@"):
        return built_remote(session, path, file, given)
    directory = Path(host_path(path))
    if not directory.is_dir():
        raise DockmagicError(f'unable to prepare context: path "{path}" not found')
    if file == "-":
        if session.cell.body is None:
            raise DockmagicError(
                "`--file -` reads the Dockerfile from the cell: use %%docker build -f - PATH"
            )
        return built(session, directory, session.cell.body, given)
    dockerfile = Path(host_path(file)) if file else directory / NAME_IN_CONTEXT
    try:
        text = dockerfile.read_text(errors="replace")
    except OSError:
        raise DockmagicError(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat "
            f"{dockerfile}: no such file or directory"
        ) from None
    return built(session, directory, text, given, dockerfile)


@click.command(
    "dockerfile", cls=DockerCommand, hidden=True, help="Build an image from the Dockerfile in this cell"
)
@build_options
@option("--context", help="Directory that COPY and ADD read from (default: none)")
@switch("--explain", help="Say what each line does and what could be better, and build nothing (dockmagic)")
@click.pass_obj
def dockerfile(session: Session, context: str | None, explain: bool, **given: Any) -> Any:
    if session.cell.body is None:
        raise DockmagicError("%%dockerfile is a cell magic: write the Dockerfile below it")
    directory = Path(host_path(context)) if context else None
    if directory is not None and not directory.is_dir():
        raise DockmagicError(f'unable to prepare context: path "{context}" not found')
    if explain:
        return explained(session, session.cell.body, directory, given["target"])
    return built(session, directory, session.cell.body, given)


def explained(
    session: Session,
    text: str,
    directory: Path | None,
    target: str | None = None,
    dockerfile: Path | None = None,
) -> Any:
    """The picture of what each line of the Dockerfile `text` does. Raises DockmagicError.

    `dockerfile` is the file that `text` is from: it may have an ignore file of its own.
    """
    from docker.errors import APIError
    from IPython.display import display

    from dockmagic.views.explanation import Explanation
    from dockmagic.views.source import Refusal

    ignores = None if directory is None else bool(ignore_rules(directory, dockerfile))
    asked = {"Dockerfile": text, "Target": target, "Ignores": ignores}
    lacks = "explain a Dockerfile (dockmagic's can): %docker context use"
    try:
        told = session.extension("POST", "/explain", lacks, json=asked).json()
    except APIError as refused:
        session.cell.call(display, Refusal(str(refused.explanation), text))
        raise
    return Explanation(told, dockerfile.name if dockerfile else NAME_IN_CONTEXT)


def built(
    session: Session,
    directory: Path | None,
    text: str,
    given: dict[str, Any],
    dockerfile: Path | None = None,
) -> Any:
    """Build `text` with the files of `directory`; returns the image, or raises DockmagicError."""
    with tempfile.TemporaryFile() as spool:
        write_context(spool, directory, text, dockerfile)
        spool.seek(0)
        return _posted(session, text, given, {"dockerfile": dockerfile_name(directory, dockerfile)}, spool)


def built_remote(session: Session, url: str, file: str | None, given: dict[str, Any]) -> Any:
    """Build from a URL that the engine fetches."""
    return _posted(session, "", given, {"remote": url, "dockerfile": file or NAME_IN_CONTEXT}, None)


def _posted(
    session: Session, text: str, given: dict[str, Any], params: dict[str, Any], context: IO[bytes] | None
) -> Any:
    from docker.errors import APIError

    from dockmagic.views.progress import BuildProgress

    query = {**build_params(given), **params}
    if lending := lent(session, given):
        query["session"] = lending
    headers = {"Content-Type": "application/x-tar"}
    session.api._set_auth_headers(headers)  # of all registries: a FROM may name any
    progress = BuildProgress(f"Building {given['tags'][0]}" if given["tags"] else "Building", text)
    with session.cell.showing(progress) if not given["quiet"] else nullcontext():
        try:
            response = session.stream("POST", "/build", params=query, data=context, headers=headers)
        except APIError as refused:
            progress.refuse(str(refused.explanation))
            raise
        for message in messages(response):
            progress.feed(message)
        image_id = progress.image
        if image_id is not None:
            progress.measure(session.client.images.get(image_id).history())
    if progress.error or image_id is None:
        raise DockmagicError(progress.error or "the build ended without an image")
    if given["iidfile"]:
        Path(host_path(given["iidfile"])).write_text(image_id)
    return session.client.images.get(image_id)


def build_params(given: dict[str, Any]) -> dict[str, Any]:
    """The query of `POST /build`."""
    params: dict[str, Any] = {
        "t": list(given["tags"]),
        "buildargs": json.dumps(dict(map(halves, resolved(list(given["build_args"]))))),
        "labels": json.dumps(dict(map(halves, given["label"]))),
        "nocache": int(given["no_cache"]),
        "pull": int(given["pull"]),
        "rm": int(given["rm"]),
        "forcerm": int(given["force_rm"]),
    }
    optional = {
        "target": given["target"],
        "networkmode": given["network"],
        "platform": given["platform"],
        "extrahosts": list(given["add_host"]),
        "cachefrom": json.dumps(list(given["cache_from"])) if given["cache_from"] else None,
        "securityopt": list(given["security_opt"]),
        "ulimits": json.dumps(list(given["ulimit"])) if given["ulimit"] else None,
        "squash": int(given["squash"]),
        **{key: given[key] for _words, _kind, key in LIMITS},
    }
    params.update({key: value for key, value in optional.items() if value})
    return params


builder = DockerGroup("builder", help="Manage builds")
builder.add_command(build)


@builder.command("prune", help="Remove build cache")
@switch("--all", "-a", help="Remove all unused build cache, not just dangling ones")
@filter_option()
@force_switch
@option("--keep-storage", type=SIZE, help="Amount of disk space to keep for cache")
@click.pass_obj
def prune(
    session: Session, all: bool, filter: tuple[Filter, ...], force: bool, keep_storage: int | None
) -> Names:
    step = pruning.build(filter, all=int(all), **{"keep-storage": keep_storage})
    return pruning.prune(session, step, force=force)
