"""What ``s3edge doctor`` looks at in one GPU server."""

from collections.abc import AsyncGenerator, Mapping
from http import HTTPStatus

from s3edge.ports import Finding
from s3edge_aiohttp import Answer, HttpClient, NoAnswerError
from s3edge_inference.inference_api import (
    HEALTH_PATH,
    MODEL_INFO_PATH,
    HealthAnswer,
    NotInferenceApiError,
    read_health,
    read_model_info,
)
from s3edge_inference.refusals import REFUSED_KEY


EXAMINATION_TIMEOUT_S = 2.0

_SETTINGS = "VASTAI_BACKEND_URL or S3EDGE_BACKEND"


async def examine_server(
    client: HttpClient, name: str, url: str, headers: Mapping[str, str]
) -> AsyncGenerator[Finding]:
    """
    Look at a server's health, its model, and whether it takes the key.

    Args:
        client: Open.
        name: What operators know the server by.
        url: Its base URL.
        headers: With the key.
    """
    try:
        answer = await client.fetch("GET", url + HEALTH_PATH, timeout_s=EXAMINATION_TIMEOUT_S)
    except NoAnswerError as error:
        message = f"{error.reason}; start it, or correct its address in {_SETTINGS}"
        yield Finding(name, ok=False, message=message)
        return
    health = _health(answer)
    if health is None:
        message = (
            f"GET {HEALTH_PATH} gives no inference server's answer (status {answer.status});"
            f" correct its address in {_SETTINGS}"
        )
        yield Finding(name, ok=False, message=message)
        return
    if health.status != "ok":
        yield Finding(name, ok=False, message="it says that it is not well; see its log")
    else:
        yield Finding(name, ok=True, message="it answers")
    yield _model(f"{name}, model", health)
    yield await _key(client, f"{name}, key", url, headers)


def _health(answer: Answer) -> HealthAnswer | None:
    if answer.status != HTTPStatus.OK:
        return None
    try:
        return read_health(answer.body)
    except NotInferenceApiError:
        return None


def _model(name: str, health: HealthAnswer) -> Finding:
    if not health.model_loaded:
        message = "it is not loaded; wait until it is, or see the server's log"
        return Finding(name, ok=False, message=message)
    gpu = _plain(health.gpu_name) if health.gpu_available else "no GPU"
    if health.gpu_available and health.vram_used_mb is not None and health.vram_total_mb:
        gpu += f", {health.vram_used_mb:.0f} of {health.vram_total_mb:.0f} MB in use"
    return Finding(name, ok=True, message=f"loaded; {gpu}")


async def _key(client: HttpClient, name: str, url: str, headers: Mapping[str, str]) -> Finding:
    try:
        answer = await client.fetch(
            "GET", url + MODEL_INFO_PATH, timeout_s=EXAMINATION_TIMEOUT_S, headers=headers
        )
    except NoAnswerError as error:
        return Finding(name, ok=False, message=f"{error.reason}; see the server's log")
    if answer.status in REFUSED_KEY:
        message = "API_SECRET_KEY differs from the server's; set the same on both sides"
        return Finding(name, ok=False, message=message)
    if answer.status == HTTPStatus.SERVICE_UNAVAILABLE:
        return Finding(name, ok=True, message="not refused; the model does not answer yet")
    if answer.status == HTTPStatus.OK:
        try:
            info = read_model_info(answer.body)
        except NotInferenceApiError:
            pass
        else:
            model = f"{_plain(info.model_name)} {_plain(info.model_version)}"
            return Finding(name, ok=True, message=f"accepted; {model} on {_plain(info.device)}")
    message = (
        f"GET {MODEL_INFO_PATH} gives no inference server's answer (status {answer.status});"
        " see the server's log"
    )
    return Finding(name, ok=False, message=message)


def _plain(text: str | None) -> str:
    """Return a text of the server's as it may stand in a terminal: no control characters."""
    return "".join(character for character in text or "?" if character.isprintable())
