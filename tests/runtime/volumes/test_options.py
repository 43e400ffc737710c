"""`volume create --opt`: a tmpfs, a directory, another host's; mounted as long as somebody uses it."""

import os
import subprocess
from pathlib import Path

import docker
import pytest
from docker.errors import APIError

from tests.conftest import EngineProcess

TMPFS = ["--opt", "type=tmpfs", "--opt", "device=tmpfs"]


def mounted(engine: EngineProcess) -> list[str]:
    """What is mounted on volumes of this engine on the host: the file systems' kinds."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split(" - ")[1].split()[0] for line in lines if f"{engine.data_root}/volumes/" in line]


def refused(engine: EngineProcess, *words: str) -> str:
    done = engine.docker("volume", "create", *words, check=False)
    assert done.returncode == 1
    return done.stderr.strip().removeprefix("Error response from daemon: ")


def test_what_docker_says_to_options_that_make_no_volume(engine: EngineProcess) -> None:
    assert refused(engine, "--opt", "foo=bar", "a1") == 'create a1: invalid option: "foo"'
    assert refused(engine, "--opt", "Type=tmpfs", "a1") == 'create a1: invalid option: "Type"'
    assert refused(engine, "--opt", "type=tmpfs", "a1") == 'create a1: missing required option: "device"'
    assert refused(engine, "--opt", "device=tmpfs", "a1") == 'create a1: missing required option: "type"'
    assert refused(engine, "--opt", "o=size=1m", "a1") == 'create a1: missing required option: "device"'
    assert refused(engine, "--opt", "size=1m", "a1") == (
        "create a1: quota size requested but no quota support"
    )
    assert engine.docker("volume", "ls", "-q").stdout == ""


def test_a_tmpfs_is_there_while_somebody_uses_it(engine: EngineProcess, client: docker.DockerClient) -> None:
    engine.docker("volume", "create", *TMPFS, "--opt", "o=size=10m,uid=1000,noexec", "fast")
    assert client.volumes.get("fast").attrs["Options"] == {
        "device": "tmpfs",
        "o": "size=10m,uid=1000,noexec",
        "type": "tmpfs",
    }
    assert mounted(engine) == []
    first = client.containers.run("busybox", "sleep 1000", detach=True, volumes=["fast:/v"])
    assert mounted(engine) == ["tmpfs"]
    assert first.exec_run("sh -c 'echo kept > /v/file; stat -c %u /v; df -m /v | tail -1'").output.split()[
        :3
    ] == [b"1000", b"tmpfs", b"10"]
    assert b"noexec" in first.exec_run("grep ' /v ' /proc/mounts").output
    read = client.containers.run("busybox", "cat /v/file", volumes=["fast:/v:ro"], remove=True)
    assert read == b"kept\n"
    assert mounted(engine) == ["tmpfs"]  # the first one still has it
    first.stop(timeout=0)
    first.remove()  # waits for what the end takes away
    assert mounted(engine) == []
    read = client.containers.run("busybox", "ls /v", volumes=["fast:/v"], remove=True)
    assert read == b""


def test_a_directory_of_the_host_by_a_name(
    engine: EngineProcess, client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("of the host\n")
    engine.docker(
        "volume", "create", "--opt", "type=none", "--opt", f"device={tmp_path}", "-o", "o=bind", "dir"
    )
    assert (
        client.containers.run("busybox", "cat /v/file", volumes=["dir:/v"], remove=True) == b"of the host\n"
    )
    client.containers.run("busybox", "touch /v/new", volumes=["dir:/v"], remove=True)
    assert (tmp_path / "new").exists()
    engine.docker(
        "volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind,ro", "read"
    )
    done = engine.docker("run", "--rm", "-v", "read:/v", "busybox", "touch", "/v/no", check=False)
    assert "Read-only file system" in done.stderr
    engine.docker("volume", "rm", "dir", "read")
    assert (tmp_path / "file").read_text() == "of the host\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ["type=none", "device=/no/such", "o=bind"],
            "mount /no/such:{path}, flags: 0x1000: no such file or directory",
        ),
        (
            ["type=none", "device=/no/such", "o=rbind,ro"],
            "mount /no/such:{path}, flags: 0x5001: no such file or directory",
        ),
        (
            ["type=bogus", "device=x"],
            "mount x:{path}: no such device (this kernel has no file system bogus: modprobe bogus)",
        ),
    ],
)
def test_what_cannot_be_mounted_is_said_and_leaves_nothing(
    engine: EngineProcess, options: list[str], sentence: str
) -> None:
    words = [word for option in options for word in ("--opt", option)]
    engine.docker("volume", "create", *words, "odd")
    path = engine.data_root / "volumes/odd/_data"
    done = engine.docker("run", "--rm", "-v", "odd:/v", "busybox", "true", check=False)
    assert done.returncode in (125, 127)  # as the docker command reads the words of an error
    expected = f"error while mounting volume '{path}': failed to mount local volume: {sentence}"
    assert expected.format(path=path) in done.stderr
    assert engine.docker("ps", "-aq").stdout == "" and mounted(engine) == []
    engine.docker("volume", "rm", "odd")


def test_another_host_is_looked_up_before_it_is_asked(engine: EngineProcess) -> None:
    """No NFS server is needed to see what the kernel is asked for."""
    for address in ("localhost", "127.0.0.1"):
        engine.docker(
            *("volume", "create", "--opt", "type=nfs", "--opt", "device=:/export"),
            *("--opt", f"o=addr={address},vers=4,port=1,soft", f"of-{address}"),
        )
        done = engine.docker("run", "--rm", "-v", f"of-{address}:/v", "busybox", "true", check=False)
        assert "failed to mount local volume: mount :/export:" in done.stderr
        assert ", data: addr=127.0.0.1,vers=4,port=1,soft: " in done.stderr.replace("::1", "127.0.0.1")
    engine.docker(
        "volume", "create", "-o", "type=nfs", "-o", "device=:/x", "-o", "o=addr=no.such.invalid", "no"
    )
    done = engine.docker("run", "--rm", "-v", "no:/v", "busybox", "true", check=False)
    assert "error resolving passed in network volume address: lookup no.such.invalid: " in done.stderr


def test_cp_into_a_stopped_container_reaches_the_mount(
    engine: EngineProcess, client: docker.DockerClient, tmp_path: Path
) -> None:
    engine.docker("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind", "dir")
    engine.docker("create", "--name", "box", "-v", "dir:/v", "busybox", "true")
    (tmp_path.parent / "sent").write_text("sent\n")
    engine.docker("cp", str(tmp_path.parent / "sent"), "box:/v/")
    assert (tmp_path / "sent").read_text() == "sent\n"
    assert mounted(engine) == []


def test_an_empty_directory_by_a_name_is_filled_from_the_image(engine: EngineProcess, tmp_path: Path) -> None:
    engine.docker("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind", "dir")
    engine.docker("create", "-v", "dir:/bin", "busybox", "true")
    assert os.access(tmp_path / "busybox", os.X_OK)


def test_prune_leaves_what_lies_elsewhere(engine: EngineProcess) -> None:
    engine.docker("volume", "create", *TMPFS, "fast")
    engine.docker("volume", "create", "plain")
    assert "plain" in engine.docker("volume", "prune", "-af").stdout
    assert engine.docker("volume", "ls", "-q").stdout == "fast\n"


def test_the_engine_may_be_killed_while_a_volume_is_mounted(own_engine: EngineProcess) -> None:
    engine = own_engine.start()
    engine.docker("volume", "create", *TMPFS, "fast")
    engine.docker("run", "-d", "--name", "one", "-v", "fast:/v", "busybox", "sleep", "1000")
    engine.docker("exec", "one", "sh", "-c", "echo kept > /v/file")
    engine.kill()
    engine.start()
    assert mounted(engine) == ["tmpfs"]
    assert engine.docker("run", "--rm", "-v", "fast:/v", "busybox", "cat", "/v/file").stdout == "kept\n"
    assert mounted(engine) == ["tmpfs"]
    engine.docker("rm", "-f", "one")
    assert mounted(engine) == []
    # And when what had it ended while there was no engine.
    engine.docker("run", "-d", "--name", "two", "-v", "fast:/v", "busybox", "sleep", "1000")
    pid = int(engine.docker("inspect", "-f", "{{.State.Pid}}", "two").stdout)
    engine.kill()
    assert mounted(engine) == ["tmpfs"]
    os.kill(pid, 9)
    engine.start()
    engine.docker("wait", "two")
    engine.docker("rm", "two")
    assert mounted(engine) == []


def test_users_are_named_and_what_is_used_stays(engine: EngineProcess, client: docker.DockerClient) -> None:
    engine.docker("volume", "create", *TMPFS, "fast")
    container = client.containers.run("busybox", "sleep 1000", detach=True, volumes=["fast:/v"])
    for force in (False, True):
        with pytest.raises(APIError) as caught:
            client.volumes.get("fast").remove(force=force)
        assert caught.value.explanation == f"remove fast: volume is in use - [{container.id}]"
    assert mounted(engine) == ["tmpfs"]


def test_filters(engine: EngineProcess) -> None:
    engine.docker("volume", "create", "fast")
    engine.docker("volume", "create", "--label", "kind=x", "plain")

    def names(condition: str) -> list[str]:
        return engine.docker("volume", "ls", "-q", "--filter", condition).stdout.split()

    assert names("name=^f") == ["fast"] and names("name=lai") == ["plain"] and names("name=[") == []
    assert names("driver=local") == ["fast", "plain"] and names("driver=loc") == []
    assert names("label=kind") == ["plain"] and names("dangling=1") == ["fast", "plain"]
    done = engine.docker("volume", "ls", "--filter", "dangling=maybe", check=False)
    assert "invalid filter 'dangling=[maybe]'" in done.stderr
    done = subprocess.run(
        ["docker", "-H", engine.address, "volume", "ls", "--filter", "bad=1"], capture_output=True, text=True
    )
    assert "invalid filter 'bad'" in done.stderr
