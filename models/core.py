"""The records that cross Talker: speech in, frames out.

All are frozen and checked once, at construction. Arrays are float32 (indices int32); lengths are metres, times are
seconds. Space is glTF's: +Y up, +Z forward, right-handed.
"""

import math
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import numpy as np
from jaxtyping import Float, Float16, Float32, Int32, UInt8, UInt16

from models.errors import SHOWN, MalformedInput, OutOfRange

SAMPLE_RATE_HZ = 16_000
PLAIN_TEXTURE = 1024
"""Largest textures that keep up with speech: their wrinkles are the engine's own map, interpolated."""
ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
"""Of a style or a template: it fits a URL, an expression, and a file's name."""


@dataclass(frozen=True, eq=False)
class Waveform:
    """Speech: mono, 16 kHz, finite, within -1..1."""

    samples: Float32[np.ndarray, " samples"]
    source_s: float | None = None
    """Seconds of the sound before it was resampled: it may end within the last sample. None: it ends with it."""
    rate_hz: ClassVar[int] = SAMPLE_RATE_HZ

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise MalformedInput(
                f"samples of shape {self.samples.shape} and type {self.samples.dtype}; wanted (n,) float32",
                field="audio",
            )
        if not np.isfinite(self.samples).all():
            raise MalformedInput(
                "the audio holds samples that are not finite (NaN or infinity)", field="audio", code="not_finite"
            )
        if self.samples.size and (self.samples.min() < -1 or self.samples.max() > 1):
            raise MalformedInput("samples outside -1..1; scale the audio down", field="audio")
        if (wanted := frame_count(self.duration_s, self.rate_hz)) != self.samples.size:
            raise MalformedInput(
                f"{self.samples.size} samples for {self.duration_s:g} s of sound; wanted {wanted}; cut both alike",
                field="audio",
            )

    @property
    def duration_s(self) -> float:
        """Seconds of sound."""
        return self.samples.size / self.rate_hz if self.source_s is None else self.source_s


def frame_count(duration_s: float, fps: float) -> int:
    """Frames, or samples, that cover `duration_s`: ceil(duration · fps), immune to the last bits of the product."""
    return math.ceil(duration_s * fps * (1 - 1e-12))


@dataclass(frozen=True, eq=False)
class Source:
    """How the file that a mesh came in held it: what formats that keep the upload's own units and axes give back.

    vertices (V, 3) as they were, in the file's units and axes; turn (3, 3) takes metres, +Y up and +Z forward, there.
    polygon (F,): number of the file's polygon that each triangle is of, from 0 on without gaps; a polygon of n corners
    is n - 2 triangles, a fan from its first corner, in order. material (F,): index into materials, the file's names in
    the order of their first face; skin is the index of the one that the texture at rest belongs to.
    """

    vertices: Float32[np.ndarray, "vertices 3"]
    turn: Float32[np.ndarray, "3 3"]
    polygon: Int32[np.ndarray, " faces"]
    material: Int32[np.ndarray, " faces"]
    materials: tuple[str, ...]
    skin: int = 0


@dataclass(frozen=True, eq=False)
class Mesh:
    """A surface at rest, as the encoders write it.

    vertices (V, 3) in metres; faces (F, 3) into them, counter-clockwise seen from outside; uvs (K, 2) with the origin
    at the lower left and uv_faces (F, 3) into them, so that one vertex may carry several uvs; base_color_png is the
    encoded base-colour texture, or None. source: of a mesh that came as a file, vertex for vertex and face for face.
    """

    vertices: Float32[np.ndarray, "vertices 3"]
    faces: Int32[np.ndarray, "faces 3"]
    uvs: Float32[np.ndarray, "uvs 2"]
    uv_faces: Int32[np.ndarray, "faces 3"]
    base_color_png: bytes | None = None
    source: Source | None = None

    def own(self, vertices: Float32[np.ndarray, "*frames vertices 3"]) -> Float32[np.ndarray, "*frames vertices 3"]:
        """Vertices in metres → in the units and axes of the file that the mesh came in; at rest they are the file's."""
        if self.source is None:
            return vertices
        # a difference, since -0 + 0 is 0, and the file may hold -0
        moved: np.ndarray = self.source.vertices - (self.vertices - vertices) @ self.source.turn.T
        return moved

    def __post_init__(self) -> None:
        if self.faces.shape != self.uv_faces.shape:
            raise MalformedInput(f"{len(self.faces)} faces but {len(self.uv_faces)} uv faces; they must pair up")
        for name, indices, size in (
            ("faces", self.faces, len(self.vertices)),
            ("uv_faces", self.uv_faces, len(self.uvs)),
        ):
            if indices.size and (indices.min() < 0 or indices.max() >= size):
                raise MalformedInput(f"{name} index outside 0..{size - 1}")
        if not (np.isfinite(self.vertices).all() and np.isfinite(self.uvs).all()):
            raise MalformedInput("vertices or uvs that are not finite", code="not_finite")


@dataclass(frozen=True, eq=False)
class Frame:
    """One moment: vertices (V, 3) in metres, in the order of the clip's mesh, at time_s = index / fps.

    wrinkles (S, S, 3), where the clip has textures: the natural logarithm of the frame's texture over the neutral one,
    in sRGB values, on the atlas at the engine's own size, row 0 at the top.
    """

    index: int
    time_s: float
    vertices: Float32[np.ndarray, "vertices 3"]
    wrinkles: Float16[np.ndarray, "size size 3"] | None = None


