"""
What goes wrong, for three readers: the user learns that it may pass, the log and the doctor what to mend.

https://developers.cloudflare.com/r2/api/error-codes/
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

import logging
from http import HTTPStatus

from attrs import frozen

from s3edge.errors import EdgeError, unavailable
from s3edge_aiohttp import Answer, NoAnswerError
from s3edge_s3.answers import error_code


_log = logging.getLogger(__name__)

_FOR_USERS = "The storage cannot be used now; try again."


@frozen
class SettingNames:
    """
    How the operator's settings are called, for messages.

    Attributes:
        key_pair: The access key and its secret.
        bucket: The bucket's name.
        endpoint: The host that is asked.
        region: The region in the signature.
        public_base_url: Where anybody reads objects.
        permission: What the key must be allowed, as an instruction.
    """

    key_pair: str
    bucket: str
    endpoint: str
    region: str
    public_base_url: str
    permission: str


class Faults:
    """
    Turns failures into the port's errors, and says in the log what the operator can do.

    Attributes:
        names: Of the settings.
    """

    def __init__(self, names: SettingNames) -> None:
        self.names = names

    def outage(self, error: NoAnswerError) -> EdgeError:
        """Return the error of a store that gave no answer."""
        _log.warning("%s", error.reason)
        return unavailable(_FOR_USERS)

    def refusal(self, answer: Answer) -> EdgeError:
        """Return the error of an answer that is no success."""
        code = error_code(answer.body)
        if (
            answer.status == HTTPStatus.TOO_MANY_REQUESTS
            or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        ):
            _log.warning("the storage is busy or broken: %d %s", answer.status, code)
        else:
            _log.error(
                "the storage refuses: %d %s; %s",
                answer.status,
                code,
                self.fix_of(answer.status, code),
            )
        return unavailable(_FOR_USERS)

    def nonsense(self, what: str) -> EdgeError:
        """Return the error of a store that says what none would; ``what`` holds nothing secret."""
        _log.error("%s; see what answers at %s", what, self.names.endpoint)
        return unavailable(_FOR_USERS)

    def fix_of(self, status: int, code: str) -> str:
        """Return what to do about an answer, on one line."""
        names = self.names
        fixes = {
            "AccessDenied": names.permission,
            "AuthorizationHeaderMalformed": f"set {names.region} to the bucket's own",
            "ExpiredToken": f"renew {names.key_pair}",
            "InvalidAccessKeyId": f"set {names.key_pair}: the key is unknown there",
            "InvalidBucketName": f"set {names.bucket}: it is no bucket's name",
            "InvalidToken": f"renew {names.key_pair}",
            "NoSuchBucket": (
                f"set {names.bucket}, or create the bucket; check {names.endpoint} too: a bucket in a"
                " jurisdiction or region answers only there"
            ),
            "NotImplemented": "the server lacks a part of S3 that is needed; use another",
            "PermanentRedirect": f"set {names.region} and {names.endpoint} to the bucket's own",
            "PreconditionFailed": "another object was there and is gone; try again",
            "RequestTimeTooSkewed": "set this machine's clock",
            "SignatureDoesNotMatch": f"set {names.key_pair}: the secret is not this key's",
            "Unauthorized": (
                f"set {names.key_pair} to a pair of this account, and {names.endpoint} to the"
                " bucket's own"
            ),
        }
        by_status: dict[int, str] = {
            HTTPStatus.UNAUTHORIZED: f"set {names.key_pair}, and {names.endpoint} to the bucket's own",
            HTTPStatus.FORBIDDEN: names.permission,
            HTTPStatus.NOT_FOUND: f"check {names.endpoint} and {names.bucket}",
            HTTPStatus.MOVED_PERMANENTLY: fixes["PermanentRedirect"],
            HTTPStatus.TOO_MANY_REQUESTS: "the server limits the rate; wait",
        }
        if code in fixes:
            return fixes[code]
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return "the server is down or busy; wait, or see its own status"
        return by_status.get(status, f"check {names.endpoint} and {names.bucket}")
