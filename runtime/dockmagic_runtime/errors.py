"""What can go wrong, by meaning (as moby's `errdefs` names it).

Inner code raises what it means; `api/errors.py` alone knows the HTTP status of each:

    EngineError
    ├── NotFound            no such container, image, network, volume, exec
    ├── InvalidParameter    the request makes no sense
    ├── Conflict            it does, but not in the present state
    ├── NotModified         it is so already
    ├── Unauthorized        the registry wants other credentials
    ├── Forbidden           it is not allowed, whoever asks
    ├── Unavailable         something this needs cannot be reached
    ├── NotImplementedHere  a Docker feature that this engine does not have
    └── SystemFailure       the kernel or the disk refused

The text of each is one sentence for the user, in Docker's words where Docker has words for it.
"""


class EngineError(Exception):
    """Base of everything the engine reports; `str(error)` is the sentence.

    Of an error about an instruction `line` and `column` say where in the Dockerfile, counted from 1.
    """

    line: int | None = None
    column: int | None = None


class NotFound(EngineError):
    pass


class InvalidParameter(EngineError):
    pass


class Conflict(EngineError):
    pass


class NotModified(EngineError):
    pass


class Unauthorized(EngineError):
    pass


class Forbidden(EngineError):
    pass


class Unavailable(EngineError):
    pass


class NotImplementedHere(EngineError):
    pass


class SystemFailure(EngineError):
    pass
