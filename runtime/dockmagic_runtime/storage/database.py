"""The engine's metadata: one SQLite file in write-ahead mode.

Every noun owns its tables and declares them with `migrate`. Calls are synchronous and take microseconds;
they are made from the event loop's thread only. A commit survives the death of the process at any point
(`synchronous=NORMAL` in WAL mode; only a power cut can lose the last moments, never corrupt the file).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Database:
    """An open database file; made if absent."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=2000"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS migrations (noun TEXT PRIMARY KEY, done INTEGER)"
        )

    def migrate(self, noun: str, *statements: str) -> None:
        """Run those of `statements` that have not run yet for `noun`; append to the list, never edit it."""
        row = self.one("SELECT done FROM migrations WHERE noun = ?", noun)
        done = row["done"] if row else 0
        if done == len(statements):
            return
        with self.transaction() as connection:
            for statement in statements[done:]:
                connection.execute(statement)
            connection.execute("INSERT OR REPLACE INTO migrations VALUES (?, ?)", (noun, len(statements)))

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing: committed when the block ends, rolled back when it raises."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def query(self, sql: str, *parameters: object) -> list[sqlite3.Row]:
        return self._connection.execute(sql, parameters).fetchall()

    def one(self, sql: str, *parameters: object) -> sqlite3.Row | None:
        return self._connection.execute(sql, parameters).fetchone()

    def close(self) -> None:
        self._connection.close()
