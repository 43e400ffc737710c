"""COPY and ADD as a step: where each source comes from, and how the files are to be read.

A source is a path of the build context or of the tree that `--from` means, a here-document, or a URL. The
last two are put under the build's own directory and are trees like the others.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
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


def reading(instruction: Copy, expand: Callable[[str, str], str]) -> Reading:
    """`expand` puts variables into a text of a flag. Raises InvalidParameter for a mode that is none."""
    mode = None
    if instruction.chmod is not None:
        text = expand(instruction.chmod, "--chmod")
        if not re.fullmatch(r"0?[0-7]{3,4}", text):
            raise instruction.node.error(
                f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777",
                *("--chmod", instruction.chmod),
            )
        mode = int(text, 8)
    return Reading(mode, instruction.stage is not None, _exclusion(instruction, expand))


def _exclusion(instruction: Copy, expand: Callable[[str, str], str]) -> Ignore | None:
    patterns: list[tuple[re.Pattern[str], bool]] = []
    for written in instruction.exclude:
        flag = f"--exclude={written}"
        with instruction.node.blamed(flag, written):
            patterns += Ignore.of([expand(written, flag)]).patterns
    return Ignore(tuple(patterns)) if instruction.exclude else None


async def fetched(
    instruction: Copy, patterns: Sequence[str], target: str, directory: Path
) -> dict[int, Path]:
    """The sources that are URLs, downloaded below `directory`, by their number."""
    found: dict[int, Path] = {}
    for number, (written, pattern) in enumerate(zip(instruction.sources, patterns, strict=True)):
        if not instruction.unpack:
            continue
        if remote.is_git(pattern):
            sentence = "ADD from a Git repository is not supported by this builder"
            raise instruction.node.placed(NotImplementedHere(sentence), written)
        if remote.is_url(pattern):
            place = directory / f"download-{secrets.token_hex(8)}"
            await _download(instruction, written, pattern, place, named=target.endswith("/"))
            found[number] = place
        elif instruction.checksum is not None:
            raise instruction.node.error("checksum can't be specified for non-HTTP(S) sources", "--checksum")
    return found


async def _download(instruction: Copy, written: str, url: str, place: Path, *, named: bool) -> None:
    checksum = instruction.checksum
    if checksum is not None:
        with _failing(instruction, "--checksum", checksum):
            remote.check(checksum)
    with _failing(instruction, written):
        digest = await remote.download(url, place, named=named)
    if checksum is not None:
        with _failing(instruction, "--checksum", checksum):
            remote.compare(digest, checksum)


@contextmanager
def _failing(instruction: Copy, *piece: str) -> Iterator[None]:
    """What makes no sense meanwhile is said in Docker's words, of a piece of the instruction."""
    with instruction.node.blamed(*piece):
        try:
            yield
        except InvalidParameter as error:
            raise InvalidParameter(f"{instruction.node.name} failed: {error}") from None


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
            place: Path | None = _written(instruction, heredocs.pop(0), environment, directory)
        else:
            place = elsewhere.get(number)
        if place is not None:
            named = _opened(place, stack).find("*")
        else:
            with _failing(instruction, written):
                named = tree.find(pattern, parents=instruction.parents)
        sources += [replace(source, argument=written) for source in named]
    return sources


def _written(instruction: Copy, heredoc: Heredoc, environment: Mapping[str, str], directory: Path) -> Path:
    """A directory with the here-document as its only file."""
    content = heredoc.content
    if heredoc.expand:
        try:
            content = words.expand(content, environment, quotes=False)
        except words.Unreadable as error:
            error.line, error.column = instruction.node.place_in(heredoc, error.about)
            raise
    name = Path(heredoc.name).name
    if name in ("", ".", ".."):
        sentence = f"a here-document cannot be called {heredoc.name!r}"
        raise instruction.node.placed(InvalidParameter(sentence), f"<<{heredoc.name}")
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
