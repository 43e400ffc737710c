"""`GET /images/json`: which images, filtered as Docker filters them."""

import fnmatch
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from dockmagic_runtime.filters import Filters, boolean, check, fits_labels, moment, point_in_time
from dockmagic_runtime.images.describe import unix_time
from dockmagic_runtime.images.image import UNDATED, Image
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.oci.reference import Reference

_ACCEPTED = frozenset({"before", "dangling", "label", "label!", "reference", "since", "until"})


def summaries(
    images: ImageStore,
    filters: Filters,
    *,
    all_images: bool = False,
    shared_size: bool = False,
    containers: bool = False,
) -> list[dict[str, Any]]:
    """Docker's `ImageSummary` of each image that matches, the newest first.

    Untagged images that others are built upon are shown only if `all_images`. Raises InvalidParameter for a
    filter that Docker does not know.
    """
    check(filters, _ACCEPTED)
    keep = matcher(images, filters)
    patterns = list(filters.get("reference", ()))
    rows = []
    for image in images.list():
        tags, digests = image.repo_tags, image.repo_digests
        if patterns:
            tags, digests = _matching(image, patterns)
            if not tags and not digests:
                continue
        hidden = not image.references and images.children(image.id) and not all_images
        if hidden or not keep(image):
            continue
        rows.append(
            {
                "Id": image.id,
                "ParentId": image.parent,
                "RepoTags": tags,
                "RepoDigests": digests,
                "Created": unix_time(image.created),
                "Size": image.size,
                "SharedSize": _shared_size(images, image) if shared_size else -1,
                "Labels": dict(image.labels) or None,
                "Containers": len(images.in_use(image.id)) if containers else -1,
            }
        )
    return rows


def matcher(images: ImageStore, filters: Filters) -> Callable[[Image], bool]:
    """Whether an image passes `before`, `since`, `until`, `dangling` and `label`.

    Raises InvalidParameter or NotFound for a value that makes no sense.
    """
    before = [_created(images.get(name)) for name in filters.get("before", ())]
    since = [_created(images.get(name)) for name in filters.get("since", ())]
    until = [point_in_time(text) for text in filters.get("until", ())]
    dangling = boolean(filters, "dangling")

    def matches(image: Image) -> bool:
        return (
            all(_created(image) < each for each in before)
            and all(_created(image) > each for each in since)
            and all(_created(image).timestamp() * 1e9 <= each for each in until)
            and dangling in (None, not image.references)
            and fits_labels(image.labels, filters)
        )

    return matches


def _created(image: Image) -> datetime:
    try:
        return moment(image.created)
    except ValueError:
        return moment(UNDATED)


def _matching(image: Image, patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The tags and digests of an image that a `reference` pattern fits."""
    tags: list[str] = []
    digests: list[str] = []
    for reference in image.references:
        if any(_fits(reference, pattern) for pattern in patterns):
            (digests if reference.digest else tags).append(reference.familiar())
    return sorted(tags), sorted(digests)


def _fits(reference: Reference, pattern: str) -> bool:
    """Go's `path.Match` on the name, with and without its tag: `*` does not cross a slash."""
    parts = pattern.split("/")
    for name in (reference.familiar(), reference.familiar_name):
        components = name.split("/")
        if len(components) == len(parts) and all(map(fnmatch.fnmatchcase, components, parts)):
            return True
    return False


def _shared_size(images: ImageStore, image: Image) -> int:
    others = {diff_id for other in images.list() if other.id != image.id for diff_id in other.diff_ids}
    found = [images.layers.get(diff_id) for diff_id in image.diff_ids if diff_id in others]
    return sum(layer.size for layer in found if layer)
