"""The wrinkles of a clip as few textures: at most 8 shapes, and one weight of each a frame."""

import math
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float16, Float32, Float64, UInt8

from service.encoders.morphs import sparse_signs
from service.encoders.spool import MapSpool
from service.encoders.textures import Picture, TextureComposer, png, resize

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


@dataclass(frozen=True, eq=False)
class WrinkleBasis:
    """log ratio of a frame = Σ weight · (scale · texel / 255 + offset), over the textures.

    textures (K, size, size, 3), K 0 to 8; scale and offset (K,); weights (T, K). A texel that never changes is exactly
    0. psnr_db compares the frames' textures with what this gives, at the engine's own size, over the texels that ever
    change and over all frames; None where the two are equal.
    """

    textures: UInt8[np.ndarray, "textures size size 3"]
    scale: Float64[np.ndarray, " textures"]
    offset: Float64[np.ndarray, " textures"]
    weights: Float64[np.ndarray, "frames textures"]
    psnr_db: float | None

    def pictures(self) -> list[Picture]:
        """The textures as PNG."""
        return [png(texture) for texture in self.textures]

    def fields(self) -> dict[str, Any]:
        """What a reader needs besides the textures, for JSON."""
        return {
            "scale": self.scale.tolist(),
            "offset": self.offset.tolist(),
            "psnr_db": self.psnr_db,
            "weights": self.weights.tolist(),
        }


class BasisFit:
    """Takes the wrinkle maps of a clip one by one, then finds their basis.

    A sketch of every map gives the leading directions in time (a randomised range finder: Halko, Martinsson and Tropp
    2011); a pass over the spooled maps gives the textures that go with them, and a second one the weights that suit the
    textures as they were rounded, and the error. Memory does not grow with the number of frames, but for some hundred
    numbers a frame.
    """

    def __init__(self, base_color_png: bytes | None, size: int) -> None:
        self._base_color_png, self._size = base_color_png, size
        self._spool = MapSpool()
        self._sketch: list[Float32[np.ndarray, " sketch"]] = []
        self._stored_error = 0.0

    def append(self, wrinkles: Float16[np.ndarray, "own own 3"]) -> None:
        """Store one more frame's map; every one must have the size of the first."""
        if not self._sketch:
            self._own = len(wrinkles)
            base = TextureComposer(self._base_color_png, self._own).base
            self._base = base.ravel().astype(np.float32)
            self._signs = sparse_signs(_SKETCH, wrinkles.size)
            self._changing = np.zeros(wrinkles.size // 3, bool)
        came = wrinkles.ravel().astype(np.float32)
        stored = self._spool.append(came)
        self._stored_error += self._squares(stored, came)
        self._changing |= stored.reshape(-1, 3).any(axis=1)
        self._sketch.append(self._signs @ stored)

    def fit(self) -> Generator[bytes, None, WrinkleBasis]:
        """Find the basis. The passes take long: each yields an empty chunk now and then, where it may be closed."""
        shapes = yield from self._shapes()
        textures = np.zeros((len(shapes), self._size, self._size, 3), np.uint8)
        basis = np.zeros_like(shapes)
        scale, zero = np.zeros((2, len(shapes)))
        for index, shape in enumerate(shapes):
            sized = resize(shape.reshape(self._own, self._own, 3), self._size)
            scale[index], zero[index] = grain = _grain_of(sized)
            textures[index] = _levels(sized, *grain)
            basis[index] = (_levels(shape, *grain) - grain[1]) * (grain[0] / 255)
            yield b""
        weights, error = yield from self._weigh(basis)
        return WrinkleBasis(textures, scale, 0 - scale * (zero / 255), weights, self._psnr_db(error))

    def close(self) -> None:
        """Delete what was stored."""
        self._spool.close()

    def _shapes(self) -> Generator[bytes, None, Float32[np.ndarray, "textures values"]]:
        """The strongest shapes (K, values), scaled so that the largest weight of each is 1."""
        left, strength, _ = np.linalg.svd(np.stack(self._sketch), full_matrices=False)
        times = left[:, :_DIRECTIONS][:, strength[:_DIRECTIONS] > _NEGLIGIBLE * strength[0]]
        directions = np.zeros((times.shape[1], len(self._base)), np.float32)
        for rows, chunk in self._chunks():
            yield b""
            directions += times[rows].T @ chunk
        squares, axes = np.linalg.eigh(directions.astype(np.float64) @ directions.T)
        leading = np.flatnonzero(squares > _NEGLIGIBLE**2 * squares.max(initial=0))[::-1][:MAX_TEXTURES]
        mixture = axes[:, leading]
        weights = times @ mixture
        peaks = np.abs(weights).max(axis=0, initial=0) * np.where(weights.sum(axis=0) < 0, -1, 1)
        return ((mixture * peaks).T @ directions).astype(np.float32)

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

    def _psnr_db(self, error: float) -> float | None:
        """From the sum of squares against the stored maps. What storing cost is added as if both errors always met."""
        count = len(self._spool) * 3 * int(np.count_nonzero(self._changing))
        if not count:
            return None
        rms = math.sqrt(error / count) + math.sqrt(self._stored_error / count)
        return math.floor(2000 * math.log10(255 / rms)) / 100 if rms else None


def _grain_of(shape: Float32[np.ndarray, "..."]) -> tuple[float, float]:
    """Range of 8 bits that holds a shape, and the level that stands for 0."""
    low, high = float(shape.min(initial=0)), float(shape.max(initial=0))
    scale = (high - low) * 255 / 254  # one level to spare: 0 is rounded to a level, and shifts the others
    return scale, float(np.rint(-low / scale * 255))


def _levels(shape: Float32[np.ndarray, "..."], scale: float, zero: float) -> UInt8[np.ndarray, "..."]:
    """A shape in 8 bits."""
    return np.clip(np.rint(shape * np.float32(255 / scale)) + np.float32(zero), 0, 255).astype(np.uint8)
