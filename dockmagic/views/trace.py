"""The way of a packet, hop by hop, as the kernel told it: `%network trace web db`.

Our engine tries a TCP connection and has the kernel report which rules its first packet meets; no other
engine can be asked for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from dockmagic.errors import DockmagicError
from dockmagic.views.engine import extension
from dockmagic.views.parts import Cell, Column, Note, Part, Table
from dockmagic.views.view import View

if TYPE_CHECKING:
    import docker

LACKS = "this engine cannot trace packets (dockmagic's can): look at `iptables -L -v` and `bridge link`"


class Trace(View):
    """The hops from `source`, a container or `host`, to a TCP port of `target`. `reached`: it answered."""

    def __init__(
        self, client: docker.DockerClient, source: str, target: str, port: int | None = None
    ) -> None:
        asked = {"from": source, "to": target, **({"port": port} if port else {})}
        found = extension(client, f"trace?{urlencode(asked)}")
        if found is None:
            raise DockmagicError(LACKS)
        self.data: list[dict[str, Any]] = found
        self.reached = not any(hop["bad"] for hop in self.data)
        super().__init__(*parts(source, target, self.data))


def parts(source: str, target: str, hops: Sequence[dict[str, Any]]) -> list[Part]:
    """The picture of `[{"where", "what", "name", "words", "bad"}]`."""
    columns = [
        Column("Hop", numeric=True),
        Column("Where"),
        Column("What"),
        Column("Name", code=True),
        Column("What the kernel says"),
    ]
    rows = [
        [
            str(number),
            hop["where"],
            hop["what"],
            hop["name"],
            Cell(f"✗ {hop['words']}", "bad") if hop["bad"] else hop["words"],
        ]
        for number, hop in enumerate(hops, 1)
    ]
    table = Table(f"A packet from {source} to {target}", columns, rows)
    if any(hop["bad"] for hop in hops):
        return [table, Note(f"✗ {source} does not reach {target}.", "bad")]
    return [table, Note(f"✓ {source} reaches {target}.", "good")]
