"""One row of each list: the fields that `--format` of `ps`, `images`, `network ls`… knows, in Docker's words.

The references are docker/cli's `formatter` packages: a heading of a table stands for one of these fields.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Row = dict[str, Any]

NOT_KNOWN = "N/A"


def labelled(labels: Mapping[str, str] | None) -> Row:
    """The field `{{.Labels}}` and the method `{{.Label "key"}}`."""
    labels = labels or {}
    return {
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "Label": lambda key: labels.get(key, ""),
    }


def of_container(summary: Row, *, no_trunc: bool) -> Row:
    """One container of `ps`."""
    from dockmagic.views.units import ago, short, size, stamp

    names = [name.removeprefix("/") for name in summary.get("Names") or ()]
    command = summary.get("Command") or ""
    image = summary.get("Image") or ""
    if not no_trunc:
        names = [name for name in names if "/" not in name] or names
        command = command if len(command) <= 20 else command[:19] + "…"
        image = short(image) if image.startswith("sha256:") else image
    mounts = [mount.get("Name") or mount.get("Source", "") for mount in summary.get("Mounts") or ()]
    writable, whole = size(summary.get("SizeRw") or 0), summary.get("SizeRootFs") or 0
    return {
        "ID": summary["Id"] if no_trunc else summary["Id"][:12],
        "Image": image,
        "Command": f'"{command}"',
        "CreatedAt": stamp(summary["Created"]),
        "RunningFor": ago(summary["Created"]),
        "Status": summary.get("Status", ""),
        "State": summary.get("State", ""),
        "Ports": published(summary.get("Ports") or ()),
        "Names": ",".join(names),
        "Size": f"{writable} (virtual {size(whole)})" if whole else writable,
        **labelled(summary.get("Labels")),
        "Mounts": ",".join(mounts if no_trunc else [m if len(m) <= 15 else m[:14] + "…" for m in mounts]),
        "Networks": ",".join((summary.get("NetworkSettings") or {}).get("Networks") or {}),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in summary.get("Mounts") or ())),
        "Platform": (summary.get("ImageManifestDescriptor") or {}).get("platform"),
    }


def published(ports: Iterable[Mapping[str, Any]]) -> str:
    """`0.0.0.0:8080->80/tcp, 443/tcp`; neighbours that have the same number on both sides are one range."""
    groups: dict[tuple[str, str], list[list[int]]] = {}
    mapped = []
    for port in sorted(ports, key=lambda port: (port["PrivatePort"], port.get("IP") or "", port["Type"])):
        inside, outside, host = port["PrivatePort"], port.get("PublicPort"), port.get("IP") or ""
        if host and outside != inside:
            mapped.append(f"{_host(host)}:{outside}->{inside}/{port['Type']}")
            continue
        ranges = groups.setdefault((host, port["Type"]), [])
        if ranges and inside == ranges[-1][1] + 1:
            ranges[-1][1] = inside
        else:
            ranges.append([inside, inside])
    closed, last = [], []
    for (host, protocol), ranges in groups.items():
        words = [_range(host, first, end, protocol) for first, end in ranges]
        closed += words[:-1]
        last += words[-1:]
    return ", ".join([*closed, *last, *mapped])


def _range(host: str, first: int, last: int, protocol: str) -> str:
    ports = str(first) if first == last else f"{first}-{last}"
    return f"{_host(host)}:{ports}->{ports}/{protocol}" if host else f"{ports}/{protocol}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def of_image(summary: Row, *, no_trunc: bool, digests: bool = True) -> list[Row]:
    """One row for each tag of an image, which tells its digest only if `digests`."""
    from dockmagic.views.units import ago, short, size, stamp

    pairs = [name.partition("@")[::2] for name in summary.get("RepoDigests") or ()]
    known = {repository: digest if digests else "<none>" for repository, digest in pairs}
    tags = [tag for tag in summary.get("RepoTags") or () if tag != "<none>:<none>"]
    names = [tag.rpartition(":")[::2] for tag in tags]
    names += [(name, "<none>") for name in known if name != "<none>" and name not in {n for n, _ in names}]
    shared, containers = _counted(summary.get("SharedSize")), _counted(summary.get("Containers"))
    return [
        {
            "ID": summary["Id"] if no_trunc else short(summary["Id"]),
            "Repository": repository,
            "Tag": tag,
            "Digest": known.get(repository, "<none>"),
            "CreatedSince": ago(summary["Created"]),
            "CreatedAt": stamp(summary["Created"]),
            "Size": size(summary["Size"]),
            "VirtualSize": size(summary["Size"], digits=4),
            "SharedSize": NOT_KNOWN if shared is None else size(shared, digits=4),
            "UniqueSize": NOT_KNOWN if shared is None else size(summary["Size"] - shared, digits=4),
            "Containers": NOT_KNOWN if containers is None else str(containers),
        }
        for repository, tag in names or [("<none>", "<none>")]
    ]


def of_history(entry: Row, *, human: bool, no_trunc: bool) -> Row:
    """One step of an image's history."""
    from dockmagic.views.units import ago, moment, short, shorten, size

    then = moment(entry["Created"])
    created = then.isoformat(timespec="seconds").replace("+00:00", "Z") if then else ""
    return {
        "ID": entry["Id"] if no_trunc or entry["Id"] == "<missing>" else short(entry["Id"]),
        "CreatedSince": ago(entry["Created"]) if human else created,
        "CreatedAt": created,
        "CreatedBy": entry["CreatedBy"] if no_trunc else shorten(entry["CreatedBy"], 45),
        "Size": size(entry["Size"]) if human else str(entry["Size"]),
        "Comment": entry["Comment"],
    }


