"""docker-py on containers: made with every option, run, watched, entered, changed, copied, removed."""

import io
import itertools
import json
import socket as sockets
import struct
import tarfile
import threading
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, Healthcheck, LogConfig, Mount, Ulimit


def test_run(client: docker.DockerClient) -> None:
    assert client.containers.run("busybox", "echo hello", remove=True) == b"hello\n"
    assert (
        client.containers.run("busybox", ["sh", "-c", "echo err >&2"], stderr=True, remove=True) == b"err\n"
    )
    lines = client.containers.run("busybox", ["sh", "-c", "echo a; echo b"], stream=True)
    assert b"".join(lines) == b"a\nb\n"
    with pytest.raises(ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo why >&2; exit 3"], remove=True)
    assert (caught.value.exit_status, caught.value.stderr) == (3, b"why\n")
    with pytest.raises(APIError) as refused:
        client.containers.run("busybox", "nosuch", remove=True)
    assert (
        refused.value.status_code == 400 and "executable file not found in $PATH" in refused.value.explanation
    )
    with pytest.raises(ImageNotFound):
        client.containers.create("nosuch/image:never", "true")


def test_every_option(api: docker.APIClient, client: docker.DockerClient, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").touch()
    client.containers.create("busybox", "true", name="lender", volumes={"lent": {"bind": "/lent"}})
    host = api.create_host_config(
        binds={str(tmp_path): {"bind": "/bound", "mode": "ro"}},
        port_bindings={"80/tcp": ("127.0.0.1", None), 53: None},
        publish_all_ports=True,
        dns=["192.0.2.53"],
        dns_search=["example.org"],
        dns_opt=["ndots:2"],
        volumes_from=["lender:ro"],
        network_mode="bridge",
        restart_policy={"Name": "on-failure", "MaximumRetryCount": 2},
        cap_add=["NET_ADMIN"],
        cap_drop=["MKNOD"],
        devices=["/dev/null:/dev/nothing:rw"],
        extra_hosts={"other": "192.0.2.7"},
        read_only=True,
        security_opt=["no-new-privileges"],
        ulimits=[Ulimit(name="nofile", soft=100, hard=200)],
        log_config=LogConfig(type=LogConfig.types.JSON, config={"max-size": "1m"}),
        mem_limit="64m",
        memswap_limit="64m",
        mem_reservation="32m",
        group_add=["7"],
        cpu_quota=50_000,
        cpu_period=100_000,
        cpu_shares=512,
        cpuset_cpus="0",
        shm_size="1m",
        sysctls={"net.ipv4.ip_default_ttl": "33"},
        tmpfs={"/scratch": "size=1m"},
        oom_score_adj=500,
        pids_limit=50,
        init=True,
        mounts=[Mount("/volume", "mounted", type="volume", labels={"of": "test"})],
        device_cgroup_rules=["c 1:3 r"],
        cgroupns="private",
        ipc_mode="shareable",
    )
    script = (
        "id -G; hostname; pwd; ulimit -n; cat /proc/sys/net/ipv4/ip_default_ttl; echo $WORD; ls -d /scratch;"
        "ls -l /dev/nothing | cut -c1; cat /etc/resolv.conf; grep other /etc/hosts; touch /no; ls /bound;"
        "touch /lent/no; grep NoNewPrivs /proc/self/status; exit 4"
    )
    identity = api.create_container(
        "busybox",
        ["-c", script],
        hostname="box",
        domainname="example.net",
        user="3:4",
        ports=[80, (53, "udp")],
        environment={"WORD": "said"},
        volumes=["/anonymous"],
        name="whole",
        entrypoint="sh",
        working_dir="/tmp",
        labels={"of": "test"},
        stop_signal="SIGINT",
        stop_timeout=3,
        healthcheck=Healthcheck(test=["NONE"]),
        host_config=host,
        platform="linux/amd64",
    )["Id"]
    api.start(identity)
    assert api.wait(identity)["StatusCode"] == 4
    told = api.logs(identity).decode()
    for line in (
        "4 7",
        "box",
        "/tmp",
        "100",
        "33",
        "said",
        "c",
        "/scratch",
        "file",
        "nameserver 192.0.2.53",
        "search example.org",
    ):
        assert f"{line}\n" in told, told
    for line in ("options ndots:2", "192.0.2.7\tother", "/no: Read-only file system", "NoNewPrivs:\t1"):
        assert line in told, told
    assert told.count("Read-only file system") == 2
    shown = api.inspect_container(identity)
    assert shown["Config"]["Labels"]["of"] == "test" and shown["Config"]["StopSignal"] == "SIGINT"
    assert (shown["HostConfig"]["Memory"], shown["HostConfig"]["OomScoreAdj"]) == (64 << 20, 500)
    assert {mount["Destination"] for mount in shown["Mounts"]} == {"/bound", "/lent", "/volume", "/anonymous"}


def test_options_by_name(client: docker.DockerClient) -> None:
    """The model's flat keywords."""
    container = client.containers.run(
        "busybox",
        "sleep 1000",
        detach=True,
        auto_remove=True,
        blkio_weight=None,
        cpu_count=None,
        environment=["A=b"],
        network="none",
        nano_cpus=250_000_000,
        privileged=True,
        tty=True,
        stdin_open=True,
        use_config_proxy=False,
        userns_mode="host",
        uts_mode="host",
        pid_mode="host",
        runtime=None,
        tmpfs={"/t": ""},
    )
    container.reload()
    assert container.attrs["HostConfig"]["NanoCpus"] == 250_000_000
    assert "A=b" in container.attrs["Config"]["Env"] and container.attrs["Config"]["Tty"]
    container.kill()
    with pytest.raises(NotFound):
        container.wait(condition="removed")
        container.reload()


def test_what_cannot_be_given_is_refused(client: docker.DockerClient) -> None:
    for options, sentence in (
        (
            {"device_requests": [DeviceRequest(count=-1, capabilities=[["gpu"]])]},
            "could not select device driver",
        ),
        ({"runtime": "nosuch"}, "unknown or invalid runtime name: nosuch"),
        ({"storage_opt": {"size": "1g"}}, "--storage-opt is"),
        ({"mem_limit": "1m"}, "Minimum memory limit allowed is 6MB"),
        ({"network": "nosuch"}, "network nosuch not found"),
        ({"name": "a b"}, "Invalid container name"),
    ):
        with pytest.raises(APIError) as caught:
            client.containers.run("busybox", "true", **options)
        assert 400 <= caught.value.status_code < 500 or "device driver" in sentence, caught.value
        assert sentence in caught.value.explanation


def test_found_and_listed(api: docker.APIClient, client: docker.DockerClient, container: Container) -> None:
    stopped = client.containers.create("busybox", "true", name="stopped", labels={"which": "1"})
    assert client.containers.get(container.short_id) == container
    assert client.containers.get(container.name) == container
    assert [each.id for each in client.containers.list()] == [container.id]
    assert {each.id for each in client.containers.list(all=True)} == {container.id, stopped.id}
    assert client.containers.list(all=True, filters={"label": "which=1", "status": "created"}) == [stopped]
    assert client.containers.list(all=True, limit=1) == [stopped]
    assert client.containers.list(since=container.id, all=True) == [stopped]
    assert client.containers.list(before=stopped.id) == [container]
    assert client.containers.list(sparse=True, ignore_removed=True)[0].id == container.id
    assert [set(each) for each in api.containers(quiet=True)] == [{"Id"}]
    assert api.containers(size=True, trunc=True, latest=True)[0]["SizeRootFs"] > 0
    container.reload()
    assert container.image.tags == ["busybox:latest"] and container.labels["of"] == "test"
    assert (container.name, container.status, len(container.id)) == (
        container.attrs["Name"][1:],
        "running",
        64,
    )
    with pytest.raises(NotFound, match="No such container: nosuch"):
        client.containers.get("nosuch")


def test_logs(api: docker.APIClient, container: Container) -> None:
    assert container.logs() == b"out\nerr\n"
    assert container.logs(stderr=False) == b"out\n" and container.logs(tail=1, stdout=True) == b"err\n"
    stamped = container.logs(timestamps=True).split()
    assert stamped[1::2] == [b"out", b"err"] and stamped[0].endswith(b"Z")
    assert container.logs(until=1) == b"" and container.logs(since=1) == b"out\nerr\n"
    followed = api.logs(container.id, stream=True, follow=True)
    assert next(followed) == b"out\n"
    container.kill()
    assert b"".join(followed) == b"err\n"


def test_attach(api: docker.APIClient, client: docker.DockerClient) -> None:
    echo = client.containers.create("busybox", "cat", stdin_open=True)
    channel = api.attach_socket(echo.id, params={"stdin": 1, "stdout": 1, "stream": 1})
    echo.start()
    channel._sock.sendall(b"said\n")
    channel._sock.shutdown(sockets.SHUT_WR)
    frame = channel._sock.recv(8, sockets.MSG_WAITALL)
    assert struct.unpack(">BxxxI", frame) == (1, 5)
    assert channel._sock.recv(100) == b"said\n"
    assert echo.wait()["StatusCode"] == 0
    channel.close()
    talker = client.containers.create("busybox", ["sh", "-c", "echo out; echo err >&2"])
    stream = talker.attach(stream=True, demux=True)
    talker.start()
    parts = list(stream)
    assert (b"out\n", None) in parts and (None, b"err\n") in parts
    assert talker.attach(logs=True, stream=False, stdout=True, stderr=False) == b"out\n"
    with talker.attach_socket(params={"stdout": 1, "logs": 1}) as plain:
        assert plain.read(12)[8:] == b"out\n"


def test_exec(api: docker.APIClient, container: Container) -> None:
    assert container.exec_run("echo hello") == (0, b"hello\n")
    code, output = container.exec_run(
        ["sh", "-c", "pwd; echo $A; id -u; exit 5"], workdir="/etc", environment={"A": "b"}, user="9"
    )
    assert (code, output) == (5, b"/etc\nb\n9\n")
    code, (out, err) = container.exec_run(["sh", "-c", "echo out; echo err >&2"], demux=True)
    assert (code, out, err) == (0, b"out\n", b"err\n")
    assert b"".join(container.exec_run(["sh", "-c", "echo a; echo b"], stream=True).output) == b"a\nb\n"
    assert container.exec_run("true", detach=True).exit_code in (None, 0), "it may be over already"
    talk = container.exec_run("cat", stdin=True, socket=True).output
    talk._sock.sendall(b"said\n")
    talk._sock.shutdown(sockets.SHUT_WR)
    assert talk.read()[8:] == b"said\n"
    identity = api.exec_create(
        container.id, ["sh", "-c", "stty size; read line"], tty=True, stdin=True, privileged=True
    )["Id"]
    terminal = api.exec_start(identity, tty=True, socket=True)
    api.exec_resize(identity, height=33, width=111)
    shown = api.exec_inspect(identity)
    assert shown["Running"] and shown["ProcessConfig"]["privileged"] and shown["ContainerID"] == container.id
    terminal._sock.sendall(b"\n")
    assert b"\r\n" in terminal.read()
    assert api.exec_inspect(identity)["ExitCode"] == 0
    with pytest.raises(NotFound, match="No such exec instance"):
        api.exec_inspect("0" * 64)


def test_files(api: docker.APIClient, container: Container) -> None:
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as tar:
        member = tarfile.TarInfo("file")
        member.size = 4
        tar.addfile(member, io.BytesIO(b"text"))
    assert container.put_archive("/tmp", spool.getvalue()) is True
    chunks, stat = container.get_archive("/tmp/file", encode_stream=True)
    assert (stat["name"], stat["size"], stat["linkTarget"]) == ("file", 4, "")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as tar:
        assert tar.extractfile("file").read() == b"text"  # type: ignore[union-attr]
    assert {"Path": "/tmp/file", "Kind": 1} in container.diff() == api.diff(container.id)
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.export(chunk_size=None)))) as tar:
        assert "tmp/file" in tar.getnames()
    with pytest.raises(NotFound, match="Could not find the file /nosuch in container"):
        container.get_archive("/nosuch")


