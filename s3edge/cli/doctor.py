"""``s3edge doctor``."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

import anyio
import click
from attrs import define, field

from s3edge.cli.options import Failed, settings_of, with_environment
from s3edge.cli.segment import DEFAULT_URL
from s3edge.config import (
    DATABASE,
    QUEUE,
    Port,
    Settings,
    SettingsError,
    UncheckedError,
    build_parts,
)
from s3edge.errors import EdgeError
from s3edge.gateway import opened
from s3edge.plugins import AUTHENTICATORS, BACKENDS
from s3edge.ports import Authenticator, Examinable, Finding, InferenceBackend, Limited
from s3edge.rules.claims import is_written_by_users
from s3edge.usecases.check_health import check_health


EXAMINATION_TIMEOUT_S = 20.0
"""How long looking at one dependency may take."""

TOKEN = "S3EDGE_TOKEN"  # noqa: S105 - a setting's name


@click.command()
@with_environment
def doctor(environ: Mapping[str, str]) -> None:
    """Check every dependency; print each failure with its fix."""
    settings = settings_of({"S3EDGE_LOG": "error", **environ})
    report = _Report()
    anyio.run(_examine, settings, environ.get(TOKEN, ""), report)
    if report.failures:
        raise Failed(f"{report.failures} of the checks failed")


@define
class _Report:
    """Prints findings as they come, and counts those that are bad."""

    failures: int = field(default=0, init=False)

    def add(self, dependency: str, finding: Finding) -> None:
        if not finding.ok:
            self.failures += 1
        name = f"{dependency}: {finding.name}" if finding.name else dependency
        click.echo(f"{'ok   ' if finding.ok else 'FAIL '} {name}: {finding.message}")

    def note(self, dependency: str, text: str) -> None:
        click.echo(f"note  {dependency}: {text}")


async def _examine(settings: Settings, token: str, report: _Report) -> None:
    for port, part in build_parts(settings, bound_url=DEFAULT_URL).items():
        if isinstance(part, UncheckedError):
            report.note(port.name, str(part))
            continue
        if isinstance(part, SettingsError):
            report.add(port.name, Finding("", ok=False, message=str(part)))
            continue
        needed = [part]
        if port is QUEUE:
            # It works through the database, and one that was closed does not open again.
            again = build_parts(settings, bound_url=DEFAULT_URL)
            part = again[QUEUE]  # noqa: PLW2901 - the same one, over a database of its own
            needed = [again[DATABASE], part]
        try:
            with anyio.fail_after(EXAMINATION_TIMEOUT_S):
                async with opened(needed):
                    await _examine_part(port, part, settings, report)
                    if token and port.group == AUTHENTICATORS:
                        report.add(port.name, await _token(part, token))
        except TimeoutError:
            message = f"it took more than {EXAMINATION_TIMEOUT_S:g} s; can it be reached at all?"
            report.add(port.name, Finding("", ok=False, message=message))
        except EdgeError as error:
            message = (
                f"{error.message.removesuffix('.')}; fix it, or point {port.setting} elsewhere"
            )
            report.add(port.name, Finding("", ok=False, message=message))


async def _examine_part(port: Port, part: Any, settings: Settings, report: _Report) -> None:
    report.add(port.name, await _check(port, part, settings))
    async with aclosing(_findings(port, part)) as findings:
        async for finding in findings:
            report.add(port.name, finding)
    if port.group == AUTHENTICATORS:
        report.add(port.name, _tier_claim(settings))
    if isinstance(part, Limited):
        for limitation in part.limitations():
            report.note(port.name, limitation)


async def _findings(port: Port, part: Any) -> AsyncGenerator[Finding]:
    """Yield what a part finds of itself, or what any of its kind can be asked."""
    if isinstance(part, Examinable):
        async for finding in part.examine():
            yield finding
    elif port.group == BACKENDS:
        yield await _model(part)


async def _check(port: Port, part: Any, settings: Settings) -> Finding:
    """Ask a part what ``/health/ready`` asks it."""
    check = (await check_health({port.name: part}))[port.name]
    adapter = port.scheme(settings)
    if check.message is None:
        return Finding("", ok=True, message=f"{adapter}, {check.latency_ms:.1f} ms")
    message = (
        f"{adapter}: {check.message.removesuffix('.')}; fix it, or point {port.setting} elsewhere"
    )
    return Finding("", ok=False, message=message)


async def _model(backend: InferenceBackend) -> Finding:
    try:
        info = await backend.model_info()
    except EdgeError as error:
        return Finding(
            "model", ok=False, message=f"{error.message.removesuffix('.')}; see the server's log"
        )
    message = f"{info.model_name} {info.model_version} on {info.device}"
    return Finding("model", ok=True, message=message)


async def _token(authenticator: Authenticator, token: str) -> Finding:
    try:
        user = await authenticator.authenticate(token)
    except EdgeError as error:
        message = f"{error.message} {TOKEN} may be old, or from another project"
        return Finding("token", ok=False, message=message)
    return Finding("token", ok=True, message=f"{TOKEN} is user {user.user_id}'s, tier {user.tier}")


def _tier_claim(settings: Settings) -> Finding:
    claim = settings.tier_claim
    if is_written_by_users(claim):
        message = f"users can write {claim} themselves: set S3EDGE_TIER_CLAIM=app_metadata.tier"
        return Finding("tier claim", ok=False, message=message)
    return Finding("tier claim", ok=True, message=claim)
