"""Streams that end with their client: following logs, events and statistics; pull, push, load and build.

aiohttp tells a handler that its client has gone when it next writes, which for a quiet stream may be never.
The kernel knows at once: a closed unix or TCP connection is an EPOLLRDHUP of epoll(7).
"""

import asyncio
import os
import select
from collections.abc import Coroutine
from typing import Any, TypeVar

from dockmagic_runtime.api.call import Call

T = TypeVar("T")


async def while_connected(call: Call, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client closes its connection.

    Raises ConnectionResetError then.
    """
    task = asyncio.ensure_future(work)
    loop, transport = asyncio.get_running_loop(), call.request.transport
    if transport is None:
        task.cancel()
        raise ConnectionResetError("the client is gone")
    # A duplicate: the transport takes its own out of every epoll when it closes it.
    connection = os.dup(transport.get_extra_info("socket").fileno())
    gone = False

    def hung_up() -> None:
        nonlocal gone
        gone = True
        loop.remove_reader(hangup.fileno())
        task.cancel()

    with select.epoll() as hangup:
        hangup.register(connection, select.EPOLLRDHUP)
        loop.add_reader(hangup.fileno(), hung_up)
        try:
            return await task
        except asyncio.CancelledError:
            if gone:
                raise ConnectionResetError("the client is gone") from None
            raise
        finally:
            loop.remove_reader(hangup.fileno())
            os.close(connection)
