"""A reader of `npz-stream` that needs numpy and nothing else: copy this file into your program.

Despite its name the format is not numpy's npz; docs/formats.md describes it byte by byte.
"""

import json
import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

MAGIC = b"TALKFRM1"
PREFIX = struct.Struct("<4sI")
"""Of each message: its type, and the bytes of its body."""
HEADER, ARRAY, CHUNK, END = b"HEAD", b"ARRY", b"CHNK", b"DONE"
RANGE = struct.Struct("<II")
"""At the start of a chunk: its first frame, and how many frames it holds."""


class Readable(Protocol):
    """What frames are read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class FramesError(ValueError):
    """A stream that is no npz-stream, or that was cut."""


class FramesChunk(NamedTuple):
    """Frames from `start` on: positions (count, V, 3), and log ratios of wrinkles (count, S, S, 3) or None."""

    start: int
    positions: NDArray[np.float32]
    wrinkles: NDArray[np.float16] | None


@dataclass(frozen=True, eq=False)
class FramesSource:
    """How the file held the head that it came in: positions are in its units and axes.

    unit_m is metres of a unit; turn (3, 3) and origin (3,) take metres, +Y up and +Z forward, there: turn · x + origin.
    polygon (F,) and material (F,): the number of the file's polygon that each face is of, and index into materials,
    their names; skin is the number of the one that textures belong to.
    """

    unit_m: float
    turn: NDArray[np.float64]
    origin: NDArray[np.float64]
    polygon: NDArray[np.int32]
    material: NDArray[np.int32]
    materials: tuple[str, ...]
    skin: int

    def metres(self, positions: NDArray[np.float32]) -> NDArray[np.float32]:
        """Positions (…, 3) of the stream in metres, +Y up and +Z forward."""
        return ((positions - self.origin) @ np.linalg.inv(self.turn).T).astype(np.float32)


@dataclass(frozen=True, eq=False)
class FramesHeader:
    """What is known before the first frame. `fields` is the JSON. A live stream has no `frame_count`.

    `arrays` holds vertices, faces, uvs and uv_faces; with wrinkles base_color, too: times exp(log ratio) it is a
    frame's texture. Without a `source`, positions are in metres, +Y up and +Z forward.
    """

    fps: float
    frame_count: int | None
    arrays: dict[str, NDArray[Any]]
    fields: dict[str, Any]
    source: FramesSource | None = None


def read_frames(file: Readable) -> tuple[FramesHeader, Iterator[FramesChunk]]:
    """Read the header; return it and an iterator of chunks, each as soon as it came.

    `file` needs only `read`. Raises FramesError when it is no npz-stream; the iterator raises it where the stream was
    cut, after the chunks that came whole.
    """
    if _read(file, len(MAGIC)) != MAGIC:
        raise FramesError(
            f"the stream does not begin with {MAGIC!r}; wanted application/x-talker-frames; check the URL"
        )
    fields = json.loads(_message(file, HEADER)[1])
    arrays = {entry["name"]: _array(_message(file, ARRAY)[1], entry) for entry in fields["arrays"]}
    header = FramesHeader(fields["fps"], fields["frame_count"], arrays, fields, _source(fields, arrays))
    return header, _chunks(file, header)


def _source(fields: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> FramesSource | None:
    if "source" not in fields:
        return None
    facts = fields["source"]
    turn, origin = np.array(facts["turn"]), np.array(facts["origin"])
    faces, names = (arrays["polygon"], arrays["material"]), tuple(facts["materials"])
    return FramesSource(facts["unit_m"], turn, origin, *faces, names, facts["skin"])


def _chunks(file: Readable, header: FramesHeader) -> Iterator[FramesChunk]:
    came = 0
    while (message := _message(file, CHUNK, END))[0] == CHUNK:
        chunk = read_chunk(message[1], header)
        if chunk.start != came:
            raise FramesError(f"a chunk begins at frame {chunk.start}; wanted frame {came}; ask for the stream again")
        yield chunk
        came += len(chunk.positions)
    frames = json.loads(message[1])["frames"]
    if not came == frames == (frames if header.frame_count is None else header.frame_count):
        raise FramesError(f"{came} frames came; wanted {header.frame_count or frames}; ask for the stream again")


def read_chunk(body: bytes, header: FramesHeader) -> FramesChunk:
    """The frames of a CHNK message's body."""
    layouts = [header.fields[name] for name in ("positions", "wrinkles") if name in header.fields]
    start, count = RANGE.unpack_from(body)
    positions, *wrinkles = _parts(body[RANGE.size :], count, layouts)
    return FramesChunk(start, positions, wrinkles[0] if wrinkles else None)


def _parts(body: bytes, count: int, layouts: list[dict[str, Any]]) -> Iterator[NDArray[Any]]:
    """`count` of each layout, one after the other; the last takes what is left, which must fit it."""
    for layout in layouts:
        shape = [count, *layout["shape"]]
        size = math.prod(shape) * np.dtype(layout["dtype"]).itemsize if layout is not layouts[-1] else len(body)
        yield _array(body[:size], layout | {"shape": shape})
        body = body[size:]


def _message(file: Readable, *wanted: bytes) -> tuple[bytes, bytes]:
    kind, size = PREFIX.unpack(_read(file, PREFIX.size))
    if kind not in wanted:
        raise FramesError(f"a message of type {kind!r} came; wanted {wanted}; is the reader older than the service?")
    return kind, _read(file, size)


def _read(file: Readable, size: int) -> bytes:
    """Read exactly `size` bytes: a socket may give fewer at a time."""
    data = bytearray()
    while len(data) < size:
        part = file.read(size - len(data))
        if not part:
            raise FramesError(f"the stream was cut: {len(data)} of {size} bytes came; ask for it again")
        data += part
    return bytes(data)


def _array(body: bytes, layout: dict[str, Any]) -> NDArray[Any]:
    wanted = math.prod(layout["shape"]) * np.dtype(layout["dtype"]).itemsize
    if len(body) != wanted:
        raise FramesError(f"{len(body)} bytes came; wanted {wanted}, {layout['shape']}; ask for the stream again")
    return np.frombuffer(body, layout["dtype"]).reshape(layout["shape"])
