"""The images of one engine: what they are called, what they are made of, and when a layer may go.

    images              one row for each image: ID, layers, how it came here
    image_references    every name, tag or digest, and the image it means
    layer_blobs         the compressed form of a layer, where there is one

The truth is in these tables; they change in one transaction, after everything they speak of is on disk (but
the layers of a build, which come to it right after: `drop_incomplete` is for what a power failure took). The
rest follows from them: the layout's `index.json` lists the images that are complete as blobs; a blob or a
layer that no row needs is garbage, and `collect` drops it, though not while anyone is `adding`.

All methods run on the event loop's thread. What they return may be kept: an Image does not change.
"""

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from weakref import WeakValueDictionary

from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound
from dockmagic_runtime.images import host, layout
from dockmagic_runtime.images.image import Image, key, stored_reference
from dockmagic_runtime.oci import descriptor
from dockmagic_runtime.oci import image as oci_image
from dockmagic_runtime.oci.descriptor import Descriptor
from dockmagic_runtime.oci.documents import read_config
from dockmagic_runtime.oci.reference import Reference, parse_reference
from dockmagic_runtime.storage.content import ContentStore
from dockmagic_runtime.storage.database import Database
from dockmagic_runtime.storage.layers import LayerStore

log = logging.getLogger(__name__)

_TABLES = (
    """CREATE TABLE images (
        id TEXT PRIMARY KEY, diff_ids TEXT NOT NULL, size INTEGER NOT NULL, origin TEXT NOT NULL,
        parent TEXT NOT NULL, manifest TEXT, last_tagged TEXT) STRICT""",
    """CREATE TABLE image_references (
        name TEXT PRIMARY KEY, image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE) STRICT""",
    """CREATE TABLE layer_blobs (
        digest TEXT PRIMARY KEY, diff_id TEXT NOT NULL, media_type TEXT NOT NULL, size INTEGER NOT NULL)
        STRICT""",
    "ALTER TABLE images ADD COLUMN cached TEXT NOT NULL DEFAULT '[]'",
)
_HEX = frozenset("0123456789abcdef")

Names = list[str]
Images = list[Image]


@dataclass(frozen=True)
class Use:
    """A container that was made from an image."""

    container: str
    running: bool


