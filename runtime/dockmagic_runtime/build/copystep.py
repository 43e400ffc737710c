"""COPY and ADD as a step: where each source comes from, and how the files are to be read.

A source is a path of the build context or of the tree that `--from` means, a here-document, or a URL. The
last two are put under the build's own directory and are trees like the others.
"""

import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from dockmagic_runtime.build import remote, words
from dockmagic_runtime.build.context import Source, Tree
from dockmagic_runtime.build.entries import Reading
from dockmagic_runtime.build.ignore import Ignore
from dockmagic_runtime.build.instructions import Copy
from dockmagic_runtime.build.parser import Heredoc
from dockmagic_runtime.errors import InvalidParameter, NotImplementedHere
from dockmagic_runtime.kernel import paths, trees

_HEREDOC = re.compile(r"\d*<<-?[^<]+")


def reading(instruction: Copy, expand: Callable[[str], str]) -> Reading:
    """Raises DockerfileError for a mode that is none."""
    mode = None
    if instruction.chmod is not None:
        text = expand(instruction.chmod)
        if not re.fullmatch(r"0?[0-7]{3,4}", text):
            raise instruction.node.error(
                f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777",
                instruction.chmod,
            )
        mode = int(text, 8)
    exclude = Ignore.of(expand(pattern) for pattern in instruction.exclude) if instruction.exclude else None
    return Reading(mode, instruction.stage is not None, exclude)


async def fetched(
    instruction: Copy, patterns: Sequence[str], target: str, directory: Path
) -> dict[int, Path]:
    """The sources that are URLs, downloaded below `directory`, by their number."""
    found: dict[int, Path] = {}
    checksum = instruction.checksum
    for number, pattern in enumerate(patterns):
        if not instruction.unpack:
            continue
        if remote.is_git(pattern):
            raise NotImplementedHere(
                f"line {instruction.line}: ADD from a Git repository is not supported by this builder"
            )
        if remote.is_url(pattern):
            place = directory / f"download-{secrets.token_hex(8)}"
            try:
                await remote.download(pattern, place, checksum, named=target.endswith("/"))
            except InvalidParameter as error:
                raise InvalidParameter(f"ADD failed: {error}") from None
            found[number] = place
        elif checksum is not None:
            raise instruction.node.error("checksum can't be specified for non-HTTP(S) sources", "--checksum")
    return found


def found(
    instruction: Copy,
    patterns: Sequence[str],
    tree: Tree,
    elsewhere: Mapping[int, Path],
    environment: Mapping[str, str],
    directory: Path,
    stack: ExitStack,
) -> list[Source]:
    """All sources in their order; what they hold open is closed with `stack`. Raises InvalidParameter."""
    heredocs = list(instruction.node.heredocs)
    sources: list[Source] = []
    for number, (written, pattern) in enumerate(zip(instruction.sources, patterns, strict=True)):
        if heredocs and _HEREDOC.fullmatch(written):
            place: Path | None = _written(heredocs.pop(0), environment, directory)
        else:
            place = elsewhere.get(number)
        if place is not None:
            sources += _opened(place, stack).find("*")
            continue
        try:
            sources += tree.find(pattern, parents=instruction.parents)
        except InvalidParameter as error:
            raise InvalidParameter(f"{instruction.node.name} failed: {error}") from None
    return sources


def _written(heredoc: Heredoc, environment: Mapping[str, str], directory: Path) -> Path:
    """A directory with the here-document as its only file."""
    content = heredoc.content
    if heredoc.expand:
        content = words.expand(content, environment, quotes=False)
    name = Path(heredoc.name).name
    if name in ("", ".", ".."):
        raise InvalidParameter(f"a here-document cannot be called {heredoc.name!r}")
    place = directory / f"heredoc-{secrets.token_hex(8)}"
    place.mkdir(parents=True)
    (place / name).write_text(content)
    (place / name).chmod(0o644)
    return place


def _opened(place: Path, stack: ExitStack) -> Tree:
    fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return stack.enter_context(Tree(fd))


def settle(upper: Path, epoch: int, *, everything: bool) -> None:
    """Times for a layer that is to be the same wherever it is made: nothing younger than `epoch` seconds.

    `everything`: whatever the client's files say, for their times are no part of what they are.
    """
    limit = epoch * 1_000_000_000
    with paths.opened(upper, os.O_RDONLY | os.O_DIRECTORY) as root:
        for directory, name, _ in trees.contents_first(root):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if everything or status.st_mtime_ns > limit:
                os.utime(name, ns=(limit, limit), dir_fd=directory, follow_symlinks=False)
