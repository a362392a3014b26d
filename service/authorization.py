"""`Authorization: Bearer`, over every route but the probes, before a byte of the body is read."""

import re
from ipaddress import ip_address

from starlette.types import ASGIApp, Receive, Scope, Send

from models.errors import MalformedInput
from service.keys import KeyRing
from service.problems import Unauthorized, answer_refusal

OPEN = {"/health/live", "/health/ready"}
"""Orchestrators have no keys."""
BEARER = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*)", re.IGNORECASE)


class Authorization:
    """Lets through who has a key of the ring, as `state.client`; the rest get 401, whatever they ask for.

    A WebSocket is refused in its handshake, with the same problem.
    """

    def __init__(self, app: ASGIApp, ring: KeyRing) -> None:
        self.app = app
        self._ring = ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] == "lifespan" or scope["path"].removeprefix(scope.get("root_path", "")) in OPEN:
            await self.app(scope, receive, send)
        elif (name := self._name(scope)) is not None:
            scope["state"]["client"] = name
            await self.app(scope, receive, send)
        else:
            await answer_refusal(
                scope,
                receive,
                send,
                Unauthorized("no API key that is known here; wanted one: send the header Authorization: Bearer KEY"),
            )

    def _name(self, scope: Scope) -> str | None:
        fields = [value for name, value in scope["headers"] if name == b"authorization"]
        bearer = BEARER.fullmatch(fields[0].strip()) if len(fields) == 1 else None
        return bearer and self._ring.name_of(bearer[1])


def check_exposed(host: str, *, keys: bool, open_: bool) -> None:
    """Refuse to listen where others come in, without keys, unless that is meant."""
    if keys or open_ or _is_loopback(host):
        return
    raise MalformedInput(
        f"TALKER_HOST={host} opens the service to others, without API keys; wanted a file of keys: set TALKER_KEYS and "
        "run `talker keys add NAME`, or set TALKER_OPEN=true if everybody may use it",
        field="host",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
