"""Triangle meshes as graphs: boundaries, neighbours, pieces, distances along edges."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

Faces = Int[np.ndarray, "faces 3"]


def boundary_mask(faces: Faces, count: int) -> Bool[np.ndarray, " vertices"]:
    """Which vertices lie on an edge of one triangle only."""
    mask = np.zeros(count, bool)
    mask[boundary_edges(faces).ravel()] = True
    return mask


def boundary_edges(faces: Faces) -> Int[np.ndarray, "edges 2"]:
    """Edges of one triangle only, directed as that triangle is."""
    directed = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    _, index, counts = np.unique(np.sort(directed, 1), axis=0, return_index=True, return_counts=True)
    return directed[np.sort(index[counts == 1])]


def boundary_loops(faces: Faces) -> list[Int[np.ndarray, " loop"]]:
    """Boundary vertices in order, one closed loop each, longest first; loops may touch in a vertex."""
    successors: dict[int, list[int]] = {}
    for begin, end in boundary_edges(faces).tolist():
        successors.setdefault(begin, []).append(end)
    loops = []
    for start in list(successors):
        while successors[start]:
            loop, vertex = [start], successors[start].pop()
            while vertex != start:
                loop.append(vertex)
                vertex = successors[vertex].pop()
            loops.append(np.array(loop))
    return sorted(loops, key=len, reverse=True)


def vertex_neighbours(faces: Faces, count: int) -> csr_matrix:
    """(vertices, vertices) adjacency of 0 and 1, without the diagonal."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    adjacency = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), (count, count)).tocsr()
    adjacency.data[:] = 1
    return adjacency


def face_neighbours(faces: Faces) -> csr_matrix:
    """(faces, faces) adjacency of 0 and 1 over common edges."""
    edges = np.sort(np.stack([faces, np.roll(faces, -1, 1)], -1).reshape(-1, 2), 1)
    _, edge = np.unique(edges, axis=0, return_inverse=True)
    of_face = np.repeat(np.arange(len(faces)), 3)
    incidence = coo_matrix((np.ones(len(of_face)), (of_face, edge.ravel())), (len(faces), edge.max() + 1)).tocsr()
    adjacency = (incidence @ incidence.T).tocsr()
    adjacency.setdiag(0)
    adjacency.eliminate_zeros()
    adjacency.data[:] = 1
    return adjacency


def pieces(faces: Faces, count: int) -> Int[np.ndarray, " vertices"]:
    """Number of the connected piece that each vertex belongs to."""
    return np.asarray(connected_components(vertex_neighbours(faces, count), directed=False)[1])


def face_areas(vertices: Float[np.ndarray, "vertices 3"], faces: Faces) -> Float[np.ndarray, " faces"]:
    """Area of every face."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.asarray(np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2)


def vertex_areas(vertices: Float[np.ndarray, "vertices 3"], faces: Faces) -> Float[np.ndarray, " vertices"]:
    """Area that each vertex stands for: a third of each of its faces."""
    areas = np.zeros(len(vertices))
    np.add.at(areas, faces.ravel(), np.repeat(face_areas(vertices, faces) / 3, 3))
    return areas


def edge_graph(vertices: Float[np.ndarray, "vertices 3"], faces: Faces) -> csr_matrix:
    """(vertices, vertices) lengths of edges, each once: for ways in either direction."""
    pairs = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    lengths = np.linalg.norm(vertices[pairs[:, 0]] - vertices[pairs[:, 1]], axis=1)
    pairs, first = np.unique(np.sort(pairs, 1), axis=0, return_index=True)
    return coo_matrix((lengths[first], (pairs[:, 0], pairs[:, 1])), (len(vertices), len(vertices))).tocsr()


def edge_distance(
    vertices: Float[np.ndarray, "vertices 3"], faces: Faces, sources: Int[np.ndarray, " sources"]
) -> Float[np.ndarray, " vertices"]:
    """Distance along edges from the nearest of `sources` to every vertex; infinite where there is no path."""
    graph = edge_graph(vertices, faces)
    return np.asarray(dijkstra(graph, directed=False, indices=sources, min_only=True))
