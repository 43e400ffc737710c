"""`docker cp`: tar archives of `GET` and `PUT /containers/{id}/archive`, out and in.

What a copy is called follows docker/cli's `cp`: into an existing directory it keeps its name, else it gets
the name of the destination; `SRC/.` copies the content. An archive out of a container is not trusted: nothing
in it lands outside of the destination, and no set-uid bit or device comes with it.
"""

import base64
import json
import os
import tarfile
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO, Any

from dockmagic.errors import DockmagicError, UsageMistake
from dockmagic.grammar.session import Session, host_path
from dockmagic.grammar.values import Archive
from dockmagic.streams import response_reader

TERMINAL = "cowardly refusing to save to a terminal. Use the -o flag or redirect"
_DIRECTORY, _LINK = 1 << 31, 1 << 27  # bits of Go's os.FileMode


def copy(
    session: Session, source: str, destination: str, *, archive: bool, follow_link: bool, quiet: bool
) -> Any:
    """Copy, and return what was written to: a path, a container; or the archive itself, for `-`."""
    from_name, from_path = _split(source)
    to_name, to_path = _split(destination)
    if from_name and to_name:
        raise UsageMistake("copying between containers is not supported")
    if not from_name and not to_name:
        raise UsageMistake("must specify at least one container source")
    if from_path == "-" and not from_name:
        raise UsageMistake(
            "a cell's body is text and no archive: copy a file or directory, or use "
            "container.put_archive(path, data) with the archive as bytes"
        )
    with tempfile.TemporaryFile() as spool:
        if from_name:
            _fetch(session, from_name, from_path, spool, follow_link)
            if to_path == "-":
                return Archive(spool.read())
            result: Any = _unpack(spool, from_path, host_path(to_path), keep_owners=archive)
        else:
            result = session.container(to_name)
            _send(session, host_path(from_path), result, to_path, spool, archive, follow_link)
        if not quiet:
            from dockmagic.views.units import size

            spool.seek(0, os.SEEK_END)
            session.cell.write(f"Successfully copied {size(spool.tell())} to {destination}\n")
    return result


def _split(text: str) -> tuple[str, str]:
    """`web:/etc` as `web` and `/etc`; a path of this machine has no name."""
    if text.startswith(("/", ".", "~", "$")) or ":" not in text:
        return "", text
    name, _, path = text.partition(":")
    return name, path


# -- out of a container ------------------------------------------------------------------------------------


def _fetch(session: Session, name: str, path: str, spool: IO[bytes], follow_link: bool) -> None:
    """Write the archive of `path` to `spool`."""
    if follow_link:
        path, _found = _followed(session, name, path)
    response = session.stream("GET", f"/containers/{name}/archive", params={"path": path or "/"})
    _drain(response, spool)
    spool.seek(0)


def _unpack(spool: IO[bytes], source: str, destination: str, *, keep_owners: bool) -> Path:
    """Unpack the archive at `destination`; returns the path of the copy."""
    target = Path(destination)
    with tarfile.open(fileobj=spool) as archive:
        members = archive.getmembers()
        into, name = _place(source, destination, is_directory=members[0].isdir())
        top = len(PurePosixPath(members[0].name).parts)  # everything is below the first one

        def renamed(path: str) -> str:
            return str(PurePosixPath(name, *PurePosixPath(path).parts[top:]))

        for member in members:
            linked = renamed(member.linkname) if member.islnk() else member.linkname
            member = member.replace(name=renamed(member.name), linkname=linked, deep=False)
            try:
                safe = _safe(member, str(into), keep_owners)
            except tarfile.FilterError:
                raise DockmagicError(f"not copied, as it would leave {into}: {member.name}") from None
            archive.extract(safe, into, filter="fully_trusted")
    return target / name if into == target else target


def _place(source: str, destination: str, *, is_directory: bool) -> tuple[Path, str]:
    """The directory of this machine to unpack in, and the copy's name there."""
    target = Path(destination)
    if target.is_dir():
        content_only = source.rstrip("/").endswith("/.") or source in (".", "/", "")
        return target, "." if content_only else PurePosixPath(source).name
    if not target.parent.is_dir():
        raise DockmagicError(f'invalid output path: directory "{target.parent.absolute()}" does not exist')
    if target.exists() and is_directory:
        raise DockmagicError("cannot copy directory")
    if destination.endswith("/") and not is_directory:
        raise DockmagicError("no such directory")
    return target.parent, target.name


