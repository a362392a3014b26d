"""What the client does, without doing any of it: generators that say what is to be sent, read and waited for.

A flow yields a step, is sent what came of it, and returns its result. `Talker` and `AsyncTalker` are two ways of taking
the steps; retries, resuming, and following a job are here, once.
"""

import random
from collections.abc import Callable, Generator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from models.errors import SHOWN, TalkerError
from models.files import whole_file
from talker_client import calls
from talker_client.calls import Call
from talker_client.cards import FINAL, JobCard
from talker_client.problems import BadAnswer, JobNotDone, StreamCut, TalkerBusy, TalkerProblem, Unreachable, problem_of

T = TypeVar("T")

FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
POLL_S = 1.0
RANGE_NOT_SATISFIABLE = 416


@dataclass(frozen=True, eq=False)
class Answer:
    """An answer whose body is still to be read. `chunks` and `events` are iterators, blocking or not."""

    status: int
    headers: Any
    chunks: Any
    events: Any
    close: Callable[[], Any]


@dataclass(frozen=True, eq=False)
class Send:
    """Send a request; what comes of it is the Answer."""

    call: Call[Any]


@dataclass(frozen=True, eq=False)
class Next:
    """Take the next of an Answer's chunks or events; None at the end."""

    items: Any


@dataclass(frozen=True, eq=False)
class Close:
    """Read no more of an answer."""

    answer: Answer


@dataclass(frozen=True)
class Pause:
    """Wait."""

    seconds: float


Step = Send | Next | Close | Pause
Flow = Generator[Step, Any, T]


def answered(call: Call[Any], retries: int) -> Flow[Answer]:
    """The answer to a call, asked again while the service is busy, at most `retries` times.

    A call whose request may have been received already is asked again only where that does nothing twice. Raises
    TalkerProblem for a refusal.
    """
    for attempt in count():
        try:
            answer: Answer = yield Send(call)
            if answer.status < 400:
                return answer
            body = yield from everything(answer)
            raise problem_of(answer.status, answer.headers, body)
        except (TalkerBusy, Unreachable) as error:
            if attempt >= retries or (isinstance(error, Unreachable) and error.sent and not call.repeatable):
                raise
            yield Pause(wait_s(attempt, error))
    raise AssertionError("count() does not end")


def wait_s(attempt: int, error: TalkerError) -> float:
    """How long to wait before asking again: what the service said, else twice as long each time; and up to half as
    long again by chance, so that clients who were refused together do not come back together.
    """
    asked = error.retry_after_s if isinstance(error, TalkerBusy) else None
    wanted = FIRST_WAIT_S * 2**attempt if asked is None else asked
    return min(wanted, LONGEST_WAIT_S) * random.uniform(1, 1.5)


def one(step: Step) -> Flow[Any]:
    """What comes of a single step."""
    return (yield step)


def everything(answer: Answer) -> Flow[bytes]:
    """The rest of a body."""
    body = bytearray()
    while (chunk := (yield Next(answer.chunks))) is not None:
        body += chunk
    return bytes(body)


def result(call: Call[T], retries: int) -> Flow[T]:
    """What a call's answer says. An answer that breaks off is asked for again where that does nothing twice."""
    for attempt in count():
        answer = yield from answered(call, retries)
        try:
            return call.read((yield from everything(answer)))
        except StreamCut as error:
            if attempt >= retries or not call.repeatable:
                raise
            yield Pause(wait_s(attempt, error))
    raise AssertionError("count() does not end")


def saved(answer: Answer, path: Path) -> Flow[Path]:
    """Write the rest of a body to a file, whole or not at all."""
    with whole_file(path) as file:
        yield from _copied(answer, file)
    return path


def ignore(card: JobCard) -> None:
    """No progress is to be told."""


def followed(id: str, progress: Callable[[JobCard], None], retries: int) -> Flow[JobCard]:
    """Wait until a job has ended: by its events, and by asking where they fail. JobNotDone if it has no result."""
    card = yield from _asked(id, progress, retries)
    if card["state"] not in FINAL:
        card = yield from _watched(card, progress)
    while card["state"] not in FINAL:
        yield Pause(POLL_S)
        card = yield from _asked(id, progress, retries)
    if card["state"] != "done":
        reason = (card.get("error") or {}).get("detail") or "its events say no more"
        raise JobNotDone(f"job {id} {card['state']}: {reason}; submit it again", card)
    return card


def _asked(id: str, progress: Callable[[JobCard], None], retries: int) -> Flow[JobCard]:
    card = yield from result(calls.job(id), retries)
    progress(card)
    return card


def _watched(card: JobCard, progress: Callable[[JobCard], None]) -> Flow[JobCard]:
    """What a job's events told last; where they broke off it is to be asked for."""
    try:
        answer = yield from answered(calls.job_events(card["id"]), 0)
        while (event := (yield Next(answer.events))) is not None:
            card = calls.read_job(event)
            progress(card)
            if card["state"] in FINAL:
                yield Close(answer)
                break
    except TalkerError:  # asking tells the same
        pass
    return card


def fetched(id: str, path: Path, retries: int) -> Flow[Path]:
    """Write a job's result to a file that appears when it is whole. What was cut goes on where it broke off: in this
    call, up to `retries` times without a byte more, and in a later one, from what lies beside `path`.
    """
    partial, failures = path.with_name(f".{path.name}.{id}.partial"), 0
    with partial.open("ab") as file:
        while True:
            start = file.tell()
            try:
                yield from _continued(id, file, retries)
                break
            except StreamCut as error:
                failures = 0 if file.tell() > start else failures + 1
                if failures >= retries:
                    raise
                yield Pause(wait_s(failures, error))
    partial.replace(path)
    return path


def _continued(id: str, file: BinaryIO, retries: int) -> Flow[None]:
    start = file.tell()
    try:
        answer = yield from answered(calls.job_result(id, start), retries)
    except TalkerProblem as problem:
        if problem.status != RANGE_NOT_SATISFIABLE or not start:
            raise
        start = _emptied(file)  # it holds all there is, or more
        answer = yield from answered(calls.job_result(id, start), retries)
    came = answer.headers.get("content-range", "bytes 0-")
    if came.startswith("bytes 0-"):
        _emptied(file)
    elif not came.startswith(f"bytes {start}-"):
        yield Close(answer)
        raise BadAnswer(f"{came[:SHOWN]!r} of the result came; wanted bytes from {start} on: is a proxy between?")
    yield from _copied(answer, file)


def _emptied(file: BinaryIO) -> int:
    file.seek(0)
    return file.truncate()


def _copied(answer: Answer, file: BinaryIO) -> Flow[None]:
    while (chunk := (yield Next(answer.chunks))) is not None:
        file.write(chunk)
