"""The issuer's keys are fetched when they are needed, and no more often."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from s3edge.errors import Code, EdgeError, unavailable
from s3edge_supabase.jwks import COOLDOWN_S, FETCH_TIMEOUT_S, LIFETIME_S, RETRY_S, JwksCache


pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def anyio_backend(jumping_loop: tuple[str, dict[str, Any]]) -> tuple[str, dict[str, Any]]:
    """Let time pass at once."""
    return jumping_loop


class Issuer:
    """Publishes the keys that a test gives it, or fails as a test says."""

    def __init__(self, *kids: str) -> None:
        self.fetches = 0
        self.error: Exception | None = None
        self.hold: Callable[[], Awaitable[None]] | None = None
        self.publish(*kids)

    def publish(self, *kids: str) -> None:
        """Publish a key of each name."""
        self.document = msgspec.json.encode({"keys": [public_jwk(kid) for kid in kids]})

    async def fetch(self) -> bytes:
        """Count the fetch, and answer."""
        self.fetches += 1
        if self.hold is not None:
            await self.hold()
        if self.error is not None:
            raise self.error
        return self.document


def public_jwk(kid: str) -> dict[str, Any]:
    """Return a new public key."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return {**ECAlgorithm.to_jwk(key, as_dict=True), "kid": kid, "alg": "ES256", "use": "sig"}


async def test_keys_are_fetched_once_for_many() -> None:
    """A hundred tokens at once cause one fetch."""
    issuer = Issuer("a")
    issuer.hold = lambda: anyio.sleep(1)
    cache = JwksCache(issuer.fetch)
    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(cache.key, "a")
    assert issuer.fetches == 1


async def test_keys_are_fetched_again_after_their_lifetime() -> None:
    """A key that was withdrawn is not known for longer than that."""
    issuer = Issuer("old")
    cache = JwksCache(issuer.fetch)
    assert await cache.key("old") is not None
    issuer.publish("new")
    await anyio.sleep(LIFETIME_S - 1)
    assert await cache.key("old") is not None
    await anyio.sleep(2)
    assert await cache.key("old") is None
    assert await cache.key("new") is not None


async def test_a_rotation_is_noticed_at_once() -> None:
    """An unknown key id is looked up, but made-up ones cost one fetch in 30 seconds."""
    issuer = Issuer("old")
    cache = JwksCache(issuer.fetch)
    await cache.key("old")
    issuer.publish("old", "new")
    assert await cache.key("new") is not None
    assert issuer.fetches == 2
    for number in range(100):
        assert await cache.key(f"made-up-{number}") is None
    assert issuer.fetches == 2
    await anyio.sleep(COOLDOWN_S)
    assert await cache.key("made-up") is None
    assert issuer.fetches == 3


@pytest.mark.parametrize(
    "error",
    [unavailable("down"), OSError("refused"), TimeoutError(), ValueError("garbage")],
    ids=lambda error: type(error).__name__,
)
async def test_known_keys_are_used_while_the_issuer_is_down(error: Exception) -> None:
    """An outage does not sign anybody out, however long it takes."""
    issuer = Issuer("a")
    cache = JwksCache(issuer.fetch)
    await cache.key("a")
    issuer.error = error
    for _ in range(5):
        await anyio.sleep(LIFETIME_S + 1)
        assert await cache.key("a") is not None


async def test_an_outage_from_the_start_is_not_a_bad_token() -> None:
    """Without any key the answer is 503, and the next try, a second later, mends it."""
    issuer = Issuer("a")
    issuer.error = OSError("refused")
    cache = JwksCache(issuer.fetch)
    for _ in range(2):
        with pytest.raises(EdgeError) as caught:
            await cache.key("a")
        assert (caught.value.code, caught.value.retryable) == (Code.SERVICE_UNAVAILABLE, True)
    assert issuer.fetches == 1
    issuer.error = None
    await anyio.sleep(RETRY_S)
    assert await cache.key("a") is not None


async def test_an_issuer_that_hangs_is_given_up() -> None:
    """A request waits a few seconds, not for ever."""
    issuer = Issuer("a")
    issuer.hold = anyio.sleep_forever
    began = anyio.current_time()
    with pytest.raises(EdgeError):
        await JwksCache(issuer.fetch).key("a")
    assert anyio.current_time() - began == pytest.approx(FETCH_TIMEOUT_S)


