"""A job as the ledger knows it."""

from dataclasses import dataclass

QUEUED, RUNNING, DONE, FAILED, REMOVED = "queued", "running", "done", "failed", "removed"
UNFINISHED = (QUEUED, RUNNING)


@dataclass(frozen=True)
class Job:
    """One row. Times are seconds since 1970."""

    id: str
    client: str
    request_id: str
    """Of the request that brought it."""
    state: str
    """Queued, running, done or failed; removed is one that clients no longer see, whose files are to be deleted."""
    created_s: float
    media_type: str
    file_name: str
    attempts: int = 0
    """How often it was started, shutdowns of the service apart."""
    started_s: float | None = None
    """Of the last attempt."""
    finished_s: float | None = None
    size: int | None = None
    """Bytes of the result of one that is done."""
    sha256: str | None = None
    error: str | None = None
    """Of one that failed: the problem, as JSON."""
