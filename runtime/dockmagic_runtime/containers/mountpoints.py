"""What is mounted into a container from outside its layers: `-v`, `--mount`, `--tmpfs`, image VOLUMEs.

Each becomes one of Docker's mount points (the JSON under `Mounts` in inspect), settled when the container is
created, and one OCI mount each time it starts. The sources are paths of the host, which belong to whoever may
speak to the engine; the destinations are only text here and resolved inside the root by `process/init.py`.
"""

import os
import posixpath
from pathlib import Path
from typing import Any

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.volumes.store import VolumeStore

Json = dict[str, Any]

_PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_MODES = {"ro", "rw", "z", "Z", "nocopy", "consistent", "cached", "delegated", "nosuid", "nodev", "noexec"}


def settle(config: Json, host: Json, volumes: VolumeStore) -> list[Json]:
    """All mount points of a new container; makes the volumes that do not exist yet.

    A destination named twice is an error; an image's VOLUME gives way to the user's own choice.
    """
    points: dict[str, Json] = {}

    def add(point: Json) -> None:
        if point["Destination"] in points:
            raise InvalidParameter(f"Duplicate mount point: {point['Destination']}")
        points[point["Destination"]] = point

    for bind in host["Binds"] or []:
        add(_from_bind(bind, volumes))
    for mount in host["Mounts"] or []:
        add(_from_mount(mount, volumes))
    for destination, options in (host["Tmpfs"] or {}).items():
        add(_tmpfs(_destination(destination), options))
    for destination in config.get("Volumes") or {}:
        destination = _destination(destination)
        if destination not in points:
            add(_volume(volumes, "", destination, []))
    return list(points.values())


def oci_mounts(points: list[Json]) -> list[Json]:
    """The mount points as OCI mounts, parents before what lies in them."""
    return [_oci(point) for point in sorted(points, key=lambda point: point["Destination"].count("/"))]


def _oci(point: Json) -> Json:
    if point["Type"] == "tmpfs":
        options = ["noexec", "nosuid", "nodev", *filter(None, point["Mode"].split(","))]
        return {"destination": point["Destination"], "type": "tmpfs", "source": "tmpfs", "options": options}
    options = ["rbind", "rw" if point["RW"] else "ro", point["Propagation"] or "rprivate"]
    options += [mode for mode in point["Mode"].split(",") if mode in ("nosuid", "nodev", "noexec")]
    return {
        "destination": point["Destination"],
        "type": "bind",
        "source": point["Source"],
        "options": options,
    }


def _from_bind(text: str, volumes: VolumeStore) -> Json:
    """`source:destination[:mode]`, or a destination alone (an anonymous volume)."""
    source, destination, mode = _split(text)
    modes = [word for word in mode.split(",") if word]
    for word in modes:
        if word not in _MODES and word not in _PROPAGATIONS:
            raise InvalidParameter(f"invalid mode: {mode}")
    destination = _destination(destination, text)
    if not source.startswith("/"):
        return _volume(volumes, source, destination, modes)
    path = Path(posixpath.normpath(source))
    if not os.path.lexists(path):
        # As Docker has done since ever with -v (and never with --mount).
        path.mkdir(parents=True)
    return _bind(str(path), destination, modes)


def _split(text: str) -> tuple[str, str, str]:
    parts = text.split(":")
    if len(parts) == 1:
        return "", parts[0], ""
    if len(parts) > 3 or not all(parts):
        raise InvalidParameter(f"invalid volume specification: '{text}'")
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def _destination(path: str, specification: str = "") -> str:
    cleaned = posixpath.normpath(path)
    if not path.startswith("/"):
        raise InvalidParameter(
            f"invalid volume specification: '{specification or path}': invalid mount config for type "
            f"\"volume\": invalid mount path: '{path}' mount path must be absolute"
        )
    if cleaned in ("/", "//"):
        raise InvalidParameter(
            f"invalid volume specification: '{specification or path}': invalid specification: "
            "destination can't be '/'"
        )
    return cleaned


def _from_mount(mount: Json, volumes: VolumeStore) -> Json:
    """One entry of HostConfig.Mounts (`--mount`)."""
    if not isinstance(mount, dict):
        raise InvalidParameter("invalid JSON: HostConfig.Mounts must hold objects")
    kind, source = mount.get("Type", ""), mount.get("Source") or ""
    invalid = f'invalid mount config for type "{kind}": '
    if not mount.get("Target"):
        raise InvalidParameter(invalid + "field Target must not be empty")
    destination = _destination(mount["Target"])
    modes = ["ro"] if mount.get("ReadOnly") else []
    if kind == "bind":
        if not source:
            raise InvalidParameter(invalid + "field Source must not be empty")
        if not source.startswith("/"):
            raise InvalidParameter(invalid + f"invalid mount path: '{source}' mount path must be absolute")
        options = mount.get("BindOptions") or {}
        if not Path(source).exists():
            if not options.get("CreateMountpoint"):
                raise InvalidParameter(invalid + f"bind source path does not exist: {source}")
            Path(source).mkdir(parents=True)
        propagation = options.get("Propagation") or "rprivate"
        if propagation not in _PROPAGATIONS:
            raise InvalidParameter(f"invalid propagation mode: {propagation}")
        return _bind(source, destination, [*modes, propagation])
    if kind == "volume":
        options = mount.get("VolumeOptions") or {}
        if options.get("NoCopy"):
            modes.append("nocopy")
        driver = options.get("DriverConfig") or {}
        labels = options.get("Labels")
        return _volume(volumes, source, destination, modes, labels, driver.get("Name") or "local")
    if kind == "tmpfs":
        options = mount.get("TmpfsOptions") or {}
        words = [f"size={options['SizeBytes']}"] if options.get("SizeBytes") else []
        words += [f"mode={options['Mode']:o}"] if options.get("Mode") else []
        return _tmpfs(destination, ",".join(words))
    raise InvalidParameter(f'mount type unknown: "{kind}"')


def _bind(source: str, destination: str, modes: list[str]) -> Json:
    propagation = next((mode for mode in modes if mode in _PROPAGATIONS), "rprivate")
    return {
        "Type": "bind",
        "Source": source,
        "Destination": destination,
        "Mode": ",".join(mode for mode in modes if mode not in _PROPAGATIONS),
        "RW": "ro" not in modes,
        "Propagation": propagation,
    }


def _volume(
    volumes: VolumeStore,
    name: str,
    destination: str,
    modes: list[str],
    labels: dict[str, str] | None = None,
    driver: str = "local",
) -> Json:
    volume = volumes.create(name, driver=driver, labels=labels)
    return {
        "Type": "volume",
        "Name": volume.name,
        "Source": str(volume.path),
        "Destination": destination,
        "Driver": "local",
        "Mode": ",".join(modes) or "z",
        "RW": "ro" not in modes,
        "Propagation": "",
    }


def _tmpfs(destination: str, options: str) -> Json:
    return {
        "Type": "tmpfs",
        "Source": "",
        "Destination": destination,
        "Mode": options,
        "RW": "ro" not in options.split(","),
        "Propagation": "",
    }
