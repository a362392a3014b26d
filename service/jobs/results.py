"""Where results are kept: beside the jobs, or in an object store."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from service.disk import sync_folder

PIECE = 1 << 20
"""Bytes read at once."""


class ResultStore(Protocol):
    """Results by the ids of their jobs. For worker threads."""

    def put(self, id: str, file: Path) -> None:
        """Take a whole file over, which is then no longer where it was; it appears whole or not at all."""
        ...

    def read(self, id: str, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from `start` to before `stop`, in pieces. FileNotFoundError where there is no such result."""
        ...

    def delete(self, id: str) -> None:
        """Delete a result, if it is there."""
        ...


class FolderResults:
    """Results as files of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def put(self, id: str, file: Path) -> None:
        """See ResultStore. The file is on the same disk, and synced."""
        file.rename(self._folder / id)
        sync_folder(self._folder)

    def read(self, id: str, start: int, stop: int) -> Iterator[bytes]:
        """See ResultStore."""
        with (self._folder / id).open("rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(PIECE, stop - start))):
                start += len(piece)
                yield piece

    def delete(self, id: str) -> None:
        """See ResultStore."""
        with suppress(FileNotFoundError):
            (self._folder / id).unlink()
