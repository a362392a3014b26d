"""Refusals on the wire: RFC 9457 `application/problem+json`, one table from error class to status."""

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.routing import Match
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from models.errors import (
    SHOWN,
    Busy,
    Conflict,
    InputError,
    MalformedInput,
    OutOfRange,
    TalkerError,
    TooLarge,
    TooMany,
    UnknownName,
    UnsupportedMedia,
)
from service import sniffing

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=BaseModel)

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody is left to read it, but an access log may be


class Unauthorized(TalkerError):
    """A request without an API key that is known: 401."""

    code = "unauthorized"


class NotAcceptable(InputError):
    """An `Accept` header that no format can meet: 406."""

    code = "not_acceptable"


class BadRange(InputError):
    """A `Range` header that no part of the file meets, or that is none: 416."""

    code = "bad_range"

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message, field="Range")
        self.size = size


class NotReady(Busy):
    """The engine is still loading or warming up: 503."""

    code = "not_ready"


class Draining(Busy):
    """The process is stopping: 503."""

    code = "draining"


STATUSES: Mapping[type[TalkerError], int] = {
    MalformedInput: 400,
    Unauthorized: 401,
    UnknownName: 404,
    NotAcceptable: 406,
    Conflict: 409,
    TooLarge: 413,
    UnsupportedMedia: 415,
    BadRange: 416,
    OutOfRange: 422,
    InputError: 400,
    TooMany: 429,
    Busy: 503,
    TalkerError: 500,
}

# Codes of refusals that routing or the framework makes; the rest carry their own.
CODES = {400: "malformed", 404: "not_found", 405: "method_not_allowed"}
FAILURE = "the service failed; nothing is wrong with the request. Try again, and quote the request id if it stays"
METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def status_of(error: type[TalkerError]) -> int:
    """The status of an error class: its own in the table, or that of the nearest class above it."""
    return next(STATUSES[cls] for cls in error.__mro__ if cls in STATUSES)


class Problem(BaseModel):
    """Why a request was refused."""

    type: str = Field(default="about:blank", description="RFC 9457: the title is the status's own; `code` tells more.")
    title: str = Field(description="The status in words.", examples=["Not Found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(
        description="What came, what was wanted, what to do.", examples=["unknown style 'clam'; known: calm, neutral"]
    )
    instance: str = Field(description="The path that refused.", examples=["/animate"])
    code: str = Field(description="Stable name of the refusal, snake_case.", examples=["unknown_style"])
    field: str | None = Field(
        description="The offending field, parameter or header, if there is one.", examples=["style"]
    )
    known: list[str] | None = Field(default=None, description="After an unknown name: the names that exist.")
    request_id: str = Field(description="As in `X-Request-Id`; quote it when you ask about a failure.")


def problem_of(error: Exception, instance: str, request_id: str) -> Problem:
    """What a client is told of an error: a refusal in its own words, a failure in none but FAILURE's."""
    if not isinstance(error, TalkerError) or (status := status_of(type(error))) == HTTPStatus.INTERNAL_SERVER_ERROR:
        return make_problem(instance, request_id, 500, FAILURE, code="internal")
    known = error.known if isinstance(error, UnknownName) else None
    return make_problem(instance, request_id, status, str(error), code=error.code, field=error.field, known=known)


def make_problem(
    instance: str,
    request_id: str,
    status: int,
    detail: str,
    *,
    code: str,
    field: str | None = None,
    known: list[str] | None = None,
) -> Problem:
    """A problem, titled as its status is."""
    return Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=instance,
        code=code,
        field=field,
        known=known,
        request_id=request_id,
    )


