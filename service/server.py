"""The server: uvicorn for one app, stopped by a signal, or by an engine that does not start."""

import logging
import os
import socket
from threading import Timer
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from service.authorization import check_exposed
from service.logs import install_logs
from service.runtime import Runtime
from service.settings import Settings
from service.traces import install_traces

log = logging.getLogger(__name__)

GRACE_S = 5.0
"""What an engine that is stopped may take to end the step it is in."""
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
        self._app, self._told = app, False
        settings: Settings = self._runtime.settings
        check_exposed(settings.host, keys=settings.keys is not None, open_=settings.open)
        config = uvicorn.Config(
            app,
            host=settings.host,
            port=settings.port,
            log_config=None,
            log_level=settings.log_level,
            access_log=False,  # service.access has more to say
            server_header=False,
            timeout_graceful_shutdown=settings.drain_s,
            ws=WebSocketProtocol,
            ws_max_size=MESSAGE_BYTES,
            ws_per_message_deflate=False,  # positions do not deflate, and what inflates is no longer small
        )
        super().__init__(config)

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve. Raises SystemExit with the reason when the engine does not start."""
        settings = self._runtime.settings
        install_logs(settings.log_level, settings.log_format)
        install_traces()
        super().run(sockets)
        if self._runtime.failure is not None:
            raise SystemExit(f"talker: the engine does not start: {self._runtime.failure}")

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen; a send then waits for what its client has read, not for a third of the kernel's megabytes."""
        await super().startup(sockets)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            for listener in (listener for server in self.servers for listener in server.sockets):
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Let what is under way end, and take on nothing more; on a second signal, go at once."""
        drain, seconds = self._runtime.drain, self._runtime.settings.drain_s
        if drain.started:
            os._exit(128 + sig)
        drain.start(seconds)
        log.info("stopping: %d requests are under way, and have %g s", drain.under_way, seconds)
        last_resort = Timer(seconds + GRACE_S, os._exit, [1])  # an engine that hangs holds up its thread's end
        last_resort.daemon = True
        last_resort.start()

    async def on_tick(self, counter: int) -> bool:
        """Whether to stop; uvicorn asks ten times a second. What is still under way then is cut."""
        stop = await super().on_tick(counter)
        if self._runtime.drain.started:
            await self._tell()
        if self._runtime.drain.over:
            self.config.timeout_graceful_shutdown = int(self._runtime.drain.remaining_s)
            return True
        return stop or self._runtime.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop serving."""
        await self._tell()
        await super().shutdown(sockets)

    async def _tell(self) -> None:
        """Live streams say goodbye, as uvicorn would only cut them; jobs wait for the next start."""
        if not self._told:
            self._told = True
            self._app.state.worker.stop()
            await self._runtime.live.close()
