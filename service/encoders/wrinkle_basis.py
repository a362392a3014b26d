"""The wrinkles of a clip as few textures: at most 8 shapes, and one weight of each a frame."""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Float64, Int64, UInt8
from scipy.linalg import qr

from models.core import Enlarger
from service.encoders.morphs import sparse_signs
from service.encoders.spool import MapSpool
from service.encoders.textures import Picture, TextureComposer, pixels, resize, small_or_jpeg

MAX_TEXTURES = 8

_SKETCH = 64
_DIRECTIONS = 16
"""Directions in time that are kept to choose the textures from."""
_NEGLIGIBLE = 1e-4
"""Directions this much weaker than the strongest are rounding."""
_CHUNK_FRAMES = 8
"""Maps that a pass holds at once, as float32: 6 MB at 256, 25 MB at 512."""
_DECIMALS = 5
"""Of a weight, which is at most about 1."""
_DAMPING = 1e-4
"""Keeps sums of enlarged frames from amplifying what each frame has of its own."""
_CHECKED = 4
"""Frames that are enlarged on their own to see how far the basis is from them."""


@dataclass(frozen=True, eq=False)
class WrinkleBasis:
    """log ratio of a frame = Σ weight · (scale · texel / 255 + offset), over the pictures' texels.

    pictures K, 0 to 8, of the size asked for; scale and offset (K,); weights (T, K). A texel that never changes is
    exactly 0. psnr_db compares the frames' textures with what this gives, at the engine's own size, over the texels
    that ever change and over all frames, with what encoding the pictures cost on top; None where the two are equal.
    enlarged_psnr_db compares a few frames with what they are if each is enlarged on its own, at the enlarger's size;
    None without an enlarger.
    """

    pictures: Sequence[Picture]
    scale: Float64[np.ndarray, " pictures"]
    offset: Float64[np.ndarray, " pictures"]
    weights: Float64[np.ndarray, "frames pictures"]
    psnr_db: float | None
    enlarged_psnr_db: float | None = None

    def fields(self) -> dict[str, Any]:
        """What a reader needs besides the pictures, for JSON."""
        return {
            "scale": self.scale.tolist(),
            "offset": self.offset.tolist(),
            "psnr_db": self.psnr_db,
            **({} if self.enlarged_psnr_db is None else {"enlarged_psnr_db": self.enlarged_psnr_db}),
            "weights": self.weights.tolist(),
        }


@dataclass(frozen=True, eq=False)
class _Shapes:
    """The strongest shapes of a clip, scaled so that the largest weight of each is 1: mixture @ directions.

    A frame is times[t] @ directions; strength is how much of all frames each direction is.
    """

    directions: Float32[np.ndarray, "directions values"]
    times: Float32[np.ndarray, "frames directions"]
    strength: Float32[np.ndarray, " directions"]
    mixture: Float64[np.ndarray, "shapes directions"]

    @property
    def values(self) -> Float32[np.ndarray, "shapes values"]:
        """The shapes."""
        return np.asarray(self.mixture @ self.directions, np.float32)

    def of_frames(self) -> tuple[Int64[np.ndarray, " keys"], Float64[np.ndarray, "shapes keys"]]:
        """The shapes as sums of a few frames that differ most, and of which frames."""
        scaled = self.times * self.strength
        keys = np.sort(qr(scaled.T, mode="r", pivoting=True)[1][: scaled.shape[1]])
        known = scaled[keys].astype(np.float64)
        gram = known @ known.T
        gram += _DAMPING * np.trace(gram) / len(gram) * np.eye(len(gram))
        return keys, (self.mixture * self.strength) @ known.T @ np.linalg.inv(gram)


