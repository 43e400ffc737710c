"""Packet rules in nft(8)'s own language, through libnftables(3): no process is started.

A command text is one transaction: all of it or nothing. Adding or removing one map element takes some
0.15 ms, whatever the map's size.
"""

import ctypes
import json
import threading
from functools import cache
from typing import Any

_OUTPUT_STATELESS, _OUTPUT_HANDLE, _OUTPUT_JSON = 1 << 2, 1 << 3, 1 << 4  # NFT_CTX_OUTPUT_*

# One command at a time in the whole process: the library shares parser state between contexts.
_turn = threading.Lock()


class NftablesError(OSError):
    """The kernel or the parser refused a command; the text is libnftables' own."""


@cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libnftables.so.1")
    except OSError:
        raise NftablesError("libnftables.so.1 is missing (Debian: apt-get install libnftables1)") from None
    library.nft_ctx_new.restype = ctypes.c_void_p
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).restype = ctypes.c_char_p
        getattr(library, name).argtypes = [ctypes.c_void_p]
    for name in ("nft_ctx_free", "nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [ctypes.c_void_p]
    library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    library.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    return library


class Nftables:
    """A libnftables context of the network namespace that the calling thread is in."""

    def __init__(self) -> None:
        self._library = _library()
        context = self._library.nft_ctx_new(0)
        if not context:
            raise NftablesError("libnftables: cannot make a context")
        self._context = ctypes.c_void_p(context)
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def close(self) -> None:
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = ctypes.c_void_p(None)

    def run(self, commands: str) -> None:
        """Do `commands` in one transaction. Raises `NftablesError`; then nothing was changed."""
        with _turn:
            self._run(commands)

    def remove_table(self, name: str) -> None:
        """A table of the family inet. No error if there is none."""
        self.run(f"add table inet {name}; delete table inet {name}")

    def query(self, command: str) -> list[dict[str, Any]]:
        """What a `list …` command shows, as libnftables-json(5) objects."""
        text = self._shown(command, _OUTPUT_JSON)
        answer: list[dict[str, Any]] = json.loads(text)["nftables"] if text else []
        return answer

    def listing(self, command: str) -> str:
        """What a `list …` command shows, as text, without counters, with `# handle N` behind each rule."""
        return self._shown(command, _OUTPUT_STATELESS | _OUTPUT_HANDLE)

    def _shown(self, command: str, form: int) -> str:
        with _turn:
            self._library.nft_ctx_output_set_flags(self._context, form)
            try:
                return self._run(command)
            finally:
                self._library.nft_ctx_output_set_flags(self._context, 0)

    def _run(self, commands: str) -> str:
        failed = self._library.nft_run_cmd_from_buffer(self._context, commands.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        errors: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            raise NftablesError(errors.decode(errors="replace").strip())
        return output.decode()
