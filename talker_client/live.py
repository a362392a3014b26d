"""A client of `/live`: sound goes in as it comes, frames come out.

    async with open_live("ws://127.0.0.1:8000/live", style="calm") as stream:
        await stream.send(samples)
        async for message in stream: …

Sending and reading are apart: do both at once, in two tasks. It needs websockets, in the extra `client`.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from talker_client.frames import CHUNK, MAGIC, PREFIX, FramesChunk, FramesHeader, read_chunk, read_frames

NO_HEADERS: Mapping[str, str] = {}
CLOSE_S = 5.0
"""How long a server may take to close."""


class LiveError(Exception):
    """The service refused or failed. `problem` is RFC 9457's, or says only that the connection was cut."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.problem = problem


class LiveStream:
    """An open stream. Iterate over what comes: chunks of frames, and dicts that tell from when an order counts."""

    def __init__(self, socket: ClientConnection, header: FramesHeader) -> None:
        self._socket, self.header = socket, header

    @property
    def latency_s(self) -> float:
        """How long after its sound a frame may come, computing apart; delivered paced, each comes as long after."""
        return float(self.header.fields["live"]["latency_s"])

    async def send(self, samples: NDArray[np.int16]) -> None:
        """More sound, at the rate of the hello. Waits while the service has enough of it."""
        await self._socket.send(samples.astype("<i2").tobytes())

    async def interrupt(self) -> None:
        """Stop speaking. The answer among what comes is `{"type": "interrupted", "frame", "time_s"}`."""
        await self._order("interrupt")

    async def restyle(self, **styles: str) -> None:
        """Go on in another style, motion_style or wrinkle_style. The answer is `{"type": "style", "frame", …}`."""
        await self._order("style", **styles)

    async def end(self) -> None:
        """Nothing more comes: the iteration ends after the last frame."""
        await self._order("end")

    async def _order(self, kind: str, **fields: str) -> None:
        await self._socket.send(json.dumps({"type": kind, **fields}))

    async def __aiter__(self) -> AsyncIterator[FramesChunk | dict[str, Any]]:
        while True:
            message = await _receive(self._socket)
            if isinstance(message, dict):
                yield message
                continue
            kind, _ = PREFIX.unpack_from(message)
            if kind != CHUNK:
                return
            yield read_chunk(message[PREFIX.size :], self.header)


@asynccontextmanager
async def open_live(url: str, *, headers: Mapping[str, str] = NO_HEADERS, **hello: Any) -> AsyncIterator[LiveStream]:
    """Say hello and read the header. `hello` holds fields of docs/live.md. LiveError when the service refuses."""
    try:
        socket = await connect(
            url, additional_headers=headers, compression=None, max_size=None, close_timeout=CLOSE_S, proxy=None
        )
    except InvalidStatus as error:
        raise LiveError(_problem(error.response.body)) from error
    async with socket:
        await socket.send(json.dumps(hello))
        yield LiveStream(socket, await _header(socket))


async def _header(socket: ClientConnection) -> FramesHeader:
    head = await _receive(socket)
    assert isinstance(head, bytes), "the first message is the header"
    arrays = json.loads(head[len(MAGIC) + PREFIX.size :])["arrays"]
    messages = [head] + [await _receive(socket) for _ in arrays]
    return read_frames(BytesIO(b"".join(message for message in messages if isinstance(message, bytes))))[0]


async def _receive(socket: ClientConnection) -> bytes | dict[str, Any]:
    """A binary message, or the JSON of a text message. LiveError for an error, and where the connection is cut."""
    try:
        message = await socket.recv()
    except ConnectionClosed as error:
        raise LiveError(_problem(None)) from error
    if isinstance(message, bytes):
        return message
    fields: dict[str, Any] = json.loads(message)
    if fields["type"] == "error":
        raise LiveError(fields["problem"])
    return fields


def _problem(body: bytes | bytearray | None) -> dict[str, Any]:
    try:
        problem: dict[str, Any] = json.loads(body or b"")
    except ValueError:
        problem = {"code": "cut", "detail": "the connection was cut, and no reason given; is the URL the service's?"}
    return problem
