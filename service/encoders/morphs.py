"""The motion of a clip as few morph targets: at most 64 shapes, and one weight of each a frame."""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from scipy import sparse

from service.encoders.spool import OffsetSpool

MAX_TARGETS = 64
GOAL_MM = 0.05
"""Targets are added until no vertex of any frame is further off, half of what the product needs."""

_STEP = 4
"""Targets added at a time."""
_ROUNDS = 5
"""Attempts; each looks harder at the frames and the vertices that the last one served worst."""
_MILDEST = 0.0025
"""Relative error that counts as none, so that no frame and no vertex loses all its weight."""
_DIRECTIONS = 128
"""Directions of motion that are kept to choose the targets from."""
_SKETCH = 256
_SIGNS = 8
_NEGLIGIBLE = 1e-6
"""Directions this much weaker than the strongest are rounding."""
_BLOCK = 1 << 16
"""Columns that a product over all directions takes at once, so that its temporaries stay small."""


@dataclass(frozen=True, eq=False)
class Morphs:
    """targets (K, V, 3) in metres and weights (T, K) within 0..1, whose product is the offsets within max_error_mm.

    K is 1 to 64. The first target is constant: its weight is always 1.
    """

    targets: Float32[np.ndarray, "targets vertices 3"]
    weights: Float32[np.ndarray, "frames targets"]
    max_error_mm: float


@dataclass(frozen=True, eq=False)
class _Subspace:
    """Offsets ≈ coordinates @ directions. The rows of directions have unit length and are nearly orthogonal."""

    coordinates: Float[np.ndarray, "frames rank"]
    directions: Float32[np.ndarray, "rank columns"]


@dataclass(frozen=True, eq=False)
class _Emphasis:
    """How much each frame and each column counts in the least squares."""

    frames: Float[np.ndarray, " frames"]
    columns: Float32[np.ndarray, " columns"]


@dataclass(frozen=True, eq=False)
class _Attempt:
    """Shapes are mixture @ directions; error is what the worst vertex is off, in metres, by frame and by vertex."""

    mixture: Float32[np.ndarray, "targets rank"]
    weights: Float32[np.ndarray, "frames targets"]
    frame_error: Float32[np.ndarray, " frames"]
    vertex_error: Float32[np.ndarray, " vertices"]

    @property
    def cost(self) -> tuple[int, float]:
        """Fewer targets are better, then a smaller error: every attempt below 64 targets meets the goal."""
        return len(self.mixture), float(self.frame_error.max())


def compress(spool: OffsetSpool) -> Generator[bytes, None, Morphs]:
    """Find the fewest targets, up to 64, that bring every vertex of every frame within GOAL_MM.

    A truncated SVD is best in the mean, but the promise is about the worst vertex; so the SVD is taken again with the
    badly served frames and vertices weighted up (as in Lawson's algorithm), which halves the worst error. Memory does
    not grow with the number of frames, but for some hundred numbers a frame.

    The passes over the clip take long: each yields an empty chunk at every chunk of frames, where it may be closed.
    """
    motion = yield from _reduce(spool)
    if motion is None:
        return Morphs(np.zeros((1, len(spool.moving), 3), np.float32), np.ones((len(spool), 1), np.float32), 0.0)
    goal = GOAL_MM * 1e-3 - spool.slack
    emphasis = _Emphasis(np.ones(len(spool)), np.ones(motion.directions.shape[1], np.float32))
    attempts = []
    for done in range(_ROUNDS):
        attempts.append((yield from _attempt(spool, motion, emphasis, goal)))
        emphasis = _emphasise(emphasis, attempts[-1], 1 / (2 + done))  # ever less: the same power would oscillate
    return (yield from _settle(spool, motion, min(attempts, key=lambda attempt: attempt.cost)))


def _reduce(spool: OffsetSpool) -> Generator[bytes, None, _Subspace | None]:
    """Find the directions in which the clip moves most, None when it does not move.

    Two passes of a randomised range finder (Halko, Martinsson and Tropp 2011) with sparse signs and a fixed seed.
    """
    columns = 3 * int(np.count_nonzero(spool.moving))
    if not columns:
        return None
    signs = sparse_signs(_SKETCH, columns)
    image = np.empty((len(spool), _SKETCH), np.float32)
    for rows, chunk in spool.chunks():
        yield b""
        image[rows] = (signs @ chunk.T).T
    left, strength, _ = np.linalg.svd(image, full_matrices=False)
    left = left[:, :_DIRECTIONS][:, strength[:_DIRECTIONS] > _NEGLIGIBLE * strength[0]]
    directions = np.zeros((left.shape[1], columns), np.float32)
    for rows, chunk in spool.chunks():
        yield b""
        for block in _blocks(columns):
            directions[:, block] += left[rows].T @ chunk[:, block]
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    directions /= lengths
    return _Subspace(left.astype(np.float64) * lengths.T, directions)


