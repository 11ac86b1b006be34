"""What ``s3edge doctor`` looks at in a project's database."""

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from uuid import uuid4

import jwt

from s3edge.errors import EdgeError
from s3edge.ports import Clock, Finding
from s3edge.rules.claims import AUDIENCE, USER_ROLE
from s3edge_supabase.postgrest import Postgrest, Refusal
from s3edge_supabase.project import SupabaseProject, project_ref_of
from s3edge_supabase.refusals import NOT_APPLIED, fix_of
from s3edge_supabase.rows import Terms, shaped, terms


TABLES = ("users_profile", "projects", "segmentation_results", "usage_logs")

_MINUTE = timedelta(minutes=1)


async def examine_database(
    project: SupabaseProject,
    postgrest: Postgrest,
    clock: Clock,
    wanted: Terms,
    schema_version: int,
) -> AsyncIterator[Finding]:
    """
    Look at the keys, the schema, the access rules and the prices.

    Args:
        project: Where it is, and the keys.
        postgrest: Its endpoint.
        clock: For a stranger's token.
        wanted: What the settings say.
        schema_version: Which one is needed.
    """
    yield _project_of_keys(project)
    schema = await _schema(project, postgrest, schema_version)
    yield schema
    if not schema.ok:
        return
    yield await _nobody_sees_anything(project, postgrest)
    if project.jwt_secret is not None:
        yield await _a_stranger_sees_nothing(project, postgrest, clock)
    if project.service_key is None:
        yield await _terms_of_database(project, postgrest, wanted)
    else:
        yield await _access_rules(project, postgrest)


def _project_of_keys(project: SupabaseProject) -> Finding:
    """Compare the project that a legacy key names with the one of the address."""
    name = "project"
    for setting, key in (
        ("SUPABASE_ANON_KEY", project.publishable_key),
        ("SUPABASE_SERVICE_ROLE_KEY", project.service_key or ""),
    ):
        ref = project_ref_of(key)
        hosted = project.url.endswith(".supabase.co")
        if ref is not None and hosted and f"//{ref}." not in project.url:
            return Finding(name, ok=False, message=f"{setting} is of another project ({ref})")
    return Finding(name, ok=True, message=project.url)


async def _schema(project: SupabaseProject, postgrest: Postgrest, schema_version: int) -> Finding:
    name = "migrations"
    try:
        version = await postgrest.call(
            "s3edge_schema_version", {}, project.public_headers(), repeatable=True
        )
    except Refusal as refusal:
        return Finding(name, ok=False, message=fix_of(refusal, "SUPABASE_ANON_KEY"))
    except EdgeError as error:
        return Finding(
            name, ok=False, message=f"{error.message} Compare SUPABASE_URL; is the project paused?"
        )
    if not isinstance(version, int) or version < schema_version:
        message = f"the schema is version {version}, not {schema_version}; {NOT_APPLIED}"
        return Finding(name, ok=False, message=message)
    return Finding(name, ok=True, message=f"version {version}")


async def _nobody_sees_anything(project: SupabaseProject, postgrest: Postgrest) -> Finding:
    return await _sees_nothing(
        "policies: without sign-in", postgrest, project.public_headers(), tables=TABLES
    )


async def _a_stranger_sees_nothing(
    project: SupabaseProject, postgrest: Postgrest, clock: Clock
) -> Finding:
    """Look as a user who never signed up, by a token made with the legacy secret."""
    now = clock.now()
    token = jwt.encode(
        {
            "sub": str(uuid4()),
            "role": USER_ROLE,
            "aud": AUDIENCE,
            "iss": project.issuer,
            "iat": now - _MINUTE,
            "exp": now + _MINUTE,
        },
        project.jwt_secret or "",
        algorithm="HS256",
    )
    return await _sees_nothing(
        "policies: a stranger", postgrest, project.user_headers(token), tables=TABLES
    )


async def _sees_nothing(
    name: str, postgrest: Postgrest, headers: Mapping[str, str], *, tables: tuple[str, ...]
) -> Finding:
    for table in tables:
        try:
            found = await postgrest.rows(f"{table}?select=id&limit=1", headers)
        except Refusal as refusal:
            if refusal.code == "42501":
                continue
            fix = fix_of(refusal, "SUPABASE_ANON_KEY and SUPABASE_JWT_SECRET")
            return Finding(name, ok=False, message=fix)
        except EdgeError as error:
            return Finding(name, ok=False, message=error.message)
        if found.rows:
            message = f"they can read {table}: apply the s3edge_access migrations again, in order"
            return Finding(name, ok=False, message=message)
    return Finding(name, ok=True, message="no row can be read")


async def _access_rules(project: SupabaseProject, postgrest: Postgrest) -> Finding:
    """Have the database compare its policies and grants with those of the migrations."""
    name = "policies and grants"
    try:
        faults = await postgrest.call(
            "s3edge_audit", {}, project.service_headers(), repeatable=True
        )
    except Refusal as refusal:
        return Finding(name, ok=False, message=fix_of(refusal, "SUPABASE_SERVICE_ROLE_KEY"))
    except EdgeError as error:
        return Finding(name, ok=False, message=error.message)
    if faults:
        message = (
            f"{'; '.join(map(str, faults))}: apply the s3edge_access migrations again, in order"
        )
        return Finding(name, ok=False, message=message)
    return Finding(name, ok=True, message="as the migrations made them")


async def _terms_of_database(
    project: SupabaseProject, postgrest: Postgrest, wanted: Terms
) -> Finding:
    name = "prices"
    try:
        found = shaped(
            terms,
            await postgrest.call("s3edge_settings", {}, project.public_headers(), repeatable=True),
        )
    except Refusal as refusal:
        return Finding(name, ok=False, message=fix_of(refusal, "SUPABASE_ANON_KEY"))
    except EdgeError as error:
        return Finding(name, ok=False, message=error.message)
    if found != wanted:
        message = (
            f"the database says {found.initial_credits} initial credits, {found.segment_cost} a"
            f" segmentation, {found.task_deadline_s} s to answer, and the settings differ: change"
            " s3edge.settings in the database or the S3EDGE_ settings"
        )
        return Finding(name, ok=False, message=message)
    return Finding(name, ok=True, message=f"{found.segment_cost} a segmentation")
