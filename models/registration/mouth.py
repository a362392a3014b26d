"""Where lips part: a slit that is seen from in front, across which a surface is far from itself.

Lips that touch look like one surface. What tells them apart is the way over it from one to the other, round the corner
of the mouth or through its inside. A mouth without such a slit is sealed.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import maximum_filter1d
from scipy.sparse.csgraph import dijkstra

from models.registration.cloud import Cloud, Faces, Points
from models.surface import edge_graph
from models.texels import rasterise

PIXEL_M = 0.0005
WIDE_M, HIGH_M = 0.045, 0.032
"""How far to the sides of where a mouth is expected, and up and down, it is looked for."""
DEEP_M, AROUND_M = 0.008, 0.012
"""What lies so far behind both what is above it and what is below it, as far around, is inside."""
WAY_M, WAY_TIMES, WAY_EDGES = 0.008, 2.0, 2.5
"""The way across a slit is longer than this, than so many times the distance, and than so many edges, in all."""
AT_LIPS_M, COARSE_M = 0.03, 0.011
"""Where edges are so long, lips are a few triangles: ways over them tell nothing, and what hides something parts."""
APART_M = 0.020
"""Lips that are further apart than this are not taken for one mouth."""
LID_M = 0.002
"""How far behind an eyeball's surface a lid may reach."""
NARROW_M = 0.012
"""A slit that is shorter is none."""
BREAK_M = 0.003
"""Columns that lack it, or its jumps, over which a slit goes on."""


class Slit(NamedTuple):
    """Columns of a slit from right to left: share of its length (J,), and its upper and its lower edge."""

    share: Float[np.ndarray, " columns"]
    upper: "Edge"
    lower: "Edge"

    @property
    def length_m(self) -> float:
        """From corner to corner, straight."""
        return float(np.ptp((self.upper.points + self.lower.points)[:, 0]) / 2)

    @property
    def opening_m(self) -> float:
        """Median distance of its edges, upwards."""
        return float(np.median(self.upper.points[:, 1] - self.lower.points[:, 1]))


class Edge(NamedTuple):
    """Places on a surface: faces (J,), barycentric weights (J, 3) and points (J, 3)."""

    face: Int[np.ndarray, " columns"]
    weights: Float[np.ndarray, "columns 3"]
    points: Points


class _View(NamedTuple):
    """What is seen: face (rows, columns), -1 for nothing, weights and points of it."""

    face: Int[np.ndarray, "rows columns"]
    weights: Float[np.ndarray, "rows columns 3"]
    points: Float[np.ndarray, "rows columns 3"]


def find_slit(surface: Cloud, middle: Float[np.ndarray, " 3"]) -> Slit | None:
    """The slit of the mouth of a head in metres of the canonical one, +Y up and +Z forward; None where there is none.

    middle: where it is expected.
    """
    view = _view(surface, middle)
    pairs = _pairs(view, surface.faces)
    if not len(pairs):
        return None
    across = _across(surface, view, pairs, middle)
    best = _longest(view, pairs[across])
    if best is None:
        return None
    upper, lower = (_edge(view, best[:, row], best[:, 0]) for row in (1, 2))
    middle_line = (upper.points + lower.points) / 2
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(middle_line, axis=0), axis=1))])
    slit = Slit((along + along[-1] / len(along) / 2) / (along[-1] * (1 + 1 / len(along))), upper, lower)
    return slit if slit.length_m > NARROW_M else None


def find_lids(surface: Cloud, centre: Float[np.ndarray, " 3"], radius: float) -> Slit | None:
    """The opening of the lids in front of an eyeball, column by column; None where they are closed."""
    view = _view(surface, centre)
    rows, columns = view.face.shape
    x, y = (np.arange(columns) - (columns - 1) / 2) * PIXEL_M, ((rows - 1) / 2 - np.arange(rows)) * PIXEL_M
    ball = centre[2] + np.sqrt(np.maximum(radius**2 - x**2 - y[:, None] ** 2, 0))
    lid = (view.face >= 0) & (view.points[..., 2] > ball - LID_M)
    found = []
    for column in np.flatnonzero(np.abs(x) < radius):
        open_ = np.flatnonzero(~lid[:, column] & (np.abs(y) < radius))
        if len(open_):
            run = max(np.split(open_, np.flatnonzero(np.diff(open_) > 1) + 1), key=len)
            above, below = run[0] - 1, run[-1] + 1
            if above >= 0 and below < rows and lid[above, column] and lid[below, column]:
                found.append((column, above, below))
    if not found:
        return None
    line = np.array(found)
    upper, lower = (_edge(view, line[:, row], line[:, 0]) for row in (1, 2))
    share = (line[:, 0] - line[0, 0] + 0.5) / (line[-1, 0] - line[0, 0] + 1)
    slit = Slit(share, upper, lower)
    return slit if slit.length_m > 0.5 * radius else None


