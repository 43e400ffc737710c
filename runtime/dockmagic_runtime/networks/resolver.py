"""The DNS server at 127.0.0.11 of a container in a user-defined network (RFC 1035, over UDP and TCP).

Its sockets were opened inside the container's namespace; the engine's event loop serves them from outside.
A name of a container in one of the same networks is answered here; anything else is forwarded, from the
host's side, to the resolvers of the host or those of `--dns`.
"""

import asyncio
import random
import socket
import struct
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any, cast

from dnslib import AAAA, PTR, QTYPE, RCODE, RR, A, DNSError, DNSRecord

from dockmagic_runtime.networks.ipam import Address

_TTL = 600  # Docker's
_PATIENCE = 4.0  # seconds for one upstream server: client libraries try again after five


class Resolver(asyncio.DatagramProtocol):
    """One container's name server.

    `addresses(name)` gives the addresses of a container by any of its names, None if there is no such name;
    `name_of(address)` the reverse; `upstream` the servers to ask for the rest (none: an internal network).
    """

    def __init__(
        self,
        addresses: Callable[[str], Sequence[Address] | None],
        name_of: Callable[[Address], str | None],
        upstream: list[str],
    ) -> None:
        self._addresses = addresses
        self._name_of = name_of
        self._upstream = upstream
        self._transport: asyncio.DatagramTransport | None = None
        self._server: asyncio.Server | None = None
        self._pending: set[asyncio.Task[None]] = set()

    async def serve(self, datagrams: socket.socket, streams: socket.socket) -> None:
        """Start answering; the sockets are the resolver's from now on."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=datagrams)
        self._server = await asyncio.start_server(self._stream, sock=streams)

    def close(self) -> None:
        """Stop answering and let go of the namespace; questions that wait for an upstream are dropped."""
        if self._transport:
            self._transport.abort()
        if self._server:
            self._server.close()
        for task in self._pending:
            task.cancel()

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if (answer := self._own_answer(data)) is not None:
            self._send(answer, addr)
            return
        task = asyncio.get_running_loop().create_task(self._forward_datagram(data, addr))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    def _send(self, answer: bytes, addr: tuple[Any, ...]) -> None:
        if self._transport and not self._transport.is_closing():
            self._transport.sendto(answer, addr)

    async def _forward_datagram(self, query: bytes, addr: tuple[Any, ...]) -> None:
        self._send(await self._forward(query, _ask_datagram), addr)

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP connection: questions and answers, each after its length in two bytes."""
        task = asyncio.current_task()
        assert task
        self._pending.add(task)
        try:
            while True:
                (length,) = struct.unpack("!H", await reader.readexactly(2))
                query = await reader.readexactly(length)
                answer = self._own_answer(query)
                if answer is None:
                    answer = await self._forward(query, _ask_stream)
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            # The client has what it wanted.
            pass
        finally:
            self._pending.discard(task)
            writer.close()

    def _own_answer(self, query: bytes) -> bytes | None:
        """The answer to a question about a container; None if it is somebody else's to answer."""
        try:
            request = DNSRecord.parse(query)
        except DNSError:
            return _failure(query, RCODE.FORMERR)
        if request.header.qr or len(request.questions) != 1:
            return _failure(query, RCODE.FORMERR)
        question = request.q
        name = str(question.qname).rstrip(".")
        reply = request.reply(ra=1, aa=0)
        if question.qtype == QTYPE.PTR:
            known = self._name_of(address) if (address := _reversed(name)) else None
            if not known:
                return None
            reply.add_answer(RR(question.qname, QTYPE.PTR, rdata=PTR(known + "."), ttl=_TTL))
            return bytes(reply.pack())
        addresses = self._addresses(name.lower())
        if addresses is None:
            return None
        # A name that exists, without an address of the kind asked for: an answer without entries.
        for address in random.sample(addresses, len(addresses)):
            kind, data = (QTYPE.A, A) if address.version == 4 else (QTYPE.AAAA, AAAA)
            if question.qtype in (kind, QTYPE.ANY):
                reply.add_answer(RR(question.qname, kind, rdata=data(str(address)), ttl=_TTL))
        return bytes(reply.pack())

    async def _forward(self, query: bytes, ask: Callable[[str, bytes], Any]) -> bytes:
        """The first upstream answer; SERVFAIL if no server gives one."""
        for server in self._upstream:
            try:
                async with asyncio.timeout(_PATIENCE):
                    answer: bytes = await ask(server, query)
                    return answer
            except (OSError, TimeoutError, asyncio.IncompleteReadError):
                continue
        return _failure(query, RCODE.SERVFAIL)


class _Asker(asyncio.DatagramProtocol):
    """Waits for the one datagram that answers `query`."""

    def __init__(self, query: bytes) -> None:
        self._query = query
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.DatagramTransport, transport).sendto(self._query)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        if data[:2] == self._query[:2] and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


async def _ask_datagram(server: str, query: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    transport, asker = await loop.create_datagram_endpoint(lambda: _Asker(query), remote_addr=(server, 53))
    try:
        return await asker.answer
    finally:
        transport.close()


async def _ask_stream(server: str, query: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(server, 53)
    try:
        writer.write(struct.pack("!H", len(query)) + query)
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        return await reader.readexactly(length)
    finally:
        writer.close()


def _failure(query: bytes, code: int) -> bytes:
    """The question itself as an answer with an error code (RFC 1035 4.1.1); empty without a whole header."""
    if len(query) < 12:
        return b""
    flags = 0x8000 | (struct.unpack_from("!H", query, 2)[0] & 0x7900) | 0x0080 | code
    return query[:2] + struct.pack("!H", flags) + query[4:]


def _reversed(name: str) -> Address | None:
    """The address that `4.3.2.1.in-addr.arpa`, or a name of 32 digits below `ip6.arpa`, stands for."""
    name = name.lower()
    try:
        if name.endswith(".ip6.arpa"):
            digits = name.removesuffix(".ip6.arpa").split(".")[::-1]
            return IPv6Address(bytes.fromhex("".join(digits)))
        return IPv4Address(".".join(name.removesuffix(".in-addr.arpa").split(".")[::-1]))
    except ValueError:
        return None
