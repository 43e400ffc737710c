"""The build context: which files of a directory are sent to the engine, as a tar, with the Dockerfile.

`.dockerignore` has the patterns of Go's filepath.Match, with `**`; the last rule that matches a path decides.
"""

import gzip
import io
import re
import tarfile
from pathlib import Path
from typing import IO

NAME_IN_CONTEXT = "Dockerfile"


def dockerfile_name(directory: Path | None) -> str:
    """A name for the Dockerfile in the context that no file of `directory` has."""
    if directory is None:
        return NAME_IN_CONTEXT
    return ".dockmagic.Dockerfile"


def write_context(out: IO[bytes], directory: Path | None, text: str, dockerfile: Path | None = None) -> None:
    """The build context as a gzipped tar: what is not ignored of `directory`, and the Dockerfile.

    `dockerfile` is the file that `text` is from: it may have an ignore file of its own.
    """
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1, mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w") as tar:
            for path, inside in context_files(directory, dockerfile) if directory is not None else ():
                tar.add(path, arcname=inside, recursive=False, filter=_anonymous)
            member = tarfile.TarInfo(dockerfile_name(directory))
            content = text.encode()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Files of a context belong to root in the image, whoever builds it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def context_files(directory: Path, dockerfile: Path | None = None) -> list[tuple[Path, str]]:
    """The paths below `directory` that `.dockerignore` leaves in, with their names in the context."""
    rules = ignore_rules(directory, dockerfile)
    kept = []
    for path in sorted(directory.rglob("*")):
        inside = path.relative_to(directory).as_posix()
        if not ignored(inside, rules):
            kept.append((path, inside))
    return kept


def ignore_rules(directory: Path, dockerfile: Path | None = None) -> list[tuple[bool, re.Pattern[str]]]:
    """`(keep, pattern)` for each line of `.dockerignore`; the last one that matches decides.

    `<Dockerfile>.dockerignore` beside the Dockerfile goes before that of the context.
    """
    file = directory / ".dockerignore"
    if dockerfile is not None and dockerfile.with_name(f"{dockerfile.name}.dockerignore").is_file():
        file = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
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
