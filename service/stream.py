"""An animation on its way out: encoded in a worker thread, chunk by chunk, at the client's pace."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import chain
from pathlib import PureWindowsPath
from threading import Event
from urllib.parse import quote

from anyio import fail_after, from_thread, to_thread
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from models.core import Clip, Frame
from service.encoders import FrameEncoder, encode
from service.slots import disconnect


class ClientLeft(Exception):
    """Nobody is left to read the stream, which is no failure of ours."""


class ClipStream(StreamingResponse):
    """A clip as a response.

    The status goes out with the first chunk, so that a clip that fails before it is a plain 500. One that fails later,
    or whose client leaves a chunk unread for `stall_s` seconds, is cut: without its last chunk nobody takes it for a
    whole file. When the client leaves, the engine stops at the next frame.
    """

    def __init__(self, clip: Clip, encoder: FrameEncoder, *, upload_name: str, stall_s: float) -> None:
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
            with fail_after(self._stall_s):
                await send(message)

        try:
            await to_thread.run_sync(self._pump, deliver, left)
        except ClientLeft:
            pass
        finally:
            left.set()  # a server that cancels us at shutdown stops the worker, too
            watch.cancel()

    def _pump(self, deliver: Callable[[Message], Coroutine[None, None, None]], left: Event) -> None:
        """Encode and send, all in one worker thread, from the first frame to the closing of the generators."""
        frames = self._clip.frames
        heeding = replace(self._clip, frames=_until(left, frames))
        with closing(frames), closing(encode(heeding, self._encoder)) as chunks:
            for message in self._messages(chunks):
                from_thread.run(deliver, message)

    def _messages(self, chunks: Iterator[bytes]) -> Iterator[Message]:
        first = next(chunks)
        yield {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        for chunk in chain([first], chunks):
            yield {"type": "http.response.body", "body": chunk, "more_body": True}
        yield {"type": "http.response.body", "body": b"", "more_body": False}


def attachment(upload_name: str, extension: str) -> str:
    """`Content-Disposition` for a file named like the upload: its stem, without folders and odd characters."""
    stem = re.sub(r"[^\w.-]+", "_", PureWindowsPath(upload_name).stem)[:80].strip("._") or "talker"
    name = stem + extension
    return f'attachment; filename="{name}"' if name.isascii() else f"attachment; filename*=utf-8''{quote(name)}"


def _until(left: Event, frames: Iterator[Frame]) -> Generator[Frame, None, None]:
    for frame in frames:
        if left.is_set():
            raise ClientLeft
        yield frame


async def _set_on_disconnect(receive: Receive, left: Event) -> None:
    await disconnect(receive)
    left.set()
