"""The face unrolled: a plane to draw on, in millimetres, and its landmarks.

The skin is seen from an upright axis inside the head. A place on the canvas is (across, up): millimetres along a
cylinder of RADIUS_MM about the axis, 0 in the middle of the face and positive on the subject's left; and millimetres
above the head's origin.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from models.surface import edge_distance
from models.template import Head
from training.corpus.strain import Points, skin_surface, vertex_normals
from training.openings import eye_openings

AXIS_Z_M = 0.04
RADIUS_MM = 95.0
"""About the face's own distance from the axis, so that the canvas has the face's lengths."""

FACE_MM = (88.0, 92.0, 118.0)
"""How far the face reaches from a place 20 mm below the eyes: to each side, up, down."""
LIDS_M, LIDS_SHARE = 0.006, 0.25
"""Within about so much of the lids' rims skin shades this little: it is thin, and rolls up rather than folds."""
RED_M = 0.010
"""Breadth of the lips' red."""

Drawing = Float[np.ndarray, "points 2"]


class Mark(NamedTuple):
    """A place on the canvas, in millimetres."""

    across: float
    up: float


@dataclass(frozen=True)
class Landmarks:
    """Places of the left half of the face; the right half mirrors it."""

    inner_eye: Mark
    outer_eye: Mark
    nose: Mark
    mouth: Mark
    """The corner of the mouth."""
    lips: Mark
    """The middle of the mouth."""


class Stretch(NamedTuple):
    """A drawing on the skin: positions (n, 3) in metres, unit normals (n, 3)."""

    points: Points
    normals: Points


@dataclass(frozen=True, eq=False)
class Canvas:
    """The skin of a head, unrolled."""

    head: Head

    @cached_property
    def landmarks(self) -> Landmarks:
        """Found on the head's openings and its foremost point."""
        vertices, skin = self.head.atlas.vertices.astype(np.float64), self._skin
        _, left = eye_openings(vertices, skin)
        eye, lips = self.unroll(vertices[left.rim]), self.unroll(vertices[self.head.rim])
        nose = self.unroll(vertices[[skin.ravel()[np.argmax(vertices[skin.ravel(), 2])]]])[0]
        inner, outer, corner = eye[eye[:, 0].argmin()], eye[eye[:, 0].argmax()], lips[lips[:, 0].argmax()]
        return Landmarks(Mark(*inner), Mark(*outer), Mark(0.0, nose[1]), Mark(*corner), Mark(0.0, lips[:, 1].mean()))

    def unroll(self, positions: Points) -> Drawing:
        """Where positions (n, 3), in metres, lie on the canvas."""
        angle = np.arctan2(positions[:, 0], positions[:, 2] - AXIS_Z_M)
        return np.stack([RADIUS_MM * angle, 1e3 * positions[:, 1]], 1)

    def lift(self, drawing: Drawing) -> Stretch:
        """The drawing on the skin's outermost layer; the longest stretch of it that meets skin."""
        angle = drawing[:, 0] / RADIUS_MM
        origins = np.stack([np.zeros(len(angle)), drawing[:, 1] / 1e3, np.full(len(angle), AXIS_Z_M)], 1)
        rays = np.stack([np.sin(angle), np.zeros(len(angle)), np.cos(angle)], 1)
        corners, normals = self._triangles
        low, high = 1e3 * corners[..., 1].min(1), 1e3 * corners[..., 1].max(1)
        near = (high > drawing[:, 1].min()) & (low < drawing[:, 1].max())
        if not near.any():
            return Stretch(np.zeros((0, 3)), np.zeros((0, 3)))
        distance, face, weights = _cast(origins, rays, corners[near])
        met = _longest_run(np.isfinite(distance))
        normal = np.einsum("nk,nkd->nd", weights, normals[near][face])[met]
        return Stretch(
            origins[met] + distance[met, None] * rays[met], normal / np.linalg.norm(normal, axis=1, keepdims=True)
        )

    def face(self) -> Float[np.ndarray, " vertices"]:
        """How far each vertex of the head is of the face, 0..1: less towards ears, hair, neck and the lids' rims."""
        vertices, skin = self.head.atlas.vertices.astype(np.float64), self._skin
        across, up = self.unroll(vertices).T
        up = up - self.landmarks.inner_eye.up + 20
        away = np.hypot(across / FACE_MM[0], up / np.where(up > 0, *FACE_MM[1:]))
        face = np.clip((1 - away) / 0.15, 0, 1) * (vertices[:, 2] > AXIS_Z_M)
        face[np.setdiff1d(np.arange(len(vertices)), skin)] = 0
        lids = np.concatenate([eye.rim for eye in eye_openings(vertices, skin)])
        near = np.exp(-((np.minimum(edge_distance(vertices, skin, lids), 1) / LIDS_M) ** 2))
        return np.asarray(face * (1 - (1 - LIDS_SHARE) * near))

    def lips(self) -> Float[np.ndarray, " vertices"]:
        """1 on the rim where the lips meet, falling to 0 within the red."""
        away = edge_distance(self.head.atlas.vertices.astype(np.float64), self._skin, self.head.rim)
        return np.asarray(np.clip(1 - (np.minimum(away, 1) / RED_M) ** 2, 0, 1) ** 2)

    @cached_property
    def _skin(self) -> Int[np.ndarray, "faces 3"]:
        return skin_surface(self.head).faces

    @cached_property
    def _triangles(self) -> tuple[Float[np.ndarray, "faces 3 3"], Float[np.ndarray, "faces 3 3"]]:
        """Corners of the skin's triangles in front of the axis, and their normals."""
        surface = skin_surface(self.head)
        faces = surface.faces[surface.centres[:, 2] > AXIS_Z_M]
        return self.head.atlas.vertices.astype(np.float64)[faces], vertex_normals(surface)[faces]


def _cast(
    origins: Points, rays: Points, corners: Float[np.ndarray, "faces 3 3"]
) -> tuple[Float[np.ndarray, " rays"], Int[np.ndarray, " rays"], Float[np.ndarray, "rays 3"]]:
    """The farthest hit of each ray (Möller & Trumbore 1997): distance, minus infinity for none; face; weights."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    across = np.cross(rays[:, None], second[None])
    whole = (across * first).sum(2)
    whole = np.where(np.abs(whole) < 1e-15, np.inf, whole)
    away = origins[:, None] - corners[None, :, 0]
    along = np.cross(away, first[None])
    b = (away * across).sum(2) / whole
    c = (along * rays[:, None]).sum(2) / whole
    distance = (along * second[None]).sum(2) / whole
    hit = (b >= -1e-9) & (c >= -1e-9) & (b + c <= 1 + 1e-9) & (distance > 0)
    distance = np.where(hit, distance, -np.inf)
    face = distance.argmax(1)
    every = np.arange(len(origins))
    b, c = b[every, face], c[every, face]
    return distance[every, face], face, np.stack([1 - b - c, b, c], 1)


def _longest_run(mask: Bool[np.ndarray, " places"]) -> slice:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    starts, stops = edges[::2], edges[1::2]
    if not len(starts):
        return slice(0, 0)
    longest = int(np.argmax(stops - starts))
    return slice(int(starts[longest]), int(stops[longest]))
