"""pyroute2's rtnetlink messages, and nothing else of it.

`pyroute2/__init__.py` imports every protocol that library speaks, which takes a third of a second; the
messages alone take a tenth of that. So they are imported while an empty module stands in for the package, and
that module is taken away again: to anyone else `import pyroute2` is what it always was.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec


@contextmanager
def _not_run(package: str) -> Iterator[None]:
    """For the length of the block, `package` can be imported from without running its `__init__.py`."""
    if package in sys.modules:
        yield
        return
    found = find_spec(package)
    if found is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    sys.modules[package] = module_from_spec(found)
    try:
        yield
    finally:
        del sys.modules[package]


with _not_run("pyroute2"):
    from pyroute2.netlink import (
        NETLINK_EXT_ACK,
        NETLINK_ROUTE,
        NLA_F_NESTED,
        NLM_F_ACK,
        NLM_F_CREATE,
        NLM_F_DUMP,
        NLM_F_EXCL,
        NLM_F_REQUEST,
        NLMSG_DONE,
        NLMSG_ERROR,
        SOL_NETLINK,
        nlmsg,
    )
    from pyroute2.netlink.marshal import Marshal
    from pyroute2.netlink.rtnl import (
        RTM_DELLINK,
        RTM_GETADDR,
        RTM_GETLINK,
        RTM_GETNEIGH,
        RTM_GETROUTE,
        RTM_NEWADDR,
        RTM_NEWLINK,
        RTM_NEWNEIGH,
        RTM_NEWROUTE,
        RTM_SETLINK,
        rt_proto,
        rt_scope,
        rt_type,
    )
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
    from pyroute2.netlink.rtnl.ifinfmsg import IFF_UP, ifinfmsg
    from pyroute2.netlink.rtnl.ndmsg import ndmsg
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

__all__ = [
    "IFF_UP",
    "NETLINK_EXT_ACK",
    "NETLINK_ROUTE",
    "NLA_F_NESTED",
    "NLMSG_DONE",
    "NLMSG_ERROR",
    "NLM_F_ACK",
    "NLM_F_CREATE",
    "NLM_F_DUMP",
    "NLM_F_EXCL",
    "NLM_F_REQUEST",
    "RTM_DELLINK",
    "RTM_GETADDR",
    "RTM_GETLINK",
    "RTM_GETNEIGH",
    "RTM_GETROUTE",
    "RTM_NEWADDR",
    "RTM_NEWLINK",
    "RTM_NEWNEIGH",
    "RTM_NEWROUTE",
    "RTM_SETLINK",
    "SOL_NETLINK",
    "Marshal",
    "ifaddrmsg",
    "ifinfmsg",
    "ndmsg",
    "nlmsg",
    "rt_proto",
    "rt_scope",
    "rt_type",
    "rtmsg",
]
