"""The request id: one name for a request, in the client's log and in ours."""

import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"
STARTS = {"http.response.start", "websocket.accept", "websocket.http.response.start"}
WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestId:
    """Keep a well-formed incoming `X-Request-Id`, else make one; every response carries it.

    Handlers read it as `request.state.request_id`. An ill-formed one is replaced, not refused: it is a log's business.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Name the request, then serve it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        incoming = Headers(scope=scope).get(HEADER, "")
        request_id = incoming if WELL_FORMED.fullmatch(incoming) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] in STARTS:
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)
