"""What clients see of a job."""

from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, Field

from service.jobs.desk import Desk
from service.jobs.record import DONE, QUEUED, Job
from service.problems import Problem

State = Literal["queued", "running", "done", "failed", "cancelled"]


class ResultCard(BaseModel):
    """What a job has made."""

    path: str = Field(description="Where it is.", examples=["/jobs/0123456789abcdef0123456789abcdef/result"])
    size: int = Field(description="Bytes.")
    media_type: str = Field(examples=["model/gltf-binary"])
    file_name: str = Field(description="Made from the upload's.", examples=["speech.glb"])
    sha256: str


class JobCard(BaseModel):
    """A job, and how far it is."""

    id: str = Field(examples=["0123456789abcdef0123456789abcdef"])
    state: State = Field(description="`cancelled` is told by `/events` alone: a job that was removed is unknown.")
    progress: float = Field(ge=0, le=1, description="How much of it is made; 1 when the result is there.")
    eta_s: float | None = Field(description="Seconds that are left at the present pace, while it runs.")
    position: int | None = Field(description="Its place in the queue, of which 1 is next, while it waits.")
    attempts: int = Field(description="How often it was started: more than once after the service died.")
    created: datetime
    started: datetime | None = Field(description="When the last attempt began.")
    finished: datetime | None
    error: Problem | None = Field(description="Why it failed.")
    result: ResultCard | None = Field(description="What it made, when it is done.")


def cards(desk: Desk, jobs: list[Job], root_path: str) -> list[JobCard]:
    """Jobs as their client sees them. For a worker thread."""
    queue = desk.ledger.queue() if any(job.state == QUEUED for job in jobs) else []
    return [_card(desk, job, queue, root_path) for job in jobs]


def _card(desk: Desk, job: Job, queue: list[str], root_path: str) -> JobCard:
    run = desk.runs.get(job.id)
    return JobCard.model_validate(
        {
            "id": job.id,
            "state": job.state,
            "progress": 1.0 if job.state == DONE else round(run.progress, 4) if run else 0.0,
            "eta_s": run and run.eta_s,
            "position": queue.index(job.id) + 1 if job.id in queue else None,
            "attempts": job.attempts,
            "created": _utc(job.created_s),
            "started": _utc(job.started_s),
            "finished": _utc(job.finished_s),
            "error": None if job.error is None else Problem.model_validate_json(job.error),
            "result": _result(job, root_path),
        }
    )


def _result(job: Job, root_path: str) -> ResultCard | None:
    if job.size is None or job.sha256 is None:
        return None
    return ResultCard(
        path=f"{root_path}/jobs/{job.id}/result",
        size=job.size,
        media_type=job.media_type,
        file_name=job.file_name,
        sha256=job.sha256,
    )


def _utc(time_s: float | None) -> datetime | None:
    return None if time_s is None else datetime.fromtimestamp(time_s, UTC)
