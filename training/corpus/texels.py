"""Texels of the skin, in strips of rows; and the pixels that triangles cover."""

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


def rasterise(corners: Float[np.ndarray, "faces 3 2"], rows: slice, columns: int, margin: float = 0.0) -> Fragments:
    """Every pixel of an image's rows that each triangle covers, or lies within `margin` pixels of.

    corners: (column, row) in pixels, a pixel's place being its centre. Triangles may overlap; degenerate ones are left
    out.
    """
    whole = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(np.roll(corners, -1, 1) - np.roll(corners, -2, 1), axis=2)
    heights = np.abs(whole)[:, None] / np.maximum(lengths, 1e-12)
    low = np.ceil(corners.min(1) - margin).clip([0, rows.start], [columns, rows.stop]).astype(int)
    high = np.floor(corners.max(1) + margin).clip([-1, rows.start - 1], [columns - 1, rows.stop - 1]).astype(int)
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
    """Texels of the skin in some rows of a (size, size) image, from the lowest place on the head to the highest.

    index (n,): row · size + column, rows counted from the first one asked for; vertices (n, 3) and weights (n, 3): what
    lies under the centre; position and normal (n, 3) on the canonical head, metres; extent (n, 3, 2): metres that a
    texel spans along the image's axes.
    """

    index: Int[np.ndarray, " texels"]
    vertices: Int[np.ndarray, "texels 3"]
    weights: Float[np.ndarray, "texels 3"]
    position: Float[np.ndarray, "texels 3"]
    normal: Float[np.ndarray, "texels 3"]
    extent: Float[np.ndarray, "texels 3 2"]


def skin_texels(head: Head, size: int, rows: slice | None = None) -> Texels:
    """The skin's texels, and its gutter's; those of other charts are left to these."""
    atlas, rows = head.atlas, rows or slice(0, size)
    pixels = np.stack([atlas.corners[..., 0], 1 - atlas.corners[..., 1]], 2) * size - 0.5
    found = rasterise(pixels, rows, size, GUTTER)
    found = found.of(np.argsort(found.inside, kind="stable"))
    winner = np.full((rows.stop - rows.start) * size, -1)
    winner[(found.row - rows.start) * size + found.column] = np.arange(len(found.row))
    kept = found.of(winner[winner >= 0])
    kept = kept.of(atlas.chart[kept.face] == head.charts.index("skin"))
    corners = atlas.vertices.astype(np.float64)[atlas.faces]
    edges, sides = corners[:, 1:] - corners[:, :1], pixels[:, 1:] - pixels[:, :1]
    extent = edges.transpose(0, 2, 1) @ np.linalg.inv(sides).transpose(0, 2, 1)
    normal = np.cross(edges[:, 0], edges[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-20)
    position = np.einsum("nk,nkd->nd", kept.weights, corners[kept.face])
    upwards = np.argsort(position[:, 1], kind="stable")
    kept = kept.of(upwards)
    return Texels(
        (kept.row - rows.start) * size + kept.column,
        atlas.faces[kept.face],
        kept.weights,
        position[upwards],
        normal[kept.face],
        extent[kept.face],
    )


def _cross(a: Float[np.ndarray, "points 2"], b: Float[np.ndarray, "points 2"]) -> Float[np.ndarray, " points"]:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
