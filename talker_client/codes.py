"""Reading `codes`: the header, and batches of moments; docs/formats.md describes it byte by byte.

A stream may come from strangers, and piece by piece. What it claims is checked before memory is taken, and each message
by its checksum before anything of it is given; the end message tells a whole stream from a cut one.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from models.core import ID, AnimateOptions, CodeBatch, Codes, CodeSpace
from models.errors import SHOWN, InputError, MalformedInput
from models.textalker.codes import RATE_HZ, moment_layout, unpack

MEDIA_TYPE = "application/x-talker-codes"
MAGIC = b"TALKCOD1"
PREFIX = struct.Struct("<4sII")
"""Of each message: its type, the bytes of its body, and the body's CRC-32."""
HEADER, CHUNK, END = b"HEAD", b"CHNK", b"DONE"
RANGE = struct.Struct("<II")
"""At the start of a chunk: its first moment, and how many moments it holds."""

MAX_JSON_BYTES = 1 << 20
MAX_CHUNK_BYTES = 16 << 20
MAX_MOMENTS = 6 * 3600 * RATE_HZ
MAX_GRID, MAX_ENTRIES, MAX_TEXTURE = 128, 1 << 16, 8192
PARTS = ("motion", "wrinkle")


@dataclass(frozen=True, eq=False)
class CodesHeader:
    """What is known before the first moment.

    options is what was asked for; spaces are by part, motion and, with textures, wrinkle; checkpoints and styles are as
    a clip has them.
    """

    frame_count: int
    moments: int
    options: AnimateOptions
    template: str
    spaces: Mapping[str, CodeSpace]
    checkpoints: Mapping[str, str]
    styles: Mapping[str, str]


def read_codes(file: BinaryIO) -> tuple[CodesHeader, Iterator[CodeBatch]]:
    """Read the header; return it and an iterator of batches, each as soon as it came.

    `file` needs only `read`. MalformedInput when it is no stream of codes, or its header is damaged or impossible; the
    iterator raises it where the stream was cut or is damaged, after the batches that came whole.
    """
    if _read(file, len(MAGIC)) != MAGIC:
        raise _damaged(f"the stream does not begin with {MAGIC!r}; wanted {MEDIA_TYPE}", "check the URL")
    _, body = _message(file, {HEADER: MAX_JSON_BYTES})
    try:
        header = _header(json.loads(body))
    except (InputError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as error:
        raise _damaged(f"its header cannot be read ({str(error)[:SHOWN]})") from error
    return header, _batches(file, header)


def end_body(moments: int) -> bytes:
    """What the end message says."""
    return json.dumps({"status": "complete", "moments": moments}, separators=(",", ":")).encode()


def _header(fields: dict[str, Any]) -> CodesHeader:
    options = AnimateOptions(
        engine=str(fields["engine"]),
        resolution=_whole(fields["resolution"] or 0, AnimateOptions.MAX_POINTS) or None,
        fps=_number(fields["fps"]),
        intensity=_number(fields["intensity"]),
        seed=_whole(fields["seed"], 1 << 63),
        texture=_whole(fields["texture"] or 0, MAX_TEXTURE) or None,
    )
    frames, moments = _whole(fields["frame_count"], 120 * MAX_MOMENTS), _whole(fields["moments"], MAX_MOMENTS)
    apart_s = abs(frames / options.fps - moments / RATE_HZ)
    if apart_s > max(1 / options.fps, 1 / RATE_HZ) or bool(frames) != bool(moments):
        raise ValueError(f"{frames} frames of {moments} moments")
    parts = PARTS[:1] if options.texture is None else PARTS
    spaces = {part: _space(fields["codes"][part]) for part in parts}
    texts = ({str(key): str(text) for key, text in fields[name].items()} for name in ("checkpoints", "styles"))
    return CodesHeader(frames, moments, options, _name(fields["template"]), spaces, *texts)


def _space(fields: dict[str, Any]) -> CodeSpace:
    entries, grid = _whole(fields["entries"], MAX_ENTRIES), _whole(fields["grid"], MAX_GRID)
    if entries < 2 or grid < 1:
        raise ValueError(f"{grid}² codes of {entries} entries")
    return CodeSpace(_name(fields["checkpoint"]), entries, grid)


def _name(value: str) -> str:
    """A name that is also one of a file, and leads out of no folder; ValueError for any other."""
    if not ID.fullmatch(value):
        raise ValueError(f"the name {value[:SHOWN]!r}")
    return value


def _number(value: object) -> float:
    """A number as it came, since whole ones are written otherwise; ValueError for anything else."""
    if type(value) is not int and type(value) is not float:
        raise ValueError(f"{str(value)[:SHOWN]} where a number was wanted")
    return value


def _whole(value: object, limit: int) -> int:
    """A whole number from 0 to a limit; ValueError for anything else."""
    if type(value) is not int or not 0 <= value <= limit:
        raise ValueError(f"{str(value)[:SHOWN]} where a whole number up to {limit} was wanted")
    return value


def _batches(file: BinaryIO, header: CodesHeader) -> Iterator[CodeBatch]:
    came, wanted = 0, {CHUNK: MAX_CHUNK_BYTES, END: MAX_JSON_BYTES}
    while (message := _message(file, wanted))[0] == CHUNK:
        batch = _batch(message[1], header, came)
        yield batch
        came += len(batch.contact)
    if message[1] != end_body(came) or came != header.moments:
        raise _damaged(f"it ends after {came} moments, and {header.moments} were announced")


def _batch(body: bytes, header: CodesHeader, came: int) -> CodeBatch:
    layout = moment_layout(header.spaces)
    first, count = RANGE.unpack_from(body.ljust(RANGE.size, b"\0"))
    if first != came or not 1 <= count <= header.moments - came or len(body) != RANGE.size + count * layout.itemsize:
        raise _damaged(
            f"a chunk of {len(body)} bytes holds {count} moments from {first} on; wanted {layout.itemsize} bytes each, "
            f"from {came} to {header.moments}"
        )
    moments = np.frombuffer(body, layout, offset=RANGE.size)
    contact = moments["contact"].astype(np.float32)
    codes = {part: unpack(moments[part], space.entries, space.grid) for part, space in header.spaces.items()}
    known = all(codes[part].max() < space.entries for part, space in header.spaces.items())
    if not known or not ((contact >= 0) & (contact <= 1)).all():
        raise _damaged(f"the chunk at moment {first} holds codes or contacts that there are not")
    return CodeBatch(first, contact, Codes(codes["motion"], codes.get("wrinkle")))


def _message(file: BinaryIO, wanted: Mapping[bytes, int]) -> tuple[bytes, bytes]:
    """The next message's type and body. `wanted`: the largest body of each type that may come."""
    kind, size, checksum = PREFIX.unpack(_read(file, PREFIX.size))
    if size > wanted.get(kind, -1):
        raise _damaged(f"a message {kind!r} of {size:,} bytes came; wanted at most {wanted} bytes")
    body = _read(file, size)
    if zlib.crc32(body) != checksum:
        raise _damaged(f"the checksum of a message {kind!r} is wrong")
    return kind, body


def _read(file: BinaryIO, size: int) -> bytes:
    """Exactly `size` bytes: a socket may give fewer at a time."""
    data = bytearray()
    while len(data) < size:
        part = file.read(size - len(data))
        if not part:
            raise _damaged(f"the stream was cut: {len(data)} of {size} bytes came")
        data += part
    return bytes(data)


def _damaged(what: str, advice: str = "ask for it again") -> MalformedInput:
    return MalformedInput(f"codes that cannot be used: {what}; {advice}", code="damaged_codes")