def test_what_happens_to_it(api: docker.APIClient, client: docker.DockerClient, container: Container) -> None:
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.resize(20, 80)
    container.rename("renamed")
    assert client.containers.get("renamed") == container
    container.restart(timeout=0)
    container.stop(timeout=5)
    assert container.wait()["StatusCode"] == 3, "its trap"
    container.start()
    waiting: list[dict[str, int]] = []
    waiter = threading.Thread(
        target=lambda: waiting.append(container.wait(condition="next-exit", timeout=20))
    )
    waiter.start()
    container.kill(signal="KILL")
    waiter.join()
    container.reload()
    assert container.status == "exited"
    container.remove(v=True, force=True)
    with pytest.raises(NotFound):
        api.inspect_container(container.id)
    if waiting:  # it may have asked when all was over, and then waits for a removal
        assert waiting[0]["StatusCode"] == 137


def test_watched(api: docker.APIClient, container: Container) -> None:
    rows = container.top(ps_args="aux")
    assert "PID" in rows["Titles"] and len(rows["Processes"]) >= 1
    once = container.stats(stream=False)
    assert once["memory_stats"]["usage"] > 0 and once["id"] == container.id
    (first, second) = itertools.islice(container.stats(decode=True), 2)
    assert second["precpu_stats"]["cpu_usage"] == first["cpu_stats"]["cpu_usage"]
    assert api.stats(container.id, stream=False, one_shot=True)["pids_stats"]["current"] >= 1


