"""The worker: takes the jobs that wait, makes them where a slot is to spare, and outlives what goes wrong."""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from anyio import create_task_group, move_on_after, to_thread
from starlette.requests import ClientDisconnect
from starlette.types import Message

from models.errors import Busy, InputError, StorageFull
from service.jobs.desk import MAX_ATTEMPTS, Desk
from service.jobs.record import Job
from service.jobs.run import Made, Run, Stopped
from service.runtime import Runtime

log = logging.getLogger(__name__)

TICK_S = 0.1
RETRY_S = 1.0
SWEEP_S = 30.0


class Worker:
    """Makes the jobs of its desk, `jobs_concurrency` at once. Requests come first: a job begins when nobody waits."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.desk = Desk(runtime.settings)
        self._told = ""
        """Why the desk is not open, as the log has it."""

    async def open(self) -> None:
        """Try to open the desk. A folder that another process has, or a disk that is full, may be had later."""
        try:
            await to_thread.run_sync(self.desk.open)
        except (Busy, OSError, sqlite3.Error) as error:
            if str(error) != self._told:
                self._told = str(error)
                log.warning("jobs cannot be had yet: %s", self._told)
        except Exception as error:
            self._runtime.failure = error

    async def run(self) -> None:
        """Work until `stop`, as soon as the desk is open; then close it."""
        while not (self.desk.is_open or self._closing):
            await self._pause(RETRY_S)
            await self.open()
        try:
            async with create_task_group() as group:
                group.start_soon(self._sweep)
                for _ in range(self._runtime.settings.jobs_concurrency):
                    group.start_soon(self._take_jobs)
        finally:
            self.desk.close()

    def stop(self) -> None:
        """Begin nothing any more; what is being made stops at the next frame, and is queued again, not counted."""
        self.desk.closing.set()
        self.desk.arrived.set()
        for run in self.desk.runs.values():
            run.stop()

    @property
    def _closing(self) -> bool:
        return self.desk.closing.is_set()

    async def _pause(self, seconds: float) -> None:
        with move_on_after(seconds):
            await self.desk.closing.wait()

    async def _sweep(self) -> None:
        while not self._closing:
            try:
                await to_thread.run_sync(self.desk.sweep)
            except Exception as error:
                log.warning("finished jobs are not swept: %s", error)
            await self._pause(min(SWEEP_S, self._runtime.settings.jobs_ttl_s))

    async def _take_jobs(self) -> None:
        while not self._closing:
            self.desk.arrived.clear()
            try:
                if (job := await to_thread.run_sync(self.desk.next)) is None:
                    await self.desk.arrived.wait()
                elif self._runtime.warm_engine is None or not self._runtime.slots.spare:
                    await self._pause(TICK_S)
                else:
                    await self._perform(job)
            except Exception:
                log.exception("the worker of jobs goes on after a failure")
                await self._pause(RETRY_S)

    async def _perform(self, job: Job) -> None:
        self.desk.runs[job.id] = run = Run()
        try:
            record = await self._attempt(job, run)
            await self._insist(record)
        finally:
            del self.desk.runs[job.id]
        with suppress(Busy):
            await to_thread.run_sync(self.desk.tidy, job.id)

    async def _attempt(self, job: Job, run: Run) -> Callable[[], object]:
        """Make the result and store it; returns what is to be written down about it."""
        try:
            async with self._runtime.slots.hold(job.client, self._stay):
                if not await to_thread.run_sync(self.desk.ledger.start, job.id):
                    return _nothing
                made = await to_thread.run_sync(self._make, job, run)
            await to_thread.run_sync(self.desk.store, job, made)
            return partial(self.desk.ledger.finish, job.id, made.size, made.sha256)
        except ClientDisconnect:
            return _nothing
        except Stopped:
            return partial(self.desk.ledger.hand_back, job.id)
        except Exception as error:
            if isinstance(error, Busy) and not isinstance(error, StorageFull) and job.attempts + 1 < MAX_ATTEMPTS:
                await self._pause(error.retry_after_s)
                return partial(self.desk.ledger.retry, job.id)
            if not isinstance(error, InputError | Busy):
                log.error("job %s of request %s failed", job.id, job.request_id, exc_info=error)
            return partial(self.desk.fail, job, error)

    def _make(self, job: Job, run: Run) -> Made:
        with self.desk.inbox.form(job.id) as form:
            runtime, draft = self._runtime, self.desk.draft(job.id)
            return run.make(runtime.engine, form, runtime.settings, runtime.decode, draft)

    async def _insist(self, record: Callable[[], object]) -> None:
        """Write down what became of a job, however long the ledger is locked; after a shutdown the next start tells."""
        while True:
            try:
                await to_thread.run_sync(record)
                return
            except Busy as error:
                log.warning("what became of a job cannot be written down yet: %s", error)
                await self._pause(RETRY_S)
                if self._closing:
                    return

    async def _stay(self) -> Message:
        """The channel of a client that waits for its slot until the service stops."""
        await self.desk.closing.wait()
        return {"type": "http.disconnect"}


def _nothing() -> None:
    """There is nothing to write down: the job was not begun."""
