"""The engine's event stream, for pictures that stay true.

One thread reads `GET /events` while somebody is subscribed, and calls each subscriber with each event, in the
thread. It ends with the last subscriber, with `close()` (unload), or when the engine goes away; the next
subscription starts it again.
"""

import contextvars
import threading
from collections.abc import Callable
from typing import Any

from dockmagic import waiting
from dockmagic.contexts import Contexts
from dockmagic.errors import DockmagicError, translate

Event = dict[str, Any]
Callback = Callable[[Event], None]


class EventStream:
    """Events of the current engine."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts
        self._lock = threading.Lock()
        self._callbacks: list[Callback] = []
        self._thread: threading.Thread | None = None
        self._connection = waiting.Cell()

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call `callback` with every event from now on; the answer ends that. Raises EngineUnavailable."""
        client = self._contexts.client()
        with self._lock:
            self._callbacks.append(callback)
            if self._thread is None:
                self._connection = waiting.Cell()
                context = contextvars.copy_context()
                context.run(waiting.use, self._connection)
                # Asked for here, so that nothing that happens after `subscribe` is missed.
                response = context.run(self._ask, client)
                self._thread = threading.Thread(
                    target=context.run, args=(self._read, response), name="dockmagic-events", daemon=True
                )
                self._thread.start()
        return lambda: self._unsubscribe(callback)

    def close(self) -> None:
        """End the thread and forget the subscribers."""
        with self._lock:
            self._callbacks.clear()
            thread, self._thread = self._thread, None
            self._connection.abandon()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _unsubscribe(self, callback: Callback) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)
            last = not self._callbacks
        if last:
            self.close()

    def _ask(self, client: Any) -> Any:
        response = client.api._get(client.api._url("/events"), stream=True)
        client.api._raise_for_status(response)
        return response

    def _read(self, response: Any) -> None:
        from dockmagic.grammar.pulling import messages

        try:
            for event in messages(response):
                with self._lock:
                    callbacks = list(self._callbacks)
                for callback in callbacks:
                    self._tell(callback, event)
        except Exception as error:
            # The stream ends with the engine, or with close(), which takes the socket away under the reader.
            if translate(error) is None and not isinstance(error, (ValueError, AttributeError)):
                raise
        finally:
            response.close()
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None

    def _tell(self, callback: Callback, event: Event) -> None:
        """A subscriber whose engine went away is told no more; its picture keeps what it shows."""
        try:
            callback(event)
        except Exception as error:
            failure: DockmagicError | None = translate(error)
            if failure is None:
                raise
            with self._lock:
                if callback in self._callbacks:
                    self._callbacks.remove(callback)
