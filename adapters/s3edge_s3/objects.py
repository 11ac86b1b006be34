"""Single objects by signed requests: what is there, and away with it."""

from http import HTTPStatus

from s3edge_s3.answers import ObjectHead, is_absence, object_head
from s3edge_s3.faults import Faults
from s3edge_s3.requests import BucketRequests


class BucketObjects:
    """
    Looks at objects and removes them.

    Args:
        requests: To the bucket.
        faults: Makes the errors.
    """

    def __init__(self, requests: BucketRequests, faults: Faults) -> None:
        self._requests = requests
        self._faults = faults

    async def head(self, key: str, *, budget_s: float | None = None) -> ObjectHead | None:
        """
        Return what is known of an object, ``None`` when there is none.

        Raises:
            NoAnswerError: As ``BucketRequests.send``.
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        answer = await self._requests.send("HEAD", key, budget_s=budget_s)
        # Without a body, a missing bucket looks the same; ``check`` tells them apart.
        if answer.status == HTTPStatus.NOT_FOUND:
            return None
        if answer.status != HTTPStatus.OK:
            raise self._faults.refusal(answer)
        found = object_head(answer.headers)
        if found is None:
            raise self._faults.nonsense("the storage's answer to HEAD is not S3's")
        return found

    async def delete(self, key: str) -> None:
        """
        Remove an object, if there is one.

        Raises:
            NoAnswerError: As ``BucketRequests.send``.
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        answer = await self._requests.send("DELETE", key)
        if answer.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.OK) and not is_absence(answer):
            raise self._faults.refusal(answer)

    async def delete_marked(self, key: str, mark: str) -> bool:
        """
        Remove an object if the put of this mark made it, and say so; another's may stand there.

        Raises:
            NoAnswerError: As ``BucketRequests.send``.
            EdgeError: ``SERVICE_UNAVAILABLE``.
        """
        found = await self.head(key)
        if found is None or found.mark != mark:
            return False
        await self.delete(key)
        return True
