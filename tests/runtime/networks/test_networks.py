"""Networks as such: made, shown, refused, removed; Docker's sentences."""

import subprocess
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from dockmagic_runtime.errors import Conflict, Forbidden, InvalidParameter, NotFound, NotImplementedHere
from dockmagic_runtime.kernel.netlink import Route
from dockmagic_runtime.networks import ipam

from .lab import PORT_80, Lab


async def test_every_engine_has_three_networks(lab: Lab) -> None:
    assert [(each.name, each.driver) for each in lab.networks.list()] == [
        ("bridge", "bridge"),
        ("host", "host"),
        ("none", "null"),
    ]
    assert lab.networks.get("bridge").interface == lab.config.bridge


async def test_inspect_is_docker_s_json(lab: Lab) -> None:
    made = await lab.networks.create("mynet", labels={"a": "b"}, attachable=True)
    web = await lab.run("web", "mynet")
    subnet = made.pool.subnet
    assert lab.networks.inspect(made) == {
        "Name": "mynet",
        "Id": made.id,
        "Created": made.created,
        "Scope": "local",
        "Driver": "bridge",
        "EnableIPv4": True,
        "EnableIPv6": False,
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [{"Subnet": str(subnet), "Gateway": str(subnet[1])}],
        },
        "Internal": False,
        "Attachable": True,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            web.container_id: {
                "Name": "web",
                "EndpointID": web.endpoints[0].id,
                "MacAddress": web.endpoints[0].mac,
                "IPv4Address": f"{subnet[2]}/{subnet.prefixlen}",
                "IPv6Address": "",
            }
        },
        "Options": {},
        "Labels": {"a": "b"},
    }
    assert made.interface == f"br-{made.id[:12]}"
    assert lab.events[0] == ("network", "create", made.id, {"name": "mynet", "type": "bridge"})


async def test_found_by_name_id_and_beginning_of_the_id(lab: Lab) -> None:
    made = await lab.networks.create("mynet")
    assert lab.networks.get("mynet") is lab.networks.get(made.id) is lab.networks.get(made.id[:12]) is made
    with pytest.raises(NotFound, match=r"^network nope not found$"):
        lab.networks.get("nope")
    with pytest.raises(NotFound):
        lab.networks.get("")


async def test_subnets_of_the_host_are_skipped(lab: Lab) -> None:
    with Route() as route:
        routed = [subnet for subnet in route.subnets() if subnet != lab.networks.get("bridge").pool.subnet]
    made = await lab.networks.create("mynet")
    assert not any(made.pool.subnet.overlaps(subnet) for subnet in routed)
    assert made.pool.subnet in ipam.DEFAULT_POOLS
    assert not made.pool.subnet.overlaps(lab.networks.get("bridge").pool.subnet)


async def test_refusals_in_docker_s_words(lab: Lab) -> None:
    made = await lab.networks.create("mynet")
    subnet = str(made.pool.subnet)
    with pytest.raises(Conflict, match=r"^network with name mynet already exists$"):
        await lab.networks.create("mynet")
    with pytest.raises(Forbidden, match=r"^Pool overlaps with other one on this address space$"):
        await lab.networks.create("two", ipam_config=[{"Subnet": subnet}])
    for name in ("bridge", "host", "none"):
        with pytest.raises(Forbidden, match=f"^operation is not permitted on predefined {name} network$"):
            await lab.networks.create(name)
        with pytest.raises(Forbidden, match=f"^{name} is a pre-defined network and cannot be removed$"):
            await lab.networks.remove(lab.networks.get(name))
    with pytest.raises(Forbidden, match='only one instance of "host" network is allowed'):
        await lab.networks.create("two", "host")
    with pytest.raises(NotFound, match='plugin "foo" not found'):
        await lab.networks.create("two", "foo")
    with pytest.raises(NotImplementedHere, match="overlay"):
        await lab.networks.create("two", "overlay")
    for name in ("", "a b", "../x"):
        with pytest.raises(InvalidParameter, match="invalid network name"):
            await lab.networks.create(name)
    with pytest.raises(Forbidden, match="bridge name lo is in use"):
        await lab.networks.create("two", options={"com.docker.network.bridge.name": "lo"})
    assert len(lab.networks.list()) == 4


async def test_network_in_use_is_not_removed(lab: Lab) -> None:
    made = await lab.networks.create("mynet")
    web = await lab.run("web", "mynet", ports=PORT_80)
    with pytest.raises(Forbidden) as refusal:
        await lab.networks.remove(made)
    assert str(refusal.value) == (
        f"error while removing network: network mynet id {made.id} has active endpoints"
    )
    assert await lab.networks.prune() == []
    await lab.networks.sandboxes.release(web.container_id)
    await lab.networks.remove(made)
    with pytest.raises(NotFound):
        lab.networks.get("mynet")
    with Route() as route:
        assert made.interface not in [link.name for link in route.links()]


async def test_prune_removes_what_nobody_uses(lab: Lab) -> None:
    for name in ("a", "b", "used"):
        await lab.networks.create(name, labels={"kind": name})
    await lab.run("web", "used")
    assert await lab.networks.prune(lambda network: network.labels["kind"] == "a") == ["a"]
    assert await lab.networks.prune() == ["b"]


