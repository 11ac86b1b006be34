"""How suites say that a port must refuse."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from s3edge.errors import Code, EdgeError


@contextmanager
def refused(code: Code) -> Iterator[None]:
    """Fail unless the block raises an ``EdgeError`` with this code."""
    with pytest.raises(EdgeError) as caught:
        yield
    assert caught.value.code is code