def problem_response(
    request: HTTPConnection,
    status: int,
    detail: str,
    *,
    code: str,
    field: str | None = None,
    known: list[str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The refusal as a response; it carries what middleware adds to others, as a 500 is sent outside of it."""
    name = request.state.request_id
    problem = make_problem(request.url.path, name, status, detail, code=code, field=field, known=known)
    own = {**sniffing.HEADERS, "X-Request-Id": name}
    return Response(json.dumps(fields_of(problem)), status, media_type=MEDIA_TYPE, headers={**(headers or {}), **own})


def fields_of(problem: Problem) -> dict[str, Any]:
    """The problem as JSON; without `known` where nothing is."""
    return problem.model_dump(mode="json", exclude={"known"} if problem.known is None else None)


def validated(model: type[Model], fields: Mapping[str, Any]) -> Model:
    """The form that the fields make; the first that does not fit is refused."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise refusal(error.errors()) from error


def refusal(errors: Sequence[Any]) -> TalkerError:
    """The first of pydantic's errors as one of ours: out of range, or malformed."""
    error = errors[0]
    if not error["loc"]:
        return MalformedInput(f"a body that does not fit ({error['msg'][:SHOWN]}); wanted a JSON object: send one")
    field = str(error["loc"][-1])[:SHOWN]
    if error["type"] == "missing":
        return MalformedInput(f"{field} is missing; send it", field=field)
    if error["type"] == "extra_forbidden":
        return MalformedInput(f"unknown field {field!r}; /docs lists those that exist: remove it", field=field)
    came = "a file" if isinstance(error["input"], UploadFile) else repr(str(error["input"])[:SHOWN])
    message = (
        f"{field} is {came}; wanted {error['msg'].removeprefix('Input should be ').removeprefix('String should have ')}"
    )
    if error["type"].startswith(("greater_than", "less_than", "string_too_long", "texture_size")):
        return OutOfRange(message, field=field)
    return MalformedInput(message, field=field, code="not_finite" if error["type"] == "finite_number" else None)


def install_problems(app: FastAPI) -> None:
    """Answer every refusal and every failure of `app` with a problem."""
    app.add_exception_handler(TalkerError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_failure)


def refuse(request: HTTPConnection, error: TalkerError) -> Response:
    """The refusal that an error is, of those whose status is in the table."""
    return problem_response(
        request,
        status_of(type(error)),
        str(error),
        code=error.code,
        field=error.field,
        known=error.known if isinstance(error, UnknownName) else None,
        headers=_headers(error),
    )


async def answer_refusal(scope: Scope, receive: Receive, send: Send, error: TalkerError) -> None:
    """Send the refusal from a middleware; a WebSocket is refused in its handshake."""
    response = refuse(HTTPConnection(scope), error)
    if scope["type"] == "http":
        await response(scope, receive, send)
    else:
        await WebSocket(scope, receive, send).send_denial_response(response)


def _headers(error: TalkerError) -> dict[str, str]:
    """What a refusal says in headers, too."""
    if isinstance(error, Busy):
        return {"Retry-After": f"{error.retry_after_s:.0f}"}
    if isinstance(error, BadRange):
        return {"Content-Range": f"bytes */{error.size}"}
    return {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthorized) else {}


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, TalkerError)
    if status_of(type(error)) == HTTPStatus.INTERNAL_SERVER_ERROR:
        return await _on_failure(request, error)
    return refuse(request, error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _on_refusal(request, refusal(error.errors()))


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = f"{request.method} {request.url.path[:SHOWN]}: {error.detail}; /docs tells what there is"
    code = CODES.get(error.status_code, HTTPStatus(error.status_code).name.lower())
    headers = dict(error.headers or {})
    if "Allow" in headers:
        headers["Allow"] = ", ".join(_methods(request))
    return problem_response(request, error.status_code, detail, code=code, headers=headers)


def _methods(request: Request) -> list[str]:
    """What the path answers to: a router names the methods of the first route alone that has the path."""
    scopes = {method: dict(request.scope) | {"method": method} for method in METHODS}
    routes = request.app.routes
    return [name for name, scope in scopes.items() if any(r.matches(scope)[0] is Match.FULL for r in routes)]


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED_REQUEST)


async def _on_failure(request: Request, error: Exception) -> Response:
    """Log the failure under the request's id; tell the client nothing but that id."""
    log.error("request %s failed: %s %s", request.state.request_id, request.method, request.url.path, exc_info=error)
    return problem_response(request, 500, FAILURE, code="internal")
