"""Networks with both families: addresses, names, isolation, ports, other hosts."""

import asyncio
import socket
from ipaddress import IPv6Network
from pathlib import Path

import pytest
from dockmagic_runtime.errors import Conflict, InvalidParameter
from dockmagic_runtime.networks import namespace

from .lab import PORT_80, Lab, neighbour

SUBNET = "fd12:3456:789a::/64"
CONFIG = [{"Subnet": SUBNET, "Gateway": "fd12:3456:789a::ff"}]


async def test_addresses_gateway_and_what_is_told_of_them(lab: Lab) -> None:
    made = await lab.networks.create("six", ipv6=True, ipam_config=CONFIG)
    web = await lab.run("web", "six")
    settings = web.settings()["Networks"]["six"]
    assert settings["GlobalIPv6Address"] == "fd12:3456:789a::1" and settings["GlobalIPv6PrefixLen"] == 64
    assert settings["IPv6Gateway"] == "fd12:3456:789a::ff"
    told = lab.networks.inspect(made)
    assert told["EnableIPv6"] and told["IPAM"]["Config"][1] == CONFIG[0]
    assert told["Containers"][web.container_id]["IPv6Address"] == "fd12:3456:789a::1/64"
    _, shown = await lab.call(web, "ip", "-6", "-o", "addr", "show", "eth0")
    assert "inet6 fd12:3456:789a::1/64 scope global nodad" in shown
    assert "default via fd12:3456:789a::ff" in (await lab.call(web, "ip", "-6", "route"))[1]
    assert ("fd12:3456:789a::1", ["web"]) in web.hosts
    assert (await lab.call(web, "busybox", "ping", "-c1", "-W2", "fd12:3456:789a::ff"))[0] == 0


async def test_a_network_without_it_has_none(lab: Lab) -> None:
    await lab.networks.create("four", ipam_config=CONFIG)  # as with Docker, what is not enabled is not used
    web = await lab.run("web", "four")
    assert web.settings()["Networks"]["four"]["GlobalIPv6Address"] == ""
    assert "inet6" not in (await lab.call(web, "ip", "-6", "addr", "show", "eth0"))[1]


async def test_static_address(lab: Lab) -> None:
    await lab.networks.create("six", ipv6=True, ipam_config=CONFIG)
    await lab.networks.create("four", ipam_config=[{"Subnet": "10.213.9.0/24"}])
    fixed = {"IPAMConfig": {"IPv6Address": "fd12:3456:789a::77"}}
    web = await lab.run("web", endpoints={"six": fixed})
    assert str(web.endpoints[0].address6) == "fd12:3456:789a::77"
    taken = len(web.endpoints[0].network.pool.taken)
    with pytest.raises(Exception, match="Address already in use"):
        await lab.run("second", endpoints={"six": fixed})
    assert len(web.endpoints[0].network.pool.taken) == taken, "the IPv4 address was given back"
    with pytest.raises(InvalidParameter, match="only on networks with IPv6 enabled"):
        await lab.run("third", endpoints={"four": fixed})


async def test_names_and_their_addresses(lab: Lab) -> None:
    await lab.networks.create("six", ipv6=True, ipam_config=CONFIG)
    web, client = await lab.run("web", "six"), await lab.run("client", "six")
    assert await lab.resolve(client, "web", "AAAA") == ["NOERROR", "fd12:3456:789a::1"]
    assert await lab.resolve(client, "web", "A") == ["NOERROR", str(web.endpoints[0].address)]
    pointer = web.endpoints[0].address6
    assert pointer
    assert await lab.resolve(client, pointer.reverse_pointer, "PTR") == ["NOERROR", "web.six."]
    await lab.networks.sandboxes.release(web.container_id)
    assert (await lab.resolve(client, "web", "AAAA"))[0] != "NOERROR"


