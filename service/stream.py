"""Long answers on their way out: made in a worker thread, chunk by chunk, at the client's pace."""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import PureWindowsPath
from threading import Event
from typing import TypeVar
from urllib.parse import quote

from anyio import CapacityLimiter, current_time, from_thread, move_on_after, to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from models.core import Clip
from service.encoders import Encoder, encode
from service.slots import disconnect

log = logging.getLogger(__name__)

Result = TypeVar("Result")

SLICE = 64 << 10
"""Bytes sent at once: a chunk may be megabytes, and a slow client that is still reading has not stalled."""


class ClientLeft(Exception):
    """Nobody reads the stream any more, which is no failure of ours."""


@dataclass(frozen=True)
class Pace:
    """How slowly a client may take a stream: `stall_s` at a time without taking anything, and in all `slow_factor`
    times what it lasts beside that; what does not play counts as `stall_s` long.
    """

    stall_s: float
    slow_factor: float

    def patience_s(self, duration_s: float | None) -> float:
        """How long a stream waits for its client in all."""
        if duration_s is None:
            return self.slow_factor * self.stall_s
        return self.stall_s + self.slow_factor * duration_s


class ChunkStream(StreamingResponse):
    """The chunks of a file as a response; empty ones are not sent, but let the stream be stopped.

    The status goes out with the first byte, so that a file that fails before it is a plain 500. One that fails later,
    or whose client is slower than `pace`, is cut: without its last chunk nobody takes it for a whole file. When the
    client leaves, what makes the chunks is closed at the next one. `open_chunks` is called in the worker thread, which
    is one of `workers`.
    """

    def __init__(
        self,
        open_chunks: Callable[[], Generator[bytes, None, None]],
        *,
        media_type: str,
        headers: Mapping[str, str],
        pace: Pace,
        workers: CapacityLimiter,
        duration_s: float | None = None,
    ) -> None:
        super().__init__((), media_type=media_type, headers={**headers, "X-Accel-Buffering": "no"})
        self._open_chunks, self._workers = open_chunks, workers
        self._pace, self._patience_s = pace, pace.patience_s(duration_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file; returns or raises only when the engine is free again."""
        left = Event()
        watch = asyncio.create_task(_set_on_disconnect(receive, left))
        outlet = _Outlet(send, self._pace.stall_s, self._patience_s, scope["state"]["request_id"])
        try:
            await to_thread.run_sync(self._pump, outlet.deliver, left, limiter=self._workers)
        except ClientLeft:
            pass
        finally:
            left.set()  # a server that cancels us at shutdown stops the worker, too
            watch.cancel()

    def _pump(self, deliver: Callable[[Message], Coroutine[None, None, None]], left: Event) -> None:
        """Make and send, all in one worker thread, from the first chunk to the closing of the generators."""
        with closing(self._open_chunks()) as chunks:
            for message in self._messages(filter(None, _until(left, chunks))):
                from_thread.run(deliver, message)

    def _messages(self, chunks: Iterator[bytes]) -> Iterator[Message]:
        first = next(chunks)
        yield {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        for chunk in chain([first], chunks):
            view = memoryview(chunk)
            for start in range(0, len(view), SLICE):
                yield {"type": "http.response.body", "body": view[start : start + SLICE], "more_body": True}
        yield {"type": "http.response.body", "body": b"", "more_body": False}


class _Outlet:
    """Where a stream's messages leave, for as long as its client may make it wait."""

    def __init__(self, send: Send, stall_s: float, patience_s: float, request_id: str) -> None:
        self._send, self._stall_s, self._request_id = send, stall_s, request_id
        self._patience_s, self._left_s = patience_s, patience_s

    async def deliver(self, message: Message) -> None:
        """Send. Raises ClientLeft, and logs it, when that takes too long."""
        started_s, allowed_s = current_time(), min(self._stall_s, self._left_s)
        with move_on_after(allowed_s) as wait:
            await self._send(message)
        if wait.cancelled_caught:
            log.warning("request %s is cut: its client %s", self._request_id, self._reason())
            raise ClientLeft
        self._left_s -= current_time() - started_s

    def _reason(self) -> str:
        if self._stall_s <= self._left_s:
            return f"took nothing for {self._stall_s:g} s, TALKER_STALL_S"
        return f"has kept it waiting for {self._patience_s:g} s in all, TALKER_SLOW_FACTOR"


class ClipStream(ChunkStream):
    """A clip as a response, encoded as its frames come."""

    def __init__(
        self,
        clip: Clip,
        encoder: Encoder,
        *,
        upload_name: str,
        pace: Pace,
        workers: CapacityLimiter,
        encode: Callable[[Clip, Encoder], Generator[bytes, None, None]] = encode,
    ) -> None:
        super().__init__(
            partial(encode, clip, encoder),
            media_type=encoder.media_type,
            headers={
                "X-Talker-Frames": str(clip.frame_count),
                "X-Talker-Fps": f"{clip.fps:.12g}",
                "Content-Disposition": attachment(upload_name, encoder.extension),
            },
            pace=pace,
            workers=workers,
            duration_s=clip.frame_count / clip.fps,
        )


async def run_for(
    request: Request, work: Callable[[Callable[[], None]], Result], workers: CapacityLimiter | None = None
) -> Result:
    """`work` in one of the worker threads, for a client who may leave: what it is given raises then, and is to be
    called often.

    Ask for it once the body has been read. ClientDisconnect when the client has left.
    """
    left = Event()
    watch = asyncio.create_task(_set_on_disconnect(request.receive, left))
    try:
        return await to_thread.run_sync(work, partial(_check_there, left), limiter=workers)
    except ClientLeft as error:
        raise ClientDisconnect from error
    finally:
        left.set()
        watch.cancel()


def file_name(upload_name: str, extension: str) -> str:
    """A name like the upload's: its stem, without folders and odd characters."""
    stem = re.sub(r"[^\w.-]+", "_", PureWindowsPath(upload_name).stem)[:80].strip("._") or "talker"
    return stem + extension


def attachment(upload_name: str, extension: str) -> str:
    """`Content-Disposition` for a file named like the upload."""
    return disposition(file_name(upload_name, extension))


def disposition(name: str) -> str:
    """`Content-Disposition` for a file of this name."""
    return f'attachment; filename="{name}"' if name.isascii() else f"attachment; filename*=utf-8''{quote(name)}"


def _until(left: Event, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
    for chunk in chunks:
        _check_there(left)
        yield chunk


def _check_there(left: Event) -> None:
    if left.is_set():
        raise ClientLeft


async def _set_on_disconnect(receive: Receive, left: Event) -> None:
    await disconnect(receive)
    left.set()
