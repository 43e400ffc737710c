"""resolv.conf(5): what this host has, and what a container gets."""

from pathlib import Path

_FILES = (Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf"))
_PUBLIC = ("8.8.8.8", "8.8.4.4")  # Docker's last resort


class HostResolver:
    """What the host's resolv.conf says that a container can use: no server on a loopback address."""

    def __init__(self) -> None:
        self.servers: list[str] = []
        self.search: list[str] = []
        self.options: list[str] = []
        for path in _FILES:
            if self.servers or not path.exists():
                continue
            for line in path.read_text().splitlines():
                keyword, *values = line.split("#")[0].split() or [""]
                if (
                    keyword == "nameserver"
                    and values
                    and not values[0].startswith("127.")
                    and values[0] != "::1"
                ):
                    self.servers.append(values[0])
                elif keyword in ("search", "domain"):
                    self.search = values
                elif keyword == "options":
                    self.options = values
        self.servers = self.servers or list(_PUBLIC)


def render(servers: list[str], search: list[str], options: list[str]) -> str:
    """The text of a resolv.conf(5)."""
    lines = [f"nameserver {server}" for server in servers]
    # Docker's way to say "no search at all" is one dot.
    if search and search != ["."]:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"
