"""What a model raises, as an error that whoever called it can catch."""

from concurrent.futures import CancelledError


def raisable(error: BaseException) -> Exception:
    """
    Return an error of a model's as one of the call's, with what it was as its cause.

    A future of asyncio refuses ``StopIteration``, and the caller would wait for ever. A cancellation
    would be taken for the caller's own, and an exit of a library's would end the process.
    """
    if isinstance(error, Exception) and not isinstance(error, StopIteration | CancelledError):
        return error
    raised = RuntimeError(f"the model raised {type(error).__name__}")
    raised.__cause__ = error
    return raised
