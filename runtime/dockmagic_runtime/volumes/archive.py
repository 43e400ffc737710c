"""The files of a volume as a tar, out and in, and from one volume to another.

The first entry, `./`, carries the owner and mode of the volume's own directory: a database refuses to start
on one that is not its own. What comes in is not trusted: nothing of it lands outside (`storage/unpack`).
All calls block.
"""

import os
import threading
from pathlib import Path
from typing import BinaryIO

from dockmagic_runtime.errors import EngineError
from dockmagic_runtime.kernel import paths
from dockmagic_runtime.storage import tar
from dockmagic_runtime.storage.compression import decompress
from dockmagic_runtime.storage.pack import Packer
from dockmagic_runtime.storage.unpack import Unpacker

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def write(directory: Path, out: BinaryIO) -> None:
    """Write everything below `directory` to `out`."""
    with paths.opened(directory.parent, _DIRECTORY) as above:
        packer = Packer(out.write)
        packer.member(above, os.fsencode(directory.name), b".")
        packer.finish()


def read(source: BinaryIO, directory: Path) -> None:
    """Unpack a tar, compressed or not, into `directory`. Raises InvalidParameter for a bad archive."""
    with decompress(source) as plain:
        _unpack(plain, directory)


def copy(source: Path, target: Path) -> None:
    """Everything below `source` to `target`, with owners, modes, extended attributes and hard links."""
    read_end, write_end = os.pipe()
    failures: list[EngineError | OSError] = []

    def pack() -> None:
        try:
            with os.fdopen(write_end, "wb", buffering=1 << 18) as out:
                write(source, out)
        except (EngineError, OSError) as error:
            failures.append(error)

    packing = threading.Thread(target=pack, name="volume-copy")
    packing.start()
    try:
        with os.fdopen(read_end, "rb", buffering=1 << 18) as packed:
            _unpack(packed, target)
    except EngineError as error:
        failures.append(error)
    finally:
        packing.join()
    if failures:
        raise failures[0]  # the other side's is only its consequence


def _unpack(source: BinaryIO, directory: Path) -> None:
    with paths.opened(directory, _DIRECTORY) as root, Unpacker(root) as unpacker:
        reader = tar.TarReader(tar.chunks_of(source.read))
        unpacker.unpack(reader)
        reader.drain()
