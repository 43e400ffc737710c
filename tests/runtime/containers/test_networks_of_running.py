"""What a running container sees of a change of its networks or of its name."""

from pathlib import Path

import docker
from docker.models.containers import Container
from docker.models.networks import Network
from dockmagic_runtime.config import EngineConfig

from tests.conftest import EngineProcess


def _sleeper(client: docker.DockerClient, name: str, network: str) -> Container:
    return client.containers.run("busybox", ["sleep", "1000"], name=name, network=network, detach=True)


def _read(container: Container, path: str) -> str:
    text: str = container.exec_run(["cat", path]).output.decode()
    return text


def _address(container: Container, network: Network) -> str:
    container.reload()
    address: str = container.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"]
    return address


def test_etc_follows_the_networks(client: docker.DockerClient) -> None:
    network = client.networks.create("joined")
    container = _sleeper(client, "roamer", "bridge")
    own_line = f"\t{container.id[:12]}\n"
    assert _read(container, "/etc/hosts").count(own_line) == 1
    assert "127.0.0.11" not in _read(container, "/etc/resolv.conf")

    network.connect(container)
    address = _address(container, network)
    assert f"{address}{own_line}" in _read(container, "/etc/hosts")
    assert "nameserver 127.0.0.11\n" in _read(container, "/etc/resolv.conf")

    network.disconnect(container)
    assert address not in _read(container, "/etc/hosts")
    assert _read(container, "/etc/hosts").count(own_line) == 1
    assert "127.0.0.11" not in _read(container, "/etc/resolv.conf")


def test_resolvers_answer_to_the_new_name(client: docker.DockerClient) -> None:
    network = client.networks.create("renaming")
    named, asking = _sleeper(client, "before", "renaming"), _sleeper(client, "asking", "renaming")
    address = _address(named, network)
    named.rename("after")
    found = asking.exec_run(["nslookup", "after", "127.0.0.11"])
    assert found.exit_code == 0
    assert address in found.output.decode()
    assert asking.exec_run(["nslookup", "before", "127.0.0.11"]).exit_code != 0
    named.reload()
    assert "after" in named.attrs["NetworkSettings"]["Networks"]["renaming"]["DNSNames"]


def test_network_none_has_loopback_only(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", ["sleep", "60"], network_mode="none", detach=True)
    code, links = container.exec_run(["ip", "-o", "link"])
    assert code == 0 and links.count(b"\n") == 1 and b"LOOPBACK,UP" in links
    container.reload()
    key = Path(container.attrs["NetworkSettings"]["SandboxKey"])
    assert key.stat().st_ino == Path(f"/proc/{container.attrs['State']['Pid']}/ns/net").stat().st_ino
    assert key.stat().st_ino != Path("/proc/self/ns/net").stat().st_ino


def test_a_container_that_left_its_only_network_leaves_nothing(own_engine: EngineProcess) -> None:
    engine = own_engine.start()
    config = EngineConfig(data_root=engine.data_root)
    engine.docker("network", "create", "only")
    engine.docker("run", "-d", "--name", "alone", "--network", "only", "busybox", "sleep", "1000")
    engine.docker("network", "disconnect", "only", "alone")
    assert len(list((config.run_root / "netns").iterdir())) == 1
    engine.docker("rm", "-f", "alone")
    engine.docker("network", "rm", "only")
    assert list((config.run_root / "netns").iterdir()) == []
    engine.stop()
    assert not Path("/sys/class/net", config.bridge).exists()
