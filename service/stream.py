"""An animation on its way out: encoded in a worker thread, chunk by chunk, at the client's pace."""

import asyncio
import logging
import re
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import closing
from itertools import chain
from pathlib import PureWindowsPath
from threading import Event
from urllib.parse import quote

from anyio import from_thread, move_on_after, to_thread
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from models.core import Clip
from service.encoders import Encoder, encode
from service.slots import disconnect

log = logging.getLogger(__name__)

SLICE = 64 << 10
"""Bytes sent at once: a chunk may be megabytes, and a slow client that is still reading has not stalled."""


class ClientLeft(Exception):
    """Nobody reads the stream any more, which is no failure of ours."""


class ClipStream(StreamingResponse):
    """A clip as a response.

    The status goes out with the first byte, so that a clip that fails before it is a plain 500. One that fails later,
    or whose client takes nothing for `stall_s` seconds, is cut: without its last chunk nobody takes it for a whole
    file. When the client leaves, engine and encoder stop at the next chunk.
    """

    def __init__(self, clip: Clip, encoder: Encoder, *, upload_name: str, stall_s: float) -> None:
        super().__init__(
            (),
            media_type=encoder.media_type,
            headers={
                "X-Talker-Frames": str(clip.frame_count),
                "X-Talker-Fps": f"{clip.fps:.12g}",
                "X-Accel-Buffering": "no",
                "Content-Disposition": attachment(upload_name, encoder.extension),
            },
        )
        self._clip = clip
        self._encoder = encoder
        self._stall_s = stall_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the clip; returns or raises only when the engine is free again."""
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
        """Encode and send, all in one worker thread, from the first frame to the closing of the generators."""
        with closing(encode(self._clip, self._encoder)) as chunks:
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


def attachment(upload_name: str, extension: str) -> str:
    """`Content-Disposition` for a file named like the upload: its stem, without folders and odd characters."""
    stem = re.sub(r"[^\w.-]+", "_", PureWindowsPath(upload_name).stem)[:80].strip("._") or "talker"
    name = stem + extension
    return f'attachment; filename="{name}"' if name.isascii() else f"attachment; filename*=utf-8''{quote(name)}"


def _until(left: Event, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
    for chunk in chunks:
        if left.is_set():
            raise ClientLeft
        yield chunk


async def _set_on_disconnect(receive: Receive, left: Event) -> None:
    await disconnect(receive)
    left.set()