def of_network(entry: Row, *, no_trunc: bool) -> Row:
    from dockmagic.views.units import stamp

    return {
        "ID": entry["Id"] if no_trunc else entry["Id"][:12],
        "Name": entry["Name"],
        "Driver": entry["Driver"],
        "Scope": entry["Scope"],
        "Internal": _truth(entry.get("Internal")),
        "IPv4": _truth(entry.get("EnableIPv4")),
        "IPv6": _truth(entry.get("EnableIPv6")),
        "CreatedAt": stamp(entry.get("Created")),
        **labelled(entry.get("Labels")),
    }


def of_volume(entry: Row) -> Row:
    from dockmagic.views.units import size

    usage = entry.get("UsageData") or {}
    links, taken = _counted(usage.get("RefCount")), _counted(usage.get("Size"))
    return {
        "Driver": entry["Driver"],
        "Name": entry["Name"],
        "Mountpoint": entry["Mountpoint"],
        "Scope": entry.get("Scope", "local"),
        **labelled(entry.get("Labels")),
        "Links": NOT_KNOWN if links is None else str(links),
        "Size": NOT_KNOWN if taken is None else size(taken, digits=4),
        **dict.fromkeys(("Availability", "Group", "Status"), NOT_KNOWN),
    }


def of_build_cache(entry: Row) -> Row:
    from dockmagic.views.units import ago, short, size

    return {
        "ID": short(entry["ID"]),
        "Parent": short(entry.get("Parent") or ""),
        "CacheType": entry.get("Type", ""),
        "Description": entry.get("Description", ""),
        "Size": size(entry.get("Size") or 0),
        "CreatedSince": ago(entry.get("CreatedAt")),
        "LastUsedSince": ago(entry.get("LastUsedAt")),
        "UsageCount": str(entry.get("UsageCount") or 0),
        "InUse": _truth(entry.get("InUse")),
        "Shared": _truth(entry.get("Shared")),
    }


def natural(name: str) -> list[tuple[int, int]]:
    """The order in which Docker lists names: a number counts as a whole, `net2` comes before `net10`."""
    return [
        (ord("0"), int(part)) if part.isdecimal() else (ord(part), 0) for part in re.findall(r"\d+|\D", name)
    ]


def _truth(value: Any) -> str:
    return "true" if value else "false"


def _counted(value: int | None) -> int | None:
    """A number the engine has counted: it says -1, or nothing, for one that it has not."""
    return value if value is not None and value >= 0 else None