def sparse_signs(rows: int, columns: int) -> sparse.csr_array:
    """Draw a matrix with _SIGNS entries ±1 a column: with 256 rows it projects in 1/32 of the time of a dense one."""
    draw = np.random.default_rng(0)
    row = draw.integers(rows, size=_SIGNS * columns)
    values = draw.integers(2, size=_SIGNS * columns).astype(np.float32) * 2 - 1
    return sparse.csr_array((values, (row, np.repeat(np.arange(columns), _SIGNS))), shape=(rows, columns))


def _attempt(
    spool: OffsetSpool, motion: _Subspace, emphasis: _Emphasis, goal: float
) -> Generator[bytes, None, _Attempt]:
    """Pass over the clip once; the number of targets rises whenever a chunk needs it."""
    mixture = _principal(motion, emphasis)
    shapes = mixture @ motion.directions
    importance = emphasis.columns**2
    weights = np.empty((len(spool), len(shapes)), np.float32)
    frame_error = np.empty(len(spool), np.float32)
    vertex_error = np.zeros(shapes.shape[1] // 3, np.float32)
    count = min(_STEP, len(shapes))
    for rows, chunk in spool.chunks():
        yield b""
        weights[rows] = chunk_weights = (chunk * importance) @ shapes.T
        residual = chunk - chunk_weights[:, :count] @ shapes[:count]
        while (error := _lengths(residual)).max() > goal and count < len(shapes):
            more = slice(count, count + _STEP)
            residual -= chunk_weights[:, more] @ shapes[more]
            count = min(count + _STEP, len(shapes))
        frame_error[rows] = error.max(axis=1)
        np.maximum(vertex_error, error.max(axis=0), out=vertex_error)
    return _Attempt(mixture[:count], weights[:, :count], frame_error, vertex_error)


def _principal(motion: _Subspace, emphasis: _Emphasis) -> Float32[np.ndarray, "targets rank"]:
    """Mix the directions into the leading right singular vectors of the weighted clip, orthonormal in its metric.

    With frames weighted by p, columns by q and M = (D q)(D q)ᵀ = R Rᵀ, the weighted clip is (p C R)(R⁻¹ D q), whose
    second factor has orthonormal rows; the eigenvectors of (p C R)ᵀ(p C R) do the rest.
    """
    metric = np.zeros(2 * motion.directions.shape[:1])
    for block in _blocks(motion.directions.shape[1]):
        weighted = motion.directions[:, block] * emphasis.columns[block]
        metric += weighted @ weighted.T
    squares, axes = np.linalg.eigh(metric)
    sound = squares > _NEGLIGIBLE * squares[-1]
    scale = np.sqrt(squares[sound])
    shape = emphasis.frames[:, None] * (motion.coordinates @ (axes[:, sound] * scale))
    _, turn = np.linalg.eigh(shape.T @ shape)
    leading = turn[:, ::-1][:, : MAX_TARGETS - 1]
    mixture: np.ndarray = ((axes[:, sound] / scale) @ leading).T.astype(np.float32)
    return mixture


def _emphasise(emphasis: _Emphasis, attempt: _Attempt, power: float) -> _Emphasis:
    """Weigh frames and vertices by a power of their relative error."""
    frames, vertices = (
        np.maximum(error / (error.max() or 1), _MILDEST) ** power
        for error in (attempt.frame_error, attempt.vertex_error)
    )
    return _Emphasis(emphasis.frames * frames, emphasis.columns * np.repeat(vertices, 3))


def _settle(spool: OffsetSpool, motion: _Subspace, attempt: _Attempt) -> Generator[bytes, None, Morphs]:
    """Shift and scale the weights into 0..1, and measure the error of what will be written.

    Blender's importer takes a slider's range from its first key and clamps the rest, so negative weights would be lost;
    what the shift takes away is the first target, constant.
    """
    lowest = attempt.weights.min(axis=0)
    reach = attempt.weights.max(axis=0) - lowest
    varies = reach > 0
    shapes = attempt.mixture @ motion.directions
    constant = lowest @ shapes
    shapes *= reach[:, None]
    shapes = np.concatenate([constant[None], shapes[varies]])
    weights = np.ones((len(spool), len(shapes)), np.float32)
    weights[:, 1:] = (attempt.weights - lowest)[:, varies] / reach[varies]
    worst = 0.0
    for rows, chunk in spool.chunks():
        yield b""
        worst = max(worst, float(_lengths(chunk - weights[rows] @ shapes).max()))
    targets = np.zeros((len(shapes), len(spool.moving), 3), np.float32)
    targets[:, spool.moving] = shapes.reshape(len(shapes), -1, 3)
    return Morphs(targets, weights, 1e3 * (worst + spool.slack))


def _lengths(offsets: Float32[np.ndarray, "frames columns"]) -> Float32[np.ndarray, "frames vertices"]:
    rows = offsets.reshape(len(offsets), -1, 3)
    lengths: np.ndarray = np.sqrt(np.einsum("tvx,tvx->tv", rows, rows))
    return lengths


def _blocks(columns: int) -> list[slice]:
    return [slice(start, start + _BLOCK) for start in range(0, columns, _BLOCK)]
