"""Why the network failed, in the machine's own words."""

from typing import cast


def reason_of(error: BaseException | None) -> OSError | None:
    """Return what the machine said that led to an error: refused, unknown, no TLS there."""
    while error is not None and not (isinstance(error, OSError) and error.strerror):
        if isinstance(error, BaseExceptionGroup):
            # anyio tries each address of a host, and groups what they said.
            error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
        elif error.__cause__ is None and error.__suppress_context__:
            # httpcore's pool raises its connections' errors again, "from None".
            error = error.__context__
        else:
            error = error.__cause__
    return error
