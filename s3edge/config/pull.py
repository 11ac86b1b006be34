"""From settings to a worker that has the model with it: the queue, and the inference server's engine."""

from attrs import evolve, frozen

from s3edge.config.build import STORAGE, Deployment, OwnParts, adapter_of, build, wiring_of
from s3edge.config.inference import options_of, predictor_of
from s3edge.config.settings import Settings
from s3edge.config.shareable import check_shareable
from s3edge_inference.engine_backend import EngineBackend


@frozen
class PullDeployment:
    """
    A worker, built and not started.

    Attributes:
        deployment: Whose backend is the model.
        model: The same one, to be loaded before any task is taken.
    """

    deployment: Deployment
    model: EngineBackend


def build_pull(settings: Settings, *, bound_url: str) -> PullDeployment:
    """
    Return a worker of these settings, whatever they say of a backend.

    Args:
        settings: What to build.
        bound_url: How the gateway is reached when the settings do not say.

    Raises:
        SettingsError: A setting is missing or cannot be used.
        PredictorUnavailable: The predictor cannot work here, as far as that is seen at once.
    """
    check_shareable(settings)
    storage = adapter_of(STORAGE, settings, wiring_of(settings, bound_url, OwnParts()))
    # Nothing listens here, so there is no key.
    model = EngineBackend(predictor_of(settings), storage, options_of(settings, key=""))
    # The gateway's checks and the server's are both made here, so both know the private hosts.
    hosts = settings.image_hosts | settings.private_image_hosts
    own = OwnParts(storage=storage, backend=model)
    return PullDeployment(
        build(evolve(settings, image_hosts=hosts), bound_url=bound_url, own=own), model
    )
