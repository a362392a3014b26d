"""The canonical head in the shape of another: what a registered head's motion, and its samples, come from."""

from collections.abc import Collection

import numpy as np
from jaxtyping import Bool, Float32
from scipy.sparse.csgraph import connected_components

from models.registration.cloud import Cloud, Points, fit_sphere, vertex_normals
from models.registration.guide import Guide
from models.registration.matching import match
from models.registration.mouth import Slit
from models.registration.pose import Similarity
from models.surface import face_areas, face_neighbours
from models.template import Form, template_of_identity

PARTED_M = 0.001
"""Opening of the lips up to which they are together."""
LID_GAINS = (0.3, 3.0)
"""How much more or less than the face around them lids may move, so that they meet."""
THERE_M = 0.006
"""How near to the canonical skin another must be to be there."""
PATCH = 0.03
"""Share of the skin's area up to which a patch that is not there is taken for a fault, and one that is for none."""


def make_form(guide: Guide, drawn: Points, surface: Cloud, parts: dict[str, Points], to_metres: Similarity) -> Form:
    """parts: vertices of the other head's eyeballs, teeth and tongue, by chart; all in metres of the canonical head,
    which `to_metres` takes to the other's own.
    """
    shape = drawn.copy()
    for chart, points in parts.items():
        members = guide.head.part(chart)
        shape[members] = _onto(shape[members], points, chart)
    vertices = to_metres.apply(shape).astype(np.float32)
    maps = template_of_identity(guide.head, vertices, "form").maps
    return Form(vertices, _lids_that_meet(guide, vertices, maps), _there(guide, drawn, surface, parts))


def parted_lips(guide: Guide, slit: Slit, to_metres: Similarity, form: Form) -> Float32[np.ndarray, "columns 3"] | None:
    """Gaps of the seal's columns at rest, as canonical offsets; None for lips that are together."""
    if slit.opening_m < PARTED_M:
        return None
    opening = np.interp(column_shares(guide), slit.share, slit.upper.points[:, 1] - slit.lower.points[:, 1])
    scale = np.cbrt(np.linalg.det(form.maps[guide.head.rim].mean(0).astype(np.float64)))
    result = np.zeros((len(opening), 3), np.float32)
    result[:, 1] = -opening.clip(0) * to_metres.scale / scale
    return result


def column_shares(guide: Guide) -> Float32[np.ndarray, " columns"]:
    """Where the seal's columns lie along the mouth as it is seen: 0 to 1."""
    place = np.abs(guide.head.seal.gaps) @ guide.rest[guide.head.rim, 0] / 2
    return np.interp(place, guide.slit.upper.points[:, 0], guide.slit.share).astype(np.float32)


def _onto(own: Points, other: Points, chart: str) -> Points:
    """A part of the canonical head brought onto another's."""
    if chart.startswith("eye"):
        (middle, radius), (centre, size) = fit_sphere(own), fit_sphere(other)
    else:
        middle, centre = ((points.min(0) + points.max(0)) / 2 for points in (own, other))
        radius, size = np.ptp(own[:, 0]), np.ptp(other[:, 0])
    return np.asarray(centre + (own - middle) * size / max(radius, 1e-6))


def _lids_that_meet(guide: Guide, vertices: np.ndarray, maps: np.ndarray) -> Float32[np.ndarray, "vertices 3 3"]:
    """Maps with more or less motion at the lids, where eyes are open wider or less than the face is large."""
    result = maps.astype(np.float64)
    for slit, near, rim in zip(guide.eye_slits, guide.near_lids, guide.lids, strict=True):
        if slit is None:
            continue
        scale = np.cbrt(np.linalg.det(result[rim].mean(0)))
        own, other = (_height(slit, guide, points) for points in (guide.rest, vertices.astype(np.float64)))
        gain = np.clip(other / (own * scale), *LID_GAINS)
        result *= (1 + near * (gain - 1))[:, None, None]
    return result.astype(np.float32)


def _height(slit: Slit, guide: Guide, vertices: Points) -> float:
    """How far an opening of the canonical head is open, in the middle, on a head of its topology."""
    middle = (slit.share > 0.3) & (slit.share < 0.7)
    upper, lower = (
        np.einsum("ck,ckd->cd", edge.weights[middle], vertices[guide.surface[edge.face[middle]]])
        for edge in (slit.upper, slit.lower)
    )
    return float(np.median(np.linalg.norm(upper - lower, axis=1)))


def _there(guide: Guide, drawn: Points, surface: Cloud, parts: Collection[str]) -> Bool[np.ndarray, " faces"]:
    """Faces of the atlas with a counterpart: skin where there is some, other charts as a whole."""
    atlas, charts = guide.head.atlas, guide.head.charts
    normals = vertex_normals(drawn, guide.surface)
    found = match(drawn, normals, surface, THERE_M).weights > 0.05
    kept = np.zeros(len(atlas.faces), bool)
    for number, chart in enumerate(charts):
        faces = np.flatnonzero(atlas.chart == number)
        if chart == "skin":
            kept[faces] = _smoothed(atlas.faces[faces], found[atlas.faces[faces]].all(1), guide.rest)
        elif chart in ("cavity", "socket_right", "socket_left"):
            kept[faces] = found[np.unique(atlas.faces[faces])].mean() > 0.3
        else:
            kept[faces] = chart in parts
    return kept


def _smoothed(faces: np.ndarray, kept: np.ndarray, vertices: Points) -> Bool[np.ndarray, " faces"]:
    """Faces that are kept, small patches of others turned."""
    result, area, neighbours = kept.copy(), face_areas(vertices, faces), face_neighbours(faces)
    for state in (False, True):
        same = result == state
        linked = neighbours.multiply(same[:, None]).multiply(same[None]).tocsr()
        number = connected_components(linked, directed=False)[1]
        size = np.bincount(number, area)
        result[same & (size[number] < PATCH * area.sum())] = not state
    return result
