"""Non-uniform sampling (MMTalker III-B): M points of the surface, crowded where motion lives, and their triangles.

Every triangle has a learnable logit, initialised by its distance to lips and eyes; the softmax is its share of the
points. Charts are cut along seams, whose samples are shared by both sides, so that nothing gapes; inside, points
follow the density. Faces are the Delaunay triangulation of each chart in UV, constrained to the chart's outline: a
plain one would bridge the mouth slit and the eyelids.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy.spatial import Delaunay, cKDTree

from models.atlas import Anchors, Atlas, join_anchors
from models.core import Mesh
from models.surface import boundary_loops, edge_distance, face_areas
from models.template import Head, Template, members_at

CROWDING, CROWDED_M = 7.0, 0.011
"""Density at lips and eyelids over that of the face, and how far it reaches."""
FAR_M = 0.10
"""Distance from lips and eyes at which the density has fallen to a half of the face's."""
CHART_DENSITY = {"cavity": 0.3, "socket": 0.05, "tongue": 0.5, "eye": 2.0, "teeth": 0.8}
"""Density of what is not skin, over the face's: by how much of it shows."""


def initial_log_density(head: Head) -> Float32[np.ndarray, " faces"]:
    """Logit of every triangle: its area, times a density that falls with the distance from lips and eyes."""
    atlas = head.atlas
    area = face_areas(atlas.vertices.astype(np.float64), atlas.faces)
    skin = atlas.chart == head.charts.index("skin")
    features = np.concatenate([head.regions["eyes"], head.regions["lips"]])
    rims = features[np.isin(features, np.concatenate(boundary_loops(atlas.faces[skin])))]
    distance = edge_distance(atlas.vertices.astype(np.float64), atlas.faces[skin], rims)[atlas.faces].mean(1)
    density = (1 + CROWDING * np.exp(-((distance / CROWDED_M) ** 2))) / (1 + (distance / FAR_M) ** 2)
    for number, chart in enumerate(head.charts):
        if chart != "skin":
            density[atlas.chart == number] = CHART_DENSITY[chart.split("_")[0]]
    return np.log(density * np.maximum(area, 1e-12)).astype(np.float32)


class Sampling(NamedTuple):
    """M points and their triangles: anchors, uvs (M, 2), faces (F, 3)."""

    anchors: Anchors
    uvs: Float[np.ndarray, "points 2"]
    faces: Int[np.ndarray, "faces 3"]


class _Outline(NamedTuple):
    """Points on the charts' outlines, loop after loop: anchors, and for the segment from each point to the next of its
    loop, that next point and the seam that both lie on."""

    anchors: Anchors
    following: Int[np.ndarray, " points"]
    seam: Int[np.ndarray, " points"]


def sample_surface(
    atlas: Atlas,
    log_density: Float[np.ndarray, " faces"],
    count: int,
    seed: int = 0,
    kept: Bool[np.ndarray, " faces"] | None = None,
) -> Sampling:
    """Exactly `count` points, deterministic for (atlas, density, count, seed).

    With `kept` they lie on those faces alone. The others are sampled too, and then left out with their triangles, so
    that the border between may run anyhow.
    """
    share = np.exp(log_density.astype(np.float64) - log_density.max())
    share /= share.sum()
    kept = np.ones(len(share), bool) if kept is None else kept
    total = round(count / share[kept].sum())
    seams = find_seams(atlas)
    extra = np.zeros(len(seams), int)
    for _ in range(40):
        outline = _place_outline(atlas, seams, share * total, extra)
        on_border = int(kept[outline.anchors.face].sum())
        inside = _fill_interior(atlas, share * kept, outline, count - on_border, seed)
        if left_out := total - count - (len(outline.seam) - on_border):
            inside = join_anchors(inside, _fill_interior(atlas, share * ~kept, outline, max(left_out, 0), seed))
        anchors = join_anchors(outline.anchors, inside)
        uvs = atlas.uv_at(anchors)
        faces, missing = _triangulate(atlas.chart[anchors.face], uvs, outline)
        if not missing.size:
            return _restricted(atlas, Sampling(anchors, uvs, faces), kept[anchors.face])
        extra[np.unique(outline.seam[missing])] += 1
    raise AssertionError("an outline cannot be recovered; the atlas has changed")


