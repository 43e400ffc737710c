"""`RUN --mount=type=ssh`: the client's SSH agent, through a socket of the step's own.

The agent's socket itself may not be the step's: its owner and mode are the client's business. So each step
gets one that relays, unix(7), with the owner and mode that its mount asks for. It is gone with the step.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_CHUNK = 1 << 16


@asynccontextmanager
async def relayed(agent: str, path: Path, mode: int, owner: tuple[int, int]) -> AsyncIterator[None]:
    """While it lasts, `path` answers as `agent` does. Raises OSError if no socket can be made there."""
    connections: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        connections.add(task)
        task.add_done_callback(connections.discard)
        await _relay(agent, reader, writer)

    server = await asyncio.start_unix_server(connected, path)
    try:
        path.chmod(mode)
        os.chown(path, *owner)
        yield
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        path.unlink(missing_ok=True)


async def _relay(agent: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An agent that is not there any more is, to the step, one that hangs up."""
    try:
        from_agent, to_agent = await asyncio.open_unix_connection(agent)
    except OSError:
        writer.close()
        return
    try:
        await asyncio.gather(_copy(reader, to_agent), _copy(from_agent, writer))
    finally:
        to_agent.close()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
