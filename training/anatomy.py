"""What MakeHuman's head lacks: eyeballs with a cornea, and two rows of teeth with their gums.

Simple and procedural. Each part is a grid-like mesh with a chart of its own in 0..1; the painter knows their colours by
where on the chart a texel lies.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from models.parameterisation import signed_areas
from models.skin.parts import EYE_ANGLE, GUM_ROW, IRIS_ANGLE, TOOTH_WIDTHS


class Part(NamedTuple):
    """A mesh and its chart: vertices (V, 3), faces (F, 3), uvs (V, 2) of any scale."""

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    uvs: Float[np.ndarray, "vertices 2"]


def eyeball(centre: Float[np.ndarray, " 3"], radius: float, segments: int = 24) -> Part:
    """An eyeball looking along +Z, front 115° of it, the cornea bulging over the iris.

    The chart is a disc with the pupil in its middle; radii go with the root of the angle, so that the iris, whose rim
    is at IRIS_ANGLE / EYE_ANGLE of the squared radius, gets a quarter of it.
    """
    rings = np.concatenate([np.linspace(0, IRIS_ANGLE, 5)[1:], np.linspace(IRIS_ANGLE, EYE_ANGLE, 8)[1:]])
    turn = np.arange(segments) * 2 * np.pi / segments
    angle, around = (grid.ravel() for grid in np.meshgrid(rings, turn, indexing="ij"))
    angle, around = np.append(angle, 0.0), np.append(around, 0.0)
    bulge = 1 + 0.05 * np.clip(1 - (angle / IRIS_ANGLE) ** 2, 0, 1)
    direction = np.stack([np.sin(angle) * np.cos(around), np.sin(angle) * np.sin(around), np.cos(angle)], 1)
    uvs = 0.5 + 0.5 * np.sqrt(angle / EYE_ANGLE)[:, None] * np.stack([np.cos(around), np.sin(around)], 1)
    strip = _grid_faces(len(rings), segments, closed=True)
    fan = np.stack([np.full(segments, len(angle) - 1), np.roll(np.arange(segments), -1), np.arange(segments)], 1)
    return _outward(Part(centre + radius * bulge[:, None] * direction, np.concatenate([fan, strip]), uvs))


@dataclass(frozen=True)
class Arch:
    """A row of teeth: incisal edge at height edge_y, front surface at front_z, +1 upper or -1 lower."""

    edge_y: float
    front_z: float
    side: int
    curvature: float = 36.0
    """The arch is z = front_z - curvature · x²."""


CROWN = np.array(
    [(-1.5, 15.0), (0.2, 11.5), (0.6, 9.3), (1.1, 6.0), (0.9, 2.5), (0.0, 0.0), (-1.6, 0.3), (-3.6, 5.0), (-4.6, 14.0)]
) / 1e3  # fmt: skip
"""A tooth's profile from the gum's top, over the incisal edge, up its back: (outward, away from the edge)."""


def teeth(arch: Arch, columns: int = 4) -> Part:
    """One arch of twelve teeth and its gum; `columns` grid columns a tooth. The chart is (along, down the profile)."""
    widths = TOOTH_WIDTHS * (1.0 if arch.side > 0 else 0.88)
    edges = np.concatenate([[0], np.cumsum(widths)])
    along = np.unique(np.concatenate([np.linspace(a, b, columns + 1) for a, b in pairwise(edges)]))
    along = np.concatenate([-along[:0:-1], along])
    within = np.clip(np.searchsorted(edges, np.abs(along), side="right") - 1, 0, len(widths) - 1)
    centred = np.clip(2 * (np.abs(along) - edges[within]) / widths[within] - 1, -1, 1)
    gap = np.abs(centred) ** 4  # 1 between two teeth
    position, outward = _along_parabola(along, arch)
    profile_out, profile_up = CROWN[:, 0], CROWN[:, 1]
    crown = (np.arange(len(CROWN)) >= GUM_ROW) & (profile_up < 10e-3)
    out = profile_out[:, None] - 0.9e-3 * gap[None, :] * crown[:, None] * (profile_out[:, None] > -1e-3)
    up = profile_up[:, None] + 0.8e-3 * gap[None, :] * (profile_up[:, None] < 1e-3)
    up = up + 0.7e-3 * gap[None, :] * (np.arange(len(CROWN)) == GUM_ROW)[:, None] * -1
    grid = position[None] + out[..., None] * outward[None]
    grid[..., 1] = arch.edge_y + arch.side * up
    u = (along - along[0]) / np.ptp(along)
    v = np.linspace(1, 0, len(CROWN))
    uvs = np.stack(np.meshgrid(3 * u, v), -1).reshape(-1, 2)  # about as wide as it is in space
    return _outward(Part(grid.reshape(-1, 3), _grid_faces(len(CROWN), len(along), closed=False), uvs))


def _along_parabola(along: np.ndarray, arch: Arch) -> tuple[np.ndarray, np.ndarray]:
    """Points and outward normals at arc lengths along the arch."""
    x = np.linspace(0, 0.05, 2001)
    length = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(arch.curvature * x**2)))])
    across = np.sign(along) * np.interp(np.abs(along), length, x)
    position = np.stack([across, np.zeros_like(across), arch.front_z - arch.curvature * across**2], 1)
    outward = np.stack([2 * arch.curvature * across, np.zeros_like(across), np.ones_like(across)], 1)
    return position, outward / np.linalg.norm(outward, axis=1, keepdims=True)


def _grid_faces(rows: int, columns: int, *, closed: bool) -> Int[np.ndarray, "faces 3"]:
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns if closed else columns - 1), indexing="ij")
    a = (row * columns + column).ravel()
    b = (row * columns + (column + 1) % columns).ravel()
    return np.concatenate([np.stack([a, b, a + columns], 1), np.stack([b, b + columns, a + columns], 1)])


def _outward(part: Part) -> Part:
    """Faces turned, and the chart mirrored, so that both are counter-clockwise seen from outside."""
    corners = part.vertices[part.faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    away = corners.mean(1) - [0, part.vertices[:, 1].mean(), part.vertices[:, 2].mean() - 0.02]
    away[:, 0] -= part.vertices[:, 0].mean()
    faces = part.faces if (normal * away).sum() > 0 else part.faces[:, ::-1]
    uvs = part.uvs if signed_areas(part.uvs, faces).sum() > 0 else part.uvs * [-1, 1]
    return Part(part.vertices, faces, uvs)
