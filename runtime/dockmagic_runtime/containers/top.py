"""`docker top`: the processes of a container as `ps` on the host sees them.

Docker runs the host's ps(1) and keeps the lines whose PID is in the container; so do we, and where there is
no `ps` the default columns are read from proc(5).
"""

import asyncio
import os
import pwd
import shutil
import time
from pathlib import Path

from dockmagic_runtime.errors import InvalidParameter

TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]


async def processes(pids: list[int], arguments: str) -> tuple[list[str], list[list[str]]]:
    """Titles and rows; `arguments` are for ps (`-ef` unless given)."""
    words = arguments.split() or ["-ef"]
    if any(word.lstrip("-").startswith(("o", "O")) and "pid" not in arguments for word in words[:1]):
        raise InvalidParameter("Couldn't find PID field in ps output")
    if words == ["-ef"] or shutil.which("ps") is None:
        return TITLES, [row for pid in sorted(pids) if (row := _row(pid))]
    return await _ask_ps(set(pids), words)


async def _ask_ps(pids: set[int], words: list[str]) -> tuple[list[str], list[list[str]]]:
    child = await asyncio.create_subprocess_exec(
        "ps",
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await child.communicate()
    if child.returncode:
        raise InvalidParameter(
            f"ps: exit status {child.returncode}: {errors.decode(errors='replace').strip()}"
        )
    lines = output.decode(errors="replace").splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise InvalidParameter("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return titles, [row for row in rows if int(row[column]) in pids]


def _row(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
        owner = Path(f"/proc/{pid}").stat().st_uid
        command = (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        )
    except (FileNotFoundError, ProcessLookupError):
        return None  # it ended while we looked
    name, _, rest = text.partition("(")[2].rpartition(")")
    fields = rest.split()
    ticks = os.sysconf("SC_CLK_TCK")
    spent = (int(fields[11]) + int(fields[12])) // ticks
    booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    began = booted + int(fields[19]) / ticks
    share = int(100 * spent / max(time.time() - began, 1))
    return [
        _user(owner),
        str(pid),
        fields[1],
        str(share),
        time.strftime("%H:%M", time.localtime(began)),
        _terminal(int(fields[4])),
        f"{spent // 3600:02}:{spent // 60 % 60:02}:{spent % 60:02}",
        command or f"[{name}]",
    ]


def _terminal(device: int) -> str:
    return (
        "?"
        if not device
        else f"pts/{os.minor(device)}"
        if os.major(device) == 136
        else f"tty{os.minor(device)}"
    )


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
