"""
Signatures by botocore (AWS Signature Version 4), in the header of a request or in a URL.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

import logging
from collections.abc import Mapping

from anyio import to_thread
from botocore.auth import EMPTY_SHA256_HASH, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError


__all__ = ["EMPTY_SHA256_HASH", "AccessKeys", "Signer"]

_SERVICE = "s3"
_PAYLOAD_SHA256 = "s3edge_payload_sha256"

_LAST_MOMENT_S = 60

_log = logging.getLogger(__name__)

# It writes each signature and session token into its debug log.
logging.getLogger("botocore.auth").setLevel(logging.INFO)


class AccessKeys:
    """
    The access key that signs; one that is lent for a time (a role's) is renewed before it runs out.

    Args:
        credentials: Fixed, or from botocore's own chain.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials
        self._current = credentials.get_frozen_credentials()

    def current(self) -> ReadOnlyCredentials:
        """Return the key; blocks only when it is about to run out and no request has renewed it."""
        if self._runs_out(_LAST_MOMENT_S):
            self._renew()
        return self._current

    async def renew(self) -> None:
        """Renew a lent key in good time, in a thread; a failure leaves the old one."""
        if self._runs_out():
            await to_thread.run_sync(self._renew)

    def _runs_out(self, within_s: int | None = None) -> bool:
        """Return whether a lent key ends within so many seconds, by default botocore's 15 minutes."""
        lent = self._credentials
        return isinstance(lent, RefreshableCredentials) and lent.refresh_needed(within_s)

    def _renew(self) -> None:
        try:
            self._current = self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError, OSError) as error:
            # The store itself says when the old key is good no more.
            _log.warning("the access key could not be renewed: %s", type(error).__name__)


class Signer:
    """
    Signs for one region.

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

    async def headers(
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
        await self._keys.renew()
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
