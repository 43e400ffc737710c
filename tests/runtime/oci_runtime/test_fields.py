"""Each field of the runtime specification, by what can be observed in the container.

The list is that of the cases in opencontainers/runtime-tools' `validation/`.
"""

import json
import os
import stat
import subprocess
from pathlib import Path

import pytest
from dockmagic_runtime.kernel import capabilities, cgroups

from .conftest import Runtime


def status(text: str) -> dict[str, str]:
    return {line.split(":", 1)[0]: line.split(":", 1)[1].strip() for line in text.splitlines() if ":" in line}


def namespace(runtime: Runtime, kind: str) -> dict:
    return next(entry for entry in runtime.linux["namespaces"] if entry["type"] == kind)


# --- process -------------------------------------------------------------------------------------------


def test_args_env_cwd(runtime: Runtime) -> None:
    runtime.process["env"] += ["A=one two", "EMPTY=", "B=ü"]
    runtime.process["cwd"] = "/made/for/it"
    out = runtime.sh("pwd; echo $A; echo $B; echo ${EMPTY+there}; echo $HOME")
    assert out.split("\n") == ["/made/for/it", "one two", "ü", "there", "/root", ""]


def test_user_groups_and_umask(runtime: Runtime) -> None:
    runtime.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 6], "umask": 0o27}
    runtime.process["capabilities"] = {}
    (runtime.rootfs / "tmp").chmod(0o1777)
    out = runtime.sh("id -u; id -g; id -G; umask; touch /tmp/x; stat -c %a /tmp/x; echo $HOME")
    assert out.split("\n")[:6] == ["1000", "1001", "1001 5 6", "0027", "640", "/home/u"]


def test_capabilities(runtime: Runtime) -> None:
    kept = ["CAP_NET_ADMIN", "CAP_CHOWN"]
    runtime.process["capabilities"] = {
        "bounding": [*kept, "CAP_KILL"],
        "permitted": kept,
        "effective": kept,
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    }
    runtime.process["user"] = {"uid": 1000, "gid": 1000}
    found = status(runtime.sh("cat /proc/self/status"))
    assert int(found["CapBnd"], 16) == capabilities.bits([*kept, "CAP_KILL"])
    # Of an exec by another user than root only the ambient ones are left.
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        assert int(found[name], 16) == capabilities.bits(["CAP_CHOWN"])


