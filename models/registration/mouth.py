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
from models.subdivision import Cut, cut_faces
from models.surface import edge_graph
from models.texels import rasterise

PIXEL_M = 0.0005
WIDE_M, HIGH_M = 0.045, 0.032
"""How far to the sides of where a mouth is expected, and up and down, it is looked for."""
DEEP_M, AROUND_M = 0.008, 0.012
"""What lies so far behind both what is above it and what is below it, as far around, is inside."""
WAY_M, WAY_TIMES = 0.008, 2.0
"""The way across a slit is longer than this and so many times the distance, in all."""
NEAR_M, AT_LIPS_M = 0.09, 0.03
"""How far from the middle of a mouth ways lead, and lips reach."""
FINE_M, MOST_FACES = 0.003, 60_000
"""Faces whose edges at the lips are longer are cut for ways to be measured, into at most so many in all."""
APART_M = 0.020
"""Lips that are further apart than this are not taken for one mouth."""
LID_M = 0.002
"""How far behind an eyeball's surface a lid may reach."""
NARROW_M = 0.012
"""A slit that is shorter is none."""
ALONG = 0.2
"""Barycentric weight in a place of an edge from which a vertex lies along the edge."""
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

    def vertex_counts(self, faces: Faces) -> tuple[int, int]:
        """How many of the surface's vertices lie along its upper and its lower edge."""
        return self.upper.vertex_count(faces), self.lower.vertex_count(faces)

    @property
    def opening_m(self) -> float:
        """Median distance of its edges, upwards."""
        return float(np.median(self.upper.points[:, 1] - self.lower.points[:, 1]))


class Edge(NamedTuple):
    """Places on a surface: faces (J,), barycentric weights (J, 3) and points (J, 3)."""

    face: Int[np.ndarray, " columns"]
    weights: Float[np.ndarray, "columns 3"]
    points: Points

    def vertex_count(self, faces: Faces) -> int:
        """How many of the surface's vertices lie along it: those that some place of it is near to."""
        return len(np.unique(faces[self.face][self.weights > ALONG]))


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
    near, cut = _cut_near(surface, middle)
    points = np.einsum("pk,pkd->pd", cut.weights, surface.vertices[surface.faces[near[cut.face]]])
    number = np.full(len(surface.faces), -1)
    number[near] = np.arange(len(near))
    seen = pairs[:, 1:], pairs[:, :1]
    face = number[view.face[seen]]
    known = (face >= 0).all(1)
    nearest = ((view.weights[seen][known][:, :, None] - cut.lattice) ** 2).sum(3).argmin(2)
    begin, end = cut.of[face[known], nearest].T
    limit = WAY_TIMES * np.linalg.norm(points[begin] - points[end], axis=1) + WAY_M
    sources, row = np.unique(begin, return_inverse=True)
    graph = edge_graph(points, cut.faces)
    way = dijkstra(graph, directed=False, indices=sources, limit=float(limit.max(initial=0)) + 1e-6)
    known[known] = way[row, end] > limit
    return known


def _cut_near(surface: Cloud, middle: np.ndarray) -> tuple[Int[np.ndarray, " near"], Cut]:
    """Faces around a mouth, cut as finely as ways are to be measured."""
    corners = surface.vertices[surface.faces]
    away = np.linalg.norm(corners - middle, axis=2)
    near = np.flatnonzero((away < NEAR_M).all(1))
    at_lips = corners[away.min(1) < AT_LIPS_M]
    edges = np.linalg.norm(at_lips - np.roll(at_lips, 1, axis=1), axis=2)
    wanted = np.ceil(np.median(edges) / FINE_M) if len(edges) else 1
    return near, cut_faces(
        surface.faces[near], int(np.clip(wanted, 1, np.sqrt(MOST_FACES / max(len(near), 1)).clip(1)))
    )


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
