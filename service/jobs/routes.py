"""`/jobs`: the form of `/animate`, made while nobody waits for it."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Annotated

from anyio import move_on_after, to_thread
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.responses import StreamingResponse

from models.errors import Busy, Conflict
from service.animate import open_animate_form, start_clip
from service.contract import ANIMATE_BODY, ANIMATION, NOT_MODIFIED, REMOVED, headers, problem_responses
from service.entity import KEEP, is_held
from service.jobs.cards import JobCard, cards
from service.jobs.desk import Desk
from service.jobs.ranges import part_asked
from service.jobs.record import DONE, UNFINISHED, Job
from service.jobs.run import close_clip
from service.runtime import Client, CurrentRuntime, WarmEngine
from service.schemas import AnimateForm
from service.stream import disposition, run_for

router = APIRouter(prefix="/jobs", tags=["jobs"])

EXAMPLE = "0123456789abcdef0123456789abcdef"
PACE_S = 0.5
"""Between two looks at a job whose events somebody reads."""

RESULT_HEADERS = headers("ETag", "Cache-Control", "Accept-Ranges", "Content-Disposition")
RESULT = {
    "description": "The whole result: byte for byte what `/animate` answers to the form.",
    "headers": RESULT_HEADERS,
    "content": ANIMATION["content"],
}
PART = {
    "description": "The part that `Range` asks for; of several parts, the whole is sent.",
    "headers": RESULT_HEADERS | headers("Content-Range"),
    "content": ANIMATION["content"],
}
ACCEPTED = {"description": "It is on disk, and will be made.", "headers": headers("Location")}
EVENTS = {
    "description": "Server-sent events, named by the job's state, each with the job as JSON. The last is `done`, "
    "`failed` or `cancelled`, unless the service stops before.",
    "headers": headers("Cache-Control", "X-Accel-Buffering"),
}


class NotFinished(Conflict):
    """There is no result, or not yet: 409."""

    code = "not_finished"


async def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.worker.desk
    return desk


CurrentDesk = Annotated[Desk, Depends(_desk)]


def _known(desk: CurrentDesk, client: Client, id: Annotated[str, Path(examples=[EXAMPLE])]) -> Job:
    return desk.find(id, client)


async def _checked_form(
    request: Request, runtime: CurrentRuntime, engine: WarmEngine, desk: CurrentDesk, client: Client
) -> AsyncIterator[AnimateForm]:
    """The form with its fields checked. A client with too many jobs is told so before it has sent its upload."""
    await to_thread.run_sync(desk.check, client)
    async with open_animate_form(request, runtime.settings, engine) as form:
        yield form


KnownJob = Annotated[Job, Depends(_known)]


@router.post(
    "",
    status_code=202,
    summary="Speech in, an animation later",
    responses={202: ACCEPTED, **problem_responses(404, 406, 413, 415, 422, 429, 503)},
    openapi_extra={"requestBody": ANIMATE_BODY},
)
async def submit_job(
    request: Request,
    response: Response,
    runtime: CurrentRuntime,
    engine: WarmEngine,
    desk: CurrentDesk,
    client: Client,
    form: Annotated[AnimateForm, Depends(_checked_form, scope="function")],
) -> JobCard:
    """Take the form of `/animate`, with all its refusals, and make the animation when nobody waits for the engine.

    What is accepted outlives the process.
    """
    async with desk.checking:
        clip = await run_for(request, partial(start_clip, engine, form, runtime.settings, runtime.decode))
    close_clip(clip)
    job = await to_thread.run_sync(desk.accept, form, client, request.state.request_id)
    desk.arrived.set()
    response.headers["Location"] = f"{_root(request)}/jobs/{job.id}"
    return await to_thread.run_sync(_card, desk, job, _root(request))


@router.get("", summary="Your jobs", responses=problem_responses(503))
def list_jobs(request: Request, desk: CurrentDesk, client: Client) -> list[JobCard]:
    """The jobs of this client that have not expired, newest first."""
    return cards(desk, desk.jobs_of(client), _root(request))


@router.get("/{id}", summary="One job", responses=problem_responses(404, 503))
def describe_job(request: Request, desk: CurrentDesk, job: KnownJob) -> JobCard:
    """How far a job is."""
    return _card(desk, job, _root(request))


@router.delete(
    "/{id}",
    status_code=204,
    summary="Cancel and remove a job",
    response_class=Response,
    responses={204: REMOVED, **problem_responses(404, 503)},
)
def remove_job(desk: CurrentDesk, job: KnownJob) -> None:
    """Forget a job and its result; one that runs stops at the next chunk."""
    desk.remove(job)


@router.get(
    "/{id}/events",
    summary="The progress of one job",
    response_class=EventSourceResponse,
    responses={200: EVENTS, **problem_responses(404, 503)},
)
async def job_events(request: Request, desk: CurrentDesk, job: KnownJob) -> AsyncIterator[ServerSentEvent]:
    """The job whenever it has changed, until it is finished; a comment now and then keeps the line open."""
    last = None
    while True:
        with suppress(Busy):
            card = await to_thread.run_sync(_card_now, desk, job, _root(request))
            if card != last:
                yield ServerSentEvent(event=card.state, data=card)
            last = card
            if card.state not in UNFINISHED:
                return
        with move_on_after(PACE_S):
            await desk.closing.wait()
            return


@router.get(
    "/{id}/result",
    summary="What one job made",
    response_class=StreamingResponse,
    responses={200: RESULT, 206: PART, 304: NOT_MODIFIED, **problem_responses(404, 409, 416, 503)},
)
def job_result(request: Request, desk: CurrentDesk, client: Client, job: KnownJob) -> Response:
    """The animation, whole or in part: `Range`, `If-Range` and `If-None-Match` are heard."""
    if job.state != DONE or job.size is None:
        raise NotFinished(f"the job is {job.state}; wanted done: look at /jobs/{job.id}", field="id")
    etag = f'"{job.sha256}"'
    fields = KEEP | {"ETag": etag, "Accept-Ranges": "bytes", "Content-Disposition": disposition(job.file_name)}
    if is_held(request, etag):
        return Response(status_code=304, headers=fields)
    asked = request.headers.get("range") if request.headers.get("if-range", etag) == etag else None
    part = part_asked(asked, job.size)
    if part is not None:
        fields["Content-Range"] = f"bytes {part.start}-{part.stop - 1}/{job.size}"
    span = part or range(job.size)
    fields["Content-Length"] = str(len(span))
    pieces = desk.results.read(job.id, span.start, span.stop)
    try:
        first = next(pieces)  # what cannot be read is refused, as long as nothing was sent
    except FileNotFoundError:
        desk.find(job.id, client)  # refuses what was removed meanwhile
        raise
    return StreamingResponse(
        chain([first], pieces), 200 if part is None else 206, headers=fields, media_type=job.media_type
    )


def _card(desk: Desk, job: Job, root_path: str) -> JobCard:
    return cards(desk, [job], root_path)[0]


def _card_now(desk: Desk, job: Job, root_path: str) -> JobCard:
    """The job as it has become; one that was removed is cancelled."""
    return _card(desk, desk.look_up(job.id) or replace(job, state="cancelled"), root_path)


def _root(request: Request) -> str:
    return request.scope.get("root_path", "")
