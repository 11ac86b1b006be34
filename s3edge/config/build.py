"""From settings to a deployment: each port's adapter is picked by its own setting."""

import logging
from collections.abc import Mapping
from typing import Any

from attrs import evolve, field, frozen

from s3edge import plugins
from s3edge.config.settings import CPU_BACKEND, Settings, SettingsError, base_url
from s3edge.errors import EdgeError
from s3edge.gateway import Gateway, GatewayOptions, RandomIds, SystemClock, opened
from s3edge.ports import (
    INLINE,
    Authenticator,
    Clock,
    Database,
    Ids,
    InferenceBackend,
    MissingPartError,
    ObjectStorage,
    RateLimiter,
    TaskQueue,
    Wiring,
)
from s3edge.rules.claims import is_written_by_users
from s3edge.web.app import WebApp
from s3edge.web.cors import CorsPolicy
from s3edge.web.http import ServesRoutes


_log = logging.getLogger(__name__)


class UncheckedError(SettingsError):
    """A setting that nothing can be said of, for want of a part that another one names."""


@frozen
class Port:
    """
    A port as the settings know it.

    Attributes:
        name: As ``/health/ready`` calls it.
        setting: The setting that picks its adapter.
        group: The entry points of its adapters.
        field: The attribute of ``Settings``.
    """

    name: str
    setting: str
    group: str
    field: str

    def value(self, settings: Settings) -> str:
        """Return the setting's whole value; it may hold a password."""
        return str(getattr(settings, self.field))

    def scheme(self, settings: Settings) -> str:
        """Return which adapter is picked."""
        return plugins.scheme_of(self.value(settings))


AUTH = Port("auth", "S3EDGE_AUTH", plugins.AUTHENTICATORS, "auth")
DATABASE = Port("database", "S3EDGE_DATABASE", plugins.DATABASES, "database")
STORAGE = Port("storage", "S3EDGE_STORAGE", plugins.STORAGES, "storage")
BACKEND = Port("backend", "S3EDGE_BACKEND", plugins.BACKENDS, "backend")
LIMITS = Port("limits", "S3EDGE_RATE_LIMIT_STORE", plugins.RATE_LIMITERS, "rate_limit_store")
QUEUE = Port("queue", "S3EDGE_DISPATCH", plugins.QUEUES, "dispatch")

PORTS = (AUTH, DATABASE, STORAGE, BACKEND, LIMITS)
"""In an order in which each finds built what it needs; the queue comes last, where there is one."""


@frozen
class Deployment:
    """
    Everything that serves, built and not started.

    Attributes:
        settings: What it was built from.
        gateway: The ports.
        web: The HTTP application, for a door.
        queue: What workers take tasks from; ``None`` where gateways dispatch by themselves.
    """

    settings: Settings
    gateway: Gateway
    web: WebApp
    queue: TaskQueue | None = None


@frozen
class OwnParts:
    """
    Ports that a host application implements itself, instead of the settings' adapters.

    Attributes:
        authenticator: Tells who a token belongs to.
        storage: Holds images and masks.
        database: Holds credits and tasks.
        backend: Runs the model.
        rate_limiter: Counts requests.
        clock: Tells the time.
        ids: Makes ids.
    """

    authenticator: Authenticator | None = None
    storage: ObjectStorage | None = None
    database: Database | None = None
    backend: InferenceBackend | None = None
    rate_limiter: RateLimiter | None = None
    clock: Clock = field(factory=SystemClock)
    ids: Ids = field(factory=RandomIds)


def build(settings: Settings, *, bound_url: str, own: OwnParts | None = None) -> Deployment:
    """
    Return a deployment of these settings.

    Args:
        settings: What to build.
        bound_url: How the server is reached when the settings do not say, with the prefix of a mount.
        own: Parts of the caller's own.

    Raises:
        SettingsError: An adapter is not installed, or cannot use its setting.
        ValueError: ``bound_url`` is needed, and no address.
    """
    own = own or OwnParts()
    if own.backend is None:
        _check_image_hosts(settings)
    _warn_of_unsafe_tier(settings)
    wiring = wiring_of(settings, bound_url, own)
    storage = own.storage or adapter_of(STORAGE, settings, wiring)
    wiring = evolve(wiring, storage=storage)
    gateway = Gateway(
        authenticator=own.authenticator or adapter_of(AUTH, settings, wiring),
        storage=storage,
        database=own.database or adapter_of(DATABASE, settings, wiring),
        backend=own.backend or adapter_of(BACKEND, settings, wiring),
        rate_limiter=own.rate_limiter or adapter_of(LIMITS, settings, wiring),
        options=_options(settings),
        clock=wiring.clock,
        ids=wiring.ids,
    )
    web = WebApp(
        gateway,
        extra_routes=[
            route
            for part in gateway.parts
            if isinstance(part, ServesRoutes)
            for route in part.routes()
        ],
        cors=CorsPolicy(settings.cors_origins),
        trusted_proxies=settings.trusted_proxies,
    )
    queue = (
        None
        if gateway.is_inline
        else adapter_of(QUEUE, settings, evolve(wiring, database=gateway.database))
    )
    return Deployment(settings, gateway, web, queue)