def _restricted(atlas: Atlas, sampling: Sampling, kept: Bool[np.ndarray, " points"]) -> Sampling:
    """Some of the points, with the triangles that lie between them. A point that is left without any goes to the middle
    of the largest, and cuts it in three.
    """
    if kept.all():
        return sampling
    number = np.cumsum(kept) - 1
    faces = number[sampling.faces[kept[sampling.faces].all(1)]]
    anchors, uvs = Anchors(*(part[kept] for part in sampling.anchors)), sampling.uvs[kept]
    for point in np.setdiff1d(np.arange(len(uvs)), faces).tolist():
        corners = uvs[faces]
        largest = int(np.argmax(np.linalg.det(corners[:, 1:] - corners[:, :1])))
        a, b, c = faces[largest].tolist()
        uvs[point] = corners[largest].mean(0)
        faces = np.concatenate([np.delete(faces, largest, 0), [[a, b, point], [b, c, point], [c, a, point]]])
        (anchors.face[point],), (anchors.weights[point],) = atlas.locate(uvs[point : point + 1])
    return Sampling(anchors, uvs, faces)


def find_seams(atlas: Atlas) -> list[list[int]]:
    """The cuts of the atlas as paths of vertices, from one junction to the next; closed ones repeat their start."""
    cut = atlas.outline
    sides: dict[tuple[int, int], int] = {}
    for a, b in np.sort(atlas.faces[cut.face[:, None], np.stack([cut.corner, (cut.corner + 1) % 3], 1)], 1).tolist():
        sides[a, b] = sides.get((a, b), 0) + 1
    around: dict[int, list[int]] = {}
    for a, b in sides:
        around.setdefault(a, []).append(b)
        around.setdefault(b, []).append(a)

    def passes(vertex: int) -> bool:
        ends = [sides[min(vertex, other), max(vertex, other)] for other in around[vertex]]
        return len(ends) == 2 and ends[0] == ends[1]

    left = set(sides)
    seams = []
    for start in [*(v for v in sorted(around) if not passes(v)), *sorted(around)]:
        for step in sorted(around[start]):
            path = [start]
            while (edge := (min(path[-1], step), max(path[-1], step))) in left:
                left.remove(edge)
                path.append(step)
                if not passes(step) or step == start:
                    break
                step = next(other for other in around[step] if other != path[-2])
            if len(path) > 1:
                seams.append(path)
    return seams


def _place_outline(
    atlas: Atlas, seams: Sequence[Sequence[int]], points: Float[np.ndarray, " faces"], extra: Int[np.ndarray, " seams"]
) -> _Outline:
    """Sample every seam once, as densely as the surface around it, and string its samples along each chart's outline.

    points: how many points each face is to have.
    """
    places: dict[tuple[int, int], list[float]] = {}
    seam_of: dict[tuple[int, int], int] = {}
    spacing = _edge_density(atlas, points)
    for number, path in enumerate(seams):
        edges = list(pairwise(path))
        measure = np.concatenate([[0], np.cumsum([spacing[min(e), max(e)] for e in edges])])
        count = max(2 if path[0] == path[-1] else 1, round(measure[-1]) - 1) + int(extra[number])
        at = measure[-1] * np.arange(1, count + 1) / (count + 1)
        index = np.clip(np.searchsorted(measure, at, side="right") - 1, 0, len(edges) - 1)
        for edge in edges:
            seam_of[min(edge), max(edge)] = number
        for k, t in zip(index.tolist(), ((at - measure[index]) / np.diff(measure)[index]).tolist(), strict=True):
            a, b = edges[k]
            places.setdefault((min(a, b), max(a, b)), []).append(t if a < b else 1 - t)
    corners = {path[end] for path in seams for end in (0, -1)}
    return _string_outline(atlas, {key: sorted(ts) for key, ts in places.items()}, seam_of, corners)


