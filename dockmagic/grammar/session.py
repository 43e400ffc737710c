"""What a command works with: the engine it talks to and the cell it writes into."""

import contextvars
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from dockmagic.contexts import Contexts
from dockmagic.errors import DockmagicError, translate
from dockmagic.waiting import Cell

if TYPE_CHECKING:
    import docker

T = TypeVar("T")


@dataclass
class Session:
    """One command's surroundings."""

    contexts: Contexts
    cell: Cell

    @property
    def client(self) -> "docker.DockerClient":
        return self.contexts.client()

    @property
    def api(self) -> Any:
        """docker-py's low-level client; what it keeps to itself is used too: its URLs, its error mapping."""
        return self.client.api

    def get(self, path: str, **params: Any) -> Any:
        """GET `path` of the Engine API as JSON. Raises docker.errors.APIError."""
        return self.api._result(self.api._get(self.api._url(path), params=params), json=True)

    def post(self, path: str, body: Any = None, **params: Any) -> Any:
        """POST to `path`: its JSON answer, or None where there is none. Raises docker.errors.APIError."""
        if body is None:
            response = self.api._post(self.api._url(path), params=params)
        else:
            response = self.api._post_json(self.api._url(path), body, params=params)
        text = self.api._result(response)
        return response.json() if text.strip() else None

    def put(self, path: str, data: Any, params: dict[str, Any]) -> None:
        """PUT `data` to `path`. Raises docker.errors.APIError."""
        self.api._raise_for_status(self.api._put(self.api._url(path), params=params, data=data))

    def head(self, path: str, params: dict[str, Any]) -> Any:
        """HEAD `path`: the response, for its headers. Raises docker.errors.APIError."""
        response = self.api.head(self.api._url(path), params=params)
        self.api._raise_for_status(response)
        return response

    def delete(self, path: str, **params: Any) -> Any:
        """DELETE `path`: its JSON answer, or None where there is none. Raises docker.errors.APIError."""
        response = self.api._delete(self.api._url(path), params=params)
        text = self.api._result(response)
        return response.json() if text.strip() else None

    def stream(self, method: str, path: str, **request: Any) -> Any:
        """Ask and return the response with its body still to come. Raises docker.errors.APIError."""
        ask = self.api._get if method == "GET" else self.api._post
        response = ask(self.api._url(path), stream=True, **request)
        self.api._raise_for_status(response)
        return response

    def extension(self, method: str, path: str, lacks: str, **request: Any) -> Any:
        """The response to a request under `/dockmagic`. Raises docker.errors.APIError.

        Where the engine is another one: DockmagicError, "this engine cannot …" with what to do instead.
        """
        from dockmagic.views.engine import is_ours

        if not is_ours(self.client):
            raise DockmagicError(f"this engine cannot {lacks}")
        url = f"{self.api.base_url}/dockmagic{path}"
        # What is copied in or out may take its time.
        response = self.api.request(method, url, timeout=None, **request)
        self.api._raise_for_status(response)
        return response

    def container(self, reference: str) -> Any:
        return self.client.containers.get(reference)

    def warn(self, *warnings: str) -> None:
        for warning in warnings:
            self.cell.write(f"WARNING: {warning}\n", "stderr")


def host_path(text: str) -> str:
    """A path of this machine as the user's shell would have read it: `~`, `$HOME`, `$PWD`, `$(pwd)`, `.`.

    No shell reads the words of a magic, but a course's `-v $PWD:/app` means the notebook's directory.
    """
    text = re.sub(r"\$\(pwd\)|`pwd`|\$PWD\b|\$\{PWD\}", lambda _: os.getcwd(), text)  # noqa: PTH109
    return os.path.expanduser(os.path.expandvars(text))  # noqa: PTH111


def each(references: tuple[str, ...], act: Callable[[str], T], *, at_once: int = 1) -> list[T]:
    """Do `act` for every reference, as Docker does: all of them, then the errors of those that failed.

    `at_once`: how many at a time, for what is slow and has no order.
    """

    def attempt(reference: str) -> T | DockmagicError:
        try:
            return act(reference)
        except Exception as error:
            failure = translate(error)
            if failure is None or failure.exit_code == 125:
                raise
            return failure

    if at_once == 1 or len(references) < 2:
        outcomes = [attempt(reference) for reference in references]
    else:
        # A thread has no context of its own; in this one the cell is known, which Stop needs.
        contexts = [contextvars.copy_context() for _ in references]
        with ThreadPoolExecutor(min(at_once, len(references))) as pool:
            outcomes = list(pool.map(lambda c, reference: c.run(attempt, reference), contexts, references))
    failures = [outcome for outcome in outcomes if isinstance(outcome, DockmagicError)]
    if failures:
        message = "\n".join(dict.fromkeys(str(failure) for failure in failures))
        raise DockmagicError(message, status=failures[0].status) from None
    return [outcome for outcome in outcomes if not isinstance(outcome, DockmagicError)]


def one_or_all(values: list[Any]) -> Any:
    """A single value as itself: `web = %container start web` is the container and not a list of it."""
    return values[0] if len(values) == 1 else values
