"""libnftables against the real kernel, in a network namespace of the tests' own."""

import os
from collections.abc import Iterator

import pytest
from dockmagic_runtime.kernel import namespaces
from dockmagic_runtime.kernel.nftables import Nftables, NftablesError


@pytest.fixture
def nft() -> Iterator[Nftables]:
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    namespaces.unshare(namespaces.CLONE_NEWNET)
    context = Nftables()
    namespaces.setns(home, namespaces.CLONE_NEWNET)
    os.close(home)
    yield context
    context.close()


def test_commands_go_to_the_namespace_of_the_context_s_birth(nft: Nftables) -> None:
    nft.run("add table ip mine")
    assert {"family": "ip", "name": "mine"}.items() <= next(
        item["table"] for item in nft.query("list tables") if "table" in item
    ).items()
    outside = Nftables()
    assert "mine" not in [item["table"]["name"] for item in outside.query("list tables") if "table" in item]
    outside.close()


def test_elements_come_and_go(nft: Nftables) -> None:
    nft.run("table ip t { map m { type inet_service : ipv4_addr; }; }")
    nft.run("add element ip t m { 80 : 10.0.0.1, 81 : 10.0.0.2 }")
    nft.run("delete element ip t m { 80 }")
    shown = next(item["map"] for item in nft.query("list map ip t m") if "map" in item)
    assert shown["elem"] == [[81, "10.0.0.2"]]


def test_a_text_is_done_as_a_whole_or_not_at_all(nft: Nftables) -> None:
    with pytest.raises(NftablesError, match="No such file or directory"):
        nft.run("add table ip good\ndelete element ip bad nothing { 1 }")
    assert [item for item in nft.query("list tables") if "table" in item] == []
    with pytest.raises(NftablesError, match="syntax error"):
        nft.run("gibberish")