def _string_outline(
    atlas: Atlas, places: dict[tuple[int, int], list[float]], seam_of: dict[tuple[int, int], int], corners: set[int]
) -> _Outline:
    """Walk each outline in its direction, dropping a point at every corner and at every sample of its edges."""
    cut = atlas.outline
    begins = {int(atlas.uv_faces[f, c]): (int(f), int(c)) for f, c in zip(*cut, strict=True)}
    faces: list[int] = []
    weights: list[Float32[np.ndarray, " 3"]] = []
    following: list[int] = []
    seam: list[int] = []
    for loop in boundary_loops(atlas.uv_faces):
        first = len(faces)
        for uv in loop.tolist():
            face, corner = begins[uv]
            a, b = int(atlas.faces[face, corner]), int(atlas.faces[face, (corner + 1) % 3])
            along = places.get((min(a, b), max(a, b)), [])
            ts = along if a < b else [1 - t for t in reversed(along)]
            for t in [*([0.0] if a in corners else []), *ts]:
                weight = np.zeros(3, np.float32)
                weight[corner], weight[(corner + 1) % 3] = 1 - t, t
                faces.append(face)
                weights.append(weight)
                seam.append(seam_of[min(a, b), max(a, b)])
        following += [*range(first + 1, len(faces)), first]
    anchors = Anchors(np.array(faces, np.int32), np.stack(weights))
    return _Outline(anchors, np.array(following), np.array(seam))


def _edge_density(atlas: Atlas, points: Float[np.ndarray, " faces"]) -> dict[tuple[int, int], float]:
    """For every edge: its length in units of the points' distance there."""
    area = face_areas(atlas.vertices.astype(np.float64), atlas.faces)
    per_metre = np.sqrt(points / np.maximum(area, 1e-12))
    pairs = np.sort(np.stack([atlas.faces, np.roll(atlas.faces, -1, 1)], -1).reshape(-1, 2), 1)
    length = np.linalg.norm(atlas.vertices[pairs[:, 0]] - atlas.vertices[pairs[:, 1]], axis=1)
    unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
    mean = np.bincount(inverse, np.repeat(per_metre, 3)) / np.bincount(inverse)
    longest = np.zeros(len(unique))
    longest[inverse] = length
    return {(a, b): value for (a, b), value in zip(unique.tolist(), (mean * longest).tolist(), strict=True)}


def _fill_interior(
    atlas: Atlas, share: Float[np.ndarray, " faces"], outline: _Outline, count: int, seed: int
) -> Anchors:
    """`count` points by systematic sampling along a space-filling curve, away from the outlines."""
    surplus = 1.2
    while True:
        candidates = _draw(atlas, share, round(count * surplus) + 8, seed)
        candidates = Anchors(*(part[_clear(atlas, candidates, outline)] for part in candidates))
        found = len(candidates.face)
        if found >= count:
            keep = (np.arange(count) * found) // max(count, 1)
            return Anchors(*(part[keep] for part in candidates))
        surplus *= 1.25


def _draw(atlas: Atlas, share: Float[np.ndarray, " faces"], count: int, seed: int) -> Anchors:
    """Faces in turn along the curve, each as often as its share says; within a face, the R2 sequence."""
    order = np.lexsort((_morton(atlas.corners.mean(1)), atlas.chart))
    total = np.cumsum(share[order])
    ticks = (np.arange(count) + np.random.default_rng(seed).random()) / count * total[-1]
    face = order[np.clip(np.searchsorted(total, ticks), 0, len(order) - 1)]
    nth = (
        np.arange(count)
        - np.concatenate([[0], np.flatnonzero(np.diff(face)) + 1])[
            np.cumsum(np.concatenate([[False], face[1:] != face[:-1]]))
        ]
    )
    phase = np.random.default_rng([seed, 1]).random((len(share), 2))[face]
    place = (phase + nth[:, None] * np.array([0.7548776662466927, 0.5698402909980532])) % 1
    place = np.where(place.sum(1, keepdims=True) > 1, 1 - place, place)
    weights = np.stack([1 - place.sum(1), place[:, 0], place[:, 1]], 1)
    return Anchors(face.astype(np.int32), weights.astype(np.float32))


