"""A port that is taken: who has it, and the ways out; other ports and mounts for an existing container."""

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from .conftest import IMAGE, LABEL, Run


@pytest.fixture
def other(docker_host: str) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=docker_host)
    yield client
    client.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def run_line(name: str, *options: str) -> str:
    always = f"--stop-signal KILL --name {name} --label {LABEL}=1"
    return f"%container run -d {always} {' '.join(options)} {IMAGE} sleep 1000"


def test_a_container_has_the_port(run: Run, name: str) -> None:
    port = free_port()
    run(run_line(f"{name}-db", "-p", f"{port}:3306"))
    ran = run(run_line(name, "-p", f"{port}:3306"))
    lines = str(ran.error).splitlines()
    assert lines[0].endswith(f"Bind for 0.0.0.0:{port} failed: port is already allocated")
    assert lines[1] == (
        f"Port {port} belongs to the container {name}-db, which publishes its port 3306 there. Either"
    )
    assert lines[2].startswith("  take another port of this host, such as   -p ")
    suggested = int(lines[2].split()[-1].partition(":")[0])
    assert lines[3].split() == f"or remove what has it %container rm -f {name}-db".split()
    assert lines[4].startswith(f"The container {name} has been created")
    assert ran.error.exit_code == 125
    # Both ways out work.
    run(f"%container update -p {suggested}:3306 {name}")
    assert run(f"%container start {name}").error is None
    run(f"%container rm -f {name}-db")
    assert run(run_line(f"{name}-again", "-p", f"{port}:3306")).error is None


def test_a_process_has_the_port(run: Run, name: str) -> None:
    with socket.create_server(("0.0.0.0", 0)) as server:
        port = server.getsockname()[1]
        ran = run(run_line(name, "--rm", "-p", f"{port}:80"))
        lines = str(ran.error).splitlines()
        assert lines[0].endswith("address already in use")
        command = Path("/proc/self/comm").read_text().strip()
        pid = Path("/proc/self").readlink()
        assert lines[1] == f"{command} (process {pid}) of this host listens on port {port}. Either"
        assert lines[3].split() == f"or end what has it !kill {pid}".split() and len(lines) == 4


def test_the_port_map_tells_who_listens(run: Run, name: str) -> None:
    run(run_line(name, "-p", "80"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        view = run("%container ports").value
        text = view.text()
        assert name in text and "Processes of this host that listen" in text
        line = next(row for row in text.splitlines() if f"127.0.0.1:{server.getsockname()[1]} " in row)
        assert line.split()[1:] == [
            Path("/proc/self/comm").read_text().strip(),
            str(Path("/proc/self").readlink()),
            "tcp",
        ]
    assert "Processes" not in run(f"%container ports {name}").value.text()


def test_other_ports_and_mounts_keep_the_files(
    run: Run, name: str, other: docker.DockerClient, tmp_path: Path
) -> None:
    run(run_line(name, "-p", "80", "-v", "/anonymous"))
    found = other.containers.get(name)
    found.exec_run(["sh", "-c", "echo kept > /file; echo volume > /anonymous/file"])
    (tmp_path / "outside").write_text("from the host")
    port = free_port()
    assert run(f"%container update -p {port}:81 -v {tmp_path}:/host {name}").error is None
    again = other.containers.get(name)
    assert again.id == found.id and again.status == "running"
    assert {key: value and value[0]["HostPort"] for key, value in again.ports.items()} == {
        "80/tcp": again.ports["80/tcp"][0]["HostPort"],
        "81/tcp": str(port),
    }
    read = again.exec_run(["cat", "/file", "/anonymous/file", "/host/outside"]).output
    assert read == b"kept\nvolume\nfrom the host"
    assert run(f"%container update --unpublish 81 --unmount /host {name}").error is None
    last = other.containers.get(name)
    assert list(last.ports) == ["80/tcp", "81/tcp"] and not last.ports["81/tcp"]
    assert [mount["Destination"] for mount in last.attrs["Mounts"]] == ["/anonymous"]
    assert last.attrs["HostConfig"]["Binds"] is None


def test_what_cannot_be_is_put_back(run: Run, name: str, other: docker.DockerClient) -> None:
    run(run_line(name, "-p", "80"))
    before = other.containers.get(name)
    with socket.create_server(("0.0.0.0", 0)) as server:
        ran = run(f"%container update -p {server.getsockname()[1]}:80 {name}")
    assert "address already in use" in str(ran.error) and "listens on port" in str(ran.error)
    after = other.containers.get(name)
    assert after.status == "running"
    assert after.attrs["HostConfig"]["PortBindings"] == before.attrs["HostConfig"]["PortBindings"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--unpublish 81", "does not publish 81/tcp"),
        ("--unmount /nowhere", "nothing is mounted at /nowhere in container"),
        ("-v /data", "-v /data: say what to mount there, as in -v data:/data"),
        ("-v relative/path:/x", "includes invalid characters"),
        ("-v a:/x -v b:/x", "Duplicate mount point: /x"),
    ],
)
def test_refusals(run: Run, name: str, other: docker.DockerClient, options: str, sentence: str) -> None:
    run(run_line(name))
    pid = other.containers.get(name).attrs["State"]["Pid"]
    assert sentence in str(run(f"%container update {options} {name}").error)
    assert other.containers.get(name).attrs["State"]["Pid"] == pid, "it was not touched"


def test_with_rm_it_would_be_gone(run: Run, name: str) -> None:
    run(run_line(name, "--rm"))
    assert "would be gone when it stops" in str(run(f"%container update -p 80 {name}").error)


def test_listeners_of_both_families_and_protocols(run: Run, name: str) -> None:
    code = (
        "import socket,sys\n"
        "a = socket.create_server(('::1', 0), family=socket.AF_INET6)\n"
        "b = socket.socket(type=socket.SOCK_DGRAM); b.bind(('127.0.0.1', 0))\n"
        "print(a.getsockname()[1], b.getsockname()[1], flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(["python3", "-c", code], stdin=-1, stdout=-1, text=True)
    assert process.stdout and process.stdin
    six, udp = process.stdout.readline().split()
    text = run("%container ports").value.text()
    process.stdin.close()
    process.wait()
    rows = {tuple(line.split()) for line in text.splitlines()}
    assert any(row[:1] == (f"[::1]:{six}",) and row[-1] == "tcp" for row in rows), text
    assert any(row[:1] == (f"127.0.0.1:{udp}",) and row[-2:] == (str(process.pid), "udp") for row in rows)
