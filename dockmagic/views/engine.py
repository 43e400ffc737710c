"""What only our engine can tell: the routes under `/dockmagic/`, on the socket of a docker-py client.

A real Docker or Podman has none of them; the pictures then show what `inspect`, `history` and `top` give, and
say what is not known.
"""

from __future__ import annotations

from typing import Any

import docker
import requests
from docker.errors import create_api_error_from_http_exception


def is_ours(client: docker.DockerClient) -> bool:
    """Whether the engine behind `client` is dockmagic's, by the components it names in `/version`."""
    components = client.version().get("Components") or []
    return any(component.get("Name") == "dockmagic-runtime" for component in components)


def extension(client: docker.DockerClient, path: str, body: Any = None) -> Any | None:
    """The answer of `GET /dockmagic/<path>` (of POST, with a `body`), or None where these routes are not.

    Raises docker.errors.NotFound when the engine is ours and knows no such thing, docker.errors.APIError
    otherwise.
    """
    url, timeout = f"{client.api.base_url}/dockmagic/{path}", client.api.timeout
    if body is None:
        answer = client.api.get(url, timeout=timeout)
    else:
        answer = client.api.post(url, json=body, timeout=timeout)
    if answer.status_code == 404 and not is_ours(client):
        return None
    try:
        answer.raise_for_status()
    except requests.HTTPError as error:
        create_api_error_from_http_exception(error)
    return answer.json()
