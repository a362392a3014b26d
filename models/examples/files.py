"""Reading an example from a file of any kind that is taken."""

from pathlib import PurePath
from typing import BinaryIO

import numpy as np

from models.archive import Archive, parse_json, read_npy
from models.container import MAGIC as GLB_MAGIC
from models.errors import SHOWN, MalformedInput, TooLarge, UnsupportedMedia
from models.examples.glb import Glb
from models.examples.pictures import BasisRatios, TextureRatios, read_basis
from models.examples.sequence import Example, ExampleLimits
from models.examples.stream import MAGIC as STREAM_MAGIC
from models.examples.stream import parse_stream

LIMITS = ExampleLimits()
_ZIP_MAGIC = b"PK\x03\x04"
_ARRAYS = {"vertices", "neutral", "fps", "wrinkles"}
_PICTURES = (".png", ".jpg", ".jpeg")
_BASE_COLOR = "base_color.png"
_WEIGHTS = "weights.json"


@np.errstate(over="ignore", invalid="ignore")  # what overflows is refused as not finite
def read_example(file: BinaryIO, limits: ExampleLimits = LIMITS) -> Example:
    """Read an example from the file's beginning; the file may be closed then, as all that is needed is in memory.

    The neutral texture is `base_color.png` of an `obj` zip, or else the first frame's. A texture that is the same in
    all frames says nothing of wrinkles: `wrinkles` is None.

    UnsupportedMedia (not_an_example) for another kind of file, TooLarge over a limit, MalformedInput for what is
    damaged, refers to other files, changes its number of vertices, is not finite, or has fewer than two frames.
    """
    file.seek(0)
    data = file.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise TooLarge(f"an example of more than {limits.max_bytes:,} bytes, the limit; send a shorter sequence")
    if data.startswith(GLB_MAGIC):
        return _glb(data, limits)
    if data.startswith(STREAM_MAGIC):
        return _streamed(data, limits)
    if data.startswith(_ZIP_MAGIC):
        return _zipped(Archive(data, limits.max_unpacked_bytes), limits)
    raise UnsupportedMedia(
        "a file that is no example; wanted an animated GLB, a zip of GLB or OBJ frames, an npz-stream or an .npz",
        code="not_an_example",
    )


def _animated(glb: Glb, limits: ExampleLimits, wrinkles: BasisRatios | None) -> Example:
    played = glb.animation(limits.max_points)
    _check_frames(len(played.times_s), limits)
    span = float(np.ptp(played.times_s)) if len(played.times_s) else 0.0
    return Example(played.positions, (len(played.times_s) - 1) / span if span else None, played.neutral, wrinkles, True)


def _glb(data: bytes, limits: ExampleLimits) -> Example:
    """An animated `glb`; its wrinkles are images of its own."""
    glb = Glb.parse(data)
    return _animated(glb, limits, read_basis(glb.wrinkles, glb.image))


def _bundle(archive: Archive, limits: ExampleLimits) -> Example:
    """A `bundle`: an animated GLB, its wrinkles as images beside it."""
    wrinkles = read_basis(parse_json(archive.get(_WEIGHTS, b"{}"), _WEIGHTS), archive.__getitem__)
    (name,) = _ending(archive, ".glb")
    return _animated(Glb.parse(archive[name]), limits, wrinkles)


def _zipped(archive: Archive, limits: ExampleLimits) -> Example:
    endings = [PurePath(name).suffix.lower() for name in archive]
    if endings and set(endings) == {".npy"}:
        return _arrays(archive, limits)
    if endings.count(".glb") == 1:
        return _bundle(archive, limits)
    if ".glb" in endings:
        return _glb_frames(archive, limits)
    if ".obj" in endings:
        return _obj_frames(archive, limits)
    raise UnsupportedMedia("a zip without GLB, OBJ or numpy files; send one of those", code="not_an_example")


