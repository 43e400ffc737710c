"""`Did you mean 'web'?` after the engine's sentence about a name that it does not know."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from dockmagic.errors import DockmagicError, translate
from dockmagic.grammar.flags import did_you_mean
from dockmagic.grammar.session import Session


def _containers(session: Session) -> Iterable[str]:
    for summary in session.get("/containers/json", all=1):
        yield from (name.removeprefix("/") for name in summary["Names"] or ())


def _images(session: Session) -> Iterable[str]:
    for summary in session.get("/images/json"):
        yield from (tag for tag in summary["RepoTags"] or () if tag != "<none>:<none>")


def _networks(session: Session) -> Iterable[str]:
    yield from (network["Name"] for network in session.get("/networks"))


def _volumes(session: Session) -> Iterable[str]:
    yield from (volume["Name"] for volume in session.get("/volumes")["Volumes"] or ())


def _things(session: Session) -> Iterable[str]:
    for names in (_containers, _images, _networks, _volumes):
        yield from names(session)


_SENTENCES: list[tuple[re.Pattern[str], Callable[[Session], Iterable[str]]]] = [
    (re.compile(r"No such container: ([^\s,]+)$"), _containers),
    (re.compile(r"No such image: ([^\s,]+)$"), _images),
    (re.compile(r"network ([^\s,]+) not found$"), _networks),
    (re.compile(r"get ([^\s,]+): no such volume$"), _volumes),
    (re.compile(r"No such object: ([^\s,]+)$"), _things),
]


def helped(failure: DockmagicError, session: Session) -> DockmagicError:
    """`failure` with the nearest name that there is at the end of each line about one that is not."""
    try:
        failure.args = ("\n".join(_helped(line, session) for line in str(failure).splitlines()),)
    except Exception as error:
        if translate(error) is None:
            raise
        # The engine fails to list: then there is no help, only what failed before.
    return failure


def _helped(line: str, session: Session) -> str:
    for sentence, names in _SENTENCES:
        if match := sentence.search(line):
            known: dict[str, Any] = {}
            for name in names(session):
                known[name] = known[name.removesuffix(":latest")] = None
            return line + did_you_mean(match[1].removesuffix(":latest"), list(known))
    return line
