"""``s3edge doctor``."""

from collections.abc import Mapping, Sequence

import anyio
import click
from attrs import frozen

from s3edge.cli.options import Failed, settings_of, with_environment
from s3edge.cli.segment import DEFAULT_URL
from s3edge.config import Settings, SettingsError, build, check_opens
from s3edge.errors import EdgeError
from s3edge.gateway import Gateway, opened
from s3edge.plugins import scheme_of
from s3edge.usecases.check_health import CheckResult, check_health


@frozen
class _Dependency:
    """
    A port as the doctor sees it.

    Attributes:
        name: As ``/health/ready`` calls it.
        setting: The setting that picks it.
        adapter: The scheme of that setting.
    """

    name: str
    setting: str
    adapter: str


@click.command()
@with_environment
def doctor(environ: Mapping[str, str]) -> None:
    """Check every dependency; print each failure with its fix."""
    settings = settings_of({"S3EDGE_LOG": "error", **environ})
    failures = anyio.run(_examine, settings)
    if failures:
        raise Failed(f"{failures} of the checks failed")


async def _examine(settings: Settings) -> int:
    """Print a line for each check and return how many failed."""
    try:
        await check_opens(settings, bound_url=DEFAULT_URL)
        gateway = build(settings, bound_url=DEFAULT_URL).gateway
        async with opened(gateway.parts):
            checks = await check_health(
                {
                    "database": gateway.database,
                    "storage": gateway.storage,
                    "backend": gateway.backend,
                    "auth": gateway.authenticator,
                    "limits": gateway.rate_limiter,
                }
            )
            lines = [
                _line(dependency, checks[dependency.name]) for dependency in _dependencies(settings)
            ]
            lines.append(await _model(gateway))
    except (SettingsError, EdgeError) as error:
        click.echo(f"FAIL  {error.message if isinstance(error, EdgeError) else error}")
        return 1
    for line in lines:
        click.echo(line)
    return sum(line.startswith("FAIL") for line in lines)


def _dependencies(settings: Settings) -> Sequence[_Dependency]:
    return [
        _Dependency("database", "S3EDGE_DATABASE", scheme_of(settings.database)),
        _Dependency("storage", "S3EDGE_STORAGE", scheme_of(settings.storage)),
        _Dependency("backend", "S3EDGE_BACKEND", scheme_of(settings.backend)),
        _Dependency("auth", "S3EDGE_AUTH", scheme_of(settings.auth)),
        _Dependency("limits", "S3EDGE_RATE_LIMIT_STORE", scheme_of(settings.rate_limit_store)),
    ]


def _line(dependency: _Dependency, check: CheckResult) -> str:
    if check.ok:
        return f"ok    {dependency.name}: {dependency.adapter}, {check.latency_ms:.1f} ms"
    return (
        f"FAIL  {dependency.name}: {dependency.adapter}: {check.message};"
        f" mend it, or point {dependency.setting} elsewhere"
    )


async def _model(gateway: Gateway) -> str:
    try:
        info = await gateway.backend.model_info()
    except EdgeError as error:
        return f"FAIL  model: {error.message}; see the inference server's log"
    return f"ok    model: {info.model_name} {info.model_version} on {info.device}"
