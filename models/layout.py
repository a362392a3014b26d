"""Where a template's texture is not laid out as the atlas is: maps of the atlas on its own layout, and its texture on
the atlas.

Both layouts are triangles in a square, one pair for each face of the mesh, so that one image is read at every texel of
the other: the texel's face and weights in the one, the same place of that face in the other. Reading is bicubic, with
the kernel that `models.textalker.upsampler` enlarges with, after averages where the image is finer than the texels.
Where the texels are much finer than the image, it is read at fewer, which are enlarged. Of a mesh of several materials
only the skin's faces have the texture.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32, UInt8
from scipy.sparse import csr_matrix

from models.core import Mesh
from models.errors import MalformedInput, OutOfRange
from models.seams import Corners, corner_uvs, sides
from models.template import Head, Template
from models.texels import Fragments, rasterise

SMALLEST, LARGEST = 16, 8192
STRIP = 64
"""Rows that are given at a time."""
WINDOW = 2048
"""Columns of them that are read at a time, to save memory."""
HELD = 2048
"""Size up to which the places of texels are kept for the next image: 12 bytes a texel."""
FINE = 0.75
"""Texels of the image to one of what is read, about, below which fewer are read: the rest is interpolation."""
SAME_UV = 1e-6
"""Distance of uvs that are the same but for rounding: a hundredth of a texel of LARGEST."""
CUBIC = -0.75
"""Slope of the bicubic kernel at 1: torch's."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Faces in a template's own layout and on the atlas: uvs of their corners. Made by `Layout.of`."""

    own: Corners
    atlas: Corners

    @staticmethod
    def of(mesh: Mesh, corners: Corners) -> "Layout":
        """corners: uvs on the atlas, as `corner_uvs` gives them; faces that straddle a seam are left out."""
        if corners.shape != (*mesh.uv_faces.shape, 2):
            wanted = (*mesh.uv_faces.shape, 2)
            raise MalformedInput(f"corners of shape {corners.shape}; wanted {wanted}: those of the mesh's own faces")
        kept = np.isfinite(corners).all((1, 2)) & _textured(mesh)
        return Layout(mesh.uvs[mesh.uv_faces[kept]].astype(np.float64), corners[kept])

    def rows(
        self, image: Float[np.ndarray, "large large 3"], size: int
    ) -> Iterator[Float32[np.ndarray, "rows size 3"]]:
        """An image on the atlas → one in the template's layout (size, size, 3), in strips of rows from the top.

        Texels of no face are 0, but for a gutter of 2 to 4 of those that are read, which continues the nearest inside.
        Where faces overlap, as those of mirrored layouts do, the first is seen. Checked at once: OutOfRange for a size
        outside SMALLEST..LARGEST or another shape of image.
        """
        _check(image, size)
        return self._rows(image, size)

    def _rows(self, image: np.ndarray, size: int) -> Iterator[Float32[np.ndarray, "rows size 3"]]:
        times, step = 1, _step(image, self.atlas, self.own, size)
        while 2 * times * step <= FINE + 1e-6 and size % (2 * times) == 0 and size // (2 * times) >= SMALLEST:
            times *= 2
        own = size // times
        margin = min(max(2 if times == 1 else 3, own // 128), 4)  # enlarging reaches 2 texels across and down
        strips = _held(self, own, margin) if own <= HELD else _texels(self.own, self.atlas, own, margin)
        read = (strip for strip, _ in _read(_reduced(image, step), strips, own))
        yield from read if times == 1 else _resampled(np.concatenate(list(read)), _enlarging(own, times))

    def to_atlas(
        self, texture: UInt8[np.ndarray, "n n 3"], size: int, elsewhere: UInt8[np.ndarray, "size size 3"] | None = None
    ) -> UInt8[np.ndarray, "size size 3"]:
        """A texture in the template's layout → one on the atlas; texels of no face are those of `elsewhere`, or have
        the mean of the others.

        OutOfRange as for `rows`.
        """
        _check(texture, size)
        image = _reduced(texture, _step(texture, self.own, self.atlas, size))
        strips = _texels(self.atlas, self.own, size, min(max(2, size // 128), 4))
        result, covered = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), bool)
        for number, (strip, texels) in enumerate(_read(image, strips, size)):
            rows = slice(number * STRIP, number * STRIP + len(strip))
            result[rows] = np.rint(strip).clip(0, 255)
            covered[rows].reshape(-1)[texels.place] = True
        mean = np.rint(result.sum((0, 1), where=covered[..., None]) / max(covered.sum(), 1))
        result[~covered] = mean if elsewhere is None else elsewhere[~covered]
        return result


def layout_of(template: Template, head: Head) -> Layout | None:
    """How a template's texture is laid out; None where every corner has a uv that the atlas has there, so that nothing
    is to be resampled.
    """
    mesh, (uvs, _) = template.mesh, sides(head.atlas, template.anchors)
    same = np.abs(mesh.uvs[mesh.uv_faces][:, :, None] - uvs[mesh.faces]) < SAME_UV
    if same.all(3).any(2)[_textured(mesh)].all():
        return None
    return Layout.of(mesh, corner_uvs(head.atlas, template.anchors, mesh.faces))


def _textured(mesh: Mesh) -> Bool[np.ndarray, " faces"]:
    """Faces that show the texture."""
    if mesh.source is None:
        return np.ones(len(mesh.faces), bool)
    return mesh.source.material == mesh.source.skin


def _check(image: np.ndarray, size: int) -> None:
    if not SMALLEST <= size <= LARGEST:
        raise OutOfRange(f"size = {size}; wanted {SMALLEST} to {LARGEST} texels", field="size")
    if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3 or not image.size:
        raise OutOfRange(f"an image of shape {image.shape}; wanted (n, n, 3): cut or resize it", field="map")


class Texels(NamedTuple):
    """Texels of a strip of an image on a face or its gutter: row · columns + column, and the uv in the other."""

    place: Int32[np.ndarray, " texels"]
    uv: Float32[np.ndarray, "texels 2"]


@lru_cache(maxsize=4)
def _held(layout: Layout, size: int, margin: int) -> tuple[Texels, ...]:
    return tuple(_texels(layout.own, layout.atlas, size, margin))


def _texels(target: Corners, source: Corners, size: int, margin: int) -> Iterator[Texels]:
    """Strips of an image of `size` whose faces lie at `target`; places are in one where they lie at `source`.

    margin: of the gutter, in texels.
    """
    pixels, outer = np.stack([target[..., 0], 1 - target[..., 1]], -1) * size - 0.5, _outer(target)
    low, high = pixels[..., 1].min(1) - margin, pixels[..., 1].max(1) + margin
    for top in range(0, size, STRIP):
        rows = slice(top, min(top + STRIP, size))
        near = np.flatnonzero((low < rows.stop) & (high >= rows.start))
        parts = [
            _window(pixels[near], source[near], outer[near], rows, slice(k, min(k + WINDOW, size)), margin)
            for k in range(0, size, WINDOW)
        ]
        row, column, uv = (np.concatenate(part) for part in zip(*parts, strict=True))
        yield Texels(((row - top) * size + column).astype(np.int32), uv)


def _outer(corners: Corners) -> Bool[np.ndarray, " faces"]:
    """Faces that touch an edge of what all cover: one along which no other face goes the other way."""
    turned = np.linalg.det(corners[:, 1:] - corners[:, :1]) < 0
    places = np.rint(np.where(turned[:, None, None], corners[:, ::-1], corners).clip(-1000, 1000) / SAME_UV).astype(
        np.int64
    )
    names = np.unique(places.reshape(-1, 2) @ [1 << 32, 1], return_inverse=True)[1].reshape(-1, 3)
    begin, end = names, np.roll(names, -1, 1)
    count = int(names.max(initial=0)) + 1
    alone = ~np.isin(begin * count + end, end * count + begin)
    touching = np.zeros(count, bool)
    touching[begin[alone]] = touching[end[alone]] = True
    return np.asarray(touching[names].any(1))


def _window(
    pixels: Corners, source: Corners, outer: Bool[np.ndarray, " faces"], rows: slice, columns: slice, margin: int
) -> tuple[Int[np.ndarray, " texels"], Int[np.ndarray, " texels"], Float32[np.ndarray, "texels 2"]]:
    """Row, column and place of texels: in the first face over each, else in the nearest beside it, at its edge."""
    shape = rows.stop - rows.start, columns.stop - columns.start
    winner = np.full(shape, -1)
    inside = rasterise(pixels, rows, columns)
    _paint(winner, inside, rows, columns)
    inside, outside = inside.of(winner[winner >= 0]), rasterise(pixels[outer], rows, columns, margin)
    outside = outside.of(winner[outside.row - rows.start, outside.column - columns.start] < 0)
    outside = outside.of(np.lexsort((outside.face, -outside.inside)))
    winner[:] = -1
    _paint(winner, outside, rows, columns)
    outside = outside.of(winner[winner >= 0])
    weights = np.concatenate([inside.weights, outside.weights]).clip(0)
    weights /= weights.sum(1, keepdims=True)
    faces = source[np.concatenate([inside.face, np.flatnonzero(outer)[outside.face]])]
    uv = np.einsum("tk,tkd->td", weights, faces).astype(np.float32)
    return np.concatenate([inside.row, outside.row]), np.concatenate([inside.column, outside.column]), uv


def _paint(winner: Int[np.ndarray, "rows columns"], found: Fragments, rows: slice, columns: slice) -> None:
    """Put the number of its first fragment into each texel."""
    row, column = found.row[::-1] - rows.start, found.column[::-1] - columns.start
    winner[row, column] = np.arange(len(row))[::-1]  # numpy keeps the last


def _step(image: np.ndarray, source: Corners, target: Corners, size: int) -> float:
    """Texels of an image at `source` along one of `target`'s, at `size`."""
    return float(np.sqrt(_area(source) / max(_area(target), 1e-12)) * len(image) / size)