class ImageStore:
    """See the module. `in_use`, `held_layers` and `publish_event` are told by whoever wires the engine:

    - `in_use(image_id)`: the containers made from an image;
    - `held_layers()`: diff IDs that others than images need (containers of deleted images, a build cache);
    - `publish_event(action, image_id, attributes)`: Docker's image events.
    """

    def __init__(self, database: Database, content: ContentStore, layers: LayerStore) -> None:
        self.content = content
        self.layers = layers
        self.in_use: Callable[[str], Sequence[Use]] = lambda image_id: ()
        self.held_layers: Callable[[], Iterable[str]] = lambda: ()
        self.publish_event: Callable[[str, str, Mapping[str, str]], None] = lambda *event: None
        self._database = database
        self._adding = 0
        self._collection_due = False
        self._collecting = asyncio.Lock()
        self._packing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        database.migrate("images", *_TABLES)
        self._host = host.host_image()
        self._images: dict[str, Image] = {}
        self._names: dict[Reference, str] = {}
        self._read()

    # -- looking up

    def get(self, name: str) -> Image:
        """The image that a reference, an ID, or the unambiguous beginning of one means.

        Raises NotFound ("No such image: …"), InvalidParameter for a name that can't be one.
        """
        if name.removeprefix("sha256:") != name or len(name) == 64:
            digest = name if name.startswith("sha256:") else f"sha256:{name}"
            if image := self.by_id(digest):
                return image
            if len(digest) == 71 and _HEX.issuperset(digest[7:]):
                raise NotFound(f"No such image: {name}")
        prefix = name.removeprefix("sha256:")
        short = 0 < len(prefix) < 64 and _HEX.issuperset(prefix)
        if short and prefix != name:
            found = self._by_prefix(prefix)
            if not found:
                raise NotFound(f"No such image: {name}")
            return found
        reference = parse_reference(name)
        found = self.find(reference) or (self._by_prefix(prefix) if short else None)
        if not found:
            raise NotFound(f"No such image: {reference.familiar()}")
        return found

    def find(self, reference: Reference) -> Image | None:
        """The image of that name, if any."""
        if reference == host.NAME:
            return self._host
        image_id = self._names.get(key(reference))
        return self._images[image_id] if image_id else None

    def by_id(self, image_id: str) -> Image | None:
        return self._host if image_id == self._host.id else self._images.get(image_id)

    def list(self) -> Images:
        """All images (not `host`), the newest first."""
        return sorted(self._images.values(), key=lambda image: (image.created, image.id), reverse=True)

    def children(self, image_id: str) -> Images:
        return [image for image in self._images.values() if image.parent == image_id]

    def blob_of(self, diff_id: str) -> Descriptor | None:
        """The compressed form in which a layer is here, if it is."""
        row = self._database.one("SELECT * FROM layer_blobs WHERE diff_id = ? LIMIT 1", diff_id)
        return Descriptor(row["media_type"], row["digest"], row["size"]) if row else None

    def blobs(self) -> dict[str, tuple[str, Descriptor]]:
        """Of every blob of a layer, by its digest: the layer's diff ID, and the blob."""
        rows = self._database.query("SELECT * FROM layer_blobs")
        return {
            row["digest"]: (row["diff_id"], Descriptor(row["media_type"], row["digest"], row["size"]))
            for row in rows
        }

    # -- changing

    def add(
        self,
        config: bytes,
        diff_ids: Sequence[str],
        references: Iterable[Reference] = (),
        *,
        origin: str = "built",
        parent: str = "",
        manifest: str | None = None,
        blobs: Mapping[str, Descriptor] | None = None,
        cached: Iterable[str] = (),
    ) -> Image:
        """Record an image; its layers must be here. `references` move to it from whatever had them.

        `config` are the exact bytes whose hash is the ID; `manifest` the digest of its manifest in the
        content store; `blobs` the layers' compressed forms there, by diff ID; `cached` the layers that were
        made by an earlier build. Raises NotFound for a layer that is not here, Conflict for a reserved
        name, InvalidParameter for a config that is none.
        """
        document = read_config(config)
        names = [key(reference) for reference in references]
        for name in names:
            self._refuse_reserved(name)
        size = sum(self._layer_size(diff_id) for diff_id in diff_ids)
        now = oci_image.timestamp() if any(not name.digest for name in names) else None
        image = Image(
            self.content.write(config),
            document,
            tuple(diff_ids),
            size,
            origin,
            parent,
            last_tagged=now,
            manifest=manifest,
            cached=frozenset(cached),
        )
        with self._database.transaction() as connection:
            _insert(connection, image, names, blobs or {})
        if known := self._images.get(image.id):
            image = replace(
                known,
                manifest=manifest or known.manifest,
                last_tagged=now or known.last_tagged,
                cached=image.cached,
            )
        self._images[image.id] = image
        self._point(names, image.id)
        return self._images[image.id]

    def tag(self, image: Image, reference: Reference) -> None:
        """Give an image another name; an image that had it loses it. Raises Conflict, InvalidParameter."""
        self._refuse_reserved(reference)
        if image.host:
            raise Conflict("'host' is a reserved name: the machine's own file system can't be tagged")
        if reference.digest:
            raise InvalidParameter("refusing to create a tag with a digest reference")
        self.name(image, reference)
        self.publish_event("tag", image.id, {"name": reference.familiar()})

    def name(self, image: Image, reference: Reference) -> None:
        """Record that `reference`, a tag or a digest, means `image`."""
        name = key(reference)
        now = oci_image.timestamp() if not name.digest else image.last_tagged
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO image_references VALUES (?, ?)", (name.normalized(), image.id)
            )
            connection.execute("UPDATE images SET last_tagged = ? WHERE id = ?", (now, image.id))
        self._images[image.id] = replace(self._images[image.id], last_tagged=now)
        self._point([name], image.id)

    def unname(self, reference: Reference) -> None:
        """Forget a name; the image stays."""
        name = key(reference)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM image_references WHERE name = ?", (name.normalized(),))
        image_id = self._names.pop(name, None)
        if image_id:
            self._renamed(image_id)
        self._list_in_layout([name])

    def forget(self, image: Image) -> None:
        """Drop an image's record and names. What only it needed stays until `collect`."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM images WHERE id = ?", (image.id,))
        del self._images[image.id]
        for reference in image.references:
            self._names.pop(reference, None)
        self._list_in_layout(image.references)

    def drop_incomplete(self) -> None:
        """Forget images without all of their layers, which a power failure leaves, and the blobs of such
        layers. Call once, at start, before `collect`."""
        here = set(self.layers.diff_ids())
        for image in self.list():
            if not here.issuperset(image.diff_ids):
                names = ", ".join(each.familiar() for each in image.references)
                log.warning("image %s is lost with a layer of it%s", image.short_id, names and f": {names}")
                self.forget(image)
        with self._database.transaction() as connection:
            lost = [(diff_id,) for diff_id, _ in self.blobs().values() if diff_id not in here]
            connection.executemany("DELETE FROM layer_blobs WHERE diff_id = ?", lost)

    def record_blob(self, diff_id: str, blob: Descriptor) -> None:
        """A layer has a compressed form now."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO layer_blobs VALUES (?, ?, ?, ?)",
                (blob.digest, diff_id, blob.media_type, blob.size),
            )
        users = [image for image in self._images.values() if diff_id in image.diff_ids]
        self._list_in_layout([name for image in users for name in image.references])

    # -- garbage

    @contextlib.asynccontextmanager
    async def adding(self) -> AsyncIterator[None]:
        """Nothing is collected while anyone is in here.

        It is for what makes layers, or finds them here, and is about to record them. A collection that was
        asked for meanwhile is made up for by the last one out.
        """
        async with self._collecting:
            self._adding += 1
        try:
            yield
        finally:
            self._adding -= 1
            if self._collection_due and not self._adding:
                await self.collect()

    def packing(self, diff_id: str) -> asyncio.Lock:
        """Whoever holds it is the only one to make the blob of that layer."""
        return self._packing.setdefault(diff_id, asyncio.Lock())

    async def collect(self) -> None:
        """Delete the layers and blobs that nothing needs. Cut off, the next one makes up for the rest."""
        async with self._collecting:
            self._collection_due = bool(self._adding)
            if self._adding:
                return
            layers, blobs = self._garbage()
            if not layers and not blobs:
                return
            with self._database.transaction() as connection:
                rows = [(diff_id,) for diff_id in layers]
                connection.executemany("DELETE FROM layer_blobs WHERE diff_id = ?", rows)
            await asyncio.shield(asyncio.to_thread(self._delete, layers, blobs))

    async def drop_partial_downloads(self) -> int:
        """Of pulls that were interrupted, unless one is at work. Returns the bytes."""
        async with self._collecting:
            return 0 if self._adding else self.content.sweep(patience=0)

    def _garbage(self) -> tuple[Names, Names]:
        """(diff IDs, digests) that nothing needs."""
        needed = set(self.held_layers())
        needed.update(entry.digest for entry in self.content.index())
        for image in self._images.values():
            needed.update(image.diff_ids, (image.id, image.manifest or ""))
        layers = [diff_id for diff_id in self.layers.diff_ids() if diff_id not in needed]
        dead = set(layers)
        for row in self._database.query("SELECT digest, diff_id FROM layer_blobs"):
            if row["diff_id"] not in dead:
                needed.add(row["digest"])
        return layers, [digest for digest in self.content.digests() if digest not in needed]

    def _delete(self, layers: Names, blobs: Names) -> None:
        for digest in blobs:
            self.content.delete(digest)
        for diff_id in layers:
            self.layers.remove(diff_id)

    # -- inside

    def _read(self) -> None:
        for row in self._database.query("SELECT * FROM images"):
            self._images[row["id"]] = Image(
                id=row["id"],
                config=json.loads(self.content.read(row["id"])),
                diff_ids=tuple(json.loads(row["diff_ids"])),
                size=row["size"],
                origin=row["origin"],
                parent=row["parent"],
                last_tagged=row["last_tagged"],
                manifest=row["manifest"],
                cached=frozenset(json.loads(row["cached"])),
            )
        for row in self._database.query("SELECT * FROM image_references"):
            self._names[stored_reference(row["name"])] = row["image"]
        for image_id in self._images:
            self._renamed(image_id)
        listed = [entry.annotations.get(descriptor.REF_NAME, "") for entry in self.content.index()]
        self._list_in_layout([*self._names, *(stored_reference(name) for name in listed if name)])

    def _point(self, names: Sequence[Reference], image_id: str) -> None:
        """In memory as in the table: these names mean that image now."""
        changed = {image_id}
        for name in names:
            changed.add(self._names.get(name, image_id))
            self._names[name] = image_id
        for each in changed:
            self._renamed(each)
        self._list_in_layout(names)

    def _renamed(self, image_id: str) -> None:
        names = tuple(name for name, target in self._names.items() if target == image_id)
        self._images[image_id] = replace(self._images[image_id], references=names)

    def _refuse_reserved(self, reference: Reference) -> None:
        if reference.repository == host.NAME.repository:
            raise Conflict("'host' is a reserved name")

    def _by_prefix(self, prefix: str) -> Image | None:
        """Docker's rule: an ambiguous beginning is as good as none."""
        candidates = [self._host, *self._images.values()]
        found = [image for image in candidates if image.id.startswith(f"sha256:{prefix}")]
        return found[0] if len(found) == 1 else None

    def _layer_size(self, diff_id: str) -> int:
        layer = self.layers.get(diff_id)
        if layer is None:
            raise NotFound(f"layer does not exist: {diff_id}")
        return layer.size

    def _list_in_layout(self, names: Iterable[Reference]) -> None:
        """Make `index.json` say what the tables say of these tags: listed if all layers are here as blobs."""
        listed = {entry.annotations.get(descriptor.REF_NAME): entry.digest for entry in self.content.index()}
        for name in names:
            if name.digest:
                continue
            image_id = self._names.get(name)
            image = self._images[image_id] if image_id else None
            manifest = layout.oci_manifest(self.content, image, self.blob_of) if image else None
            if manifest and listed.get(name.normalized()) != manifest.digest:
                self.content.add_manifest(manifest, name.normalized())
            elif not manifest and name.normalized() in listed:
                self.content.remove_manifest(name.normalized())


def _insert(
    connection: sqlite3.Connection, image: Image, names: Iterable[Reference], blobs: Mapping[str, Descriptor]
) -> None:
    connection.execute(
        "INSERT INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " cached = excluded.cached,"
        " manifest = coalesce(excluded.manifest, manifest),"
        " last_tagged = coalesce(excluded.last_tagged, last_tagged)",
        (
            image.id,
            json.dumps(image.diff_ids),
            image.size,
            image.origin,
            image.parent,
            image.manifest,
            image.last_tagged,
            json.dumps(sorted(image.cached)),
        ),
    )
    connection.executemany(
        "INSERT OR REPLACE INTO image_references VALUES (?, ?)",
        [(name.normalized(), image.id) for name in names],
    )
    connection.executemany(
        "INSERT OR IGNORE INTO layer_blobs VALUES (?, ?, ?, ?)",
        [(blob.digest, diff_id, blob.media_type, blob.size) for diff_id, blob in blobs.items()],
    )
