"""What is mounted into a container from outside its layers: `-v`, `--mount`, `--tmpfs`, `--volumes-from`,
image VOLUMEs.

Each becomes one of Docker's mount points (the JSON under `Mounts` in inspect), settled when the container is
created, and one OCI mount each time it starts. `Options`, which inspect does not show, holds what Docker's
mount point has no place for:

    NoCopy              an empty volume is not filled from the image
    Subpath             the directory of the volume that is mounted
    NonRecursive        a bind without the mounts below its source
    ReadOnlyRecursive   false: `ro` holds for the source alone
    CreateSource        a bind's missing source is made, as `-v` has always done
    Tmpfs               the options of a tmpfs

The sources are paths of the host, which belong to whoever may speak to the engine; the destinations are only
text here and resolved inside the root by `process/init.py`. What may be asked for is in `mountspec`.
"""

import posixpath
from pathlib import Path
from typing import Any

from dockmagic_runtime.containers import mountspec
from dockmagic_runtime.containers.mountspec import MountSpec
from dockmagic_runtime.containers.record import Container, Records
from dockmagic_runtime.containers.tmpfs import mount_options
from dockmagic_runtime.errors import InvalidParameter, NotFound
from dockmagic_runtime.volumes.store import Volume, VolumeStore

Json = dict[str, Any]


def settle(config: Json, host: Json, volumes: VolumeStore, records: Records) -> list[Json]:
    """All mount points of a new container; makes the volumes that do not exist yet.

    A destination named twice is an error; what comes from other containers gives way to the user's own
    choice, and an image's VOLUME to both.
    """
    tmpfs = {mountspec.tmpfs_destination(path): text for path, text in (host["Tmpfs"] or {}).items()}
    asked = [mountspec.of_bind(bind, host["VolumeDriver"]) for bind in host["Binds"] or []]
    asked += [mountspec.of_mount(mount) for mount in host["Mounts"] or []]
    taken = set(tmpfs)
    for each in asked:  # all of them, before anything is made
        if each.target in taken:
            raise InvalidParameter(f"Duplicate mount point: {each.target}")
        taken.add(each.target)
    others = _others(host["VolumesFrom"] or [], records)
    points = [_point(each, volumes) for each in asked]
    points += [_tmpfs(path, text) for path, text in tmpfs.items()]
    for target, (other, read_only) in others.items():
        if target not in taken:
            taken.add(target)
            points.append(_lent(other, read_only))
    for path in config.get("Volumes") or {}:
        target = posixpath.normpath(path)
        if target not in taken:
            taken.add(target)
            points.append(_volume(MountSpec(target, "volume", driver=host["VolumeDriver"]), volumes))
    return points


def _others(asked: list[str], records: Records) -> dict[str, tuple[Json, bool]]:
    """Destination -> mount point and whether it is only to be read; the last container has the last word."""
    found = {}
    for text in asked:
        name, read_only = mountspec.of_volumes_from(text)
        for point in _lender(name, records).mounts:
            if point["Type"] != "tmpfs":  # it holds nothing that could be shared
                found[point["Destination"]] = point, read_only
    return found


def _lender(name: str, records: Records) -> Container:
    try:
        return records.get(name)
    except NotFound as error:
        # No 404: the docker command would take it for a missing image, and pull.
        raise InvalidParameter(str(error)) from None


def _lent(point: Json, read_only: bool) -> Json:
    """Another container's mount point as a new one's. Its volume has been filled, or shall not be."""
    lent = {**point, "Mode": "", "RW": point["RW"] and not read_only}
    if point["Type"] == "volume":
        lent["Options"] = {**point.get("Options", {}), "NoCopy": True}
    return lent


def shown(points: list[Json]) -> list[Json]:
    """As clients see them."""
    return [{name: value for name, value in point.items() if name != "Options"} for point in points]


def option(point: Json, name: str) -> Any:
    return (point.get("Options") or {}).get(name)


def oci_mounts(points: list[Json]) -> list[Json]:
    """The mount points as OCI mounts, parents before what lies in them. Makes missing sources of `-v`."""
    return [_oci(point) for point in sorted(points, key=lambda point: point["Destination"].count("/"))]


def _oci(point: Json) -> Json:
    destination = posixpath.join("/", point["Destination"])
    if point["Type"] == "tmpfs":
        options = mount_options(option(point, "Tmpfs") or "")
        return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": options}
    if option(point, "CreateSource"):
        Path(point["Source"]).mkdir(parents=True, exist_ok=True)
    # No "rw": a source that is mounted read-only on the host stays so.
    options = ["bind" if option(point, "NonRecursive") else "rbind", *([] if point["RW"] else ["ro"])]
    if not point["RW"] and option(point, "ReadOnlyRecursive") is not False:
        options.append("rro")
    options.append(point["Propagation"] or "rprivate")
    return {"destination": destination, "type": "bind", "source": point["Source"], "options": options}


def _point(asked: MountSpec, volumes: VolumeStore) -> Json:
    if asked.kind == "volume":
        return _volume(asked, volumes)
    if asked.kind == "tmpfs":
        return _tmpfs(asked.target, asked.tmpfs)
    source = Path(asked.source)
    create = asked.create_source and not (source.exists() or source.is_symlink())
    if create:
        source.mkdir(parents=True)
    options: Json = {"CreateSource": True} if asked.create_source and source.is_dir() else {}
    options |= {"NonRecursive": True} if asked.non_recursive else {}
    options |= {"ReadOnlyRecursive": False} if asked.read_only_here else {}
    return {
        "Type": "bind",
        "Source": asked.source,
        "Destination": asked.target,
        "Mode": asked.mode,
        "RW": not asked.read_only,
        "Propagation": asked.propagation or "rprivate",
        **({"Options": options} if options else {}),
    }


def _volume(asked: MountSpec, volumes: VolumeStore) -> Json:
    volume = volumes.create(
        asked.source, driver=asked.driver or "local", labels=asked.labels, options=asked.driver_options
    )
    options: Json = {"NoCopy": True} if asked.no_copy else {}
    options |= {"Subpath": asked.subpath} if asked.subpath else {}
    return _volume_point(asked, volume) | ({"Options": options} if options else {})


def _volume_point(asked: MountSpec, volume: Volume) -> Json:
    return {
        "Type": "volume",
        "Name": volume.name,
        "Source": str(volume.path),
        "Destination": asked.target,
        "Driver": "local",
        "Mode": asked.mode,
        "RW": not asked.read_only,
        "Propagation": "",
    }


def _tmpfs(target: str, text: str) -> Json:
    return {
        "Type": "tmpfs",
        "Source": "",
        "Destination": target,
        "Mode": "",
        "RW": "ro" not in text.split(","),
        "Propagation": "",
        "Options": {"Tmpfs": text},
    }
