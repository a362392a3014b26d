"""A multipart form: read within limits, each field once."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.types import Message

from models.errors import MalformedInput, TooLarge, UnsupportedMedia

MEDIA_TYPE = "multipart/form-data"
MAX_FILES = 8
MAX_TEXT_FIELDS = 64
MAX_TEXT_BYTES = 16 * 1024
OVERHEAD_BYTES = 256 * 1024
"""What text fields and the multipart framing may add to the files."""


@asynccontextmanager
async def open_form(request: Request, *, max_upload_bytes: int) -> AsyncIterator[dict[str, str | UploadFile]]:
    """Fields of the request's form by name; files lie in memory up to 1 MiB, beyond that on disk, until the exit.

    The size is checked by Content-Length before anything is read, and by counting while it is read.
    Raises UnsupportedMedia for a body that is no multipart form, TooLarge, and MalformedInput for a field that came
    twice; the parser itself refuses broken framing and too many or too long fields with a plain 400.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        raise UnsupportedMedia(f"a body of type {media_type[:80] or 'unknown'}; wanted {MEDIA_TYPE}: send a form")
    bounded = Request(request.scope, _BoundedReceive(request, max_upload_bytes + OVERHEAD_BYTES))
    limits = {"max_files": MAX_FILES, "max_fields": MAX_TEXT_FIELDS, "max_part_size": MAX_TEXT_BYTES}
    async with bounded.form(**limits) as form:
        fields: dict[str, str | UploadFile] = {}
        for name, value in form.multi_items():
            if name in fields:
                raise MalformedInput(f"{name[:80]} was sent twice; send it once", field=name[:80])
            fields[name] = value
        yield fields


class _BoundedReceive:
    """The request's ASGI channel, which refuses what is over `limit` bytes."""

    def __init__(self, request: Request, limit: int) -> None:
        self._receive = request.receive
        self._limit = limit
        self._received = 0
        self._check(int(request.headers.get("content-length", "0")))

    async def __call__(self) -> Message:
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._check(self._received)
        return message

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise TooLarge(
                f"a request of {size:,} bytes; the limit is {self._limit:,}: send a smaller file", field="audio"
            )
