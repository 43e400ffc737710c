"""The build cache: which step, done on which image, gave which layer.

    key    = sha256(ID of the image before the step, the instruction with all that it depends on)
    record = the layer it made (none for a change of the config alone), and when it was made

The ID of the image before covers its layers, its whole config and its history. So a step is reused only where
all before it are the same, and a build from the cache alone gives the very image that it gave first.
"""

import hashlib
import json
from dataclasses import dataclass

from dockmagic_runtime.storage.database import Database


@dataclass(frozen=True)
class Record:
    """What a step gave: `diff_id` None if it made no layer; `created` as in the image's history."""

    diff_id: str | None
    created: str


def key(parent: str, instruction: str, *depends: str) -> str:
    """`parent` is the image ID so far (empty for scratch)."""
    return hashlib.sha256(json.dumps([parent, instruction, *depends]).encode()).hexdigest()


class BuildCache:
    """A table of the engine's database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate(
            "build_cache",
            "CREATE TABLE build_cache (key TEXT PRIMARY KEY, diff_id TEXT, created TEXT NOT NULL) STRICT",
        )

    def get(self, key: str) -> Record | None:
        row = self._database.one("SELECT diff_id, created FROM build_cache WHERE key = ?", key)
        return Record(row["diff_id"], row["created"]) if row else None

    def put(self, key: str, record: Record) -> None:
        """The layer must be there. One that a power failure takes is found missing, and made again."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO build_cache VALUES (?, ?, ?)", (key, record.diff_id, record.created)
            )

    def layers(self) -> set[str]:
        """The diff IDs that the cache keeps from being collected."""
        rows = self._database.query("SELECT DISTINCT diff_id FROM build_cache WHERE diff_id IS NOT NULL")
        return {row["diff_id"] for row in rows}

    def clear(self) -> list[str]:
        """Forget everything; returns the keys."""
        keys = [row["key"] for row in self._database.query("SELECT key FROM build_cache")]
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM build_cache")
        return keys