async def test_requests_that_waited_for_a_failure_share_it() -> None:
    """An issuer that hangs holds a hundred requests no longer than one."""
    issuer = Issuer("a")
    issuer.hold = anyio.sleep_forever
    cache = JwksCache(issuer.fetch)
    began = anyio.current_time()

    async def ask() -> None:
        with pytest.raises(EdgeError):
            await cache.key("a")

    async with anyio.create_task_group() as group:
        for _ in range(100):
            group.start_soon(ask)
    assert anyio.current_time() - began == pytest.approx(FETCH_TIMEOUT_S)
    assert issuer.fetches == 1


async def test_a_rotation_during_an_outage_is_noticed_when_that_is_over() -> None:
    """A look-up that failed does not count against the next."""
    issuer = Issuer("old")
    cache = JwksCache(issuer.fetch)
    await cache.key("old")
    issuer.publish("old", "new")
    issuer.error = OSError("refused")
    assert await cache.key("new") is None
    issuer.error = None
    await anyio.sleep(RETRY_S)
    assert await cache.key("new") is not None


async def test_a_check_leaves_the_look_up_to_tokens() -> None:
    """However often somebody asks for readiness, the next rotation is noticed at once."""
    issuer = Issuer("a", "b")
    cache = JwksCache(issuer.fetch)
    for _ in range(3):
        await cache.check()
    assert issuer.fetches == 1
    issuer.publish("c")
    assert await cache.key("c") is not None


async def test_an_empty_set_is_told_apart_from_an_unknown_key() -> None:
    """A project that still signs with a shared secret publishes no keys: that is no user's fault."""
    with pytest.raises(EdgeError, match="publishes no keys") as caught:
        await JwksCache(Issuer().fetch).key("a")
    assert caught.value.code is Code.SERVICE_UNAVAILABLE


async def test_an_empty_set_is_looked_at_again_soon() -> None:
    """It may be a passing fault, and until it is over nobody can sign in."""
    issuer = Issuer()
    cache = JwksCache(issuer.fetch)
    with pytest.raises(EdgeError):
        await cache.key("a")
    issuer.publish("a")
    await anyio.sleep(RETRY_S)
    assert await cache.key("a") is not None


@pytest.mark.parametrize(
    "document", [b"", b"[]", b'{"keys": 1}', b"<html>", b'{"keys": {}}', b"[" * 100_000]
)
async def test_what_is_no_key_set_changes_nothing(document: bytes) -> None:
    """Keys that are known stay, whatever is answered instead of a set."""
    issuer = Issuer("a")
    cache = JwksCache(issuer.fetch)
    await cache.key("a")
    issuer.document = document
    await anyio.sleep(LIFETIME_S + 1)
    assert await cache.key("a") is not None


async def test_odd_keys_in_a_set_are_left_out() -> None:
    """A shared secret, an unknown type and garbage do not keep the good key from being used."""
    good = public_jwk("good")
    secret = {"kty": "oct", "kid": "secret", "k": "c2VjcmV0", "alg": "HS256"}
    issuer = Issuer()
    odd = [{"kty": "XX"}, {**good, "kid": "odd", "alg": ["ES256"]}, {**good, "x": 5}, 5]
    issuer.document = msgspec.json.encode({"keys": [secret, *odd, good]})
    cache = JwksCache(issuer.fetch)
    assert await cache.key("good") is not None
    assert await cache.key("secret") is None


async def test_a_token_without_a_key_id_needs_a_single_key() -> None:
    """With one key it is that one; with two nobody can tell."""
    assert await JwksCache(Issuer("a").fetch).key(None) is not None
    assert await JwksCache(Issuer("a", "b").fetch).key(None) is None


async def test_old_keys_serve_without_waiting_for_a_silent_issuer() -> None:
    """One request in ten seconds waits for the fetch; the others do not."""
    issuer = Issuer("a")
    cache = JwksCache(issuer.fetch)
    await cache.key("a")
    await anyio.sleep(LIFETIME_S + 1)
    issuer.hold = anyio.sleep_forever
    began = anyio.current_time()
    for _ in range(100):
        assert await cache.key("a") is not None
    assert anyio.current_time() - began == pytest.approx(FETCH_TIMEOUT_S)
    assert issuer.fetches == 2