class BasisFit:
    """Takes the wrinkle maps of a clip one by one, then finds their basis.

    A sketch of every map gives the leading directions in time (a randomised range finder: Halko, Martinsson and Tropp
    2011); a pass over the spooled maps gives the shapes that go with them, and a second one the weights that suit the
    shapes as they were rounded, and the error. Memory does not grow with the number of frames, but for some hundred
    numbers a frame. An enlarger, which is not linear, is shown frames, never shapes: the shapes become sums of the few
    frames that differ most, and the pictures the same sums of those frames enlarged.
    """

    def __init__(self, base_color_png: bytes | None, size: int, enlarger: Enlarger | None = None) -> None:
        self._base_color_png, self._size, self._enlarger = base_color_png, size, enlarger
        self._spool = MapSpool()
        self._sketch: list[Float32[np.ndarray, " sketch"]] = []
        self._stored_error = 0.0

    def append(self, wrinkles: Float16[np.ndarray, "own own 3"]) -> None:
        """Store one more frame's map; every one must have the size of the first."""
        if not self._sketch:
            self._own = len(wrinkles)
            self._base = self._base_at(self._own).ravel()
            self._signs = sparse_signs(_SKETCH, wrinkles.size)
            self._changing = np.zeros(wrinkles.size // 3, bool)
        came = wrinkles.ravel().astype(np.float32)
        stored = self._spool.append(came)
        self._stored_error += self._squares(stored, came)
        self._changing |= stored.reshape(-1, 3).any(axis=1)
        self._sketch.append(self._signs @ stored)

    def fit(self) -> Generator[bytes, None, WrinkleBasis]:
        """Find the basis. The passes take long: each yields an empty chunk now and then, where it may be closed."""
        found = yield from self._shapes()
        if self._enlarger is None:
            shapes, images = found.values, None
        else:
            shapes, images = yield from self._enlarged(found, self._enlarger)
        pictures, basis, lost = list[Picture](), np.zeros_like(shapes), np.zeros(len(shapes))
        changed = np.zeros((self._size, self._size), bool)
        scale, zero = np.zeros((2, len(shapes)))
        for index, shape in enumerate(shapes):
            large = resize(shape.reshape(self._own, self._own, 3), self._size) if images is None else images[index]
            scale[index], zero[index] = grain = _grain_of(large)
            levels = self._sized_levels(large, grain)
            yield b""
            pictures.append(small_or_jpeg(levels))
            lost[index] = _lost(pictures[-1], levels, zero[index], changed)
            basis[index] = (_levels(shape, *grain) - grain[1]) * (grain[0] / 255)
            yield b""
        weights, error = yield from self._weigh(basis)
        coding = scale / 255 * np.sqrt(lost / (3 * max(int(np.count_nonzero(changed)), 1)))
        offset, coded = 0 - scale * (zero / 255), coding @ np.sqrt(np.square(weights).mean(0)) if len(shapes) else 0.0
        beside = None if images is None else (yield from self._enlarged_psnr_db(images, weights))
        return WrinkleBasis(pictures, scale, offset, weights, self._psnr_db(error, float(coded)), beside)

    def close(self) -> None:
        """Delete what was stored."""
        self._spool.close()

    def _shapes(self) -> Generator[bytes, None, _Shapes]:
        left, strength, _ = np.linalg.svd(np.stack(self._sketch), full_matrices=False)
        kept = strength[:_DIRECTIONS] > _NEGLIGIBLE * strength[0]
        times = left[:, :_DIRECTIONS][:, kept]
        directions = np.zeros((times.shape[1], len(self._base)), np.float32)
        for rows, chunk in self._chunks():
            yield b""
            directions += times[rows].T @ chunk
        squares, axes = np.linalg.eigh(directions.astype(np.float64) @ directions.T)
        leading = np.flatnonzero(squares > _NEGLIGIBLE**2 * squares.max(initial=0))[::-1][:MAX_TEXTURES]
        mixture = axes[:, leading]
        weights = times @ mixture
        peaks = np.abs(weights).max(axis=0, initial=0) * np.where(weights.sum(axis=0) < 0, -1, 1)
        return _Shapes(directions, times, strength[:_DIRECTIONS][kept], (mixture * peaks).T)

    def _enlarged(
        self, found: _Shapes, enlarger: Enlarger
    ) -> Generator[
        bytes, None, tuple[Float32[np.ndarray, "shapes values"], Float32[np.ndarray, "shapes large large 3"]]
    ]:
        """The shapes as sums of frames, at the engine's own size and enlarged."""
        keys, shares = found.of_frames() if len(found.mixture) else (np.zeros(0, int), np.zeros((0, 0)))
        shapes = np.zeros((len(shares), len(self._base)), np.float32)
        images = np.zeros((len(shares), enlarger.large, enlarger.large, 3), np.float32)
        for share, key in zip(shares.T.astype(np.float32), self._some(keys), strict=True):
            shapes += share[:, None] * key
            image = enlarger.image(key.reshape(self._own, self._own, 3))
            for index, each in enumerate(share):
                images[index] += each * image
            yield b""
        return shapes, images

    def _enlarged_psnr_db(
        self, images: Float32[np.ndarray, "shapes large large 3"], weights: Float64[np.ndarray, "frames shapes"]
    ) -> Generator[bytes, None, float | None]:
        """How near the basis comes to a few frames that are enlarged on their own, over the texels that change."""
        assert self._enlarger is not None
        count = min(_CHECKED, len(self._spool))
        rows = np.unique(np.arange(1, 2 * count, 2) * len(self._spool) // (2 * count))
        base = self._base_at(self._enlarger.large)
        total, texels = 0.0, 0
        for row, flat in zip(rows, self._some(rows), strict=True):
            wanted = self._enlarger.image(flat.reshape(self._own, self._own, 3))
            given = np.tensordot(weights[row].astype(np.float32), images, 1)
            total += float(np.square((np.exp(given) - np.exp(wanted)) * base, dtype=np.float64).sum())
            texels += int(np.count_nonzero(wanted.any(2) | given.any(2)))
            yield b""
        return _decibels(math.sqrt(total / (3 * texels))) if total else None

    def _some(self, wanted: Int64[np.ndarray, " rows"]) -> Iterator[Float32[np.ndarray, " values"]]:
        """Some of the spooled maps, in order."""
        rows = set(wanted.tolist())
        with closing(self._spool.maps()) as maps:
            yield from (each for row, each in enumerate(maps) if row in rows)

    def _sized_levels(
        self, shape: Float32[np.ndarray, "own own 3"], grain: tuple[float, float]
    ) -> UInt8[np.ndarray, "size size 3"]:
        if self._enlarger is None:
            return _levels(shape, *grain)
        levels, start = np.empty((self._size, self._size, 3), np.uint8), 0
        for strip in self._enlarger.rows(shape, self._size):
            levels[start : start + len(strip)] = _levels(strip, *grain)
            start += len(strip)
        return levels

    def _base_at(self, size: int) -> Float32[np.ndarray, "size size 3"]:
        """The texture at rest where maps lie, since these are compared there, however it is laid out."""
        texture = TextureComposer(self._base_color_png, size).base
        return np.asarray(texture if self._enlarger is None else self._enlarger.on_atlas(texture), np.float32)

    def _weigh(
        self, basis: Float32[np.ndarray, "textures values"]
    ) -> Generator[bytes, None, tuple[Float64[np.ndarray, "frames textures"], float]]:
        """Least-squares weights of a basis, and the sum of the squared errors that are left."""
        weights, error = np.empty((len(self._spool), len(basis))), 0.0
        inverse = np.linalg.inv(basis.astype(np.float64) @ basis.T)
        for rows, chunk in self._chunks():
            yield b""
            weights[rows] = np.round((chunk @ basis.T) @ inverse, _DECIMALS)
            error += self._squares(weights[rows].astype(np.float32) @ basis, chunk)
        return weights, error

    def _chunks(self) -> Iterator[tuple[slice, Float32[np.ndarray, "frames values"]]]:
        with closing(self._spool.maps()) as maps:
            for start in range(0, len(self._spool), _CHUNK_FRAMES):
                count = min(_CHUNK_FRAMES, len(self._spool) - start)
                yield slice(start, start + count), np.stack([next(maps) for _ in range(count)])

    def _squares(self, given: Float[np.ndarray, "... values"], wanted: Float[np.ndarray, "... values"]) -> float:
        """Sum of the squared differences of two textures, in 8-bit values."""
        return float(np.square((np.exp(given) - np.exp(wanted)) * self._base, dtype=np.float64).sum())

    def _psnr_db(self, error: float, coded: float) -> float | None:
        """From the sum of squares against the stored maps. What storing and encoding cost, the latter in log ratio, is
        added as if all errors always met.
        """
        changing = np.repeat(self._changing, 3)
        count = len(self._spool) * int(np.count_nonzero(changing))
        if not count:
            return None
        color = math.sqrt(float(np.square(self._base[changing], dtype=np.float64).mean()))
        return _decibels(math.sqrt(error / count) + math.sqrt(self._stored_error / count) + coded * color)


def _decibels(rms: float) -> float | None:
    """Of an error in 8-bit values, rounded down; None for none."""
    return math.floor(2000 * math.log10(255 / rms)) / 100 if rms else None


def _lost(
    picture: Picture, levels: UInt8[np.ndarray, "size size 3"], zero: float, changed: Bool[np.ndarray, "size size"]
) -> float:
    """Sum of the squares of what encoding cost; texels of another level than zero's are noted as `changed`. In strips:
    those of a whole image would take 0.8 GB.
    """
    if picture.media_type == "image/png":
        return 0.0
    given, total = pixels(picture), 0
    for start in range(0, len(levels), 64):
        rows = slice(start, start + 64)
        total += int(np.square(given[rows].astype(np.int32) - levels[rows]).sum())
        changed[rows] |= (levels[rows] != zero).any(2)
    return total


def _grain_of(shape: Float32[np.ndarray, "..."]) -> tuple[float, float]:
    """Range of 8 bits that holds a shape, and the level that stands for 0."""
    low, high = float(shape.min(initial=0)), float(shape.max(initial=0))
    scale = (high - low) * 255 / 254  # one level to spare: 0 is rounded to a level, and shifts the others
    return scale, float(np.rint(-low / scale * 255))


def _levels(shape: Float32[np.ndarray, "..."], scale: float, zero: float) -> UInt8[np.ndarray, "..."]:
    """A shape in 8 bits."""
    return np.clip(np.rint(shape * np.float32(255 / scale)) + np.float32(zero), 0, 255).astype(np.uint8)
