"""Which places of two surfaces belong together: the nearest, as far as they can be trusted."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from models.registration.cloud import CLOSE_TURN_M, Cloud, Faces, Points
from models.surface import vertex_areas

FACING = 0.5
"""Cosine of normals under which places do not match."""
ASIDE, ASIDE_TIMES = 0.25, 0.5
"""How far beside a point its match may lie, over the reach, and over the height that it lies above: one further aside
is on the rim of a hole that the point hangs over."""
MOST = 5000
"""Vertices of a surface that are looked for on a head."""
SPACING_M = 0.004
"""Distance of samples of a head, whose faces are small."""


class Match(NamedTuple):
    """Where points belong: points and normals there (P, 3), and weights (P,), 0 for what is not to be trusted."""

    points: Points
    normals: Points
    weights: Float[np.ndarray, " points"]


class Back(NamedTuple):
    """Vertices of a surface, and where they lie on a head: at (P, N) reads a head's vertices there."""

    at: csr_matrix
    match: Match


def match(points: Points, normals: Points, cloud: Cloud, reach_m: float) -> Match:
    """The nearest places on a surface."""
    place = cloud.nearest(points, normals)
    trust = _trust(place.points - points, place.normals, normals, reach_m)
    return Match(place.points, place.normals, trust)


def match_back(
    head: Points,
    faces: Faces,
    skin: Int[np.ndarray, " skin"],
    weights: Float[np.ndarray, " skin"],
    cloud: Cloud,
    reach_m: float,
) -> Back:
    """The nearest places on a head's faces to a surface's vertices: those lie on what the surface stands for, while its
    faces cut corners. weights: what the head's skin counts; a vertex counts that, by the area that it stands for.
    """
    points, normals, area = cloud.picked(MOST)
    place = Cloud(head, faces, CLOSE_TURN_M, SPACING_M).nearest(points, normals, 4)
    trust = _trust(points - place.points, place.normals, normals, reach_m)
    rows = np.repeat(np.arange(len(points)), 3)
    at = csr_matrix((place.weights.ravel(), (rows, faces[place.face].ravel())), (len(points), len(head)))
    density = np.zeros(len(head))
    density[skin] = weights / np.maximum(vertex_areas(head, faces)[skin], 1e-9)
    return Back(at, Match(points, place.normals, trust * area * (at @ density)))


def _trust(away: Points, there: Points, here: Points, reach_m: float) -> Float[np.ndarray, " points"]:
    height = np.abs((away * there).sum(1))
    aside = np.sqrt(np.maximum((away**2).sum(1) - height**2, 0))
    cosine = (there * here).sum(1)
    near = np.exp(-((height / reach_m) ** 2)) * cosine.clip(0)
    return np.asarray(near * (aside < ASIDE * reach_m + ASIDE_TIMES * height) * (cosine > FACING))
