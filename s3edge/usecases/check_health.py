"""Ask every dependency whether it works, all at once."""

import logging
from collections.abc import Mapping

import anyio
from attrs import frozen

from s3edge.errors import EdgeError
from s3edge.ports import Checked


CHECK_TIMEOUT_S = 2.0

_log = logging.getLogger(__name__)


@frozen
class CheckResult:
    """
    How one dependency is.

    Attributes:
        ok: Whether it answered.
        latency_ms: How long that took.
        message: What is wrong, when it is not ok.
    """

    ok: bool
    latency_ms: float
    message: str | None = None


async def check_health(dependencies: Mapping[str, Checked]) -> dict[str, CheckResult]:
    """Return how each dependency is, by name and in the same order; never raises."""
    results: dict[str, CheckResult] = {}

    async def check(name: str, dependency: Checked) -> None:
        results[name] = await _check(name, dependency)

    async with anyio.create_task_group() as group:
        for name, dependency in dependencies.items():
            group.start_soon(check, name, dependency)
    return {name: results[name] for name in dependencies}


async def _check(name: str, dependency: Checked) -> CheckResult:
    started = anyio.current_time()
    message: str | None = None
    try:
        with anyio.fail_after(CHECK_TIMEOUT_S):
            await dependency.check()
    except TimeoutError:
        message = f"did not answer within {CHECK_TIMEOUT_S:g} seconds"
    except EdgeError as error:
        message = error.message
    except Exception:  # noqa: BLE001 - logged with its trace; a check never raises
        _log.exception("the check of %s raised an unforeseen error", name)
        message = "failed; see the log"
    latency_ms = round((anyio.current_time() - started) * 1000, 3)
    return CheckResult(message is None, latency_ms, message)
