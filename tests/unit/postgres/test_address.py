"""The setting's URL: libpq's own, two parameters of ours, and no password in what is said of it."""

import pytest

from s3edge_postgres.address import parse_address


def test_our_parameters_are_taken_out() -> None:
    """What is ours is read and not passed on; what is libpq's is passed on as it stands."""
    address = parse_address(
        "postgresql://me:p%40ss@db.example:6543/app?pool_size=7&sslmode=require&pooler=transaction"
        "&options=-c%20search_path%3Dx"
    )
    assert (address.pool_size, address.is_pooled) == (7, True)
    said = {
        "user": "me",
        "password": "p@ss",
        "host": "db.example",
        "port": "6543",
        "dbname": "app",
        "sslmode": "require",
        "options": "-c search_path=x",
    }
    assert said.items() <= address.parameters.items()
    assert not {"pool_size", "pooler"} & address.parameters.keys()


def test_defaults_can_be_said_otherwise() -> None:
    """20 direct connections, and time-outs of ours; the URL wins."""
    address = parse_address("postgres://me@localhost/app")
    assert (address.pool_size, address.is_pooled) == (20, False)
    assert address.parameters["connect_timeout"] == 2
    assert address.parameters["application_name"] == "s3edge"
    said = parse_address("postgres://me@localhost/app?connect_timeout=9&application_name=mine")
    assert (said.parameters["connect_timeout"], said.parameters["application_name"]) == (
        "9",
        "mine",
    )


def test_several_hosts_can_be_named() -> None:
    """As libpq has it, for a pair of servers of which one is the primary."""
    address = parse_address(
        "postgresql://me@one:5432,two:5433/app?target_session_attrs=read-write&pool_size=3"
    )
    assert (address.parameters["host"], address.parameters["port"]) == ("one,two", "5432,5433")
    assert address.parameters["target_session_attrs"] == "read-write"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@localhost:port/app",
        "postgresql://me:s3@cret@localhost/app",
        "postgresql://me:s3cret%ZZ@localhost/app",
        "postgresql://me:s3/cret@localhost/app",
        "postgresql://me:s3cret@localhost/app?poolsize=3",
        "postgresql://me:s3cret@localhost/app?pool_size=0",
        "postgresql://me:s3cret@localhost/app?pool_size=1001",
        "postgresql://me:s3cret@localhost/app?pool_size=" + "9" * 5000,
        "postgresql://me:s3cret@localhost/app?pool_size=",
        "postgresql://me:s3cret@localhost/app?pooler=session",
        "postgresql://me:s3cret@localhost/app?pooler",
    ],
)
def test_a_malformed_url_is_refused(url: str) -> None:
    """In one line, which repeats nothing of it."""
    with pytest.raises(ValueError, match=r"write ") as raised:
        parse_address(url)
    assert "\n" not in str(raised.value)
    assert "cret" not in str(raised.value)
    assert raised.value.__suppress_context__ or raised.value.__context__ is None


def test_no_password_is_shown() -> None:
    """An address can be logged."""
    assert "s3cret" not in repr(parse_address("postgresql://me:s3cret@localhost/app"))
