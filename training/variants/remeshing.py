"""The same surface in other triangles: sampled on the atlas, subdivided, or decimated by quadrics."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from models.atlas import Anchors, Atlas
from models.mmtalker.sampling import sample_surface
from models.subdivision import cut_faces
from models.surface import face_areas
from models.template import Head
from training.variants.figure import Faces, Figure, Positions

WAVES, WAVE_M, UNEVENNESS = 24, 0.05, 1.1
"""The random field of an uneven density: how many waves, of which lengths at least, and its logarithm's deviation."""
CANDIDATES = 96
"""Faces near a decimated vertex, of which the nearest one that fits is looked for."""
WRONG_M = 0.1
"""Distance that one which does not fit is taken to be further away."""


def sampled(
    head: Head, vertices: Positions, count: int, seed: int, *, even: bool = True, welded: bool = True
) -> Figure:
    """`count` points on the atlas and their triangles; by area, or by that times a smooth random field. Points on seams
    are there on each side; `welded`, they are one vertex.
    """
    atlas = head.atlas
    corners = atlas.vertices[atlas.faces].astype(np.float64)
    area = face_areas(atlas.vertices.astype(np.float64), atlas.faces)
    density = np.log(np.maximum(area, 1e-12))
    if not even:
        density += _random_field(corners.mean(1), seed)
    anchors, _, faces = sample_surface(atlas, density.astype(np.float32), count, seed)
    chart = atlas.chart[anchors.face[faces]].max(1).astype(int)
    points = atlas.interpolate(vertices, anchors)
    figure = Figure(points, faces.astype(int), np.arange(len(faces)), chart, anchors)
    return weld(figure, atlas) if welded else figure


def weld(figure: Figure, atlas: Atlas) -> Figure:
    """Vertices at one place of the atlas made one. Those of lips that merely touch are at two."""
    weights = np.round(figure.anchors.weights, 5)
    owner = np.where(weights > 0, atlas.faces[figure.anchors.face], -1)
    order = np.argsort(owner, 1)
    key = np.c_[np.take_along_axis(owner, order, 1), np.take_along_axis(weights, order, 1)]
    _, first, inverse = np.unique(key, axis=0, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))
    return Figure(
        figure.vertices[np.sort(first)],
        place[inverse.ravel()][figure.faces],
        figure.polygon,
        figure.chart,
        Anchors(*(part[np.sort(first)] for part in figure.anchors)),
    )


def subdivided(head: Head, vertices: Positions, parts: int) -> Figure:
    """Every triangle of an identity's own mesh cut into parts² alike ones."""
    atlas = head.atlas
    cut = cut_faces(atlas.faces, parts)
    anchors = Anchors(cut.face.astype(np.int32), cut.weights.astype(np.float32))
    chart = np.repeat(atlas.chart.astype(int), parts**2)
    return Figure(atlas.interpolate(vertices, anchors), cut.faces, np.arange(len(cut.faces)), chart, anchors)


