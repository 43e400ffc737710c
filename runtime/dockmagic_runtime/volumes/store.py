"""Volumes: directories with a name that outlive containers, at `<data root>/volumes/<name>/_data`.

That place is documented (docs/volumes.md): whoever backs up a host may read it. The `local` driver only; one
with `options` is a mount over its `_data`, there while somebody holds it (`holders`). An anonymous volume is
one whose name is 64 random hex digits and which carries Docker's label `com.docker.volume.anonymous`. Who
uses a volume is asked of the containers, not counted here.
"""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound
from dockmagic_runtime.kernel import trees
from dockmagic_runtime.storage.database import Database
from dockmagic_runtime.volumes import options as local_options
from dockmagic_runtime.volumes.holders import Holders

ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")

PublishEvent = Callable[[str, str, str, dict[str, str]], None]


@dataclass(frozen=True)
class Volume:
    """One volume; `path` is the directory that containers see."""

    name: str
    path: Path
    created: str
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS_LABEL in self.labels

    def inspect(self) -> dict[str, Any]:
        """Docker's JSON of a volume."""
        return {
            "CreatedAt": self.created,
            "Driver": "local",
            "Labels": self.labels or None,
            "Mountpoint": str(self.path),
            "Name": self.name,
            "Options": self.options or None,
            "Scope": "local",
        }

    def usage(self) -> int:
        """Bytes in the files of the volume, as Docker counts them; walks them all.

        -1, which is "not known", for one with options: its files are elsewhere.
        """
        if self.options:
            return -1
        return trees.sizes(self.path)


