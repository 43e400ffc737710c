"""Names at 127.0.0.11: of containers in the same network, and everything else forwarded."""

import socket
import statistics
import sys
import threading
from collections.abc import Iterator

import dnslib
import pytest

from .lab import Lab

UPSTREAM = "127.77.53.1"


@pytest.fixture
def upstream() -> Iterator[str]:
    """A name server of the host that answers every A question with 203.0.113.5, by UDP and TCP."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind((UPSTREAM, 53))
    tcp = socket.create_server((UPSTREAM, 53))

    def answer(query: bytes) -> bytes:
        reply = dnslib.DNSRecord.parse(query).reply()
        reply.add_answer(dnslib.RR(reply.q.qname, rdata=dnslib.A("203.0.113.5")))
        return bytes(reply.pack())

    def datagrams() -> None:
        while True:
            query, client = udp.recvfrom(4096)
            if not query:
                return
            udp.sendto(answer(query), client)

    def streams() -> None:
        while True:
            connection, _ = tcp.accept()
            with connection:
                head = connection.recv(2)
                if not head:
                    return
                reply = answer(connection.recv(int.from_bytes(head, "big")))
                connection.sendall(len(reply).to_bytes(2, "big") + reply)

    threads = [threading.Thread(target=target) for target in (datagrams, streams)]
    for thread in threads:
        thread.start()
    yield UPSTREAM
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as poke:
        poke.sendto(b"", (UPSTREAM, 53))
    socket.create_connection((UPSTREAM, 53)).close()
    for thread in threads:
        thread.join()
    udp.close()
    tcp.close()


async def test_every_name_of_a_container_is_known_in_its_network(lab: Lab) -> None:
    await lab.networks.create("mynet")
    web = await lab.run("web", endpoints={"mynet": {"Aliases": ["www"]}}, hostname="h1")
    box = await lab.run("box", "mynet")
    address = str(web.endpoints[0].address)
    for name in ("web", "WEB", "www", "h1", web.container_id[:12], "web.mynet"):
        assert await lab.resolve(box, name) == ["NOERROR", address]
    assert await lab.resolve(box, "web", "A+tcp") == ["NOERROR", address]
    assert await lab.resolve(box, "web", "AAAA") == ["NOERROR"]
    reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert await lab.resolve(box, reverse, "PTR") == ["NOERROR", "web.mynet."]
    assert web.settings()["Networks"]["mynet"]["DNSNames"] == ["web", "www", web.container_id[:12], "h1"]


async def test_names_are_known_in_their_own_network_only(lab: Lab, upstream: str) -> None:
    await lab.networks.create("one")
    await lab.networks.create("two")
    await lab.run("web", "one")
    stranger = await lab.run("stranger", "two", dns=[upstream])
    assert await lab.resolve(stranger, "web") == ["NOERROR", "203.0.113.5"], (
        "asked upstream, as any other name"
    )
    assert await lab.resolve(stranger, "web.one") == ["NOERROR", "203.0.113.5"]


async def test_default_bridge_has_no_resolver(lab: Lab) -> None:
    box = await lab.run("box", dns=["192.0.2.53"], dns_search=["example.org"], dns_options=["ndots:2"])
    assert box.resolv_conf == "nameserver 192.0.2.53\nsearch example.org\noptions ndots:2\n"
    assert "127.0.0.11" not in (await lab.run("plain")).resolv_conf


async def test_other_names_are_forwarded(lab: Lab, upstream: str) -> None:
    await lab.networks.create("mynet")
    box = await lab.run("box", "mynet", dns=[upstream])
    assert box.resolv_conf.startswith("nameserver 127.0.0.11\n")
    assert await lab.resolve(box, "example.org") == ["NOERROR", "203.0.113.5"]
    assert await lab.resolve(box, "example.org", "A+tcp") == ["NOERROR", "203.0.113.5"]


async def test_unreachable_upstream_is_a_server_failure(lab: Lab) -> None:
    await lab.networks.create("mynet")
    await lab.networks.create("inner", internal=True)
    deaf = await lab.run("deaf", "mynet", dns=["127.77.53.9"])
    assert await lab.resolve(deaf, "example.org") == ["SERVFAIL"]
    assert await lab.resolve(await lab.run("in", "inner"), "example.org") == ["SERVFAIL"]


async def test_shared_alias_gives_all_in_turn(lab: Lab) -> None:
    await lab.networks.create("mynet")
    pair = [await lab.run(name, endpoints={"mynet": {"Aliases": ["db"]}}) for name in ("db1", "db2")]
    addresses = {str(each.endpoints[0].address) for each in pair}
    answers = [await lab.resolve(pair[0], "db") for _ in range(12)]
    assert all(set(answer[1:]) == addresses for answer in answers)
    assert len({answer[1] for answer in answers}) == 2


async def test_a_name_goes_with_its_container_and_follows_a_rename(lab: Lab, upstream: str) -> None:
    await lab.networks.create("mynet")
    web = await lab.run("web", "mynet", hostname="h1")
    box = await lab.run("box", "mynet", dns=[upstream])
    lab.networks.sandboxes.rename(web.container_id, "site")
    assert await lab.resolve(box, "site") == ["NOERROR", str(web.endpoints[0].address)]
    assert await lab.resolve(box, "web.mynet") == ["NOERROR", "203.0.113.5"]
    await lab.networks.sandboxes.release(web.container_id)
    assert await lab.resolve(box, "site") == ["NOERROR", "203.0.113.5"]


async def test_container_can_serve_dns_itself(lab: Lab) -> None:
    await lab.networks.create("mynet")
    web, box = await lab.run("web", "mynet"), await lab.run("box", "mynet")
    binding = "import socket; socket.socket(2, 2).bind(('', 53)); socket.socket(2, 1).bind(('', 53))"
    assert await lab.call(box, sys.executable, "-c", binding) == (0, "")
    assert await lab.resolve(box, "web") == ["NOERROR", str(web.endpoints[0].address)]


async def test_nonsense_is_answered_and_does_no_harm(lab: Lab) -> None:
    await lab.networks.create("mynet")
    box = await lab.run("box", "mynet")
    nonsense = (
        "import socket\n"
        "s = socket.socket(2, 2); s.connect(('127.0.0.11', 53)); s.settimeout(2)\n"
        "for data in (b'', b'x', b'\\0' * 11): s.send(data)\n"
        "s.send(b'ab' + b'\\xff' * 30); print(s.recv(512)[:2].decode())\n"
    )
    assert await lab.call(box, sys.executable, "-c", nonsense) == (0, "ab\n")
    assert (await lab.resolve(box, "box"))[0] == "NOERROR"


async def test_lookup_takes_less_than_a_millisecond(lab: Lab) -> None:
    await lab.networks.create("mynet")
    box = await lab.run("box", "mynet")
    asking = (
        "import socket, time, dnslib\n"
        "q = dnslib.DNSRecord.question('box').pack()\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.11', 53))\n"
        "for _ in range(50):\n"
        "    t = time.perf_counter(); s.send(q); s.recv(512); print(time.perf_counter() - t)\n"
    )
    code, output = await lab.call(box, sys.executable, "-c", asking)
    assert code == 0 and statistics.median(map(float, output.split())) < 0.001
