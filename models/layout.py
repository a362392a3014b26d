"""Where a template's texture is not laid out as the atlas is: maps of the atlas on its own layout, and its texture on
the atlas.

Both layouts are triangles in a square, one pair for each face of the mesh, so that one image is read at every texel of
the other: the texel's face and weights in the one, the same place of that face in the other. Reading is bicubic, with
the kernel that `models.textalker.upsampler` enlarges with, after averages where the image is finer than the texels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from scipy.sparse import csr_matrix

from models.core import Mesh
from models.errors import MalformedInput, OutOfRange
from models.seams import Corners, corner_uvs, sides
from models.template import Head, Template
from models.texels import rasterise

SMALLEST, LARGEST = 64, 8192
STRIP = 64
"""Rows that are given at a time."""
WINDOW = 1024
"""Columns of them that are read at a time, to save memory."""
HELD = 1024
"""Size up to which the places of texels are kept for the next image: 32 bytes a texel."""
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
        kept = np.isfinite(corners).all((1, 2))
        return Layout(mesh.uvs[mesh.uv_faces[kept]].astype(np.float64), corners[kept])

    def rows(
        self, image: Float[np.ndarray, "large large 3"], size: int
    ) -> Iterator[Float32[np.ndarray, "rows size 3"]]:
        """An image on the atlas → one in the template's layout (size, size, 3), in strips of rows from the top.

        Texels of no face are 0, but for a gutter of 2 to 4 texels, which continues the nearest inside. Where faces
        overlap, as those of mirrored layouts do, the first is seen. Checked at once: OutOfRange for a size outside
        SMALLEST..LARGEST or another shape of image.
        """
        _check(image, size)
        strips = _held(self, size) if size <= HELD else _texels(self.own, self.atlas, size)
        return (strip for strip, _ in _read(_reduced(image, self.atlas, self.own, size), strips, size))

    def to_atlas(self, texture: UInt8[np.ndarray, "n n 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
        """A texture in the template's layout → one on the atlas; texels of no face have the mean of the others.

        OutOfRange as for `rows`.
        """
        _check(texture, size)
        image, strips = _reduced(texture, self.own, self.atlas, size), _texels(self.atlas, self.own, size)
        result, covered = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), bool)
        for number, (strip, texels) in enumerate(_read(image, strips, size)):
            top = number * STRIP
            result[top : top + STRIP] = np.rint(strip).clip(0, 255)
            covered[top + texels.row, texels.column] = True
        result[~covered] = np.rint(result.sum((0, 1), where=covered[..., None]) / max(covered.sum(), 1))
        return result


def layout_of(template: Template, head: Head) -> Layout | None:
    """How a template's texture is laid out; None where every corner has a uv that the atlas has there, so that nothing
    is to be resampled.
    """
    mesh, (uvs, _) = template.mesh, sides(head.atlas, template.anchors)
    same = np.abs(mesh.uvs[mesh.uv_faces][:, :, None] - uvs[mesh.faces]) < SAME_UV
    if same.all(3).any(2).all():
        return None
    return Layout.of(mesh, corner_uvs(head.atlas, template.anchors, mesh.faces))


def _check(image: np.ndarray, size: int) -> None:
    if not SMALLEST <= size <= LARGEST:
        raise OutOfRange(f"size = {size}; wanted {SMALLEST} to {LARGEST} texels", field="size")
    if image.ndim != 3 or image.shape[0] != image.shape[1] or image.shape[2] != 3 or not image.size:
        raise OutOfRange(f"an image of shape {image.shape}; wanted (n, n, 3): cut or resize it", field="map")


class Texels(NamedTuple):
    """Texels of a strip of an image that lie on a face or its gutter: row and column, and the place in the other."""

    row: Int[np.ndarray, " texels"]
    column: Int[np.ndarray, " texels"]
    uv: Float[np.ndarray, "texels 2"]


@lru_cache(maxsize=4)
def _held(layout: Layout, size: int) -> tuple[Texels, ...]:
    return tuple(_texels(layout.own, layout.atlas, size))


def _texels(target: Corners, source: Corners, size: int) -> Iterator[Texels]:
    """Strips of an image of `size` whose faces lie at `target`; places are in one where they lie at `source`."""
    pixels = np.stack([target[..., 0], 1 - target[..., 1]], -1) * size - 0.5
    for top in range(0, size, STRIP):
        rows = slice(top, min(top + STRIP, size))
        parts = [_window(pixels, source, rows, slice(k, min(k + WINDOW, size)), size) for k in range(0, size, WINDOW)]
        yield Texels(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _window(pixels: Corners, source: Corners, rows: slice, columns: slice, size: int) -> Texels:
    """The first face over each texel, else the nearest beside it, at its edge; rows from the window's first."""
    found = rasterise(pixels, rows, columns, margin=min(max(2, size // 128), 4))
    found = found.of(np.lexsort((-found.face, np.where(found.inside < -1e-9, found.inside, 0))))
    winner = np.full((rows.stop - rows.start, columns.stop - columns.start), -1)
    winner[found.row - rows.start, found.column - columns.start] = np.arange(len(found.row))  # numpy keeps the last
    found = found.of(winner[winner >= 0])
    weights = found.weights.clip(0)
    weights /= weights.sum(1, keepdims=True)
    return Texels(found.row - rows.start, found.column, np.einsum("tk,tkd->td", weights, source[found.face]))


def _reduced(image: np.ndarray, source: Corners, target: Corners, size: int) -> Float32[np.ndarray, "n n 3"]:
    """The image at `source` as averages of 2, 4, … of its texels, as many as go into one of `target`'s, and into it."""
    step = np.sqrt(_area(source) / max(_area(target), 1e-12)) * len(image) / size
    times = 1
    while 2 * times <= step + 1e-6 and len(image) % (2 * times) == 0:
        times *= 2
    if times == 1:
        return np.ascontiguousarray(image, np.float32)
    own = len(image) // times
    return np.asarray(image.reshape(own, times, own, times, 3).mean((1, 3), dtype=np.float32))


def _read(
    image: Float32[np.ndarray, "n n 3"], strips: Iterable[Texels], size: int
) -> Iterator[tuple[Float32[np.ndarray, "rows size 3"], Texels]]:
    for top, texels in zip(range(0, size, STRIP), strips, strict=True):
        strip = np.zeros((min(STRIP, size - top), size, 3), np.float32)
        strip[texels.row, texels.column] = _bicubic(texels.uv, len(image)) @ image.reshape(-1, 3)
        yield strip, texels


def _area(corners: Corners) -> float:
    return float(np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])).sum())


def _bicubic(uv: Float[np.ndarray, "points 2"], size: int) -> csr_matrix:
    """(P, size²): what reads an image at uv points; at a texel's centre, just that texel. Edges are continued."""
    places = np.stack([uv[:, 0], 1 - uv[:, 1]], 1) * size - 0.5
    whole = np.rint(places)
    places = np.where(np.abs(places - whole) < 1e-6, whole, places)
    first = np.floor(places)
    near = (first[..., None] + np.arange(-1, 3)).clip(0, size - 1).astype(np.int32)
    away = np.abs((places - first)[..., None] - np.arange(-1, 3))
    inner = ((CUBIC + 2) * away - (CUBIC + 3)) * away**2 + 1
    outer = ((away - 5) * away + 8) * CUBIC * away - 4 * CUBIC
    column, row = np.where(away < 1, inner, outer).astype(np.float32).swapaxes(0, 1)
    texels = near[:, 1, :, None] * size + near[:, 0, None, :]
    weights = row[:, :, None] * column[:, None, :]
    return csr_matrix((weights.ravel(), texels.ravel(), np.arange(0, weights.size + 1, 16)), (len(places), size**2))
