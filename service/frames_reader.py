"""A reader of `npz-stream` that needs numpy and nothing else: copy this file into your program.

Despite its name the format is not numpy's npz; docs/formats.md describes it byte by byte.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MAGIC = b"TALKFRM1"
PREFIX = struct.Struct("<4sI")
"""Of each message: its type, and the bytes of its body."""
HEADER, ARRAY, CHUNK, END = b"HEAD", b"ARRY", b"CHNK", b"DONE"
RANGE = struct.Struct("<II")
"""At the start of a chunk: its first frame, and how many frames it holds."""


class FramesError(ValueError):
    """A stream that is no npz-stream, or that was cut."""


@dataclass(frozen=True, eq=False)
class FramesHeader:
    """What is known before the first frame. `arrays` holds vertices, faces, uvs and uv_faces; `fields` is the JSON."""

    fps: float
    frame_count: int
    arrays: dict[str, NDArray[Any]]
    fields: dict[str, Any]


def read_frames(file: BinaryIO) -> tuple[FramesHeader, Iterator[tuple[int, NDArray[np.float32]]]]:
    """Read the header; return it and an iterator of (start_frame, positions (count, V, 3)), each as soon as it came.

    `file` needs only `read`. Raises FramesError when it is no npz-stream; the iterator raises it where the stream was
    cut, after the chunks that came whole.
    """
    if _read(file, len(MAGIC)) != MAGIC:
        raise FramesError(
            f"the stream does not begin with {MAGIC!r}; wanted application/x-talker-frames; check the URL"
        )
    fields = json.loads(_message(file, HEADER)[1])
    arrays = {entry["name"]: _array(_message(file, ARRAY)[1], entry) for entry in fields["arrays"]}
    header = FramesHeader(fields["fps"], fields["frame_count"], arrays, fields)
    return header, _chunks(file, header)


def _chunks(file: BinaryIO, header: FramesHeader) -> Iterator[tuple[int, NDArray[np.float32]]]:
    layout, came = header.fields["positions"], 0
    while (message := _message(file, CHUNK, END))[0] == CHUNK:
        start, count = RANGE.unpack_from(message[1])
        if start != came:
            raise FramesError(f"a chunk begins at frame {start}; wanted frame {came}; ask for the stream again")
        yield start, _array(message[1][RANGE.size :], layout | {"shape": [count, *layout["shape"]]})
        came += count
    if not came == header.frame_count == json.loads(message[1])["frames"]:
        raise FramesError(f"{came} frames came; wanted {header.frame_count}; ask for the stream again")


def _message(file: BinaryIO, *wanted: bytes) -> tuple[bytes, bytes]:
    kind, size = PREFIX.unpack(_read(file, PREFIX.size))
    if kind not in wanted:
        raise FramesError(f"a message of type {kind!r} came; wanted {wanted}; is the reader older than the service?")
    return kind, _read(file, size)


def _read(file: BinaryIO, size: int) -> bytes:
    """Read exactly `size` bytes: a socket may give fewer at a time."""
    data = bytearray()
    while len(data) < size:
        part = file.read(size - len(data))
        if not part:
            raise FramesError(f"the stream was cut: {len(data)} of {size} bytes came; ask for it again")
        data += part
    return bytes(data)


def _array(body: bytes, layout: dict[str, Any]) -> NDArray[Any]:
    array = np.frombuffer(body, layout["dtype"])
    if array.size != np.prod(layout["shape"]):
        raise FramesError(f"{array.size} numbers came; wanted shape {layout['shape']}; ask for the stream again")
    return array.reshape(layout["shape"])
