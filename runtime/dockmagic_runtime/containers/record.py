"""The record of one container: everything that is known of it without asking the kernel.

Kept as one JSON document in the database and rewritten whole in one transaction whenever it changes; what a
restarted engine needs to find the container again is all here. Handles of running things are in
`Live`.
"""

import json
import sqlite3
from dataclasses import dataclass, field
from typing import Any

from dockmagic_runtime import timestamps
from dockmagic_runtime.errors import Conflict, InvalidParameter, NotFound
from dockmagic_runtime.storage.database import Database

Json = dict[str, Any]


@dataclass
class State:
    """Docker's container state; times are RFC3339Nano."""

    status: str = "created"  # created, running, paused, restarting, removing, exited, dead
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: str = timestamps.NEVER
    finished_at: str = timestamps.NEVER
    health: Json | None = None  # as Docker shows it; None without a health check

    @property
    def running(self) -> bool:
        return self.status in ("running", "paused", "restarting")

    def inspect(self) -> Json:
        return {
            "Status": self.status,
            "Running": self.running,
            "Paused": self.status == "paused",
            "Restarting": self.status == "restarting",
            "OOMKilled": self.oom_killed,
            "Dead": self.status == "dead",
            "Pid": self.pid if self.running else 0,
            "ExitCode": self.exit_code,
            "Error": self.error,
            "StartedAt": self.started_at,
            "FinishedAt": self.finished_at,
            **({"Health": self.health} if self.health else {}),
        }


@dataclass
class Container:
    """One container. `config` and `host_config` are complete; `mounts` are Docker's mount points."""

    id: str
    name: str
    created: str
    image: str
    config: Json
    host_config: Json
    endpoints: dict[str, Json]
    mounts: list[Json]
    layers: list[str]
    platform: str = "linux"
    restart_count: int = 0
    manually_stopped: bool = False
    state: State = field(default_factory=State)
    networks: Json = field(default_factory=dict)
    links: list[list[str]] = field(default_factory=list)  # see `links`: id, name and alias of each child

    @property
    def short_id(self) -> str:
        return self.id[:12]

    @property
    def argv(self) -> list[str]:
        return [*(self.config.get("Entrypoint") or []), *(self.config.get("Cmd") or [])]

    @property
    def labels(self) -> dict[str, str]:
        return self.config.get("Labels") or {}

    @property
    def network_mode(self) -> str:
        return self.host_config["NetworkMode"]

    def event(self, action: str, **more: str) -> tuple[str, str, str, dict[str, str]]:
        """What `EventBus.publish` is to tell of it."""
        attributes = {"image": self.config["Image"], "name": self.name, **self.labels, **more}
        return "container", action, self.id, attributes


class Records:
    """The containers table, and all its rows as objects; lookup by name, id or unique id prefix."""

    def __init__(self, database: Database) -> None:
        self._database = database
        database.migrate(
            "containers",
            "CREATE TABLE containers (id TEXT PRIMARY KEY, name TEXT UNIQUE NOT NULL, record TEXT NOT NULL)",
        )
        self._by_id: dict[str, Container] = {}
        for row in database.query("SELECT record FROM containers"):
            container = _from_json(row["record"])
            self._by_id[container.id] = container
        self._ids = {container.name: container.id for container in self._by_id.values()}
        self._linking = {container.id for container in self._by_id.values() if container.links}

    def all(self) -> list[Container]:
        return list(self._by_id.values())

    def get(self, reference: str) -> Container:
        """By id, name (with or without slash), `parent/alias` of a link, or unique id prefix.

        Raises NotFound in Docker's words.
        """
        name = reference.removeprefix("/")
        found = self._by_id.get(reference) or self._by_id.get(self._ids.get(name, ""))
        found = found or ("/" in name and self._linked(name)) or None
        if found:
            return found
        matching = [container for identity, container in self._by_id.items() if identity.startswith(name)]
        if len(matching) == 1 and name:
            return matching[0]
        if matching and name:
            raise InvalidParameter(f"multiple IDs found with provided prefix: {name}")
        raise NotFound(f"No such container: {reference}")

    def running(self) -> list[Container]:
        return [container for container in self._by_id.values() if container.state.running]

    def of_image(self, image_id: str) -> list[Container]:
        return [container for container in self._by_id.values() if container.image == image_id]

    def users_of_volume(self, name: str) -> list[str]:
        """The ids of the containers that have a volume."""
        return [
            container.id
            for container in self._by_id.values()
            if any(point.get("Name") == name for point in container.mounts)
        ]

    def find(self, identity: str) -> Container | None:
        return self._by_id.get(identity)

    def parents(self, identity: str) -> list[tuple[Container, str]]:
        """The containers that link to this one, each with its alias for it."""
        return [
            (self._by_id[parent], alias)
            for parent in self._linking
            for child, _, alias in self._by_id[parent].links
            if child == identity
        ]

    def _linked(self, name: str) -> Container | None:
        parent, _, wanted = name.rpartition("/")
        links = self._by_id[self._ids[parent]].links if parent in self._ids else []
        return next((self._by_id.get(child) for child, _, alias in links if alias == wanted), None)

    def holder(self, name: str) -> str | None:
        """The id of the container that has this name."""
        return self._ids.get(name)

    def check_free(self, name: str) -> None:
        """Raises Conflict if the name is taken."""
        if name in self._ids:
            raise self._name_taken(name)

    def insert(self, container: Container) -> None:
        """Raises Conflict if the name is taken: the table's own constraint decides, also in a race."""
        try:
            with self._database.transaction() as connection:
                connection.execute(
                    "INSERT INTO containers VALUES (?, ?, ?)",
                    (container.id, container.name, _to_json(container)),
                )
        except sqlite3.IntegrityError:
            raise self._name_taken(container.name) from None
        self._by_id[container.id] = container
        self._ids[container.name] = container.id
        if container.links:
            self._linking.add(container.id)

    def save(self, container: Container) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE containers SET record = ? WHERE id = ?", (_to_json(container), container.id)
            )

    def rename(self, container: Container, name: str) -> None:
        old = container.name
        if name in self._ids:
            raise self._name_taken(name)
        container.name = name
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE containers SET name = ?, record = ? WHERE id = ?",
                (name, _to_json(container), container.id),
            )
        del self._ids[old]
        self._ids[name] = container.id

    def delete(self, container: Container) -> None:
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM containers WHERE id = ?", (container.id,))
        del self._by_id[container.id]
        del self._ids[container.name]
        self._linking.discard(container.id)

    def _name_taken(self, name: str) -> Conflict:
        holder = self._ids.get(name, "")
        return Conflict(
            f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
            "You have to remove (or rename) that container to be able to reuse that name."
        )


def _to_json(container: Container) -> str:
    # Not asdict(), which copies every list and map first: a record is written several times in a short run.
    return json.dumps(vars(container) | {"state": vars(container.state)}, separators=(",", ":"))


def _from_json(text: str) -> Container:
    fields = json.loads(text)
    return Container(**{**fields, "state": State(**fields["state"])})