def _view(surface: Cloud, middle: np.ndarray) -> _View:
    """The foremost faces in the window, row 0 at its top; faces that are seen from behind hide nothing but are none."""
    size = np.array([round(2 * WIDE_M / PIXEL_M), round(2 * HIGH_M / PIXEL_M)])
    corners = surface.vertices[surface.faces]
    pixels = (corners[..., :2] - middle[:2]) / PIXEL_M * [1, -1] + (size - 1) / 2
    near = ((pixels.max(1) >= 0) & (pixels.min(1) < size)).all(1) & (corners[..., 2].max(1) > middle[2] - 0.06)
    chosen = np.flatnonzero(near)
    found = rasterise(pixels[chosen], slice(0, int(size[1])), slice(0, int(size[0])), margin=0)
    found = found.of(np.flatnonzero(found.inside >= -1e-9))
    points = np.einsum("tk,tkd->td", found.weights, corners[chosen[found.face]])
    order = np.argsort(points[:, 2], kind="stable")
    face = np.full((size[1], size[0]), -1)
    weights, places = np.zeros((*face.shape, 3)), np.full((*face.shape, 3), -np.inf)
    at = found.row[order], found.column[order]
    face[at], weights[at], places[at] = chosen[found.face[order]], found.weights[order], points[order]
    a, b, c = (corners[:, k, :2] for k in range(3))
    outward = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] > 0
    face[(face >= 0) & ~outward[face]] = -1
    return _View(face, weights, places)


def _pairs(view: _View, faces: Faces) -> Int[np.ndarray, "pairs 3"]:
    """Column, row above and row below of neighbours in a column, what is deep between them left out, whose faces have
    no vertex in common."""
    depth = np.where(view.face >= 0, view.points[..., 2], -np.inf)
    around = round(AROUND_M / PIXEL_M)
    above, below = (
        maximum_filter1d(depth, around, axis=0, origin=origin) for origin in (around // 2 - 1, -(around // 2))
    )
    seen = (view.face >= 0) & (depth > np.minimum(above, below) - DEEP_M)
    found = []
    for column in range(0, seen.shape[1], 2):
        rows = np.flatnonzero(seen[:, column])
        above, below = rows[:-1], rows[1:]
        one, other = faces[view.face[above, column]], faces[view.face[below, column]]
        apart = ~(one[:, :, None] == other[:, None]).any((1, 2)) & ((below - above) * PIXEL_M < APART_M)
        found.append(np.stack([np.full(apart.sum(), column), above[apart], below[apart]], 1))
    return np.concatenate(found)


def _across(surface: Cloud, view: _View, pairs: np.ndarray, middle: np.ndarray) -> np.ndarray:
    """Which pairs are far from each other over the surface."""
    faces = surface.faces
    near = np.linalg.norm(surface.vertices - middle, axis=1) < 0.09
    own = faces[near[faces].all(1)]
    edges = np.concatenate([own[:, [0, 1]], own[:, [1, 2]], own[:, [2, 0]]])
    lengths = np.linalg.norm(surface.vertices[edges[:, 0]] - surface.vertices[edges[:, 1]], axis=1)
    used, index = np.unique(own, return_inverse=True)
    place = np.full(len(surface.vertices), -1)
    place[used] = np.arange(len(used))
    at_lips = np.linalg.norm(surface.vertices[edges] - middle, axis=2).min(1) < AT_LIPS_M
    if np.median(lengths[at_lips]) > COARSE_M:
        return np.ones(len(pairs), bool)
    ends = [_nearest_corner(surface, view, pairs[:, row], pairs[:, 0]) for row in (1, 2)]
    begin, end = (place[vertex] for vertex in ends)
    apart = np.linalg.norm(surface.vertices[ends[0]] - surface.vertices[ends[1]], axis=1)
    limit = WAY_TIMES * apart + max(WAY_M, WAY_EDGES * float(np.median(lengths)))
    known = (begin >= 0) & (end >= 0)
    sources, row = np.unique(begin[known], return_inverse=True)
    graph = edge_graph(surface.vertices[used], index.reshape(-1, 3))
    way = dijkstra(graph, directed=False, indices=sources, limit=float(limit[known].max(initial=0.01)) + 1e-6)
    result = np.zeros(len(pairs), bool)
    result[known] = way[row, end[known]] > limit[known]
    return result


def _nearest_corner(surface: Cloud, view: _View, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return surface.faces[view.face[rows, columns], view.weights[rows, columns].argmax(1)]


def _longest(view: _View, pairs: np.ndarray) -> np.ndarray | None:
    """The run of pairs, column by column, that goes on longest, those near where it is expected preferred."""
    best, worth = None, 0.0
    left = pairs[np.argsort(pairs[:, 0], kind="stable")]
    step = round(BREAK_M / PIXEL_M)
    while len(left):
        run = [left[0]]
        for pair in left[1:]:
            ahead = pair[0] - run[-1][0]
            if 0 < ahead <= step and abs(pair[1:].sum() - run[-1][1:].sum()) / 2 <= step:
                run.append(pair)
        taken = {tuple(pair) for pair in run}
        left = np.array([pair for pair in left if tuple(pair) not in taken]).reshape(-1, 3)
        line = np.array(run)
        height = abs((view.face.shape[0] - 1) / 2 - line[:, 1:].mean()) * PIXEL_M
        length = float(np.ptp(line[:, 0])) * PIXEL_M - 0.5 * height
        if length > worth:
            best, worth = line, length
    return best


def _edge(view: _View, rows: np.ndarray, columns: np.ndarray) -> Edge:
    return Edge(view.face[rows, columns], view.weights[rows, columns], view.points[rows, columns])
