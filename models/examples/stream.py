"""Reading an `npz-stream` that strangers send; docs/formats.md describes it byte by byte."""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32

from models.archive import parse_json
from models.errors import SHOWN, MalformedInput, TooLarge

MAGIC = b"TALKFRM1"
MAX_ARRAYS = 64
_PREFIX, _RANGE = struct.Struct("<4sI"), struct.Struct("<II")
_DTYPES = ("<f4", "<f2", "<i4", "|u1")
_Messages = Iterator[tuple[bytes, memoryview]]


@dataclass(frozen=True, eq=False)
class FrameStream:
    """A whole stream: its neutral head, its frames, and their wrinkle maps if it has textures."""

    fps: float
    neutral: Float32[np.ndarray, "vertices 3"]
    vertices: Float32[np.ndarray, "frames vertices 3"]
    wrinkles: list[Float16[np.ndarray, "size size 3"]] | None


def parse_stream(data: bytes, max_frames: int) -> FrameStream:
    """Take a stream apart. MalformedInput for one that was cut or is damaged, TooLarge for more than `max_frames`."""
    try:
        messages = _messages(data)
        fields = parse_json(bytes(_next(messages, b"HEAD")), "an npz-stream's header")
        if (announced := int(fields["frame_count"])) > max_frames:
            raise TooLarge(f"an npz-stream of {announced:,} frames; the limit is {max_frames:,}: send a shorter one")
        arrays = {entry["name"]: _array(_next(messages, b"ARRY"), entry) for entry in fields["arrays"][:MAX_ARRAYS]}
        chunks = list(_chunks(messages, fields, announced))
        vertices = np.concatenate([positions for positions, _ in chunks]).astype(np.float32)
        wrinkles = [ratios for _, maps in chunks for ratios in maps] if "wrinkles" in fields else None
        return FrameStream(float(fields["fps"]), arrays["vertices"], vertices, wrinkles)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, struct.error) as error:
        raise MalformedInput(
            f"an npz-stream that cannot be read ({str(error)[:SHOWN]}); send it whole", code="damaged_stream"
        ) from error


def _chunks(messages: _Messages, fields: Mapping[str, Any], announced: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions (n, V, 3) and wrinkle maps (n, S, S, 3) of each chunk; nothing in place of maps that there are not."""
    came = 0
    while came < announced:
        body = _next(messages, b"CHNK")
        start, count = _RANGE.unpack_from(body)
        if start != came or count < 1:
            raise ValueError(f"a chunk of {count} frames begins at frame {start}; wanted frame {came}")
        positions = _array(body[_RANGE.size :], fields["positions"], count)
        rest = body[_RANGE.size + positions.nbytes :]
        yield positions, _array(rest, fields["wrinkles"], count) if "wrinkles" in fields else positions[:0]
        came += count
    if parse_json(bytes(_next(messages, b"DONE")), "an npz-stream's end")["frames"] != came:
        raise ValueError(f"{came} frames came, and its end says otherwise")


def _messages(data: bytes) -> _Messages:
    view, place = memoryview(data), len(MAGIC)
    while place < len(data):
        kind, size = _PREFIX.unpack_from(data, place)
        place += _PREFIX.size + size
        if place > len(data):
            raise ValueError("it was cut within a message")
        yield kind, view[place - size : place]


def _next(messages: _Messages, wanted: bytes) -> memoryview:
    kind, body = next(messages, (b"", memoryview(b"")))
    if kind != wanted:
        raise ValueError(f"a message of type {kind!r}; wanted {wanted!r}")
    return body


def _array(body: memoryview, layout: Mapping[str, Any], count: int | None = None) -> np.ndarray:
    """Numbers at the beginning of a body: of the layout's shape, or `count` times that."""
    dtype, shape = layout["dtype"], tuple(layout["shape"])
    if dtype not in _DTYPES or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"an array of type {dtype!r} and shape {shape}")
    shape = shape if count is None else (count, *shape)
    return np.frombuffer(body, dtype, math.prod(shape)).reshape(shape)
