"""The desk: where jobs are handed in, asked for and taken back."""

import fcntl
import time
from asyncio import Event, Lock
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import BinaryIO

from models.errors import Busy, TalkerError, UnknownName
from service.disk import refusing_full_disk
from service.encoders import ENCODERS
from service.jobs.inbox import Inbox
from service.jobs.ledger import Ledger
from service.jobs.record import FAILED, QUEUED, REMOVED, UNFINISHED, Job
from service.jobs.results import FolderResults, ResultStore
from service.jobs.run import Made, Run
from service.problems import NotReady, Problem, make_problem, problem_of
from service.schemas import AnimateForm
from service.settings import Settings
from service.stream import file_name

DRAFTS = "drafts"
MAX_ATTEMPTS = 3
BUSY_TIMEOUT_S = 5.0
"""How long another process may keep the ledger locked before a call is refused."""
RETRY_AFTER_S = 2.0


@dataclass(frozen=True)
class _Storage:
    """What is open while the desk is."""

    ledger: Ledger
    inbox: Inbox
    results: ResultStore
    drafts: Path
    """Folder of the results that are being written."""


class Desk:
    """The jobs in a folder, which is this process's alone. `open` it first: until then all else raises NotReady.

    Everything but the events and the lock is for worker threads, as the disk may be slow.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._storage: _Storage | None = None
        self._held = ExitStack()
        self.runs: dict[str, Run] = {}
        """Of the jobs that are being made."""
        self.arrived = Event()
        """Set when there may be something to do."""
        self.closing = Event()
        """Set when the service is stopping: nothing is begun, nothing is waited for."""
        self.checking = Lock()
        """Held while a form is checked, which may register a head: without slots, one at a time is enough."""

    def counts(self) -> Mapping[str, float]:
        """Jobs by state; none while the desk is not open, or its ledger does not answer."""
        try:
            return self.ledger.counts() if self.is_open else {}
        except Busy:
            return {}

    def open(self) -> None:
        """Take the folder, and put right what a process that died left behind: docs/jobs.md.

        Raises NotReady while another process has it, OSError for a folder that cannot be used, what Ledger and
        ObjectResults raise.
        """
        folder = self._settings.jobs
        (folder / DRAFTS).mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            _lock(held.enter_context((folder / "lock").open("ab")), folder)
            results = self._open_results()
            ledger = held.enter_context(closing(Ledger(folder / "jobs.sqlite", BUSY_TIMEOUT_S)))
            storage = _Storage(ledger, Inbox(folder / "inbox"), results, folder / DRAFTS)
            _recover(storage)
            self._storage, self._held = storage, held.pop_all()

    def close(self) -> None:
        """Let the folder go."""
        self._storage = None
        self._held.close()

    @property
    def is_open(self) -> bool:
        """Whether all else can be asked."""
        return self._storage is not None

    @property
    def ledger(self) -> Ledger:
        """The states."""
        return self._opened_storage.ledger

    @property
    def inbox(self) -> Inbox:
        """The forms."""
        return self._opened_storage.inbox

    @property
    def results(self) -> ResultStore:
        """The results."""
        return self._opened_storage.results

    def draft(self, id: str) -> Path:
        """Where the result of a job is written before it is one."""
        return self._opened_storage.drafts / id

    def check(self, client: str) -> None:
        """Raise TooManyJobs or Busy when `accept` would."""
        self.ledger.check(client, per_client=self._settings.jobs_per_client, queue=self._settings.jobs_queue)

    def accept(self, form: AnimateForm, client: str, request_id: str) -> Job:
        """Take a job: it is on disk, whole, when this returns. TooManyJobs, Busy, StorageFull; then nothing stays."""
        encoder = ENCODERS[form.format]
        job = Job(
            id=token_hex(16),
            client=client,
            request_id=request_id,
            state=QUEUED,
            created_s=time.time(),
            media_type=encoder.media_type,
            file_name=file_name(form.audio.filename or "", encoder.extension),
        )
        self.inbox.store(job.id, form)
        try:
            self.ledger.add(job, per_client=self._settings.jobs_per_client, queue=self._settings.jobs_queue)
        except BaseException:
            self.inbox.delete(job.id)
            raise
        return job

    def look_up(self, id: str) -> Job | None:
        """A job of any client, or None for one that there is not, or no more."""
        job = self.ledger.job(id)
        return None if job is None or job.state == REMOVED or self._expired(job) else job

    def find(self, id: str, client: str) -> Job:
        """A job of a client; UnknownName for one that there is not, or that is another's."""
        job = self.look_up(id)
        if job is None or job.client != client:
            raise UnknownName("job", id, [own.id for own in self.jobs_of(client)], field="id")
        return job

    def jobs_of(self, client: str) -> list[Job]:
        """The jobs of a client, newest first."""
        return [job for job in self.ledger.jobs_of(client) if not self._expired(job)]

    def remove(self, job: Job) -> None:
        """Hide a job, stop it if it is being made, and delete what there is of it."""
        self.ledger.remove(job.id)
        if run := self.runs.get(job.id):
            run.stop()  # whoever makes it then clears it
        else:
            self._clear(job.id)

    def next(self) -> Job | None:
        """The job to make next, if one waits."""
        return next((self.ledger.job(id) for id in self.ledger.queue() if id not in self.runs), None)

    def store(self, job: Job, made: Made) -> None:
        """A draft becomes the result. Where results are over TALKER_JOBS_MAX_BYTES, the oldest finished jobs expire."""
        self._make_room(made.size)
        with refusing_full_disk():
            self.results.put(job.id, self.draft(job.id))

    def fail(self, job: Job, error: Exception) -> None:
        """The job has failed, and says why."""
        self.ledger.fail(job.id, problem_of(error, f"/jobs/{job.id}", job.request_id).model_dump_json())

    def tidy(self, id: str) -> None:
        """Delete what is no longer needed of a job whose run has ended."""
        job = self.ledger.job(id)
        if job is None or job.state == REMOVED:
            self._clear(id)
        else:
            self.draft(id).unlink(missing_ok=True)
            if job.state not in UNFINISHED:
                self.inbox.delete(id)
            if job.state == FAILED:  # an earlier attempt may have died between its result and the ledger
                self.results.delete(id)

    def sweep(self) -> None:
        """Remove the jobs whose time is over, and what could not be deleted before."""
        for job in filter(self._expired, self.ledger.finished()):
            self.ledger.remove(job.id)
        for job in self.ledger.removed():
            if job.id not in self.runs:
                self._clear(job.id)

    @property
    def _opened_storage(self) -> _Storage:
        if self._storage is None:
            raise NotReady("the jobs are not open yet; try again in a moment", retry_after_s=RETRY_AFTER_S)
        return self._storage

    def _open_results(self) -> ResultStore:
        if self._settings.jobs_store is None:
            return FolderResults(self._settings.jobs / "results")
        try:
            from service.jobs.objects import ObjectResults
        except ImportError as error:
            raise TalkerError(
                "TALKER_JOBS_STORE without the package that it needs; wanted obstore: pip install 'talker[s3]'"
            ) from error
        return ObjectResults(self._settings.jobs_store)

    def _expired(self, job: Job) -> bool:
        return job.finished_s is not None and job.finished_s + self._settings.jobs_ttl_s <= time.time()

    def _make_room(self, size: int) -> None:
        finished = self.ledger.finished()
        held = sum(job.size or 0 for job in finished)
        for job in finished:
            if held + size <= self._settings.jobs_max_bytes:
                break
            held -= job.size or 0
            self.remove(job)

    def _clear(self, id: str) -> None:
        """Delete the files of a removed job, then its row; what cannot be deleted now is at the next sweep."""
        with suppress(Busy, OSError):
            self.inbox.delete(id)
            self.draft(id).unlink(missing_ok=True)
            self.results.delete(id)
            self.ledger.forget(id)


def _lock(file: BinaryIO, folder: Path) -> None:
    """Lock a file until it is closed, or the process has ended; NotReady while another process does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise NotReady(
            f"another process has the jobs in {folder}; wanted a folder for each: stop one, or set TALKER_JOBS",
            retry_after_s=RETRY_AFTER_S,
        ) from error


def _recover(storage: _Storage) -> None:
    """Queue again what was being made, and delete what was half written."""
    for job in storage.ledger.running():
        if job.attempts < MAX_ATTEMPTS:
            storage.ledger.retry(job.id)
        else:
            storage.ledger.fail(job.id, _died(job).model_dump_json())
    for id in set(storage.inbox.ids()) - set(storage.ledger.queue()):
        storage.inbox.delete(id)
    for draft in storage.drafts.iterdir():
        draft.unlink()


def _died(job: Job) -> Problem:
    died = f"the service died {job.attempts} times while it made this job; wanted once: send it in smaller parts"
    return make_problem(f"/jobs/{job.id}", job.request_id, 500, died, code="worker_died")
