"""
Keys and tokens: the JWKS, API keys, who a request comes from, and what is refused.

After "Facts": the lines of the wire facts, sections 1 and 2 (JWT errors), that a test holds it to. Each
test that changes keys has a project of its own.
"""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import jwt
import psycopg
import pytest

from s3edge.testing.standins.postgres import Database
from s3edge.testing.standins.supabase import SupabaseProcess


JWKS = "/auth/v1/.well-known/jwks.json"
WHOAMI = "/rest/v1/rpc/whoami"
ALWAYS = {"iss", "aud", "exp", "iat", "sub", "role", "aal", "session_id", "email", "phone"}
BROWSER = "Mozilla/5.0 (X11; Linux x86_64)"


@pytest.fixture
def own(tmp_path: Path, database: Database) -> Iterator[SupabaseProcess]:
    """Return a project whose keys nobody else uses."""
    with SupabaseProcess(tmp_path, database) as process:
        yield process


def get(url: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
    """Get something over a connection of its own."""
    # There is no TLS here, and loading certificates takes longer than the request.
    return httpx.get(url, headers=headers, timeout=30, verify=False)


def ask(
    supabase: SupabaseProcess, headers: Mapping[str, str], path: str = WHOAMI
) -> httpx.Response:
    """Ask the database who asks."""
    return get(f"{supabase.url}{path}", headers)


def ask_with(supabase: SupabaseProcess, token: str) -> httpx.Response:
    """Ask with the publishable key and a token."""
    return ask(supabase, {"apikey": supabase.anon_key, "Authorization": f"Bearer {token}".strip()})


def published(supabase: SupabaseProcess) -> dict[str, str]:
    """Return the algorithms of the published keys by their ids."""
    keys = get(supabase.url + JWKS).json()["keys"]
    return {key["kid"]: key["alg"] for key in keys}


def kid_of(token: str) -> str | None:
    """Return the id of the key that signed a token."""
    kid: str | None = jwt.get_unverified_header(token).get("kid")
    return kid


def test_the_public_keys_are_published(supabase: SupabaseProcess) -> None:
    """Facts: JWKS: public, 200, max-age=600, kid, alg, kty, use, key_ops; nothing private."""
    answer = get(supabase.url + JWKS)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "public, max-age=600"
    assert "Date" in answer.headers
    keys = answer.json()["keys"]
    assert [(key["kty"], key["alg"]) for key in keys] == [("EC", "ES256"), ("RSA", "RS256")]
    for key in keys:
        assert (key["use"], key["key_ops"]) == ("sig", ["verify"])
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & key.keys()


@pytest.mark.parametrize("key", ["in_use", "standby"])
def test_a_token_is_what_supabase_auth_issues(supabase: SupabaseProcess, key: str) -> None:
    """Facts: header alg, kid, typ; the claims that are always present; iss, aud and sub."""
    user_id = uuid4()
    token = supabase.sign(user_id, claims={"app_metadata": {"tier": "pro"}}, key=key)
    client = jwt.PyJWKClient(supabase.url + JWKS)
    signer = client.get_signing_key_from_jwt(token)
    claims = jwt.decode(
        token,
        signer,
        algorithms=["ES256", "RS256"],
        audience="authenticated",
        issuer=f"{supabase.url}/auth/v1",
    )
    assert claims.keys() >= ALWAYS
    assert (claims["sub"], claims["role"]) == (str(user_id), "authenticated")
    assert (claims["is_anonymous"], claims["app_metadata"]) == (False, {"tier": "pro"})
    assert jwt.get_unverified_header(token)["typ"] == "JWT"
    assert ask_with(supabase, token).json()["uid"] == str(user_id)


def test_keys_rotate_and_are_revoked(own: SupabaseProcess) -> None:
    """Facts: standby, in use, previously used (still trusted, still in JWKS), revoked."""
    first, standby = own.sign(), own.sign(key="standby")
    own.rotate()
    second = own.sign()
    assert kid_of(second) == kid_of(standby) != kid_of(first)
    assert kid_of(own.sign(key="previously_used")) == kid_of(first)
    assert len(published(own)) == 3
    assert [ask_with(own, token).status_code for token in (first, second)] == [200, 200]
    own.revoke()
    assert kid_of(first) not in published(own)
    refused = ask_with(own, first)
    assert (refused.status_code, refused.json()["code"]) == (401, "PGRST301")
    assert refused.json()["details"] == "No suitable key was found to decode the JWT"
    assert ask_with(own, second).status_code == 200
    assert kid_of(own.sign(key="revoked")) == kid_of(first)


def test_a_project_on_the_shared_secret_publishes_nothing(own: SupabaseProcess) -> None:
    """Facts: a project still on HS256 returns 200 {"keys":[]}; its tokens may have no kid."""
    asymmetric = own.sign()
    own.set_legacy(signs=True)
    assert get(own.url + JWKS).json() == {"keys": []}
    token = own.sign()
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "typ": "JWT"}
    jwt.decode(token, own.jwt_secret, algorithms=["HS256"], audience="authenticated")
    assert ask_with(own, token).status_code == 200
    assert ask_with(own, asymmetric).status_code == 401
    own.set_legacy(signs=False, revoked=True)
    assert ask_with(own, token).status_code == 401
    assert ask_with(own, asymmetric).status_code == 200
    assert ask(own, {"apikey": own.legacy_anon_key}).json()["message"] == "Invalid API key"


