"""Where the corners of a mesh's faces lie on the atlas: a vertex on a seam has a place on each side of it."""

from itertools import product

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import csr_matrix

from models.atlas import Anchors, Atlas

TOUCH = 1e-6
"""Weight of a corner up to which an anchor lies on the edge across, and so on both sides of a seam."""
STRETCH = 2.5
"""A face's way round in uv over what its way round in space comes to there, up to which no seam lies in between. The
default head's reach 1.4, those of 500 samples of it 2.0; a face from the middle of a lip to the other has 7.
"""

Corners = Float[np.ndarray, "faces 3 2"]


def corner_uvs(atlas: Atlas, anchors: Anchors, faces: Int[np.ndarray, "faces 3"]) -> Corners:
    """uv on the atlas of each corner of a mesh's faces; NaN for a face that straddles a seam.

    anchors: of the mesh's vertices. One on a seam has a uv on each side; a face takes those of one chart that lie no
    further apart than its size in space allows: counter-clockwise rather than not, then nearest together.
    """
    uvs, charts = sides(atlas, anchors)
    choices = np.array(list(product(range(charts.shape[1]), repeat=3)))
    chart = charts[faces[:, None], choices]
    face, choice = np.nonzero((chart >= 0).all(2) & (chart == chart[..., :1]).all(2))
    corners = uvs[faces[face], choices[choice]]
    around = _around(corners)
    near = around <= STRETCH * _most_around(atlas, anchors, faces)[face]
    face, corners, around = face[near], corners[near], around[near]
    turned = np.linalg.det(corners[:, 1:] - corners[:, :1]) < 0
    best = np.lexsort((around, turned, face))
    found, first = np.unique(face[best], return_index=True)
    result = np.full((len(faces), 3, 2), np.nan)
    result[found] = corners[best[first]]
    return result


def sides(
    atlas: Atlas, anchors: Anchors
) -> tuple[Float[np.ndarray, "points sides 2"], Int[np.ndarray, "points sides"]]:
    """Every uv of each anchor, and the chart of each, -1 where there is none: those of all faces that it lies on."""
    weights = np.where(anchors.weights > TOUCH, anchors.weights.astype(np.float64), 0)
    weights /= weights.sum(1, keepdims=True)
    vertices, shape = atlas.faces[anchors.face], (len(weights), len(atlas.vertices))
    own, every = _incidence(vertices, weights > 0, shape[1]), _incidence(atlas.faces, atlas.faces >= 0, shape[1])
    common = (own @ every.T).tocoo()
    whole = common.data == (weights > 0).sum(1)[common.row]
    point, face = common.row[whole], common.col[whole]
    weights = np.where(atlas.faces[face][:, :, None] == vertices[point][:, None], weights[point][:, None], 0).sum(2)
    upon = np.sort(np.where(weights > 0, atlas.uv_faces[face], -1), 1)
    _, first = np.unique(np.c_[point, atlas.chart[face], upon], axis=0, return_index=True)
    point, face, weights = point[first], face[first], weights[first]
    side = np.arange(len(point)) - np.searchsorted(point, point)
    uvs, charts = np.full((shape[0], side.max() + 1, 2), np.nan), np.full((shape[0], side.max() + 1), -1)
    uvs[point, side], charts[point, side] = np.einsum("pk,pkd->pd", weights, atlas.corners[face]), atlas.chart[face]
    return uvs, charts


def _incidence(vertices: Int[np.ndarray, "points 3"], chosen: Bool[np.ndarray, "points 3"], count: int) -> csr_matrix:
    """(points, count): 1 at the vertices that are chosen of each point's three."""
    starts = np.arange(0, vertices.size + 1, 3)
    return csr_matrix((chosen.ravel().astype(int), vertices.ravel(), starts), (len(vertices), count))


def _most_around(atlas: Atlas, anchors: Anchors, faces: Int[np.ndarray, "faces 3"]) -> Float[np.ndarray, " faces"]:
    """A mesh's faces on the canonical head: the way round each, in uv as long as the most that its corners' faces make
    of a metre.
    """
    canonical = atlas.vertices.astype(np.float64)
    edges, lengths = (_edges(corners) for corners in (atlas.corners, canonical[atlas.faces]))
    per_metre = (edges / np.maximum(lengths, 1e-12)).max(1)
    return _around(atlas.interpolate(canonical, anchors)[faces]) * per_metre[anchors.face[faces]].max(1)


def _edges(corners: Float[np.ndarray, "faces 3 axes"]) -> Float[np.ndarray, "faces 3"]:
    return np.asarray(np.linalg.norm(corners - np.roll(corners, 1, 1), axis=2))


def _around(corners: Float[np.ndarray, "faces 3 axes"]) -> Float[np.ndarray, " faces"]:
    return np.asarray(_edges(corners).sum(1))
