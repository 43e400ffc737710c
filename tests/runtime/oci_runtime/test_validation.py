"""What `validate` refuses, each by one line that begins with the field."""

import copy
from typing import Any

import pytest
from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.oci.runtime import default_spec, validate

CASES: list[tuple[str, Any, str]] = [
    ("ociVersion", "2.0.0", "ociVersion: 2.0.0 is not supported"),
    ("ociVersion", "one", "ociVersion: 'one' is not a semantic version"),
    ("ociVersion", None, "ociVersion: required, and missing"),
    ("vm", {}, "vm: not supported"),
    ("solaris", {}, "solaris: not supported"),
    ("windows", {}, "windows: not supported"),
    ("zos", {}, "zos: not supported"),
    ("root", None, "root.path: required, and missing"),
    ("root.path", 3, "root.path: not a string: 3"),
    ("process", None, "process: required, and missing"),
    ("process.args", [], "process.args: required, and missing"),
    ("process.args", ["a", 1], "process.args[1]: not a string: 1"),
    ("process.args", ["a\0b"], "process.args: a NUL character"),
    ("process.cwd", "tmp", "process.cwd: 'tmp' is not an absolute path"),
    ("process.commandLine", "dir", "process.commandLine: is for Windows only"),
    ("process.user.uid", -1, "process.user.uid: -1 is not between 0 and 4294967295"),
    ("process.user.uid", True, "process.user.uid: not a number: True"),
    ("process.user.username", "me", "process.user.username: is for Windows only"),
    ("process.oomScoreAdj", 1001, "process.oomScoreAdj: 1001 is not between -1000 and 1000"),
    ("process.rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}], "process.rlimits[0].type: 'RLIMIT_X'"),
    (
        "process.rlimits",
        [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}],
        "process.rlimits[0].soft: 2 is above",
    ),
    (
        "process.rlimits",
        [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2,
        "process.rlimits[1].type: RLIMIT_CPU is",
    ),
    (
        "process.scheduler",
        {"policy": "SCHED_X"},
        "process.scheduler.policy: 'SCHED_X' is none of SCHED_OTHER",
    ),
    (
        "process.scheduler",
        {"policy": "SCHED_OTHER", "priority": 5},
        "process.scheduler.priority: is for SCHED_FIFO",
    ),
    (
        "process.ioPriority",
        {"class": "IOPRIO_CLASS_BE", "priority": 8},
        "process.ioPriority.priority: 8 is not",
    ),
    ("hostname", "x" * 65, "hostname: longer than 64"),
    ("mounts", [{"type": "tmpfs"}], "mounts[0].destination: required, and missing"),
    ("mounts", [{"destination": "/x"}], "mounts[0].type: required, and missing"),
    ("mounts", [{"destination": "/x", "type": "bind"}], "mounts[0].source: required for a bind mount"),
    ("hooks", {"prestart": [{"path": "sh"}]}, "hooks.prestart[0].path: 'sh' is not an absolute path"),
    ("hooks", {"poststop": [{"path": "/sh", "timeout": 0}]}, "hooks.poststop[0].timeout: 0 is not between"),
    ("annotations", {"": "x"}, "annotations: a key is empty"),
    ("annotations", {"a": 1}, "annotations['a']: not a string: 1"),
    ("linux.namespaces", [{"type": "mount"}, {"type": "mount"}], "linux.namespaces[1].type: a second mount"),
    ("linux.namespaces", [{"type": "moon"}], "linux.namespaces[0].type: 'moon' is none of pid, network"),
    (
        "linux.namespaces",
        [{"type": "mount"}, {"type": "pid", "path": "x"}],
        "linux.namespaces[1].path: 'x' is not",
    ),
    ("linux.namespaces", [{"type": "pid"}], "linux.namespaces: a mount namespace is needed"),
    (
        "linux.uidMappings",
        [{"containerID": 0, "hostID": 0, "size": 1}],
        "linux.uidMappings: needs a new user",
    ),
    ("linux.timeOffsets", {"boottime": {"secs": 1}}, "linux.timeOffsets: needs a new time namespace"),
    ("linux.intelRdt", {"closID": "x"}, "linux.intelRdt: not supported"),
    ("linux.netDevices", {"eth0": {}}, "linux.netDevices: not supported"),
    ("linux.personality", {"domain": "BSD"}, "linux.personality.domain: 'BSD' is none of LINUX, LINUX32"),
    ("linux.rootfsPropagation", "wide", "linux.rootfsPropagation: 'wide' is none of"),
    ("linux.maskedPaths", ["proc"], "linux.maskedPaths[0]: 'proc' is not an absolute path"),
    ("linux.cgroupsPath", "/a/../b", "linux.cgroupsPath: '/a/../b' goes upwards"),
    ("linux.devices", [{"path": "/dev/x", "type": "c"}], "linux.devices[0]: major and minor are required"),
    ("linux.sysctl", {"kernel.panic": "1"}, 'linux.sysctl: "kernel.panic" belongs to no namespace'),
    ("linux.sysctl", {"kernel.hostname": "x"}, 'linux.sysctl: "kernel.hostname" is what the field hostname'),
    ("linux.resources.memory", {"limit": 100, "swap": 50}, "linux.resources.memory.swap: 50 is less than"),
    ("linux.resources.pids", {}, "linux.resources.pids.limit: required"),
    ("linux.resources.devices", [{"allow": True, "access": "x"}], "invalid device rule"),
    (
        "linux.seccomp",
        {"defaultAction": "SCMP_ACT_NOTIFY"},
        "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY is not",
    ),
    ("linux.seccomp", {"defaultAction": "NO"}, "linux.seccomp.defaultAction: 'NO' is no action"),
    (
        "linux.seccomp",
        {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"},
        "linux.seccomp.listenerPath: notify listeners are not supported",
    ),
    (
        "linux.seccomp",
        {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW"]},
        "linux.seccomp.flags: SECCOMP_FILTER_FLAG_NEW is not supported",
    ),
]


@pytest.mark.parametrize(
    ("field", "value", "expected"), CASES, ids=[f"{c[0]}={str(c[1])[:30]}" for c in CASES]
)
def test_refused(field: str, value: Any, expected: str) -> None:
    config: dict[str, Any] = copy.deepcopy(default_spec())
    *parents, name = field.split(".")
    section = config
    for parent in parents:
        section = section[parent]
    section[name] = value
    with pytest.raises(InvalidParameter) as error:
        validate(config)
    assert str(error.value).startswith(expected), str(error.value)
    assert "\n" not in str(error.value)


def test_the_default_is_valid_and_null_is_absent() -> None:
    config: dict[str, Any] = default_spec()
    validate(config)
    config["hooks"] = config["linux"]["seccomp"] = config["process"]["rlimits"] = None
    validate(config)


def test_the_root_may_be_given_beside() -> None:
    config: dict[str, Any] = default_spec()
    del config["root"]
    validate(config, root_required=False)


def test_namespaced_fields_need_their_namespace() -> None:
    for kind, change, expected in (
        ("uts", {"hostname": "x"}, "hostname: needs a uts namespace"),
        ("ipc", {}, "mounts[4]: mqueue needs an ipc namespace"),
    ):
        config: dict[str, Any] = {**default_spec(), **change}
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != kind]
        with pytest.raises(InvalidParameter) as error:
            validate(config)
        assert str(error.value) == expected
