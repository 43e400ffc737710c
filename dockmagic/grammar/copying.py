"""`docker cp` and files from the engine: tar archives in, tar archives out.

The rules for what `cp` names its copy are those of the docker command: into an existing directory the copy
keeps its name, else it gets the name of the destination; `SRC/.` copies the content.
"""

import os
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import Any

from dockmagic.errors import DockmagicError
from dockmagic.grammar.session import Session, host_path
from dockmagic.streams import response_reader


def copy(session: Session, source: str, destination: str, *, archive: bool, follow_link: bool) -> Any:
    """Copy, and return the path or the container that was written to."""
    from_name, from_path = _split(source)
    to_name, to_path = _split(destination)
    if from_name and to_name:
        raise DockmagicError("copying between containers is not supported")
    if from_name:
        return _out(session, from_name, from_path, to_path)
    if to_name:
        return _in(session, Path(host_path(from_path)), to_name, to_path, archive, follow_link)
    raise DockmagicError("must specify at least one container source")


def _split(text: str) -> tuple[str, str]:
    """`web:/etc` as `web` and `/etc`; a path of this machine has no name."""
    if text.startswith(("/", ".", "~")) or ":" not in text:
        return "", text
    name, _, path = text.partition(":")
    return name, path


def _out(session: Session, name: str, path: str, destination: str) -> Path:
    target = Path(host_path(destination))
    chunks, stat = session.api.get_archive(name, path or "/")
    with tempfile.TemporaryFile() as spool:
        for chunk in chunks:
            spool.write(chunk)
        spool.seek(0)
        content_only = path.rstrip("/").endswith("/.") or path == "."
        if target.is_dir():
            into, rename = target, None
        elif not target.parent.is_dir():
            raise DockmagicError(f'invalid output path: directory "{target.parent}" does not exist')
        else:
            into, rename = target.parent, target.name
        with tarfile.open(fileobj=spool) as archive:
            top = stat["name"]
            for member in archive:
                inside = PurePosixPath(member.name)
                if inside.parts[:1] == (top,) and (rename or content_only):
                    rest = PurePosixPath(*inside.parts[1:])
                    member.name = str(PurePosixPath(rename or ".") / rest)
                # The archive comes from a container: nothing in it may land outside `into`.
                archive.extract(member, into, filter="data")
    return target


def _in(session: Session, source: Path, name: str, path: str, archive: bool, follow_link: bool) -> Any:
    if not source.exists() and not source.is_symlink():
        raise DockmagicError(f"lstat {source}: no such file or directory")
    found = session.container(name)
    directory, member = _destination(session, found.id, source, path or "/")
    with tempfile.TemporaryFile() as spool:
        with tarfile.open(fileobj=spool, mode="w", dereference=follow_link) as tar:
            content_only = str(source).endswith("/.")
            tar.add(source, arcname="." if content_only else member, filter=None if archive else _as_root)
        spool.seek(0)
        session.api.put_archive(found.id, directory, spool)
    return found


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _destination(session: Session, identity: str, source: Path, path: str) -> tuple[str, str]:
    """The directory in the container to unpack in, and the name of the copy there."""
    import docker.errors

    def stat(place: str) -> dict[str, Any] | None:
        try:
            chunks, found = session.api.get_archive(identity, place)
        except docker.errors.NotFound:
            return None
        chunks.close()
        return found

    here = stat(path)
    is_directory = here is not None and here["mode"] & (1 << 31)
    if is_directory:
        return path, source.resolve().name
    if path.endswith("/"):
        raise DockmagicError(f"Error response from daemon: Could not find the file {path} in container")
    parent, leaf = os.path.split(path)
    return parent or "/", leaf


def save_stream(response: Any, target: Path) -> Path:
    """Write the body of `response` to `target`: beside it first, so that a half file never has its name."""
    read = response_reader(response)
    beside = target.with_name(f".{target.name}.part")
    try:
        with beside.open("wb") as file:
            while chunk := read(1 << 20):
                file.write(chunk)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    beside.rename(target)
    return target
