"""In-plane strain of the canonical skin: how far positions move per metre along it, averaged over its neighbourhood."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix, diags
from scipy.spatial import cKDTree

from models.surface import vertex_neighbours
from models.template import Head

HOLLOW_ROUNDS = 3
"""Averagings over neighbours between a vertex and the place that its hollowness is measured from."""

Points = Float[np.ndarray, "points 3"]


@dataclass(frozen=True, eq=False)
class Surface:
    """The skin's triangles at rest: faces (F, 3), centres and unit normals (F, 3), areas (F,) and the gradients
    (F, 3, 3) of their corners' hat functions, per metre.
    """

    faces: Int[np.ndarray, "faces 3"]
    centres: Float[np.ndarray, "faces 3"]
    normals: Float[np.ndarray, "faces 3"]
    areas: Float[np.ndarray, " faces"]
    gradients: Float[np.ndarray, "faces 3 3"]
    count: int
    """Vertices of the whole head."""


def skin_surface(head: Head) -> Surface:
    """The skin of the canonical head."""
    atlas = head.atlas
    faces = head.faces_of("skin")
    corners = atlas.vertices.astype(np.float64)[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    doubled = np.linalg.norm(normals, axis=1, keepdims=True)
    normals /= doubled
    opposite = np.roll(corners, -2, 1) - np.roll(corners, -1, 1)
    gradients = np.cross(normals[:, None], opposite) / doubled[:, None]
    return Surface(faces, corners.mean(1), normals, doubled[:, 0] / 2, gradients, len(atlas.vertices))


def derivative(
    surface: Surface,
    places: Points,
    normals: Points,
    directions: Points,
    sigma_m: Float[np.ndarray, " points"],
) -> csr_matrix:
    """Sparse (points, vertices): the derivative of a vertex quantity along a direction at each place, per metre,
    averaged over a Gaussian of deviation `sigma_m` about it.

    The length of the derivative of positions over that at rest is the stretch along the direction. A rigid motion
    turns the one into the other, so it has no strain, however large.
    """
    tree = cKDTree(surface.centres)
    near = cKDTree(places).sparse_distance_matrix(tree, 3 * sigma_m.max(), output_type="coo_matrix")
    kept = near.data < 3 * sigma_m[near.row]
    row, face, distance = near.row[kept], near.col[kept], near.data[kept]
    facing = np.clip((normals[row] * surface.normals[face]).sum(1), 0, 1)
    weight = np.exp(-((distance / sigma_m[row]) ** 2) / 2) * facing * surface.areas[face]
    slopes = np.einsum("nd,nkd->nk", directions[row], surface.gradients[face])
    entries = (weight[:, None] * slopes).ravel(), (np.repeat(row, 3), surface.faces[face].ravel())
    total = np.bincount(row, weight, len(places))
    return diags(1 / np.maximum(total, 1e-20)) @ csr_matrix(entries, shape=(len(places), surface.count))


@dataclass(frozen=True, eq=False)
class Patches:
    """Where skin is spread and where it sinks, about some vertices.

    spans: derivatives along two directions at each (P, vertices); hollow (P, vertices): from each to those around it.
    """

    spans: tuple[csr_matrix, csr_matrix]
    hollow: csr_matrix

    def measure(
        self, positions: Float[np.ndarray, "frames vertices 3"]
    ) -> tuple[Float[np.ndarray, "frames patches"], Float[np.ndarray, "frames patches"]]:
        """Area of the skin over that at rest, about; and how deep it lies below its surroundings, in metres."""
        first, second = (apply(span, positions) for span in self.spans)
        spread = np.cross(first, second)
        area = np.maximum(length(spread), 1e-3)
        x, y, z = np.moveaxis(apply(self.hollow, positions) * spread, 2, 0)
        return area, (x + y + z) / area


def skin_patches(surface: Surface, vertices: Points, members: Int[np.ndarray, " members"], sigma_m: float) -> Patches:
    """Patches about some vertices of the skin, their strain averaged over a Gaussian of deviation `sigma_m`."""
    normals, sigma = vertex_normals(surface)[members], np.full(len(members), sigma_m)
    sideways = np.cross([0.0, 1.0, 0.0], normals)
    sideways /= np.maximum(np.linalg.norm(sideways, axis=1, keepdims=True), 1e-9)
    spans = (
        derivative(surface, vertices[members], normals, sideways, sigma),
        derivative(surface, vertices[members], normals, np.cross(normals, sideways), sigma),
    )
    return Patches(spans, _hollowing(surface)[members])


def vertex_normals(surface: Surface) -> Points:
    """Unit normals (vertices, 3), weighted by area; zero where no skin is."""
    normals = np.zeros((surface.count, 3))
    for k in range(3):
        np.add.at(normals, surface.faces[:, k], surface.normals * surface.areas[:, None])
    return np.asarray(normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-20))


def apply(matrix: csr_matrix, positions: Float[np.ndarray, "frames vertices 3"]) -> Float[np.ndarray, "frames rows 3"]:
    """A (rows, vertices) matrix on every frame."""
    columns = matrix @ positions.transpose(1, 0, 2).reshape(matrix.shape[1], -1)
    return np.asarray(columns.reshape(matrix.shape[0], len(positions), 3).transpose(1, 0, 2))


def length(vectors: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "..."]:
    """Euclidean length, the same to the last bit wherever a vector lies in memory."""
    x, y, z = np.moveaxis(vectors, -1, 0)
    return np.asarray(np.sqrt(x * x + y * y + z * z))


def _hollowing(surface: Surface) -> csr_matrix:
    adjacency = vertex_neighbours(surface.faces, surface.count)
    average = diags(1 / np.maximum(adjacency @ np.ones(surface.count), 1)) @ adjacency
    smooth = average
    for _ in range(HOLLOW_ROUNDS - 1):
        smooth = average @ smooth
    return (smooth - diags(np.ones(surface.count))).tocsr()