def test_keys_and_address_outlive_the_process(own: SupabaseProcess) -> None:
    """A project that is down for a while is the same one afterwards; its log holds no secret."""
    token = own.sign()
    own.rotate()
    before = (own.url, own.anon_key, own.service_key, own.legacy_anon_key, published(own))
    pid = own.pid
    own.stop()
    with pytest.raises(httpx.ConnectError):
        published(own)
    with pytest.raises(RuntimeError, match="does not run"):
        _ = own.pid
    own.start()
    assert own.pid != pid
    assert (own.url, own.anon_key, own.service_key, own.legacy_anon_key, published(own)) == before
    assert ask_with(own, token).status_code == 200
    own.stop()
    shown = own.log.read_text() + repr(own)
    assert not any(secret in shown for secret in (token, own.service_key, own.jwt_secret))


@pytest.mark.parametrize(
    ("headers", "role"),
    [
        # [sb_publishable: anon; sb_secret: service_role; no Authorization header]
        ({"apikey": "{anon}"}, "anon"),
        ({"apikey": "{service}"}, "service_role"),
        ({"apikey": "{service}", "User-Agent": "python"}, "service_role"),
        # [Bearer sb_... only when equal to apikey]
        ({"apikey": "{anon}", "Authorization": "Bearer {anon}"}, "anon"),
        ({"apikey": "{service}", "Authorization": "Bearer {service}"}, "service_role"),
        # [A user JWT runs under that user's RLS even with a secret key in apikey]
        ({"apikey": "{anon}", "Authorization": "Bearer {user}"}, "authenticated"),
        ({"apikey": "{service}", "Authorization": "Bearer {user}"}, "authenticated"),
        ({"apikey": "{service}", "Authorization": "bearer  {user}"}, "authenticated"),
        ({"apikey": "{legacy_service}", "Authorization": "Bearer {user}"}, "authenticated"),
        # [Legacy JWT keys: send the same JWT in both]
        ({"apikey": "{legacy_anon}", "Authorization": "Bearer {legacy_anon}"}, "anon"),
        (
            {"apikey": "{legacy_service}", "Authorization": "Bearer {legacy_service}"},
            "service_role",
        ),
        ({"apikey": "{anon}", "Authorization": "Bearer {legacy_service}"}, "service_role"),
        ({"apikey": "{legacy_service}"}, "anon"),
        # Another scheme is no token.
        ({"apikey": "{anon}", "Authorization": "Basic {user}"}, "anon"),
    ],
)
def test_who_a_request_comes_from(
    supabase: SupabaseProcess, headers: Mapping[str, str], role: str
) -> None:
    """Facts: API keys."""
    answer = ask(supabase, _filled(supabase, headers))
    assert (answer.status_code, answer.json().get("role")) == (200, role), answer.text


