"""Every setting: its name, its default, what it means, and how its text becomes a value."""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote, urlsplit

from attrs import field, frozen

from s3edge.plugins import PREDICTORS, QUEUES, installed
from s3edge.ports import INLINE
from s3edge.rules.claims import DEFAULT_TIER_CLAIM
from s3edge.rules.lifecycle import COUNTED_BACKLOG
from s3edge.rules.limits import DEFAULT_RATE_LIMITS, MAX_GRANT, RateLimits, parse_rate_limits
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


@frozen
class Setting:
    """
    One setting.

    Attributes:
        name: In the environment.
        meaning: One line for the documentation and ``.env.example``.
        default: What is used when it is unset, as text; for people where it depends on others.
        is_secret: Whether its value must never be shown.
    """

    name: str
    meaning: str
    default: str = ""
    is_secret: bool = False


SETTINGS: tuple[Setting, ...] = (
    Setting("SUPABASE_URL", "The Supabase project: https://<ref>.supabase.co", "no Supabase"),
    Setting("SUPABASE_ANON_KEY", "Its publishable key: sb_publishable_... or the legacy anon key"),
    Setting(
        "SUPABASE_SERVICE_ROLE_KEY",
        "Its secret key, for outcomes, refunds and recovery outside a request",
        "",
        is_secret=True,
    ),
    Setting(
        "SUPABASE_JWT_SECRET",
        "Its legacy JWT secret, if it still signs tokens with HS256",
        "",
        is_secret=True,
    ),
    Setting(
        "SUPABASE_JWT_ALGORITHMS",
        "Which signatures are accepted, comma list of ES256, RS256, EdDSA",
        "ES256,RS256",
    ),
    Setting("R2_ENDPOINT", "https://<account id>.r2.cloudflarestorage.com", "no R2"),
    Setting("R2_ACCESS_KEY_ID", "Of an R2 token: Object Read & Write on the bucket"),
    Setting("R2_SECRET_ACCESS_KEY", "Of the same token", "", is_secret=True),
    Setting("R2_BUCKET", "Where images and masks are kept", "s3-images"),
    Setting("R2_PUBLIC_BASE_URL", "The bucket's custom domain", "presigned URLs"),
    Setting("VASTAI_BACKEND_URL", "The GPU server, or several by comma", "no GPU server"),
    Setting("API_SECRET_KEY", "What the GPU server expects as X-API-Key", "", is_secret=True),
    Setting("S3EDGE_AUTH", "Who signs tokens: supabase or local", "supabase or local"),
    Setting(
        "S3EDGE_DATABASE",
        "Where credits and tasks are kept: supabase, postgresql://user:password@host/database,"
        " sqlite:///path or memory:",
        "supabase or sqlite:///<data dir>/s3edge.db",
    ),
    Setting(
        "S3EDGE_STORAGE",
        "Where images and masks are kept: r2, s3://bucket?region=..., file:///folder or memory:",
        "r2 or files in <data dir>/media",
    ),
    Setting(
        "S3EDGE_BACKEND",
        "What segments: http(s)://host:port, several by comma, cpu: (no GPU) or queue: (workers do)",
        "VASTAI_BACKEND_URL or cpu:",
    ),
    Setting(
        "S3EDGE_RATE_LIMIT_STORE",
        "Where requests are counted: memory:, redis://... or valkey://...",
        "memory:",
    ),
    Setting(
        "S3EDGE_RATE_LIMITS",
        "off, or overrides as free.segment=5/minute,pro.read=600/minute,anonymous=60/minute",
        "",
    ),
    Setting(
        "S3EDGE_RATE_LIMIT_FAILURE",
        "What happens to requests while the store of the limits is down: open or closed",
        "open",
    ),
    Setting("S3EDGE_INITIAL_CREDITS", "What a new user has", "100"),
    Setting("S3EDGE_SEGMENT_COST", "What a segmentation costs, in credits", "1"),
    Setting("S3EDGE_TIER_CLAIM", "Path of the tier in a token's claims", DEFAULT_TIER_CLAIM),
    Setting(
        "S3EDGE_IMAGE_HOSTS",
        "Further hosts (name or name:port, comma list) whose images may be segmented",
        "own storage only",
    ),
    Setting("S3EDGE_CORS_ORIGINS", "Origins of browsers that may call, comma list", "*"),
    Setting(
        "S3EDGE_TRUSTED_PROXIES",
        "Addresses or CIDR blocks whose X-Forwarded-For is believed, comma list",
        "no proxy",
    ),
    Setting("S3EDGE_TASK_DEADLINE_S", "After how many seconds a task ends in error", "900"),
    Setting("S3EDGE_PREDICT_TIMEOUT_S", "How long one attempt of the model may take", "120"),
    Setting("S3EDGE_DISPATCH_CONCURRENCY", "How many tasks one process runs at once", "64"),
    Setting(
        "S3EDGE_DISPATCH",
        "Who runs tasks: inline (the servers) or procrastinate (s3edge worker, needs Postgres)",
        INLINE,
    ),
    Setting(
        "S3EDGE_MAX_BACKLOG", "How many tasks may wait before new ones are refused (503)", "10000"
    ),
    Setting(
        "S3EDGE_MAX_REQUESTS",
        "How many requests one process serves at once; more are answered 503",
        "500",
    ),
    Setting(
        "S3EDGE_MAX_WAITS",
        "How many long polls one process holds at once, besides; more are answered 503",
        "5000",
    ),
    Setting(
        "S3EDGE_CLIENT_TIMEOUT_S",
        "After how many seconds a client that neither sends nor reads is cut",
        "30",
    ),
    Setting(
        "S3EDGE_PREDICTOR",
        "What s3edge inference serve and work run: cpu, or the name of another installed predictor",
        CPU_PREDICTOR,
    ),
    Setting(
        "S3EDGE_MODEL_WEIGHTS", "Its weights: a folder or a name on a hub", "the predictor's own"
    ),
    Setting("S3EDGE_MODEL_DEVICE", "Where it runs: cuda, cuda:1, cpu", "the best there is"),
    Setting("S3EDGE_MODEL_DTYPE", "Type of its weights: float32, bfloat16", "the device's best"),
    Setting("SAM3_THRESHOLD", "What an instance must score, 0 to 1; of the predictor sam3", "0.5"),
    Setting("S3EDGE_BATCH_SIZE", "How many images go through the model together", "8"),
    Setting("S3EDGE_BATCH_WAIT_MS", "How long the first of them waits for others", "10"),
    Setting(
        "S3EDGE_PREDICT_QUEUE",
        "How many tasks an inference server has under way; more are answered 503",
        "128",
    ),
    Setting(
        "S3EDGE_PRIVATE_IMAGE_HOSTS",
        "Like S3EDGE_IMAGE_HOSTS, for hosts whose addresses are private; inference servers only",
        "none",
    ),
    Setting(
        "S3EDGE_IMAGE_TIMEOUT_S", "How long an inference server reads one image at the most", "20"
    ),
    Setting("S3EDGE_GRACE_S", "How long running tasks may take to end on a stop", "10"),
    Setting("S3EDGE_DATA_DIR", "Where the embedded parts live", ".s3edge"),
    Setting("S3EDGE_PUBLIC_URL", "How the outside reaches this server", "the bound address"),
    Setting("S3EDGE_LOG", "How much is logged: debug, info, warning or error", "info"),
    Setting("S3EDGE_BASE_URL", "The server that s3edge segment calls", "http://127.0.0.1:8787"),
    Setting("S3EDGE_TOKEN", "The access token that s3edge segment sends", "", is_secret=True),
)

