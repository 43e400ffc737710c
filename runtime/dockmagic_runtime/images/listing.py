"""`GET /images/json`: which images, filtered as Docker filters them."""

import contextlib
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.images.describe import unix_time
from dockmagic_runtime.images.image import UNDATED, Image
from dockmagic_runtime.oci.reference import Reference

if TYPE_CHECKING:
    from dockmagic_runtime.images.store import ImageStore

Filters = Mapping[str, Iterable[str]]
"""Docker's filters, decoded: `{"label": ["a=b"]}`. The old form `{"label": {"a=b": true}}` iterates alike."""

_ACCEPTED = frozenset({"before", "dangling", "label", "label!", "reference", "since", "until"})


def summaries(
    images: "ImageStore",
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


def check(filters: Filters, accepted: Iterable[str]) -> None:
    """Raises InvalidParameter with Docker's sentence for a filter that is not one of `accepted`."""
    for name in filters:
        if name not in accepted:
            raise InvalidParameter(f"invalid filter '{name}'")


def matcher(images: "ImageStore", filters: Filters) -> Callable[[Image], bool]:
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


def boolean(filters: Filters, name: str) -> bool | None:
    """The value of a true/false filter, None if it was not given."""
    values = {value.lower() for value in filters.get(name, ())}
    if not values:
        return None
    if values <= {"1", "true", "t"}:
        return True
    if values <= {"0", "false", "f"}:
        return False
    raise InvalidParameter(f"invalid filter '{name}={sorted(values)}'")


def fits_labels(labels: Mapping[str, str], filters: Filters) -> bool:
    """The filters `label` (all of them) and, where something is pruned, `label!` (none of them)."""
    return all(has_label(labels, each) for each in filters.get("label", ())) and not any(
        has_label(labels, each) for each in filters.get("label!", ())
    )


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether `labels` has the key, or the key with the value, that `key[=value]` asks for."""
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)


def point_in_time(text: str) -> int:
    """Docker's `until`: a Unix time, a date, or how long ago (`1h30m`), as nanoseconds since the epoch."""
    with contextlib.suppress(ValueError):
        return timestamps.parse_relative(text)
    try:
        return int(_moment(text).timestamp() * 10**9)
    except (ValueError, OverflowError):
        raise InvalidParameter(f'parsing time "{text}": not a time, a date or a duration') from None


def _created(image: Image) -> datetime:
    try:
        return _moment(image.created)
    except ValueError:
        return _moment(UNDATED)


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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


def _shared_size(images: "ImageStore", image: Image) -> int:
    others = {diff_id for other in images.list() if other.id != image.id for diff_id in other.diff_ids}
    found = [images.layers.get(diff_id) for diff_id in image.diff_ids if diff_id in others]
    return sum(layer.size for layer in found if layer)