class Enlarger(Protocol):
    """What makes wrinkle maps larger than the engine's own, and shows more on them. Maps are log-ratios."""

    @property
    def large(self) -> int:
        """Texels along the side of what `image` makes; from there on maps are interpolated."""
        ...

    def image(self, wrinkles: Float[np.ndarray, "own own 3"]) -> Float32[np.ndarray, "large large 3"]:
        """A map of the engine's own size, enlarged. What is zero, with all around it, stays zero."""
        ...

    def rows(
        self, image: Float32[np.ndarray, "large large 3"], size: int
    ) -> Iterator[Float32[np.ndarray, "rows size 3"]]:
        """An enlarged map, or a sum of several, at `size`, in strips from the top, laid out as the clip's texture."""
        ...

    def on_atlas(self, texture: UInt8[np.ndarray, "n n 3"]) -> UInt8[np.ndarray, "n n 3"]:
        """A texture laid out as the clip's, as maps and images are, at its own size."""
        ...


class Codes(NamedTuple):
    """Maps of some moments as numbers of codebook entries; wrinkle is None without textures."""

    motion: UInt16[np.ndarray, "moments rows columns"]
    wrinkle: UInt16[np.ndarray, "moments rows columns"] | None


class CodeBatch(NamedTuple):
    """Consecutive moments of TexTalker, from number `first` on: codes, and how far the lips close, 0..1."""

    first: int
    contact: Float32[np.ndarray, " moments"]
    codes: Codes


@dataclass(frozen=True)
class CodeSpace:
    """What codes are numbers of: the checkpoint that has the entries, how many, and codes along the side of a map."""

    checkpoint: str
    entries: int
    grid: int


@dataclass(frozen=True, eq=False)
class CodeStream:
    """A clip before its maps are decoded: batches of moments, once, in order, and what makes frames of them."""

    moments: int
    """Moments in all, `models.textalker.codes.RATE_HZ` a second."""
    spaces: Mapping[str, CodeSpace]
    """By part, motion and, with textures, wrinkle."""
    template: str
    resolution: int | None
    intensity: float
    batches: Generator[CodeBatch, None, None]


@dataclass(frozen=True, eq=False)
class Clip:
    """An animation under way: what is known before the first frame, and the frames, once, in order.

    Closing `frames` (`clip.frames.close()`) frees the engine. `codes` are the same performance, to be read instead.
    """

    mesh: Mesh
    fps: float
    frame_count: int
    seed: int
    engine: str
    checkpoints: Mapping[str, str]
    """sha256 of each checkpoint that made it, by name."""
    frames: Generator[Frame, None, None]
    texture: int | None = None
    """Size of the textures that were asked for: with it, every frame has wrinkles."""
    styles: Mapping[str, str] = field(default_factory=dict)
    """The expressions of the motion and of the wrinkle style, by those names."""
    codes: CodeStream | None = None
    """Of an engine that has them."""
    enlarger: Enlarger | None = None
    """Of textures above PLAIN_TEXTURE."""


def check_id(kind: str, id: str, *, field: str = "id") -> None:
    """Refuse what is no ID: OutOfRange. `kind` says of what it would be."""
    if not ID.fullmatch(id):
        raise OutOfRange(
            f"{kind} id {id[:SHOWN]!r}; wanted a lower-case letter or digit, then up to 63 of those, - and _",
            field=field,
        )


@dataclass(frozen=True, eq=False)
class StylePivot:
    """A style: mean latents of somebody's motion and of their wrinkles, either or both (TexTalker 4.4, Eq. 5).

    motion (Dm,) and wrinkle (Dw,) lie in the spaces of the auto-encoders; statistics say what the style looks like.
    """

    id: str
    description: str
    origin: str
    statistics: Mapping[str, float]
    motion: Float32[np.ndarray, " motion"] | None
    wrinkle: Float32[np.ndarray, " wrinkle"] | None

    def __post_init__(self) -> None:
        check_id("style", self.id)
        if self.motion is None and self.wrinkle is None:
            raise OutOfRange(f"style {self.id} has neither motion nor wrinkles; give one of them", field="motion")
        for part in (self.motion, self.wrinkle):
            if part is not None and not (part.ndim == 1 and part.dtype == np.float32 and np.isfinite(part).all()):
                raise MalformedInput(f"style {self.id} holds latents that are no finite vector; make it again")


@dataclass(frozen=True)
class AnimateOptions:
    """What one call wants, apart from speech and head. Ranges are the contract's; limits are the service's."""

    engine: str = "mmtalker"
    resolution: int | None = None
    """None is `native`: the template's own vertices and faces; M asks for exactly M surface points."""
    fps: float = 30.0
    intensity: float = 1.0
    seed: int = 0
    motion_style: str = "neutral"
    wrinkle_style: str = "neutral"
    texture: int | None = None
    """Size of the wrinkle textures; None makes none."""

    MIN_POINTS: ClassVar[int] = 500
    MAX_POINTS: ClassVar[int] = 100_000

    def __post_init__(self) -> None:
        for name, low, high in (("fps", 1.0, 120.0), ("intensity", 0.0, 2.0)):
            value = getattr(self, name)
            if not math.isfinite(value):
                raise MalformedInput(f"{name} = {value} is not finite", field=name, code="not_finite")
            if not low <= value <= high:
                raise OutOfRange(f"{name} = {value:g}; wanted {low:g} to {high:g}", field=name)
        if self.resolution is not None and not self.MIN_POINTS <= self.resolution <= self.MAX_POINTS:
            raise OutOfRange(
                f"resolution = {self.resolution}; wanted native, or {self.MIN_POINTS} to {self.MAX_POINTS} points",
                field="resolution",
            )
        if not 0 <= self.seed < 2**63:
            raise OutOfRange(f"seed = {self.seed}; wanted 0 to 2^63 - 1", field="seed")