async def test_published_port_on_both(lab: Lab, tmp_path: Path) -> None:
    await lab.networks.create("six", ipv6=True)
    await lab.networks.create("other", ipv6=True)
    web, far = await lab.run("web", "six", ports=PORT_80), await lab.run("far", "other")
    await lab.serve(web)
    four, six = web.settings()["Ports"]["80/tcp"]
    assert (four["HostIp"], six["HostIp"]) == ("0.0.0.0", "::") and four["HostPort"] == six["HostPort"]
    port = four["HostPort"]
    assert {row["host_ip"] for row in lab.networks.published_ports()} == {"0.0.0.0", "::"}
    assert await lab.fetch(None, f"127.0.0.1:{port}") == "web"
    gateway = far.endpoints[0].gateway6
    assert await lab.fetch(None, f"[{gateway}]:{port}") == "web"
    assert await lab.fetch(far, f"[{gateway}]:{port}") == "web"
    assert await lab.fetch(web, f"[{web.endpoints[0].gateway6}]:{port}") == "web", "by its own published port"
    assert await lab.fetch(far, f"[{web.endpoints[0].address6}]") is None, "networks are isolated"
    # Nothing can leave the loopback interface from ::1: refused at once, so that clients try 127.0.0.1.
    assert (await lab.call(None, "curl", "-s", "-m", "2", f"http://[::1]:{port}/"))[0] == 7
    with neighbour(tmp_path, knows_the_way=True) as host:
        fetch = ["nsenter", f"--net={host.path}", "curl", "-s", "-m", "2"]
        assert await lab.call(None, *fetch, f"http://[{host.here6}]:{port}/") == (0, "web")
        assert (await lab.call(None, *fetch, f"http://[{web.endpoints[0].address6}]/"))[0] == 28


async def test_the_world_sees_the_host_s_address(lab: Lab, tmp_path: Path) -> None:
    await lab.networks.create("six", ipv6=True)
    box = await lab.run("box", "six")
    with neighbour(tmp_path, knows_the_way=False) as world:
        with namespace.inside(world.namespace):
            server = socket.create_server(("::", 8000), family=socket.AF_INET6)
        with server:
            server.setblocking(False)
            lab.spawn(box, "busybox", "nc", "-w", "3", world.address6, "8000")
            connection, peer = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(server), 5)
            connection.close()
        assert peer[0] == world.here6


async def test_internal_network_has_no_way_out(lab: Lab) -> None:
    await lab.networks.create("inner", ipv6=True, internal=True)
    a, b = await lab.run("a", "inner"), await lab.run("b", "inner")
    await lab.serve(b)
    assert await lab.fetch(a, f"[{b.endpoints[0].address6}]") == "b"
    assert "default" not in (await lab.call(a, "ip", "-6", "route"))[1]


async def test_the_way_out_follows_connect_and_disconnect(lab: Lab) -> None:
    await lab.networks.create("six", ipv6=True)
    box = await lab.run("box")
    await lab.networks.sandboxes.connect(box.container_id, "six")
    gateway = box.endpoints[1].gateway6
    assert f"default via {gateway} dev eth1" in (await lab.call(box, "ip", "-6", "route"))[1]
    assert "dev eth0" in (await lab.call(box, "ip", "route", "get", "192.0.2.1"))[1], "that of IPv4 stays"
    await lab.networks.sandboxes.disconnect(box.container_id, "six")
    assert "default" not in (await lab.call(box, "ip", "-6", "route"))[1]


async def test_conflicts_and_refusals(lab: Lab) -> None:
    await lab.networks.create("six", ipv6=True)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(
            Conflict, match=rf"failed to bind host port for \[::1\]:{port}:\[fd.*address already"
        ):
            await lab.run("web", "six", ports={"80/tcp": [{"HostIp": "::1", "HostPort": port}]})
    with pytest.raises(
        InvalidParameter, match="can't be published on ::1: the container's network has no IPv6"
    ):
        await lab.run("web", ports={"80/tcp": [{"HostIp": "::1", "HostPort": "0"}]})
    assert lab.networks.published_ports() == [] and not list(lab.networks.sandboxes)
    subnet = lab.networks.get("six").pools[1].subnet
    assert isinstance(subnet, IPv6Network) and subnet.is_private