LOG_LEVELS = ("debug", "info", "warning", "error")

_HOST = re.compile(r"[a-z0-9.-]+(:\d{1,5})?|\[[0-9a-f:]+\](:\d{1,5})?")
_CLAIM = re.compile(r"\w+(\.\w+)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@frozen
class Settings:
    """
    The settings of a deployment, parsed; see ``SETTINGS`` for their meaning.

    Values of adapters (``database`` and so on) keep their whole text: it may hold a password, and is
    left out of the representation. So is ``vendor``: what else is in the environment, for adapters.
    """

    auth: str
    database: str = field(repr=False)
    storage: str = field(repr=False)
    backend: str = field(repr=False)
    rate_limit_store: str = field(repr=False)
    rate_limits: RateLimits | None = DEFAULT_RATE_LIMITS
    limits_fail_open: bool = True
    initial_credits: int = 100
    segment_cost: int = 1
    tier_claim: str = DEFAULT_TIER_CLAIM
    image_hosts: frozenset[str] = frozenset()
    cors_origins: tuple[str, ...] = ("*",)
    trusted_proxies: Sequence[Network] = ()
    task_deadline_s: int = 900
    predict_timeout_s: float = 120.0
    dispatch_concurrency: int = 64
    dispatch: str = INLINE
    max_backlog: int = 10_000
    grace_s: float = 10.0
    max_requests: int = 500
    max_waits: int = 5000
    client_timeout_s: float = CLIENT_TIMEOUT_S
    predictor: str = CPU_PREDICTOR
    model_weights: str = ""
    model_device: str = ""
    model_dtype: str = ""
    batch_size: int = 8
    batch_wait_ms: int = 10
    predict_queue: int = 128
    private_image_hosts: frozenset[str] = frozenset()
    image_timeout_s: float = 20.0
    data_dir: Path = Path(".s3edge")
    public_url: str | None = None
    log_level: str = "info"
    vendor: Mapping[str, str] = field(factory=dict, repr=False)


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
        rate_limits=read.value("S3EDGE_RATE_LIMITS", parse_rate_limits, DEFAULT_RATE_LIMITS),
        limits_fail_open=read.value("S3EDGE_RATE_LIMIT_FAILURE", _choice("open", "closed"), "open")
        == "open",
        initial_credits=read.value("S3EDGE_INITIAL_CREDITS", _integer(0, MAX_GRANT), 100),
        segment_cost=read.value("S3EDGE_SEGMENT_COST", _integer(0, 1_000_000), 1),
        tier_claim=read.value("S3EDGE_TIER_CLAIM", _claim, DEFAULT_TIER_CLAIM),
        image_hosts=read.value("S3EDGE_IMAGE_HOSTS", _hosts, frozenset()),
        cors_origins=read.value("S3EDGE_CORS_ORIGINS", _origins, ("*",)),
        trusted_proxies=read.value("S3EDGE_TRUSTED_PROXIES", parse_networks, ()),
        task_deadline_s=read.value("S3EDGE_TASK_DEADLINE_S", _integer(1, 86_400), 900),
        predict_timeout_s=read.value("S3EDGE_PREDICT_TIMEOUT_S", _seconds(3600), 120.0),
        dispatch_concurrency=read.value("S3EDGE_DISPATCH_CONCURRENCY", _integer(1, 1000), 64),
        dispatch=read.value("S3EDGE_DISPATCH", _choice(INLINE, *installed(QUEUES)), INLINE),
        max_backlog=read.value("S3EDGE_MAX_BACKLOG", _integer(1, COUNTED_BACKLOG), 10_000),
        grace_s=read.value("S3EDGE_GRACE_S", _seconds(3600), 10.0),
        max_requests=read.value("S3EDGE_MAX_REQUESTS", _integer(1, 100_000), 500),
        max_waits=read.value("S3EDGE_MAX_WAITS", _integer(0, 1_000_000), 5000),
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
        public_url=read.value("S3EDGE_PUBLIC_URL", _base_url, None),
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
    known = {setting.name for setting in SETTINGS}
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
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


def _base_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("write an address such as https://api.example")
    return text.rstrip("/")