def decimated(head: Head, vertices: Positions, count: int) -> Figure:
    """An identity's own mesh, subdivided if need be, with edges collapsed by quadric error to about `count` vertices.

    The anchor of a vertex is the nearest place of the surface that lies on one of the charts that meet in it, is turned
    as it is, and is not on the other lip than the vertex that it was born of.
    """
    from igl import qslim

    parts = 1 + int(count > 0.7 * len(vertices)) * int(np.ceil(np.sqrt(count / len(vertices))))
    dense = subdivided(head, vertices, parts)
    spare = 2 * len(dense.vertices) - len(dense.faces)
    moved, faces, birth_face, birth_vertex = qslim(
        np.asfortranarray(dense.vertices), np.asfortranarray(dense.faces.astype(np.int32)), 2 * count - spare
    )
    chart, side = dense.chart[birth_face], np.sign(np.asarray(head.seal.field.sum(1)).ravel())
    born = Anchors(*(part[birth_vertex] for part in dense.anchors))
    own_side, face_side = head.atlas.interpolate(side, born), side[head.atlas.faces].mean(1)
    corners = vertices[head.atlas.faces]
    near = cKDTree(corners.mean(1)).query(moved, CANDIDATES)[1]
    weights = nearest_on_triangles(moved, corners[near])
    away = np.linalg.norm(np.einsum("pck,pckd->pcd", weights, corners[near]) - moved[:, None], axis=2)
    wrong = ~_charts_at(faces, chart, len(moved))[np.arange(len(moved))[:, None], head.atlas.chart[near]]
    wrong |= np.einsum("pcd,pd->pc", _normals(corners)[near], _vertex_normals(moved, faces)) < 0
    wrong |= own_side[:, None] * face_side[near] < 0
    row, best = np.arange(len(moved)), np.argmin(away + WRONG_M * wrong, 1)
    anchors = Anchors(near[row, best].astype(np.int32), weights[row, best].astype(np.float32))
    return Figure(np.ascontiguousarray(moved), np.ascontiguousarray(faces), np.arange(len(faces)), chart, anchors)


def nearest_on_triangles(
    points: Float[np.ndarray, "points 3"], corners: Float[np.ndarray, "points candidates 3 3"]
) -> Float[np.ndarray, "points candidates 3"]:
    """Barycentric weights of the nearest place to a point on each of its triangles (Ericson, Real-Time Collision
    Detection, 5.1.5: on the face if its foot is inside, else on the nearest edge).
    """
    a, b, c = (corners[..., k, :] for k in range(3))
    ab, ac, way = b - a, c - a, points[:, None] - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (way * ab).sum(-1), (way * ac).sum(-1)
    determinant = np.maximum(d00 * d11 - d01**2, 1e-30)
    second, third = (d11 * d20 - d01 * d21) / determinant, (d00 * d21 - d01 * d20) / determinant
    result = np.stack([1 - second - third, second, third], -1)
    outside = result.min(-1) < 0
    best = np.where(outside, np.inf, -1.0)
    for k in range(3):
        begin, end = corners[..., k, :], corners[..., k - 2, :]
        along = end - begin
        share = ((points[:, None] - begin) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-30)
        share = np.clip(share, 0, 1)
        distance = np.linalg.norm(begin + share[..., None] * along - points[:, None], axis=-1)
        edge = np.zeros_like(result)
        edge[..., k], edge[..., k - 2] = 1 - share, share
        nearer = distance < best
        result[nearer], best[nearer] = edge[nearer], distance[nearer]
    return result


def _charts_at(faces: Faces, chart: Int[np.ndarray, " faces"], count: int) -> Bool[np.ndarray, "vertices charts"]:
    """Which charts meet in each vertex."""
    upon = np.zeros((count, chart.max() + 1), bool)
    upon[faces, chart[:, None]] = True
    return upon


def _vertex_normals(vertices: Positions, faces: Faces) -> Positions:
    """Normals of vertices, as long as twice the area of their faces at most."""
    normals = np.zeros_like(vertices)
    np.add.at(normals, faces, _normals(vertices[faces])[:, None])
    return normals


def _normals(corners: Float[np.ndarray, "faces 3 3"]) -> Float[np.ndarray, "faces 3"]:
    """Normals of triangles, as long as twice their area."""
    return np.asarray(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))


def _random_field(places: Positions, seed: int) -> Float[np.ndarray, " places"]:
    random = np.random.default_rng([seed, 13])
    direction = random.normal(size=(WAVES, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    length = WAVE_M * 2 ** random.uniform(0, 1.5, WAVES)
    waves = np.sin(places @ (2 * np.pi * direction / length[:, None]).T + random.uniform(0, 2 * np.pi, WAVES))
    return UNEVENNESS * waves.sum(1) / np.sqrt(WAVES / 2)
