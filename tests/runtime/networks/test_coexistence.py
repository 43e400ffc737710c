"""Beside a firewall that drops what is forwarded; in a network namespace that stands for such a host."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from dockmagic_runtime.kernel.nftables import Nftables
from dockmagic_runtime.networks import namespace
from dockmagic_runtime.networks.coexistence import Coexistence

DOCKER = """
table ip filter {
    chain DOCKER-USER { counter return; }
    chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }
}
"""
OTHER = (
    "table inet strict { chain strict_forward { type filter hook forward priority filter; policy drop; }; }"
)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[tuple[Nftables, Coexistence]]:
    fd = namespace.create(tmp_path / "host")
    with namespace.inside(fd):
        nft, coexistence = Nftables(), Coexistence("ours")
    yield nft, coexistence
    nft.close()
    coexistence.close()
    namespace.remove(tmp_path / "host")
    os.close(fd)


def rules(nft: Nftables) -> list[str]:
    found = [item["rule"] for item in nft.query("list ruleset") if "rule" in item]
    return [str(rule["expr"]) for rule in found if rule["chain"] == "DOCKER-USER"]


def test_docker_s_chain_for_others_is_used_and_left_as_it_was(host: tuple[Nftables, Coexistence]) -> None:
    nft, coexistence = host
    nft.run(DOCKER)
    before = rules(nft)
    coexistence.admit(["br-a", "br-b"])
    coexistence.admit(["br-a", "br-b"])
    now = rules(nft)
    assert len(now) == 5 and now[-1] == before[0], "ours come first, Docker's are untouched, nothing twice"
    coexistence.withdraw(["br-a"])
    assert len(rules(nft)) == 3 and not any("br-a" in rule for rule in rules(nft))
    coexistence.withdraw()
    assert rules(nft) == before


def test_any_other_dropping_firewall_is_left_alone_and_named(
    host: tuple[Nftables, Coexistence], caplog: pytest.LogCaptureFixture
) -> None:
    nft, coexistence = host
    nft.run(OTHER)
    before = nft.query("list ruleset")
    with caplog.at_level(logging.WARNING):
        coexistence.admit(["br-a"])
    assert "inet strict strict_forward" in caplog.text and "br-a" in caplog.text
    assert nft.query("list ruleset") == before


def test_nothing_is_done_where_nothing_drops(
    host: tuple[Nftables, Coexistence], caplog: pytest.LogCaptureFixture
) -> None:
    nft, coexistence = host
    nft.run(DOCKER.replace("policy drop", "policy accept"))
    coexistence.admit(["br-a"])
    assert len(rules(nft)) == 1 and not caplog.text
