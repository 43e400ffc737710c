"""Which HTTP status each kind of error has; the one place that knows (moby's `httpstatus`)."""

from dockmagic_runtime import errors

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
