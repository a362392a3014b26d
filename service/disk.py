"""The disk: what is on it for good, and what is said when it is full."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path

from models.errors import StorageFull

RETRY_AFTER_S = 60.0
"""Results expire by the hour, and people clear disks by hand: sooner it would hardly be worth asking again."""


def storage_full() -> StorageFull:
    """The refusal that a full disk calls for."""
    return StorageFull(
        "the service's disk is full; wanted room for what was sent and what is made of it; try again later",
        retry_after_s=RETRY_AFTER_S,
    )


@contextmanager
def refusing_full_disk() -> Iterator[None]:
    """A write within that finds the disk, or the quota on it, full raises StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT):
            raise
        raise storage_full() from error


def sync_folder(folder: Path) -> None:
    """Return when the names in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
