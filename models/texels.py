"""Texels of a head's charts, in windows of an image; and the pixels that triangles cover."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from models.template import Head

GUTTER = 1.5
"""Texels that the skin is continued by outside its chart, so that reading an image bilinearly finds no edge."""


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
    """Every pixel of an image's rows and columns that each triangle covers, or lies within `margin` pixels of.

    corners: (column, row) in pixels, a pixel's place being its centre. Triangles may overlap; degenerate ones are left
    out.
    """
    whole = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(np.roll(corners, -1, 1) - np.roll(corners, -2, 1), axis=2)
    heights = np.abs(whole)[:, None] / np.maximum(lengths, 1e-12)
    first, last = np.array([columns.start, rows.start]), np.array([columns.stop, rows.stop])
    low = np.ceil(corners.min(1) - margin).clip(first, last).astype(int)
    high = np.floor(corners.max(1) + margin).clip(first - 1, last - 1).astype(int)
    extent = np.where(np.abs(whole)[:, None] > 1e-12, np.maximum(high - low + 1, 0), 0)
    count = extent[:, 0] * extent[:, 1]
    face = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    column = low[face, 0] + within % extent[face, 0]
    row = low[face, 1] + within // extent[face, 0]
    a, b, c = (corners[face, k] for k in range(3))
    place = np.stack([column, row], 1) - a
    second, third = _cross(place, c - a) / whole[face], _cross(b - a, place) / whole[face]
    weights = np.stack([1 - second - third, second, third], 1)
    inside = (weights * heights[face]).min(1)
    return Fragments(row, column, face, weights, inside).of(inside >= -margin - 1e-9)


@dataclass(frozen=True, eq=False)
class Texels:
    """Texels of a chart in a window of an image, from the lowest place on the head to the highest.

    index (n,): row · columns + column, both counted from the window's first; face (n,) and weights (n, 3): what lies
    under the centre; uv (n, 2): the centre; position (n, 3): on the canonical head, metres.
    """

    surface: "Surface"
    index: Int[np.ndarray, " texels"]
    face: Int[np.ndarray, " texels"]
    weights: Float[np.ndarray, "texels 3"]
    uv: Float[np.ndarray, "texels 2"]
    position: Float[np.ndarray, "texels 3"]

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
        """A vertex quantity at the texels."""
        return np.asarray(np.einsum("tk,tk->t", self.weights, values[self.vertices]))


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
    def of(head: Head, size: int) -> "Surface":
        """The faces of all charts."""
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
    """The skin's texels in a window, the whole image unless said, and its gutter's."""
    return chart_texels(head, size, rows, columns)["skin"]


def chart_texels(head: Head, size: int, rows: slice | None = None, columns: slice | None = None) -> dict[str, Texels]:
    """The texels of every chart in a window, and its gutter's; where charts are neighbours, each has its own."""
    rows, columns = rows or slice(0, size), columns or slice(0, size)
    surface, width = Surface.of(head, size), columns.stop - columns.start
    found = rasterise(surface.pixels, rows, columns, GUTTER)
    found = found.of(np.argsort(found.inside, kind="stable"))
    index = (found.row - rows.start) * width + found.column - columns.start
    winner = np.full((rows.stop - rows.start) * width, -1)
    winner[index] = np.arange(len(index))
    kept = winner[winner >= 0]
    found, index = found.of(kept), index[kept]
    uv = np.stack([found.column + 0.5, size - found.row - 0.5], 1) / size
    corners = head.atlas.vertices.astype(np.float64)[head.atlas.faces]
    position = np.einsum("nk,nkd->nd", found.weights, corners[found.face])
    upwards = np.argsort(position[:, 1], kind="stable")
    chart, result = head.atlas.chart[found.face[upwards]], {}
    for number, name in enumerate(head.charts):
        own = upwards[chart == number]
        result[name] = Texels(surface, index[own], found.face[own], found.weights[own], uv[own], position[own])
    return result


def _cross(a: Float[np.ndarray, "points 2"], b: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, " points"]:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
