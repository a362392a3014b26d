"""What a client is told when it does not get what it asked for.

TalkerError
├── TalkerProblem     the service refused: the fields of RFC 9457, and `code`
│   └── TalkerBusy    429 or 503: it has more to do than it takes, or is starting or stopping; try again
├── Unreachable       no answer came
├── StreamCut         an answer began, and broke off
├── BadAnswer         an answer came that Talker does not give
└── JobNotDone        a job ended, and has no result
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from models.errors import SHOWN, TalkerError

BUSY = (429, 503)


class TalkerProblem(TalkerError):
    """A refusal. `status`, `title`, `detail`, `instance`, `code`, `field`, `known` and `request_id` as the service sent
    them; `fields` is the JSON. A proxy's own refusal has but `status` and `detail`.
    """

    def __init__(self, status: int, fields: Mapping[str, Any]) -> None:
        detail = str(fields.get("detail") or fields.get("title") or f"HTTP status {status}")
        super().__init__(detail, field=fields.get("field"), code=str(fields.get("code") or f"http_{status}"))
        self.status = status
        self.fields = dict(fields)
        self.type = str(fields.get("type") or "about:blank")
        self.title = str(fields.get("title") or "")
        self.detail = detail
        self.instance = str(fields.get("instance") or "")
        self.known: list[str] = list(fields.get("known") or [])
        self.request_id = str(fields.get("request_id") or "")


class TalkerBusy(TalkerProblem):
    """Refused for now. `retry_after_s` is what the service asked to wait; None where it did not say."""

    def __init__(self, status: int, fields: Mapping[str, Any], retry_after_s: float | None) -> None:
        super().__init__(status, fields)
        self.retry_after_s = retry_after_s


class Unreachable(TalkerError):
    """No answer. `sent` tells whether the service may have received the request all the same."""

    code = "unreachable"

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class StreamCut(TalkerError):
    """An answer that broke off. What came of it is not a file."""

    code = "stream_cut"


class BadAnswer(TalkerError):
    """Something answered that is not Talker, or not this version of it."""

    code = "bad_answer"


class JobNotDone(TalkerError):
    """A job that failed or was cancelled. `card` is its last."""

    code = "job_not_done"

    def __init__(self, message: str, card: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.card = card


def problem_of(status: int, headers: Mapping[str, str], body: bytes) -> TalkerProblem:
    """The problem of an answer whose status is an error."""
    fields = _fields(body)
    if status in BUSY:
        return TalkerBusy(status, fields, retry_after_s(headers.get("retry-after")))
    return TalkerProblem(status, fields)


def retry_after_s(value: str | None) -> float | None:
    """Seconds of a `Retry-After`, which may also be a date (RFC 9110, section 10.2.3); None for what is neither."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _fields(body: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    return fields if isinstance(fields, dict) else {"detail": body[:SHOWN].decode(errors="replace").strip()}
