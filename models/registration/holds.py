"""What holds a head in place while it is fitted: eyeballs, the edges of mouth and eyes, and users' landmarks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy.sparse import csr_matrix, vstack

from models.registration.cloud import Cloud, Points, fit_sphere
from models.registration.guide import Guide
from models.registration.mouth import Edge, Slit, find_lids, find_slit
from models.registration.shapes import Pins

BALL_RADII_M = (0.006, 0.030)
ROUND = 0.12
"""Deviation from a sphere, over its radius, of an eyeball."""
FEWEST = 12
"""Vertices of an eyeball."""
BALL, EDGE = 0.1, 0.02
"""Weights of an eyeball, and of a column of an edge."""
ALONG = 0.1
"""Weight of a column's place along an opening against its height: corners are hidden more or less."""
FIRST = 2
"""Stage of the fit from which openings are held."""
SHARES = (np.arange(11) + 0.5) / 11
"""Columns of an opening, by their share of its length."""


def eyeballs(pieces: Sequence[Points]) -> list[Points]:
    """Two of the pieces that are balls of one size, side by side: the right one's vertices, then the left one's."""
    balls = [(*fit_sphere(points), points) for points in pieces if len(points) >= FEWEST and _is_ball(points)]
    best, found = np.inf, list[Points]()
    for k, (centre, radius, points) in enumerate(balls):
        for other, size, more in balls[:k]:
            away = np.abs(centre - other)
            uneven = away[1] + away[2] + abs(radius - size)
            if away[0] > 1.5 * radius and uneven < min(best, 0.4 * radius):
                best, found = uneven, [points, more] if centre[0] < other[0] else [more, points]
    return found


def _is_ball(points: Points) -> bool:
    centre, radius = fit_sphere(points)
    off = np.abs(np.linalg.norm(points - centre, axis=1) - radius).mean()
    usual = BALL_RADII_M[0] < radius < BALL_RADII_M[1] and np.ptp(points, axis=0).min() > 0.5 * radius
    return bool(usual and off < ROUND * radius)


@dataclass(frozen=True, eq=False)
class Opening:
    """An opening of the canonical head and the same of another: mouth or eye."""

    guide: Guide
    canonical: Slit
    there: Slit

    def by_share(self, *, closed: bool) -> Iterator[Pins]:
        """Pins at the same shares of its length; `closed` brings both edges to the middle between them."""
        middle = (self.there.upper.points + self.there.lower.points) / 2
        for at, edge in self._edges():
            points = _at(SHARES, self.there.share, middle if closed else edge.points)
            yield Pins(at, points, np.tile(EDGE * np.array([ALONG, 1, 1]), (len(SHARES), 1)))

    def by_place(self, head: Points) -> Iterator[Pins]:
        """Pins at the same places across the head, as far as it is open there."""
        for at, edge in self._edges():
            place, x = at @ head, edge.points[:, 0]
            order = np.argsort(x)
            points = _at(place[:, 0], x[order], edge.points[order])
            points[:, 0] = place[:, 0]
            within = (place[:, 0] >= x.min()) & (place[:, 0] <= x.max())
            yield Pins(at, points, EDGE * np.repeat(within[:, None], 3, 1))

    def _edges(self) -> Iterator[tuple[csr_matrix, Edge]]:
        """What reads the canonical head along each edge, and the other head's edge."""
        column = np.abs(self.canonical.share[:, None] - SHARES).argmin(0)
        rows, shape = np.repeat(np.arange(len(column)), 3), (len(column), len(self.guide.rest))
        for own, other in ((self.canonical.upper, self.there.upper), (self.canonical.lower, self.there.lower)):
            corners = self.guide.surface[own.face[column]]
            yield csr_matrix((own.weights[column].ravel(), (rows, corners.ravel())), shape), other


def find_openings(guide: Guide, surface: Cloud, head: Points, balls: Sequence[Points]) -> list[Opening]:
    """Mouth and eyes of a surface that a head (N, 3) was fitted to, as far as they can be seen."""
    mouth = find_slit(surface, head[guide.head.rim].mean(0))
    lids = [find_lids(surface, *fit_sphere(ball)) for ball in balls] or [None, None]
    pairs = zip((guide.slit, *guide.eye_slits), (mouth, *lids), strict=True)
    return [Opening(guide, own, there) for own, there in pairs if own is not None and there is not None]


@dataclass(frozen=True, eq=False)
class Holds:
    """The pins of one head, in metres of the canonical one: given are the user's landmarks, balls its eyeballs.

    openings are held on a head that is unlike the shapes: seen from in front, their edges are about the same places on
    any head. On one like the shapes its surface tells better.
    """

    guide: Guide
    balls: Sequence[Points]
    given: Pins
    openings: Sequence[Opening] = ()

    def of_fit(self, head: Points, stage: int) -> Pins:
        """Pins for a stage of the fit of shapes, whose lips are always together."""
        pins = self.given.joined(self._eyes)
        if stage < FIRST:
            return pins
        held = (opening.by_share(closed=opening.canonical is self.guide.slit) for opening in self.openings)
        return pins.joined(*(pin for found in held for pin in found))

    def of_drawing(self, head: Points) -> Pins:
        """Pins for what is drawn onto the surface: each edge of an opening, at its own place along it."""
        return self.given.joined(*(pin for opening in self.openings for pin in opening.by_place(head)))

    @cached_property
    def _eyes(self) -> Pins:
        """The middles of the eyeballs; of the canonical ones, as sums of their vertices."""
        rest, rows = self.guide.rest, []
        if not self.balls:
            return Pins.none(len(rest))
        for side in ("right", "left"):
            members = self.guide.head.part(f"eye_{side}")
            own = np.c_[rest[members], np.ones(len(members))].T
            weights = np.linalg.lstsq(own, np.append(fit_sphere(rest[members])[0], 1), rcond=None)[0]
            rows.append(csr_matrix((weights, (np.zeros(len(members), int), members)), (1, len(rest))))
        middles = np.stack([fit_sphere(ball)[0] for ball in self.balls])
        return Pins(vstack(rows).tocsr(), middles, np.full((2, 3), BALL))


def _at(
    places: Float[np.ndarray, " columns"], known: Float[np.ndarray, " known"], points: Float[np.ndarray, "known 3"]
) -> Points:
    return np.stack([np.interp(places, known, points[:, k]) for k in range(3)], 1)
