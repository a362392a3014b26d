"""Polygons cut into triangles, indices within their range, and which picture covers most."""

from collections.abc import Container

import numpy as np
from jaxtyping import Float32, Int, Int32, Shaped

from models.errors import MalformedInput
from models.meshes.record import DAMAGED, MeshLimits


def fan(
    corners: Int[np.ndarray, " polygons"], limits: MeshLimits
) -> tuple[Int[np.ndarray, "triangles 3"], Int32[np.ndarray, " triangles"]]:
    """Polygons of so many corners, cut into fans from their first one: indices into all corners, in the order of the
    polygons, and the polygon of each triangle. MalformedInput for fewer than three corners, TooLarge over the limit.
    """
    if len(corners):
        check_corners(int(corners.min()))
    limits.check(triangles=int((corners - 2).sum()))
    polygon = np.repeat(np.arange(len(corners), dtype=np.int32), corners - 2)
    first = (np.cumsum(corners) - corners)[polygon]
    within = np.arange(len(polygon)) - (np.cumsum(corners - 2) - corners + 2)[polygon]
    return np.stack([first, first + within + 1, first + within + 2], 1), polygon


def check_corners(count: int) -> None:
    """Refuse, as MalformedInput, a polygon of fewer than three corners."""
    if count < 3:
        raise MalformedInput(f"a face with {count} corners; wanted three or more: remove it", code=DAMAGED)


def checked_indices(values: Shaped[np.ndarray, "..."], size: int, name: str) -> Int32[np.ndarray, "..."]:
    """Numbers that are whole and within 0..size - 1, as int32; MalformedInput otherwise."""
    whole = values.dtype.kind in "iu" or (values == np.floor(values)).all()
    if values.size and not (values.min() >= 0 and values.max() < size and whole):
        raise MalformedInput(f"faces with numbers of {name} outside 0..{size - 1}; export the mesh anew", code=DAMAGED)
    return values.astype(np.int32)


def widest(
    vertices: Float32[np.ndarray, "vertices 3"],
    faces: Int32[np.ndarray, "faces 3"],
    material: Int32[np.ndarray, " faces"],
    among: Container[int],
) -> int | None:
    """Of some materials the one with the largest area."""
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    areas = np.bincount(material, area)
    return max((k for k in range(len(areas)) if k in among), key=lambda k: areas[k], default=None)
