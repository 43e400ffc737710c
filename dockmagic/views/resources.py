"""What a container uses over time: CPU, memory, processes, network and block I/O.

The numbers are the control group's and the network interfaces' counters, as the engine's stats stream reads
them from the kernel once a second. CPU per cent is Docker's: 100 % is one CPU fully used.
"""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dockmagic.views import units
from dockmagic.views.parts import Column, Drawing, Note, Part, Table
from dockmagic.views.view import LiveView, View, watched

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container

    from dockmagic.views.panel import Panel


# What a panel keeps while it goes on reading: five minutes.
SAMPLES_KEPT = 300


@dataclass(frozen=True)
class Sample:
    """One reading. `at` is seconds since the first one; sizes are bytes; network and block I/O count from the
    start.
    """

    at: float
    cpu: float
    memory: int
    memory_limit: int
    pids: int
    received: int
    sent: int
    read: int
    written: int


class Resources(LiveView):
    """What a running container uses, read for `seconds`; drawn as it comes where somebody watches."""

    def __init__(self, client: docker.DockerClient, container: Container | str, seconds: float = 5) -> None:
        super().__init__()
        self.container = client.containers.get(container) if isinstance(container, str) else container
        self.container.reload()
        self.samples: list[Sample] = []
        self._begin: datetime | None = None
        if watched():
            self.show()
        self.watch(seconds)
        self.close()

    @property
    def parts(self) -> list[Part]:
        with self._lock:
            samples = list(self.samples)
        return parts(self.container.name or "", samples, self.container.attrs["HostConfig"])

    def watch(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Read until the time is over, the container ends or `until()`. An interrupt keeps what was read."""
        if not self.container.attrs["State"]["Running"]:
            return
        start = None
        before: dict[str, Any] | None = None
        stream: Any = self.container.stats(stream=True, decode=True)
        try:
            for stats in stream:
                moment = units.moment(stats["read"])
                if moment is None:  # the container ended: Docker then sends zeros
                    break
                start = start or moment
                self._begin = self._begin or moment
                at = (moment - self._begin).total_seconds()
                taken = sample(stats, before, at)
                before = stats
                if taken is not None:
                    with self._lock:
                        self.samples.append(taken)
                    self.refresh()
                if (
                    moment - start
                ).total_seconds() + 0.5 >= seconds or until():  # a reading comes about once a second
                    break
        finally:
            stream.close()

    def panel(self) -> Panel:
        """The picture as a widget that goes on reading, with buttons to pause and to continue."""
        from dockmagic.views.panel import Action, Panel

        paused = threading.Event()

        def read_on() -> None:
            began = self.container.attrs["State"]["StartedAt"]
            self.container.reload()
            if self.container.attrs["State"]["StartedAt"] != began:  # its counters begin at 0 again
                with self._lock:
                    self.samples.clear()
                    self._begin = None
            try:
                self.watch(float("inf"), until)
            finally:
                paused.set()
                panel.refresh()

        def until() -> bool:
            with self._lock:
                del self.samples[:-SAMPLES_KEPT]
            panel.refresh()
            return paused.is_set() or panel.ended.is_set()

        def pause() -> None:
            paused.set()
            panel.join()  # the next reading is its last: at most a second from now

        def go_on() -> None:
            paused.clear()
            panel.start(read_on)

        name = self.container.name
        panel = Panel(
            lambda: View(*self.parts),
            [
                Action("Pause", f"Stop reading what {name} uses", pause, lambda: not paused.is_set()),
                Action("Continue", f"Go on reading what {name} uses", go_on, paused.is_set),
            ],
        )
        panel.start(read_on)
        return panel


def sample(stats: Mapping[str, Any], before: Mapping[str, Any] | None, at: float) -> Sample | None:
    """One object of the stats stream as a sample; None when it has no earlier reading to compare the CPU
    with.
    """
    earlier = stats.get("precpu_stats") or {}
    if not earlier.get("system_cpu_usage"):
        if before is None:
            return None
        earlier = before["cpu_stats"]
    memory = stats.get("memory_stats") or {}
    networks = (stats.get("networks") or {}).values()
    blocks = (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    return Sample(
        at=at,
        cpu=cpu_percent(stats["cpu_stats"], earlier),
        memory=memory_used(memory),
        memory_limit=memory.get("limit") or 0,
        pids=(stats.get("pids_stats") or {}).get("current") or 0,
        received=sum(net["rx_bytes"] for net in networks),
        sent=sum(net["tx_bytes"] for net in networks),
        read=sum(block["value"] for block in blocks if block["op"].lower() == "read"),
        written=sum(block["value"] for block in blocks if block["op"].lower() == "write"),
    )


def cpu_percent(now: Mapping[str, Any], before: Mapping[str, Any]) -> float:
    """Docker's CPU %: the container's share of the machine's time, times the number of CPUs."""
    used = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    cpus = now.get("online_cpus") or len(now["cpu_usage"].get("percpu_usage") or []) or 1
    return 100 * cpus * used / passed if passed > 0 and used > 0 else 0.0


def memory_used(memory: Mapping[str, Any]) -> int:
    """Docker's memory use: without the page cache that the kernel can take back at any time."""
    detail = memory.get("stats") or {}
    reclaimable = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    usage = memory.get("usage") or 0
    return usage - reclaimable if reclaimable < usage else usage


def parts(name: str, samples: Sequence[Sample], settings: Mapping[str, Any]) -> list[Part]:
    """The picture of these samples; `settings` is the container's HostConfig, for its limits."""
    if not samples:
        return [Note(f"{name} is not running: it uses nothing now.")]
    span = samples[-1].at - samples[0].at
    columns = [
        Column("Resource"),
        Column("Now", numeric=True),
        Column("Mean", numeric=True),
        Column("Peak", numeric=True),
        Column("Limit", numeric=True),
    ]
    cpu, memory, pids = ([getattr(one, field) for one in samples] for field in ("cpu", "memory", "pids"))
    rows = [
        ["CPU", _percent(cpu[-1]), _percent(_mean(cpu)), _percent(max(cpu)), _cpu_limit(settings)],
        [
            "Memory",
            *map(units.memory, (memory[-1], _mean(memory), max(memory))),
            _memory_limit(samples, settings),
        ],
        ["Processes", str(pids[-1]), f"{_mean(pids):.3g}", str(max(pids)), _pids_limit(settings)],
    ]
    for label, field in COUNTERS.items():
        rows.append([label, units.size(getattr(samples[-1], field)), *_rates(samples, field), ""])
    caption = f"Resources of {name}, {len(samples)} readings in {span:.0f} s"
    picture: list[Part] = [Table(caption, columns, rows)]
    if len(samples) > 1:
        drawing = Drawing(draw(samples), f"CPU, memory, network and block I/O of {name} over {span:.0f} s.")
        picture.insert(0, drawing)
    return picture


COUNTERS = {
    "Network received": "received",
    "Network sent": "sent",
    "Block read": "read",
    "Block written": "written",
}

# Colours that stand apart for every kind of colour vision, on light and on dark; lines also differ by dashes.
BLUE, ORANGE = "#3987c9", "#d07c22"
# Stands for the page's text colour, which only the page knows: replaced by `currentColor` in the SVG.
INK = "#010203"


def draw(samples: Sequence[Sample]) -> str:
    """Four small plots side by side, as an SVG that takes its ink from the page."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        # Letters as outlines: where a page strips the drawing, no loose labels stay behind.
        "svg.fonttype": "path",
        "font.family": "sans-serif",
        "font.size": 8.5,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.linewidth": 0.5,
        "xtick.major.width": 0.5,
        "ytick.major.width": 0.5,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9.2, 1.9), layout="constrained")
        cpu, memory, network, blocks = figure.subplots(1, 4, sharex=True)
        times = [one.at for one in samples]
        cpu.plot(times, [one.cpu for one in samples], color=BLUE)
        memory.plot(times, [one.memory / 2**20 for one in samples], color=BLUE)
        for axes, (first, first_name), (second, second_name) in (
            (network, ("received", "received"), ("sent", "sent")),
            (blocks, ("read", "read"), ("written", "written")),
        ):
            axes.plot(times[1:], _per_second(samples, first), color=BLUE, label=first_name)
            axes.plot(times[1:], _per_second(samples, second), color=ORANGE, dashes=(4, 2), label=second_name)
            axes.legend(frameon=False, fontsize=7.5, loc="upper left", borderpad=0, handlelength=1.6)
        titles = ("CPU, %", "Memory, MiB", "Network, kB/s", "Block I/O, kB/s")
        for axes, title in zip((cpu, memory, network, blocks), titles, strict=True):
            axes.set_title(title, loc="left", fontsize=9)
            axes.set_ylim(bottom=0, top=max(axes.get_ylim()[1] * 1.15, 1))
            axes.set_xlabel("seconds")
            axes.locator_params(nbins=4)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    svg = re.sub(r"<metadata>.*?</metadata>", "", target.getvalue(), flags=re.DOTALL)
    return svg[svg.index("<svg") :].strip().replace(INK, "currentColor")


def _per_second(samples: Sequence[Sample], field: str) -> list[float]:
    """Kilobytes a second between neighbouring samples."""
    pairs = pairwise(samples)
    return [
        (getattr(b, field) - getattr(a, field)) / (b.at - a.at) / 1000 if b.at > a.at else 0.0
        for a, b in pairs
    ]


def _rates(samples: Sequence[Sample], field: str) -> tuple[str, str]:
    """Mean and peak of a counter's growth, bytes a second; empty when there is only one reading."""
    rates = _per_second(samples, field)
    if not rates:
        return "", ""
    return f"{units.size(_mean(rates) * 1000)}/s", f"{units.size(max(rates) * 1000)}/s"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(value: float) -> str:
    return f"{value:.1f}%"


def _cpu_limit(settings: Mapping[str, Any]) -> str:
    cpus = (settings.get("NanoCpus") or 0) / 1e9
    if not cpus and (settings.get("CpuQuota") or 0) > 0:
        cpus = settings["CpuQuota"] / (settings.get("CpuPeriod") or 100_000)
    return f"{100 * cpus:g}%" if cpus else "none"


def _memory_limit(samples: Sequence[Sample], settings: Mapping[str, Any]) -> str:
    return units.memory(samples[-1].memory_limit) if settings.get("Memory") else "none"


def _pids_limit(settings: Mapping[str, Any]) -> str:
    limit = settings.get("PidsLimit") or 0
    return str(limit) if limit > 0 else "none"
