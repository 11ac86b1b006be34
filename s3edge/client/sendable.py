"""What is text for Python and for nobody else is refused before it is sent."""

from collections.abc import Mapping

from s3edge.client.errors import InvalidRequest
from s3edge.errors import Detail


def check_sendable(fields: Mapping[str, object]) -> None:
    """
    Return if all fields can be written as UTF-8.

    Raises:
        InvalidRequest: One has half of a surrogate pair; file names and cut strings do.
    """
    for name, value in fields.items():
        try:
            str(value).encode()
        except UnicodeEncodeError:
            message = (
                f"{name} cannot be sent: it has half of a surrogate pair, which is no character"
            )
            raise InvalidRequest(message, details=[Detail(name, message)]) from None
