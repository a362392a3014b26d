"""Long answers on their way out: made in a worker thread, chunk by chunk, at the client's pace."""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping
from contextlib import closing
from functools import partial
from itertools import chain
from pathlib import PureWindowsPath
from threading import Event
from typing import TypeVar
from urllib.parse import quote

from anyio import from_thread, move_on_after, to_thread
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


class ChunkStream(StreamingResponse):
    """The chunks of a file as a response; empty ones are not sent, but let the stream be stopped.

    The status goes out with the first byte, so that a file that fails before it is a plain 500. One that fails later,
    or whose client takes nothing for `stall_s` seconds, is cut: without its last chunk nobody takes it for a whole
    file. When the client leaves, what makes the chunks is closed at the next one. `open_chunks` is called in the worker
    thread.
    """

    def __init__(
        self,
        open_chunks: Callable[[], Generator[bytes, None, None]],
        *,
        media_type: str,
        headers: Mapping[str, str],
        stall_s: float,
    ) -> None:
        super().__init__((), media_type=media_type, headers={**headers, "X-Accel-Buffering": "no"})
        self._open_chunks = open_chunks
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file; returns or raises only when the engine is free again."""
        left = Event()
        watch = asyncio.create_task(_set_on_disconnect(receive, left))

        async def deliver(message: Message) -> None:
            with move_on_after(self._stall_s) as wait:
                await send(message)
            if wait.cancelled_caught:
                name = scope["state"]["request_id"]
                log.warning("request %s is cut: its client took nothing for %g s, TALKER_STALL_S", name, self._stall_s)
                raise ClientLeft

        try:
            await to_thread.run_sync(self._pump, deliver, left)
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


class ClipStream(ChunkStream):
    """A clip as a response, encoded as its frames come."""

    def __init__(self, clip: Clip, encoder: Encoder, *, upload_name: str, stall_s: float) -> None:
        super().__init__(
            partial(encode, clip, encoder),
            media_type=encoder.media_type,
            headers={
                "X-Talker-Frames": str(clip.frame_count),
                "X-Talker-Fps": f"{clip.fps:.12g}",
                "Content-Disposition": attachment(upload_name, encoder.extension),
            },
            stall_s=stall_s,
        )


async def run_for(request: Request, work: Callable[[Callable[[], None]], Result]) -> Result:
    """`work` in a worker thread, for a client who may leave: what it is given raises then, and is to be called often.

    Ask for it once the body has been read. ClientDisconnect when the client has left.
    """
    left = Event()
    watch = asyncio.create_task(_set_on_disconnect(request.receive, left))
    try:
        return await to_thread.run_sync(work, partial(_check_there, left))
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