def test_no_capabilities_at_all(runtime: Runtime) -> None:
    del runtime.process["capabilities"]
    found = status(runtime.sh("cat /proc/self/status"))
    assert {found[name] for name in ("CapBnd", "CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}


def test_a_capability_nobody_knows_is_a_warning(runtime: Runtime) -> None:
    for kind in ("bounding", "permitted", "effective"):
        runtime.process["capabilities"][kind] = ["CAP_KILL", "CAP_OF_TOMORROW"]
    runtime.process["args"] = ["true"]
    runtime.write()
    done = runtime("run", runtime.id)
    assert done.returncode == 0
    assert "CAP_OF_TOMORROW can't be granted" in done.stderr


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(runtime: Runtime, wanted: bool) -> None:
    runtime.process["noNewPrivileges"] = wanted
    assert status(runtime.sh("cat /proc/self/status"))["NoNewPrivs"] == str(int(wanted))


def test_rlimits(runtime: Runtime) -> None:
    runtime.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_FSIZE", "soft": 1 << 20, "hard": 1 << 21},
    ]
    lines = runtime.sh("cat /proc/self/limits").splitlines()
    limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
    assert limits["Max open files"] == ["100", "200"]
    assert limits["Max core file size"] == ["0", "0"]
    assert limits["Max file size"] == [str(1 << 20), str(1 << 21)]


def test_oom_score(runtime: Runtime) -> None:
    runtime.process["oomScoreAdj"] = 321
    assert runtime.sh("cat /proc/self/oom_score_adj").strip() == "321"


def test_scheduler_and_io_priority(runtime: Runtime) -> None:
    runtime.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    runtime.process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE"}
    runtime.create()
    pid = runtime.state()["pid"]
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH
    assert os.getpriority(os.PRIO_PROCESS, pid) == 7
    assert "idle" in subprocess.check_output(["ionice", "-p", str(pid)], text=True)


def test_personality(runtime: Runtime) -> None:
    runtime.linux["personality"] = {"domain": "LINUX32"}
    assert runtime.sh("uname -m").strip() in ("i686", "armv8l", os.uname().machine.replace("x86_64", "i686"))


def test_unknown_fields_are_ignored(runtime: Runtime) -> None:
    runtime.config["unknown"] = {"of": "tomorrow"}
    runtime.linux["unknown"] = [1]
    assert runtime.sh("echo on") == "on\n"


# --- root and mounts -----------------------------------------------------------------------------------


def test_readonly_root(runtime: Runtime) -> None:
    runtime.config["root"]["readonly"] = True
    assert runtime.sh("touch /x 2>&1 || echo refused").splitlines()[-1] == "refused"


def test_absolute_root_path(runtime: Runtime, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    runtime.rootfs.rename(other)
    runtime.config["root"]["path"] = str(other)
    assert "elsewhere" not in runtime.sh("ls /")


def test_mounts_and_their_options(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("from the host\n")
    runtime.config["mounts"] += [
        {"destination": "/data", "type": "bind", "source": str(tmp_path / "data"), "options": ["bind", "ro"]},
        {"destination": "/t", "type": "tmpfs", "source": "t", "options": ["size=1m", "mode=700", "noexec"]},
        {"destination": "/one", "source": str(tmp_path / "data/file"), "options": ["rbind", "nosuid"]},
    ]
    out = runtime.sh(
        "cat /data/file /one; touch /data/x 2>/dev/null || echo read-only; stat -c %a /t;"
        "cp /bin/busybox /t/true 2>/dev/null; /t/true 2>/dev/null || echo no exec;"
        "grep -E ' (/t|/one) ' /proc/self/mounts"
    )
    lines = out.splitlines()
    assert lines[:5] == ["from the host", "from the host", "read-only", "700", "no exec"]
    options = {line.split()[1]: line.split()[3].split(",") for line in lines[5:]}
    assert {"noexec", "size=1024k"} <= set(options["/t"])
    assert "nosuid" in options["/one"]


def test_recursive_readonly(runtime: Runtime, tmp_path: Path) -> None:
    outer = tmp_path / "outer"
    (outer / "inner").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "t", outer / "inner"], check=True)
    try:
        for name, option in (("a", "ro"), ("b", "rro")):
            runtime.config["mounts"].append(
                {"destination": f"/{name}", "source": str(outer), "options": ["rbind", option]}
            )
        script = "for d in a b; do touch /$d/inner/x 2>/dev/null && echo $d written; done; true"
        assert runtime.sh(script) == "a written\n"
    finally:
        subprocess.run(["umount", outer / "inner"], check=True)


def test_tmpfs_with_the_images_content(runtime: Runtime) -> None:
    (runtime.rootfs / "var/deep").mkdir(parents=True)
    (runtime.rootfs / "var/deep/file").write_text("kept\n")
    os.chown(runtime.rootfs / "var/deep/file", 12, 34)
    (runtime.rootfs / "var/link").symlink_to("deep/file")
    runtime.config["mounts"].append(
        {"destination": "/var", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    )
    out = runtime.sh("cat /var/link; stat -c %u:%g /var/deep/file; echo new > /var/new")
    assert out.splitlines() == ["kept", "12:34"]
    assert not (runtime.rootfs / "var/new").exists()


@pytest.mark.parametrize("wanted", ["private", "slave", "shared", "unbindable"])
def test_root_propagation(runtime: Runtime, wanted: str) -> None:
    runtime.linux["rootfsPropagation"] = wanted
    (root,) = [line for line in runtime.sh("cat /proc/self/mountinfo").splitlines() if line.split()[4] == "/"]
    tags = root.split(" - ")[0].split()[6:]
    expected = {"private": [], "slave": [], "shared": ["shared"], "unbindable": ["unbindable"]}[wanted]
    assert [tag.split(":")[0] for tag in tags] == expected


def test_default_file_systems_and_devices(runtime: Runtime) -> None:
    mounts = [line.split() for line in runtime.sh("cat /proc/self/mounts").splitlines()]
    kinds = {mount[1]: mount[2] for mount in mounts}
    assert kinds["/proc"] == "proc"
    assert kinds["/sys"] == "sysfs"
    assert kinds["/dev/pts"] == "devpts"
    assert kinds["/dev/shm"] == "tmpfs"
    script = """
        cd /dev; stat -c '%n %t:%T %a' null zero full random urandom tty
        for link in fd stdin stdout stderr ptmx; do readlink $link; done
    """
    lines = runtime.sh(script).splitlines()
    assert lines == [
        *("null 1:3 666", "zero 1:5 666", "full 1:7 666", "random 1:8 666", "urandom 1:9 666", "tty 5:0 666"),
        *("/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"),
    ]


def test_additional_devices(runtime: Runtime) -> None:
    runtime.linux["devices"] = [
        {"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o644, "uid": 3, "gid": 4},
        {"path": "/dev/pipe", "type": "p"},
    ]
    allow = [{"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"}]
    runtime.linux["resources"]["devices"] += allow
    out = runtime.sh(
        "stat -c '%F %t:%T %a %u:%g' /dev/mine; stat -c %F /dev/pipe; head -c 3 /dev/mine | wc -c"
    )
    assert out.splitlines() == ["character special file 1:5 644 3:4", "fifo", "3"]


def test_masked_and_readonly_paths(runtime: Runtime) -> None:
    (runtime.rootfs / "secret").write_text("x")
    (runtime.rootfs / "secrets").mkdir()
    (runtime.rootfs / "secrets/one").write_text("x")
    (runtime.rootfs / "fixed").mkdir()
    runtime.linux["maskedPaths"] += ["/secret", "/secrets", "/not/there"]
    runtime.linux["readonlyPaths"] += ["/fixed", "/nor/there"]
    script = "cat /secret; ls /secrets; touch /fixed/x 2>/dev/null || echo fixed; cat /proc/keys | wc -c;"
    script += "echo x 2>/dev/null > /proc/sys/kernel/domainname || echo sys"
    assert runtime.sh(script).split() == ["fixed", "0", "sys"]


# --- namespaces ----------------------------------------------------------------------------------------


def test_every_namespace_is_new(runtime: Runtime) -> None:
    runtime.linux["namespaces"].append({"type": "time"})
    kinds = ["pid", "net", "ipc", "uts", "mnt", "cgroup", "time"]
    out = runtime.sh(f"cd /proc/self/ns; for n in {' '.join(kinds)}; do readlink $n; done")
    for kind, link in zip(kinds, out.split(), strict=True):
        assert link != str(Path(f"/proc/self/ns/{kind}").readlink()), kind


def test_namespaces_not_named_are_the_hosts(runtime: Runtime) -> None:
    runtime.linux["namespaces"] = [{"type": "mount"}]
    del runtime.config["hostname"]
    runtime.config["mounts"] = [m for m in runtime.config["mounts"] if m["type"] not in ("mqueue", "sysfs")]
    kinds = ["pid", "net", "ipc", "uts", "cgroup", "user"]
    out = runtime.sh(f"cd /proc/self/ns; for n in {' '.join(kinds)}; do readlink $n; done")
    assert out.split() == [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in kinds]


def test_namespaces_by_path(runtime: Runtime) -> None:
    names = {"network": "net", "ipc": "ipc", "uts": "uts", "pid": "pid"}
    with subprocess.Popen(["unshare", "-niu", "--pid", "--fork", "sleep", "100"]) as other:
        try:
            children = Path(f"/proc/{other.pid}/task/{other.pid}/children")
            while not (inside := children.read_text().split()):
                assert other.poll() is None
            for kind, name in names.items():
                namespace(runtime, kind)["path"] = f"/proc/{inside[0]}/ns/{name}"
            wanted = [str(Path(f"/proc/{inside[0]}/ns/{name}").readlink()) for name in names.values()]
            out = runtime.sh("cd /proc/self/ns; for n in net ipc uts pid; do readlink $n; done")
            assert out.split() == wanted
        finally:
            other.kill()


def test_hostname_and_domainname(runtime: Runtime) -> None:
    runtime.config["hostname"] = "here"
    runtime.config["domainname"] = "there"
    assert runtime.sh("hostname; cat /proc/sys/kernel/domainname").split() == ["here", "there"]
    assert os.uname().nodename != "here"


def test_sysctl(runtime: Runtime) -> None:
    runtime.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmni": "77"}
    assert runtime.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni").split() == ["1", "77"]


def test_time_offsets(runtime: Runtime) -> None:
    runtime.linux["namespaces"].append({"type": "time"})
    runtime.linux["timeOffsets"] = {"boottime": {"secs": 1_000_000}, "monotonic": {"secs": 5, "nanosecs": 6}}
    assert float(runtime.sh("cat /proc/uptime").split()[0]) > 1_000_000


def test_user_namespace_with_mappings(runtime: Runtime) -> None:
    runtime.linux["namespaces"].append({"type": "user"})
    for name in ("uidMappings", "gidMappings"):
        runtime.linux[name] = [{"containerID": 0, "hostID": 100_000, "size": 1000}]
    for path in (runtime.bundle.parent, *runtime.bundle.parents):
        if path != Path("/tmp") and path.stat().st_mode & 0o777 == 0o700:
            path.chmod(0o711)
    for path in [runtime.rootfs, *runtime.rootfs.rglob("*")]:
        os.chown(path, 100_000, 100_000, follow_symlinks=False)
    out = runtime.sh(
        "id -u; cat /proc/self/uid_map; touch /mine; stat -c %u /mine; grep CapEff /proc/self/status"
    )
    words = out.split()
    assert words[:5] == ["0", "0", "100000", "1000", "0"]
    assert (runtime.rootfs / "mine").stat().st_uid == 100_000


# --- control groups ------------------------------------------------------------------------------------


def test_cgroup_limits(runtime: Runtime) -> None:
    runtime.linux["resources"].update(
        {
            "memory": {"limit": 64 << 20, "reservation": 32 << 20},
            "cpu": {"shares": 512, "quota": 30_000, "period": 60_000, "cpus": "0"},
            "pids": {"limit": 33},
        }
    )
    runtime.create()
    stats = runtime.cgroup.stats()
    assert (stats.memory_limit, stats.pids_limit) == (64 << 20, 33)
    pid = runtime.state()["pid"]
    assert "Cpus_allowed_list:\t0\n" in Path(f"/proc/{pid}/status").read_text()
    where = cgroups.layout()
    if not where.unified:
        cpu = Path(where.v1["cpu"] + f"/{runtime.id}")
        read = [int((cpu / f"cpu.{n}").read_text()) for n in ("shares", "cfs_quota_us", "cfs_period_us")]
        assert read == [512, 30_000, 60_000]
    else:
        assert Path(f"{where.v2}/{runtime.id}/cpu.max").read_text().split() == ["30000", "60000"]


def test_relative_and_absent_cgroups_path(runtime: Runtime) -> None:
    for path, expected in ((f"{runtime.id}/below", f"/{runtime.id}/below"), (None, f"/{runtime.id}")):
        runtime.linux["cgroupsPath"] = path
        runtime.create()
        assert runtime.state()["pid"] in cgroups.Cgroup.open(expected).pids()
        runtime.ok("delete", runtime.id)
    runtime.cgroup.remove()


def test_devices_that_are_not_allowed(runtime: Runtime) -> None:
    """Devices 1:11 and 1:1 are no container's business; those that every container has stay usable."""
    runtime.linux["devices"] = [
        {"path": f"/dev/{name}", "type": "c", "major": 1, "minor": minor, "fileMode": 0o666}
        for name, minor in (("some", 11), ("none", 1))
    ]
    runtime.linux["resources"]["devices"] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "w"},
    ]
    script = """
        echo > /dev/null && echo null; head -c1 /dev/urandom | wc -c
        (exec 3> /dev/some) && echo written
        (exec 3< /dev/some) 2>&1 | grep -o 'not permitted'
        (exec 3< /dev/none) 2>&1 | grep -o 'not permitted'
    """
    assert runtime.sh(script).splitlines() == ["null", "1", "written", "not permitted", "not permitted"]


def test_the_cgroup_is_the_root_of_what_is_seen(runtime: Runtime) -> None:
    paths = {line.split(":")[2] for line in runtime.sh("cat /proc/self/cgroup").splitlines()}
    assert paths <= {"/", "/.."}


# --- seccomp -------------------------------------------------------------------------------------------


def test_seccomp(runtime: Runtime) -> None:
    runtime.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {
                "names": ["kill"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 1, "value": 17, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
    script = """
        mkdir /x 2>&1 | grep -o 'No space'
        kill -17 $$ 2>&1 | grep -o 'not permitted'
        kill -0 $$ && echo ok
        grep Seccomp: /proc/self/status
    """
    assert runtime.sh(script).splitlines() == ["No space", "not permitted", "ok", "Seccomp:\t2"]


def test_seccomp_without_no_new_privileges_and_for_another_user(runtime: Runtime) -> None:
    runtime.process["noNewPrivileges"] = False
    runtime.process["user"] = {"uid": 1000, "gid": 1000}
    runtime.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    out = runtime.sh("mkdir /tmp/x 2>&1 | grep -o 'No space'; grep CapEff: /proc/self/status")
    assert out.splitlines() == ["No space", "CapEff:\t0000000000000000"]


# --- signals -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TERM", "SIGUSR1", "12", "SIGRTMIN+3"])
def test_kill_sends_the_signal(runtime: Runtime, name: str) -> None:
    number = {"TERM": 15, "SIGUSR1": 10, "12": 12, "SIGRTMIN+3": 37}[name]
    runtime.create(f"trap 'exit {number}' {number}; : > /ready; while :; do sleep 0.02; done")
    runtime.ok("start", runtime.id)
    while not (runtime.rootfs / "ready").exists():
        assert runtime.status() == "running"
    runtime.ok("kill", runtime.id, name)
    runtime.await_status("stopped")


def test_kill_all_reaches_every_process(runtime: Runtime) -> None:
    runtime.create("sleep 100 & sleep 100 & wait; wait; : > /all; exec sleep 100")
    runtime.ok("start", runtime.id)
    while len(json.loads(runtime.ok("ps", "-f", "json", runtime.id))) < 3:
        assert runtime.status() == "running"
    runtime.ok("kill", "--all", runtime.id, "KILL")
    runtime.await_status("stopped")
    assert runtime.cgroup.pids() == []


def test_root_file_system_is_otherwise_untouched(runtime: Runtime) -> None:
    runtime.sh("true")
    assert stat.S_IMODE((runtime.rootfs / "etc/passwd").stat().st_mode) == 0o644
    assert not list((runtime.rootfs / "dev").iterdir())