def test_health(client: docker.DockerClient) -> None:
    check = Healthcheck(test=["CMD", "true"], interval=1_000_000_000)
    container = client.containers.run("busybox", "sleep 1000", detach=True, healthcheck=check)
    container.reload()
    assert container.health in ("starting", "healthy")
    for event in client.events(decode=True, since=1, filters={"container": container.id}):
        if event["Action"] == "health_status: healthy":
            break
    container.reload()
    assert container.health == "healthy"


def test_update(client: docker.DockerClient, container: Container) -> None:
    answer = container.update(
        mem_limit="64m", memswap_limit="128m", cpu_shares=100, restart_policy={"Name": "always"}
    )
    assert answer["Warnings"] in (None, [])
    container.reload()
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["CpuShares"], host["RestartPolicy"]["Name"]) == (64 << 20, 100, "always")


def test_commit(client: docker.DockerClient, container: Container) -> None:
    container.exec_run(["sh", "-c", "echo kept > /file"])
    image = container.commit(
        "docker-py/committed", "1", message="why", author="me", changes=["CMD cat /file"]
    )
    try:
        assert image.tags == ["docker-py/committed:1"]
        assert client.containers.run(image, remove=True) == b"kept\n"
        assert image.history()[0]["Comment"] == "why"
    finally:
        client.images.remove("docker-py/committed:1")


