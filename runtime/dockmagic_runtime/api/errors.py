"""Which HTTP status each kind of error has; the one place that knows (moby's `httpstatus`)."""

import logging

from dockmagic_runtime import errors

log = logging.getLogger(__name__)

MISTAKES = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
"""What nothing but a mistake of ours raises."""

_STATUS = {
    errors.NotFound: 404,
    errors.InvalidParameter: 400,
    errors.Conflict: 409,
    errors.NotModified: 304,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.Unavailable: 503,
    errors.NotImplementedHere: 501,
    errors.SystemFailure: 500,
}


def status_of(error: errors.EngineError) -> int:
    """The status of the nearest class in `error`'s ancestry; 500 for the bare base."""
    return next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), 500)


def unexpected(error: Exception, where: str) -> str:
    """What the client is told of the system's refusal, or of a mistake of ours; the log has the rest."""
    log.error("%s", where, exc_info=error)
    if not isinstance(error, OSError):
        return f"internal error: {error!r}"
    reason = error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else reason