def test_a_key_may_come_with_the_url(supabase: SupabaseProcess) -> None:
    """Facts: "No `apikey` request header or url param was found": the URL will do."""
    answer = ask(supabase, {}, f"{WHOAMI}?apikey={supabase.anon_key}")
    assert answer.json()["role"] == "anon"


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "No API key found in request"),
        ({"Authorization": "Bearer {user}"}, "No API key found in request"),
        ({"apikey": "sb_publishable_wrong"}, "Invalid API key"),
        ({"apikey": "{anon}x"}, "Invalid API key"),
        ({"apikey": "{user}"}, "Invalid API key"),  # a user JWT is never valid in apikey
        (
            {"apikey": "{service}", "User-Agent": BROWSER},
            "Forbidden use of secret API key in browser",
        ),
    ],
)
def test_the_gateway_refuses(
    supabase: SupabaseProcess, headers: Mapping[str, str], message: str
) -> None:
    """Facts: gateway errors have no ``code``; secret keys answer 401 to browsers."""
    answer = ask(supabase, _filled(supabase, headers))
    assert answer.status_code == 401
    assert answer.json().keys() == {"message", "hint"}
    assert answer.json()["message"] == message
    assert "Proxy-Status" not in answer.headers


def test_a_browser_may_use_the_publishable_key(supabase: SupabaseProcess) -> None:
    """Facts: only secret keys are refused to browsers."""
    answer = ask(supabase, {"apikey": supabase.anon_key, "User-Agent": BROWSER})
    assert answer.json()["role"] == "anon"


@pytest.mark.parametrize(
    ("token", "message", "details"),
    [
        ("", "Empty JWT is sent in Authorization header", None),
        ("{service}", "Expected 3 parts in JWT; got 1", None),  # Bearer sb_... is not apikey
        ("a.b", "Expected 3 parts in JWT; got 2", None),
        ("a.b.c.d", "Expected 3 parts in JWT; got 4", None),
        ("a.b.c", "JWT couldn't be decoded", None),
    ],
)
def test_what_is_no_token(
    supabase: SupabaseProcess, token: str, message: str, details: str | None
) -> None:
    """Facts: PGRST301 undecodable; Bearer sb_... is refused unless equal to apikey."""
    _assert_refused(
        ask_with(supabase, _filled(supabase, {"t": token})["t"]), "PGRST301", message, details
    )


@pytest.mark.parametrize(
    ("options", "message", "details"),
    [
        (
            {"key": "foreign"},
            "No suitable key or wrong key type",
            "None of the keys was able to decode the JWT",
        ),
        (
            {"header": {"kid": "unknown"}},
            "No suitable key or wrong key type",
            "No suitable key was found to decode the JWT",
        ),
        (
            {"header": {"alg": "none"}},
            "Wrong or unsupported encoding algorithm",
            "JWT is unsecured but expected 'alg' was not 'none'",
        ),
    ],
)
def test_a_token_that_proves_nothing(
    supabase: SupabaseProcess, options: Mapping[str, Any], message: str, details: str
) -> None:
    """Facts: PGRST301 messages."""
    _assert_refused(ask_with(supabase, supabase.sign(**options)), "PGRST301", message, details)


