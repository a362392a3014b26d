"""What registration knows of the canonical head: its surface, its landmarks, what of it is matched, and its shapes."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from models.registration.cloud import Cloud, Faces, Points, fit_sphere
from models.registration.landmarks import canonical_landmarks, lid_rims
from models.registration.mouth import Slit, find_lids, find_slit
from models.registration.pose import Oriented, spread
from models.registration.shapes import HeadShapes, Skin
from models.surface import edge_distance, vertex_areas
from models.template import Head

OUTER = ("skin", "cavity", "socket_right", "socket_left")
"""Charts that hang together."""
NECK_M = 0.055
"""How far under the mouth the neck begins, which heads have more or less of."""
FRONT_M = 0.05
"""How far forward the face begins."""
LIPS, EYES = 3.0, 2.0
"""What lips and eyes count in a fit, by area, against the rest of the face; the neck counts NECK."""
NECK = 0.15
EARS_M, EAR = 0.072, 0.2
"""How far to the side ears lie, which differ most, and what they count."""
LIDS_M = 0.012
POSE_POINTS = 4000


@dataclass(frozen=True, eq=False)
class Guide:
    """The canonical head as a guide to others. Made once; safe to share."""

    head: Head
    shapes: HeadShapes

    @cached_property
    def rest(self) -> Points:
        """The canonical head's vertices (N, 3) in metres."""
        return self.head.atlas.vertices.astype(np.float64)

    @cached_property
    def surface_faces(self) -> Int[np.ndarray, " faces"]:
        """Which of the atlas' faces are of OUTER."""
        return self.faces_of(OUTER)

    def faces_of(self, charts: Collection[str]) -> Int[np.ndarray, " faces"]:
        """Which of the atlas' faces are of some charts."""
        return np.flatnonzero(np.isin(self.head.atlas.chart, [self.head.charts.index(chart) for chart in charts]))

    @cached_property
    def surface(self) -> Faces:
        """Those faces."""
        return np.asarray(self.head.atlas.faces[self.surface_faces])

    @cached_property
    def skin(self) -> Int[np.ndarray, " skin"]:
        """Vertices of the skin."""
        return self.head.part("skin")

    @cached_property
    def matched(self) -> Skin:
        """The skin as it is fitted."""
        return Skin(self.surface, self.skin, self.weights)

    @cached_property
    def mouth(self) -> Float[np.ndarray, " 3"]:
        """The middle of the mouth."""
        return np.asarray(self.rest[self.head.rim].mean(0))

    @cached_property
    def face(self) -> Int[np.ndarray, " face"]:
        """Vertices of the skin in front, from the chin upwards: where registration is judged."""
        rest = self.rest[self.skin]
        return self.skin[(rest[:, 2] > FRONT_M) & (rest[:, 1] > self.mouth[1] - NECK_M)]

    @cached_property
    def weights(self) -> Float[np.ndarray, " skin"]:
        """What each vertex of the skin counts in a fit; all together 1."""
        mass = vertex_areas(self.rest, self.head.faces_of("skin"))
        mass[self.head.regions["lips"]] *= LIPS
        mass[self.head.regions["eyes"]] *= EYES
        mass[self.rest[:, 2] > 0.03] *= 2
        mass[np.abs(self.rest[:, 0]) > EARS_M] *= EAR
        mass[self.rest[:, 1] < self.mouth[1] - NECK_M] *= NECK
        return np.asarray(mass[self.skin] / mass[self.skin].sum())

    @cached_property
    def cloud(self) -> Oriented:
        """Points of the skin, more of them in front and few on the neck."""
        faces = self.head.faces_of("skin")
        middle = self.rest[faces].mean(1)
        weight = np.where(middle[:, 2] > 0.03, 2.0, 1.0)
        weight[middle[:, 1] < self.mouth[1] - NECK_M] = NECK
        return spread(self.rest, faces, weight, POSE_POINTS)

    @cached_property
    def landmarks(self) -> dict[str, int]:
        """Vertices, by name."""
        return canonical_landmarks(self.head)

    @cached_property
    def lids(self) -> tuple[Int[np.ndarray, " right"], Int[np.ndarray, " left"]]:
        """Rims of the right and the left eye."""
        return lid_rims(self.head)

    @cached_property
    def slit(self) -> Slit:
        """The mouth as it is seen."""
        found = find_slit(Cloud(self.rest, self.surface), self.mouth)
        assert found is not None
        return found

    @cached_property
    def eye_slits(self) -> tuple[Slit | None, Slit | None]:
        """The right and the left eye's opening, as it is seen."""
        surface = Cloud(self.rest, self.surface)
        balls = (fit_sphere(self.rest[self.head.part(f"eye_{side}")]) for side in ("right", "left"))
        right, left = (find_lids(surface, *ball) for ball in balls)
        return right, left

    @cached_property
    def lip_side(self) -> Float[np.ndarray, " vertices"]:
        """Strength with which the seal closes each vertex: 0.4 at the upper rim, -0.6 at the lower, 0 far away."""
        return np.asarray(self.head.seal.field.sum(1)).ravel()

    @cached_property
    def near_lids(self) -> Float[np.ndarray, "2 vertices"]:
        """How near each vertex lies to the right and to the left eye's lids: 1 at their rims, 0 at LIDS_M from them."""
        away = np.stack([edge_distance(self.rest, self.surface, rim) for rim in self.lids])
        return np.asarray((1 - (away / LIDS_M).clip(0, 1) ** 2) ** 2)
