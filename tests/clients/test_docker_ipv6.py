"""The docker command and networks with IPv6, and those on the host's own interfaces."""

import json

from tests.conftest import EngineProcess


def test_network_with_both_families(engine: EngineProcess) -> None:
    assert engine.docker("network", "create", "--ipv6", "--subnet", "fd5a::/64", "six").returncode == 0
    engine.docker("run", "-d", "--name", "web", "--network", "six", "-p", "80", "busybox", "sleep", "1000")
    shown = json.loads(engine.docker("network", "inspect", "six").stdout)[0]
    assert shown["EnableIPv6"] is True
    assert shown["IPAM"]["Config"][1] == {"Subnet": "fd5a::/64", "Gateway": "fd5a::1"}
    address = engine.docker(
        "inspect", "-f", "{{.NetworkSettings.Networks.six.GlobalIPv6Address}}", "web"
    ).stdout.strip()
    assert address == "fd5a::2"
    pinged = engine.docker("run", "--rm", "--network", "six", "busybox", "ping", "-6", "-c1", "-W2", "web")
    assert f"64 bytes from {address}" in pinged.stdout, pinged
    four, six = engine.docker("port", "web", "80").stdout.split()
    assert four.startswith("0.0.0.0:") and six == f"[::]:{four.partition(':')[2]}"
    ports = engine.docker("ps", "--format", "{{.Ports}}").stdout.strip()
    number = four.partition(":")[2]
    assert ports == f"0.0.0.0:{number}->80/tcp, [::]:{number}->80/tcp"


def test_fixed_address(engine: EngineProcess) -> None:
    engine.docker("network", "create", "--ipv6", "--subnet", "fd5b::/64", "six")
    options = ["--rm", "--network", "six", "--ip6", "fd5b::99"]
    assert "fd5b::99/64" in engine.docker("run", *options, "busybox", "ip", "-6", "addr").stdout
    refused = engine.docker("run", "--rm", "--ip6", "fd5b::99", "busybox", "true")
    assert refused.returncode == 125
    assert "user specified IP address is supported on user defined networks only" in refused.stderr


def test_macvlan_without_a_parent(engine: EngineProcess) -> None:
    engine.docker("network", "create", "-d", "macvlan", "--subnet", "10.99.7.0/24", "lan")
    engine.docker("run", "-d", "--name", "alone", "--network", "lan", "busybox", "sleep", "1000")
    pinged = engine.docker("run", "--rm", "--network", "lan", "busybox", "ping", "-c1", "-W2", "alone")
    assert pinged.returncode == 0, pinged
    assert engine.docker("network", "ls", "--filter", "driver=macvlan", "-q").stdout.strip()


def test_overlay_is_refused_in_words(engine: EngineProcess) -> None:
    refused = engine.docker("network", "create", "-d", "overlay", "wide")
    assert refused.returncode == 1 and "the network driver overlay is not supported" in refused.stderr
