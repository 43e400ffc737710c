"""From the flags of `run` to the body that the engine gets."""

from pathlib import Path
from typing import Any

import pytest

from dockmagic.errors import UsageMistake
from dockmagic.grammar import docker
from dockmagic.grammar.creation import container_config
from dockmagic.grammar.filters import moment
from dockmagic.grammar.ports import port_map


def config(*words: str, stdin: bool = False) -> dict[str, Any]:
    with docker.commands["create"].make_context("docker create", [*words, "busybox", "true"]) as context:
        given = dict(context.params)
    return container_config(given.pop("image"), given.pop("command"), given, stdin=stdin)


def host(*words: str) -> dict[str, Any]:
    return config(*words)["HostConfig"]


def test_the_plain_container() -> None:
    body = config()
    assert body["Image"] == "busybox"
    assert body["Cmd"] == ["true"]
    assert body["Env"] == []
    assert body["HostConfig"] == {}
    assert not body["Tty"] and not body["OpenStdin"]


def test_a_cells_body_opens_stdin_once() -> None:
    body = config(stdin=True)
    assert body["OpenStdin"] and body["StdinOnce"]


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("-m 64m", "Memory", 64 << 20),
        ("--memory-swap -1", "MemorySwap", -1),
        ("--cpus 0.5", "NanoCpus", 500_000_000),
        ("--cpuset-cpus 0-1", "CpusetCpus", "0-1"),
        ("-c 512", "CpuShares", 512),
        ("--pids-limit 10", "PidsLimit", 10),
        ("--shm-size 1m", "ShmSize", 1 << 20),
        ("--ulimit nofile=1024:2048", "Ulimits", [{"Name": "nofile", "Soft": 1024, "Hard": 2048}]),
        ("--ulimit core=0", "Ulimits", [{"Name": "core", "Soft": 0, "Hard": 0}]),
        ("--cap-add NET_ADMIN --cap-add SYS_TIME", "CapAdd", ["NET_ADMIN", "SYS_TIME"]),
        ("--cap-drop ALL", "CapDrop", ["ALL"]),
        ("--privileged", "Privileged", True),
        ("--read-only", "ReadonlyRootfs", True),
        ("--init", "Init", True),
        ("--rm", "AutoRemove", True),
        ("-P", "PublishAllPorts", True),
        ("--restart on-failure:3", "RestartPolicy", {"Name": "on-failure", "MaximumRetryCount": 3}),
        ("--restart unless-stopped", "RestartPolicy", {"Name": "unless-stopped", "MaximumRetryCount": 0}),
        ("-v data:/data -v /etc:/host:ro", "Binds", ["data:/data", "/etc:/host:ro"]),
        ("--tmpfs /run:size=1m --tmpfs /tmp", "Tmpfs", {"/run": "size=1m", "/tmp": ""}),
        ("--add-host db:10.0.0.1", "ExtraHosts", ["db:10.0.0.1"]),
        ("--dns 1.1.1.1", "Dns", ["1.1.1.1"]),
        ("--sysctl net.core.somaxconn=9", "Sysctls", {"net.core.somaxconn": "9"}),
        ("--pid host", "PidMode", "host"),
        ("--security-opt no-new-privileges", "SecurityOpt", ["no-new-privileges"]),
        ("--network none", "NetworkMode", "none"),
        (
            "--device /dev/fuse",
            "Devices",
            [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}],
        ),
        (
            "--device /dev/null:/dev/hole:r",
            "Devices",
            [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/hole", "CgroupPermissions": "r"}],
        ),
        ("--device-read-bps /dev/sda:1m", "BlkioDeviceReadBps", [{"Path": "/dev/sda", "Rate": 1 << 20}]),
        (
            "--mount type=bind,source=/etc,target=/e,readonly",
            "Mounts",
            [{"Type": "bind", "Target": "/e", "Source": "/etc", "ReadOnly": True}],
        ),
        (
            "--mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770",
            "Mounts",
            [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}}],
        ),
        ("--mount src=data,dst=/d", "Mounts", [{"Type": "volume", "Target": "/d", "Source": "data"}]),
        (
            "--log-driver json-file --log-opt max-size=1m",
            "LogConfig",
            {"Type": "json-file", "Config": {"max-size": "1m"}},
        ),
        ("--gpus all", "DeviceRequests", [{"Count": -1, "Capabilities": [["gpu"]]}]),
    ],
)
def test_host_options(words: str, key: str, value: Any) -> None:
    assert host(*words.split()) == {key: value}


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("-h box", "Hostname", "box"),
        ("-u 1000:1000", "User", "1000:1000"),
        ("-w /src", "WorkingDir", "/src"),
        ("--entrypoint /bin/sh", "Entrypoint", ["/bin/sh"]),
        ("--stop-signal SIGQUIT", "StopSignal", "SIGQUIT"),
        ("--stop-timeout 3", "StopTimeout", 3),
        ("-l a=1 --label b", "Labels", {"a": "1", "b": ""}),
        ("-v /data", "Volumes", {"/data": {}}),
        ("--expose 7000-7001/udp", "ExposedPorts", {"7000/udp": {}, "7001/udp": {}}),
        ("--no-healthcheck", "Healthcheck", {"Test": ["NONE"]}),
        (
            "--health-cmd true --health-interval 1s --health-retries 2",
            "Healthcheck",
            {"Test": ["CMD-SHELL", "true"], "Interval": 10**9, "Retries": 2},
        ),
    ],
)
def test_config_options(words: str, key: str, value: Any) -> None:
    assert config(*words.split())[key] == value


