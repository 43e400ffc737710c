"""A port of this host that somebody else has: who, and the two ways out.

Docker says only that the port is taken. Our engine knows which of its containers publishes it, and reads from
the kernel which process listens there.
"""

import re

from dockmagic.errors import DockmagicError
from dockmagic.grammar.session import Session

_TAKEN = re.compile(
    r"(?:Bind for \S*?:(\d+) failed: port is already allocated"
    r"|failed to bind host port for \S*?:(\d+):\S+: address already in use)"
)


def explained(session: Session, error: DockmagicError, created: str = "") -> DockmagicError:
    """The same error with more lines if it is about a port that is taken; `created` is what stays behind."""
    found = _TAKEN.search(str(error))
    if not found:
        return error
    port = int(found[1] or found[2])
    lines = [str(error), *_holders(session, port)]
    if created:
        lines.append(
            f"The container {created} has been created: %container start {created}, or %container rm."
        )
    return DockmagicError("\n".join(lines), exit_code=error.exit_code, status=error.status)


def _holders(session: Session, port: int) -> list[str]:
    from dockmagic.views.engine import extension

    published = extension(session.client, "ports")
    if published is None:
        return []
    ours = [each for each in published if each["host_port"] == port]
    processes = extension(session.client, f"listeners?port={port}") or []
    free = _free(session, published, port)
    other = f"  take another port of this host, such as   -p {free}:…"
    if ours:
        holder, inside = ours[0]["container_name"], ours[0]["container_port"]
        return [
            f"Port {port} belongs to the container {holder}, which publishes its port {inside} there. Either",
            other,
            f"  or remove what has it                     %container rm -f {holder}",
        ]
    if processes:
        holder, pid = processes[0]["command"] or "a process", processes[0]["pid"]
        return [
            f"{holder} (process {pid}) of this host listens on port {port}. Either"
            if pid
            else f"A process of this host listens on port {port}. Either",
            other,
            f"  or end what has it                        !kill {pid or 'PID'}",
        ]
    return []


def _free(session: Session, published: list[dict[str, int]], port: int) -> int:
    """The next port that neither a container nor a process has."""
    from dockmagic.views.engine import extension

    taken = {each["host_port"] for each in published}
    taken |= {each["port"] for each in extension(session.client, "listeners") or []}
    return next((number for number in range(port + 1, 65536) if number not in taken), port)
