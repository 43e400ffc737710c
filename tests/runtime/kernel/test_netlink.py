"""rtnetlink against the real kernel, in network namespaces of the tests' own."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest
from dockmagic_runtime.kernel import namespaces, netlink
from dockmagic_runtime.kernel.netlink import Route


@pytest.fixture
def route() -> Iterator[Route]:
    """A socket of an empty network namespace, which ends with it."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    try:
        with Route() as opened:
            yield opened
    finally:
        namespaces.setns(home, namespaces.CLONE_NEWNET)
        os.close(home)


def test_bridge_with_address_and_routes(route: Route) -> None:
    route.request(netlink.add_bridge("br0", b"\x02\x42\x00\x00\x00\x01", 1400))
    index = route.index("br0")
    address = IPv4Interface("10.1.2.1/24")
    route.request(netlink.add_address(index, address), netlink.set_up(1))
    route.request(netlink.add_default_route(IPv4Address("10.1.2.254")))
    assert route.addresses()[index] == [address]
    assert IPv4Network("10.1.2.0/24") in route.subnets()
    route.request(netlink.delete_link(index))
    assert "br0" not in [link.name for link in route.links()]


def test_veth_into_another_namespace_is_one_message(route: Route) -> None:
    route.request(netlink.add_bridge("br0", b"\x02\x42\x00\x00\x00\x01", 1500))
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    other = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    within = Route()
    namespaces.setns(home, namespaces.CLONE_NEWNET)
    bridge = route.index("br0")
    with within:
        route.request(
            netlink.add_veth("v0", bridge, 1300, peer="eth0", peer_mac=b"\x02\x42\x0a\0\0\2", namespace=other)
        )
        index = within.index("eth0")
        within.request(netlink.no_link_local(index), netlink.set_up(index))
        assert [link.name for link in within.links()] == ["lo", "eth0"]
        port = next(link for link in route.links() if link.name == "v0")
        assert port.master == bridge
        route.request(netlink.hairpin(port.index), netlink.silence(port.index))
    os.close(other)
    os.close(home)


def test_link_local_address_only_where_wanted(route: Route) -> None:
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    for name, peer in (("v0", "with"), ("v1", "without")):
        route.request(
            netlink.add_veth(name, 0, 1500, peer=peer, peer_mac=os.urandom(5).rjust(6, b"\2"), namespace=here)
        )
    os.close(here)
    plain, bare = route.index("with"), route.index("without")
    route.request(netlink.no_link_local(bare), netlink.set_up(plain), netlink.set_up(bare))
    addresses = Path("/proc/thread-self/net/if_inet6").read_text().splitlines()
    interfaces = {line.split()[-1] for line in addresses if line.startswith("fe80")}
    assert interfaces & {"with", "without"} == {"with"}


def test_refusals_are_errors_with_the_kernel_s_reason(route: Route) -> None:
    with pytest.raises(OSError, match="nothing0") as missing:
        route.index("nothing0")
    assert missing.value.errno == errno.ENODEV
    bridge = netlink.add_bridge("br0", b"\x02\x42\x00\x00\x00\x01", 1500)
    route.request(bridge)
    with pytest.raises(OSError, match="File exists") as twice:
        route.request(bridge)
    assert twice.value.errno == errno.EEXIST
    with pytest.raises(OSError, match="Network is unreachable: Nexthop has invalid gateway"):
        route.request(netlink.add_default_route(IPv4Address("10.9.9.9")))


def test_first_refusal_of_a_batch_is_raised_and_the_socket_stays_usable(route: Route) -> None:
    address = netlink.add_address(1, IPv4Interface("10.1.1.1/32"))
    with pytest.raises(OSError, match="No such device"):
        route.request(netlink.set_up(999), address, address)
    assert route.addresses()[1] == [IPv4Interface("10.1.1.1/32")]
    route.request()


def test_only_the_messages_of_pyroute2_are_loaded_and_the_rest_of_it_stays_usable() -> None:
    code = (
        "import sys, dockmagic_runtime.kernel.netlink\n"
        "print('pyroute2' in sys.modules, 'pyroute2.iproute' in sys.modules)\n"
        "import pyroute2\n"
        "with pyroute2.IPRoute() as route: print(*[link.get('ifname') for link in route.link('dump')])\n"
    )
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded, names = program.stdout.splitlines()
    assert loaded == "False False"
    assert "lo" in names.split()