async def test_gateway_range_and_auxiliary_addresses(lab: Lab) -> None:
    config = {
        "Subnet": "10.213.8.0/24",
        "IPRange": "10.213.8.128/25",
        "Gateway": "10.213.8.254",
        "AuxiliaryAddresses": {"router": "10.213.8.128"},
    }
    made = await lab.networks.create("mynet", ipam_config=[config])
    web = await lab.run("web", "mynet")
    assert web.settings()["Networks"]["mynet"]["IPAddress"] == "10.213.8.129"
    assert web.settings()["Networks"]["mynet"]["Gateway"] == "10.213.8.254"
    assert lab.networks.inspect(made)["IPAM"]["Config"] == [config]


async def test_rules_are_put_back_after_a_flush(lab: Lab) -> None:
    web = await lab.run("web", ports=PORT_80)
    await lab.serve(web)
    subprocess.run(["nft", "delete", "table", "inet", lab.config.nft_table], check=True)
    other = await lab.run("other", ports=PORT_80)
    port = web.settings()["Ports"]["80/tcp"][0]["HostPort"]
    assert await lab.fetch(None, f"127.0.0.1:{port}") == "web"
    assert len(lab.networks.published_ports()) == 2
    subprocess.run(["nft", "delete", "table", "inet", lab.config.nft_table], check=True)
    await lab.networks.sandboxes.release(other.container_id)
    assert await lab.fetch(None, f"127.0.0.1:{port}") == "web"


def test_pool_gives_the_lowest_free_address_until_none_is_left() -> None:
    (pool,) = ipam.pools([{"Subnet": "10.0.0.0/29"}], (), (), ipv6=False)
    given = [str(pool.allocate()) for _ in range(5)]
    assert given == [f"10.0.0.{host}" for host in range(2, 7)]
    with pytest.raises(Conflict, match="no available IPv4 addresses"):
        pool.allocate()
    pool.release(ipam.address("10.0.0.4"))
    assert str(pool.allocate()) == "10.0.0.4"


def test_default_pools_are_docker_s() -> None:
    held: list[ipam.Subnet] = []
    for _ in range(31):
        held += [pool.subnet for pool in ipam.pools([], held, (), ipv6=False)]
    assert held[0] == IPv4Network("172.17.0.0/16") and held[14] == IPv4Network("172.31.0.0/16")
    assert held[15] == IPv4Network("192.168.0.0/20") and held[30] == IPv4Network("192.168.240.0/20")
    with pytest.raises(Conflict, match="could not find an available, non-overlapping IPv4 address pool"):
        ipam.pools([], held, (), ipv6=False)


def test_ipv6_subnets_are_the_engine_s_own() -> None:
    four, first = ipam.pools([], (), (), ipv6=True, identity="one")
    _, second = ipam.pools([], [four.subnet, first.subnet], (), ipv6=True, identity="one")
    assert (four.subnet.version, first.subnet.prefixlen) == (4, 64)
    assert first.subnet.network_address in IPv6Network("fd00::/8")
    assert first.subnet.supernet(new_prefix=48) == second.subnet.supernet(new_prefix=48)
    assert [str(first.allocate() - int(first.subnet[0])) for _ in range(2)] == ["::2", "::3"]
    _, other = ipam.pools([], (), (), ipv6=True, identity="two")
    assert not other.subnet.overlaps(first.subnet)


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"Subnet": "10.2.3.0"}, "invalid subnet 10.2.3.0: invalid CIDR block notation"),
        ({"Subnet": "10.2.3.4/24"}, "invalid subnet 10.2.3.4/24: it should be 10.2.3.0/24"),
        (
            {"Subnet": "10.2.3.0/24", "Gateway": "10.3.0.1"},
            "invalid gateway 10.3.0.1: parent subnet 10.2.3.0/24 doesn't contain this address",
        ),
        (
            {"Subnet": "10.2.3.0/24", "Gateway": "fd00::1"},
            "invalid gateway fd00::1: parent subnet is an IPv4 block",
        ),
        ({"Subnet": "fd00::/64", "Gateway": "me"}, "invalid gateway me: invalid address"),
        (
            {"Subnet": "10.2.3.0/24", "IPRange": "10.2.0.0/16"},
            "invalid ip-range 10.2.0.0/16: CIDR block is bigger than its parent subnet 10.2.3.0/24",
        ),
        (
            {"Subnet": "10.2.3.0/24", "IPRange": "10.2.4.0/25"},
            "invalid ip-range 10.2.4.0/25: parent subnet 10.2.3.0/24 doesn't contain ip-range",
        ),
        (
            {"Subnet": "10.2.3.0/24", "AuxiliaryAddresses": {"a": "10.2.4.1"}},
            "invalid auxiliary address 10.2.4.1: parent subnet 10.2.3.0/24 doesn't contain this address",
        ),
        ({"Gateway": "10.2.3.1"}, "invalid subnet : invalid CIDR block notation"),
    ],
)
def test_what_is_no_network_is_refused_in_docker_s_words(entry: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        ipam.pools([entry], (), (), ipv6=True)
    assert str(refusal.value) == f"invalid network config:\n{sentence}"
