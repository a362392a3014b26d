"""Meshes that are no heads one can animate: a cube, a hand, a body without a head; and heads whose mouth is sealed, or
is of a few vertices.
"""

from functools import reduce

import numpy as np
from foreign_head import _capsule, _ellipsoid, _join, surface_nets
from scipy.sparse.csgraph import dijkstra

from models.meshes.record import MeshFile
from models.surface import boundary_loops, edge_graph

Shape = tuple[np.ndarray, np.ndarray]


def cube(cuts: int = 24) -> Shape:
    """Of side 1, its sides cut into squares."""
    grid = np.linspace(-0.6, 0.6, int(cuts * 1.2) + 1)
    return surface_nets(lambda at: np.abs(at).max(-1) - 0.5, (grid, grid, grid))


def hand() -> Shape:
    """A palm and five fingers, in metres."""
    tips = [(-0.045, 0.07), (-0.018, 0.1), (0.006, 0.105), (0.03, 0.095)]
    roots = [(-0.032, 0.0), (-0.011, 0.005), (0.01, 0.005), (0.03, 0.0)]

    def distance(at: np.ndarray) -> np.ndarray:
        palm = _ellipsoid(at, (0.0, -0.045, 0.0), (0.042, 0.055, 0.016))
        fingers = [
            _capsule(at, (x, y, 0.0), (to_x, to_y, 0.006), 0.0085)
            for (x, y), (to_x, to_y) in zip(roots, tips, strict=True)
        ]
        thumb = _capsule(at, (-0.03, -0.06, 0.004), (-0.075, -0.015, 0.02), 0.0105)
        return reduce(lambda one, other: _join(one, other, 0.008), [*fingers, thumb], palm)

    return surface_nets(distance, _grids((-0.1, -0.115, -0.03), (0.06, 0.125, 0.04), 0.003))


def body() -> Shape:
    """A torso with arms and legs, and a neck that ends in nothing, in metres."""
    limbs = [((s * 0.17, 0.4, 0.0), (s * 0.45, 0.0, 0.02), 0.045) for s in (-1, 1)]
    limbs += [((s * 0.09, -0.15, 0.0), (s * 0.12, -0.95, 0.0), 0.075) for s in (-1, 1)]

    def distance(at: np.ndarray) -> np.ndarray:
        torso = _join(
            _ellipsoid(at, (0.0, 0.25, 0.0), (0.19, 0.3, 0.11)), _ellipsoid(at, (0, -0.08, 0), (0.17, 0.16, 0.12)), 0.08
        )
        torso = _join(torso, _capsule(at, (0, 0.45, 0), (0, 0.6, 0.01), 0.055), 0.05)
        return reduce(lambda one, other: _join(one, other, 0.05), [_capsule(at, *limb) for limb in limbs], torso)

    return surface_nets(distance, _grids((-0.52, -1.05, -0.16), (0.52, 0.6, 0.16), 0.016))


def sealed(vertices: np.ndarray, faces: np.ndarray) -> Shape:
    """A head without a mouth's inside, its lips sewn together."""
    loops = [loop for loop in boundary_loops(faces) if 0.03 < np.ptp(vertices[loop, 0]) < 0.08]
    (mouth,) = [loop for loop in loops if abs(vertices[loop, 0].mean()) < 0.01]
    mouth = np.roll(mouth, -int(vertices[mouth, 0].argmin()))
    turn = int(vertices[mouth, 0].argmax())
    one, other = mouth[: turn + 1].tolist(), [mouth[0], *mouth[:turn:-1].tolist(), mouth[turn]]
    seam = []
    while len(one) > 1 or len(other) > 1:
        if len(other) == 1 or (len(one) > 1 and vertices[one[1], 0] < vertices[other[1], 0]):
            seam.append((one[1], one[0], other[0]))
            one = one[1:]
        else:
            seam.append((other[0], other[1], one[0]))
            other = other[1:]
    sewn = np.array([triangle for triangle in seam if len(set(triangle)) == 3])
    return vertices, np.concatenate([faces, sewn])


def coarse(vertices: np.ndarray, faces: np.ndarray, middle: np.ndarray, apart_m: float) -> Shape:
    """A surface with vertices at least so far apart, along edges, within 35 mm of a place; the others are merged."""
    graph, away = edge_graph(vertices, faces), np.linalg.norm(vertices - middle, axis=1)
    kept = np.flatnonzero(away > 0.035)
    while True:
        distance, _, nearest = dijkstra(graph, directed=False, indices=kept, min_only=True, return_predecessors=True)
        candidate = int(np.where(np.isfinite(distance), distance, 0).argmax())
        if distance[candidate] < apart_m:
            break
        kept = np.append(kept, candidate)
    merged = np.where(nearest[faces] >= 0, nearest[faces], faces)
    a, b, c = merged.T
    return vertices, merged[(a != b) & (b != c) & (c != a)]


def file_of(shape: Shape) -> MeshFile:
    """A shape as an OBJ without uvs would hold it."""
    vertices, faces = shape
    cut = faces.shape[1] - 2
    triangles = np.stack([faces[:, [0, k + 1, k + 2]] for k in range(cut)], 1).reshape(-1, 3).astype(np.int32)
    polygon = np.repeat(np.arange(len(faces), dtype=np.int32), cut)
    return MeshFile(
        "obj", vertices.astype(np.float32), triangles, polygon, None, None, np.zeros_like(polygon), ("nobody",)
    )


def _grids(low: tuple[float, ...], high: tuple[float, ...], step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x, y, z = (np.arange(a, b + step, step) for a, b in zip(low, high, strict=True))
    return x, y, z
