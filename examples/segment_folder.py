"""
Segments every image of a folder, several at a time; run it again to go on where it was ended.

Needs ``s3edge[client]`` and ``rich``, and ``S3EDGE_BASE_URL`` and ``S3EDGE_TOKEN`` in the environment::

    python segment_folder.py photos masks "the red car" --at-once 4

In the place of each mask that is not there yet stands a note of what was asked for. So whatever ends
this program, a power cut too, the next run asks for nothing that was paid for already. The folder of
masks remembers its prompt, and takes no other: each has a folder of its own. One run at a time
has it, where the system has locks of files (not on Windows).
"""

import argparse
import asyncio
import hashlib
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import msgspec
from attrs import evolve, frozen
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from s3edge.client import (
    AsyncClient,
    AsyncTask,
    AuthInvalid,
    AuthRequired,
    ConfigurationError,
    InsufficientCredits,
    NotFound,
    S3EdgeError,
    TaskFailed,
)


if sys.platform != "win32":
    import fcntl


SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".webp"})

HOPELESS = (AuthInvalid, AuthRequired, ConfigurationError, InsufficientCredits)
"""What every other image would meet as well."""


INTERRUPTED = 130
"""As shells say it of a program that was ended by Ctrl-C."""


@frozen
class Note:
    """
    What was asked for on behalf of one image.

    Attributes:
        prompt: What to segment.
        image_id: The image, once it is uploaded.
        task_id: The segmentation, once it is accepted.
    """

    prompt: str
    image_id: UUID | None = None
    task_id: UUID | None = None

    @property
    def key(self) -> str:
        """The idempotency key: the same in every run, so that a repeat is not charged."""
        return hashlib.sha256(f"{self.image_id} {self.prompt}".encode()).hexdigest()


def read_note(path: Path, prompt: str) -> Note:
    """Return the note of an earlier run, or an empty one; what another prompt asked for is not ours."""
    try:
        note = msgspec.json.decode(path.read_bytes(), type=Note)
    except (FileNotFoundError, msgspec.DecodeError):
        return Note(prompt)
    return note if note.prompt == prompt else Note(prompt, note.image_id)


@contextmanager
def claimed(masks: Path, prompt: str) -> Generator[None]:
    """
    Make a folder of masks, all of one prompt, and keep other runs from it.

    Raises:
        ValueError: It has those of another, is in use, or cannot be written; says so for people.
    """
    remembered = masks / "prompt.txt"
    try:
        masks.mkdir(parents=True, exist_ok=True)
        with remembered.open("a+b") as held:
            if sys.platform != "win32":
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held.seek(0)
            theirs = held.read().decode()
            if not theirs:
                held.write(prompt.encode())
                held.flush()
            elif theirs != prompt:
                message = f"{masks} has the masks of {theirs!r}; name another folder for {prompt!r}"
                raise ValueError(message)
            yield
    except BlockingIOError:
        message = f"{masks} is in use by another run; wait for its end"
        raise ValueError(message) from None
    except (OSError, UnicodeDecodeError) as error:
        message = f"{masks} cannot be used: {error}"
        raise ValueError(message) from error


def images_in(folder: Path) -> list[Path]:
    """
    Return the images of a folder.

    Raises:
        ValueError: It is none, or cannot be read; says so for people.
    """
    try:
        return sorted(
            path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
        )
    except OSError as error:
        message = f"{folder} is not a folder that can be read: {error.strerror}"
        raise ValueError(message) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there as a whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)


def note_of(mask: Path) -> Path:
    """Return where the note stands until there is a mask."""
    return mask.with_name(mask.name + ".note")


class UnknownHereError(Exception):
    """What a note names is not there for this user of this server."""


