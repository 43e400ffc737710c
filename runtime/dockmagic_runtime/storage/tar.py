"""The tar format, both ways, as far as images use it (POSIX ustar and pax, GNU long names and sparse files).

Python's `tarfile` spends most of a layer's unpacking time in itself. This reader works on large buffers and
hands out bytes; it has no opinion about where things go. Names and link targets are bytes, as in the kernel.

    reader = TarReader(chunks)
    for entry in reader:                    # in the order of the stream
        for data in reader.content(): …     # optional; what is not read is skipped

The writer is deterministic: the same entries give the same bytes, on any machine and at any time. A pax
header is written only for what ustar cannot say.
"""

import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from zlib import adler32

from dockmagic_runtime.errors import InvalidParameter

BLOCK = 512
REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"

_SPARSE, _PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"S", b"x", b"g", b"L", b"K"
_EXTENSIONS = frozenset({_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK})
_KINDS = frozenset({REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO})
_XATTR = b"SCHILY.xattr."
_EXTENDED_MAX = 1 << 20
"""Bytes of the longest pax or long-name header that is believed (as in Go's archive/tar)."""
_ZEROS = bytes(BLOCK)
_NANOSECONDS = 1_000_000_000

FILE_TYPES = {
    REGULAR: stat.S_IFREG,
    SYMLINK: stat.S_IFLNK,
    CHARACTER: stat.S_IFCHR,
    BLOCKDEV: stat.S_IFBLK,
    DIRECTORY: stat.S_IFDIR,
    FIFO: stat.S_IFIFO,
}


@dataclass(slots=True)
class Entry:
    """One member. `size` is the file's length; `sparse`, if set, says where its data is: (offset, length)."""

    name: bytes
    kind: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    link: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    sparse: list[tuple[int, int]] | None = None


