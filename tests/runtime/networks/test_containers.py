"""Containers in networks: who reaches whom, by which way, and what the API says about it."""

import asyncio
import socket
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from dockmagic_runtime.errors import Conflict, Forbidden, InvalidParameter, NotFound
from dockmagic_runtime.networks import namespace

from .lab import PORT_80, Lab, host_address, neighbour


async def test_default_bridge_gives_address_gateway_and_docker_s_mac(lab: Lab) -> None:
    web = await lab.run("web")
    settings = web.settings()
    bridge = settings["Networks"]["bridge"]
    subnet = lab.networks.get("bridge").pool.subnet
    assert IPv4Address(bridge["IPAddress"]) == subnet[2]
    assert bridge["Gateway"] == str(subnet[1])
    assert bridge["MacAddress"] == "02:42:" + ":".join(f"{byte:02x}" for byte in subnet[2].packed)
    assert settings["IPAddress"] == bridge["IPAddress"] and settings["EndpointID"] == bridge["EndpointID"]
    assert bridge["DNSNames"] is None
    _, shown = await lab.call(web, "ip", "-o", "addr")
    assert f"inet {bridge['IPAddress']}/{subnet.prefixlen}" in shown and "127.0.0.1/8" in shown
    assert "inet6 fe80" not in shown
    _, routes = await lab.call(web, "ip", "route")
    assert f"default via {subnet[1]} dev eth0" in routes
    assert (await lab.call(web, "busybox", "ping", "-c1", "-W2", str(subnet[1])))[0] == 0


async def test_network_none_leaves_its_namespace_to_the_start(lab: Lab) -> None:
    alone = await lab.run("alone", "none")
    assert alone.namespaces == {"network": None} and not alone.path.exists()
    assert alone.settings()["Networks"]["none"]["IPAddress"] == ""
    assert alone.settings()["Networks"]["none"]["NetworkID"] == lab.networks.get("none").id


async def test_network_host_has_no_namespace_of_its_own(lab: Lab) -> None:
    assert (await lab.run("here", "host")).netns_path == ""
    assert list(next(iter(lab.networks.sandboxes)).settings()["Networks"]) == ["host"]


async def test_published_port_is_reached_from_everywhere(lab: Lab) -> None:
    await lab.networks.create("other")
    web, client, stranger = (
        await lab.run("web", ports=PORT_80),
        await lab.run("a"),
        await lab.run("b", "other"),
    )
    await lab.serve(web)
    port = web.settings()["Ports"]["80/tcp"][0]["HostPort"]
    assert await lab.fetch(None, f"127.0.0.1:{port}") == "web"
    assert await lab.fetch(None, f"{host_address()}:{port}") == "web"
    assert await lab.fetch(client, f"{host_address()}:{port}") == "web"
    assert await lab.fetch(stranger, f"{host_address()}:{port}") == "web"
    assert await lab.fetch(web, f"{host_address()}:{port}") == "web"
    assert await lab.fetch(client, str(web.endpoints[0].address)) == "web"


async def test_published_port_and_nothing_else_is_reached_from_another_host(lab: Lab, tmp_path: Path) -> None:
    web = await lab.run("web", ports=PORT_80)
    await lab.serve(web)
    port = web.settings()["Ports"]["80/tcp"][0]["HostPort"]
    with neighbour(tmp_path, knows_the_way=True) as other:
        fetch = ["nsenter", f"--net={other.path}", "curl", "-s", "-m", "2"]
        assert await lab.call(None, *fetch, f"http://{other.here}:{port}/") == (0, "web")
        code, _ = await lab.call(None, *fetch, f"http://{web.endpoints[0].address}/")
        assert code == 28, "an address behind the bridge must not be reachable from another host"


async def test_containers_reach_the_world_with_the_host_s_address(lab: Lab, tmp_path: Path) -> None:
    box = await lab.run("box")
    with neighbour(tmp_path, knows_the_way=False) as world:
        with namespace.inside(world.namespace):
            server = socket.create_server(("", 8000))
        with server:
            server.setblocking(False)
            caller = lab.spawn(box, "busybox", "nc", "-w", "3", world.address, "8000")
            connection, peer = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(server), 5)
            connection.close()
            caller.wait(5)
        assert peer[0] == world.here, "no route leads back from there to the container's own address"


async def test_networks_are_isolated_from_each_other(lab: Lab) -> None:
    await lab.networks.create("one")
    await lab.networks.create("two")
    web, near, far = await lab.run("web", "one"), await lab.run("near", "one"), await lab.run("far", "two")
    await lab.serve(web)
    address = str(web.endpoints[0].address)
    assert await lab.fetch(near, address) == "web"
    assert await lab.fetch(far, address) is None
    assert await lab.fetch(await lab.run("default"), address) is None


async def test_internal_network_has_no_way_out(lab: Lab) -> None:
    await lab.networks.create("inner", internal=True)
    a, b = await lab.run("a", "inner"), await lab.run("b", "inner", ports=PORT_80)
    await lab.serve(b)
    assert await lab.fetch(a, str(b.endpoints[0].address)) == "b"
    assert "default" not in (await lab.call(a, "ip", "route"))[1]
    assert b.settings()["Networks"]["inner"]["Gateway"] == "" and lab.networks.published_ports() == []


