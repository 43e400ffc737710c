"""The image that a stage is so far: its config document, changed by one instruction after another."""

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from dockmagic_runtime.oci.image import Platform

Json = dict[str, Any]

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
_KEPT = ("architecture", "variant", "os", "author", "created", "config", "rootfs", "history")


@dataclass(frozen=True)
class State:
    """Immutable; each step makes a new one. `arguments` (ARG) are of the build and not of the image."""

    document: Json
    arguments: Mapping[str, str] = field(default_factory=dict)
    has_command: bool = False
    """Whether there was a CMD in this stage."""

    @classmethod
    def scratch(cls, platform: Platform) -> "State":
        document: Json = {
            "architecture": platform.architecture,
            "os": platform.os,
            "config": {"Env": [PATH], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": []},
            "history": [],
        }
        return cls(document)

    @classmethod
    def of_image(cls, config: Mapping[str, Any]) -> "State":
        document = {key: copy.deepcopy(config[key]) for key in _KEPT if config.get(key)}
        document.setdefault("config", {})
        document.setdefault("rootfs", {"type": "layers", "diff_ids": []})
        document.setdefault("history", [])
        return cls(document)

    @cached_property
    def serialized(self) -> bytes:
        """The bytes whose hash is the image's ID."""
        return json.dumps(self.document, sort_keys=True, separators=(",", ":")).encode()

    @cached_property
    def id(self) -> str:
        return "sha256:" + hashlib.sha256(self.serialized).hexdigest()

    @property
    def short_id(self) -> str:
        return self.id[7:19]

    @property
    def diff_ids(self) -> list[str]:
        return list(self.document["rootfs"]["diff_ids"])

    @property
    def config(self) -> Json:
        return dict(self.document["config"])

    @property
    def shell(self) -> tuple[str, ...]:
        return tuple(self.config.get("Shell") or DEFAULT_SHELL)

    @cached_property
    def environment(self) -> dict[str, str]:
        """What variables expand to: ARG, and above it ENV."""
        return {**self.arguments, **dict(entry.split("=", 1) for entry in self.config.get("Env") or ())}

    def with_arguments(self, arguments: Mapping[str, str | None]) -> "State":
        given = {name: value for name, value in arguments.items() if value is not None}
        return replace(self, arguments={**self.arguments, **given})

    def with_config(self, **changes: Any) -> "State":
        """A None takes the field away."""
        config = {key: value for key, value in {**self.config, **changes}.items() if value is not None}
        return replace(self, document={**self.document, "config": config})

    def after(self, created_by: str, created: str, diff_id: str | None) -> "State":
        """With one more entry of history, and its layer if there is one."""
        entry: Json = {"created": created, "created_by": created_by}
        rootfs = self.document["rootfs"]
        if diff_id is None:
            entry["empty_layer"] = True
        else:
            rootfs = {**rootfs, "diff_ids": [*rootfs["diff_ids"], diff_id]}
        changed = {"created": created, "rootfs": rootfs, "history": [*self.document["history"], entry]}
        return replace(self, document={**self.document, **changed})