async def accepted(client: AsyncClient, image: Path, note_path: Path, prompt: str) -> AsyncTask:
    """Return the task of an image, uploading and asking only for what no run has asked for yet."""
    note = read_note(note_path, prompt)
    if note.task_id is not None:
        return client.task(note.task_id)
    if note.image_id is None:
        # Before anything is sent, so that a name that is too long costs nothing.
        write_whole(note_path, msgspec.json.encode(note))
        uploaded = await client.upload(image)
        note = evolve(note, image_id=uploaded.image_id)
        write_whole(note_path, msgspec.json.encode(note))
    assert note.image_id is not None  # noqa: S101 - for the type checker
    # Was this program ended right behind the next line, then the key finds the task that was paid for.
    task = await client.segment(note.image_id, prompt, idempotency_key=note.key)
    write_whole(note_path, msgspec.json.encode(evolve(note, task_id=task.id)))
    return task


async def segment(client: AsyncClient, image: Path, mask: Path, prompt: str) -> None:
    """Save the mask of one image."""
    note_path = note_of(mask)
    try:
        task = await accepted(client, image, note_path, prompt)
        result = await task.wait()
    except NotFound as error:
        # It may have been paid for elsewhere, so a person has to decide.
        message = f"{error}; {note_path} may be of another server or user: delete it to ask anew"
        raise UnknownHereError(message) from error
    except TaskFailed:
        # It was refunded; the next run may try again.
        note_path.unlink(missing_ok=True)
        raise
    write_whole(mask, await result.mask.read())
    note_path.unlink(missing_ok=True)


async def segment_all(todo: Mapping[Path, Path], prompt: str, at_once: int, done: int) -> list[str]:
    """
    Segment all images, so many at once; return a line on each that failed.

    Args:
        todo: Where the mask of each image goes.
        prompt: What to segment.
        at_once: How many images are under way at the most.
        done: How many more have their mask from earlier runs.

    Raises:
        S3EdgeError: What every image would meet; the rest was not tried.
    """
    failures: list[str] = []
    waiting = iter(todo.items())
    console = Console(stderr=True)
    columns = (TextColumn("segmenting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())

    async with AsyncClient() as client:
        with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
            bar = bars.add_task("segmenting", total=done + len(todo), completed=done)

            async def work() -> None:
                # All draw from one iterator, so there are never more images under way than workers.
                for image, mask in waiting:
                    try:
                        await segment(client, image, mask, prompt)
                    except HOPELESS:
                        raise
                    except (S3EdgeError, UnknownHereError, OSError) as error:
                        failures.append(f"{image.name}: {error}")
                    bars.advance(bar)

            workers = [asyncio.create_task(work()) for _ in range(at_once)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
    return failures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit status: 0 when every image has its mask."""
    parser = argparse.ArgumentParser(description="Segment every image of a folder.")
    parser.add_argument("images", type=Path, help="the folder of images")
    parser.add_argument("masks", type=Path, help="where the masks go")
    parser.add_argument("prompt", help="what to segment")
    parser.add_argument("--at-once", type=int, default=4, help="how many at once [4]")
    given = parser.parse_args(arguments)
    prompt = given.prompt.strip()
    if not prompt:
        parser.error("the prompt is empty")
    if not prompt.isprintable():
        parser.error("the prompt has characters that cannot be printed")
    if given.images.resolve() == given.masks.resolve():
        # Or the next run would segment masks.
        parser.error("name another folder for the masks than the images'")
    with ExitStack() as stack:
        try:
            images = images_in(given.images)
            stack.enter_context(claimed(given.masks, prompt))
        except ValueError as error:
            parser.error(str(error))
        return segmented(images, given.masks, prompt, max(1, given.at_once))


def segmented(images: Sequence[Path], folder: Path, prompt: str, at_once: int) -> int:
    """Segment images into a folder that is claimed, and say how it went; return the exit status."""
    masks = {image: folder / f"{image.name}.mask.png" for image in images}
    todo = {image: mask for image, mask in masks.items() if not mask.exists()}
    for mask in set(masks.values()) - set(todo.values()):
        note_of(mask).unlink(missing_ok=True)
    done = len(images) - len(todo)
    try:
        failures = asyncio.run(segment_all(todo, prompt, at_once, done))
    except S3EdgeError as error:
        print(f"stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; run it again to go on", file=sys.stderr)
        return INTERRUPTED
    for line in failures:
        print(line, file=sys.stderr)
    print(f"{len(images) - len(failures)} of {len(images)} images have a mask in {folder}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