async def check_opens(settings: Settings, *, bound_url: str) -> None:
    """
    Open every part once and close it again, so that a start fails before it is announced.

    Raises:
        SettingsError: Names the setting whose part cannot be opened.
    """
    parts = build_parts(settings, bound_url=bound_url)
    # All are built before any is opened, because opening leaves files behind.
    for part in parts.values():
        if isinstance(part, SettingsError):
            raise part
    for port, part in parts.items():
        try:
            async with opened([part]):
                pass
        except EdgeError as error:
            message = f"{port.setting}: {error.message}"
            raise SettingsError(message) from None


def build_parts(settings: Settings, *, bound_url: str) -> Mapping[Port, Any]:
    """
    Return each port's part, or the ``SettingsError`` that kept it from being built.

    Raises:
        SettingsError: Two settings do not go together.
    """
    _check_image_hosts(settings)
    wiring = wiring_of(settings, bound_url, OwnParts())
    parts: dict[Port, Any] = {}
    for port in PORTS:
        try:
            parts[port] = adapter_of(port, settings, wiring)
        except SettingsError as error:
            parts[port] = error
        if port is STORAGE and not isinstance(parts[port], SettingsError):
            wiring = evolve(wiring, storage=parts[port])
        if port is DATABASE and not isinstance(parts[port], SettingsError):
            wiring = evolve(wiring, database=parts[port])
    if settings.dispatch != INLINE and wiring.database is not None:
        try:
            parts[QUEUE] = adapter_of(QUEUE, settings, wiring)
        except SettingsError as error:
            parts[QUEUE] = error
    return parts


def build_database(settings: Settings) -> Database:
    """
    Return the database alone, for the operator's commands.

    Raises:
        SettingsError: As ``build``.
    """
    database: Database = adapter_of(DATABASE, settings, wiring_of(settings, "", OwnParts()))
    return database


def _checked_address(bound_url: str) -> str:
    """Return an address that addresses of images can begin with; none stays none."""
    try:
        return bound_url and base_url(bound_url)
    except ValueError as error:
        message = f"bound_url is {bound_url!r}; {error}"
        raise ValueError(message) from None


def wiring_of(settings: Settings, bound_url: str, own: OwnParts) -> Wiring:
    """Return what the factories of adapters are told."""
    return Wiring(
        data_dir=settings.data_dir,
        public_url=settings.public_url or _checked_address(bound_url),
        clock=own.clock,
        ids=own.ids,
        initial_credits=settings.initial_credits,
        segment_cost=settings.segment_cost,
        task_deadline_s=settings.task_deadline_s,
        tier_claim=settings.tier_claim,
        dispatch=settings.dispatch,
        vendor=settings.vendor,
    )


def _options(settings: Settings) -> GatewayOptions:
    return GatewayOptions(
        rate_limits=settings.rate_limits,
        limits_fail_open=settings.limits_fail_open,
        image_hosts=settings.image_hosts,
        predict_timeout_s=settings.predict_timeout_s,
        dispatch_concurrency=settings.dispatch_concurrency,
        dispatch=settings.dispatch,
        max_backlog=settings.max_backlog,
        grace_s=settings.grace_s,
        max_requests=settings.max_requests,
        max_waits=settings.max_waits,
    )


def adapter_of(port: Port, settings: Settings, wiring: Wiring) -> Any:
    """Return what the adapter of a setting's scheme makes of it."""
    try:
        factory = plugins.load(port.group, port.scheme(settings))
        return factory(port.value(settings), wiring)
    except ModuleNotFoundError as error:
        if not plugins.is_of_an_extra(error):
            raise
        message = f"{port.setting}: {port.scheme(settings)!r} needs {plugins.missing(error.name)}"
    except EdgeError as error:
        message = f"{port.setting}: {error.message}"
    except MissingPartError as error:
        message = f"not checked: the {error.part} could not be built"
        raise UncheckedError(message) from error
    except (plugins.UnknownAdapterError, OSError, ValueError) as error:
        message = f"{port.setting}: {error}"
    raise SettingsError(message)


def _check_image_hosts(settings: Settings) -> None:
    if settings.image_hosts and settings.backend == CPU_BACKEND:
        message = (
            "S3EDGE_IMAGE_HOSTS: the in-process backend reads only this deployment's own storage;"
            " set S3EDGE_BACKEND to an inference server, or leave this unset"
        )
        raise SettingsError(message)


def _warn_of_unsafe_tier(settings: Settings) -> None:
    if is_written_by_users(settings.tier_claim):
        _log.warning(
            "S3EDGE_TIER_CLAIM=%s: users can write their own user_metadata, so anyone can claim any"
            " tier; use app_metadata.tier",
            settings.tier_claim,
        )
