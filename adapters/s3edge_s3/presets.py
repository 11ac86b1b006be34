"""
From settings to a storage: R2 by its own names, everything else by a URL.

Each factory raises ``ValueError`` with one line that names the setting and says what to do; no line
repeats a value that could hold a secret.
"""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlsplit

from botocore.config import Config
from botocore.credentials import Credentials
from botocore.session import Session

from s3edge.ports import ObjectStorage, Wiring
from s3edge_s3.access_keys import AccessKeys
from s3edge_s3.addresses import (
    BucketAddress,
    aws_address,
    custom_address,
    parse_base_url,
    r2_address,
)
from s3edge_s3.faults import SettingNames
from s3edge_s3.storage import S3ObjectStorage


R2_BUCKET = "s3-images"

CUSTOM_REGION = "us-east-1"
"""What servers other than Amazon's expect unless they are told otherwise."""

LENDER_CONNECT_S, LENDER_ANSWER_S, LENDER_TRIES = 2.0, 5.0, 2
"""What a security token service has to lend a key; botocore's own are 60 s, 60 s and 5."""

R2_NAMES = SettingNames(
    key_pair="R2_ACCESS_KEY_ID and R2_SECRET_ACCESS_KEY",
    bucket="R2_BUCKET",
    endpoint="R2_ENDPOINT",
    region="R2_ENDPOINT",
    public_base_url="R2_PUBLIC_BASE_URL",
    permission='give the API token "Object Read & Write" on the bucket that R2_BUCKET names',
)

S3_NAMES = SettingNames(
    key_pair="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    bucket="the bucket in S3EDGE_STORAGE",
    endpoint="endpoint in S3EDGE_STORAGE",
    region="region in S3EDGE_STORAGE",
    public_base_url="public_base_url in S3EDGE_STORAGE",
    permission=(
        "allow the key s3:GetObject, s3:PutObject, s3:DeleteObject and s3:AbortMultipartUpload on the"
        " bucket's objects, and s3:ListBucket on the bucket"
    ),
)

_PARAMETERS = frozenset({"endpoint", "region", "public_base_url", "addressing"})
_ADDRESSINGS = frozenset({"path", "virtual"})

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_REGION = re.compile(r"[a-z0-9-]{1,32}")
_KEY = re.compile(r"[!-~]+")

_R2_SECRET = re.compile(r"[0-9a-f]{64}")
"""The SHA-256 of a token, in hex. https://developers.cloudflare.com/r2/api/tokens/"""


def from_r2(value: str, wiring: Wiring) -> ObjectStorage:
    """
    Return the storage of the setting ``r2``, from the ``R2_`` names of the environment.

    Raises:
        ValueError: One of them is missing or malformed.
    """
    if value.strip().lower() not in ("r2", "r2:"):
        raise ValueError("write r2 alone; R2_BUCKET names the bucket")
    read = _Reader(wiring.vendor)
    bucket = _bucket("R2_BUCKET", read.text("R2_BUCKET") or R2_BUCKET)
    endpoint = _base_url("R2_ENDPOINT", read.needed("R2_ENDPOINT"))
    # Cloudflare's dashboard shows the endpoint with the bucket's name behind it.
    endpoint = endpoint.removesuffix(f"/{bucket}")
    if urlsplit(endpoint).path:
        raise ValueError(
            "R2_ENDPOINT: remove the path, as in https://<account id>.r2.cloudflarestorage.com"
        )
    key_id, secret = read.needed_key("R2_ACCESS_KEY_ID"), read.needed_key("R2_SECRET_ACCESS_KEY")
    if _R2_SECRET.fullmatch(key_id):
        # It would stand in every presigned URL.
        raise ValueError(
            "R2_ACCESS_KEY_ID holds a secret access key; exchange it with R2_SECRET_ACCESS_KEY"
        )
    credentials = Credentials(key_id, secret)
    public = read.text("R2_PUBLIC_BASE_URL")
    address = r2_address(
        endpoint, bucket, _base_url("R2_PUBLIC_BASE_URL", public) if public else None
    )
    return _storage(address, credentials, R2_NAMES, wiring)