def test_ports(api: docker.APIClient, client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "sleep 1000", detach=True, ports={"80/tcp": None, 53: 0})
    container.reload()
    (binding,) = api.port(container.id, 80)
    assert container.ports["80/tcp"] == [binding] and int(binding["HostPort"]) > 1024
    assert api.port(container.id, 81) is None


def test_prune(client: docker.DockerClient, container: Container) -> None:
    ended = client.containers.create("busybox", "true", labels={"gone": "1"})
    kept = client.containers.create("busybox", "true")
    assert client.containers.prune(filters={"label": "gone"})["ContainersDeleted"] == [ended.id]
    assert client.containers.prune()["ContainersDeleted"] == [kept.id]
    assert client.containers.list() == [container]


def test_configuration_by_hand(api: docker.APIClient) -> None:
    endpoint = api.create_endpoint_config(aliases=["db"], ipv4_address=None)
    networking = api.create_networking_config({"bridge": api.create_endpoint_config()})
    assert endpoint["Aliases"] == ["db"]
    config = api.create_container_config(
        "busybox", "echo made", host_config=api.create_host_config(), networking_config=networking
    )
    identity = api.create_container_from_config(config, name="by-hand")["Id"]
    api.start("by-hand")
    api.wait(identity)
    assert api.logs("by-hand") == b"made\n"


def test_gone_in_the_middle(client: docker.DockerClient, container: Container) -> None:
    """A stream ends when its container does."""
    stream = container.stats()
    json.loads(next(stream))
    container.remove(force=True)
    for _ in stream:
        pass
