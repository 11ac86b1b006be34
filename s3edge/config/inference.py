"""From settings to an inference server: the predictor, and the ports that it shares with a gateway."""

from collections.abc import Callable

from s3edge import plugins
from s3edge.config.build import DATABASE, STORAGE, OwnParts, adapter_of, wiring_of
from s3edge.config.settings import Settings, SettingsError
from s3edge.config.shareable import check_shareable
from s3edge_inference.key import api_key
from s3edge_inference.predictors import Predictor, PredictorOptions
from s3edge_inference.server.app import InferenceServer
from s3edge_inference.server.options import ServerOptions


_OF_ONE_MACHINE = frozenset({"sqlite", "memory"})
"""Databases that only the gateway's own machine has."""


def build_inference(
    settings: Settings, *, bound_url: str, give_up: Callable[[], None]
) -> InferenceServer:
    """
    Return an inference server of these settings, not started.

    Args:
        settings: What to build.
        bound_url: How the server is reached.
        give_up: Called when the model cannot be loaded, or hangs.

    Raises:
        SettingsError: A setting is missing or cannot be used.
        PredictorUnavailable: The predictor cannot work here, as far as that is seen at once.
    """
    # First: what it lacks takes longest to get.
    predictor = predictor_of(settings)
    options = options_of(settings, key=_key(settings))
    check_shareable(settings)
    _check_service_key(settings)
    wiring = wiring_of(settings, bound_url, OwnParts())
    return InferenceServer(
        predictor,
        adapter_of(STORAGE, settings, wiring),
        adapter_of(DATABASE, settings, wiring) if writes_outcomes(settings) else None,
        options,
        give_up=give_up,
    )


def writes_outcomes(settings: Settings) -> bool:
    """Tell whether the server writes what becomes of tasks into the database by itself."""
    scheme = DATABASE.scheme(settings)
    if scheme == "supabase":
        return bool(settings.vendor.get("SUPABASE_SERVICE_ROLE_KEY"))
    return scheme not in _OF_ONE_MACHINE


def options_of(settings: Settings, *, key: str) -> ServerOptions:
    """Return the limits of these settings, with the key of a server that listens."""
    return ServerOptions(
        key=key,
        image_hosts=settings.image_hosts,
        private_image_hosts=settings.private_image_hosts,
        image_timeout_s=settings.image_timeout_s,
        batch_size=settings.batch_size,
        batch_wait_s=settings.batch_wait_ms / 1000,
        queue=settings.predict_queue,
        grace_s=settings.grace_s,
    )


def _check_service_key(settings: Settings) -> None:
    """Refuse a key that was given so that outcomes are written, where it has no database to go with."""
    has_key = bool(settings.vendor.get("SUPABASE_SERVICE_ROLE_KEY"))
    if has_key and DATABASE.scheme(settings) in _OF_ONE_MACHINE:
        raise SettingsError(
            "SUPABASE_SERVICE_ROLE_KEY: it is of no use without SUPABASE_URL; set both, or neither"
        )


def _key(settings: Settings) -> str:
    """Return the key that gateways send; without one there is no server, on loopback neither."""
    try:
        key = api_key(settings.vendor)
    except ValueError as error:
        raise SettingsError(str(error)) from None
    if not key:
        raise SettingsError(
            "API_SECRET_KEY: set it to what the gateway sends; make one with: openssl rand -hex 32"
        )
    return key


def predictor_of(settings: Settings) -> Predictor:
    """
    Return the predictor of these settings, not loaded.

    Raises:
        SettingsError: It is not installed.
        PredictorUnavailable: It cannot work here, as far as that is seen at once.
    """
    try:
        factory: Callable[..., Predictor] = plugins.load(plugins.PREDICTORS, settings.predictor)
    except plugins.UnknownAdapterError as error:
        message = f"S3EDGE_PREDICTOR: {error}"
        raise SettingsError(message) from None
    try:
        return factory(
            PredictorOptions(
                weights=settings.model_weights,
                device=settings.model_device,
                dtype=settings.model_dtype,
                vendor=settings.vendor,
            )
        )
    except ModuleNotFoundError as error:
        if not plugins.is_of_an_extra(error):
            raise
        message = f"S3EDGE_PREDICTOR: {settings.predictor!r} needs {plugins.missing(error.name)}"
        raise SettingsError(message) from None
