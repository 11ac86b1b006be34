"""
What Supabase's advisor would say of the schema.

Each rule of https://supabase.com/docs/guides/database/database-linter that concerns tables, policies and
functions is a question to the catalogs of our own. Each has a control: a violation that it must find.
"""

import pytest
from attrs import frozen

from tests.sql.conftest import Project


_POLICIES = """
    select polname, polrelid::regclass as relation, polcmd, polpermissive, polroles,
        coalesce(pg_get_expr(polqual, polrelid), '') as uses,
        coalesce(pg_get_expr(polwithcheck, polrelid), '') as checks
    from pg_policy join pg_class on pg_class.oid = polrelid
    where relnamespace in ('public'::regnamespace, 's3edge'::regnamespace)
"""

_DEFINERS_OF = """
    select oid::regprocedure::text from pg_proc
    where prosecdef and pronamespace = 'public'::regnamespace
        and has_function_privilege('{role}', oid, 'EXECUTE')
"""


@frozen
class Rule:
    """
    One rule of the advisor's.

    Attributes:
        question: Returns the names of what breaks it.
        violation: Statements that break it.
        found: What the question then says.
    """

    question: str
    violation: tuple[str, ...]
    found: str


TABLE = "create table public.control (id uuid primary key, user_id uuid)"
PROTECTED = (TABLE, "alter table public.control enable row level security")

# Per row instead of once a statement: auth.uid() and its like outside a sub-select, which the catalogs
# write as "( SELECT auth.uid() AS uid)".
_PER_ROW = r"(?<!SELECT )(auth\.(uid|jwt|role|email)\(\)|current_setting\()"

RULES = {
    "0003 auth_rls_initplan": Rule(
        f"select relation || '.' || polname from ({_POLICIES}) p"
        f" where uses || ' ' || checks ~ '{_PER_ROW}'",
        (*PROTECTED, "create policy slow on public.control using (auth.uid() = user_id)"),
        "control.slow",
    ),
    "0003 auth_rls_initplan, on writing": Rule(
        f"select relation || '.' || polname from ({_POLICIES}) p"
        f" where uses || ' ' || checks ~ '{_PER_ROW}'",
        (
            *PROTECTED,
            (
                "create policy slow on public.control for insert"
                " with check (current_setting('request.jwt.claims') is not null)"
            ),
        ),
        "control.slow",
    ),
    "0006 multiple_permissive_policies": Rule(
        f"""
        select distinct a.relation || ' ' || command
        from ({_POLICIES}) a join ({_POLICIES}) b
            on b.relation = a.relation and b.polname > a.polname,
            unnest(array['r', 'a', 'w', 'd']) command
        where a.polpermissive and b.polpermissive
            and a.polcmd::text in (command, '*') and b.polcmd::text in (command, '*')
            and (a.polroles && b.polroles or 0 = any (a.polroles || b.polroles))
        """,
        (
            *PROTECTED,
            "create policy one on public.control for select using (false)",
            "create policy two on public.control to authenticated using (false)",
        ),
        "control r",
    ),
    "0007 policy_exists_rls_disabled": Rule(
        f"""
        select distinct relation::text from ({_POLICIES}) p
        join pg_class c on c.oid = relation where not c.relrowsecurity
        """,
        (TABLE, "create policy idle on public.control using (false)"),
        "control",
    ),
    "0011 function_search_path_mutable": Rule(
        """
        select oid::regprocedure::text from pg_proc
        where pronamespace in ('public'::regnamespace, 's3edge'::regnamespace) and not exists (
            select from unnest(proconfig) setting where setting like 'search\\_path=%%'
        )
        """,
        ("create function s3edge.control() returns int language sql as 'select 1'",),
        "s3edge.control()",
    ),
    "0013 rls_disabled_in_public": Rule(
        """
        select oid::regclass::text from pg_class
        where relnamespace in ('public'::regnamespace, 's3edge'::regnamespace)
            and relkind in ('r', 'p') and not relrowsecurity
        """,
        (TABLE,),
        "control",
    ),
    "0015 rls_references_user_metadata": Rule(
        f"select relation || '.' || polname from ({_POLICIES}) p"
        " where uses || checks ~ 'user_metadata'",
        (
            *PROTECTED,
            (
                "create policy gullible on public.control"
                " using ((select auth.jwt()) -> 'user_metadata' ->> 'admin' = 'true')"
            ),
        ),
        "control.gullible",
    ),
    "0024 rls_policy_always_true": Rule(
        f"""
        select relation || '.' || polname from ({_POLICIES}) p
        where polpermissive and polcmd <> 'r' and (
            regexp_replace(uses, '[()\\s]', '', 'g') in ('true', '1=1')
            or regexp_replace(checks, '[()\\s]', '', 'g') in ('true', '1=1')
        )
        """,
        (*PROTECTED, "create policy open on public.control for insert with check (true)"),
        "control.open",
    ),
    # These two are about functions in a schema that PostgREST exposes, which s3edge is not.
    "0028 anon_security_definer_function_executable": Rule(
        _DEFINERS_OF.format(role="anon"),
        (
            "create function public.control() returns int security definer language sql as 'select 1'",
        ),
        "control()",
    ),
    "0029 authenticated_security_definer_function_executable": Rule(
        _DEFINERS_OF.format(role="authenticated"),
        (
            (
                "create function public.control() returns int security definer language sql"
                " as 'select 1'"
            ),
            "revoke all on function public.control() from public, anon",
            "grant execute on function public.control() to authenticated",
        ),
        "control()",
    ),
}


