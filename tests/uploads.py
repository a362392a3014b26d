"""Heads as files bring them: in their own units and axes, with polygons, and several materials."""

from dataclasses import replace

import numpy as np

from models.core import Mesh, Source

CENTIMETRES_UP_Z = np.array([[100, 0, 0], [0, 0, -100], [0, 100, 0]], np.float32)
"""From metres, +Y up and +Z forward, to a file's axes."""
MATERIALS = ("Head 100%", "eye: left", "teeth")


def uploaded(mesh: Mesh, turn: np.ndarray = CENTIMETRES_UP_Z, materials: tuple[str, ...] = MATERIALS) -> Mesh:
    """A mesh as if it had come as a file: moved, turned and scaled; triangles that make fans are polygons, and
    materials alternate. The first is the skin.
    """
    order = np.argsort(mesh.faces[:, 0], kind="stable")
    faces, uv_faces = mesh.faces[order], mesh.uv_faces[order]
    fans = [(part[1:, 0] == part[:-1, 0]) & (part[1:, 1] == part[:-1, 2]) for part in (faces, uv_faces)]
    polygon = np.cumsum(~np.append(False, fans[0] & fans[1])).astype(np.int32) - 1
    aside = np.array([0.01, 0.02, 0.03])
    own = ((mesh.vertices + aside) @ turn.T.astype(float)).astype(np.float32)
    metres = (own @ np.linalg.inv(turn.astype(float)).T - aside).astype(np.float32)
    source = Source(own, turn, polygon, polygon % np.int32(len(materials)), materials)
    return replace(mesh, vertices=metres, faces=faces, uv_faces=uv_faces, source=source)
