"""
Signatures by botocore (AWS Signature Version 4), in the header of a request or in a URL.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

import logging
from collections.abc import Mapping

from botocore.auth import EMPTY_SHA256_HASH, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest

from s3edge_s3.access_keys import KEY_WAIT_S, AccessKeys


__all__ = ["EMPTY_SHA256_HASH", "Signer"]

_SERVICE = "s3"
_PAYLOAD_SHA256 = "s3edge_payload_sha256"

# It writes each signature and session token into its debug log.
logging.getLogger("botocore.auth").setLevel(logging.INFO)


class Signer:
    """
    Signs for one region; whatever signs raises ``NoKeyError`` when the key has run out.

    Args:
        keys: Signs with them.
        region: Of the bucket.
    """

    def __init__(self, keys: AccessKeys, region: str) -> None:
        self._keys = keys
        self._region = region

    @property
    def key_id(self) -> str | None:
        """Names the key that signs now; URLs that another one signed may end before their time."""
        return self._keys.current().access_key

    async def ready(self, limit_s: float = KEY_WAIT_S) -> None:
        """Wait, so long at the most, for a key that is good; other methods wait for nothing."""
        await self._keys.ready(limit_s)

    def headers(
        self, method: str, url: str, headers: Mapping[str, str], payload_sha256: str
    ) -> dict[str, str]:
        """
        Return a request's headers with the signature among them.

        Args:
            method: Of HTTP.
            url: Encoded, with its query.
            headers: All are signed.
            payload_sha256: Of the body, in hex; the store refuses a body with another.
        """
        request = AWSRequest(method, url, headers=dict(headers))
        request.context[_PAYLOAD_SHA256] = payload_sha256
        _HashedPayloadAuth(self._keys.current(), _SERVICE, self._region).add_auth(request)
        return {str(name): str(value) for name, value in request.headers.items()}

    def presign(self, url: str, expires_s: int) -> str:
        """
        Return a URL that anybody may GET for so many seconds.

        Args:
            url: Encoded, without a query.
            expires_s: 1 to 604,800; a lent key may end it sooner.
        """
        request = AWSRequest("GET", url)
        key = self._keys.current()
        S3SigV4QueryAuth(key, _SERVICE, self._region, expires=expires_s).add_auth(request)
        return str(request.url)


class _HashedPayloadAuth(S3SigV4Auth):
    """Takes the body's hash as it was made while the body arrived, and need not see the body."""

    def payload(self, request: AWSRequest) -> str:
        return str(request.context[_PAYLOAD_SHA256])
