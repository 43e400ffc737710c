"""A file that a URL names, fetched by the engine: `docker import http://…`, a build's context, ADD."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from dockmagic_runtime.errors import InvalidParameter, Unavailable

_CHUNK = 1 << 20
_PATIENCE = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)


@asynccontextmanager
async def response(url: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """What the server answers, by way of the proxies that the engine's environment names.

    Raises aiohttp's ClientError, and TimeoutError when nothing more comes.
    """
    async with aiohttp.ClientSession(timeout=_PATIENCE, trust_env=True) as session, session.get(url) as got:
        yield got


async def download(url: str) -> AsyncIterator[bytes]:
    """The bytes of the body. Raises InvalidParameter for a URL that is none or an answer other than 200."""
    if "://" not in url:
        url = f"http://{url}"
    try:
        async with response(url) as answer:
            if answer.status != 200:
                raise InvalidParameter(f"downloading {url}: {answer.status} {answer.reason}")
            async for chunk in answer.content.iter_chunked(_CHUNK):
                yield chunk
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise InvalidParameter(f"{url} is no http or https URL") from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unavailable(f"downloading {url}: {error or 'no answer in time'}") from error
