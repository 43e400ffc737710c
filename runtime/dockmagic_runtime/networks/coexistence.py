"""Other firewalls on this host that drop what our rules accept.

In netfilter a drop by any table is final, so no rule of our own can let a packet through that another
table's forward chain drops. Docker sets the policy of `ip filter FORWARD` to drop when it is first to turn
routing on (and with bridge-nf-call-iptables even frames between two containers of one bridge pass there).

The ways out, and why this one: a router in a namespace of its own would save traffic between containers,
not that to the world; tc and flow tables begin after or beside connection tracking; a proxy would be slow and
TCP only; changing the policy would open the host. Docker however keeps a chain for the rules of others,
`DOCKER-USER`, and neither flushes nor rewrites it. So where that chain exists and the policy is drop, each of
our bridges gets two accept rules there, marked with a comment and taken away with the bridge. What may enter
a bridge is still decided by our own table. Where some other firewall drops, nothing is touched and the
log says what to do.
"""

import logging
from collections.abc import Iterable
from typing import Any

from dockmagic_runtime.kernel.nftables import Nftables

_log = logging.getLogger(__name__)

_USER_CHAIN = "DOCKER-USER"


class Coexistence:
    """Keeps our bridges' traffic alive beside Docker's; `mark` is the comment on each rule."""

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._nft = Nftables()

    def admit(self, interfaces: Iterable[str]) -> None:
        """Have the traffic of these bridges accepted, where something would drop it."""
        droppers = [
            (chain["family"], chain["table"], chain["name"])
            for chain in self._chains()
            if chain.get("hook") == "forward"
            and chain.get("policy") == "drop"
            and chain["family"] in ("ip", "inet")
        ]
        if not droppers:
            return
        if droppers != [("ip", "filter", "FORWARD")] or not self._has_user_chain():
            tables = ", ".join(" ".join(dropper) for dropper in droppers)
            _log.warning(
                "the firewall of this host drops forwarded packets by default (%s): allow those of the "
                "bridges %s, or containers reach neither each other nor the outside",
                tables,
                ", ".join(interfaces),
            )
            return
        present = {interface for _, interface in self._rules()}
        for interface in interfaces:
            if interface not in present:
                _log.warning(
                    "Docker drops forwarded packets on this host: rules for %s added to its chain %s",
                    interface,
                    _USER_CHAIN,
                )
                self._nft.run(
                    "\n".join(
                        f'insert rule ip filter {_USER_CHAIN} {side} "{interface}" '
                        f'accept comment "{self._mark}"'
                        for side in ("iifname", "oifname")
                    )
                )

    def withdraw(self, interfaces: Iterable[str] | None = None) -> None:
        """Take away our rules for these bridges (None: all of ours)."""
        if not self._has_user_chain():
            return
        wanted = None if interfaces is None else set(interfaces)
        for handle, interface in self._rules():
            if wanted is None or interface in wanted:
                self._nft.run(f"delete rule ip filter {_USER_CHAIN} handle {handle}")

    def close(self) -> None:
        self._nft.close()

    def _chains(self) -> list[dict[str, Any]]:
        return [item["chain"] for item in self._nft.query("list chains") if "chain" in item]

    def _has_user_chain(self) -> bool:
        return any(
            (chain["family"], chain["table"], chain["name"]) == ("ip", "filter", _USER_CHAIN)
            for chain in self._chains()
        )

    def _rules(self) -> list[tuple[int, str]]:
        """Handle and interface of each rule that carries our mark."""
        rules = [
            item["rule"] for item in self._nft.query(f"list chain ip filter {_USER_CHAIN}") if "rule" in item
        ]
        return [
            (rule["handle"], rule["expr"][0]["match"]["right"])
            for rule in rules
            if rule.get("comment") == self._mark
        ]
