"""`DELETE /images/{name}` and prune, in Docker's order and with its refusals (moby `daemon/images`).

A name is taken away first; with its last name an image goes, and after it every parent that has no name, no
child and no container. A conflict is *hard* if force does not help: a running container, a child image.
"""

from collections.abc import Collection
from typing import Any

from dockmagic_runtime.errors import Conflict
from dockmagic_runtime.filters import Filters, boolean, check
from dockmagic_runtime.images.image import Image
from dockmagic_runtime.images.listing import matcher
from dockmagic_runtime.images.store import ImageStore
from dockmagic_runtime.oci.image import chain_ids
from dockmagic_runtime.oci.reference import Reference, parse_reference

Records = list[dict[str, str]]

_PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})


async def remove(images: ImageStore, name: str, *, force: bool = False, noprune: bool = False) -> Records:
    """Untag and delete; returns Docker's records, `{"Untagged": …}` and `{"Deleted": …}`, in its order.

    Raises NotFound, Conflict. The files go last: if that is cut off, the next collection finds them.
    """
    image = images.get(name)
    if image.host:
        raise Conflict(
            f'conflict: unable to remove repository reference "{name}" (cannot be forced) - it is reserved'
        )
    records: Records = []
    named = not image.id.removeprefix("sha256:").startswith(name.removeprefix("sha256:"))
    if named:
        _remove_name(images, image, name, force, records)
    elif _single_repository(image):
        _refuse_conflict(images, image, force, names_count=False)
        _untag(images, image.references, records)
    remaining = images.by_id(image.id)
    if remaining and not (named and remaining.references):
        _delete(images, remaining, records, force=force, prune=not noprune, quiet=named)
    await images.collect()
    return records


async def prune(images: ImageStore, filters: Filters) -> dict[str, Any]:
    """`POST /images/prune`: images without a name (or, with `dangling=false`, all) that no container uses.

    Without a filter for some of them also the beginnings of downloads that were given up.
    """
    doomed = prunable(images, filters)
    layers = {diff_id for image in doomed for diff_id in image.diff_ids}
    before = images.layers.size_of(layers)
    records: Records = []
    for image in doomed:
        if current := images.by_id(image.id):
            _untag(images, current.references, records)
        if current := images.by_id(image.id):
            _delete(images, current, records, force=False, prune=True, quiet=True)
    await images.collect()
    partial = 0 if filters.keys() - {"dangling"} else await images.drop_partial_downloads()
    # What a container or the build cache needs has stayed.
    reclaimed = before - images.layers.size_of(layers) + partial
    return {"ImagesDeleted": records or None, "SpaceReclaimed": reclaimed}


def prunable(images: ImageStore, filters: Filters, gone: Collection[str] = ()) -> list[Image]:
    """The images that a prune removes, in its order, if the containers `gone` were gone already."""
    check(filters, _PRUNE_FILTERS)
    dangling_only = boolean(filters, "dangling") is not False
    matches = matcher(images, {name: values for name, values in filters.items() if name != "dangling"})
    doomed: dict[str, Image] = {}

    def needed(image: Image) -> bool:
        return any(use.container not in gone for use in images.in_use(image.id)) or any(
            child.id not in doomed for child in images.children(image.id)
        )

    for image in images.list():
        if image.id in doomed or needed(image) or not matches(image):
            continue
        if dangling_only and image.references:
            continue
        doomed[image.id] = image
        parent = images.by_id(image.parent) if image.parent else None
        while parent and not parent.references and not needed(parent):  # they go with their last child
            doomed[parent.id] = parent
            parent = images.by_id(parent.parent) if parent.parent else None
    return list(doomed.values())


def _remove_name(images: ImageStore, image: Image, name: str, force: bool, records: Records) -> None:
    users = images.in_use(image.id)
    if users and not force and _single_repository(image):
        raise Conflict(
            f'conflict: unable to remove repository reference "{name}" (must force) - container '
            f"{users[0].container[:12]} is using its referenced image {image.short_id}"
        )
    reference = parse_reference(name)
    if reference.digest:
        reference = reference.with_digest(reference.digest)
    doomed = [reference]
    same = [
        each for each in image.references if each.repository == reference.repository and each != reference
    ]
    if not reference.digest and all(each.digest for each in same):
        doomed += same
    _untag(images, doomed, records)


def _untag(images: ImageStore, references: tuple[Reference, ...] | list[Reference], records: Records) -> None:
    for reference in references:
        image = images.find(reference)
        images.unname(reference)
        records.append({"Untagged": reference.familiar()})
        if image:
            images.publish_event("untag", image.id, {"name": image.id})


def _delete(
    images: ImageStore, image: Image, records: Records, *, force: bool, prune: bool, quiet: bool
) -> None:
    conflict = _conflict(images, image, force, names_count=True)
    if conflict:
        used = bool(images.in_use(image.id))
        if quiet and (image.references or used or images.children(image.id)):
            return
        raise conflict
    _untag(images, image.references, records)
    kept = {chain for other in images.list() if other.id != image.id for chain in chain_ids(other.diff_ids)}
    users = images.in_use(image.id)
    images.forget(image)
    images.publish_event("delete", image.id, {"name": image.id})
    records.append({"Deleted": image.id})
    if not users:
        gone = [chain for chain in chain_ids(image.diff_ids) if chain not in kept]
        records += [{"Deleted": chain} for chain in reversed(gone)]
    parent = images.by_id(image.parent) if image.parent and prune else None
    if parent:
        _delete(images, parent, records, force=False, prune=True, quiet=True)


def _single_repository(image: Image) -> bool:
    """At most one tag, and digests of its repository only: one name, as a user sees it."""
    references = image.references
    if len(references) <= 1:
        return True
    tags = [each for each in references if not each.digest]
    return len(tags) <= 1 and len({each.repository for each in references}) == 1


def _refuse_conflict(images: ImageStore, image: Image, force: bool, names_count: bool) -> None:
    conflict = _conflict(images, image, force, names_count)
    if conflict:
        raise conflict


def _conflict(images: ImageStore, image: Image, force: bool, names_count: bool) -> Conflict | None:
    """Why an image can't be deleted, the hard reasons first."""
    users = images.in_use(image.id)
    running = [use for use in users if use.running]
    start = f"conflict: unable to delete {image.short_id}"
    if images.children(image.id):
        return Conflict(f"{start} (cannot be forced) - image has dependent child images")
    if running:
        container = running[0].container[:12]
        return Conflict(f"{start} (cannot be forced) - image is being used by running container {container}")
    if force:
        return None
    if names_count and image.references:
        return Conflict(f"{start} (must be forced) - image is referenced in multiple repositories")
    if users:
        container = users[0].container[:12]
        return Conflict(f"{start} (must be forced) - image is being used by stopped container {container}")
    return None
