"""A mesh as what it is made of: vertices that lie in one place welded, and the connected pieces."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from models.registration.cloud import Faces, Points
from models.surface import boundary_edges, face_areas, pieces


class Welded(NamedTuple):
    """Vertices (W, 3) in different places, faces (F, 3) of them, and which of them each vertex of the file is (V,).

    Faces keep the file's order; those of no area stay.
    """

    vertices: Points
    faces: Faces
    of: Int[np.ndarray, " vertices"]


class Piece(NamedTuple):
    """A connected piece: its number, its vertices, its faces as indices, and their area."""

    vertices: Int[np.ndarray, " members"]
    faces: Int[np.ndarray, " members"]
    area: float


def weld(vertices: Points, faces: Faces) -> Welded:
    """Join what a file cut along its uv seams: the ends of open edges that lie on each other, one there and one back.

    Other vertices in one place stay apart, such as those of lips that touch and lead inside; lips without an inside
    whose edges lie on each other all along look like a cut.
    """
    _, place = np.unique(vertices, axis=0, return_inverse=True)
    place = place.ravel().astype(np.int64)
    edges = boundary_edges(faces[_proper(faces)])
    begin, end = place[edges].T
    size = len(vertices)
    order = np.argsort(begin * size + end, kind="stable")
    there = (begin * size + end)[order]
    first, last = (np.searchsorted(there, end * size + begin, side=side) for side in ("left", "right"))
    one = np.repeat(np.arange(len(edges)), last - first)
    other = order[np.arange(len(one)) - np.repeat(np.cumsum(last - first) - last, last - first)]
    joined = edges[one].ravel(), edges[other][:, ::-1].ravel()
    links = coo_matrix((np.ones(len(joined[0])), joined), (size, size))
    _, of = connected_components(links, directed=False)
    _, kept = np.unique(of, return_index=True)
    return Welded(vertices[kept], of[faces], of)


def split(welded: Welded) -> list[Piece]:
    """Connected pieces with faces of some area, the largest first."""
    number = pieces(welded.faces, len(welded.vertices))
    areas, of_face = face_areas(welded.vertices, welded.faces), number[welded.faces[:, 0]]
    order = np.argsort(of_face, kind="stable")
    starts = np.flatnonzero(np.diff(of_face[order], prepend=-1))
    by_vertex = np.argsort(number, kind="stable")
    begins = np.searchsorted(number[by_vertex], np.arange(number.max() + 2))
    found = []
    for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
        own = order[begin:end]
        k = of_face[own[0]]
        found.append(Piece(by_vertex[begins[k] : begins[k + 1]], own, float(areas[own].sum())))
    return sorted((piece for piece in found if piece.area > 0), key=lambda piece: -piece.area)


def _proper(faces: Faces) -> np.ndarray:
    a, b, c = faces.T
    return (a != b) & (b != c) & (c != a)


def signed_volume(vertices: Float[np.ndarray, "vertices 3"], faces: Faces) -> float:
    """Volume that the faces enclose about their middle; negative when they face inwards."""
    corners = vertices[faces] - vertices[np.unique(faces)].mean(0)
    return float(np.linalg.det(corners).sum() / 6)
