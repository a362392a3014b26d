"""The atlas' layout: one square, the face in most of it, every other chart in a slot of its own.

The skin's conformal chart gives the face a tenth of its area and the scalp the rest. The face is enlarged, and what
lies outside is squeezed between it and the square's edge; lips and eyelids are enlarged once more, to more than twice
the face's texels per mm². Every map is smooth and monotone along the rays from its centre. It costs angles: the ratio
of a triangle's stretches has a median of 1.9 on the face, 1.06 before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from models.parameterisation import lscm, magnify, mend_flips
from models.surface import boundary_loops

Plane = Float[np.ndarray, "vertices 2"]
MARGIN = 0.004
"""Empty space around every chart, for texture padding."""


@dataclass(frozen=True)
class Slot:
    """A rectangle of the square."""

    left: float
    bottom: float
    width: float
    height: float

    def place(self, plane: Plane) -> Plane:
        """A chart, moved into the slot: as large as fits, in its middle, not distorted."""
        low, size = plane.min(0), np.ptp(plane, axis=0)
        room = np.array([self.width, self.height]) - 2 * MARGIN
        scale = (room / size).min()
        corner = np.array([self.left, self.bottom]) + MARGIN + (room - scale * size) / 2
        return np.asarray(corner + scale * (plane - low))


CHARTS = (
    "skin",
    "cavity",
    "socket_right",
    "socket_left",
    "tongue",
    "eye_right",
    "eye_left",
    "teeth_upper",
    "teeth_lower",
)
STRIP = 0.16
SLOTS = {
    "skin": Slot(0.0, STRIP, 1.0, 1 - STRIP),
    "cavity": Slot(0.0, 0.0, 0.2, STRIP),
    "eye_right": Slot(0.2, 0.0, 0.15, STRIP),
    "eye_left": Slot(0.35, 0.0, 0.15, STRIP),
    "teeth_upper": Slot(0.5, STRIP / 2, 0.26, STRIP / 2),
    "teeth_lower": Slot(0.5, 0.0, 0.26, STRIP / 2),
    "tongue": Slot(0.76, 0.0, 0.1, STRIP),
    "socket_right": Slot(0.86, 0.0, 0.07, STRIP),
    "socket_left": Slot(0.93, 0.0, 0.07, STRIP),
}


LIPS, LIDS = (1.7, 1.6), (2.6, 2.0)
"""How far around the mouth and the eyes the chart is enlarged, in widths of the opening, and the gain at the centre."""


def skin_chart(
    vertices: Float[np.ndarray, "vertices 3"],
    faces: Int[np.ndarray, "faces 3"],
    pins: tuple[int, int],
    face_centre: int,
    slot: Slot,
) -> Plane:
    """The skin's chart in its slot: LSCM with the holes filled, then the face enlarged.

    vertices: the skin with its mouth open, so that the slit becomes a hole with an inside; pins: the lowest and the
    highest vertex of its middle line; face_centre: the vertex that becomes the disc's centre.
    """
    loops = boundary_loops(faces)
    filled, closed = _fill(vertices, faces, loops[1:])
    plane = lscm(filled, closed, pins, np.array([[0.5, 0.0], [0.5, 1.0]]))
    plane = mend_flips(plane, closed)[: len(vertices)]
    plane = _square(plane, loops[0], plane[face_centre], slot)
    plane = _raise_corners(plane, faces, loops[0])
    mouth = max(loops[1:], key=len)
    for loop in loops[1:]:
        reach, gain = LIPS if loop is mouth else LIDS
        plane = magnify(plane, plane[loop].mean(0), np.repeat(reach * np.ptp(plane[loop, 0]), 2), gain)
    return mend_flips(plane, faces, floor=2e-9)


def _raise_corners(plane: Plane, faces: Int[np.ndarray, "faces 3"], outline: Int[np.ndarray, " loop"]) -> Plane:
    """Give area to triangles with all three vertices on the outline, which straightening it has flattened."""
    plane = plane.copy()
    for face in faces[np.isin(faces, outline).all(1)]:
        lengths = [np.linalg.norm(plane[face[k - 1]] - plane[face[k - 2]]) for k in range(3)]
        apex, left, right = np.roll(face, -int(np.argmax(lengths)))
        base = plane[right] - plane[left]
        normal = np.array([-base[1], base[0]]) / np.linalg.norm(base)
        height = (plane[apex] - plane[left]) @ normal
        plane[apex] += max(0.0, MARGIN / 2 - height) * normal
    return plane


def _fill(
    vertices: Float[np.ndarray, "vertices 3"], faces: Int[np.ndarray, "faces 3"], loops: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Close each loop with a fan around its mean."""
    centres = [vertices[loop].mean(0) for loop in loops]
    fans = [
        np.stack([np.roll(loop, -1), loop, np.full(len(loop), len(vertices) + number)], 1)
        for number, loop in enumerate(loops)
    ]
    return np.concatenate([vertices, centres]), np.concatenate([faces, *fans])


FACE_RADIUS, SQUEEZE = 0.18, 0.1
"""Radius within which the chart is squeezed little, in units of its height; beyond it radii grow with this power only,
which bounds how much more they shrink than circles do."""
CORE, CORE_SHARE = 0.13, 0.66
"""Squeezed radius up to which the map to the square is a scaling, and the share of the square that this takes."""


def _square(plane: Plane, outline: Int[np.ndarray, " loop"], centre: np.ndarray, slot: Slot) -> Plane:
    """Enlarge the face around `centre`, squeeze the scalp around it, and bring the outline to the slot's edge."""
    away = plane - centre
    angle, radius = np.arctan2(away[:, 1], away[:, 0]), np.linalg.norm(away, axis=1)
    radius = radius / (1 + (radius / FACE_RADIUS) ** 2) ** ((1 - SQUEEZE) / 2)
    order = np.argsort(angle[outline])
    reach = np.interp(angle, angle[outline][order], radius[outline][order], period=2 * np.pi) - CORE
    half = np.array([slot.width, slot.height]) / 2 - MARGIN
    cosine, sine = np.abs(np.cos(angle)) / half[0], np.abs(np.sin(angle)) / half[1]
    edge = (cosine**6 + sine**6) ** (-1 / 6)  # a superellipse: a square with round corners
    scale = CORE_SHARE * half.min() / CORE
    outer = np.clip((radius - CORE) / reach, 0, 1)
    room = edge - scale * CORE
    steep = scale * reach / room
    beyond = scale * CORE + room * steep * outer / (1 + (steep - 1) * outer)
    radius = np.where(radius < CORE, scale * radius, beyond)
    middle = np.array([slot.left, slot.bottom]) + half + MARGIN
    return np.asarray(middle + radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1))
