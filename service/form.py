"""A multipart form: read within limits, each field once."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import Message

from models.errors import SHOWN, MalformedInput, TooLarge, UnsupportedMedia
from service.disk import refusing_full_disk

MEDIA_TYPE = "multipart/form-data"
CHARSETS = (b"", b"utf-8", b"us-ascii")
MAX_FILES = 8
MAX_TEXT_FIELDS = 64
MAX_TEXT_BYTES = 16 * 1024
OVERHEAD_BYTES = 256 * 1024
"""What text fields and the multipart framing may add to the files."""


@asynccontextmanager
async def open_form(
    request: Request, *, max_upload_bytes: int, field: str
) -> AsyncIterator[dict[str, str | UploadFile]]:
    """Fields of the request's form by name; files lie in memory up to 1 MiB, beyond that on disk, until the exit.

    All files together may have max_upload_bytes. The size is checked by Content-Length before anything is read, and by
    counting while it is read; `field` is what the refusal names.
    Raises UnsupportedMedia for a body that is no multipart form, TooLarge, and MalformedInput for broken framing, a
    body that was cut, a charset but UTF-8, too many or too long fields, and a field that came twice; StorageFull when
    a file finds no room.
    """
    media_type, parameters = parse_options_header(request.headers.get("content-type", ""))
    if media_type != MEDIA_TYPE.encode():
        came = media_type.decode("latin-1")[:SHOWN] or "unknown"
        raise UnsupportedMedia(f"a body of type {came}; wanted {MEDIA_TYPE}: send a form")
    if (charset := parameters.get(b"charset", b"").lower()) not in CHARSETS:
        raise MalformedInput(
            f"a form in charset {charset[:SHOWN].decode('latin-1')!r}; wanted utf-8: leave charset out"
        )
    receive = BoundedReceive(request, max_upload_bytes + OVERHEAD_BYTES, field)
    form = await _parse(Request(request.scope, receive))
    try:
        fields: dict[str, str | UploadFile] = {}
        for name, value in form.multi_items():
            if name in fields:
                raise MalformedInput(f"{name[:SHOWN]} was sent twice; send it once", field=name[:SHOWN])
            fields[name] = value
        yield fields
    finally:
        await form.close()


async def _parse(request: Request) -> FormData:
    async with aclosing(request.stream()) as stream:
        parser = _Parser(
            request.headers, stream, max_files=MAX_FILES, max_fields=MAX_TEXT_FIELDS, max_part_size=MAX_TEXT_BYTES
        )
        try:
            with refusing_full_disk():
                form = await parser.parse()
        except MultiPartException as error:
            raise MalformedInput(
                f"the form cannot be read ({error.message.rstrip('.')}); wanted at most {MAX_TEXT_FIELDS} fields of "
                f"{MAX_TEXT_BYTES // 1024} KiB and {MAX_FILES} files, each part between its delimiters: send it anew"
            ) from error
    if not parser.whole:
        await form.close()
        raise MalformedInput("the form lacks its closing delimiter: it was cut on the way; send it anew")
    return form


class _Parser(MultiPartParser):
    """Starlette's, which takes a body that was cut for a whole one; this one can tell."""

    whole = False

    def on_end(self) -> None:
        self.whole = True


class BoundedReceive:
    """The request's ASGI channel, which refuses what is over `limit` bytes; `field` is to blame."""

    def __init__(self, request: Request, limit: int, field: str | None) -> None:
        self._receive = request.receive
        self._limit, self._field = limit, field
        self._received = 0
        self._check(int(request.headers.get("content-length", "0")))

    async def __call__(self) -> Message:
        """Pass on what came; TooLarge once that is too much."""
        message = await self._receive()
        self._received += len(message.get("body", b""))
        self._check(self._received)
        return message

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise TooLarge(f"a request of {size:,} bytes; the limit is {self._limit:,}: send less", field=self._field)