def _safe(member: tarfile.TarInfo, into: str, keep_owners: bool) -> tarfile.TarInfo:
    """`member` as it may be unpacked below `into`. Raises tarfile.FilterError.

    Python's own `data` filter also refuses links to absolute paths, which every root file system has.
    """
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        raise tarfile.SpecialFileError(member)
    checked = tarfile.tar_filter(member, into)
    if member.islnk():
        linked = os.path.realpath(os.path.join(into, member.linkname))  # noqa: PTH118
        if os.path.commonpath([linked, os.path.realpath(into)]) != os.path.realpath(into):
            raise tarfile.LinkOutsideDestinationError(member, linked)
    owner: dict[str, Any] = {} if keep_owners else {"uid": None, "gid": None, "uname": None, "gname": None}
    return checked.replace(mode=member.mode & 0o777, **owner, deep=False)


# -- into a container --------------------------------------------------------------------------------------


def _send(
    session: Session,
    source: str,
    container: Any,
    path: str,
    spool: IO[bytes],
    archive: bool,
    follow_link: bool,
) -> None:
    """Pack `source` and have it unpacked at `path` of the container."""
    origin = Path(source)
    if not origin.exists() and not origin.is_symlink():
        raise DockmagicError(f"lstat {source}: no such file or directory")
    if follow_link:
        origin = origin.resolve()
    directory, name = _destination(session, container.id, path, origin)
    if name is None:
        name = "." if source.endswith("/.") or source == "." else Path(source).absolute().name
    with tarfile.open(fileobj=spool, mode="w") as tar:
        tar.add(origin, arcname=name)
    spool.seek(0)
    params = {"path": directory, "noOverwriteDirNonDir": "true"}
    if archive:
        params["copyUIDGID"] = "true"
    session.put(f"/containers/{container.id}/archive", spool, params)


def _destination(session: Session, identity: str, path: str, origin: Path) -> tuple[str, str | None]:
    """The directory in the container to unpack in, and the copy's name there (None: its own)."""
    path, found = _followed(session, identity, path)
    is_directory = origin.is_dir() and not origin.is_symlink()
    if found is not None and found["mode"] & _DIRECTORY:
        return path or "/", None
    if found is not None and is_directory:
        raise DockmagicError("cannot copy directory")
    if path.endswith("/") and not is_directory:
        raise DockmagicError("no such directory")
    parent, leaf = os.path.split(path.rstrip("/"))
    return parent or "/", leaf


def _followed(session: Session, name: str, path: str) -> tuple[str, dict[str, Any] | None]:
    """`path`, or where it leads if it is a link, and the stat of what is there (None: nothing)."""
    found = _stat(session, name, path)
    if found is None or not found["mode"] & _LINK:
        return path, found
    path = str(PurePosixPath(path).parent / found["linkTarget"])
    return path, _stat(session, name, path)


def _stat(session: Session, name: str, path: str) -> dict[str, Any] | None:
    """What `HEAD /containers/{id}/archive` tells in a header."""
    import docker.errors

    try:
        response = session.head(f"/containers/{name}/archive", {"path": path or "/"})
    except docker.errors.NotFound:
        return None
    text = base64.b64decode(response.headers["X-Docker-Container-Path-Stat"])
    stat: dict[str, Any] = json.loads(text)
    return stat


# -- files of archives -------------------------------------------------------------------------------------


def opened(path: str) -> IO[bytes]:
    """The archive at `path`. Raises DockmagicError, in Docker's words."""
    try:
        return Path(host_path(path)).open("rb")
    except OSError as error:
        raise DockmagicError(f"open {path}: {(error.strerror or str(error)).lower()}") from None


def _drain(response: Any, file: IO[bytes]) -> None:
    read = response_reader(response)
    while chunk := read(1 << 20):
        file.write(chunk)


def output_path(output: str | None) -> Path:
    """The file of `--output`. Raises UsageMistake where it was not said."""
    if output is None:
        raise UsageMistake(TERMINAL)
    return Path(host_path(output))


def save_stream(response: Any, target: Path) -> Path:
    """Write the body of `response` to `target`: beside it first, so that a half file never has its name."""
    beside = target.with_name(f".{target.name}.part")
    try:
        with beside.open("wb") as file:
            _drain(response, file)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is not None:
            raise DockmagicError(f"invalid output path: {target}: {(error.strerror or '').lower()}") from None
        raise
    beside.rename(target)
    return target
