"""What a client may ask to be mounted: `-v` as text, `--mount` as JSON, `--volumes-from`, by Docker's rules.

Sentences and rules are those of moby's `volume/mounts` (its Linux parser).
"""

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dockmagic_runtime.containers.settings import complete
from dockmagic_runtime.errors import InvalidParameter

Json = dict[str, Any]

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
# Of each kind a mode may have one word.
_MODE_WORDS = (("ro", "rw"), ("z", "Z"), ("nocopy",), ("consistent", "cached", "delegated"), _PROPAGATIONS)

_MOUNT_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "Type": ((str,), ""),
    "Source": ((str,), ""),
    "Target": ((str,), ""),
    "ReadOnly": ((bool,), False),
    "Consistency": ((str,), ""),
    "BindOptions": ((dict,), None),
    "VolumeOptions": ((dict,), None),
    "TmpfsOptions": ((dict,), None),
}
_BIND_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "Propagation": ((str,), ""),
    "NonRecursive": ((bool,), False),
    "CreateMountpoint": ((bool,), False),
    "ReadOnlyNonRecursive": ((bool,), False),
    "ReadOnlyForceRecursive": ((bool,), False),
}
_VOLUME_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "NoCopy": ((bool,), False),
    "Labels": ((dict,), {}),
    "DriverConfig": ((dict,), {}),
    "Subpath": ((str,), ""),
}
_DRIVER_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "Name": ((str,), ""),
    "Options": ((dict,), {}),
}
_TMPFS_FIELDS: dict[str, tuple[tuple[type, ...], Any]] = {
    "SizeBytes": ((int,), 0),
    "Mode": ((int,), 0),
    "Options": ((list,), []),
}


@dataclass(frozen=True)
class MountSpec:
    """One wish. `mode` is what Docker's mount point shows as its Mode."""

    target: str
    kind: str
    source: str = ""
    mode: str = ""
    read_only: bool = False
    propagation: str = ""
    create_source: bool = False
    non_recursive: bool = False
    read_only_here: bool = False
    no_copy: bool = False
    subpath: str = ""
    driver: str = ""
    driver_options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    tmpfs: str = ""


def of_bind(text: str, driver: str) -> MountSpec:
    """`source:destination[:mode]`, as `-v` has it."""
    parts = text.split(":")
    invalid = f"invalid volume specification: '{text}'"
    if len(parts) > 3 or not parts[0] or (len(parts) == 2 and parts[1] and _valid_mode(parts[1])):
        raise InvalidParameter(invalid)
    mode = parts[2] if len(parts) == 3 else ""
    if not _valid_mode(mode):
        raise InvalidParameter(f"invalid mode: {mode}")
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    words = mode.split(",")
    propagation = next((word for word in words if word in _PROPAGATIONS), "")
    kind = "bind" if source.startswith("/") else "volume"
    with _named(f"{invalid}: invalid mount config for type", kind):
        _check_target(target)
        if kind == "bind" and ("nocopy" in words or driver):
            raise InvalidParameter("field VolumeOptions must not be specified")
        if kind == "volume" and propagation:
            raise InvalidParameter("field BindOptions must not be specified")
    return MountSpec(
        posixpath.normpath(target),
        kind,
        posixpath.normpath(source) if kind == "bind" else source,
        mode or ("z" if kind == "volume" else ""),
        read_only="ro" in words,
        propagation=propagation,
        create_source=True,
        no_copy="nocopy" in words,
        driver=driver,
    )


def of_mount(given: Json) -> MountSpec:
    """One entry of HostConfig.Mounts (`--mount`)."""
    mount = complete(given, _MOUNT_FIELDS, "Mount")
    kind = mount["Type"]
    with _named("invalid mount config for type", kind):
        _check_target(mount["Target"])
        match kind:
            case "bind":
                return _bind(mount)
            case "volume":
                return _volume(mount)
            case "tmpfs":
                return _tmpfs(mount)
        raise InvalidParameter("mount type unknown")


def of_volumes_from(text: str) -> tuple[str, bool]:
    """`container[:mode]`: whose volumes, and whether they are only to be read."""
    if not text:
        raise InvalidParameter("volumes-from specification cannot be an empty string")
    name, _, mode = text.partition(":")
    words = mode.split(",")
    if not _valid_mode(mode) or any(word in ("nocopy", *_PROPAGATIONS) for word in words):
        raise InvalidParameter(f"invalid mode: {mode}")
    if not name:
        raise InvalidParameter('invalid name or ID supplied: ""')
    return name, "ro" in words


