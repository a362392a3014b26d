"""Where the vertices of a mesh lie on the canonical head that was drawn onto it."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.sparse.csgraph import dijkstra

from models.atlas import Anchors
from models.registration.cloud import CLOSE_TURN_M, Cloud, Faces, Points, vertex_normals
from models.registration.guide import Guide
from models.registration.parts import attach
from models.registration.pieces import Piece
from models.surface import edge_graph
from models.template import Component

ON_LIP = 0.08
"""Strength of the seal from which a vertex belongs to a lip."""


class Placed(NamedTuple):
    """Every vertex' anchor (V,), how much of the motion there it follows (V,), and what the pieces were taken for."""

    anchors: Anchors
    follow: Float32[np.ndarray, " vertices"]
    components: tuple[Component, ...]


def place_pieces(guide: Guide, drawn: Points, points: Points, faces: Faces, pieces: list[Piece], skin: Piece) -> Placed:
    """Place the vertices (V, 3) of all pieces, in metres of the canonical head; drawn is the canonical head on them."""
    normals = vertex_normals(points, faces)
    face, weights = np.zeros(len(points), np.int32), np.tile(np.array([1, 0, 0], np.float32), (len(points), 1))
    follow = np.zeros(len(points), np.float32)
    surface = Cloud(drawn, guide.surface, CLOSE_TURN_M)
    components = []
    for piece in pieces:
        own = piece.vertices
        if piece is skin:
            kind, anchors = "skin", _on_skin(guide, surface, points, normals, faces[piece.faces], own)
            share = np.ones(len(own), np.float32)
        else:
            part = attach(guide, drawn, surface, points[own], normals[own])
            kind, anchors, share = part.kind, part.anchors, part.follow
        face[own], weights[own], follow[own] = *anchors, share
        components.append(Component(kind, len(own), len(piece.faces)))
    return Placed(Anchors(face, weights), follow, tuple(components))


def _on_skin(
    guide: Guide, surface: Cloud, points: Points, normals: Points, faces: Faces, own: Int[np.ndarray, " members"]
) -> Anchors:
    """The nearest places that face the same way; those of vertices on the wrong lip are looked for on their own."""
    place = surface.nearest(points[own], normals[own])
    face, weights = place.face, place.weights
    side = (weights * guide.lip_side[guide.surface[face]]).sum(1)
    lip = _lips(points, faces, own, side)
    for sign in (1, -1):
        wrong = np.flatnonzero((lip == sign) & (side * sign < 0))
        if len(wrong):
            allowed = np.flatnonzero((guide.lip_side[guide.surface] * sign >= 0).all(1))
            again = replace(surface, faces=surface.faces[allowed]).nearest(points[own[wrong]], normals[own[wrong]])
            face[wrong], weights[wrong] = allowed[again.face], again.weights
    return Anchors(guide.surface_faces[face].astype(np.int32), weights.astype(np.float32))


def _lips(points: Points, faces: Faces, own: np.ndarray, side: Float[np.ndarray, " members"]) -> np.ndarray:
    """Which lip each vertex belongs to: 1 the upper, -1 the lower, 0 none or unknown.

    No edge goes from lip to lip. Vertices with one that seems to are given to the lip that is nearer over the surface,
    from vertices with none.
    """
    place = np.full(len(points), -1)
    place[own] = np.arange(len(own))
    edges = place[np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])]
    lip = np.where(side > ON_LIP, 1, np.where(side < -ON_LIP, -1, 0))
    crossing = edges[lip[edges[:, 0]] * lip[edges[:, 1]] < 0]
    if not len(crossing):
        return lip
    doubtful = np.zeros(len(own), bool)
    doubtful[crossing.ravel()] = True
    graph, away = edge_graph(points[own], place[faces]), []
    for sign in (1, -1):
        sources = np.flatnonzero((lip == sign) & ~doubtful)
        if not len(sources):
            return lip
        away.append(dijkstra(graph, directed=False, indices=sources, min_only=True))
    return np.where(doubtful, np.where(away[0] < away[1], 1, -1), lip)
