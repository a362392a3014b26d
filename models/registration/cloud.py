"""A triangle mesh as something to come close to: the nearest place on it that faces the same way."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from models.surface import face_areas, vertex_areas

Points = Float[np.ndarray, "points 3"]
Faces = Int[np.ndarray, "faces 3"]

SPACING_M = 0.002
"""Distance of samples, as far as MOST allows."""
MOST = 400_000
TURN_M = 0.012
"""Metres that count as much as normals at a right angle do, over the root of two."""
CLOSE_TURN_M = 0.004
"""The same between surfaces that lie on each other: normals at a coarse one's vertices are off by more than places."""
CANDIDATES = 8


class Place(NamedTuple):
    """Nearest places on a surface: face (P,), barycentric weights (P, 3), points and unit normals (P, 3)."""

    face: Int[np.ndarray, " points"]
    weights: Float[np.ndarray, "points 3"]
    points: Points
    normals: Points


@dataclass(frozen=True, eq=False)
class Cloud:
    """A surface in metres of the canonical head's size: vertices (V, 3), faces (F, 3) of some area."""

    vertices: Points
    faces: Faces
    turn_m: float = TURN_M
    spacing_m: float = SPACING_M

    @cached_property
    def normals(self) -> Points:
        """Unit normals of the vertices, by area."""
        return vertex_normals(self.vertices, self.faces)

    def picked(self, count: int) -> tuple[Points, Points, Float[np.ndarray, " points"]]:
        """At most `count` of the vertices, their normals, and the area that each stands for."""
        area = vertex_areas(self.vertices, self.faces)
        used = np.flatnonzero(area > 0)
        used = used[:: max(-(-len(used) // count), 1)]
        return self.vertices[used], self.normals[used], area[used]

    @cached_property
    def _tree(self) -> tuple[cKDTree, Int[np.ndarray, " samples"]]:
        face, weights = _samples(self.vertices, self.faces, self.spacing_m)
        points, normals = (
            np.einsum("sk,skd->sd", weights, of[self.faces[face]]) for of in (self.vertices, self.normals)
        )
        return cKDTree(np.c_[points, self.turn_m * unit(normals)]), face

    def nearest(self, points: Points, normals: Points, candidates: int = CANDIDATES) -> Place:
        """The nearest place to each point, where a difference of normals counts as distance."""
        tree, of_sample = self._tree
        _, found = tree.query(np.c_[points, self.turn_m * normals], k=candidates, workers=-1)
        face = of_sample[np.minimum(found, len(of_sample) - 1)]
        weights, near = closest(points[:, None], self.vertices[self.faces[face]])
        turned = unit(np.einsum("pck,pckd->pcd", weights, self.normals[self.faces[face]]))
        cost = ((near - points[:, None]) ** 2).sum(2) + self.turn_m**2 * ((turned - normals[:, None]) ** 2).sum(2)
        row, best = np.arange(len(points)), cost.argmin(1)
        return Place(face[row, best], weights[row, best], near[row, best], turned[row, best])


def closest(points: np.ndarray, corners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric weights (..., 3) and places (..., 3) of the nearest points of triangles (..., 3, 3)."""
    a, b, c = (corners[..., k, :] for k in range(3))
    ab, ac, ap = b - a, c - a, points - a
    d1, d2 = (ab * ap).sum(-1), (ac * ap).sum(-1)
    aa, bb, cross = (ab * ab).sum(-1), (ac * ac).sum(-1), (ab * ac).sum(-1)
    area = aa * bb - cross**2
    whole = np.maximum(area, 1e-30)
    v, w = (bb * d1 - cross * d2) / whole, (aa * d2 - cross * d1) / whole
    weights = np.stack([1 - v - w, v, w], -1)
    outside = (weights.min(-1) < 0) | (area <= 1e-12 * aa * bb)  # of no area: an edge of it is nearest
    if outside.any():
        weights[outside] = _on_edges(*(x[outside] for x in np.broadcast_arrays(points, a, b, c)))
    return weights, np.einsum("...k,...kd->...d", weights, corners)


def _on_edges(points: np.ndarray, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    result, best = np.zeros((len(points), 3)), np.full(len(points), np.inf)
    for first, begin, end in ((0, a, b), (1, b, c), (2, c, a)):
        along = end - begin
        share = ((points - begin) * along).sum(1) / np.maximum((along**2).sum(1), 1e-30)
        share = share.clip(0, 1)
        distance = ((begin + share[:, None] * along - points) ** 2).sum(1)
        nearer = distance < best
        best[nearer] = distance[nearer]
        result[nearer] = 0
        result[nearer, first], result[nearer, (first + 1) % 3] = 1 - share[nearer], share[nearer]
    return result


def vertex_normals(vertices: Points, faces: Faces) -> Points:
    """Unit normals of vertices, by area; a vertex of no face has +Z."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    ones = np.ones(3 * len(faces))
    spread = csr_matrix((ones, (faces.ravel(), np.repeat(np.arange(len(faces)), 3))), (len(vertices), len(faces)))
    return unit(spread @ np.cross(b - a, c - a))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1; of length 0, +Z."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.where(length > 1e-20, vectors / np.maximum(length, 1e-20), np.array([0.0, 0, 1]))


def fit_sphere(points: Points) -> tuple[Float[np.ndarray, " 3"], float]:
    """Centre and radius of the sphere nearest to points, by linear least squares."""
    solution = np.linalg.lstsq(np.c_[2 * points, np.ones(len(points))], (points**2).sum(1), rcond=None)[0]
    return solution[:3], float(np.sqrt(max(solution[3] + (solution[:3] ** 2).sum(), 0)))


def _samples(
    vertices: Points, faces: Faces, spacing: float
) -> tuple[Int[np.ndarray, " samples"], Float[np.ndarray, "samples 3"]]:
    """Places spread over the faces, at least one each: the centres of the n² equal parts of a face."""
    areas = face_areas(vertices, faces)
    spacing = max(spacing, float(np.sqrt(areas.sum() / MOST)))
    parts = np.ceil(np.sqrt(areas) / spacing).clip(1, 24).astype(int)
    found = []
    for n in np.unique(parts):
        own = np.flatnonzero(parts == n)
        centres = _centres(int(n))
        found.append((np.repeat(own, len(centres)), np.tile(centres, (len(own), 1))))
    face, weights = (np.concatenate(part) for part in zip(*found, strict=True))
    return face, weights


def _centres(n: int) -> Float[np.ndarray, "parts 3"]:
    """Barycentric centres of the n² triangles that a triangle is cut into."""
    up = [(3 * i + 1, 3 * j + 1) for i in range(n) for j in range(n - i)]
    down = [(3 * i + 2, 3 * j + 2) for i in range(n) for j in range(n - i - 1)]
    v, w = np.array(up + down).T / (3 * n)
    return np.stack([1 - v - w, v, w], 1)
