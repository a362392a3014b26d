"""The server: uvicorn for one app, stopped by a signal, or by an engine that does not start."""

import logging
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.authorization import check_exposed
from service.jobs.worker import Worker
from service.runtime import Runtime
from service.settings import Settings

UNSENT_BYTES = 64 * 1024
"""What the kernel holds of an answer that it has not sent: little, so that slow readers are told from stalled ones."""

MESSAGE_BYTES = 256 * 1024
"""The longest message to `/live`: 8 s of sound at 16 kHz. One that is held back holds back pongs behind it, too."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, which logs a handshake that the application refused as a failure of the application."""

    async def send(self, message: Any) -> None:
        """Send, and know that a refusal completes the handshake."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


class Server(uvicorn.Server):
    """`Server(create_app()).run()` serves until SIGTERM or Ctrl-C; streams then have `drain_s` to end.

    MalformedInput where others than this host come in, without keys.
    """

    def __init__(self, app: FastAPI) -> None:
        self._runtime: Runtime = app.state.runtime
        self._app = app
        settings: Settings = self._runtime.settings
        check_exposed(settings.host, keys=settings.keys is not None, open_=settings.open)
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_level=settings.log_level.upper(),
            server_header=False,
            timeout_graceful_shutdown=settings.drain_s,
            ws=WebSocketProtocol,
            ws_max_size=MESSAGE_BYTES,
            ws_per_message_deflate=False,  # positions do not deflate, and what inflates is no longer small
        )
        super().__init__(config)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve. Raises SystemExit with the reason when the engine does not start."""
        logging.basicConfig(level=self.config.log_level, format="%(levelname)s:  %(name)s: %(message)s")
        super().run(sockets)
        if self._runtime.failure is not None:
            raise SystemExit(f"talker: the engine does not start: {self._runtime.failure}")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; a send then waits for what its client has read, not for a third of the kernel's megabytes."""
        await super().startup(sockets)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            for listener in (listener for server in self.servers for listener in server.sockets):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain: what has a client is served to its end, live streams are told, and jobs wait for the next start."""
        worker: Worker = self._app.state.worker
        worker.stop()
        await self._runtime.live.close()
        await super().shutdown(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop; uvicorn asks ten times a second."""
        return self._runtime.failure is not None or await super().on_tick(counter)
