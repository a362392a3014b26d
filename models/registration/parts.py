"""Pieces of a mesh that are not its skin: eyeballs, teeth, lashes, hair, and how each moves."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32

from models.atlas import Anchors
from models.registration.cloud import Cloud, Points, fit_sphere
from models.registration.guide import Guide

EYE_RADII_M = (0.006, 0.022)
EYE_NEAR_M = 0.016
"""How far from the canonical head's eyeball the middle of another may lie."""
ROUND = 0.15
"""Deviation from a sphere, over its radius, up to which a piece is an eyeball."""
INSIDE_M = 0.012
"""How far around the canonical mouth's inside a piece may lie that belongs there."""
CLOSE_M = 0.010
"""How far from the skin a piece may reach that follows it."""


@dataclass(frozen=True, eq=False)
class Attached:
    """A piece and how it moves: its anchors, and how much of the motion there it follows, 0 to 1."""

    kind: str
    anchors: Anchors
    follow: Float32[np.ndarray, " vertices"]


def attach(guide: Guide, form: Points, own: Cloud, points: Points, normals: Points) -> Attached:
    """Tell what a piece is and where its vertices (V, 3) belong; all in metres of the canonical head.

    form: the canonical head as it was drawn onto the skin; own: the surface of that. Eyeballs rest, teeth and tongue
    move as the canonical ones do, what lies close to the skin all over follows it, and anything else is still.
    """
    for side in ("right", "left"):
        if _is_eye(guide, form, side, points):
            return Attached("eye", *_on_parts(guide, form, (f"eye_{side}",), points, normals))
    if _is_inside(guide, form, points):
        charts = _mouth_part(guide, form, points)
        kind = charts[0] if len(charts) == 1 else "teeth"
        return Attached(kind, *_on_parts(guide, form, charts, points, normals))
    place = replace(own, turn_m=0.002).nearest(points, normals)
    away = np.linalg.norm(place.points - points, axis=1)
    close = bool(np.percentile(away, 90) < CLOSE_M)
    anchors = Anchors(guide.surface_faces[place.face].astype(np.int32), place.weights.astype(np.float32))
    return Attached("attached" if close else "still", anchors, np.full(len(points), close, np.float32))


def _is_eye(guide: Guide, form: Points, side: str, points: Points) -> bool:
    middle, size = fit_sphere(form[guide.head.part(f"eye_{side}")])
    centre, radius = fit_sphere(points) if len(points) >= 8 else (points.mean(0), 0.0)
    if np.linalg.norm(centre - middle) > EYE_NEAR_M or not EYE_RADII_M[0] < radius < EYE_RADII_M[1]:
        return bool(np.linalg.norm(points - middle, axis=1).max() < 1.15 * size)
    return bool(np.abs(np.linalg.norm(points - centre, axis=1) - radius).mean() < ROUND * radius)


def _is_inside(guide: Guide, form: Points, points: Points) -> bool:
    """Whether a piece lies within the mouth: in the box of its parts, and behind the lips."""
    parts = np.concatenate([guide.head.part(chart) for chart in ("cavity", "tongue", "teeth_upper", "teeth_lower")])
    low, high = form[parts].min(0) - INSIDE_M, form[parts].max(0) + INSIDE_M
    high[2] = form[guide.head.rim, 2].max() + 0.003
    inside = ((points > low) & (points < high)).all(1)
    return bool(inside.mean() > 0.9)


def _mouth_part(guide: Guide, form: Points, points: Points) -> tuple[str, ...]:
    """Which of the canonical mouth's parts a piece is: the one that it is nearest to; a piece with about as much above
    as below, and as high as both rows of teeth, is both.
    """
    away = {
        chart: np.linalg.norm(points[:, None] - form[guide.head.part(chart)][None], axis=2).min(1)
        for chart in ("teeth_upper", "teeth_lower", "tongue")
    }
    nearest = min(away, key=lambda chart: float(away[chart].mean()))
    above = float((away["teeth_upper"] < away["teeth_lower"]).mean())
    row = np.ptp(form[guide.head.part("teeth_upper"), 1])
    if nearest != "tongue" and 0.3 < above < 0.7 and np.ptp(points[:, 1]) > 1.4 * row:
        return ("teeth_upper", "teeth_lower")
    return (nearest,)


def _on_parts(
    guide: Guide, form: Points, charts: tuple[str, ...], points: Points, normals: Points
) -> tuple[Anchors, Float32[np.ndarray, " vertices"]]:
    """Nearest places on some charts."""
    atlas = guide.head.atlas
    chosen = guide.faces_of(charts)
    place = Cloud(form, atlas.faces[chosen], turn_m=0.002).nearest(points, normals)
    anchors = Anchors(chosen[place.face].astype(np.int32), place.weights.astype(np.float32))
    return anchors, np.ones(len(points), np.float32)
