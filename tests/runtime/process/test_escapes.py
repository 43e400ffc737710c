"""The known ways out of a container, each tried."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from dockmagic_runtime.process import interpreter
from dockmagic_runtime.process.messages import StartFailed

from .conftest import Bench, output


async def test_our_interpreter_cannot_be_opened_for_writing(bench: Bench) -> None:
    """CVE-2019-5736. Tried from the host, with every right there is: the mount itself refuses."""
    for _ in range(200):
        if Path(f"/proc/{bench.spawner.pid}/cmdline").read_bytes().find(b"forge") > 0:
            break
        await asyncio.sleep(0.01)
    readable = os.open(f"/proc/{bench.spawner.pid}/exe", os.O_RDONLY)
    # To open it for writing would also fail because it runs, here even for
    # the test's sake; so ask for a change
    # that the kernel only refuses if the mount is read-only.
    for path in (f"/proc/{bench.spawner.pid}/exe", f"/proc/self/fd/{readable}"):
        with pytest.raises(OSError, match="Read-only file system"):
            Path(path).chmod(0o777)
    os.close(readable)
    assert not interpreter.sealed(), "the test's own interpreter is an ordinary one, else this proves nothing"


async def test_proc_self_exe_is_not_a_program(bench: Bench, hostile: Path) -> None:
    (hostile / "bin/loop").symlink_to("/proc/self/exe")
    for program in ("/proc/self/exe", "/proc/1/exe", "loop"):
        with pytest.raises(StartFailed) as failed:
            await bench.spawner.run(bench.request(program, image=hostile))
        assert failed.value.exit_code in (126, 127)
    shim = await bench.spawner.run(bench.request("sleep", "100"))
    with pytest.raises(StartFailed):
        await shim.exec("x", {"args": ["/proc/self/exe"], "env": []})
    await shim.signal(9)
    await shim.exited


async def test_an_exec_cannot_be_looked_into(bench: Bench) -> None:
    """What runs in the container watches for newcomers and tries to open what they have."""
    watch = (
        "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); for p in /proc/[0-9]*; do "
        "case $(readlink $p/exe 2>/dev/null) in ''|/bin/busybox) ;; *) echo SAW $p $(readlink $p/exe);; esac; done; done"  # noqa: E501
    )
    request = bench.request("sh", "-c", watch)
    shim = await bench.spawner.run(request)
    for number in range(40):
        await shim.exec(str(number), {"args": ["true"], "env": ["PATH=/bin"]})
    await shim.signal(9)
    await shim.exited
    assert "SAW" not in output(request)


async def test_no_descriptor_but_stdio(bench: Bench) -> None:
    ended, text = await bench.run("sh", "-c", "exec 9</proc/self/fd; ls /proc/$$/fd")
    assert ended.code == 0
    # 9 is the shell's own, 3 or 10 may be the shell's copies; nothing else came with it.
    assert {"0", "1", "2"} <= set(text.split()) <= {"0", "1", "2", "3", "9", "10"}
    _, text = await bench.run("ls", "-l", "/proc/1/fd")
    assert "socket" not in text
    assert "memfd" not in text


@pytest.mark.parametrize("number", range(3, 20))
async def test_working_directory_through_a_descriptor(bench: Bench, number: int) -> None:
    """CVE-2024-21626."""
    with pytest.raises(StartFailed):
        await bench.spawner.run(
            bench.request("pwd", change=lambda c: c["process"].update(cwd=f"/proc/self/fd/{number}"))
        )


async def test_working_directory_of_an_exec_through_a_descriptor(bench: Bench, hostile: Path) -> None:
    (hostile / "way").symlink_to("/proc/self/fd/4/../../..")
    shim = await bench.spawner.run(bench.request("sleep", "100", image=hostile))
    for cwd in ("/way", *(f"/proc/self/fd/{n}" for n in range(3, 12))):
        with pytest.raises(StartFailed):
            await shim.exec("x", {"args": ["pwd"], "env": ["PATH=/bin"], "cwd": cwd})
    await shim.signal(9)
    await shim.exited


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
async def test_kernel_directories_that_are_links(bench: Bench, hostile: Path, name: str) -> None:
    (hostile / name).rmdir()
    (hostile / name).symlink_to("/tmp")
    with pytest.raises(StartFailed, match=r"symbolic link|ordinary directory"):
        await bench.spawner.run(bench.request("true", image=hostile))


async def test_dev_null_of_the_image_is_not_believed(bench: Bench, hostile: Path) -> None:
    """CVE-2025-31133: with the image's own /dev, a false null device must not be used."""
    (hostile / "dev/null").symlink_to("/etc/passwd")

    def own_dev(config: dict[str, Any]) -> None:
        config["mounts"] = [m for m in config["mounts"] if not m["destination"].startswith("/dev")]

    with pytest.raises(StartFailed, match="/dev/null"):
        await bench.spawner.run(bench.request("true", image=hostile, change=own_dev))


