"""`npz-stream`: framed binary for programs. docs/formats.md has it byte by byte."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from models.core import Clip, Frame, Mesh
from service.encoders.base import FrameEncoder
from service.encoders.textures import composer_of
from talker_client.frames import ARRAY, CHUNK, END, HEADER, MAGIC, PREFIX, RANGE

NO_ARRAYS: Mapping[str, np.ndarray] = {}


class FramesEncoder(FrameEncoder):
    """Magic, header, the mesh's arrays, one chunk a frame as soon as it exists, and an end message."""

    name = "npz-stream"
    media_type = "application/x-talker-frames"
    extension = ".frames"
    needs_whole_clip = False
    texel_bytes = 6.0
    repeats_neutral = False

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Yield magic, header and the mesh."""
        self._frame_count, self._mesh = clip.frame_count, clip.mesh
        self._composer = composer_of(clip)
        colour = {} if self._composer is None else {"base_color": self._composer.base}
        yield from opening(clip.mesh, _facts(clip), colour)

    def frame(self, frame: Frame) -> Iterator[bytes]:
        """Yield a CHNK of one frame, its wrinkles apart: nothing waits."""
        if self._composer is None:
            yield chunk(self._mesh, frame)
        else:
            assert frame.wrinkles is not None
            wrinkles = self._composer.log_ratio(frame.wrinkles).astype("<f2", copy=False)
            yield chunk(self._mesh, frame, wrinkles.nbytes)
            yield wrinkles.tobytes()

    def end(self) -> Iterator[bytes]:
        """Yield the end message, without which a reader takes the stream for cut."""
        yield ending(self._frame_count)


def opening(mesh: Mesh, facts: Mapping[str, Any], more_arrays: Mapping[str, np.ndarray] = NO_ARRAYS) -> Iterator[bytes]:
    """What comes before the first frame, a message at a time; the magic is with the header."""
    arrays = _arrays(mesh) | dict(more_arrays)
    listed = [{"name": name, "dtype": array.dtype.str, "shape": list(array.shape)} for name, array in arrays.items()]
    positions = {"dtype": "<f4", "shape": list(mesh.vertices.shape)}
    yield MAGIC + _message(HEADER, _json({**facts, "positions": positions, **_source(mesh), "arrays": listed}))
    for array in arrays.values():
        yield _message(ARRAY, array.tobytes())


def chunk(mesh: Mesh, frame: Frame, more_bytes: int = 0) -> bytes:
    """A frame as a message, of which the caller sends the last `more_bytes`."""
    body = RANGE.pack(frame.index, 1) + mesh.own(frame.vertices).astype("<f4").tobytes()
    return PREFIX.pack(CHUNK, len(body) + more_bytes) + body


def ending(frames: int) -> bytes:
    """The last message, after so many frames."""
    return _message(END, _json({"status": "complete", "frames": frames}))


def _facts(clip: Clip) -> dict[str, Any]:
    wrinkles = {"wrinkles": {"dtype": "<f2", "shape": [clip.texture, clip.texture, 3]}} if clip.texture else {}
    return {
        "fps": clip.fps,
        "frame_count": clip.frame_count,
        "seed": clip.seed,
        "engine": clip.engine,
        "checkpoints": dict(clip.checkpoints),
        **wrinkles,
    }


def _arrays(mesh: Mesh) -> dict[str, np.ndarray]:
    arrays = {
        "vertices": mesh.own(mesh.vertices).astype("<f4"),
        "faces": mesh.faces.astype("<i4"),
        "uvs": mesh.uvs.astype("<f4"),
        "uv_faces": mesh.uv_faces.astype("<i4"),
    }
    if mesh.source is not None:
        arrays |= {"polygon": mesh.source.polygon.astype("<i4"), "material": mesh.source.material.astype("<i4")}
    return arrays


def _source(mesh: Mesh) -> dict[str, Any]:
    """How positions become metres: origin and turn of `talker_client.frames.FramesSource`."""
    if mesh.source is None:
        return {}
    source = mesh.source
    turn = source.turn.astype(np.float64)
    origin = np.median(source.vertices - mesh.vertices @ turn.T, axis=0)
    facts = {"unit_m": float(abs(np.linalg.det(turn)) ** (-1 / 3)), "turn": turn.tolist(), "origin": origin.tolist()}
    return {"source": facts | {"materials": list(source.materials), "skin": source.skin}}


def _json(fields: dict[str, Any]) -> bytes:
    """Pad with spaces, so that every body begins at a multiple of 4 for readers that map arrays in place."""
    text = json.dumps(fields, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return PREFIX.pack(kind, len(body)) + body
