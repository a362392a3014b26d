"""Texels of a head's charts, in windows of an image; and the pixels that triangles cover."""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from models.template import Head

GUTTER = 1.5
"""Texels that the skin is continued by outside its chart, so that reading an image bilinearly finds no edge."""
SURFACES = 4
"""How many heads' faces, at a size each, are kept."""


class Fragments(NamedTuple):
    """Pixels that triangles cover: row, column and face of each, its barycentric weights, and its distance in pixels
    from the nearest edge, negative outside.
    """

    row: Int[np.ndarray, " fragments"]
    column: Int[np.ndarray, " fragments"]
    face: Int[np.ndarray, " fragments"]
    weights: Float[np.ndarray, "fragments 3"]
    inside: Float[np.ndarray, " fragments"]

    def of(self, chosen: Bool[np.ndarray, " fragments"] | Int[np.ndarray, " chosen"]) -> "Fragments":
        """Some of them, in the order asked for."""
        return Fragments(*(part[chosen] for part in self))


def rasterise(corners: Float[np.ndarray, "faces 3 2"], rows: slice, columns: slice, margin: float = 0.0) -> Fragments:
    """Every pixel of an image's rows and columns that each triangle covers, or lies within `margin` pixels of: face by
    face, row by row. A pixel's fragment is the same in whichever window it is asked for.

    corners: (column, row) in pixels, a pixel's place being its centre. Triangles may overlap; degenerate ones are left
    out.
    """
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    whole = _cross(b - a, c - a)
    solid = np.abs(whole) > 1e-12
    lengths = np.linalg.norm(np.roll(corners, -1, 1) - np.roll(corners, -2, 1), axis=2)
    heights = np.abs(whole)[:, None] / np.maximum(lengths, 1e-12)
    whole = np.where(solid, whole, 1)
    low = np.ceil(corners[..., 1].min(1) - margin).clip(rows.start, rows.stop).astype(int)
    high = np.floor(corners[..., 1].max(1) + margin).clip(rows.start - 1, rows.stop - 1).astype(int)
    face, row = _runs(low, np.where(solid, high - low + 1, 0))
    # along a row of a triangle each weight is its value at the first column, and a slope
    slopes = np.stack([b[:, 1] - c[:, 1], c[:, 1] - a[:, 1], a[:, 1] - b[:, 1]], 1) / whole[:, None]
    left, right = np.ceil(corners[..., 0].min(1) - margin), np.floor(corners[..., 0].max(1) + margin)
    place = np.stack([left[face], row], 1) - a[face]
    second, third = _cross(place, (c - a)[face]) / whole[face], _cross((b - a)[face], place) / whole[face]
    weights, slopes = np.stack([1 - second - third, second, third], 1), slopes[face]
    begin, end = _above(weights, slopes, -(margin + 1e-9) / heights[face])
    start = np.maximum(left[face], np.ceil(begin + left[face])).clip(columns.start, columns.stop).astype(int)
    stop = np.minimum(right[face], np.floor(end + left[face])).clip(columns.start - 1, columns.stop - 1).astype(int)
    count = np.maximum(stop - start + 1, 0)
    run, column = _runs(start, count)
    along = column - np.repeat(left[face], count)
    found = np.empty((3, len(column)))
    for k in (1, 2):
        found[k] = np.repeat(slopes[:, k], count) * along + np.repeat(weights[:, k], count)
    found[0] = 1 - found[1] - found[2]
    inside = np.minimum.reduce([found[k] * np.repeat(heights[face, k], count) for k in range(3)])
    return Fragments(row[run], column, face[run], found.T, inside)


def _runs(first: Int[np.ndarray, " runs"], count: Int[np.ndarray, " runs"]) -> tuple[np.ndarray, np.ndarray]:
    """Numbers that go up from the first of each run: which run each is of, and the number."""
    run = np.repeat(np.arange(len(count)), count)
    return run, np.arange(len(run)) + np.repeat(first - np.cumsum(count) + count, count)


