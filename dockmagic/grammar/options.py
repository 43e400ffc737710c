"""The flags of `run` and `create`: one line each, with its kind of value and its place in the API's document.

creation.py makes the document of them. A flag without a place of its own there is read by its name.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from dockmagic.grammar import specifications as spec
from dockmagic.grammar.endpoints import NETWORK
from dockmagic.grammar.kinds import CPUS, DURATION, INTEGER, SIZE, SIZE_OR_UNLIMITED, UNSIGNED
from dockmagic.grammar.mounts import MOUNT
from dockmagic.grammar.syntax import option, refused_switch, switch

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Flag:
    """One flag: its spellings, its help, the kind of its value (bool: a switch), its `key` in the document.

    `many`: it may be given several times, and the document has a list, or a map of pairs.
    """

    words: str
    help: str
    kind: Any = str
    key: str = ""
    many: Literal["", "list", "map"] = ""

    @property
    def name(self) -> str:
        """The keyword under which a command gets its value."""
        return self.words.split()[0].removeprefix("--").replace("-", "_")

    def declare(self, command: F) -> F:
        if self.kind is bool:
            return switch(self.name, *self.words.split(), help=self.help)(command)
        many = bool(self.many)
        return option(self.name, *self.words.split(), type=self.kind, multiple=many, help=self.help)(command)


# Fields of HostConfig that `update` can change too.
RESOURCES = [
    Flag("--memory -m", "Memory limit", SIZE, "Memory"),
    Flag("--memory-swap", "Memory plus swap; -1: no limit", SIZE_OR_UNLIMITED, "MemorySwap"),
    Flag("--memory-reservation", "Memory soft limit", SIZE, "MemoryReservation"),
    Flag("--cpus", "Number of CPUs", CPUS, "NanoCpus"),
    Flag("--cpu-shares -c", "CPU shares (relative weight)", INTEGER, "CpuShares"),
    Flag("--cpu-period", "CPU CFS period in microseconds", INTEGER, "CpuPeriod"),
    Flag("--cpu-quota", "CPU CFS quota in microseconds", INTEGER, "CpuQuota"),
    Flag("--cpu-rt-period", "CPU real-time period in microseconds", INTEGER, "CpuRealtimePeriod"),
    Flag("--cpu-rt-runtime", "CPU real-time runtime in microseconds", INTEGER, "CpuRealtimeRuntime"),
    Flag("--cpuset-cpus", "CPUs in which to allow execution (0-3, 0,1)", key="CpusetCpus"),
    Flag("--cpuset-mems", "Memory nodes in which to allow execution (0-3, 0,1)", key="CpusetMems"),
    Flag("--pids-limit", "Tune container pids limit; -1: no limit", INTEGER, "PidsLimit"),
    Flag("--blkio-weight", "Block I/O weight, between 10 and 1000", UNSIGNED, "BlkioWeight"),
]
# The other fields of HostConfig.
HOST = [
    *RESOURCES,
    Flag("--memory-swappiness", "Memory swappiness (0 to 100)", INTEGER, "MemorySwappiness"),
    Flag("--kernel-memory", "Kernel memory limit", SIZE, "KernelMemory"),
    Flag("--shm-size", "Size of /dev/shm", SIZE, "ShmSize"),
    Flag("--oom-score-adj", "OOM preferences (-1000 to 1000)", INTEGER, "OomScoreAdj"),
    Flag("--oom-kill-disable", "Disable OOM killer", bool, "OomKillDisable"),
    Flag("--ulimit", "Ulimit options", spec.ULIMIT, "Ulimits", "list"),
    Flag(
        "--blkio-weight-device",
        "Block I/O weight of a device",
        spec.DEVICE_WEIGHT,
        "BlkioWeightDevice",
        "list",
    ),
    Flag("--device-read-bps", "Limit bytes read a second", spec.DEVICE_BYTES, "BlkioDeviceReadBps", "list"),
    Flag(
        "--device-write-bps", "Limit bytes written a second", spec.DEVICE_BYTES, "BlkioDeviceWriteBps", "list"
    ),
    Flag("--device-read-iops", "Limit reads a second", spec.DEVICE_OPERATIONS, "BlkioDeviceReadIOps", "list"),
    Flag(
        "--device-write-iops", "Limit writes a second", spec.DEVICE_OPERATIONS, "BlkioDeviceWriteIOps", "list"
    ),
    Flag("--cpu-count", "CPU count (Windows only)", INTEGER, "CpuCount"),
    Flag("--cpu-percent", "CPU percent (Windows only)", INTEGER, "CpuPercent"),
    Flag("--io-maxbandwidth", "Maximum IO bandwidth (Windows only)", SIZE, "IOMaximumBandwidth"),
    Flag("--io-maxiops", "Maximum IOps (Windows only)", UNSIGNED, "IOMaximumIOps"),
    # namespaces, privileges, devices
    Flag("--pid", "PID namespace to use", key="PidMode"),
    Flag("--ipc", "IPC mode to use", key="IpcMode"),
    Flag("--uts", "UTS namespace to use", key="UTSMode"),
    Flag("--userns", "User namespace to use", key="UsernsMode"),
    Flag("--cgroupns", "Cgroup namespace to use (host|private)", key="CgroupnsMode"),
    Flag("--cgroup-parent", "Parent cgroup of the container", key="CgroupParent"),
    Flag("--privileged", "Give extended privileges to this container", bool, "Privileged"),
    Flag("--cap-add", "Add Linux capabilities", key="CapAdd", many="list"),
    Flag("--cap-drop", "Drop Linux capabilities", key="CapDrop", many="list"),
    Flag("--group-add", "Add additional groups to join", key="GroupAdd", many="list"),
    Flag("--sysctl", "Sysctl options", spec.SYSCTL, "Sysctls", "map"),
    Flag("--device", "Add a host device to the container", spec.DEVICE, "Devices", "list"),
    Flag(
        "--device-cgroup-rule",
        "Add a rule to the devices list",
        spec.DEVICE_RULE,
        "DeviceCgroupRules",
        "list",
    ),
    Flag("--gpus", "GPU devices to add ('all' to pass all GPUs)", spec.GPUS, "DeviceRequests", "list"),
    Flag("--runtime", "Runtime to use for this container", key="Runtime"),
    Flag("--isolation", "Container isolation technology", key="Isolation"),
    Flag("--init", "Run an init that forwards signals and reaps processes", bool, "Init"),
    # files
    Flag("--read-only", "Mount the container's root filesystem as read only", bool, "ReadonlyRootfs"),
    Flag("--mount", "Attach a filesystem mount to the container", MOUNT, "Mounts", "list"),
    Flag("--volumes-from", "Mount volumes from the specified container(s)", key="VolumesFrom", many="list"),
    Flag("--volume-driver", "Volume driver for the container", key="VolumeDriver"),
    Flag("--storage-opt", "Storage driver options for the container", spec.PAIR, "StorageOpt", "map"),
    # network
    Flag("--publish-all -P", "Publish all exposed ports to random ports", bool, "PublishAllPorts"),
    Flag("--dns", "Set custom DNS servers", spec.ADDRESS, "Dns", "list"),
    Flag("--dns-search", "Set custom DNS search domains", key="DnsSearch", many="list"),
    Flag("--dns-option --dns-opt", "Set DNS options", key="DnsOptions", many="list"),
    Flag("--add-host", "Add a custom host-to-IP mapping (host:ip)", spec.EXTRA_HOST, "ExtraHosts", "list"),
    Flag("--link", "Add link to another container", spec.LINK, "Links", "list"),
    Flag("--rm", "Automatically remove the container when it exits", bool, "AutoRemove"),
    Flag("--annotation", "Add an annotation to the container", spec.PAIR, "Annotations", "map"),
]
# Fields of the config itself.
CONFIG = [
    Flag("--hostname -h", "Container host name", key="Hostname"),
    Flag("--domainname", "Container NIS domain name", key="Domainname"),
    Flag("--user -u", "Username or UID (format: <name|uid>[:<group|gid>])", key="User"),
    Flag("--workdir -w", "Working directory inside the container", key="WorkingDir"),
    Flag("--stop-signal", "Signal to stop the container", key="StopSignal"),
    Flag("--stop-timeout", "Timeout (in seconds) to stop a container", INTEGER, "StopTimeout"),
    Flag("--mac-address", "Container MAC address", key="MacAddress"),
    Flag("--tty -t", "Allocate a pseudo-TTY", bool, "Tty"),
]
# Those that creation.py reads by name, because they say more than one field does.
OTHERS = [
    Flag("--name", "Assign a name to the container"),
    Flag("--env -e", "Set environment variables", spec.ENVIRONMENT, many="list"),
    Flag("--env-file", "Read in a file of environment variables", many="list"),
    Flag("--label -l", "Set meta data on a container", spec.LABEL, many="list"),
    Flag("--label-file", "Read in a line delimited file of labels", many="list"),
    Flag("--entrypoint", "Overwrite the default ENTRYPOINT of the image"),
    Flag("--interactive -i", "Keep STDIN open: it is the cell's body", bool),
    Flag("--attach -a", "Attach to STDIN, STDOUT or STDERR", spec.ATTACH, many="list"),
    Flag("--volume -v", "Bind mount a volume", many="list"),
    Flag("--tmpfs", "Mount a tmpfs directory", many="list"),
    Flag("--publish -p", "Publish a container's port(s) to the host", many="list"),
    Flag("--expose", "Expose a port or a range of ports", many="list"),
    Flag("--network --net", "Connect a container to a network", NETWORK, many="list"),
    Flag("--network-alias --net-alias", "Add network-scoped alias for the container", many="list"),
    Flag("--ip", "IPv4 address (e.g., 172.30.100.104)"),
    Flag("--ip6", "IPv6 address (e.g., 2001:db8::33)"),
    Flag("--link-local-ip", "Container IPv4/IPv6 link-local addresses", many="list"),
    Flag("--security-opt", "Security options", many="list"),
    Flag("--restart", "Restart policy to apply when a container exits"),
    Flag("--log-driver", "Logging driver for the container"),
    Flag("--log-opt", "Log driver options", spec.PAIR, many="map"),
    Flag("--health-cmd", "Command to run to check health"),
    Flag("--health-interval", "Time between running the check (ms|s|m|h)", DURATION),
    Flag("--health-timeout", "Maximum time to allow one check to run (ms|s|m|h)", DURATION),
    Flag("--health-start-period", "Start period before failures count (ms|s|m|h)", DURATION),
    Flag("--health-start-interval", "Time between checks during the start period (ms|s|m|h)", DURATION),
    Flag("--health-retries", "Consecutive failures needed to report unhealthy", INTEGER),
    Flag("--no-healthcheck", "Disable any container-specified HEALTHCHECK", bool),
    Flag("--pull", 'Pull image before running ("always", "missing", "never")'),
    Flag("--platform", "Set platform if server is multi-platform capable"),
    Flag("--quiet -q", "Suppress the pull output", bool),
    Flag("--cidfile", "Write the container ID to the file"),
]


def filled(flags: Iterable[Flag], given: dict[str, Any]) -> dict[str, Any]:
    """The fields of the document that `flags` fill, those that were not given left out."""
    result: dict[str, Any] = {}
    for flag in flags:
        value = given[flag.name]
        if value is None or value is False or value == ():
            continue
        result[flag.key] = dict(value) if flag.many == "map" else list(value) if flag.many else value
    return result


def resource_options(command: F) -> F:
    """The limits that `update` can change."""
    for flag in RESOURCES:
        command = flag.declare(command)
    return option("restart", "--restart", help="Restart policy to apply when a container exits")(command)


def container_options(command: F) -> F:
    """All flags that `run` and `create` share; they reach the command as keywords."""
    for flag in (*HOST, *CONFIG, *OTHERS):
        command = flag.declare(command)
    command = switch("--disable-content-trust", hidden=True, expose_value=False)(command)  # nor does Docker
    return refused_switch(
        "--use-api-socket",
        why="the engine's socket and your registry passwords would be in the container; "
        "mount the socket yourself with -v if you want that",
    )(command)