def _clear(atlas: Atlas, anchors: Anchors, outline: _Outline) -> np.ndarray:
    """Which points lie outside the circles over the outlines' segments: Delaunay then keeps every segment."""
    chart, uvs = atlas.chart[anchors.face], atlas.uv_at(anchors)
    ends, edge_chart = atlas.uv_at(outline.anchors), atlas.chart[outline.anchors.face]
    middle, radius = (ends + ends[outline.following]) / 2, np.linalg.norm(ends - ends[outline.following], axis=1) / 2
    clear = np.ones(len(uvs), bool)
    for number in np.unique(chart):
        edges, points = np.flatnonzero(edge_chart == number), np.flatnonzero(chart == number)
        tree = cKDTree(middle[edges])
        distance, nearest = tree.query(uvs[points], k=min(12, len(edges)))
        clear[points] = (distance > 1.1 * radius[edges[nearest]]).all(1)
    return clear


def _triangulate(
    chart: Int[np.ndarray, " points"], uvs: Float[np.ndarray, "points 2"], outline: _Outline
) -> tuple[Int[np.ndarray, "faces 3"], Int[np.ndarray, " missing"]]:
    """Delaunay per chart, triangles outside its outline dropped; and the outline's segments that it does not hold."""
    faces = []
    border = len(outline.seam)
    for number in np.unique(chart):
        members = np.flatnonzero(chart == number)
        triangles = members[Delaunay(uvs[members]).simplices]
        a, b, c = (uvs[triangles[:, k]] for k in range(3))
        area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        triangles[area < 0] = triangles[area < 0][:, ::-1]
        between = (triangles < border).all(1)
        segments = members[members < border]
        inside = ~between
        middle = uvs[triangles[between]].mean(1)
        inside[between] = _encloses(uvs[segments], uvs[outline.following[segments]], middle)
        faces.append(triangles[inside & (np.abs(area) > 1e-12)])
    result = np.concatenate(faces)
    edges = np.stack([result, np.roll(result, -1, 1)], -1).reshape(-1, 2)
    held = np.isin(np.arange(border) * len(uvs) + outline.following, edges[:, 0] * len(uvs) + edges[:, 1])
    return result, np.flatnonzero(~held)


def _encloses(
    begin: Float[np.ndarray, "segments 2"], end: Float[np.ndarray, "segments 2"], points: Float[np.ndarray, "points 2"]
) -> np.ndarray:
    """Which points lie inside the closed polygons that the segments form: an odd number of crossings to the right."""
    x, y = points[:, :1], points[:, 1:]
    spans = (begin[:, 1] > y) != (end[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = begin[:, 0] + (y - begin[:, 1]) / (end[:, 1] - begin[:, 1]) * (end[:, 0] - begin[:, 0])
    return np.asarray((spans & (x < crossing)).sum(1) % 2 == 1)


def _morton(points: Float[np.ndarray, "points 2"]) -> np.ndarray:
    """Place on a Z-order curve over the unit square."""
    code = np.zeros(len(points), np.int64)
    x, y = np.clip(points * 1024, 0, 1023).astype(np.int64).T
    for bit in range(10):
        code |= ((x >> bit) & 1) << (2 * bit) | ((y >> bit) & 1) << (2 * bit + 1)
    return code


def sample_template(template: Template, head: Head, sampling: Sampling) -> Template:
    """A template on the canonical topology at the sampled points: a mesh of its own, with the same motion."""
    at = head.atlas.weights_matrix(sampling.anchors)
    faces, uvs = sampling.faces.astype(np.int32), sampling.uvs.astype(np.float32)
    vertices = (at @ template.mesh.vertices).astype(np.float32)
    mesh = Mesh(vertices, faces, uvs, faces, template.mesh.base_color_png)
    maps = (at @ template.maps.reshape(-1, 9)).reshape(-1, 3, 3).astype(np.float32)
    regions = {name: members_at(at, members) for name, members in template.regions.items()}
    return Template(mesh, maps, template.seal.at(at), template.id, sampling.anchors, regions, template.licence)
