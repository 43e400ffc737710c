"""The drivers whose containers are on the network of one of this host's interfaces."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from dockmagic_runtime.errors import Forbidden, InvalidParameter, NotImplementedHere
from dockmagic_runtime.kernel.netlink import Route

from .lab import PORT_80, Lab, Neighbour, neighbour

SUBNET = {"Subnet": "198.18.78.0/24", "IPRange": "198.18.78.128/25", "Gateway": "198.18.78.1"}


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Neighbour]:
    with neighbour(tmp_path, knows_the_way=False) as other:
        more = ["ip", "addr", "add", "198.18.78.1/24", "dev", "eth0"]
        subprocess.run(["nsenter", f"--net={other.path}", *more], check=True)
        yield other


def interfaces() -> set[str]:
    with Route() as route:
        return {link.name for link in route.links()}


async def test_other_hosts_see_the_container_itself(lab: Lab, wire: Neighbour) -> None:
    await lab.networks.create("lan", "macvlan", options={"parent": wire.wire}, ipam_config=[SUBNET])
    web = await lab.run("web", "lan", ports=PORT_80)
    await lab.serve(web)
    address = str(web.endpoints[0].address)
    assert address == "198.18.78.128"
    assert web.settings()["Networks"]["lan"]["Gateway"] == "198.18.78.1"
    assert lab.networks.published_ports() == [], "nothing is published where nothing is translated"
    assert await lab.call(
        None, "nsenter", f"--net={wire.path}", "curl", "-s", "-m", "2", f"http://{address}/"
    ) == (
        0,
        "web",
    )
    assert (await lab.call(web, "busybox", "ping", "-c1", "-W2", "198.18.78.1"))[0] == 0
    _, shown = await lab.call(web, "ip", "-d", "link", "show", "eth0")
    assert "macvlan mode bridge" in shown and web.endpoints[0].mac in shown
    near = await lab.run("near", "lan")
    assert await lab.resolve(near, "web") == ["NOERROR", address]


async def test_vlan_is_made_and_removed(lab: Lab, wire: Neighbour) -> None:
    options = {"parent": f"{wire.wire}.17"}
    with Route() as route:
        if not route.knows("vlan"):
            with pytest.raises(NotImplementedHere, match="no interfaces of the kind vlan"):
                await lab.networks.create("tagged", "macvlan", options=options)
            return
    tagged = await lab.networks.create("tagged", "macvlan", options=options)
    assert f"{wire.wire}.17" in interfaces()
    await lab.networks.remove(tagged)
    assert f"{wire.wire}.17" not in interfaces() and wire.wire in interfaces()


async def test_without_a_parent_containers_have_each_other(lab: Lab) -> None:
    alone = await lab.networks.create("alone", "macvlan")
    assert alone.internal and f"dm-{alone.id[:11]}" in interfaces()
    a, b = await lab.run("a", "alone"), await lab.run("b", "alone")
    assert (await lab.call(a, "busybox", "ping", "-c1", "-W2", str(b.endpoints[0].address)))[0] == 0
    assert "default" not in (await lab.call(a, "ip", "route"))[1]
    await lab.networks.sandboxes.release(a.container_id)
    await lab.networks.sandboxes.release(b.container_id)
    await lab.networks.remove(alone)
    assert not [name for name in interfaces() if name.startswith(f"dm-{alone.id[:11]}")]


async def test_connect_and_disconnect(lab: Lab) -> None:
    await lab.networks.create("lan", "macvlan")
    box = await lab.run("box")
    await lab.networks.sandboxes.connect(box.container_id, "lan")
    assert "macvlan" in (await lab.call(box, "ip", "-d", "link", "show", "eth1"))[1]
    await lab.networks.sandboxes.disconnect(box.container_id, "lan")
    assert (await lab.call(box, "ip", "link", "show", "eth1"))[0] == 1


async def test_refusals(lab: Lab, wire: Neighbour) -> None:
    with pytest.raises(InvalidParameter, match="parent interface was not found on the host: nope0"):
        await lab.networks.create("lan", "macvlan", options={"parent": "nope0"})
    with pytest.raises(InvalidParameter, match=r"lo\.5000 is no VLAN"):
        await lab.networks.create("lan", "macvlan", options={"parent": "lo.5000"})
    with pytest.raises(InvalidParameter, match="requested macvlan mode 'odd' is not valid, 'bridge' mode is"):
        await lab.networks.create("lan", "macvlan", options={"macvlan_mode": "odd"})
    await lab.networks.create("lan", "macvlan", options={"parent": wire.wire})
    with pytest.raises(Forbidden, match=f"network lan is already using parent interface {wire.wire}"):
        await lab.networks.create("more", "macvlan", options={"parent": wire.wire})


async def test_ipvlan_or_the_kernel_s_refusal(lab: Lab) -> None:
    with Route() as route:
        if not route.knows("ipvlan"):
            with pytest.raises(NotImplementedHere, match="no interfaces of the kind ipvlan"):
                await lab.networks.create("lan", "ipvlan")
            return
    await lab.networks.create("lan", "ipvlan")
    a, b = await lab.run("a", "lan"), await lab.run("b", "lan")
    assert "ipvlan" in (await lab.call(a, "ip", "-d", "link", "show", "eth0"))[1]
    assert (await lab.call(a, "busybox", "ping", "-c1", "-W2", str(b.endpoints[0].address)))[0] == 0