async def test_containers_can_not_reach_the_host_s_loopback(lab: Lab) -> None:
    box = await lab.run("box")
    gateway = str(box.endpoints[0].network.pool.gateway)
    # As a container with NET_ADMIN could: send what is for 127.0.0.0/8 out to the bridge.
    for command in (
        "sysctl -qw net.ipv4.conf.all.route_localnet=1",
        "ip rule add pref 0 to 127.0.0.1 lookup 100",
        "ip rule add pref 1 lookup local",
        "ip rule del pref 0 lookup local",
        f"ip route add 127.0.0.1 via {gateway} dev eth0 table 100",
    ):
        assert await lab.call(box, *command.split()) == (0, "")
    _, way = await lab.call(box, "ip", "route", "get", "127.0.0.1")
    assert f"via {gateway} dev eth0" in way
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as private:
        private.bind(("127.0.0.1", 0))
        private.settimeout(0.3)
        port = str(private.getsockname()[1])
        for source in (str(box.endpoints[0].address), "127.0.0.1"):
            sending = "import socket, sys; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); "
            sending += "s.bind((sys.argv[1], 0)); s.sendto(b'knock', ('127.0.0.1', int(sys.argv[2])))"
            assert (await lab.call(box, sys.executable, "-c", sending, source, port))[0] == 0
            with pytest.raises(TimeoutError):
                private.recv(100)


async def test_udp_is_published_too(lab: Lab) -> None:
    echo = await lab.run("echo", ports={"53/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}]})
    serving = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 53))\n"
    serving += "while True: s.sendto(*s.recvfrom(100))"
    server = lab.spawn(echo, sys.executable, "-c", serving)
    binding = echo.settings()["Ports"]["53/udp"][0]
    assert binding["HostIp"] == "127.0.0.1"
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(("127.0.0.1", int(binding["HostPort"])))
        for _ in range(50):
            client.send(b"hello")
            try:
                assert await asyncio.wait_for(loop.sock_recv(client, 100), 0.1) == b"hello"
                break
            except (TimeoutError, ConnectionRefusedError):
                assert server.poll() is None
        else:
            pytest.fail("no echo")


async def test_taken_port_is_refused_in_docker_s_words_and_leaves_nothing(lab: Lab) -> None:
    with socket.socket() as finder:
        finder.bind(("", 0))
        free = finder.getsockname()[1]
    ports = {"80/tcp": [{"HostIp": "", "HostPort": str(free)}]}
    await lab.run("web", ports=ports)
    before = sorted(path.name for path in (lab.config.run_root / "netns").iterdir())
    sentence = f"Bind for 0.0.0.0:{free} failed: port is already allocated"
    with pytest.raises(
        Conflict, match=rf"driver failed programming .* on endpoint two \([0-9a-f]{{64}}\): {sentence}"
    ):
        await lab.run("two", ports=ports)
    with pytest.raises(Conflict, match="port is already allocated"):
        await lab.run("two", ports={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(free)}]})
    assert sorted(path.name for path in (lab.config.run_root / "netns").iterdir()) == before
    assert len(lab.networks.published_ports()) == 1
    assert lab.networks.get("bridge").pool.taken == {lab.networks.get("bridge").pool.subnet[2]}


async def test_port_of_a_host_process_is_refused(lab: Lab) -> None:
    with socket.create_server(("0.0.0.0", 0)) as process:
        taken = process.getsockname()[1]
        with pytest.raises(Conflict) as refusal:
            await lab.run("web", ports={"80/tcp": [{"HostIp": "", "HostPort": str(taken)}]})
    address = lab.networks.get("bridge").pool.subnet[2]
    assert f"failed to bind host port for 0.0.0.0:{taken}:{address}:80/tcp: address already in use" in str(
        refusal.value
    )
    assert lab.networks.published_ports() == []


async def test_reserved_port_is_held_against_the_host_and_given_back(lab: Lab) -> None:
    web = await lab.run("web", ports=PORT_80)
    port = int(web.settings()["Ports"]["80/tcp"][0]["HostPort"])
    assert port >= 32768
    with pytest.raises(OSError, match="Address already in use"):
        socket.create_server(("127.0.0.1", port))
    shown = lab.networks.published_ports()
    assert shown == [
        {
            "protocol": "tcp",
            "host_ip": "0.0.0.0",
            "host_port": port,
            "container_ip": str(web.endpoints[0].address),
            "container_port": 80,
            "container_id": web.container_id,
        }
    ]
    await lab.networks.sandboxes.release(web.container_id)
    assert lab.networks.published_ports() == []
    socket.create_server(("127.0.0.1", port)).close()


async def test_released_address_is_given_out_again(lab: Lab) -> None:
    first = await lab.run("first")
    address = first.endpoints[0].address
    await lab.networks.sandboxes.release(first.container_id)
    await lab.networks.sandboxes.release(first.container_id)
    second = await lab.run("second")
    assert second.endpoints[0].address == address
    await lab.serve(second)
    assert await lab.fetch(None, str(address)) == "second"