class VolumeStore:
    """All volumes of one engine.

    `users_of(name)` returns the ids of the containers that mount a volume.
    """

    def __init__(
        self, database: Database, root: Path, users_of: Callable[[str], list[str]], publish: PublishEvent
    ) -> None:
        self._database = database
        self._root = root
        self._users_of = users_of
        self._publish = publish
        self.holders = Holders()
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        database.migrate(
            "volumes",
            "CREATE TABLE volumes (name TEXT PRIMARY KEY, created TEXT, labels TEXT, options TEXT)",
            "ALTER TABLE volumes ADD COLUMN was TEXT NOT NULL DEFAULT ''",
        )
        self._sweep()

    def create(
        self,
        name: str = "",
        *,
        driver: str = "local",
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Volume:
        """The volume of that name, made if there is none; a nameless one is anonymous."""
        if driver not in ("local", ""):
            raise NotFound(f'error looking up volume plugin {driver}: plugin "{driver}" not found')
        local_options.check(name, options or {})
        labels = dict(labels or {})
        if not name:
            name = secrets.token_hex(32)
            labels.setdefault(ANONYMOUS_LABEL, "")
        _check(name)
        if self._row(name):
            return self.get(name)
        (self._root / name / "_data").mkdir(mode=0o755, parents=True, exist_ok=True)
        return self._insert(name, labels, options or {})

    def _insert(
        self,
        name: str,
        labels: dict[str, str],
        options: dict[str, str],
        place: Callable[[], object] = lambda: None,
    ) -> Volume:
        """Note a new volume. `place` puts its files there: if that fails, there is no volume."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO volumes (name, created, labels, options) VALUES (?, ?, ?, ?)",
                (name, timestamps.now(), json.dumps(labels), json.dumps(options)),
            )
            place()
        self._publish("volume", "create", name, {"driver": "local"})
        return self.get(name)

    def get(self, name: str) -> Volume:
        row = self._row(name)
        if row is None:
            raise NotFound(f"get {name}: no such volume")
        return self._volume(row)

    def list(self) -> "list[Volume]":
        return [self._volume(row) for row in self._database.query("SELECT * FROM volumes ORDER BY name")]

    def remove(self, name: str, *, force: bool = False) -> None:
        if self._row(name) is None:
            if force:
                return
            raise NotFound(f"get {name}: no such volume")
        self._check_unused("remove", name)
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM volumes WHERE name = ?", (name,))
        self._discard(self._root / name)
        self._publish("volume", "destroy", name, {"driver": "local"})

    @asynccontextmanager
    async def held(self, volumes: "Iterable[Volume]", called: str) -> AsyncIterator[None]:
        """While it lasts, the files of all of them are at their paths; `called` is what needs them."""
        holder = secrets.token_hex(8)
        try:
            for volume in volumes:
                await self.holders.hold(volume, holder, called)
            yield
        finally:
            await self.holders.release_all(holder)

    @asynccontextmanager
    async def incoming(self, name: str, labels: dict[str, str] | None = None) -> AsyncIterator[Path]:
        """An empty directory; when the block ends, what is in it are the files of the volume `name`.

        The volume is made, or has to be empty and in no running container. If the block raises nothing has
        happened, and killed in its middle neither. Raises Conflict.
        """
        _check(name)
        if self._row(name):
            volume = self.get(name)
            async with self.held([volume], "import"):
                self._check_untouched(volume)
                async with self._filled(volume) if volume.options else self._staged(name, volume) as place:
                    yield place
        else:
            async with self._staged(name, labels) as place:
                yield place

    @asynccontextmanager
    async def _staged(self, name: str, settled: Volume | dict[str, str] | None) -> AsyncIterator[Path]:
        """A directory that takes the place of an empty volume's, or becomes a new volume's (its labels)."""
        staging = self._root / f".incoming-{secrets.token_hex(8)}"
        (staging / "_data").mkdir(mode=0o755, parents=True)
        try:
            yield staging / "_data"
            if isinstance(settled, Volume):
                self._check_untouched(settled)
                (staging / "_data").rename(settled.path)  # rename(2) takes the place of an empty directory
            elif self._row(name):
                raise Conflict(f"a volume {name} has come into being meanwhile")
            else:
                self._discard(self._root / name)  # of a volume whose making was killed
                self._insert(name, settled or {}, {}, lambda: staging.rename(self._root / name))
        finally:
            if staging.exists():
                await asyncio.to_thread(trees.remove, staging)

    @asynccontextmanager
    async def _filled(self, volume: Volume) -> AsyncIterator[Path]:
        """The mount of a volume with options, emptied again on failure."""
        try:
            yield volume.path
        except BaseException:
            await asyncio.to_thread(_empty, volume.path)
            raise

    def _check_untouched(self, volume: Volume) -> None:
        others = self.holders.of(volume.name)
        others.remove("import")  # that is ourselves
        if others:
            raise Conflict(f"import {volume.name}: volume is in use - [{', '.join(others)}]")
        if any(volume.path.iterdir()):
            raise Conflict(
                f"import {volume.name}: the volume is not empty: import into a new one, or remove it first"
            )

    def rename(self, name: str, new: str) -> Volume:
        """Give a volume that no container has another name; its files move along."""
        self.get(name)
        _check(new)
        if self._row(new):
            raise Conflict(f"rename {name}: a volume {new} exists")
        self._check_unused("rename", name)
        self._discard(self._root / new)
        # A directory has no part in a transaction: a death in between is seen by `was`, and made good.
        with self._database.transaction() as connection:
            connection.execute("UPDATE volumes SET name = ?, was = ? WHERE name = ?", (new, name, name))
        self._follow(name, new)
        self._publish("volume", "rename", new, {"driver": "local", "oldName": name})
        return self.get(new)

    def _follow(self, name: str, new: str) -> None:
        """The second half of a rename."""
        if (self._root / name).exists():
            (self._root / name).rename(self._root / new)
        with self._database.transaction() as connection:
            connection.execute("UPDATE volumes SET was = '' WHERE name = ?", (new,))

    def _check_unused(self, verb: str, name: str) -> None:
        users = dict.fromkeys([*self._users_of(name), *self.holders.of(name)])
        if users:
            raise Conflict(f"{verb} {name}: volume is in use - [{', '.join(users)}]")

    def prune(self, *, anonymous_only: bool, matches: Callable[[Volume], bool]) -> tuple[Iterable[str], int]:
        """Remove what no container uses; returns the names and the bytes freed."""
        removed, freed = [], 0
        for volume in self.prunable(anonymous_only=anonymous_only, matches=matches):
            freed += volume.usage()
            self.remove(volume.name)
            removed.append(volume.name)
        return removed, freed

    def prunable(
        self, *, anonymous_only: bool, matches: Callable[[Volume], bool], gone: Collection[str] = ()
    ) -> Sequence[Volume]:
        """What no container uses but those `gone`. Those with options stay: so Docker does it."""
        return [
            volume
            for volume in self.list()
            if not volume.options
            and (volume.anonymous or not anonymous_only)
            and matches(volume)
            and all(user in gone for user in self._users_of(volume.name))
            and not self.holders.of(volume.name)
        ]

    def _row(self, name: str) -> Any:
        return self._database.one("SELECT * FROM volumes WHERE name = ?", name)

    def _volume(self, row: Any) -> Volume:
        return Volume(
            row["name"],
            self._root / row["name"] / "_data",
            row["created"],
            json.loads(row["labels"]),
            json.loads(row["options"]),
        )

    def _discard(self, directory: Path) -> None:
        # Renamed first: a death in the middle of a long removal leaves something that is clearly rubbish.
        doomed = self._root / f".removed-{secrets.token_hex(8)}"
        try:
            directory.rename(doomed)
        except FileNotFoundError:
            return
        trees.remove(doomed)

    def _sweep(self) -> None:
        for pattern in (".removed-*", ".incoming-*"):
            for doomed in self._root.glob(pattern):
                trees.remove(doomed)
        for row in self._database.query("SELECT name, was FROM volumes WHERE was != ''"):
            self._follow(row["was"], row["name"])


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidParameter(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
            "use absolute path"
        )


def _empty(directory: Path) -> None:
    for entry in directory.iterdir():
        trees.remove(entry)
