"""The build context: which files of a directory are sent to the engine, as a tar, with the Dockerfile.

`.dockerignore` has the patterns of Go's filepath.Match, with `**`; the last rule that matches a path decides
(moby `patternmatcher`). The engine reads it too, so it is sent with the Dockerfile even if it excludes both:
then the engine takes them away, before anything is copied.

A Dockerfile that is no file of the directory, as one from a cell, goes by a name of ours, which the rules
that are sent exclude. So it is in no image, and another text of it does not make the files other ones.
"""

import gzip
import io
import re
import tarfile
from pathlib import Path
from typing import IO

from dockmagic.errors import DockmagicError

NAME_IN_CONTEXT = "Dockerfile"
_NAME_OF_OURS = ".dockmagic.Dockerfile"
_IGNORE = ".dockerignore"

Rules = list[tuple[bool, re.Pattern[str]]]
"""`(keep, pattern)` of each line; the pattern fits what is below as well."""


def dockerfile_name(directory: Path | None, dockerfile: Path | None = None) -> str:
    """The Dockerfile's name in the context: that which it has in `directory`, if it is a file there."""
    if directory is None:
        return NAME_IN_CONTEXT
    if dockerfile is not None and not dockerfile.is_symlink():
        place, top = dockerfile.absolute(), directory.absolute()
        if place.is_relative_to(top) and ".." not in place.parts:
            return place.relative_to(top).as_posix()
    return _NAME_OF_OURS


def write_context(out: IO[bytes], directory: Path | None, text: str, dockerfile: Path | None = None) -> None:
    """The build context as a gzipped tar: what is not ignored of `directory`, and the Dockerfile.

    `dockerfile` is the file that `text` is from: it may have an ignore file of its own.
    """
    name = dockerfile_name(directory, dockerfile)
    files = dict(context_files(directory, dockerfile)) if directory is not None else {}
    added: dict[str, str] = {}
    if directory is not None and name == _NAME_OF_OURS:
        also = [] if (directory / _IGNORE).exists() else [_IGNORE]
        added[_IGNORE] = "\n".join([_ignore_text(directory, dockerfile), name, *also])
    elif directory is not None:
        for needed in (name, f"{name}{_IGNORE}", _IGNORE):
            if (directory / needed).is_file():
                files[needed] = directory / needed
    if name not in files:
        added[name] = text
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w") as tar:
            for inside, path in sorted(files.items()):
                if inside not in added:
                    tar.add(path, arcname=inside, recursive=False, filter=_anonymous)
            for inside, content in added.items():
                member, data = tarfile.TarInfo(inside), content.encode()
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Files of a context belong to root in the image, whoever builds it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def context_files(directory: Path, dockerfile: Path | None = None) -> list[tuple[str, Path]]:
    """The names in the context of what `.dockerignore` leaves in, with their paths below `directory`."""
    rules = ignore_rules(directory, dockerfile)
    kept = []
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory).as_posix()
        if not ignored(inside, rules):
            kept.append((inside, path))
    return kept


def _ignore_text(directory: Path, dockerfile: Path | None) -> str:
    """`<Dockerfile>.dockerignore` beside the Dockerfile goes before that of the context."""
    file = directory / _IGNORE
    if dockerfile is not None and dockerfile.with_name(f"{dockerfile.name}{_IGNORE}").is_file():
        file = dockerfile.with_name(f"{dockerfile.name}{_IGNORE}")
    return file.read_text(encoding="utf-8-sig", errors="replace") if file.is_file() else ""


def ignore_rules(directory: Path, dockerfile: Path | None = None) -> Rules:
    """Those of `.dockerignore`. Raises DockmagicError for a pattern that is none."""
    rules: Rules = []
    for line in _ignore_text(directory, dockerfile).splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        if line == "!":
            raise DockmagicError('illegal exclusion pattern: "!"')
        if pattern := _clean(line.removeprefix("!").strip()):
            rules.append((line.startswith("!"), _compiled(pattern)))
    return rules


def ignored(path: str, rules: Rules) -> bool:
    result = False
    for keep, pattern in rules:
        if pattern.fullmatch(path):
            result = not keep
    return result


def _clean(path: str) -> str:
    """Go's `filepath.Clean`, without the leading slash."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of Go's filepath.Match with `**`; what lies below matches too."""
    out, position = "", 0
    try:
        while position < len(pattern):
            piece, position = _piece(pattern, position)
            out += piece
        return re.compile(rf"(?:{out})(?:/.*)?", re.DOTALL)
    except (ValueError, re.error):
        raise DockmagicError(f"error checking context: syntax error in pattern: {pattern}") from None


def _piece(pattern: str, start: int) -> tuple[str, int]:
    """The regular expression of what begins at `start`, and where the next begins. Raises ValueError."""
    match pattern[start]:
        case "*" if pattern.startswith("**", start):
            end = start + 2 + pattern.startswith("/", start + 2)
            return ("(?:.*/)?" if end < len(pattern) else ".*"), end
        case "*":
            return "[^/]*", start + 1
        case "?":
            return "[^/]", start + 1
        case "[":
            end = pattern.index("]", start + 2)
            inside = pattern[start + 1 : end]
            members = re.escape(inside.removeprefix("^")).replace(r"\-", "-")
            return f"[{'^' if inside.startswith('^') else ''}{members}]", end + 1
        case "\\":
            if start + 1 == len(pattern):
                raise ValueError(pattern)
            return re.escape(pattern[start + 1]), start + 2
        case char:
            return re.escape(char), start + 1
