"""The three files of /etc that belong to the container and not to its image: hostname, hosts, resolv.conf.

Written beside the container's layers and bind-mounted over whatever the image has, as Docker does.
"""

from collections.abc import Iterable
from pathlib import Path

_LOOPBACK = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""

FILES = {"hostname": "/etc/hostname", "hosts": "/etc/hosts", "resolv.conf": "/etc/resolv.conf"}


def write(
    directory: Path,
    hostname: str,
    hosts: Iterable[tuple[str, Iterable[str]]],
    extra_hosts: Iterable[str],
    resolv_conf: str,
    gateway: str,
    *,
    as_host: bool = False,
) -> list[dict[str, object]]:
    """Write the files into `directory`; returns the OCI mounts that put them in place.

    `extra_hosts` are `name:address` (`--add-host`), where `host-gateway` stands for `gateway`. `as_host`
    takes the host's own file of hosts, unless something is to be added.
    """
    extras = list(extra_hosts)
    lines = [_hosts_of_host() if as_host and not extras else _LOOPBACK]
    for extra in extras:
        name, _, address = extra.partition(":" if ":" in extra else "=")
        lines.append(f"{gateway if address == 'host-gateway' else address}\t{name}\n")
    lines += [f"{address}\t{' '.join(names)}\n" for address, names in hosts]
    contents = {"hostname": hostname + "\n", "hosts": "".join(lines), "resolv.conf": resolv_conf}
    for name, text in contents.items():
        # In place, not by rename: a running container holds these very inodes.
        (directory / name).write_text(text)
    return mounts(directory)


def mounts(directory: Path) -> list[dict[str, object]]:
    """The OCI mounts of those files that are in `directory`."""
    return [
        {
            "destination": target,
            "type": "bind",
            "source": str(directory / name),
            "options": ["rbind", "rprivate"],
        }
        for name, target in FILES.items()
        if (directory / name).exists()
    ]


def _hosts_of_host() -> str:
    try:
        return Path("/etc/hosts").read_text(errors="replace")
    except FileNotFoundError:
        return _LOOPBACK
