"""``client.with_raw_response``: the same calls, with what HTTP said around the answer."""

from uuid import UUID

from s3edge.client import flows
from s3edge.client.flows import as_id
from s3edge.client.models import Account, Health, Page, RawResponse, TaskState, UploadedImage
from s3edge.client.multipart import Progress
from s3edge.client.paging import PAGE_SIZE
from s3edge.client.sources import ImageSource
from s3edge.client.sync_handles import (
    Calls,
    ListedResult,
    Result,
    Task,
    listed_of,
    result_of,
    task_of,
)


class RawClient:
    """
    The calls of ``Client``, each returning a ``RawResponse``.

    Args:
        calls: Makes the calls.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def upload(
        self,
        source: ImageSource,
        *,
        project_id: UUID | str | None = None,
        on_progress: Progress | None = None,
        idempotency_key: str | None = None,
    ) -> RawResponse[UploadedImage]:
        """Upload an image; as ``Client.upload``."""
        return self._calls.run(
            flows.upload(
                self._calls.session,
                source,
                project_id=project_id,
                on_progress=on_progress,
                idempotency_key=idempotency_key,
            )
        )

    def segment(
        self,
        image: UploadedImage | UUID | str,
        text_prompt: str,
        *,
        project_id: UUID | str | None = None,
        idempotency_key: str | None = None,
    ) -> RawResponse[Task]:
        """Ask for a segmentation; as ``Client.segment``."""
        response = self._calls.run(
            flows.segment(
                self._calls.session,
                image,
                text_prompt,
                project_id=project_id,
                idempotency_key=idempotency_key,
            )
        )
        return response.with_parsed(lambda _: task_of(response, self._calls))

    def task(self, task_id: UUID | str) -> RawResponse[TaskState]:
        """Ask how a task stands; as ``Task.refresh``."""
        return self._calls.run(flows.read_task(self._calls.session, as_id(task_id)))

    def result(self, result_id: UUID | str) -> RawResponse[Result]:
        """Read one result; as ``Client.result``."""
        response = self._calls.run(flows.read_result(self._calls.session, as_id(result_id)))
        return response.with_parsed(lambda details: result_of(details, self._calls))

    def results(
        self,
        *,
        project_id: UUID | str | None = None,
        status: str | None = None,
        limit: int = PAGE_SIZE,
        cursor: str | None = None,
    ) -> RawResponse[Page[ListedResult]]:
        """
        Read one page of results.

        Args:
            project_id: Only those of a project.
            status: Only those in a status.
            limit: How many at the most; 1 to 100.
            cursor: The ``next_cursor`` of an earlier page.
        """
        response = self._calls.run(
            flows.list_results(
                self._calls.session,
                project_id=project_id,
                status=status,
                limit=limit,
                cursor=cursor,
            )
        )
        return response.with_parsed(
            lambda page: Page(
                [listed_of(summary, self._calls) for summary in page.results],
                page.total,
                page.next_cursor,
            )
        )

    def me(self) -> RawResponse[Account]:
        """Read the user's account; as ``Client.me``."""
        return self._calls.run(flows.me(self._calls.session))

    def health(self) -> RawResponse[Health]:
        """Ask whether the server is up; as ``Client.health``."""
        return self._calls.run(flows.health(self._calls.session))