async def test_mount_target_cannot_leave_the_root(bench: Bench, hostile: Path, tmp_path: Path) -> None:
    victim, source = tmp_path / "victim", tmp_path / "source"
    victim.mkdir()
    source.mkdir()
    (source / "mark").touch()
    (hostile / "out").symlink_to(f"../../../../../../..{victim}")
    entry = {"destination": "/out/inner", "source": str(source), "type": "bind", "options": ["rbind"]}
    ended, text = await bench.run(
        "ls", f"{victim}/inner", image=hostile, change=lambda c: c["mounts"].append(entry)
    )
    assert (ended.code, text) == (0, "mark\n")
    assert list(victim.iterdir()) == []


async def test_nothing_is_mounted_over_proc(bench: Bench, tmp_path: Path) -> None:
    for destination in ("/proc", "/proc/self", "/proc/sys/kernel"):
        entry = {"destination": destination, "source": str(tmp_path), "type": "bind", "options": ["rbind"]}
        with pytest.raises(StartFailed, match="inside /proc"):
            await bench.spawner.run(bench.request("true", change=lambda c, e=entry: c["mounts"].append(e)))


async def test_sysctl_of_the_host_is_refused(bench: Bench) -> None:
    before = Path("/proc/sys/kernel/panic").read_text()
    with pytest.raises(StartFailed, match="not in a separate kernel namespace"):
        await bench.spawner.run(
            bench.request("true", change=lambda c: c["linux"].update(sysctl={"kernel.panic": "77"}))
        )
    assert Path("/proc/sys/kernel/panic").read_text() == before
    change = lambda c: c["linux"].update(sysctl={"kernel.shmmni": "777", "net.ipv4.ip_forward": "1"})  # noqa: E731  # noqa: E501
    ended, text = await bench.run(
        "cat", "/proc/sys/kernel/shmmni", "/proc/sys/net/ipv4/ip_forward", change=change
    )
    assert (ended.code, text) == (0, "777\n1\n")


async def test_code_in_the_image_is_not_loaded_into_us(bench: Bench, hostile: Path) -> None:
    """An image that has a Python library where ours is: whatever we failed to import beforehand would run."""
    library = hostile / Path(os.__file__).parent.relative_to("/")
    for name in ("encodings", "json", "ctypes"):
        (library / name).mkdir(parents=True)
    spy = "open('/spied', 'w').write('x')\n"
    for name in (
        "encodings/ascii.py",
        "encodings/idna.py",
        "traceback.py",
        "linecache.py",
        "pwd.py",
        "stat.py",
    ):
        (library / name).write_text(spy)
    ended, text = await bench.run("ls", "/", image=hostile)
    assert ended.code == 0
    assert "spied" not in text
    with pytest.raises(StartFailed):
        await bench.spawner.run(bench.request("nope", image=hostile))
    assert list(bench.directory.glob("*/upper/spied")) == []


