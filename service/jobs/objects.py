"""Results in an object store, by its URL; the extra `s3` installs what speaks to it. Nothing else imports this."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import from_url

from models.errors import SHOWN, Busy, TalkerError

RETRY_AFTER_S = 30.0
PIECE = 8 << 20
"""Bytes asked for at once: a request of its own for each, as one for all would time out on slow readers."""


class UnknownStore(TalkerError):
    """A URL that is no object store's."""

    code = "unknown_store"


class StoreUnreachable(Busy):
    """The object store does not answer, or refuses: 503."""

    code = "storage_unreachable"


class ObjectResults:
    """A ResultStore in a bucket (s3://, gs://, az://), a folder (file://) or memory (memory://).

    Credentials and regions come from the environment, under the names that each cloud's own tools use. UnknownStore for
    another URL; every call raises StoreUnreachable once obstore's own retries are used up.
    """

    def __init__(self, url: str) -> None:
        folder = {"mkdir": True} if url.startswith("file:") else {}
        try:
            self._store = from_url(url, **folder)  # type: ignore[call-overload]
        except (BaseError, ValueError) as error:
            raise UnknownStore(
                f"TALKER_JOBS_STORE = {url[:SHOWN]!r} ({str(error).splitlines()[0][:SHOWN]}); wanted a URL such as "
                "s3://bucket/prefix: correct it, or unset it"
            ) from error

    def put(self, id: str, file: Path) -> None:
        """See ResultStore. Large files go in parts, and appear with the last."""
        with _refusing_loss():
            obstore.put(self._store, id, file)
        file.unlink()

    def read(self, id: str, start: int, stop: int) -> Iterator[bytes]:
        """See ResultStore."""
        for first in range(start, stop, PIECE):
            with _refusing_loss():
                piece = obstore.get_range(self._store, id, start=first, end=min(first + PIECE, stop))
            yield bytes(piece)

    def delete(self, id: str) -> None:
        """See ResultStore."""
        with _refusing_loss(), suppress(FileNotFoundError):
            obstore.delete(self._store, id)


@contextmanager
def _refusing_loss() -> Iterator[None]:
    try:
        yield
    except BaseError as error:
        raise StoreUnreachable(
            f"the object store of results does not answer ({type(error).__name__}); wanted it there: try again later",
            retry_after_s=RETRY_AFTER_S,
        ) from error
