"""Each request, once it is over: a line in the log, numbers for Prometheus, a span."""

import logging
from asyncio import CancelledError
from time import perf_counter

from opentelemetry.trace import get_current_span
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from service.client import client_of
from service.metrics import Metrics

log = logging.getLogger(__name__)

UNMATCHED = "unmatched"
METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
QUIET = {"/health/live", "/health/ready", "/metrics"}
"""Asked for by machines, every few seconds: their lines are at debug level."""


class Access:
    """Watches what passes. Whatever is logged within has the request's id."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and note how that went."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        answer = _Answer(send)
        scope["state"]["arrived_s"] = answer.started_s
        method = scope.get("method", "WEBSOCKET")
        request_id = scope["state"]["request_id"]
        get_current_span().set_attribute("request_id", request_id)
        with bound_contextvars(request_id=request_id):
            try:
                await self.app(scope, receive, answer.send)
            except BaseException as error:
                answer.fail(error)
                raise
            finally:
                answer.end(scope)
                self._note(scope, method, answer)

    def _note(self, scope: Scope, method: str, answer: "_Answer") -> None:
        route, seconds = _route(scope), perf_counter() - answer.started_s
        self._metrics.requests.labels(route, method if method in METHODS else "other", str(answer.status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        fields = {
            "client": client_of(scope),
            "method": method,
            "route": route,
            "path": scope["path"],
            "status": answer.status,
            "seconds": round(seconds, 4),
            "bytes": answer.bytes,
        }
        if answer.cut is not None:
            self._metrics.streams_cut.labels(answer.cut).inc()
            fields["cut"] = answer.cut
        log.log(logging.DEBUG if route in QUIET else logging.INFO, "request", extra=fields)


class _Answer:
    """What is sent to one client: status, bytes, and what cut it short: stalled, stopped, failed or left."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started_s = perf_counter()
        self.status, self.bytes = 0, 0
        self.cut: str | None = None
        self._whole = False

    async def send(self, message: Message) -> None:
        """Pass on, and count."""
        if message["type"] in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
        elif message["type"] == "websocket.accept":
            self.status = 101
        try:
            await self._send(message)
        except CancelledError:
            self.cut = "stalled"
            raise
        self.bytes += len(message.get("body", b""))
        self._whole = self._whole or (
            message["type"] in ("http.response.body", "websocket.http.response.body") and not message.get("more_body")
        )

    def fail(self, error: BaseException) -> None:
        """What the application raised."""
        if self.status == 0:
            self.status = 499 if isinstance(error, CancelledError) else 500
        elif not self._whole:
            self.cut = "stopped" if isinstance(error, CancelledError) else "failed"

    def end(self, scope: Scope) -> None:
        """The application has returned. A client that leaves ends a stream without its last chunk."""
        if scope["type"] == "http" and self.status and not self._whole and self.cut is None:
            self.cut = "left"


def _route(scope: Scope) -> str:
    """As the contract writes it: names of paths would be numberless."""
    return getattr(scope.get("route"), "path", UNMATCHED)
