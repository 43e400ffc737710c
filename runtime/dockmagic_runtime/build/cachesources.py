"""`--cache-from`: images, built elsewhere perhaps, whose layers a build may take over.

An image tells by its history which instructions made it. A step is taken from an image if all of that image's
history before the step is this stage's own, word by word with its times, on the same layers, and the next
entry says what the step would say of itself. So only an image on the very same base can match, and only one
that the client has named: what was merely pulled is no cache (CVE-2024-24557).
"""

from collections.abc import Iterable

from dockmagic_runtime.build.cache import Record
from dockmagic_runtime.build.state import State
from dockmagic_runtime.images.image import Image


class CacheSources:
    """The images of one build's `--cache-from` that are here."""

    def __init__(self, images: Iterable[Image]) -> None:
        self._states = [State.of_image(image.config) for image in images]

    def find(self, state: State, told: str) -> Record | None:
        """The outcome of the step `told` (as history has it) on `state`, if one of the images has done it."""
        history, layers = state.document["history"], state.diff_ids
        for source in self._states:
            theirs = source.document["history"]
            if len(theirs) <= len(history) or theirs[: len(history)] != history:
                continue
            if source.diff_ids[: len(layers)] != layers:
                continue
            entry = theirs[len(history)]
            if entry.get("created_by") != told or not entry.get("created"):
                continue
            if entry.get("empty_layer"):
                return Record(None, entry["created"])
            if len(source.diff_ids) > len(layers):
                return Record(source.diff_ids[len(layers)], entry["created"])
        return None
