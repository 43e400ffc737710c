"""Pull and push: the engine's stream of progress as one picture in the cell.

Stop closes the connection, which is what tells the engine to give the transfer up. Layers that arrived whole
stay, so the next pull begins where this one ended.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dockmagic.errors import DockmagicError
from dockmagic.grammar.session import Session

if TYPE_CHECKING:
    from docker.models.images import Image


def pull_image(session: Session, name: str, *, platform: str | None = None, quiet: bool = False) -> "Image":
    """Pull `name` and return the image."""
    repository, tag = reference(name)
    params = {"fromImage": repository, "tag": tag}
    if platform:
        params["platform"] = platform
    transfer(session, "/images/create", params, repository, f"Pulling {name}", quiet=quiet)
    return session.client.images.get(name)


def transfer(
    session: Session, path: str, params: dict[str, Any], repository: str, caption: str, *, quiet: bool
) -> None:
    """POST to `path` and show its progress. Raises DockmagicError with the engine's sentence."""
    headers = credentials(session, repository)
    response = session.stream("POST", path, params=params, headers=headers)
    error = shown(session, messages(response), caption, quiet=quiet)
    if error:
        raise DockmagicError(error, exit_code=125)


def shown(session: Session, stream: Iterator[dict[str, Any]], caption: str, *, quiet: bool) -> str | None:
    """Feed the messages to a picture of progress; the engine's sentence if the stream ended with an error."""
    if quiet:
        return next((message["error"] for message in stream if message.get("error")), None)
    from dockmagic.views.progress import Progress

    progress = Progress(caption)
    with session.cell.showing(progress):
        for message in stream:
            progress.feed(message)
    return progress.error


def messages(response: Any) -> Iterator[dict[str, Any]]:
    """The JSON objects of a progress stream, each as soon as it is whole."""
    from dockmagic.streams import response_reader

    read = response_reader(response)
    decoder = json.JSONDecoder()
    pending = b""
    while data := read(65536):
        pending += data
        # Objects are lines in Docker's and our streams; what follows the last line's end is not whole yet.
        head, newline, rest = pending.rpartition(b"\n")
        if newline:
            pending = rest
            yield from _objects(decoder, head.decode("utf-8", "replace"))
    yield from _objects(decoder, pending.decode("utf-8", "replace"))


def _objects(decoder: json.JSONDecoder, text: str) -> Iterator[dict[str, Any]]:
    text = text.strip()
    while text:
        found, end = decoder.raw_decode(text)
        yield found
        text = text[end:].lstrip()


def credentials(session: Session, repository: str) -> dict[str, bytes]:
    """The `X-Registry-Auth` header, from the same configuration that the docker command uses."""
    from docker.auth import get_config_header, resolve_repository_name
    from docker.errors import DockerException

    registry, _name = resolve_repository_name(repository)
    try:
        header = get_config_header(session.api, registry)
    except DockerException as error:
        raise DockmagicError(f"error getting credentials - {error.__cause__ or error}") from None
    return {"X-Registry-Auth": header} if header else {}


def reference(name: str) -> tuple[str, str]:
    """`nginx` as `nginx` and `latest`; a digest stays with its `sha256:`."""
    if "@" in name:
        repository, _, digest = name.partition("@")
        return repository, digest
    if ":" in name.rpartition("/")[2]:
        repository, _, tag = name.rpartition(":")
        return repository, tag
    return name, "latest"


def with_tag(image: str) -> str:
    """`busybox` as the engine names it in sentences: `busybox:latest`."""
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"
