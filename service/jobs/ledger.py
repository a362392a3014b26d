"""The ledger: every job and its state, in SQLite, on disk before a call returns."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, fields
from pathlib import Path
from threading import RLock
from typing import Any

from models.errors import Busy, TooMany
from service.disk import storage_full
from service.jobs.record import DONE, FAILED, QUEUED, REMOVED, RUNNING, UNFINISHED, Job

RETRY_AFTER_S = 30.0

COLUMNS = ", ".join(field.name for field in fields(Job))
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
  id TEXT PRIMARY KEY,
  client TEXT NOT NULL,
  request_id TEXT NOT NULL,
  state TEXT NOT NULL,
  created_s REAL NOT NULL,
  media_type TEXT NOT NULL,
  file_name TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  started_s REAL,
  finished_s REAL,
  size INTEGER,
  sha256 TEXT,
  error TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, created_s);
CREATE INDEX IF NOT EXISTS jobs_by_client ON jobs (client, created_s);
"""
FAIR_ORDER = """
SELECT id FROM (
  SELECT id, created_s,
    ROW_NUMBER() OVER (PARTITION BY client ORDER BY created_s) AS turn,
    (SELECT MAX(started_s) FROM jobs AS others WHERE others.client = jobs.client) AS served_s
  FROM jobs WHERE state = 'queued'
) ORDER BY turn, served_s, created_s
"""
"""Every client's first, then every client's second …; in a round, who was served longest ago comes first."""


class TooManyJobs(TooMany):
    """A client has as many unfinished jobs as one may have: 429."""

    code = "too_many_jobs"


class StorageBusy(Busy):
    """Another process holds the ledger: 503."""

    code = "storage_busy"


class Ledger:
    """Jobs by id, safe to call from several threads.

    Every call raises StorageBusy when another process keeps the file locked for `busy_timeout_s`, and StorageFull when
    the disk is full; then nothing was changed.
    """

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._lock = RLock()
        with _refusing():
            self._database = sqlite3.connect(
                path, timeout=busy_timeout_s, isolation_level=None, check_same_thread=False
            )
            try:
                self._database.execute("PRAGMA journal_mode = WAL")
                self._database.execute("PRAGMA synchronous = FULL")
                self._database.executescript(SCHEMA)
            except sqlite3.Error:
                self._database.close()
                raise

    def close(self) -> None:
        """Let the file go."""
        with self._lock:
            self._database.close()

    def check(self, client: str, *, per_client: int, queue: int) -> None:
        """Raise TooManyJobs or Busy when `add` would."""
        unfinished = [owner for (owner,) in self._read(f"SELECT client FROM jobs WHERE state IN {UNFINISHED}")]
        if (own := unfinished.count(client)) >= per_client:
            raise TooManyJobs(
                f"{own} of your jobs are unfinished; the limit is {per_client}: wait for one, or remove one",
                retry_after_s=RETRY_AFTER_S,
            )
        if len(unfinished) >= queue:
            raise Busy(
                f"{len(unfinished)} jobs are unfinished; the limit is {queue}: try again later",
                retry_after_s=RETRY_AFTER_S,
            )

    def add(self, job: Job, *, per_client: int, queue: int) -> None:
        """Accept a job. TooManyJobs when its client has `per_client` unfinished ones, Busy when there are `queue`."""
        with self._writing():
            self.check(job.client, per_client=per_client, queue=queue)
            values = astuple(job)
            self._database.execute(f"INSERT INTO jobs ({COLUMNS}) VALUES ({', '.join('?' * len(values))})", values)

    def job(self, id: str) -> Job | None:
        """A job in any state, or None."""
        return next(self._jobs("id = ?", id), None)

    def jobs_of(self, client: str) -> list[Job]:
        """What a client sees, newest first."""
        return list(self._jobs("client = ? AND state != ? ORDER BY created_s DESC", client, REMOVED))

    def running(self) -> list[Job]:
        """Jobs that are being made; after a restart those that were."""
        return list(self._jobs("state = ?", RUNNING))

    def finished(self) -> list[Job]:
        """Jobs that are done or failed, in the order in which they finished."""
        return list(self._jobs("state IN (?, ?) ORDER BY finished_s", DONE, FAILED))

    def counts(self) -> dict[str, float]:
        """Jobs by state."""
        return dict(self._read("SELECT state, COUNT(*) FROM jobs GROUP BY state"))

    def removed(self) -> list[Job]:
        """Jobs whose files are to be deleted."""
        return list(self._jobs("state = ?", REMOVED))

    def queue(self) -> list[str]:
        """Ids of the jobs that wait, in the order in which they will be made."""
        return [id for (id,) in self._read(FAIR_ORDER)]

    def start(self, id: str) -> bool:
        """Queued → running, which is an attempt. False when it no longer waits."""
        return self._change(id, QUEUED, "state = ?, attempts = attempts + 1, started_s = ?", RUNNING, time.time())

    def retry(self, id: str) -> bool:
        """Running → queued."""
        return self._change(id, RUNNING, "state = ?, started_s = NULL", QUEUED)

    def hand_back(self, id: str) -> bool:
        """Running → queued, as if it had not been started."""
        return self._change(id, RUNNING, "state = ?, started_s = NULL, attempts = attempts - 1", QUEUED)

    def finish(self, id: str, size: int, sha256: str) -> bool:
        """Running → done. False when it was removed meanwhile."""
        return self._change(
            id, RUNNING, "state = ?, finished_s = ?, size = ?, sha256 = ?", DONE, time.time(), size, sha256
        )

    def fail(self, id: str, error: str) -> bool:
        """Running → failed, with the problem as JSON. False when it was removed meanwhile."""
        return self._change(id, RUNNING, "state = ?, finished_s = ?, error = ?", FAILED, time.time(), error)

    def remove(self, id: str) -> None:
        """Hide a job, whatever its state; `forget` it once its files are deleted."""
        with self._writing():
            self._database.execute("UPDATE jobs SET state = ? WHERE id = ?", (REMOVED, id))

    def forget(self, id: str) -> None:
        """Delete the row of a removed job."""
        with self._writing():
            self._database.execute("DELETE FROM jobs WHERE id = ? AND state = ?", (id, REMOVED))

    def _change(self, id: str, state: str, assignments: str, *values: object) -> bool:
        with self._writing():
            sql = f"UPDATE jobs SET {assignments} WHERE id = ? AND state = ?"
            return self._database.execute(sql, (*values, id, state)).rowcount == 1

    def _jobs(self, where: str, *values: object) -> Iterator[Job]:
        return (Job(*row) for row in self._read(f"SELECT {COLUMNS} FROM jobs WHERE {where}", *values))

    def _read(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, _refusing():
            return self._database.execute(sql, values).fetchall()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self._lock, _refusing():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise


@contextmanager
def _refusing() -> Iterator[None]:
    """What SQLite says of a lock and of a full disk, in our words."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StorageBusy(
                "another process keeps the jobs locked; wanted them free: try again in a moment", retry_after_s=5
            ) from error
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_FULL:
            raise storage_full() from error
        raise