def _above(
    value: Float[np.ndarray, "runs 3"], slope: Float[np.ndarray, "runs 3"], least: Float[np.ndarray, "runs 3"]
) -> tuple[Float[np.ndarray, " runs"], Float[np.ndarray, " runs"]]:
    """From where to where value + slope · x is no less than `least`, of all three; an empty range ends before it
    begins.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = (least - value) / slope
    level = np.where(value >= least, -np.inf, np.inf)
    begin = np.where(slope > 0, bound, np.where(slope < 0, -np.inf, level)).max(1)
    return begin, np.where(slope < 0, bound, np.inf).min(1)


@dataclass(frozen=True, eq=False)
class Texels:
    """Texels of a chart in a window of an image, face by face.

    index (n,): row · columns + column, both counted from the window's first; face (n,) and weights (n, 3): what lies
    under the centre; uv (n, 2): the centre; position (n, 3): on the canonical head, metres.
    """

    surface: "Surface"
    index: Int[np.ndarray, " texels"]
    face: Int[np.ndarray, " texels"]
    weights: Float[np.ndarray, "texels 3"]
    uv: Float[np.ndarray, "texels 2"]
    position: Float[np.ndarray, "texels 3"]

    def of(self, chosen: slice | Int[np.ndarray, " chosen"]) -> "Texels":
        """Some of them, in the order asked for."""
        parts = (self.index, self.face, self.weights, self.uv, self.position)
        return Texels(self.surface, *(part[chosen] for part in parts))

    def spread(self, values: Float[np.ndarray, " faces"]) -> Float[np.ndarray, " texels"]:
        """What each texel has of its face."""
        return values.take(self.face, mode="clip")  # unlike "raise", copies nothing

    @cached_property
    def xyz(self) -> Float32[np.ndarray, "3 texels"]:
        """Position in single precision, each axis by itself."""
        return self.position.T.astype(np.float32)

    @property
    def vertices(self) -> Int[np.ndarray, "texels 3"]:
        """The face's corners."""
        return self.surface.faces[self.face]

    @property
    def normal(self) -> Float[np.ndarray, "texels 3"]:
        """The face's unit normal."""
        return self.surface.normal[self.face]

    @property
    def extent(self) -> Float[np.ndarray, "texels 3 2"]:
        """Metres that a texel spans along the image's axes."""
        return self.surface.extent[self.face]

    def read(self, values: Float[np.ndarray, " vertices"]) -> Float[np.ndarray, " texels"]:
        """A vertex quantity at the texels, in its own precision."""
        corners = values[self.surface.faces].T
        parts = (self.weights[:, k].astype(values.dtype) * self.spread(corners[k]) for k in range(3))
        return np.asarray(sum(parts))


@dataclass(frozen=True, eq=False)
class Surface:
    """A head's faces as an image of one size sees them: faces (F, 3), their corners in pixels (F, 3, 2), unit normals
    (F, 3), and extent (F, 3, 2): metres that a texel spans along the image's axes.
    """

    faces: Int[np.ndarray, "faces 3"]
    pixels: Float[np.ndarray, "faces 3 2"]
    normal: Float[np.ndarray, "faces 3"]
    extent: Float[np.ndarray, "faces 3 2"]

    @staticmethod
    @lru_cache(SURFACES)
    def of(head: Head, size: int) -> "Surface":
        """The faces of all charts. Those last asked for are kept."""
        atlas = head.atlas
        pixels = np.stack([atlas.corners[..., 0], 1 - atlas.corners[..., 1]], 2) * size - 0.5
        corners = atlas.vertices.astype(np.float64)[atlas.faces]
        edges, sides = corners[:, 1:] - corners[:, :1], pixels[:, 1:] - pixels[:, :1]
        normal = np.cross(edges[:, 0], edges[:, 1])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
        extent = edges.transpose(0, 2, 1) @ np.linalg.inv(sides).transpose(0, 2, 1)
        return Surface(atlas.faces, pixels, normal, extent)

    def variance(self, direction: Float[np.ndarray, " 3"]) -> Float[np.ndarray, " faces"]:
        """Variance of a texel's own box along a direction: a twelfth of the square of its width."""
        return np.asarray(((direction @ self.extent) ** 2).sum(1) / 12)


def skin_texels(head: Head, size: int, rows: slice | None = None, columns: slice | None = None) -> Texels:
    """The skin's texels in a window, the whole image unless said, and its gutter's; from the lowest place on the head
    to the highest.
    """
    texels = chart_texels(head, size, rows, columns)["skin"]
    return texels.of(np.argsort(texels.position[:, 1], kind="stable"))


def chart_texels(head: Head, size: int, rows: slice | None = None, columns: slice | None = None) -> dict[str, Texels]:
    """The texels of every chart in a window, and its gutter's; where charts are neighbours, each has its own."""
    rows, columns = rows or slice(0, size), columns or slice(0, size)
    surface, width = Surface.of(head, size), columns.stop - columns.start
    found = rasterise(surface.pixels, rows, columns, GUTTER)
    index = (found.row - rows.start) * width + found.column - columns.start
    own = _foremost(index, found.inside, (rows.stop - rows.start) * width)
    corners, result = head.atlas.vertices.astype(np.float64)[head.atlas.faces], {}
    chart = head.atlas.chart.take(found.face.take(own))
    for number, name in enumerate(head.charts):
        chosen = own[np.flatnonzero(chart == number)]
        face, weights = found.face.take(chosen), np.stack([part.take(chosen) for part in found.weights.T]).T
        uv = np.stack([found.column.take(chosen) + 0.5, size - found.row.take(chosen) - 0.5]).T / size
        position = np.stack([sum(weights[:, k] * corners[:, k, d].take(face) for k in range(3)) for d in range(3)]).T
        result[name] = Texels(surface, index.take(chosen), face, weights, uv, position)
    return result


def _foremost(
    index: Int[np.ndarray, " fragments"], inside: Float[np.ndarray, " fragments"], count: int
) -> Int[np.ndarray, " foremost"]:
    """Of the fragments of each of `count` pixels the one that is furthest inside its triangle, in the order given."""
    kept = np.ones(len(index), bool)
    shared = np.flatnonzero(np.bincount(index, minlength=count).take(index) > 1)
    shared = shared[np.lexsort((inside[shared], index[shared]))]
    last = np.append(index[shared][1:] != index[shared][:-1], True)[: len(shared)]
    kept[shared[~last]] = False
    return np.flatnonzero(kept)


def _cross(a: Float[np.ndarray, "points 2"], b: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, " points"]:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