def _arrays(archive: Archive, limits: ExampleLimits) -> Example:
    """numpy's `.npz`: vertices (T, V, 3), and perhaps neutral (V, 3), fps, and wrinkles (T, S, S, 3), log ratios."""
    names = {PurePath(name).stem: name for name in archive}
    if "vertices" not in names or not names.keys() <= _ARRAYS:
        raise MalformedInput(f"an .npz with {str(sorted(names))[:SHOWN]}; wanted vertices, and of {sorted(_ARRAYS)}")
    arrays = {stem: read_npy(archive[name], name) for stem, name in names.items()}
    vertices, wrinkles = arrays["vertices"], arrays.get("wrinkles")
    _check_frames(len(vertices) if vertices.ndim else 0, limits, vertices.size // 3)
    fps = arrays["fps"].item() if "fps" in arrays and arrays["fps"].size == 1 else None
    neutral = arrays["neutral"].astype(np.float32) if "neutral" in arrays else None
    return Example(
        vertices.astype(np.float32), fps, neutral, None if wrinkles is None else list(np.atleast_1d(wrinkles))
    )


def _glb_frames(archive: Archive, limits: ExampleLimits) -> Example:
    frames = _Frames(limits)
    for name in _ending(archive, ".glb"):
        glb = Glb.parse(archive[name])
        frames.add(glb.positions, glb.picture())
    return frames.example(fps=glb.fps, seams=True)


def _obj_frames(archive: Archive, limits: ExampleLimits) -> Example:
    frames = _Frames(limits)
    for name in _ending(archive, ".obj"):
        pictures = (name[: -len(".obj")] + ending for ending in _PICTURES)
        frames.add(_obj_vertices(archive[name], name), next((archive[own] for own in pictures if own in archive), None))
    return frames.example(neutral=archive.get(_BASE_COLOR))


def _ending(archive: Archive, ending: str) -> list[str]:
    return [name for name in archive if name.lower().endswith(ending)]


class _Frames:
    """Frames that are files of their own, gathered within the limits."""

    def __init__(self, limits: ExampleLimits) -> None:
        self._limits = limits
        self._vertices: list[np.ndarray] = []
        self._textures: list[bytes] = []
        self._points = self._bytes = 0

    def add(self, vertices: np.ndarray, texture: bytes | None) -> None:
        if self._vertices and len(vertices) != len(self._vertices[0]):
            raise MalformedInput(
                f"frame {len(self._vertices)} has {len(vertices):,} vertices, the first {len(self._vertices[0]):,}; "
                "wanted the same in all: export one head",
                code="other_topology",
            )
        self._vertices.append(vertices)
        self._points += len(vertices)
        _check_frames(len(self._vertices), self._limits, self._points)
        if texture is not None:
            self._textures.append(texture)
            self._bytes += len(texture)
        if self._bytes > self._limits.max_bytes:
            raise TooLarge(
                f"textures of {self._bytes:,} bytes together; the limit is {self._limits.max_bytes:,}: send fewer"
            )

    def example(self, neutral: bytes | None = None, fps: float | None = None, seams: bool = False) -> Example:
        """Without a neutral texture the first frame's is it."""
        return Example(np.stack(self._vertices), fps, wrinkles=self._wrinkles(neutral), seams=seams)

    def _wrinkles(self, neutral: bytes | None) -> TextureRatios | None:
        if len(set(self._textures)) < 2:
            return None
        if len(self._textures) < len(self._vertices):
            raise MalformedInput(
                f"{len(self._textures)} textures for {len(self._vertices)} frames; wanted one a frame, or none",
                code="bad_texture",
            )
        return TextureRatios(self._textures, neutral or self._textures[0])


def _obj_vertices(text: bytes, name: str) -> np.ndarray:
    rows = [line.split()[1:4] for line in text.splitlines() if line.startswith((b"v ", b"v\t"))]
    try:
        return np.array(rows, np.float32).reshape(-1, 3)
    except ValueError as error:
        raise MalformedInput(f"{name} has vertices that are no three numbers; export it anew") from error


def _streamed(data: bytes, limits: ExampleLimits) -> Example:
    stream = parse_stream(data, limits.max_frames)
    _check_frames(len(stream.vertices), limits, stream.vertices.size // 3)
    return Example(stream.vertices, stream.fps, stream.neutral, stream.wrinkles)


def _check_frames(count: int, limits: ExampleLimits, points: int = 0) -> None:
    if count > limits.max_frames or points > limits.max_points:
        raise TooLarge(
            f"an example of {count:,} frames and {points:,} points in all of them; the limits are "
            f"{limits.max_frames:,} and {limits.max_points:,}: send a shorter sequence"
        )