def test_a_token_that_was_changed(supabase: SupabaseProcess) -> None:
    """Facts: a signature that does not fit is a wrong key to PostgREST."""
    header, _, signature = supabase.sign().split(".")
    forged = ".".join([header, supabase.sign().split(".")[1], signature])
    _assert_refused(
        ask_with(supabase, forged),
        "PGRST301",
        "No suitable key or wrong key type",
        "None of the keys was able to decode the JWT",
    )


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": -40}, "JWT expired"),
        ({"nbf": 60}, "JWT not yet valid"),
        ({"iat": 60}, "JWT issued at future"),
        ({"aud": "others"}, "JWT not in audience"),
        ({"aud": ["others"]}, "JWT not in audience"),
        ({"aud": 1}, "The JWT 'aud' claim must be a string or an array of strings"),
        ({"exp": "soon"}, "The JWT 'exp' claim must be a number"),
    ],
)
def test_a_token_that_is_not_for_now_or_here(
    supabase: SupabaseProcess, claims: Mapping[str, Any], message: str
) -> None:
    """Facts: PGRST303 claims; "JWT expired" is PGRST303 since v13."""
    token = supabase.sign(claims=_in_time(claims))
    _assert_refused(ask_with(supabase, token), "PGRST303", message, None)


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": -20},
        {"nbf": 20},
        {"iat": 20},
        {"aud": ["others", "authenticated"]},
        {"aud": None},
        {"aud": []},
        {"exp": None},
        {"app_metadata": None, "user_metadata": None, "amr": None},
    ],
)
@pytest.mark.parametrize("header", [{}, {"kid": None}])
def test_a_token_that_is_good_enough(
    supabase: SupabaseProcess, claims: Mapping[str, Any], header: Mapping[str, Any]
) -> None:
    """Facts: PostgREST allows 30 s on exp/nbf/iat; aud may be a list; a hook may drop claims."""
    token = supabase.sign(claims=_in_time(claims), header=header)
    assert ask_with(supabase, token).status_code == 200


@pytest.mark.parametrize(
    ("role", "status", "code"),
    [
        (None, 200, None),  # the role of nobody
        ("nobody_here", 401, "22023"),
        ("postgres", 403, "42501"),  # exists, and the login may not become it
    ],
)
def test_the_role_of_a_token_decides(
    supabase: SupabaseProcess, role: str | None, status: int, code: str | None
) -> None:
    """Facts: 22023 "role … does not exist" is 401; a token without a role is anon's."""
    answer = ask_with(supabase, supabase.sign(claims={"role": role}))
    assert (answer.status_code, answer.json().get("code")) == (status, code)
    if status == 200:
        assert answer.json()["role"] == "anon"


def test_a_user_who_is_no_uuid(supabase: SupabaseProcess) -> None:
    """Facts: a non-UUID sub in ``auth.uid()``: 22P02."""
    answer = ask_with(supabase, supabase.sign("nobody"))
    assert (answer.status_code, answer.json()["code"]) == (400, "22P02")


def test_good_tokens_are_refused_for_a_while(supabase: SupabaseProcess) -> None:
    """Facts: known live fault: sporadic 401 PGRST303 "JWT issued at future", secret keys too."""
    supabase.refuse_as_issued_in_future(2)
    answers = [ask_with(supabase, supabase.sign()), ask(supabase, {"apikey": supabase.service_key})]
    for answer in answers:
        _assert_refused(answer, "PGRST303", "JWT issued at future", None)
    assert ask(supabase, {"apikey": supabase.service_key}).status_code == 200


def test_requests_are_counted(supabase: SupabaseProcess) -> None:
    """A test can see what was asked, how often."""
    supabase.forget_requests()
    published(supabase)
    for _ in range(2):
        ask(supabase, {"apikey": supabase.anon_key})
    ask(supabase, {}, "/rest/v1/items?select=id")
    assert supabase.requests() == {f"GET {JWKS}": 1, f"GET {WHOAMI}": 2, "GET /rest/v1/items": 1}
    supabase.forget_requests()
    assert supabase.requests() == {}