def _reduced(image: np.ndarray, step: float) -> Float32[np.ndarray, "n n 3"]:
    """The image as averages of 2, 4, … of its texels, as many as go into `step`."""
    times = 1
    while 2 * times <= min(step + 1e-6, len(image)):
        times *= 2
    if times == 1:
        return np.ascontiguousarray(image, np.float32)
    return np.concatenate(list(_resampled(image, _averaging(len(image), len(image) // times))))


def _read(
    image: Float32[np.ndarray, "n n 3"], strips: Iterable[Texels], size: int
) -> Iterator[tuple[Float32[np.ndarray, "rows size 3"], Texels]]:
    for top, texels in zip(range(0, size, STRIP), strips, strict=True):
        strip = np.zeros((min(STRIP, size - top), size, 3), np.float32)
        strip.reshape(-1, 3)[texels.place] = _bicubic(texels.uv, len(image)) @ image.reshape(-1, 3)
        yield strip, texels


def _resampled(image: np.ndarray, along: csr_matrix) -> Iterator[Float32[np.ndarray, "rows size 3"]]:
    """An image (n, n, 3) at another size, in strips of rows: `along` (size, n) is what makes a row, and a column."""
    size, own = along.shape
    for top in range(0, size, STRIP):
        rows = along[top : top + STRIP]
        near = slice(rows.indices.min(), rows.indices.max() + 1)
        strip = rows[:, near] @ image[near].reshape(-1, 3 * own).astype(np.float32)
        columns = along @ strip.reshape(-1, own, 3).swapaxes(0, 1).reshape(own, -1)
        yield np.ascontiguousarray(columns.reshape(size, -1, 3).swapaxes(0, 1))


def _area(corners: Corners) -> float:
    return float(np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])).sum())


def _averaging(own: int, size: int) -> csr_matrix:
    """(size, own): means over the width of each of fewer texels."""
    edges = np.arange(size + 1) * own / size
    first, last = np.floor(edges[:-1]).astype(int), np.ceil(edges[1:]).astype(int)
    near = first[:, None] + np.arange(int((last - first).max()))
    shares = np.minimum(near + 1, edges[1:, None]) - np.maximum(near, edges[:-1, None])
    rows, columns = np.nonzero(shares > 1e-9)
    values = shares[rows, columns] * size / own
    return csr_matrix((values.astype(np.float32), (rows, near[rows, columns])), (size, own))


def _enlarging(own: int, times: int) -> csr_matrix:
    """(own · times, own): bicubic."""
    near, weights = _kernel((np.arange(own * times) + 0.5) / times - 0.5, own)
    return csr_matrix((weights.ravel(), near.ravel(), np.arange(0, weights.size + 1, 4)), (own * times, own))


def _bicubic(uv: Float32[np.ndarray, "points 2"], size: int) -> csr_matrix:
    """(P, size²): what reads an image at uv points; at a texel's centre, just that texel."""
    (column, across), (row, down) = (_kernel(places * size - 0.5, size) for places in (uv[:, 0], 1 - uv[:, 1]))
    texels, weights = row[:, :, None] * np.int32(size) + column[:, None, :], down[:, :, None] * across[:, None, :]
    return csr_matrix((weights.ravel(), texels.ravel(), np.arange(0, weights.size + 1, 16)), (len(uv), size**2))


def _kernel(
    places: Float[np.ndarray, " points"], size: int
) -> tuple[Int32[np.ndarray, "points 4"], Float32[np.ndarray, "points 4"]]:
    """Texels along an axis that are read at places in texels, and how much of each. Edges are continued."""
    whole = np.rint(places)
    places = np.where(np.abs(places - whole) < SAME_UV * size, whole, places)
    first = np.floor(places)
    share = (places - first).astype(np.float32)[:, None]
    near = first.astype(np.int32)[:, None] + np.arange(-1, 3, dtype=np.int32)
    away = np.abs(share - np.arange(-1, 3, dtype=np.float32))
    inner = ((CUBIC + 2) * away - (CUBIC + 3)) * away**2 + 1
    outer = ((away - 5) * away + 8) * CUBIC * away - 4 * CUBIC
    return near.clip(0, size - 1), np.where(away < 1, inner, outer)