async def test_connect_and_disconnect_while_running(lab: Lab) -> None:
    mynet = await lab.networks.create("mynet")
    web, box = await lab.run("web", "mynet"), await lab.run("box")
    await lab.serve(web)
    assert await lab.fetch(box, str(web.endpoints[0].address)) is None
    await lab.networks.sandboxes.connect(box.container_id, "mynet", {"Aliases": ["friend"]})
    assert await lab.fetch(box, str(web.endpoints[0].address)) == "web"
    assert await lab.resolve(box, "web") == ["NOERROR", str(web.endpoints[0].address)]
    assert await lab.resolve(web, "friend") == ["NOERROR", str(box.endpoints[1].address)]
    assert "127.0.0.11" in box.resolv_conf
    with pytest.raises(Forbidden, match="endpoint with name box already exists in network mynet"):
        await lab.networks.sandboxes.connect(box.container_id, "mynet")
    await lab.networks.sandboxes.disconnect(box.container_id, "bridge")
    assert f"default via {mynet.pool.gateway} dev eth1" in (await lab.call(box, "ip", "route"))[1]
    await lab.networks.sandboxes.disconnect(box.container_id, "mynet")
    assert (await lab.call(box, "ip", "-o", "link"))[1].count("\n") == 1
    with pytest.raises(Forbidden, match=f"container {box.container_id} is not connected to network mynet"):
        await lab.networks.sandboxes.disconnect(box.container_id, "mynet")


async def test_static_addresses_and_docker_s_refusals(lab: Lab) -> None:
    await lab.networks.create("fixed", ipam_config=[{"Subnet": "10.213.7.0/24"}])
    await lab.networks.create("pooled")

    def at(network: str, address: str) -> dict[str, object]:
        return {network: {"IPAMConfig": {"IPv4Address": address}}}

    web = await lab.run("web", endpoints=at("fixed", "10.213.7.9"))
    assert web.settings()["Networks"]["fixed"]["IPAddress"] == "10.213.7.9"
    with pytest.raises(Forbidden, match=r"^Address already in use$"):
        await lab.run("two", endpoints=at("fixed", "10.213.7.9"))
    with pytest.raises(InvalidParameter, match=r"Invalid address 10\.9\.9\.9: It does not belong to any"):
        await lab.run("two", endpoints=at("fixed", "10.9.9.9"))
    with pytest.raises(InvalidParameter, match="only when connecting to networks with user configured"):
        await lab.run("two", endpoints=at("pooled", "172.31.0.9"))
    with pytest.raises(InvalidParameter, match="IP address is supported on user defined networks only"):
        await lab.run("two", endpoints=at("bridge", "172.31.0.9"))
    with pytest.raises(InvalidParameter, match="network-scoped alias is supported only for containers"):
        await lab.run("two", endpoints={"bridge": {"Aliases": ["x"]}})
    with pytest.raises(NotFound, match="network nowhere not found"):
        await lab.run("two", "fixed", "nowhere")
    assert lab.networks.get("fixed").pool.taken == {IPv4Address("10.213.7.9")}


async def test_cancelled_allocation_leaves_nothing(lab: Lab) -> None:
    task = asyncio.create_task(lab.run("web", ports=PORT_80))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((lab.config.run_root / "netns").iterdir()) == []
    assert not list(lab.networks.sandboxes) and lab.networks.published_ports() == []


async def test_many_containers_at_once(lab: Lab) -> None:
    boxes = await asyncio.gather(*(lab.run(f"box{number}", ports=PORT_80) for number in range(16)))
    assert len({box.endpoints[0].address for box in boxes}) == 16
    assert len(lab.networks.published_ports()) == 16
    await asyncio.gather(*(lab.networks.sandboxes.release(box.container_id) for box in boxes))
    assert lab.networks.published_ports() == []


async def test_connect_and_disconnect_are_told(lab: Lab) -> None:
    web = await lab.run("web")
    await lab.networks.sandboxes.release(web.container_id)
    network = lab.networks.get("bridge")
    attributes = {"name": "bridge", "type": "bridge", "container": web.container_id}
    assert lab.events == [
        ("network", "connect", network.id, attributes),
        ("network", "disconnect", network.id, attributes),
    ]


async def test_a_connection_that_lingers_leaves_no_interface(lab: Lab) -> None:
    """TCP keeps the namespace of a dead container for minutes, until its last packets are acknowledged."""
    slow = await lab.networks.create("slow")
    web = await lab.run("web", "slow")
    await lab.serve(web)
    interface = Path("/sys/class/net", web.endpoints[0].host_interface)
    with socket.create_connection((str(web.endpoints[0].address), 80)) as unended:
        unended.sendall(b"GET / HTTP/1.1\r\n")
        assert interface.exists()
        lab.programs[-1].kill()
        lab.programs[-1].wait()
        await lab.networks.sandboxes.release(web.container_id)
        await lab.networks.remove(slow)
        assert not interface.exists()