def _found(project: Project, rule: Rule) -> set[str]:
    return {name for (name,) in project.rows(rule.question)}


@pytest.mark.parametrize("name", RULES)
def test_the_schema_keeps_the_rule(shared: Project, name: str) -> None:
    """Nothing breaks it; there are no exceptions."""
    assert _found(shared, RULES[name]) == set()


@pytest.mark.parametrize("name", RULES)
def test_the_rule_finds_a_violation(shared: Project, name: str) -> None:
    """The question is not one whose answer is always nothing."""
    rule = RULES[name]
    with shared.owner.transaction(force_rollback=True):
        for statement in rule.violation:
            shared.rows(statement)
        assert _found(shared, rule) == {rule.found}


def test_functions_behind_the_api_are_not_exposed(shared: Project) -> None:
    """PostgREST serves ``public``: whatever runs with its owner's rights is in another schema."""
    definers = shared.rows(
        "select distinct pronamespace::regnamespace::text from pg_proc where prosecdef"
        " and pronamespace in ('public'::regnamespace, 's3edge'::regnamespace)"
    )
    assert definers == [("s3edge",)]


def test_policies_are_for_signed_in_users(shared: Project) -> None:
    """None is written for everybody and left to find out that nobody has signed in."""
    roles = shared.rows(
        "select distinct roles::text[] from pg_policies where schemaname in ('public', 's3edge')"
    )
    assert roles == [(["authenticated"],)]


def test_policies_use_an_index(shared: Project) -> None:
    """The column that each policy compares with the user leads an index of its table."""
    missing = shared.rows("""
        select p.tablename from pg_policies p
        where schemaname = 'public' and not exists (
            select from pg_index i
            join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
            where i.indrelid = format('public.%%I', p.tablename)::regclass and i.indpred is null
                and p.qual = format('(( SELECT auth.uid() AS uid) = %%s)', a.attname)
        )
    """)
    assert missing == []


def test_foreign_keys_have_an_index(shared: Project) -> None:
    """Else deleting a row, or a user, reads whole tables (0001 unindexed_foreign_keys)."""
    missing = shared.rows("""
        select conrelid::regclass::text, conname from pg_constraint c
        where contype = 'f' and connamespace = 'public'::regnamespace and not exists (
            select from pg_index i where i.indrelid = c.conrelid and i.indkey[0] = c.conkey[1]
        )
    """)
    assert missing == []
