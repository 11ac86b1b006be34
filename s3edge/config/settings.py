"""Every setting: its name, its default, and how its text becomes a value."""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

from attrs import field, frozen

from s3edge.gateway import GatewayOptions
from s3edge.plugins import PREDICTORS, QUEUES, installed
from s3edge.ports import INLINE
from s3edge.rules.claims import DEFAULT_TIER_CLAIM
from s3edge.rules.lifecycle import COUNTED_BACKLOG
from s3edge.rules.limits import RateLimits, parse_rate_limits
from s3edge.rules.money import MAX_GRANT
from s3edge.web.addresses import Network, parse_networks


T = TypeVar("T")
D = TypeVar("D")

PREFIX = "S3EDGE_"

CPU_BACKEND = "cpu:"
CPU_PREDICTOR = "cpu"
LOCAL_AUTH = "local"

CLIENT_TIMEOUT_S = 30.0


class SettingsError(ValueError):
    """A setting is missing, malformed or unknown; the message is one line that says what to do."""


SETTINGS = (
    "SUPABASE_URL",
    "SUPABASE_ANON_KEY",
    "SUPABASE_SERVICE_ROLE_KEY",
    "SUPABASE_JWT_SECRET",
    "SUPABASE_JWT_ALGORITHMS",
    "R2_ENDPOINT",
    "R2_ACCESS_KEY_ID",
    "R2_SECRET_ACCESS_KEY",
    "R2_BUCKET",
    "R2_PUBLIC_BASE_URL",
    "VASTAI_BACKEND_URL",
    "API_SECRET_KEY",
    "S3EDGE_AUTH",
    "S3EDGE_DATABASE",
    "S3EDGE_STORAGE",
    "S3EDGE_BACKEND",
    "S3EDGE_RATE_LIMIT_STORE",
    "S3EDGE_RATE_LIMITS",
    "S3EDGE_RATE_LIMIT_FAILURE",
    "S3EDGE_INITIAL_CREDITS",
    "S3EDGE_SEGMENT_COST",
    "S3EDGE_TIER_CLAIM",
    "S3EDGE_IMAGE_HOSTS",
    "S3EDGE_CORS_ORIGINS",
    "S3EDGE_TRUSTED_PROXIES",
    "S3EDGE_TASK_DEADLINE_S",
    "S3EDGE_PREDICT_TIMEOUT_S",
    "S3EDGE_DISPATCH_CONCURRENCY",
    "S3EDGE_DISPATCH",
    "S3EDGE_MAX_BACKLOG",
    "S3EDGE_MAX_REQUESTS",
    "S3EDGE_MAX_WAITS",
    "S3EDGE_CLIENT_TIMEOUT_S",
    "S3EDGE_PREDICTOR",
    "S3EDGE_MODEL_WEIGHTS",
    "S3EDGE_MODEL_DEVICE",
    "S3EDGE_MODEL_DTYPE",
    "SAM3_THRESHOLD",
    "S3EDGE_BATCH_SIZE",
    "S3EDGE_BATCH_WAIT_MS",
    "S3EDGE_PREDICT_QUEUE",
    "S3EDGE_PRIVATE_IMAGE_HOSTS",
    "S3EDGE_IMAGE_TIMEOUT_S",
    "S3EDGE_GRACE_S",
    "S3EDGE_DATA_DIR",
    "S3EDGE_PUBLIC_URL",
    "S3EDGE_LOG",
    "S3EDGE_BASE_URL",
    "S3EDGE_TOKEN",
)
"""The names of all, in the order of ``.env.example`` and ``docs/reference/settings.md``."""

LOG_LEVELS = ("debug", "info", "warning", "error")

