"""Run a command and fail if it leaves kernel objects or processes of ours behind.

`python -m tools.leftovers COMMAND…`: looks before and after; what is there only afterwards and carries one of
our names (a path, an interface, a table, a control group, a command line) is listed. The exit code is the
command's, or 1 when it left something.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_OURS = re.compile(r"dockmagic|pytest-of-|\bdm[0-9a-f]{6}|\bveth")
_PATIENCE = 5.0  # seconds: the kernel takes down the links of a dead network namespace in its own time


def mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" - ", 1)
        yield f"{fields[0].split()[4]} ({fields[1]})"


def links() -> Iterator[str]:
    for number, name in socket.if_nameindex():  # one answer: links come and go
        yield f"{name} (index {number})"


def tables() -> Iterator[str]:
    listed = subprocess.run(["nft", "--json", "list", "tables"], capture_output=True, text=True, check=True)
    for entry in json.loads(listed.stdout)["nftables"]:
        if table := entry.get("table"):
            yield f"{table['family']} {table['name']}"


def control_groups() -> Iterator[str]:
    for folder, _, _ in os.walk("/sys/fs/cgroup"):  # passes over groups that end meanwhile
        yield folder


def runtime_directories() -> Iterator[str]:
    yield from (str(folder) for folder in Path("/run").glob("dockmagic*"))


def processes() -> Iterator[str]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            groups = (folder / "cgroup").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended meanwhile
        ours = next((group for group in groups if "/dockmagic" in group), "")
        yield f"{folder.name}: {command or '(no command line)'} {ours}".rstrip()


KINDS: dict[str, Callable[[], Iterator[str]]] = {
    "mount": mounts,
    "network interface": links,
    "nftables table": tables,
    "control group": control_groups,
    "runtime directory": runtime_directories,
    "process": processes,
}


def seen() -> set[tuple[str, str]]:
    """Everything of every kind that there is now and that could be ours by its name."""
    return {(kind, name) for kind, listing in KINDS.items() for name in listing() if _OURS.search(name)}


def main() -> int:
    before = seen()
    # The command itself must be no part of what is looked at, so it is over before we look again.
    code = subprocess.run(sys.argv[1:], check=False).returncode
    deadline = time.monotonic() + _PATIENCE
    while (left := seen() - before) and time.monotonic() < deadline:
        time.sleep(0.1)
    for kind, name in sorted(left):
        print(f"left behind: {kind} {name}", file=sys.stderr)
    if not left:
        print("nothing left behind: " + ", ".join(f"no {kind}" for kind in KINDS))
    return code or int(bool(left))


if __name__ == "__main__":
    sys.exit(main())
