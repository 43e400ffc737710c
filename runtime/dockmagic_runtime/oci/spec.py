"""The types of an OCI runtime configuration: runtime-spec 1.2, the parts for Linux, as plain JSON dicts.

Each class is named as in the specification's Go package, each field as in its JSON; a field marked Required
must be there. The bounds of numbers are those of the kernel interface behind them.
"""

from typing import Annotated, Any, Literal, Required, TypedDict

VERSION = "1.2.1"

UInt16 = Annotated[int, range(1 << 16)]
UInt32 = Annotated[int, range(1 << 32)]
UInt64 = Annotated[int, range(1 << 64)]
Int64 = Annotated[int, range(-(1 << 63), 1 << 63)]


class Root(TypedDict, total=False):
    path: Required[str]
    readonly: bool


class IDMapping(TypedDict, total=False):
    containerID: Required[UInt32]
    hostID: Required[UInt32]
    size: Required[UInt32]


class Mount(TypedDict, total=False):
    destination: Required[str]
    type: str
    source: str
    options: list[str]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]


class Box(TypedDict, total=False):
    height: Required[UInt16]
    width: Required[UInt16]


class User(TypedDict, total=False):
    uid: UInt32
    gid: UInt32
    umask: Annotated[int, range(0o1000)]
    additionalGids: list[UInt32]
    username: str


class LinuxCapabilities(TypedDict, total=False):
    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class POSIXRlimit(TypedDict, total=False):
    type: Required[str]
    hard: Required[UInt64]
    soft: Required[UInt64]


class Scheduler(TypedDict, total=False):
    policy: Required[
        Literal[
            "SCHED_OTHER",
            "SCHED_FIFO",
            "SCHED_RR",
            "SCHED_BATCH",
            "SCHED_ISO",
            "SCHED_IDLE",
            "SCHED_DEADLINE",
        ]
    ]
    nice: Annotated[int, range(-20, 20)]
    priority: Annotated[int, range(100)]
    flags: list[
        Literal[
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ]
    ]
    runtime: UInt64
    deadline: UInt64
    period: UInt64


IOPriority = TypedDict(
    "IOPriority",
    {
        "class": Required[Literal["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"]],
        "priority": Annotated[int, range(8)],
    },
    total=False,
)


class CPUAffinity(TypedDict, total=False):
    initial: str
    final: str


class Process(TypedDict, total=False):
    terminal: bool
    consoleSize: Box
    user: User
    args: list[str]
    commandLine: str
    env: list[str]
    cwd: Required[str]
    capabilities: LinuxCapabilities
    rlimits: list[POSIXRlimit]
    noNewPrivileges: bool
    apparmorProfile: str
    oomScoreAdj: Annotated[int, range(-1000, 1001)]
    scheduler: Scheduler
    selinuxLabel: str
    ioPriority: IOPriority
    execCPUAffinity: CPUAffinity


class Hook(TypedDict, total=False):
    path: Required[str]
    args: list[str]
    env: list[str]
    timeout: Annotated[int, range(1, 1 << 31)]


class Hooks(TypedDict, total=False):
    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


