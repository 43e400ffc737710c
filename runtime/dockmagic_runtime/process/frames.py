"""Docker's multiplexed stream, read: frames of a stream number (1 stdout, 2 stderr), a length, and data.

What `stdio.py` writes for clients, taken apart again by the parts of the engine that are such a client.
"""

import struct
from collections.abc import Iterator

_HEAD = struct.Struct(">BxxxI")


class Frames:
    """Bytes in as they arrive, whole pieces out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(stream, data) of each frame that `data` completes."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            stream, length = _HEAD.unpack_from(self._buffer)
            if len(self._buffer) < _HEAD.size + length:
                return
            piece = bytes(self._buffer[_HEAD.size : _HEAD.size + length])
            del self._buffer[: _HEAD.size + length]
            yield stream, piece
