"""The path of a packet and what hangs on what, as the kernel tells it; seen through the engine's socket."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import docker
import pytest
from dockmagic_runtime.config import EngineConfig

from tests.conftest import EngineProcess

SERVER = "busybox nc -ll -p 80 -e cat"
NF_CALL = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")

Hops = list[dict[str, Any]]


def get(engine: EngineProcess, path: str, **asked: object) -> Any:
    client = engine.client()
    answer = client.api.get(f"{client.api.base_url}/dockmagic/{path}?{urlencode(asked)}")
    client.close()
    return answer.json()


def trace(engine: EngineProcess, source: str, target: str, port: int = 80) -> Hops:
    hops = get(engine, "trace", **{"from": source, "to": target, "port": port})
    assert isinstance(hops, list), hops
    return hops


def words(hops: Hops, what: str) -> list[str]:
    return [f"{hop['where']}: {hop['name']}: {hop['words']}" for hop in hops if hop["what"].startswith(what)]


@pytest.fixture
def net(engine: EngineProcess, client: docker.DockerClient) -> EngineProcess:
    """web and db in mynet, far in other, all listening on port 80."""
    for network in ("mynet", "other"):
        client.networks.create(network)
    for name, network in (("web", "mynet"), ("db", "mynet"), ("far", "other")):
        client.containers.run("busybox", SERVER, name=name, network=network, detach=True, stop_signal="KILL")
    for name in ("web", "db", "far"):
        wait_for_server(client, name)
    return engine


def wait_for_server(client: docker.DockerClient, name: str) -> None:
    script = "until grep -q ':0050 .* 0A ' /proc/net/tcp /proc/net/tcp6; do :; done"
    client.containers.get(name).exec_run(["sh", "-c", script])


@pytest.fixture
def seen_by_rules(request: pytest.FixtureRequest) -> Iterator[bool]:
    """Whether the kernel shows bridged packets to the packet filter; both, where it can."""
    wanted: bool = request.param
    if not NF_CALL.exists():
        if wanted:
            pytest.skip("this kernel has no br_netfilter loaded, so it never shows bridged packets to rules")
        yield False
        return
    before = NF_CALL.read_text()
    NF_CALL.write_text("1" if wanted else "0")
    yield wanted
    NF_CALL.write_text(before)


@pytest.mark.parametrize("seen_by_rules", [True, False], indirect=True)
def test_neighbours(net: EngineProcess, seen_by_rules: bool) -> None:
    hops = trace(net, "web", "db")
    described = {each["Name"]: each for each in net.client().api.networks()}
    bridge = f"br-{described['mynet']['Id'][:12]}"
    assert words(hops, "name")[0].endswith(", says the resolver at 127.0.0.11")
    assert words(hops, "route")[0].startswith("web: ") and "directly on eth0" in words(hops, "route")[0]
    ports = [hop["name"] for hop in hops if hop["what"] == "bridge port"]
    masters = [Path(f"/sys/class/net/{port}/master").resolve().name for port in ports]
    assert masters == [bridge, bridge] and len(set(ports)) == 2
    assert f"where {bridge} has learned" in words(hops, "bridge port")[1]
    [crossing] = [each for each in words(hops, "bridge") if each.startswith(f"host: {bridge}: ")]
    assert ("br_netfilter" in crossing) is seen_by_rules
    assert ("no rule sees it" in crossing) is not seen_by_rules
    assert bool(words(hops, "rule: accept")) is seen_by_rules
    assert words(hops, "answer")[0].startswith("db: 80/tcp: connected, after ")
    assert not any(hop["bad"] for hop in hops)


def test_between_networks_the_rule_that_drops_is_named(net: EngineProcess) -> None:
    hops = trace(net, "web", "far")
    assert "finds nobody under this name (they share no network)" in words(hops, "name")[0]
    assert "by the gateway" in words(hops, "route")[0]
    assert " → br-" in words(hops, "routing")[0]
    [dropped] = words(hops, "rule: drop")
    assert dropped.endswith(" forward: oifname @bridges drop")
    assert words(hops, "answer") == ["host: 80/tcp: no answer: the packet was dropped"]
    assert [hop["what"] for hop in hops if hop["bad"]] == ["rule: drop", "answer"]


def test_a_port_where_nothing_listens(net: EngineProcess) -> None:
    assert words(trace(net, "web", "db", 81), "answer") == [
        "db: 81/tcp: refused: the packet arrived, but nothing listens on this port"
    ]


def test_from_this_host_by_a_published_port(engine: EngineProcess, client: docker.DockerClient) -> None:
    client.containers.run("busybox", SERVER, name="pub", ports={"80/tcp": ("127.0.0.1", 18231)}, detach=True)
    wait_for_server(client, "pub")
    hops = trace(engine, "host", "pub")
    assert "published at 127.0.0.1:18231" in words(hops, "port")[0]
    rules = words(hops, "rule")
    assert any("publish: dnat ip to " in rule and "@published" in rule for rule in rules)
    assert any(rule.endswith("masquerade") for rule in rules)
    assert words(hops, "answer")[0].startswith("pub: 80/tcp: connected")
    # By its own address too, where it publishes nothing at that port.
    assert words(trace(engine, "host", "pub", 81), "answer")[0].startswith("pub: 81/tcp: refused")


def test_outside_the_address_is_rewritten(net: EngineProcess, lan: str) -> None:
    hops = trace(net, "web", lan, 9)
    assert any("masquerade" in rule for rule in words(hops, "rule"))
    assert words(hops, "answer") == [
        "host: 9/tcp: refused: the packet arrived, but nothing listens on this port"
    ]


@pytest.fixture
def lan() -> Iterator[str]:
    """The address of another host: a network namespace behind a pair of interfaces."""
    commands = [
        "ip netns add dm-lan",
        "ip link add dm-lan0 type veth peer name dm-lan1 netns dm-lan",
        "ip addr add 198.18.7.1/24 dev dm-lan0",
        "ip link set dm-lan0 up",
        "ip -n dm-lan addr add 198.18.7.2/24 dev dm-lan1",
        "ip -n dm-lan link set dm-lan1 up",
    ]
    for command in commands:
        subprocess.run(command.split(), check=True)
    yield "198.18.7.2"
    subprocess.run(["ip", "netns", "del", "dm-lan"], check=True)


def test_somebody_elses_firewall_is_named(net: EngineProcess) -> None:
    rules = "add table ip theirs; add chain ip theirs watch { type filter hook forward priority 50; }"
    rules += '; add rule ip theirs watch iifname "br-*" tcp dport 9 counter drop'
    subprocess.run(["nft", rules], check=True)
    try:
        hops = trace(net, "web", "198.18.200.1", 9)
        assert words(hops, "rule: drop") == ['host: theirs watch: iifname "br-*" tcp dport 9 counter drop']
    finally:
        subprocess.run(["nft", "delete table ip theirs"], check=True)


def test_what_cannot_be_traced_is_said(engine: EngineProcess, client: docker.DockerClient) -> None:
    client.containers.run("busybox", "sleep 1000", name="one", detach=True, stop_signal="KILL")
    client.containers.run("busybox", "sleep 1000", name="two", detach=True, stop_signal="KILL")
    client.containers.create("busybox", name="still")
    client.containers.run(
        "busybox", "sleep 1000", name="alone", network_mode="none", detach=True, stop_signal="KILL"
    )

    def said(**asked: object) -> str:
        return str(get(engine, "trace", **asked)["message"])

    assert said(to="one") == "missing parameters from and to: two containers, or host and a container"
    assert said(**{"from": "one", "to": "nosuch"}) == "No such container: nosuch"
    assert said(**{"from": "one", "to": "two"}) == (
        "container two exposes no TCP port: say which one is to be tried, such as 80"
    )
    assert "is not running" in said(**{"from": "one", "to": "still", "port": 80})
    assert said(**{"from": "alone", "to": "one", "port": 80}) == (
        "container alone has no network: nothing comes out of it or in"
    )
    hops = trace(engine, "one", "two")
    assert "the network bridge has no names; one that you create has" in words(hops, "name")[0]


def test_nothing_of_a_trace_stays(net: EngineProcess) -> None:
    trace(net, "web", "db")
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    assert "_trace" not in tables


def test_the_table_of_a_killed_trace_goes_with_the_next_start(own_engine: EngineProcess) -> None:
    engine = own_engine.start()
    table = EngineConfig(data_root=engine.data_root).nft_table
    subprocess.run(["nft", f"add table inet {table}_trace"], check=True)
    engine.kill()
    engine.start()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, check=True).stdout
    assert b"_trace" not in tables


def test_topology(net: EngineProcess, client: docker.DockerClient) -> None:
    client.networks.create("backend", internal=True)
    client.networks.get("backend").connect("db")
    client.containers.run(
        "busybox", "sleep 1000", name="joined", network_mode="container:web", detach=True, stop_signal="KILL"
    )
    client.containers.run(
        "busybox", "sleep 1000", name="at", network_mode="host", detach=True, stop_signal="KILL"
    )
    client.containers.run("busybox", SERVER, name="pub", ports={"80/tcp": 18232}, detach=True)
    client.containers.create("busybox", name="still")
    found = get(net, "topology")
    networks = {each["name"]: each for each in found["networks"]}
    assert set(networks) == {"bridge", "host", "none", "mynet", "other", "backend"}
    assert networks["backend"]["internal"] and not networks["mynet"]["internal"]
    gateway = networks["mynet"]["addresses"][0]
    shown = subprocess.run(
        ["ip", "-br", "addr", "show", networks["mynet"]["interface"]],
        capture_output=True,
        text=True,
        check=True,
    )
    assert gateway in shown.stdout
    containers = {each["name"]: each for each in found["containers"]}
    assert set(containers) == {"web", "db", "far", "joined", "at", "pub"}
    assert containers["joined"]["joins"] == "web"
    assert [each["network"] for each in containers["db"]["endpoints"]] == ["mynet", "backend"]
    for endpoint in containers["db"]["endpoints"]:
        master = Path(f"/sys/class/net/{endpoint['port']}/master").resolve().name
        assert master == networks[endpoint["network"]]["interface"]
    assert {port["host_port"] for port in containers["pub"]["ports"]} == {18232}
    route = subprocess.run(["ip", "route", "show", "default"], capture_output=True, text=True, check=True)
    way = found["host"]["way_out"]
    assert (way["interface"] in route.stdout) if route.stdout else way is None
    # Of somebody who pulled a port out of its bridge the kernel knows, the records do not.
    port = containers["web"]["endpoints"][0]["port"]
    subprocess.run(["ip", "link", "set", port, "nomaster"], check=True)
    again = {each["name"]: each for each in get(net, "topology")["containers"]}
    assert again["web"]["endpoints"][0]["port"] == ""
