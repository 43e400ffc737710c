"""`ADD https://…`: a file from the network, as BuildKit's HTTP source fetches it.

It is downloaded at each build, for only then it is known whether it is still the same; the cache key is of
its content. It gets mode 0600 and the time that `Last-Modified` says.
"""

import email.utils
import hashlib
import os
import re
import urllib.parse
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp

from dockmagic_runtime.errors import InvalidParameter
from dockmagic_runtime.images.remote import download as fetch
from dockmagic_runtime.images.remote import response
from dockmagic_runtime.storage import tar

_CHUNK = 1 << 18
_LONGEST_TEXT = 1 << 20
_GIT = re.compile(r"git@|git://|ssh://|github\.com/|\S+\.git(#|$)")
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")


def is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))


def is_git(source: str) -> bool:
    """Whether BuildKit would clone it."""
    return bool(_GIT.match(source) or (is_url(source) and re.search(r"\.git(#|$)", source)))


async def fetched(url: str) -> AsyncIterator[bytes]:
    """The context that a URL names (`docker build URL`), as a tar: what is none is taken as a Dockerfile.

    Raises InvalidParameter, also for a repository of Git, which there is none to clone with.
    """
    if is_git(url):
        raise InvalidParameter(f"{url} is a Git repository: clone it, and build the directory")
    chunks = aiter(fetch(url))
    first = b""
    async for chunk in chunks:
        first += chunk
        if len(first) >= _LONGEST_TEXT:
            break
    if b"\0" in first:
        yield first
        async for chunk in chunks:
            yield chunk
    elif len(first) >= _LONGEST_TEXT:
        raise InvalidParameter(f"{url} is neither a tar nor a Dockerfile")
    else:
        entry = tar.Entry(b"Dockerfile", tar.REGULAR, 0o644, size=len(first))
        yield tar.header(entry) + first + tar.padding(len(first)) + bytes(1024)


def check(checksum: str) -> None:
    """Raises InvalidParameter for a checksum that is none."""
    if not _CHECKSUM.fullmatch(checksum):
        raise InvalidParameter(f"invalid checksum digest format: {checksum}")


def compare(digest: str, checksum: str) -> None:
    """Raises InvalidParameter if they differ."""
    if checksum != digest:
        raise InvalidParameter(f"digest mismatch {digest}: {checksum}")


async def download(url: str, directory: Path, *, named: bool) -> str:
    """Fetch into the new `directory`; returns the digest. `named`: the URL must say a name for the file.

    Raises InvalidParameter with what the server said. Nothing stays of a failure but the directory, which is
    the caller's.
    """
    name = urllib.parse.unquote(Path(urllib.parse.urlsplit(url).path).name)
    directory.mkdir(parents=True)
    content = hashlib.sha256()
    try:
        async with response(url) as got:
            if got.status >= 400:
                raise InvalidParameter(f"failed to GET {url} with status {got.status} {got.reason}")
            disposition = got.content_disposition
            name = Path((disposition and disposition.filename) or name).name
            if named and name in ("", ".", ".."):
                raise InvalidParameter(f"cannot determine filename from url: {url}")
            path = directory / (name if name not in ("", ".", "..") else "download")
            with path.open("xb") as file:
                async for data in got.content.iter_chunked(_CHUNK):
                    content.update(data)
                    file.write(data)
            modified = email.utils.parsedate_tz(got.headers.get("Last-Modified", ""))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise InvalidParameter(f"failed to GET {url}: {error or 'timed out'}") from None
    path.chmod(0o600)
    seconds = email.utils.mktime_tz(modified) if modified else 0
    os.utime(path, (seconds, seconds))
    return f"sha256:{content.hexdigest()}"