class TarReader:
    """Entries of an uncompressed tar, given as chunks of any size. InvalidParameter if it is malformed."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""
        self._view = memoryview(b"")
        self._position = 0
        self._remaining = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        pax: dict[bytes, bytes] = {}
        sparse_pairs: list[tuple[int, int]] = []
        long_name = long_link = None
        while (block := self._next_header()) is not None:
            kind = block[156:157]
            size = _number(block[124:136])
            if kind in _EXTENSIONS:
                data = self._extended(size)
                if kind == _PAX:
                    pax, sparse_pairs = _pax_records(data)
                elif kind == _LONG_NAME:
                    long_name = data.split(b"\0", 1)[0]
                elif kind == _LONG_LINK:
                    long_link = data.split(b"\0", 1)[0]
                continue
            entry = _entry(block, kind, size)
            if kind == REGULAR and size >= 0 and not (pax or long_name or long_link):
                self._remaining, self._padding = size, -size % BLOCK
                yield entry
                continue
            if long_name is not None:
                entry.name = long_name
            if long_link is not None:
                entry.link = long_link
            stored = size
            if pax:
                stored = _apply_pax(entry, pax, stored)
            if entry.kind in (b"\0", b"7"):
                entry.kind = DIRECTORY if kind == b"\0" and entry.name.endswith(b"/") else REGULAR
            self._begin(entry, stored, block, pax, sparse_pairs)
            if entry.kind not in _KINDS:
                raise InvalidParameter(f"unhandled tar header type {kind!r} for {shown(entry.name)}")
            yield entry
            pax, sparse_pairs, long_name, long_link = {}, [], None, None

    def content(self) -> Iterator[memoryview]:
        """The stored bytes of the entry just given (without the holes of a sparse one)."""
        while self._remaining:
            available = len(self._buffer) - self._position
            if not available:
                self._fill()
                continue
            count = min(available, self._remaining)
            start = self._position
            self._position += count
            self._remaining -= count
            yield self._view[start : start + count]

    def whole(self) -> bytes:
        """The same in one piece, for what is known to be small."""
        start = self._position
        end = start + self._remaining
        if end > len(self._buffer):
            return b"".join(self.content())
        self._position, self._remaining = end, 0
        return self._buffer[start:end]

    def drain(self) -> None:
        """Read the stream to its end, so that whoever hashes it has seen every byte."""
        for _ in self._chunks:
            pass

    def _begin(
        self,
        entry: Entry,
        stored: int,
        block: bytes,
        pax: dict[bytes, bytes],
        sparse_pairs: list[tuple[int, int]],
    ) -> None:
        """Note how many bytes follow, and for a sparse file where they belong."""
        if entry.kind not in (REGULAR, _SPARSE):
            stored = entry.size = 0
        if stored < 0:
            raise InvalidParameter(f"invalid tar header: negative size of {shown(entry.name)}")
        self._remaining, self._padding = stored, -stored % BLOCK
        if entry.kind == _SPARSE:
            entry.kind, entry.size = REGULAR, _number(block[483:495])
            entry.sparse = self._old_gnu_map(block)
        elif pax.get(b"GNU.sparse.major") == b"1":
            entry.sparse = self._stored_map()
        elif b"GNU.sparse.map" in pax:
            entry.sparse = _pairs(_decimal(text) for text in pax[b"GNU.sparse.map"].split(b","))
        elif sparse_pairs:
            entry.sparse = sparse_pairs
        if entry.sparse is not None:
            _check_sparse(entry, self._remaining)

    def _next_header(self) -> bytes | None:
        unread = self._remaining + self._padding
        self._remaining = self._padding = 0
        start = self._position + unread
        block: bytes | None = self._buffer[start : start + BLOCK]
        if block is not None and len(block) == BLOCK:
            self._position = start + BLOCK
        else:
            self._skip(unread)
            block = self._take(BLOCK, may_end=True)
            if block is None:
                return None
        if block == _ZEROS:
            if self._take(BLOCK, may_end=True) not in (_ZEROS, None):
                raise InvalidParameter("invalid tar header")
            return None
        try:
            expected = _claimed_sum(block[148:156])
        except InvalidParameter:
            raise InvalidParameter("invalid tar header") from None
        if expected != _sum(block):
            raise InvalidParameter("invalid tar header: checksum mismatch")
        return block

    def _extended(self, size: int) -> bytes:
        if not 0 <= size <= _EXTENDED_MAX:
            raise InvalidParameter("invalid tar header: extended header too large")
        data = self._must_take(size)
        self._skip(-size % BLOCK)
        return data

    def _old_gnu_map(self, block: bytes) -> list[tuple[int, int]]:
        numbers: list[int] = []
        table, count, more = block[386:482], 4, block[482]
        while True:
            for start in range(0, count * 24, 24):
                if table[start] == 0:
                    break
                numbers += _number(table[start : start + 12]), _number(table[start + 12 : start + 24])
            if not more:
                return _pairs(iter(numbers))
            if len(numbers) > 1 << 20:
                raise InvalidParameter("invalid tar header: sparse map too long")
            table, count = self._must_take(BLOCK), 21
            more = table[504]

    def _stored_map(self) -> list[tuple[int, int]]:
        """pax sparse format 1.0: decimal numbers, one a line, in front of the data, padded to a block."""
        text = b""
        wanted: int | None = None
        while wanted is None or text.count(b"\n") < wanted:
            if self._remaining < BLOCK or len(text) > 1 << 24:
                raise InvalidParameter("invalid tar header: bad sparse map")
            text += self._must_take(BLOCK)
            self._remaining -= BLOCK
            if wanted is None and b"\n" in text:
                wanted = 2 * _decimal(text.split(b"\n", 1)[0]) + 1
        lines = text.split(b"\n")[1:wanted]
        return _pairs(_decimal(line) for line in lines)

    def _take(self, count: int, may_end: bool = False) -> bytes | None:
        start, end = self._position, self._position + count
        if end <= len(self._buffer):
            self._position = end
            return self._buffer[start:end]
        parts = [self._buffer[start:]]
        missing = count - len(parts[0])
        while missing:
            if not self._fill(may_end=True):
                if may_end and missing == count:
                    return None
                raise InvalidParameter("unexpected EOF in tar stream")
            part = self._buffer[:missing]
            self._position = len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _must_take(self, count: int) -> bytes:
        data = self._take(count)
        assert data is not None
        return data

    def _skip(self, count: int) -> None:
        while count > len(self._buffer) - self._position:
            count -= len(self._buffer) - self._position
            self._fill()
        self._position += count

    def _fill(self, may_end: bool = False) -> bool:
        self._buffer = next(self._chunks, b"")
        self._view = memoryview(self._buffer)
        self._position = 0
        if not self._buffer and not may_end:
            raise InvalidParameter("unexpected EOF in tar stream")
        return bool(self._buffer)


def _entry(block: bytes, kind: bytes, size: int) -> Entry:
    name = block[:100].split(b"\0", 1)[0]
    if block[345] and block[257:263] == b"ustar\0":
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    entry = Entry(
        name,
        kind,
        _number(block[100:108]) & 0o7777,
        _number(block[108:116]),
        _number(block[116:124]),
        size,
        _number(block[136:148]) * _NANOSECONDS,
        block[157:257].split(b"\0", 1)[0] if block[157] else b"",
    )
    if kind in (CHARACTER, BLOCKDEV):
        entry.device = _number(block[329:337]), _number(block[337:345])
    return entry


def _sum(block: bytes) -> int:
    """Of the bytes, 512 at most: as `_short_sum` does, twice."""
    return (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2


def _short_sum(data: bytes) -> int:
    """Of the bytes, 256 at most. The low half of an Adler-32 is one more than their sum, modulo 65521: that
    is exact for so few, and many times quicker than adding them up."""
    return (adler32(data) & 0xFFFF) - 1


@lru_cache(4096)
def _claimed_sum(field: bytes) -> int:
    """What the bytes of a header with this checksum must add up to: its own count as spaces in it."""
    return _number(field) - 8 * ord(" ") + sum(field)


@lru_cache(4096)  # most files of an archive share their owner, mode and time
def _number(text: bytes) -> int:
    """An octal field, or a base-256 one (GNU: first bit set, two's complement)."""
    if text[0] & 0x80:
        value = int.from_bytes(text, "big")
        bits = 8 * len(text)
        value -= 1 << bits if text[0] & 0x40 else 1 << (bits - 1)
        # Owners and devices are 32 bits to the kernel, sizes and times 63: no octal field can say more.
        if not (0 <= value < 1 << 32 if len(text) == 8 else abs(value) < 1 << 63):
            raise InvalidParameter("invalid tar header: number out of range")
        return value
    digits = text.split(b"\0", 1)[0].strip()
    # Python takes more for a number: "1_000", "+1", "0o1".
    if digits.strip(b"01234567"):
        raise InvalidParameter("invalid tar header: bad number")
    return int(digits, 8) if digits else 0


def _decimal(text: bytes, bits: int = 63) -> int:
    if not text.isdigit() or len(text) > 20:
        raise InvalidParameter("invalid tar header: bad number")
    value = int(text)
    if value >= 1 << bits:
        raise InvalidParameter("invalid tar header: number out of range")
    return value


def _pairs(numbers: Iterator[int]) -> list[tuple[int, int]]:
    flat = list(numbers)
    if len(flat) % 2:
        raise InvalidParameter("invalid tar header: bad sparse map")
    return list(zip(flat[::2], flat[1::2], strict=True))


def _check_sparse(entry: Entry, stored: int) -> None:
    end = 0
    for offset, length in entry.sparse or ():
        if offset < end or length < 0:
            raise InvalidParameter(f"invalid tar header: bad sparse map of {shown(entry.name)}")
        end = offset + length
    if end > entry.size or sum(length for _, length in entry.sparse or ()) != stored:
        raise InvalidParameter(f"invalid tar header: bad sparse map of {shown(entry.name)}")


def _pax_records(data: bytes) -> tuple[dict[bytes, bytes], list[tuple[int, int]]]:
    """The records `<length> <key>=<value>\\n`, and the repeated offset and numbytes of sparse format 0.0."""
    records: dict[bytes, bytes] = {}
    sparse: list[int] = []
    position = 0
    while position < len(data) and data[position]:
        space = data.find(b" ", position, position + 20)
        length = _decimal(data[position:space]) if space > 0 else 0
        end = position + length
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if length < 5 or end > len(data) or data[end - 1 : end] != b"\n" or not equals or not key:
            raise InvalidParameter("invalid tar header: bad pax record")
        if b"\0" in key or (key in (b"path", b"linkpath") and b"\0" in value):
            raise InvalidParameter("invalid tar header: NUL in a pax record")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(_decimal(value))
        else:
            records[key] = value
        position = end
    return records, _pairs(iter(sparse))


def _apply_pax(entry: Entry, pax: dict[bytes, bytes], stored: int) -> int:
    """Let the pax records overrule the ustar fields; returns the number of bytes that follow."""
    for key, value in pax.items():
        if key == b"path":
            entry.name = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            stored = entry.size = _decimal(value)
        elif key == b"uid":
            entry.uid = _decimal(value, 32)
        elif key == b"gid":
            entry.gid = _decimal(value, 32)
        elif key == b"mtime":
            entry.mtime_ns = _pax_time(value)
        elif key.startswith(_XATTR):
            entry.xattrs[key[len(_XATTR) :]] = value
    if b"GNU.sparse.name" in pax:
        entry.name = pax[b"GNU.sparse.name"]
    for key in (b"GNU.sparse.size", b"GNU.sparse.realsize"):
        if key in pax:
            entry.size = _decimal(pax[key])
    return stored


def _pax_time(text: bytes) -> int:
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.lstrip(b"-").partition(b".")
    nanoseconds = _decimal(fraction[:9].ljust(9, b"0")) if fraction else 0
    return sign * (_decimal(whole or b"0") * _NANOSECONDS + nanoseconds)


def shown(name: bytes) -> str:
    """A name of any length and bytes, for a message."""
    text = name.decode(errors="backslashreplace")
    return text if len(text) <= 200 else f"{text[:200]}…"


_FRONT = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0"
_FRONT_SIZE = 148
"""Name, mode, user, group, size and time; longer if one of them does not fit."""


def header(entry: Entry) -> bytes:
    """The header blocks of `entry`: ustar, after a pax header if need be. Times in whole seconds."""
    mtime = max(entry.mtime_ns // _NANOSECONDS, 0)
    name = entry.name.ljust(100, b"\0")
    front = _FRONT % (name, entry.mode, entry.uid, entry.gid, entry.size, mtime)
    if len(front) != _FRONT_SIZE or len(entry.link) > 100 or entry.xattrs:
        return _extended_header(entry, mtime)
    return _block(front, _tail(entry.kind, entry.link, entry.device, b""))


def plain_header(name: bytes, mode: int, uid: int, gid: int, size: int, mtime_ns: int) -> bytes:
    """The same for a regular file that has no attributes."""
    mtime = max(mtime_ns // _NANOSECONDS, 0)
    front = _FRONT % (name.ljust(100, b"\0"), mode, uid, gid, size, mtime)
    if len(front) != _FRONT_SIZE:
        return _extended_header(Entry(name, REGULAR, mode, uid, gid, size, mtime_ns), mtime)
    return _block(front, _PLAIN_TAIL)


def _extended_header(entry: Entry, mtime: int) -> bytes:
    """What ustar cannot say, in a pax header; in the fields for it is what fits, or nothing."""
    records: list[tuple[bytes, bytes]] = []
    name, prefix = _split_name(entry.name)
    if name is None:
        records.append((b"path", entry.name))
        name, prefix = entry.name[:100], b""
    if len(entry.link) > 100:
        records.append((b"linkpath", entry.link))
    size = _fitting(entry.size, 11, b"size", records)
    uid = _fitting(entry.uid, 7, b"uid", records)
    gid = _fitting(entry.gid, 7, b"gid", records)
    mtime = _fitting(mtime, 11, b"mtime", records)
    records += ((_XATTR + key, value) for key, value in sorted(entry.xattrs.items()))
    front = _FRONT % (name.ljust(100, b"\0"), entry.mode, uid, gid, size, mtime)
    block = _block(front, _tail(entry.kind, entry.link[:100], entry.device, prefix))
    return _pax_header(records) + block if records else block


def _block(front: bytes, tail: tuple[bytes, int]) -> bytes:
    """With the checksum between them."""
    end, end_sum = tail
    return b"%b%06o\0 %b" % (front, _short_sum(front) + end_sum, end)


@lru_cache(64)
def _tail(kind: bytes, link: bytes, device: tuple[int, int], prefix: bytes) -> tuple[bytes, int]:
    """Of a header what stands after the checksum, the same for most entries; and what it adds to that, with
    the checksum's own place, which counts as spaces."""
    numbers = b"%07o\0%07o\0" % device
    names = kind + link.ljust(100, b"\0") + b"ustar\00000" + bytes(64)
    tail = names + numbers + prefix.ljust(155, b"\0") + bytes(12)
    return tail, _sum(tail) + 8 * ord(" ")


_PLAIN_TAIL = _tail(REGULAR, b"", (0, 0), b"")


def padding(size: int) -> bytes:
    """What follows `size` bytes of content."""
    return _ZEROS[: -size % BLOCK]


END = bytes(2 * BLOCK)
"""What ends an archive."""


def _split_name(name: bytes) -> tuple[bytes | None, bytes]:
    if len(name) <= 100:
        return name, b""
    cut = name.rfind(b"/", 0, 156)
    while cut > 0:
        if len(name) - cut - 1 > 100:
            break
        if len(name) - cut > 1:
            return name[cut + 1 :], name[:cut]
        cut = name.rfind(b"/", 0, cut)
    return None, b""


def _fitting(value: int, digits: int, key: bytes, records: list[tuple[bytes, bytes]]) -> int:
    if value < 8**digits:
        return value
    records.append((key, b"%d" % value))
    return 0


def _pax_header(records: Iterable[tuple[bytes, bytes]]) -> bytes:
    data = b"".join(_pax_record(key, value) for key, value in records)
    return header(Entry(b"PaxHeader", _PAX, size=len(data))) + data + padding(len(data))


def _pax_record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + len(str(len(body)))
    if len(str(length)) + len(body) != length:
        length += 1
    return b"%d" % length + body


def chunks_of(
    read: Callable[[int], bytes], size: int = 1 << 20, limit: int | None = None, what: str = "archive"
) -> Iterator[bytes]:
    """A stream's `read` as an iterator of chunks.

    It raises InvalidParameter at more than `limit` bytes: `what` it is the stream of is taken for a bomb.
    """
    chunks = iter(lambda: read(size), b"")
    return chunks if limit is None else _limited(chunks, limit, what)


def _limited(chunks: Iterator[bytes], limit: int, what: str) -> Iterator[bytes]:
    left = limit
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise InvalidParameter(
                f"the {what} is larger than {limit} bytes when unpacked: start the engine with a larger"
                " --layer-limit if it is meant to be"
            )
        yield chunk
