"""A mesh as graphics hardware wants it: one uv a vertex, and smooth normals."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64, UInt16, UInt32
from scipy import sparse

from models.core import Mesh

FALLBACK_NORMAL = np.array([0, 0, 1], np.float32)
"""Of a vertex without a face of any area: forward, because glTF wants unit vectors."""


@dataclass(frozen=True, eq=False)
class Surface:
    """A mesh split at its uv seams.

    corners (W,): the mesh vertex behind each split vertex; the first V are the mesh's own, in order, and the copies
    follow. uvs (W, 2) with the origin at the upper left, as in glTF. triangles (F, 3) into the split vertices.
    incidence (V, F) is 1 where a face touches a vertex of the mesh.
    """

    mesh: Mesh
    corners: Int64[np.ndarray, " corners"]
    uvs: Float32[np.ndarray, "corners 2"]
    triangles: UInt16[np.ndarray, "faces 3"] | UInt32[np.ndarray, "faces 3"]
    incidence: sparse.csr_array

    def normals(self, vertices: Float32[np.ndarray, "vertices 3"]) -> Float32[np.ndarray, "corners 3"]:
        """Return unit normals of the split vertices, weighted by area and smooth across the seams."""
        corner_a, corner_b, corner_c = (vertices[self.mesh.faces[:, corner]] for corner in range(3))
        normals = self.incidence @ np.cross(corner_b - corner_a, corner_c - corner_a)
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        flat = length == 0
        unit = np.where(flat, FALLBACK_NORMAL, normals / np.where(flat, 1, length))
        smooth: np.ndarray = unit.astype(np.float32)[self.corners]
        return smooth


def split_seams(mesh: Mesh) -> Surface:
    """Split the vertices that carry several uvs. uvs of equal value count as one."""
    values, of_uv = np.unique(np.ascontiguousarray(mesh.uvs).view(np.int64).ravel(), return_inverse=True)
    count = len(mesh.vertices)
    pairs, of_corner = np.unique(
        mesh.faces.ravel().astype(np.int64) * len(values) + of_uv[mesh.uv_faces.ravel()], return_inverse=True
    )
    vertex, value = np.divmod(pairs, len(values))
    first = np.append(True, vertex[1:] != vertex[:-1])  # pairs are sorted by vertex
    place = np.where(first, vertex, count - 1 + np.cumsum(~first))
    corners = np.concatenate([np.arange(count), vertex[~first]])
    uvs = np.zeros((len(corners), 2), np.float32)
    uvs[place] = values[value].view(np.float32).reshape(-1, 2) * [1, -1] + [0, 1]
    index = np.uint16 if len(corners) <= 0xFFFF else np.uint32  # 0xFFFF itself is reserved
    faces = len(mesh.faces)
    incidence = sparse.csr_array(
        (np.ones(3 * faces, np.float32), (mesh.faces.ravel(), np.repeat(np.arange(faces), 3))), shape=(count, faces)
    )
    return Surface(mesh, corners, uvs, place[of_corner].reshape(-1, 3).astype(index), incidence)