def test_who_signs_up_is_in_the_users_table(supabase: SupabaseProcess, database: Database) -> None:
    """Facts: raw_user_meta_data is the user's own, raw_app_meta_data the provider's."""
    user_id = UUID(int=7)
    assert supabase.sign_up(user_id, email="a@b", user_metadata={"name": "A"}) == user_id
    stranger = supabase.sign_up(is_anonymous=True, app_metadata={"tier": "pro"})
    with psycopg.connect(database.url("postgres")) as connection:
        found = connection.execute(
            "select id, email, is_anonymous, raw_app_meta_data, raw_user_meta_data, role"
            " from auth.users where id = any(%s) order by email",
            [[user_id, stranger]],
        ).fetchall()
    providers = {"provider": "email", "providers": ["email"]}
    assert found == [
        (user_id, "a@b", False, providers, {"name": "A"}, "authenticated"),
        (stranger, None, True, {"tier": "pro"}, {}, "authenticated"),
    ]
    with pytest.raises(RuntimeError, match="duplicate key"):
        supabase.sign_up(user_id)


def test_what_a_test_cannot_ask_for_is_said(supabase: SupabaseProcess) -> None:
    """A misspelt key or field would pass for a good one."""
    with pytest.raises(RuntimeError, match="no key that is"):
        supabase.sign(key="misspelt")
    answer = httpx.post(f"{supabase.url}/_control/tokens", json={"user": "x"})
    assert (answer.status_code, "user" in answer.text) == (400, True)


@pytest.mark.parametrize("path", ["/auth/v1/user", "/storage/v1/object/x", "/"])
def test_what_is_not_done_is_said(supabase: SupabaseProcess, path: str) -> None:
    """What the stand-in does not do is a 501 of its own, and never a guess."""
    answer = ask(supabase, {}, path)
    assert (answer.status_code, answer.json()["code"]) == (501, "STANDIN")


def test_a_process_that_cannot_start_says_why(tmp_path: Path, database: Database) -> None:
    """What it printed is in the error, and nothing is left behind."""
    (tmp_path / "supabase.json").write_text("nonsense")
    with pytest.raises(RuntimeError, match="DecodeError"), SupabaseProcess(tmp_path, database):
        pytest.fail("it cannot have started")


def test_it_runs_by_hand(database: Database) -> None:
    """One command serves a database, says where, and keeps nothing."""
    command = [sys.executable, "-m", "s3edge.testing.standins.supabase"]
    command += ["--database-url", database.url("authenticator")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = process.stderr.readline().strip().removeprefix("Serving at ")
        shown = get(f"{url}/_control/project").json()
        found = get(f"{url}{WHOAMI}", {"apikey": shown["secret_key"]}).json()
        process.terminate()
    assert (shown["url"], found["role"]) == (url, "service_role")
    assert url.startswith("http://127.0.0.1:")


def _filled(supabase: SupabaseProcess, headers: Mapping[str, str]) -> dict[str, str]:
    """Return headers with the keys that they name."""
    keys = {
        "anon": supabase.anon_key,
        "service": supabase.service_key,
        "legacy_anon": supabase.legacy_anon_key,
        "legacy_service": supabase.legacy_service_key,
        "user": supabase.sign(),
    }
    return {name: value.format(**keys) for name, value in headers.items()}


def _in_time(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Return claims whose numbers are seconds from now as times."""
    now_s = int(time.time())
    return {
        name: now_s + value if name in {"exp", "nbf", "iat"} and isinstance(value, int) else value
        for name, value in claims.items()
    }


def _assert_refused(answer: httpx.Response, code: str, message: str, details: str | None) -> None:
    assert answer.status_code == 401
    assert answer.json() == {"code": code, "details": details, "hint": None, "message": message}
    assert answer.headers["Proxy-Status"] == f"PostgREST; error={code}"
    challenge = f'Bearer error="invalid_token", error_description="{message}"'
    assert answer.headers["WWW-Authenticate"] == challenge