class LinuxNamespace(TypedDict, total=False):
    type: Required[Literal["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]]
    path: str


class LinuxTimeOffset(TypedDict, total=False):
    secs: Int64
    nanosecs: UInt32


class LinuxTimeOffsets(TypedDict, total=False):
    boottime: LinuxTimeOffset
    monotonic: LinuxTimeOffset


class LinuxDevice(TypedDict, total=False):
    type: Required[Literal["c", "b", "u", "p"]]
    path: Required[str]
    major: UInt32
    minor: UInt32
    fileMode: UInt32
    uid: UInt32
    gid: UInt32


class LinuxNetDevice(TypedDict, total=False):
    name: str


class LinuxDeviceCgroup(TypedDict, total=False):
    allow: Required[bool]
    type: Literal["a", "b", "c"]
    major: Int64
    minor: Int64
    access: str


class LinuxMemory(TypedDict, total=False):
    limit: Int64
    reservation: Int64
    swap: Int64
    kernel: Int64
    kernelTCP: Int64
    swappiness: Annotated[int, range(201)]
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class LinuxCPU(TypedDict, total=False):
    shares: UInt64
    quota: Int64
    burst: UInt64
    period: UInt64
    realtimeRuntime: Int64
    realtimePeriod: UInt64
    cpus: str
    mems: str
    idle: Annotated[int, range(2)]


class LinuxPids(TypedDict, total=False):
    limit: Int64


class LinuxWeightDevice(TypedDict, total=False):
    major: Required[Int64]
    minor: Required[Int64]
    weight: UInt16
    leafWeight: UInt16


class LinuxThrottleDevice(TypedDict, total=False):
    major: Required[Int64]
    minor: Required[Int64]
    rate: Required[UInt64]


class LinuxBlockIO(TypedDict, total=False):
    weight: UInt16
    leafWeight: UInt16
    weightDevice: list[LinuxWeightDevice]
    throttleReadBpsDevice: list[LinuxThrottleDevice]
    throttleWriteBpsDevice: list[LinuxThrottleDevice]
    throttleReadIOPSDevice: list[LinuxThrottleDevice]
    throttleWriteIOPSDevice: list[LinuxThrottleDevice]


class LinuxHugepageLimit(TypedDict, total=False):
    pageSize: Required[str]
    limit: Required[UInt64]


class LinuxInterfacePriority(TypedDict, total=False):
    name: Required[str]
    priority: Required[UInt32]


class LinuxNetwork(TypedDict, total=False):
    classID: UInt32
    priorities: list[LinuxInterfacePriority]


class LinuxRdma(TypedDict, total=False):
    hcaHandles: UInt32
    hcaObjects: UInt32


class LinuxResources(TypedDict, total=False):
    devices: list[LinuxDeviceCgroup]
    memory: LinuxMemory
    cpu: LinuxCPU
    pids: LinuxPids
    blockIO: LinuxBlockIO
    hugepageLimits: list[LinuxHugepageLimit]
    network: LinuxNetwork
    rdma: dict[str, LinuxRdma]
    unified: dict[str, str]


class LinuxSeccompArg(TypedDict, total=False):
    index: Required[Annotated[int, range(6)]]
    value: Required[UInt64]
    valueTwo: UInt64
    op: Required[str]


class LinuxSyscall(TypedDict, total=False):
    names: Required[list[str]]
    action: Required[str]
    errnoRet: UInt32
    args: list[LinuxSeccompArg]


class LinuxSeccomp(TypedDict, total=False):
    defaultAction: Required[str]
    defaultErrnoRet: UInt32
    architectures: list[str]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[LinuxSyscall]


class LinuxPersonality(TypedDict, total=False):
    domain: Required[Literal["LINUX", "LINUX32"]]
    flags: list[str]


class LinuxMemoryPolicy(TypedDict, total=False):
    mode: Required[str]
    nodes: str
    flags: list[str]


class Linux(TypedDict, total=False):
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    sysctl: dict[str, str]
    resources: LinuxResources
    cgroupsPath: str
    namespaces: list[LinuxNamespace]
    devices: list[LinuxDevice]
    netDevices: dict[str, LinuxNetDevice]
    seccomp: LinuxSeccomp
    rootfsPropagation: Literal[
        "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable", ""
    ]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    intelRdt: dict[str, Any]
    personality: LinuxPersonality
    memoryPolicy: LinuxMemoryPolicy
    timeOffsets: LinuxTimeOffsets


class Spec(TypedDict, total=False):
    ociVersion: Required[str]
    process: Process
    root: Root
    hostname: str
    domainname: str
    mounts: list[Mount]
    hooks: Hooks
    annotations: dict[str, str]
    linux: Linux
    solaris: dict[str, Any]
    windows: dict[str, Any]
    vm: dict[str, Any]
    zos: dict[str, Any]


class State(TypedDict, total=False):
    """What `state` prints and hooks get on their stdin."""

    ociVersion: Required[str]
    id: Required[str]
    status: Required[Literal["creating", "created", "running", "paused", "stopped"]]
    pid: int
    bundle: Required[str]
    annotations: dict[str, str]
