"""Where a bucket's objects are: their URLs, and which URLs are theirs."""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from attrs import frozen

from s3edge.rules.keys import is_key, unsigned


R2_DOMAIN = ".r2.cloudflarestorage.com"

_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@frozen
class BucketAddress:
    """
    One bucket at one endpoint.

    Attributes:
        base_url: What stands before ``/<key>`` where objects are read and written.
        region: For the signature.
        aliases: The same for other spellings of the bucket's address; the GPU server may sign those.
        public_base_url: The same where anybody may read, or ``None``.
    """

    base_url: str
    region: str
    aliases: Collection[str] = ()
    public_base_url: str | None = None

    def object_url(self, key: str) -> str:
        """Return where the object is read and written by signed requests."""
        return f"{self.base_url}/{key}"

    def public_url(self, key: str) -> str | None:
        """Return where anybody may read the object, if there is such a place."""
        return None if self.public_base_url is None else f"{self.public_base_url}/{key}"

    def key_of(self, url: str) -> str | None:
        """Return the key of an object's URL, signed or not, under any of the bucket's addresses."""
        bare = unsigned(url)
        for base_url in (self.public_base_url, self.base_url, *self.aliases):
            if base_url is None or not bare.startswith(f"{base_url}/"):
                continue
            key = bare.removeprefix(f"{base_url}/")
            if is_key(key):
                return key
        return None


def custom_address(
    endpoint: str,
    bucket: str,
    region: str,
    *,
    virtual: bool = False,
    public_base_url: str | None = None,
) -> BucketAddress:
    """
    Return the address of a bucket at an endpoint of one's own, MinIO's for instance.

    Args:
        endpoint: As ``parse_base_url`` returns it.
        bucket: Its name.
        region: For the signature.
        virtual: Whether the bucket is part of the host's name instead of the path.
        public_base_url: As ``parse_base_url`` returns it.
    """
    by_path = f"{endpoint}/{bucket}"
    if virtual:
        return BucketAddress(_as_host(endpoint, bucket), region, (by_path,), public_base_url)
    # The bucket's name before the host's could be somebody else's host.
    return BucketAddress(by_path, region, (), public_base_url)


def r2_address(endpoint: str, bucket: str, public_base_url: str | None = None) -> BucketAddress:
    """
    Return the address of an R2 bucket.

    https://developers.cloudflare.com/r2/api/s3/api/

    Args:
        endpoint: As ``parse_base_url`` returns it.
        bucket: Its name.
        public_base_url: As ``parse_base_url`` returns it.
    """
    by_path = f"{endpoint}/{bucket}"
    is_cloudflares = endpoint.endswith(R2_DOMAIN)
    aliases = (_as_host(endpoint, bucket),) if is_cloudflares else ()
    return BucketAddress(by_path, "auto", aliases, public_base_url)


def aws_address(
    bucket: str, region: str, *, virtual: bool = True, public_base_url: str | None = None
) -> BucketAddress:
    """
    Return the address of a bucket of Amazon's.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html

    Args:
        bucket: Its name; bucket names are unique over all regions of a partition.
        region: Where it is.
        virtual: Whether the bucket is part of the host's name instead of the path.
        public_base_url: As ``parse_base_url`` returns it.
    """
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    endpoint = f"https://s3.{region}.{suffix}"
    by_host, by_path = _as_host(endpoint, bucket), f"{endpoint}/{bucket}"
    first, second = (by_host, by_path) if virtual else (by_path, by_host)
    # boto3 signs URLs for the host without a region unless it is told otherwise.
    anywhere = f"https://{bucket}.s3.{suffix}"
    return BucketAddress(first, region, (second, anywhere), public_base_url)


def parse_base_url(text: str) -> str:
    """
    Return an ``http`` or ``https`` URL in its one spelling: lower case, no port that goes without saying.

    Raises:
        ValueError: It is none, or has more than a host, a port and a path; the text is not repeated.
    """
    wrong = "must be a URL as https://host.example, without user, query or fragment"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    host = parts.hostname or ""
    path = parts.path.rstrip("/")
    has_more = bool(parts.query or parts.fragment) or "@" in parts.netloc
    if parts.scheme not in _DEFAULT_PORTS or has_more:
        raise ValueError(wrong)
    if not _HOST.fullmatch(host) or not _PATH.fullmatch(path):
        raise ValueError(wrong)
    netloc = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS[parts.scheme]:
        netloc = f"{netloc}:{port}"
    return f"{parts.scheme}://{netloc}{path}"


def _as_host(endpoint: str, bucket: str) -> str:
    scheme, _, host = endpoint.partition("://")
    return f"{scheme}://{bucket}.{host}"
