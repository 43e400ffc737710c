"""`docker build` and the `%%dockerfile` magic: a context becomes a tar, the engine builds, the steps are a
picture.

The context is sent through the Engine API's classic build. What `.dockerignore` names stays out of it;
without `--context` the `%%dockerfile` magic sends nothing but the Dockerfile. Stop closes the connection,
and the engine gives the build up.
"""

import gzip
import io
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from dockmagic.errors import DockmagicError
from dockmagic.grammar.pulling import messages
from dockmagic.grammar.session import Session, host_path
from dockmagic.grammar.syntax import SIZE, DockerCommand, argument, option, switch

F = TypeVar("F", bound=Callable[..., Any])

NAME_IN_CONTEXT = "Dockerfile"


def build_options(command: F) -> F:
    """What `docker build` and `%%dockerfile` share."""
    for decorate in (
        option("--tag", "-t", "tags", multiple=True, help="Name and optionally a tag ('name:tag')"),
        option("--build-arg", "build_args", multiple=True, help="Set build-time variables"),
        option("--label", multiple=True, help="Set metadata for an image"),
        option("--target", help="Set the target build stage to build"),
        option("--network", help="Set the networking mode for the RUN instructions during build"),
        option("--platform", help="Set target platform for build"),
        option("--add-host", multiple=True, help="Add a custom host-to-IP mapping ('host:ip')"),
        option("--cache-from", multiple=True, help="Images to consider as cache sources"),
        option("--memory", "-m", type=SIZE, help="Memory limit"),
        option("--shm-size", type=SIZE, help="Size of /dev/shm"),
        option("--iidfile", help="Write the image ID to the file"),
        option("--progress", help="Has no effect in a notebook", hidden=True),
        switch("--no-cache", help="Do not use cache when building the image"),
        switch("--pull", help="Always attempt to pull a newer version of the image"),
        switch("--force-rm", help="Always remove intermediate containers"),
        switch("--load", help="Has no effect: the image is in the engine"),
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
    dockerfile = Path(host_path(file)) if file else directory / NAME_IN_CONTEXT
    try:
        text = dockerfile.read_text()
    except OSError:
        raise DockmagicError(
            f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: lstat "
            f"{dockerfile}: no such file or directory"
        ) from None
    return built(session, directory, text, given)


@click.command(
    "dockerfile", cls=DockerCommand, hidden=True, help="Build an image from the Dockerfile in this cell"
)
@build_options
@option("--context", help="Directory that COPY and ADD read from (default: none)")
@click.pass_obj
def dockerfile(session: Session, context: str | None, **given: Any) -> Any:
    if session.cell.body is None:
        raise DockmagicError("%%dockerfile is a cell magic: write the Dockerfile below it")
    directory = Path(host_path(context)) if context else None
    if directory is not None and not directory.is_dir():
        raise DockmagicError(f'unable to prepare context: path "{context}" not found')
    return built(session, directory, session.cell.body, given)


def built(session: Session, directory: Path | None, text: str, given: dict[str, Any]) -> Any:
    """Build `text` with the files of `directory`; returns the image, or raises DockmagicError."""
    with tempfile.TemporaryFile() as spool:
        write_context(spool, directory, text)
        spool.seek(0)
        return _posted(session, text, given, {"dockerfile": _dockerfile_name(directory)}, spool)


def built_remote(session: Session, url: str, file: str | None, given: dict[str, Any]) -> Any:
    """Build from a URL that the engine fetches."""
    return _posted(session, "", given, {"remote": url, "dockerfile": file or NAME_IN_CONTEXT}, None)


def _posted(
    session: Session, text: str, given: dict[str, Any], params: dict[str, Any], context: IO[bytes] | None
) -> Any:
    from dockmagic.views.progress import BuildProgress

    caption = f"Building {given['tags'][0]}" if given["tags"] else "Building"
    progress = BuildProgress(caption, text)
    headers = {"Content-Type": "application/x-tar"}
    visible = not given["quiet"]
    if visible:
        session.cell.call(progress.show)
    try:
        query = {**build_params(given), **params}
        response = session.stream("POST", "/build", params=query, data=context, headers=headers)
        for message in messages(response):
            progress.feed(message)
        image_id = progress.image
        if image_id is not None and visible:
            progress.measure(session.client.images.get(image_id).history())
    finally:
        if visible:
            session.cell.call(progress.close)
    if progress.error or image_id is None:
        raise DockmagicError(progress.error or "the build ended without an image")
    if given["iidfile"]:
        Path(host_path(given["iidfile"])).write_text(image_id)
    return session.client.images.get(image_id)


def build_params(given: dict[str, Any]) -> dict[str, Any]:
    """The query of `POST /build`."""
    arguments: dict[str, str] = {}
    for text in given["build_args"]:
        key, equals, value = text.partition("=")
        if equals or key in os.environ:
            arguments[key] = value if equals else os.environ[key]
    params: dict[str, Any] = {
        "t": list(given["tags"]),
        "buildargs": json.dumps(arguments),
        "labels": json.dumps(dict(text.partition("=")[::2] for text in given["label"])),
        "nocache": int(given["no_cache"]),
        "pull": int(given["pull"]),
        "rm": 1,
        "forcerm": int(given["force_rm"]),
    }
    optional = {
        "target": given["target"],
        "networkmode": given["network"],
        "platform": given["platform"],
        "extrahosts": list(given["add_host"]),
        "cachefrom": json.dumps(list(given["cache_from"])) if given["cache_from"] else None,
        "memory": given["memory"],
        "shmsize": given["shm_size"],
    }
    params.update({key: value for key, value in optional.items() if value})
    return params


def _dockerfile_name(directory: Path | None) -> str:
    """A name for the Dockerfile in the context that no file of `directory` has."""
    if directory is None:
        return NAME_IN_CONTEXT
    return ".dockmagic.Dockerfile"


def write_context(out: IO[bytes], directory: Path | None, text: str) -> None:
    """The build context as a gzipped tar: what is not ignored of `directory`, and the Dockerfile."""
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w") as tar:
            for path, inside in context_files(directory) if directory is not None else ():
                tar.add(path, arcname=inside, recursive=False, filter=_anonymous)
            member = tarfile.TarInfo(_dockerfile_name(directory))
            content = text.encode()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Files of a context belong to root in the image, whoever builds it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def context_files(directory: Path) -> list[tuple[Path, str]]:
    """The paths below `directory` that `.dockerignore` leaves in, with their names in the context."""
    rules = ignore_rules(directory)
    kept = []
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory).as_posix()
        if not ignored(inside, rules):
            kept.append((path, inside))
    return kept