def from_s3_url(value: str, wiring: Wiring) -> ObjectStorage:
    """
    Return the storage of ``s3://bucket?endpoint=...&region=...&public_base_url=...&addressing=...``.

    Without ``endpoint`` it is Amazon's, in ``region``, the bucket being part of the host's name; with
    ``endpoint`` the bucket is part of the path and ``region`` is ``us-east-1`` unless it is given.
    ``addressing=path`` or ``addressing=virtual`` says otherwise. The access key is
    ``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY`` and, for one that is lent, ``AWS_SESSION_TOKEN``;
    without them botocore looks where it always does (a profile, a role).

    Raises:
        ValueError: Something is missing or malformed.
    """
    bucket, given = _split(value)
    public = given.get("public_base_url")
    public_base_url = None if public is None else _base_url(S3_NAMES.public_base_url, public)
    region = given.get("region")
    if region is not None and not _REGION.fullmatch(region):
        raise ValueError("region: write it as in region=eu-central-1")
    addressing = given.get("addressing")
    if addressing is not None and addressing not in _ADDRESSINGS:
        raise ValueError("addressing: write path or virtual")
    endpoint = given.get("endpoint")
    if endpoint is None:
        if region is None:
            raise ValueError("name the bucket's region, as in s3://bucket?region=eu-central-1")
        # Amazon's certificates hold for one label before the region's.
        virtual = (addressing or ("path" if "." in bucket else "virtual")) == "virtual"
        address = aws_address(bucket, region, virtual=virtual, public_base_url=public_base_url)
    else:
        address = custom_address(
            _base_url(S3_NAMES.endpoint, endpoint),
            bucket,
            region or CUSTOM_REGION,
            virtual=addressing == "virtual",
            public_base_url=public_base_url,
        )
    return _storage(address, _aws_credentials(_Reader(wiring.vendor)), S3_NAMES, wiring)


class _Reader:
    """Reads names of the environment; an empty text is as good as none."""

    def __init__(self, vendor: Mapping[str, str]) -> None:
        self._vendor = vendor

    def text(self, name: str) -> str:
        return self._vendor.get(name, "").strip()

    def needed(self, name: str) -> str:
        text = self.text(name)
        if not text:
            message = f"set {name}"
            raise ValueError(message)
        return text

    def key(self, name: str) -> str:
        text = self.text(name)
        if text and not _KEY.fullmatch(text):
            message = f"{name}: remove blanks and characters that are not ASCII"
            raise ValueError(message)
        return text

    def needed_key(self, name: str) -> str:
        self.needed(name)
        return self.key(name)


def _storage(
    address: BucketAddress, credentials: Credentials, names: SettingNames, wiring: Wiring
) -> S3ObjectStorage:
    return S3ObjectStorage(
        address, AccessKeys(credentials), names=names, clock=wiring.clock, ids=wiring.ids
    )


def _split(url: str) -> tuple[str, dict[str, str]]:
    """Return the bucket and the parameters of an ``s3://`` URL."""
    example = "as in s3://bucket?region=eu-central-1"
    try:
        parts = urlsplit(url)
        pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        message = f"write it {example}"
        raise ValueError(message) from None
    if "@" in parts.netloc:
        message = f"remove what is before the @, and set {S3_NAMES.key_pair} instead"
        raise ValueError(message)
    if parts.path not in ("", "/") or parts.fragment:
        message = f"name the bucket alone, {example}"
        raise ValueError(message)
    given = dict(pairs)
    unknown = sorted(given.keys() - _PARAMETERS)
    if unknown:
        message = f"there is no {unknown[0][:40]!r}; there are {', '.join(sorted(_PARAMETERS))}"
        raise ValueError(message)
    for name in given:
        texts = [text for other, text in pairs if other == name]
        if len(texts) > 1 or not texts[0]:
            message = f"{name}: give it once, with a value"
            raise ValueError(message)
    return _bucket("the bucket", parts.netloc), given


def _bucket(name: str, text: str) -> str:
    if not _BUCKET.fullmatch(text) or ".." in text:
        message = f"{name}: write 3 to 63 lower-case letters, digits and hyphens"
        raise ValueError(message)
    return text


def _base_url(name: str, text: str) -> str:
    try:
        return parse_base_url(text)
    except ValueError as error:
        message = f"{name} {error}"
        raise ValueError(message) from None


def _aws_credentials(read: _Reader) -> Credentials:
    key_id, secret = read.key("AWS_ACCESS_KEY_ID"), read.key("AWS_SECRET_ACCESS_KEY")
    if key_id and secret:
        return Credentials(key_id, secret, read.key("AWS_SESSION_TOKEN") or None)
    if key_id or secret:
        message = f"set both {S3_NAMES.key_pair}"
        raise ValueError(message)
    session = Session()
    session.set_default_client_config(
        Config(
            connect_timeout=LENDER_CONNECT_S,
            read_timeout=LENDER_ANSWER_S,
            retries={"total_max_attempts": LENDER_TRIES},
        )
    )
    try:
        found = session.get_credentials()
    except Exception as error:  # noqa: BLE001 - whoever lends raises what it likes
        message = f"set {S3_NAMES.key_pair}; botocore found none ({type(error).__name__})"
        raise ValueError(message) from None
    # The stubs leave out that there may be none.
    credentials: Credentials | None = found
    if credentials is None:
        message = f"set {S3_NAMES.key_pair}, or give this machine a role"
        raise ValueError(message)
    return credentials
