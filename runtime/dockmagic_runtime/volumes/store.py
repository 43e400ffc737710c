"""Volumes: directories with a name that outlive containers, at `<data root>/volumes/<name>/_data`.

The `local` driver only. An anonymous volume is one whose name is 64 random hex digits and which carries
Docker's label `com.docker.volume.anonymous`. Who uses a volume is asked of the containers, not counted here.
"""

import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound
from dockmagic_runtime.storage.database import Database

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
        """Bytes of disk that the files of the volume take; walks them all."""
        total = 0
        for directory, _, files in os.walk(self.path):
            for name in files:
                try:
                    total += os.lstat(os.path.join(directory, name)).st_size  # noqa: PTH118
                except FileNotFoundError:
                    continue  # a container removed it meanwhile
        return total


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
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        database.migrate(
            "volumes",
            "CREATE TABLE volumes (name TEXT PRIMARY KEY, created TEXT, labels TEXT, options TEXT)",
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
        if options:
            raise InvalidParameter(f'create {name}: invalid option: "{next(iter(options))}"')
        labels = dict(labels or {})
        if not name:
            name = secrets.token_hex(32)
            labels.setdefault(ANONYMOUS_LABEL, "")
        if not _NAME.fullmatch(name):
            raise InvalidParameter(
                f'create {name}: "{name}" includes invalid characters for a local volume name, only '
                '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, '
                "use absolute path"
            )
        if self._row(name):
            return self.get(name)
        (self._root / name / "_data").mkdir(mode=0o755, parents=True, exist_ok=True)
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO volumes VALUES (?, ?, ?, ?)",
                (name, timestamps.now(), json.dumps(labels), json.dumps(options or {})),
            )
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
        users = self._users_of(name)
        if users:
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM volumes WHERE name = ?", (name,))
        self._discard(self._root / name)
        self._publish("volume", "destroy", name, {"driver": "local"})

    def prune(self, *, anonymous_only: bool, matches: Callable[[Volume], bool]) -> tuple[Iterable[str], int]:
        """Remove what no container uses; returns the names and the bytes freed."""
        removed, freed = [], 0
        for volume in self.list():
            if (
                (anonymous_only and not volume.anonymous)
                or not matches(volume)
                or self._users_of(volume.name)
            ):
                continue
            freed += volume.usage()
            self.remove(volume.name)
            removed.append(volume.name)
        return removed, freed

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
        directory.rename(doomed)
        shutil.rmtree(doomed)

    def _sweep(self) -> None:
        for doomed in self._root.glob(".removed-*"):
            shutil.rmtree(doomed)