_HOST = re.compile(r"[a-z0-9.-]+(:\d{1,5})?|\[[0-9a-f:]+\](:\d{1,5})?")
_CLAIM = re.compile(r"\w+(\.\w+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@frozen
class Settings:
    """
    The settings of a deployment, parsed; ``docs/reference/settings.md`` says what they mean.

    Values of adapters (``database`` and so on) keep their whole text: it may hold a password, and is
    left out of the representation. So is ``vendor``: what else is in the environment, for adapters.
    """

    auth: str
    database: str = field(repr=False)
    storage: str = field(repr=False)
    backend: str = field(repr=False)
    rate_limit_store: str = field(repr=False)
    rate_limits: RateLimits | None
    limits_fail_open: bool
    initial_credits: int
    segment_cost: int
    tier_claim: str
    image_hosts: frozenset[str]
    cors_origins: tuple[str, ...]
    trusted_proxies: Sequence[Network]
    task_deadline_s: int
    predict_timeout_s: float
    dispatch_concurrency: int
    dispatch: str
    max_backlog: int
    grace_s: float
    max_requests: int
    max_waits: int
    client_timeout_s: float
    predictor: str
    model_weights: str
    model_device: str
    model_dtype: str
    batch_size: int
    batch_wait_ms: int
    predict_queue: int
    private_image_hosts: frozenset[str]
    image_timeout_s: float
    data_dir: Path
    public_url: str | None
    log_level: str
    vendor: Mapping[str, str] = field(repr=False)


def parse_settings(environ: Mapping[str, str]) -> Settings:
    """
    Return the settings that an environment spells out.

    Args:
        environ: Names and values; names without the prefix are somebody else's.

    Raises:
        SettingsError: Names the setting and says what to do.
    """
    _refuse_unknown(environ)
    read = _Reader(environ)
    usual = GatewayOptions()
    has_supabase = bool(environ.get("SUPABASE_URL"))
    data_dir = read.value("S3EDGE_DATA_DIR", _path, Path(".s3edge"))
    return Settings(
        auth=read.text("S3EDGE_AUTH", "supabase" if has_supabase else LOCAL_AUTH),
        database=read.text(
            "S3EDGE_DATABASE",
            "supabase" if has_supabase else f"sqlite:///{quote(str(data_dir / 's3edge.db'))}",
        ),
        storage=read.text(
            "S3EDGE_STORAGE",
            "r2" if environ.get("R2_ENDPOINT") else (data_dir / "media").absolute().as_uri(),
        ),
        backend=read.text("S3EDGE_BACKEND", environ.get("VASTAI_BACKEND_URL") or CPU_BACKEND),
        rate_limit_store=read.text("S3EDGE_RATE_LIMIT_STORE", "memory:"),
        rate_limits=read.value("S3EDGE_RATE_LIMITS", parse_rate_limits, usual.rate_limits),
        limits_fail_open=read.value("S3EDGE_RATE_LIMIT_FAILURE", _choice("open", "closed"), "open")
        == "open",
        initial_credits=read.value("S3EDGE_INITIAL_CREDITS", _integer(0, MAX_GRANT), 100),
        segment_cost=read.value("S3EDGE_SEGMENT_COST", _integer(0, 1_000_000), 1),
        tier_claim=read.value("S3EDGE_TIER_CLAIM", _claim, DEFAULT_TIER_CLAIM),
        image_hosts=read.value("S3EDGE_IMAGE_HOSTS", _hosts, frozenset()),
        cors_origins=read.value("S3EDGE_CORS_ORIGINS", _origins, ("*",)),
        trusted_proxies=read.value("S3EDGE_TRUSTED_PROXIES", parse_networks, ()),
        task_deadline_s=read.value("S3EDGE_TASK_DEADLINE_S", _integer(1, 86_400), 900),
        predict_timeout_s=read.value(
            "S3EDGE_PREDICT_TIMEOUT_S", _seconds(3600), usual.predict_timeout_s
        ),
        dispatch_concurrency=read.value(
            "S3EDGE_DISPATCH_CONCURRENCY", _integer(1, 1000), usual.dispatch_concurrency
        ),
        dispatch=read.value("S3EDGE_DISPATCH", _choice(INLINE, *installed(QUEUES)), usual.dispatch),
        max_backlog=read.value(
            "S3EDGE_MAX_BACKLOG", _integer(1, COUNTED_BACKLOG), usual.max_backlog
        ),
        grace_s=read.value("S3EDGE_GRACE_S", _seconds(3600), usual.grace_s),
        max_requests=read.value("S3EDGE_MAX_REQUESTS", _integer(1, 100_000), usual.max_requests),
        max_waits=read.value("S3EDGE_MAX_WAITS", _integer(0, 1_000_000), usual.max_waits),
        client_timeout_s=read.value("S3EDGE_CLIENT_TIMEOUT_S", _seconds(3600), CLIENT_TIMEOUT_S),
        predictor=read.value("S3EDGE_PREDICTOR", _choice(*installed(PREDICTORS)), CPU_PREDICTOR),
        model_weights=read.text("S3EDGE_MODEL_WEIGHTS", ""),
        model_device=read.text("S3EDGE_MODEL_DEVICE", ""),
        model_dtype=read.text("S3EDGE_MODEL_DTYPE", ""),
        batch_size=read.value("S3EDGE_BATCH_SIZE", _integer(1, 64), 8),
        batch_wait_ms=read.value("S3EDGE_BATCH_WAIT_MS", _integer(0, 1000), 10),
        predict_queue=read.value("S3EDGE_PREDICT_QUEUE", _integer(1, 10_000), 128),
        private_image_hosts=read.value("S3EDGE_PRIVATE_IMAGE_HOSTS", _hosts, frozenset()),
        image_timeout_s=read.value("S3EDGE_IMAGE_TIMEOUT_S", _seconds(600), 20.0),
        data_dir=data_dir,
        public_url=read.value("S3EDGE_PUBLIC_URL", base_url, None),
        log_level=read.value("S3EDGE_LOG", _choice(*LOG_LEVELS), "info"),
        vendor={name: text for name, text in environ.items() if not name.startswith(PREFIX)},
    )


class _Reader:
    """Reads one setting after the other; an empty text is as good as none."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str, default: str) -> str:
        return self.value(name, str, default)

    def value(self, name: str, parse: Callable[[str], T], default: D) -> T | D:
        text = self._environ.get(name, "").strip()
        if not text:
            return default
        if _CONTROL.search(text):
            message = f"{name}: remove the control characters"
            raise SettingsError(message)
        try:
            return parse(text)
        except ValueError as error:
            message = f"{name}: {error}"
            raise SettingsError(message) from None


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in SETTINGS:
            close = difflib.get_close_matches(name, SETTINGS, n=1)
            hint = f"did you mean {close[0]}?" if close else "see .env.example for all settings"
            message = f"{name}: there is no such setting; {hint}"
            raise SettingsError(message)


def _integer(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not re.fullmatch(r"\d{1,12}", text) or not least <= int(text) <= most:
            message = f"write a whole number from {least} to {most}"
            raise ValueError(message)
        return int(text)

    return parse


def _seconds(most: float) -> Callable[[str], float]:
    message = f"write a number of seconds above 0, up to {most:g}"

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(message) from None
        if not math.isfinite(value) or not 0 < value <= most:
            raise ValueError(message)
        return value

    return parse


def _choice(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            message = f"write one of {', '.join(choices)}"
            raise ValueError(message)
        return text.lower()

    return parse


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _claim(text: str) -> str:
    if not _CLAIM.fullmatch(text):
        raise ValueError("write a path such as app_metadata.tier")
    return text


def _hosts(text: str) -> frozenset[str]:
    hosts = frozenset(part.strip().lower() for part in text.split(",") if part.strip())
    for host in hosts:
        if not _HOST.fullmatch(host):
            message = f"{host!r} is not a host; write name or name:port, without https://"
            raise ValueError(message)
    return hosts


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and (not parts.scheme or not parts.netloc or parts.path):
            message = f"{origin!r} is not an origin; write https://app.example"
            raise ValueError(message)
    return origins


def base_url(text: str) -> str:
    """Return an address without a slash at its end; raise ``ValueError`` for what is none."""
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("write an address such as https://api.example")
    return text.rstrip("/")
