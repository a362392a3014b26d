"""Wrinkles of the corpus: what a face's strain does to its texture, at any size.

A map holds the natural log of the frame's texture over the neutral one, in sRGB values. It is linear in `activations`,
of which there is one for every knot of every line (how far the skin there has folded), one for every vertex of the face
(how far it shades), and one for lips that press. What texels see of them is known in closed form, so that maps of all
sizes are averages of one another.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from scipy.sparse import block_diag, csr_matrix, hstack

from models.skin.relief import draw_grain
from models.template import Head
from models.texels import Texels, skin_texels
from training.corpus.canvas import Canvas
from training.corpus.lines import Line, Manner, draw_lines
from training.corpus.profiles import draw_line
from training.corpus.strain import apply, derivative, length, skin_patches, skin_surface


class Fold(NamedTuple):
    """How a family folds.

    sigma_m: deviation of the neighbourhood whose strain it feels; run_m: how far a fold runs on along its line, a
    deviation too; compression: negative log stretch at which it is half folded; depth: log-ratio in the core of its
    strongest line on an old face.
    """

    sigma_m: float
    run_m: float
    compression: float
    depth: float


FOLDS = {
    "forehead": Fold(0.013, 0.012, 0.035, 0.40),
    "glabella": Fold(0.005, 0.008, 0.10, 0.42),
    "crows_feet": Fold(0.006, 0.008, 0.10, 0.38),
    "under_eye": Fold(0.005, 0.008, 0.12, 0.20),
    "nasolabial": Fold(0.009, 0.025, 0.06, 0.36),
    "nose_bridge": Fold(0.005, 0.006, 0.07, 0.26),
    "lip_creases": Fold(0.004, 0.006, 0.14, 0.28),
    "chin": Fold(0.007, 0.010, 0.04, 0.26),
    "neck": Fold(0.010, 0.020, 0.08, 0.24),
}
DEEPEST = 0.6
SWELL_M = 0.012
"""How far beside a line that leans altogether to one side the skin lies that pushes it into a fold."""
SHADING_M = 0.004
"""Deviation of the neighbourhood whose strain shades a vertex: about 8 mm of skin."""
LINE_TINT, SHADE_TINT, FLUSH_TINT, BLANCH_TINT = (
    np.array(tint) for tint in ((-0.80, -1.00, -1.08), (-0.85, -1.0, -1.0), (-0.25, -1.0, -0.9), (0.25, 1.0, 0.9))
)
"""Red, green and blue of a unit of each: folds and shade are reddish, blanched lips are pale."""
CHUNK = 32
"""Frames at a time."""


@dataclass(frozen=True)
class WrinkleStyle:
    """How a face wrinkles. The default is a middle-aged one.

    depth: log-ratio in the core of each family's strongest line, fully folded; onset: how much compression folding
    takes, of the usual; width_mm: deviation of a line's core; seed: where this face's lines run; jitter_mm, wobble_mm,
    finer, branching: see `lines.Manner`; shade: log-ratio of skin compressed to 1/e; hollow: of skin that sinks by a
    millimetre; grain: how much more the skin's grain takes of the shade; flush: how red the shade is, 0..1; blanch:
    log-ratio of lips that press.
    """

    depth: Mapping[str, float] = field(default_factory=lambda: {name: 0.6 * fold.depth for name, fold in FOLDS.items()})
    onset: float = 1.0
    width_mm: float = 0.5
    seed: int = 0
    jitter_mm: float = 0.7
    wobble_mm: float = 0.3
    finer: float = 0.8
    branching: float = 0.35
    shade: float = 0.25
    hollow: float = 0.05
    grain: float = 0.15
    flush: float = 0.3
    blanch: float = 0.12


def draw_wrinkle_style(random: np.random.Generator, age: float) -> WrinkleStyle:
    """A style for an age as anny counts it: 0.5 is 25 years, 1 is 90. Old skin folds deeper, earlier and finer."""
    old = float(np.clip((age - 0.5) / 0.45, 0, 1))
    deep = (0.22 + 0.9 * old) * np.exp(random.normal(0, 0.15))
    return WrinkleStyle(
        depth={
            name: float(min(deep * fold.depth * np.exp(random.normal(0, 0.22)), DEEPEST))
            for name, fold in FOLDS.items()
        },
        onset=float((1.35 - 0.55 * old) * np.exp(random.normal(0, 0.12))),
        width_mm=float(random.uniform(0.4, 0.55) + 0.12 * old),
        seed=int(random.integers(2**31)),
        jitter_mm=float(random.uniform(0.5, 1.1)),
        wobble_mm=float(random.uniform(0.2, 0.4)),
        finer=float(random.uniform(0.2, 0.6) + 1.2 * old),
        branching=float(random.uniform(0.1, 0.3) + 0.3 * old),
        shade=float(random.uniform(0.15, 0.35)),
        hollow=float(random.uniform(0.03, 0.07)),
        grain=float(random.uniform(0.05, 0.2) + 0.1 * old),
        flush=float(random.uniform(0.0, 0.7)),
        blanch=float(random.uniform(0.05, 0.2)),
    )


class WrinkleField:
    """A style on the canonical head: canonical offsets → activations → maps.

    The head's charts must be those of `training.head`: eyes, mouth and nose are found on its skin.
    """

    def __init__(self, head: Head, style: WrinkleStyle) -> None:
        canvas, surface = Canvas(head), skin_surface(head)
        manner = Manner(style.jitter_mm, style.wobble_mm, style.finer, style.branching, style.width_mm)
        self.lines = draw_lines(canvas, manner, style.seed)
        self._head, self._style, self._rest = head, style, head.atlas.vertices.astype(np.float64)
        self._face, self._lips = canvas.face(), canvas.lips()
        self._members = np.flatnonzero(self._face)
        knots = np.repeat([line.family for line in self.lines], [len(line.knots) for line in self.lines])
        places, normals, across = (np.concatenate(parts) for parts in zip(*map(_felt_at, self.lines), strict=True))
        sigma_m = np.array([FOLDS[name].sigma_m for name in knots])
        self._across = derivative(surface, places, normals, across, sigma_m)
        self._along = block_diag([_run_on(line) for line in self.lines], "csr")
        self._folded = style.onset * np.array([FOLDS[name].compression for name in knots])
        self._depth = np.array([style.depth[name] for name in knots])
        self._patches = skin_patches(surface, self._rest, self._members, SHADING_M)
        self._at_rest = length(apply(self._across, self._rest[None])), self._patches.measure(self._rest[None])
        self._bases: dict[int, csr_matrix] = {}

    @property
    def tint(self) -> Float32[np.ndarray, "activations 3"]:
        """What one unit of each activation adds to the log-ratio of red, green and blue."""
        shade = SHADE_TINT + self._style.flush * (FLUSH_TINT - SHADE_TINT)
        parts = [LINE_TINT] * len(self._depth) + [shade] * len(self._members) + [BLANCH_TINT]
        return np.array(parts, np.float32)

    def activations(
        self, offsets: Float[np.ndarray, "frames vertices 3"], contact: Float[np.ndarray, " frames"]
    ) -> Float32[np.ndarray, "frames activations"]:
        """How far each line has folded and each vertex shades, and how the lips press; all 0 at rest.

        offsets: canonical, in metres; contact: of the lips, 0..1.
        """
        result = np.empty((len(offsets), len(self.tint)), np.float32)
        for start in range(0, len(offsets), CHUNK):
            part = slice(start, start + CHUNK)
            moved = self._rest + offsets[part]
            pressed = self._style.blanch * contact[part, None]
            result[part] = np.concatenate([self._folds(moved), self._shades(moved), pressed], 1)
        return result

    def basis(self, size: int) -> tuple[csr_matrix, Float32[np.ndarray, "activations 3"]]:
        """Sparse (size · size, activations) and the tint: log-ratio = Σ basis · activation · tint. Kept once made."""
        if size not in self._bases:
            self._bases[size] = self.draw(size, slice(0, size))
        return self._bases[size], self.tint

    def maps(
        self, activations: Float[np.ndarray, "frames activations"], size: int
    ) -> Float32[np.ndarray, "frames size size 3"]:
        """The log-ratio maps; 0 outside the skin."""
        basis, tint = self.basis(size)
        result = np.empty((len(activations), size * size, 3), np.float32)
        for frame, row in enumerate(activations):
            result[frame] = basis @ (row[:, None] * tint)
        return result.reshape(-1, size, size, 3)

    def rows(
        self, activations: Float[np.ndarray, " activations"], size: int, rows: slice, columns: slice | None = None
    ) -> Float32[np.ndarray, "rows columns 3"]:
        """Some rows and columns (start and stop given) of one map, without ever holding more: for sizes whose basis is
        large.
        """
        image = self.draw(size, rows, columns) @ (activations[:, None] * self.tint)
        return np.asarray(image).reshape(rows.stop - rows.start, -1, 3)

    def draw(self, size: int, rows: slice, columns: slice | None = None) -> csr_matrix:
        """What `basis` is of a whole map, of some rows and columns: sparse (texels, activations)."""
        texels, columns = skin_texels(self._head, size, rows, columns), columns or slice(0, size)
        count = (rows.stop - rows.start) * (columns.stop - columns.start)
        row, column, value, first = [], [], [], 0
        for line in self.lines:
            entries = draw_line(line, texels)
            row.append(texels.index[entries.texel])
            column.append(first + entries.knot)
            value.append(entries.value.astype(np.float32))
            first += len(line.knots)
        lines = csr_matrix((np.concatenate(value), (np.concatenate(row), np.concatenate(column))), (count, first))
        return hstack([lines, self._shading(texels, count), self._blanching(texels, count)], "csr", np.float32)

    def traces(self, share: float) -> Float32[np.ndarray, " activations"]:
        """Activations of what lines leave in a face at rest, if that is a share of what they are when fully folded."""
        result = np.zeros(len(self.tint), np.float32)
        result[: len(self._depth)] = share * self._depth
        return result

    def _folds(self, moved: Float[np.ndarray, "frames vertices 3"]) -> Float[np.ndarray, "frames knots"]:
        stretch = length(apply(self._across, moved)) / self._at_rest[0]
        compression = np.maximum(-np.log(stretch), 0) @ self._along
        return np.asarray(self._depth * compression**2 / (compression**2 + self._folded**2))

    def _shades(self, moved: Float[np.ndarray, "frames vertices 3"]) -> Float[np.ndarray, "frames members"]:
        (area, depth), (area_at_rest, depth_at_rest) = self._patches.measure(moved), self._at_rest[1]
        shrunk, sunk_mm = -np.log(area / area_at_rest), 1e3 * (depth - depth_at_rest)
        return self._style.shade * _bend(shrunk, 0.5, 0.2) + self._style.hollow * _bend(sunk_mm, 2.0, 0.8)

    def _shading(self, texels: Texels, count: int) -> csr_matrix:
        grain = 1 + self._style.grain * draw_grain(texels, self._style.seed)
        vertices = texels.vertices
        value = texels.weights * self._face[vertices] * grain[:, None]
        row = np.repeat(texels.index, 3)
        every = csr_matrix((value.ravel().astype(np.float32), (row, vertices.ravel())), (count, len(self._face)))
        return every[:, self._members]

    def _blanching(self, texels: Texels, count: int) -> csr_matrix:
        column = np.zeros((count, 1), np.float32)
        column[texels.index, 0] = texels.read(self._lips)
        return csr_matrix(column)


def _felt_at(line: Line) -> tuple[Float[np.ndarray, "knots 3"], ...]:
    """Where a line feels strain, the normals there, and in which direction: if it leans, on the side that swells."""
    points, normals, across = (part[line.knots] for part in (line.points, line.normals, line.across))
    return points + SWELL_M * line.lean * across, normals, across


def _run_on(line: Line) -> Float[np.ndarray, "knots knots"]:
    """Averages, in columns, over the knots along a line: a fold runs on a little beyond its strain."""
    place = line.along_m[line.knots]
    near = np.exp(-(((place[:, None] - place) / FOLDS[line.family].run_m) ** 2) / 2)
    return np.asarray(near / near.sum(0))


def _bend(value: Float[np.ndarray, "..."], most: float, least: float) -> Float[np.ndarray, "..."]:
    """The value itself near 0, never above `most` nor below minus `least`."""
    return np.where(value > 0, most * np.tanh(value / most), least * np.tanh(value / least))