def ignore_rules(directory: Path) -> list[tuple[bool, re.Pattern[str]]]:
    """`(keep, pattern)` for each line of `.dockerignore`; the last one that matches decides."""
    file = directory / ".dockerignore"
    rules = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        keep = line.startswith("!")
        pattern = line.removeprefix("!").strip().strip("/")
        rules.append((keep, re.compile(_glob(pattern))))
    return rules


def ignored(path: str, rules: list[tuple[bool, re.Pattern[str]]]) -> bool:
    result = False
    for keep, pattern in rules:
        if pattern.match(path):
            result = not keep
    return result


def _glob(pattern: str) -> str:
    """A pattern of Go's filepath.Match with `**` as a regular expression; what lies below matches too."""
    result = ""
    position = 0
    while position < len(pattern):
        if pattern.startswith("**/", position):
            result += "(?:.*/)?"
            position += 3
        elif pattern.startswith("**", position):
            result += ".*"
            position += 2
        elif pattern[position] == "*":
            result += "[^/]*"
            position += 1
        elif pattern[position] == "?":
            result += "[^/]"
            position += 1
        elif pattern[position] == "[" and "]" in pattern[position:]:
            end = pattern.index("]", position)
            result += pattern[position : end + 1]
            position = end + 1
        else:
            result += re.escape(pattern[position])
            position += 1
    return rf"{result}(?:/.*)?$"
