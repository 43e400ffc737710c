"""`docker commit`: an image from a container's writable layer and its settings.

`--change` takes the instructions of a Dockerfile that only touch the settings; they mean here what they mean
there, so it is the builder that carries them out.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.build import metadata
from dockmagic_runtime.build.instructions import typed
from dockmagic_runtime.build.parser import parse
from dockmagic_runtime.build.state import State
from dockmagic_runtime.containers.record import Container
from dockmagic_runtime.containers.runs import Runs
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.events import EventBus
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.oci.image import Platform
from dockmagic_runtime.oci.reference import Reference
from dockmagic_runtime.storage.snapshots import SnapshotStore

Json = dict[str, Any]

_CHANGES = frozenset(
    (
        *("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL"),
        *("ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"),
    )
)
_SETTINGS = frozenset(
    (
        *("User", "ExposedPorts", "Env", "Cmd", "Entrypoint", "Volumes", "WorkingDir", "Labels"),
        *("StopSignal", "Healthcheck", "Shell", "OnBuild"),
    )
)


async def commit(
    images: ImageStore,
    snapshots: SnapshotStore,
    runs: Runs,
    events: EventBus,
    container: Container,
    *,
    reference: Reference | None = None,
    author: str = "",
    comment: str = "",
    given: Json | None = None,
    changes: Sequence[str] = (),
    pause: bool = True,
) -> Image:
    """The new image; the container goes on with its layer as if nothing had been.

    `given` are settings of the client's own, in place of the container's. Raises InvalidParameter for a
    change that is none, NotFound, Conflict.
    """
    base = images.by_id(container.image)
    state = State.of_image(base.config) if base and not base.host else State.scratch(Platform.host())
    settings = {name: container.config.get(name) for name in _SETTINGS}
    settings |= {name: value for name, value in (given or {}).items() if name in _SETTINGS and value}
    state = changed(state.with_config(**{name: value or None for name, value in settings.items()}), changes)
    paused = pause and container.state.status == "running"
    if paused:
        await runs.pause(container)
    try:
        layer = await asyncio.to_thread(snapshots.commit, container.id)
    finally:
        if paused and container.state.status == "paused":
            await runs.unpause(container)
    state = state.after(" ".join(container.argv), timestamps.now(), layer.diff_id)
    document = state.document
    document["history"][-1] |= {
        name: value for name, value in (("author", author), ("comment", comment)) if value
    }
    if author:
        document["author"] = author
    image = images.add(
        State(document).serialized,
        state.diff_ids,
        [reference] if reference else [],
        parent=base.id if base and not base.host else "",
    )
    told = {"imageID": image.id, "comment": comment}
    if reference:
        told["imageRef"] = reference.familiar()
        images.publish_event("tag", image.id, {"name": reference.familiar()})
    events.publish(*container.event("commit", **told))
    return image


def changed(state: State, changes: Sequence[str]) -> State:
    """`state` after the instructions of `--change`."""
    for change in changes:
        for node in parse(change):
            if node.name not in _CHANGES:
                raise InvalidParameter(f"{node.name} is not a valid change command")
            state, _ = metadata.apply(typed(node), state)
    return state