async def test_rights_are_docker_s(bench: Bench) -> None:
    ended, text = await bench.run("grep", "-E", "^(Cap|Seccomp:|NoNewPrivs)", "/proc/self/status")
    assert ended.code == 0
    found = dict(line.split(":\t") for line in text.splitlines())
    assert found["CapInh"] == found["CapAmb"] == "0" * 16
    assert found["CapBnd"] == found["CapEff"] == found["CapPrm"] == "00000000a80425fb"
    assert (found["Seccomp"], found["NoNewPrivs"]) == ("2", "0")

    def guest(config: dict[str, Any]) -> None:
        config["process"]["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [7]}
        config["process"]["noNewPrivileges"] = True
        config["process"]["capabilities"]["effective"] = config["process"]["capabilities"]["permitted"] = []

    _, text = await bench.run(
        "sh",
        "-c",
        "grep -E '^(Cap|Nono|NoNew)' /proc/self/status; id; echo $HOME; echo x > /dev/stdout",
        change=guest,
    )
    assert "CapEff:\t0000000000000000" in text
    assert "NoNewPrivs:\t1" in text
    assert "uid=1000(guest) gid=1000" in text
    assert "groups=7" in text or "7" in text
    assert text.endswith("/home/guest\nx\n")


async def test_rights_of_an_exec_are_the_same(bench: Bench) -> None:
    request = bench.request("sleep", "100")
    shim = await bench.spawner.run(request)
    process = {
        **request.config["process"],
        "args": [
            "sh",
            "-c",
            "grep -E '^(CapBnd|Seccomp:)' /proc/self/status > /tmp/x; cat /proc/self/cgroup >> /tmp/x",
        ],
    }
    await shim.exec("x", process)
    assert await shim.exec_exited("x") == 0
    text = (request.bundle / "upper/tmp/x").read_text()
    assert "CapBnd:\t00000000a80425fb" in text
    assert "Seccomp:\t2" in text
    assert all(line.endswith(":/") for line in text.splitlines() if line[0].isdigit())
    await shim.signal(9)
    await shim.exited


async def test_masked_and_read_only(bench: Bench) -> None:
    script = "cat /proc/keys /proc/timer_list | wc -c; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/shmmni; mkdir /sys/x"  # noqa: E501
    ended, text = await bench.run("sh", "-c", script)
    assert ended.code != 0
    assert text.startswith("0\n0\n")
    assert text.count("Read-only file system") == 2


async def test_read_only_root(bench: Bench) -> None:
    ended, text = await bench.run("touch", "/x", change=lambda c: c["root"].update(readonly=True))
    assert ended.code == 1
    assert "Read-only file system" in text


async def test_devices(bench: Bench) -> None:
    ended, text = await bench.run(
        "sh",
        "-c",
        "echo x > /dev/null && head -c 4 /dev/urandom | wc -c && mknod /tmp/sda b 8 0 && cat /tmp/sda",
    )
    assert ended.code == 1
    assert text.startswith("4\n")
    assert "Operation not permitted" in text


async def test_bind_mount_options(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/file").write_text("here\n")
    entries = [
        {"destination": "/ro", "source": str(tmp_path / "data"), "type": "bind", "options": ["rbind", "ro"]},
        {
            "destination": "/rro",
            "source": str(tmp_path / "data"),
            "type": "bind",
            "options": ["rbind", "rro", "rprivate"],
        },
        {
            "destination": "/one/file",
            "source": str(tmp_path / "data/file"),
            "type": "bind",
            "options": ["bind", "noexec"],
        },
    ]
    ended, text = await bench.run("sh", "-c", "cat /one/file; touch /ro/x; touch /rro/x; echo more >> /one/file",  # noqa: E501
                                  change=lambda c: c["mounts"].extend(entries))  # fmt: skip
    assert ended.code == 0
    assert text.startswith("here\n")
    assert text.count("Read-only file system") == 2
    assert (tmp_path / "data/file").read_text() == "here\nmore\n"
    with pytest.raises(StartFailed, match="user namespace"):
        entry = {"destination": "/t", "type": "bind", "source": "/tmp", "options": ["bind", "idmap"]}
        await bench.spawner.run(bench.request("true", change=lambda c: c["mounts"].append(entry)))