def tmpfs_destination(path: str) -> str:
    """A key of HostConfig.Tmpfs."""
    _check_target(path)
    return posixpath.normpath(path)


@contextmanager
def _named(prefix: str, kind: str) -> Iterator[None]:
    try:
        yield
    except InvalidParameter as error:
        raise InvalidParameter(f'{prefix} "{kind}": {error}') from None


def _valid_mode(mode: str) -> bool:
    words = mode.split(",") if mode else []
    counts = [sum(word in kind for word in words) for kind in _MODE_WORDS]
    return sum(counts) == len(words) and max(counts) <= 1


def _check_target(path: str) -> None:
    if not path:
        raise InvalidParameter("field Target must not be empty")
    if posixpath.normpath(path) in ("/", "//"):
        raise InvalidParameter("invalid specification: destination can't be '/'")
    _check_absolute(path)


def _check_absolute(path: str) -> None:
    if not path.startswith("/") or "\0" in path:
        raise InvalidParameter(f"invalid mount path: '{path}' mount path must be absolute")


def _bind(mount: Json) -> MountSpec:
    if not mount["Source"]:
        raise InvalidParameter("field Source must not be empty")
    options = complete(mount["BindOptions"], _BIND_FIELDS, "BindOptions")
    if options["Propagation"] and options["Propagation"] not in _PROPAGATIONS:
        raise InvalidParameter(f"invalid propagation mode: {options['Propagation']}")
    if mount["VolumeOptions"] is not None:
        raise InvalidParameter("field VolumeOptions must not be specified")
    _check_absolute(mount["Source"])
    if not Path(mount["Source"]).exists() and not options["CreateMountpoint"]:
        raise InvalidParameter(f"bind source path does not exist: {mount['Source']}")
    return MountSpec(
        posixpath.normpath(mount["Target"]),
        "bind",
        posixpath.normpath(mount["Source"]),
        read_only=mount["ReadOnly"],
        propagation=options["Propagation"],
        create_source=options["CreateMountpoint"],
        non_recursive=options["NonRecursive"],
        read_only_here=options["ReadOnlyNonRecursive"],
    )


def _volume(mount: Json) -> MountSpec:
    if mount["BindOptions"] is not None:
        raise InvalidParameter("field BindOptions must not be specified")
    options = complete(mount["VolumeOptions"], _VOLUME_FIELDS, "VolumeOptions")
    driver = complete(options["DriverConfig"], _DRIVER_FIELDS, "DriverConfig")
    subpath = options["Subpath"]
    if subpath and not mount["Source"]:
        raise InvalidParameter("must not set Subpath when using anonymous volumes")
    if subpath and (subpath.startswith("/") or posixpath.normpath(subpath).startswith("..")):
        raise InvalidParameter("subpath must be a relative path within the volume")
    if mount["ReadOnly"] and not mount["Source"]:
        raise InvalidParameter("must not set ReadOnly mode when using anonymous volumes")
    return MountSpec(
        posixpath.normpath(mount["Target"]),
        "volume",
        mount["Source"],
        "z",
        read_only=mount["ReadOnly"],
        no_copy=options["NoCopy"],
        subpath=subpath,
        driver=driver["Name"],
        driver_options=driver["Options"],
        labels=options["Labels"],
    )


def _tmpfs(mount: Json) -> MountSpec:
    if mount["BindOptions"] is not None:
        raise InvalidParameter("field BindOptions must not be specified")
    if mount["Source"]:
        raise InvalidParameter("field Source must not be specified")
    options = complete(mount["TmpfsOptions"], _TMPFS_FIELDS, "TmpfsOptions")
    words = ["ro"] if mount["ReadOnly"] else []
    words += [f"size={options['SizeBytes']}"] if options["SizeBytes"] else []
    words += [f"mode={options['Mode']:o}"] if options["Mode"] else []
    for pair in options["Options"]:
        if not isinstance(pair, list) or not all(isinstance(word, str) for word in pair):
            raise InvalidParameter("invalid JSON: TmpfsOptions.Options must be lists of strings")
        words.append("=".join(pair))
    return MountSpec(
        posixpath.normpath(mount["Target"]), "tmpfs", read_only=mount["ReadOnly"], tmpfs=",".join(words)
    )
