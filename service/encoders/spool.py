"""What a whole clip holds, kept in memory up to a bound and on disk past it: its offsets, its wrinkle maps."""

import zlib
from collections.abc import Generator, Iterator
from tempfile import SpooledTemporaryFile

import numpy as np
from jaxtyping import Float, Float32

MEMORY_BOUND = 64 << 20
"""Bytes of a spool that stay in memory."""
CHUNK_FRAMES = 24
"""Frames that a reading pass holds at once: they stay in the cache, and 100,000 vertices take 29 MB."""
_LEVELS = 32767
_MAP_LEVELS = 127


class OffsetSpool:
    """Frames of offsets (V, 3), written once and read in passes.

    A frame is stored as int16 with one scale, half the bytes of float32: where its largest offset is 20 mm a vertex is
    off by at most 0.0005 mm. Vertices that have never moved are left out when reading.
    """

    def __init__(self, vertices: int) -> None:
        self._file = SpooledTemporaryFile(max_size=MEMORY_BOUND)  # noqa: SIM115 (`close` closes it)
        self._scales: list[float] = []
        self._moving = np.zeros(vertices, bool)

    def append(self, offsets: Float32[np.ndarray, "vertices 3"]) -> None:
        """Store one more frame, in metres."""
        scale = float(np.abs(offsets).max(initial=0)) / _LEVELS
        levels = np.rint(offsets / (scale or 1)).astype(np.int16)
        self._moving |= levels.any(axis=1)
        self._scales.append(scale)
        self._file.write(levels.tobytes())

    def __len__(self) -> int:
        return len(self._scales)

    @property
    def moving(self) -> np.ndarray:
        """Which vertices (V,) have moved."""
        return self._moving

    @property
    def slack(self) -> float:
        """How far, in metres, a stored vertex may lie from the one that came: half a level along each axis."""
        return max(self._scales, default=0.0) / 2 * 3**0.5

    def chunks(self) -> Iterator[tuple[slice, Float32[np.ndarray, "frames columns"]]]:
        """Yield (which frames, their offsets) in order; the columns are x, y, z of each vertex that has moved."""
        width = 3 * len(self._moving)
        columns = np.flatnonzero(np.repeat(self._moving, 3)) if not self._moving.all() else slice(None)
        self._file.seek(0)
        for start in range(0, len(self), CHUNK_FRAMES):
            scales = np.array(self._scales[start : start + CHUNK_FRAMES], np.float32)
            levels = np.frombuffer(self._file.read(2 * width * len(scales)), np.int16).reshape(len(scales), width)
            yield slice(start, start + len(scales)), levels[:, columns] * scales[:, None]

    def close(self) -> None:
        """Delete what was stored."""
        self._file.close()


class MapSpool:
    """Wrinkle maps, flat, written once and read in passes.

    A map is stored as int8 with one scale, deflated: a tenth of float16. `append` gives back what was stored, so that
    whoever needs the error of that can add it up.
    """

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=MEMORY_BOUND)  # noqa: SIM115 (`close` closes it)
        self._entries: list[tuple[float, int]] = []

    def append(self, flat: Float[np.ndarray, " values"]) -> Float32[np.ndarray, " values"]:
        """Store one more map; return it as it will be read."""
        scale = float(np.abs(flat).max(initial=0)) / _MAP_LEVELS
        levels = np.rint(flat / np.float32(scale or 1)).astype(np.int8)
        packed = zlib.compress(levels.tobytes(), 1)
        self._entries.append((scale, len(packed)))
        self._file.write(packed)
        return levels * np.float32(scale)

    def __len__(self) -> int:
        return len(self._entries)

    def maps(self) -> Generator[Float32[np.ndarray, " values"], None, None]:
        """Yield the maps in order."""
        self._file.seek(0)
        for scale, size in self._entries:
            yield np.frombuffer(zlib.decompress(self._file.read(size)), np.int8) * np.float32(scale)

    def close(self) -> None:
        """Delete what was stored."""
        self._file.close()
