"""Each code of the API is an exception of its own, and all of them travel."""

import pickle
from uuid import UUID

import pytest

from s3edge.client import (
    InvalidRequest,
    RateLimited,
    S3EdgeError,
    TaskFailed,
    WaitTimeout,
)
from s3edge.client.errors import ERROR_OF
from s3edge.errors import Code, Detail
from s3edge.testing.scripted_api import REQUEST_ID, ScriptedApi, ok, refused
from s3edge.web.statuses import STATUS_OF


TASK_ID = UUID("6b6f2c1e-2222-4222-8222-222222222222")


def test_every_code_has_a_class() -> None:
    """The classes are those of the API's codes, no more and no fewer."""
    assert set(ERROR_OF) == set(Code)
    assert all(issubclass(kind, S3EdgeError) for kind in ERROR_OF.values())


@pytest.mark.parametrize("code", Code)
def test_an_error_says_what_the_api_said(api: ScriptedApi, code: Code) -> None:
    """Class, code, status, message and request id."""
    api.answer(refused(STATUS_OF[code], code))
    with pytest.raises(ERROR_OF[code]) as raised:
        api.client(max_retries=0).me()
    error = raised.value
    assert (error.code, error.status, error.request_id) == (code, STATUS_OF[code], REQUEST_ID)
    assert error.message == f"Because of {code}."
    assert error.retryable is (STATUS_OF[code] in {429, 503})
    assert REQUEST_ID in str(error)


def test_an_unknown_code_is_the_base_class(api: ScriptedApi) -> None:
    """A newer server does not break an older client."""
    api.answer(refused(418, "TEAPOT"))
    with pytest.raises(S3EdgeError) as raised:
        api.client().me()
    assert (type(raised.value), raised.value.code) == (S3EdgeError, "TEAPOT")


def test_details_name_the_field(api: ScriptedApi) -> None:
    """What is wrong with which field."""
    details = [{"field": "text_prompt", "message": "too long"}]
    api.answer(refused(400, "INVALID_REQUEST", details=details))
    with pytest.raises(InvalidRequest) as raised:
        api.client().segment(TASK_ID, "x" * 501)
    assert raised.value.details == (Detail("text_prompt", "too long"),)


def test_errors_pickle(api: ScriptedApi) -> None:
    """Class and every attribute come back, those of tasks with their handles too."""
    headers = {"Retry-After": "9", "RateLimit-Policy": '"read";q=120;w=60'}
    api.answer(
        refused(429, "RATE_LIMITED", headers),
        ok({"task_id": str(TASK_ID), "status": "error", "error_code": "INFERENCE_FAILED"}),
        ok({"task_id": str(TASK_ID), "status": "pending"}),
    )
    client = api.client(timeout=5)
    with pytest.raises(RateLimited) as limited:
        client.segment(TASK_ID, "red")
    with pytest.raises(TaskFailed) as failed:
        client.task(TASK_ID).wait()
    with pytest.raises(WaitTimeout) as late:
        client.task(TASK_ID).wait(timeout=0)
    for error in (limited.value, failed.value, late.value):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)
    assert pickle.loads(pickle.dumps(failed.value)).task.status == "error"
