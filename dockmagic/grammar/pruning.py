"""`prune` of every noun, and `system prune`: what would go is shown with its size, and then asked about.

Docker asks too, but says only what kind of things would go. Our engine is asked for them by name; another
one gives Docker's warning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dockmagic.grammar import filters
from dockmagic.grammar.session import Session
from dockmagic.grammar.syntax import switch
from dockmagic.grammar.values import Names

if TYPE_CHECKING:
    from dockmagic.views.view import View

QUESTION = "Are you sure you want to continue? [y/N] "

force_switch = switch("--force", "-f", help="Do not prompt for confirmation")


@dataclass(frozen=True)
class Step:
    """One noun's prune: its path in the API, where its answer names what went, and its warning."""

    noun: str
    deleted: str
    warning: str
    wanted: tuple[filters.Filter, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)


def containers(wanted: tuple[filters.Filter, ...]) -> Step:
    return Step("containers", "ContainersDeleted", "all stopped containers", wanted)


def networks(wanted: tuple[filters.Filter, ...]) -> Step:
    warning = "all networks not used by at least one container"
    return Step("networks", "NetworksDeleted", warning, wanted)


def volumes(wanted: tuple[filters.Filter, ...], *, all: bool = False) -> Step:
    warning = f"all {'' if all else 'anonymous '}local volumes not used by at least one container"
    return Step("volumes", "VolumesDeleted", warning, (*wanted, ("all", "true")) if all else wanted)


def images(wanted: tuple[filters.Filter, ...], *, all: bool) -> Step:
    warning = "all images without at least one container associated to them" if all else "all dangling images"
    return Step("images", "ImagesDeleted", warning, (*wanted, ("dangling", "false" if all else "true")))


def build(wanted: tuple[filters.Filter, ...], **params: Any) -> Step:
    return Step("build", "CachesDeleted", "unused build cache", wanted, params)


def prune(session: Session, *steps: Step, force: bool) -> Names:
    """Ask, do the steps, and return what went."""
    gone, space = Names(), 0
    if force or _agreed(session, steps):
        for step in steps:
            params = {"filters": filters.encoded(step.wanted), **step.params}
            answer = session.post(f"/{step.noun}/prune", **params)
            gone += [
                entry if isinstance(entry, str) else deleted(entry)
                for entry in answer.get(step.deleted) or ()
            ]
            space += answer.get("SpaceReclaimed") or 0
    if any(step.noun != "networks" for step in steps):  # which take no space
        _reclaimed(session, space)
    return gone


def deleted(entry: Mapping[str, str]) -> str:
    """One line of what removing an image did."""
    return f"Untagged: {entry['Untagged']}" if "Untagged" in entry else f"Deleted: {entry['Deleted']}"


def _agreed(session: Session, steps: Sequence[Step]) -> bool:
    from IPython.display import display

    from dockmagic.views.engine import extension

    body = {step.noun: filters.grouped(step.wanted) for step in steps}
    found = extension(session.client, "prunable", body)
    if found is None:
        lines = "".join(f"  - {step.warning}\n" for step in steps)
        session.cell.write(f"WARNING! This will remove:\n{lines}\n")
    else:
        session.cell.call(display, picture(found))
        if not found["Rows"]:
            return False
    return session.cell.ask(QUESTION).strip().lower() in ("y", "yes")


def picture(found: Mapping[str, Any]) -> "View":
    """What the engine said that would go."""
    from dockmagic.views.parts import Column, Note, Table
    from dockmagic.views.units import size
    from dockmagic.views.view import View

    columns = [
        Column("What"),
        Column("Name", code=True),
        Column("Why it can go"),
        Column("Frees", numeric=True),
    ]
    rows = [
        [row["Kind"], row["Name"], row["Detail"], size(row["Size"], digits=4) if row["Size"] else ""]
        for row in found["Rows"]
    ]
    table = Table("What would be removed", columns, rows, "Nothing is unused.")
    total = size(found["SpaceReclaimed"], digits=4)
    return View(table, *([Note(f"Together {total}.")] if rows else []))


def _reclaimed(session: Session, space: int) -> None:
    from dockmagic.views.units import size

    session.cell.write(f"Total reclaimed space: {size(space, digits=4)}\n")