def test_a_published_port_is_exposed_too() -> None:
    body = config("-p", "127.0.0.1:8080:80")
    assert body["ExposedPorts"] == {"80/tcp": {}}
    assert body["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("80", {"80/tcp": [("", "")]}),
        ("8080:80", {"80/tcp": [("", "8080")]}),
        ("53:53/udp", {"53/udp": [("", "53")]}),
        ("127.0.0.1::80", {"80/tcp": [("127.0.0.1", "")]}),
        ("[::1]:8080:80", {"80/tcp": [("::1", "8080")]}),
        ("8000-8001:80-81", {"80/tcp": [("", "8000")], "81/tcp": [("", "8001")]}),
        ("8000-8010:80", {"80/tcp": [("", "8000-8010")]}),
    ],
)
def test_port_specifications(spec: str, expected: dict[str, list[tuple[str, str]]]) -> None:
    bindings = {
        port: [(b["HostIp"], b["HostPort"]) for b in found] for port, found in port_map((spec,)).items()
    }
    assert bindings == expected


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("99999:80", "docker: invalid hostPort: 99999"),
        ("80:x", "docker: invalid containerPort: x"),
        ("80:80/icmp", "docker: invalid proto: icmp"),
        (
            "8000-8003:80-81",
            "docker: invalid ranges specified for container and host Ports: 80-81 and 8000-8003",
        ),
    ],
)
def test_bad_ports(spec: str, sentence: str) -> None:
    with pytest.raises(UsageMistake) as caught:
        port_map((spec,))
    assert str(caught.value) == sentence
    assert caught.value.exit_code == 125


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "env"
    file.write_text("# a comment\nA=1\n\nFROM_KERNEL\nNOT_SET\n")
    monkeypatch.setenv("FROM_KERNEL", "here")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert config("--env-file", str(file), "-e", "B=x y")["Env"] == ["A=1", "FROM_KERNEL=here", "B=x y"]


def test_a_missing_env_file_is_named() -> None:
    with pytest.raises(UsageMistake, match="docker: open /no/such: no such file or directory"):
        config("--env-file", "/no/such")


def test_paths_are_read_as_the_users_shell_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = str(tmp_path)
    for source in ("$PWD", "${PWD}", "$(pwd)", "."):
        assert host("-v", f"{source}:/src") == {"Binds": [f"{here}:/src"]}
    assert host("--mount", "type=bind,src=sub,dst=/s")["Mounts"][0]["Source"] == f"{here}/sub"


def test_networks_with_addresses_and_aliases() -> None:
    body = config(
        "--network", "front", "--ip", "10.1.0.5", "--network-alias", "web", "--network", "name=back,alias=db"
    )
    assert body["HostConfig"]["NetworkMode"] == "front"
    assert body["NetworkingConfig"]["EndpointsConfig"] == {
        "front": {"Aliases": ["web"], "IPAMConfig": {"IPv4Address": "10.1.0.5"}},
        "back": {"Aliases": ["db"]},
    }


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--ulimit nofile", "invalid ulimit argument: nofile"),
        ("--restart :3", "no policy provided before colon"),
        ("--mount type=bind,source=/etc", "target is required"),
        ("--mount target=/x,colour=red", "unexpected key 'colour'"),
        ("--add-host db", 'bad format for add-host: "db"'),
        ("--security-opt seccomp=/no/such", "opening seccomp profile"),
    ],
)
def test_bad_values_are_told(words: str, sentence: str) -> None:
    with pytest.raises(UsageMistake) as caught:
        config(*words.split())
    assert sentence in str(caught.value)
    assert caught.value.exit_code == 125


@pytest.mark.parametrize("text", ["yesterday", "2024-13-01", "1.\n2", ""])
def test_a_time_that_is_none_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="failed to parse value as time or duration"):
        moment(text)
