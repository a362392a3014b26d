"""A head of no relation to the canonical one: an implicit function, polygonised on a grid, and what belongs to it.

Skull, jaw, neck, nose, ears, lids and lips are smooth unions of ellipsoids and capsules; the slit of the mouth leads
into a cavity, lids open to sockets, the neck ends open. Metres, +Y up, +Z forward, the origin between the ears.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from models.meshes.record import MeshFile
from models.surface import boundary_edges

Points = np.ndarray
"""(…, 3)"""
SLIT_M = 0.0032
"""The gap between the lips in the implicit function, which a grid resolves; then lips are brought together."""
FINE_M, COARSE_M = 0.0026, 0.009
"""Distances of the grid's planes: about the face, and far from it."""


@dataclass(frozen=True)
class Proportions:
    """Sizes in metres; heights are over the middle between the ears."""

    skull: tuple[float, float, float] = (0.074, 0.088, 0.094)
    jaw: tuple[float, float, float] = (0.058, 0.078, 0.066)
    chin_y: float = -0.094
    chin: float = 0.019
    neck: float = 0.050
    eye: float = 0.0125
    eye_x: float = 0.032
    eye_y: float = 0.016
    eye_z: float = 0.0655
    lids: float = 0.0048
    """Half the height of the gap between the lids."""
    nose_y: float = -0.020
    nose_z: float = 0.104
    nose: float = 0.0105
    mouth_y: float = -0.054
    mouth: float = 0.025
    """Half its width."""
    lips: float = 0.0062
    ear: float = 0.030
    parted: float = 0.0002


REALISTIC = Proportions()
STYLISED = Proportions(
    skull=(0.088, 0.092, 0.096),
    jaw=(0.056, 0.070, 0.062),
    chin_y=-0.080,
    chin=0.013,
    neck=0.034,
    eye=0.0200,
    eye_x=0.036,
    eye_y=0.006,
    eye_z=0.0590,
    lids=0.0100,
    nose_y=-0.024,
    nose_z=0.094,
    nose=0.0070,
    mouth_y=-0.050,
    mouth=0.019,
    lips=0.0048,
    ear=0.026,
)


@dataclass(frozen=True, eq=False)
class ForeignHead:
    """vertices (V, 3) in metres, quads (Q, 4), component (Q,) into COMPONENTS; places: vertices by what they are."""

    vertices: np.ndarray
    quads: np.ndarray
    component: np.ndarray
    places: Mapping[str, np.ndarray] = field(default_factory=dict)

    def file(self, turn: np.ndarray | None = None) -> MeshFile:
        """As an uploaded file of quads, one material each component, turned and scaled by `turn` (3, 3)."""
        vertices = self.vertices if turn is None else self.vertices @ turn.T
        used, material = np.unique(np.repeat(self.component, 2), return_inverse=True)
        return MeshFile(
            "obj",
            vertices.astype(np.float32),
            self.triangles.astype(np.int32),
            np.repeat(np.arange(len(self.quads), dtype=np.int32), 2),
            None,
            None,
            material.astype(np.int32),
            tuple(COMPONENTS[number] for number in used),
        )

    @property
    def triangles(self) -> np.ndarray:
        """Quads cut into fans from their first corner."""
        return self.quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)

    def part(self, name: str) -> np.ndarray:
        """Vertices of a component."""
        return np.unique(self.quads[self.component == COMPONENTS.index(name)])


COMPONENTS = ("skin", "eye_right", "eye_left", "teeth_upper", "teeth_lower", "hair")


@cache
def foreign_head(proportions: Proportions = REALISTIC, hair: bool = True) -> ForeignHead:
    """The head, deterministic. `places` has upper_lip and lower_lip (beside the slit), upper_lids, lower_lids, nose,
    chin, scalp, ears and neck (its boundary).
    """
    p = proportions
    planes = _planes(p)
    skin, quads = surface_nets(lambda at: skin_distance(at, p), planes)
    skin = _settle(skin, p)
    places = _places(skin, quads, p)
    skin = _close_lips(skin, p)
    parts = [(skin, quads)]
    parts += [_ball((side * p.eye_x, p.eye_y, p.eye_z), p.eye) for side in (-1, 1)]
    parts += [_teeth(p, side) for side in (1, -1)]
    if hair:
        parts.append(_hair(skin, quads, places["scalp"]))
    counts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    return ForeignHead(
        np.concatenate([vertices for vertices, _ in parts]),
        np.concatenate([faces + start for (_, faces), start in zip(parts, counts, strict=False)]),
        np.repeat(np.arange(len(parts)), [len(faces) for _, faces in parts]),
        places,
    )


def skin_distance(at: Points, p: Proportions) -> np.ndarray:
    """About the distance to the skin, negative inside the flesh."""
    x, y, z = abs(at[..., 0]), at[..., 1], at[..., 2]
    at = np.stack([x, y, z], -1)
    head = _ellipsoid(at, (0, 0.028, -0.018), p.skull)
    head = _join(head, _ellipsoid(at, (0, -0.036, 0.020), p.jaw), 0.030)
    head = _join(head, _ellipsoid(at, (0, p.chin_y, 0.064), (1.15 * p.chin, 0.85 * p.chin, p.chin)), 0.018)
    head = _join(head, _capsule(at, (0, -0.05, -0.025), (0, -0.25, -0.045), p.neck), 0.022)
    head = _join(head, _ellipsoid(at, (0.036, -0.016, 0.058), (0.022, 0.020, 0.022)), 0.016)
    brow = p.eye_y + 1.9 * p.eye
    head = _join(head, _capsule(at, (0.010, brow, 0.079), (1.45 * p.eye_x, brow - 0.002, 0.060), 0.005), 0.020)
    hollow = _ellipsoid(at, (p.eye_x, p.eye_y, p.eye_z + 1.75 * p.eye), (1.3 * p.eye, 0.95 * p.eye, 0.85 * p.eye))
    head = _cut(head, hollow, 0.010)
    head = _join(head, _nose(at, p), 0.007)
    within = (0.50 * p.nose, p.nose_y - 0.50 * p.nose, p.nose_z - 1.05 * p.nose)
    below = (0.54 * p.nose, p.nose_y - 1.30 * p.nose, p.nose_z - 0.85 * p.nose)
    head = _cut(head, _capsule(at, below, within, 0.28 * p.nose), 0.002)
    head = _join(head, _ear(at, p), 0.005)
    head = _eye(head, at, p)
    return _mouth(head, at, p)


def _nose(at: Points, p: Proportions) -> np.ndarray:
    bridge = _capsule(at, (0, p.eye_y + 0.004, 0.079), (0, p.nose_y, p.nose_z - 0.002), 0.75 * p.nose)
    tip = _ellipsoid(at, (0, p.nose_y, p.nose_z - 0.002), (p.nose, p.nose, 1.05 * p.nose))
    wing = _ellipsoid(at, (1.05 * p.nose, p.nose_y - 0.004, p.nose_z - 0.012), (0.75 * p.nose, 0.7 * p.nose, p.nose))
    return _join(_join(bridge, tip, 0.006), wing, 0.005)


def _ear(at: Points, p: Proportions) -> np.ndarray:
    centre = np.array([p.skull[0] + 0.005, -0.002, -0.014])
    turned = (at - centre) @ np.array([[0.90, 0.0, 0.44], [0, 1, 0], [-0.44, 0.0, 0.90]])
    shell = _ellipsoid(turned, (0, 0, -0.004), (0.0085, p.ear, 0.62 * p.ear))
    bowl = _ellipsoid(turned, (0.0095, 0.001, -0.003), (0.0075, 0.66 * p.ear, 0.36 * p.ear))
    return _cut(shell, bowl, 0.003)


def _eye(head: np.ndarray, at: Points, p: Proportions) -> np.ndarray:
    """Lids bulge over the eyeball and open to a socket that is a little larger than it."""
    centre = (p.eye_x, p.eye_y, p.eye_z)
    head = _join(head, _ellipsoid(at, centre, (1.44 * p.eye,) * 3), 0.006)
    away = at - centre
    gap = p.lids * np.sqrt(np.clip(1 - (away[..., 0] / (1.04 * p.eye)) ** 2, 0.0004, 1))
    opening = np.maximum(abs(away[..., 1]) - gap, abs(away[..., 0]) - 1.04 * p.eye)
    opening = np.maximum(opening, -away[..., 2])
    socket = _ellipsoid(at, centre, (1.05 * p.eye,) * 3)
    return _cut(head, np.minimum(opening, socket), 0.002)


def _mouth(head: np.ndarray, at: Points, p: Proportions) -> np.ndarray:
    """Two bulges, a slit between them, and a cavity behind."""
    x, y, z = at[..., 0], at[..., 1], at[..., 2]
    across = np.clip(x / (1.06 * p.mouth), 0, 1)
    beyond = np.maximum(x - 1.06 * p.mouth, 0)
    front = _lip_z(x, p)
    for side, thick in ((1, 0.98), (-1, 1.08)):
        middle = p.mouth_y + side * 0.95 * thick * p.lips * (1 - across**2)
        if side > 0:
            middle = middle - 0.0010 * np.exp(-((x / 0.0035) ** 2))  # cupid's bow
        radius = thick * p.lips * (1 - 0.8 * across**2)
        lip = 0.9 * (np.sqrt((y - middle) ** 2 + (z - front) ** 2 + beyond**2) - radius)
        head = _join(head, lip, 0.0045)
    slit = (np.sqrt((x / p.mouth) ** 2 + ((y - p.mouth_y) / (SLIT_M / 2)) ** 2) - 1) * SLIT_M / 2
    slit = np.maximum(slit, front - 0.035 - z)
    cavity = _ellipsoid(at, (0, p.mouth_y - 0.002, front - 0.034), (0.95 * p.mouth, 0.019, 0.024))
    return _cut(head, np.minimum(slit, cavity), 0.0012)


def _lip_z(x: np.ndarray, p: Proportions) -> np.ndarray:
    """How far forward the lips are, by the distance from the middle."""
    return 0.020 + p.jaw[2] * 0.985 - 0.0025 - 10.5 * np.minimum(abs(x), 1.1 * p.mouth) ** 2 * (0.025 / p.mouth)


def _ellipsoid(at: Points, centre: object, radii: tuple[float, float, float]) -> np.ndarray:
    away = at - np.stack(np.broadcast_arrays(*centre), -1) if isinstance(centre, tuple) else at - centre
    scaled = np.linalg.norm(away / radii, axis=-1)
    slope = np.linalg.norm(away / np.square(radii), axis=-1)
    return scaled * (scaled - 1) / np.maximum(slope, 1e-9)


def _capsule(at: Points, begin: tuple[float, ...], end: tuple[float, ...], radius: float) -> np.ndarray:
    along = np.subtract(end, begin)
    share = np.clip((at - begin) @ along / (along @ along), 0, 1)
    return np.linalg.norm(at - begin - share[..., None] * along, axis=-1) - radius


def _join(one: np.ndarray, other: np.ndarray, blend: float) -> np.ndarray:
    """Smooth union (Quilez): the smaller distance, rounded where both are within `blend`."""
    share = np.clip(0.5 + 0.5 * (other - one) / blend, 0, 1)
    return other + (one - other) * share - blend * share * (1 - share)


def _cut(one: np.ndarray, other: np.ndarray, blend: float) -> np.ndarray:
    return -_join(-one, other, blend)


def surface_nets(
    distance: Callable[[Points], np.ndarray], planes: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and quads of the surface where `distance` is 0 (Gibson 1998): one vertex in every cell of the grid that
    it passes, at the mean of where it crosses the cell's edges; one quad across every edge, seen from where it is
    positive. The surface is open where it leaves the grid.
    """
    values = distance(np.stack(np.meshgrid(*planes, indexing="ij"), -1))
    inside, shape = values < 0, np.array(values.shape)
    cells = tuple(shape - 1)
    total, crossings = np.zeros((*cells, 3)), np.zeros(cells)
    found = []
    for axis in range(3):
        low, high = (np.take(values, np.arange(k, shape[axis] - 1 + k), axis) for k in (0, 1))
        edges = np.argwhere((low < 0) != (high < 0))
        index = tuple(edges.T)
        share = low[index] / (low[index] - high[index])
        place = np.stack([planes[k][edges[:, k]] for k in range(3)], 1)
        place[:, axis] += share * np.diff(planes[axis])[edges[:, axis]]
        first, second = (axis + 1) % 3, (axis + 2) % 3
        corners = []
        for one, two in ((1, 1), (0, 1), (0, 0), (1, 0)):
            cell = edges.copy()
            cell[:, first] -= one
            cell[:, second] -= two
            corners.append(cell)
            fits = ((cell >= 0) & (cell < cells)).all(1)
            np.add.at(total, tuple(cell[fits].T), place[fits])
            np.add.at(crossings, tuple(cell[fits].T), 1)
        corners = np.stack(corners, 1)
        corners[~inside[index]] = corners[~inside[index]][:, ::-1]
        found.append(corners[((corners >= 0) & (corners < cells)).all((1, 2))])
    quads = np.concatenate(found)
    number = np.cumsum(crossings.ravel() > 0).reshape(cells) - 1
    vertices = total[crossings > 0] / crossings[crossings > 0][:, None]
    used, quads = np.unique(number[tuple(np.moveaxis(quads, -1, 0))], return_inverse=True)
    return vertices[used], quads.reshape(-1, 4)


def _planes(p: Proportions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Planes across each axis, close together where the face is, and closest at the slit of the mouth and the lids."""
    wide, back = 0.045 + p.eye - 0.0125, 0.050
    x = _graded(-0.12, 0.12, [(-wide, wide, FINE_M)])
    y = _graded(
        -0.152,
        0.135,
        [
            (p.chin_y - 0.010, p.eye_y + 1.6 * p.eye, FINE_M),
            (p.mouth_y - 0.003, p.mouth_y + 0.003, 0.0011),
            (p.eye_y - p.lids - 0.002, p.eye_y + p.lids + 0.002, 0.0018),
        ],
    )
    z = _graded(-0.135, 0.130, [(back, 0.130, FINE_M)])
    return x, y, z


def _graded(low: float, high: float, spans: list[tuple[float, float, float]]) -> np.ndarray:
    """Places from low to high whose distance is that of the finest span about them, and grows away from it."""
    places = np.linspace(low, high, 4001)
    step = np.full(len(places), COARSE_M)
    for begin, end, fine in spans:
        away = np.maximum(np.maximum(begin - places, places - end), 0)
        step = np.minimum(step, fine + 0.30 * away)
    count = np.concatenate([[0], np.cumsum(np.diff(places) / step[1:])])
    return np.interp(np.arange(0, count[-1]), count, places)


def _settle(vertices: np.ndarray, p: Proportions, rounds: int = 3) -> np.ndarray:
    """Vertices moved onto the surface along the function's slope, by a third of the grid's distance at most."""
    for _ in range(rounds):
        step = 1e-5
        value = skin_distance(vertices, p)
        slope = np.stack([(skin_distance(vertices + step * axis, p) - value) / step for axis in np.eye(3)], 1)
        move = -(value / np.maximum((slope**2).sum(1), 0.1))[:, None] * slope
        vertices = vertices + np.clip(move, -FINE_M / 3, FINE_M / 3)
    return vertices


def _close_lips(vertices: np.ndarray, p: Proportions) -> np.ndarray:
    """The slit squeezed to `parted`: heights change most at the lips, and not at all 15 mm from them."""
    up = vertices[:, 1] - p.mouth_y
    half, want = SLIT_M / 2, p.parted / 2
    squeezed = np.where(abs(up) < half, up * want / half, up - np.sign(up) * (half - want))
    fade = np.clip((abs(up) - half) / 0.015, 0, 1)
    result = vertices.copy()
    result[:, 1] = p.mouth_y + squeezed + fade**2 * (3 - 2 * fade) * (up - squeezed)
    beside = np.clip((abs(vertices[:, 0]) - 0.9 * p.mouth) / (0.3 * p.mouth), 0, 1)[:, None]
    behind = np.clip((_lip_z(vertices[:, 0], p) - 0.006 - vertices[:, 2]) / 0.01, 0, 1)[:, None]
    keep = np.maximum(beside, behind)
    return vertices + (1 - keep) * (result - vertices)


def _places(vertices: np.ndarray, quads: np.ndarray, p: Proportions) -> dict[str, np.ndarray]:
    """Vertices of the skin by what they are, before the lips are closed."""
    x, y, z = vertices.T
    front = _lip_z(x, p)
    lips = (abs(x) < 0.85 * p.mouth) & (abs(y - p.mouth_y) < 1.7 * p.lips) & (z > front - 0.001)
    ball = vertices - np.stack([np.sign(x) * p.eye_x, np.full_like(x, p.eye_y), np.full_like(x, p.eye_z)], 1)
    far = np.linalg.norm(ball, axis=1)
    lids = (far > 1.02 * p.eye) & (far < 1.5 * p.eye) & (abs(ball[:, 0]) < 0.75 * p.eye) & (ball[:, 2] > 0.3 * p.eye)
    lids &= abs(ball[:, 1]) < p.lids + 0.004
    edges = boundary_edges(quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3))
    bottom = np.unique(edges)
    brow = p.eye_y + 3.2 * p.eye + 0.022
    return {
        "upper_lip": np.flatnonzero(lips & (y > p.mouth_y)),
        "lower_lip": np.flatnonzero(lips & (y < p.mouth_y)),
        "upper_lids": np.flatnonzero(lids & (ball[:, 1] > 0)),
        "lower_lids": np.flatnonzero(lids & (ball[:, 1] < 0)),
        "nose": np.flatnonzero((_nose(np.stack([abs(x), y, z], 1), p) < 0.001) & (y < p.eye_y - 0.01)),
        "chin": np.flatnonzero((abs(x) < 0.012) & (y < p.chin_y) & (y > p.chin_y - 0.012) & (z > 0.07)),
        "scalp": np.flatnonzero((y > brow + 1.1 * np.clip(z - 0.03, -0.06, 0)) & (abs(x) < p.skull[0] + 0.002)),
        "ears": np.flatnonzero(abs(x) > p.skull[0] + 0.003),
        "neck": bottom,
    }


def _hair(vertices: np.ndarray, quads: np.ndarray, scalp: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cap over the scalp, 8 mm thick."""
    own = quads[np.isin(quads, scalp).all(1)]
    used, faces = np.unique(own, return_inverse=True)
    normals = np.zeros_like(vertices)
    a, b, c = (vertices[own[:, k]] for k in range(3))
    np.add.at(normals, own, np.cross(b - a, c - a)[:, None])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-18)
    return vertices[used] + 0.008 * normals[used], faces.reshape(-1, 4)


def _ball(centre: tuple[float, ...], radius: float, rows: int = 13, columns: int = 18) -> tuple[np.ndarray, np.ndarray]:
    """A sphere of quads whose poles, above and below, are small holes."""
    angle, turn = np.linspace(0.06, np.pi - 0.06, rows), np.arange(columns) * 2 * np.pi / columns
    a, t = np.meshgrid(angle, turn, indexing="ij")
    places = np.stack([np.sin(a) * np.sin(t), np.cos(a), np.sin(a) * np.cos(t)], -1).reshape(-1, 3)
    return np.asarray(centre) + radius * places, _grid(rows, columns)[:, ::-1]


def _teeth(p: Proportions, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A horseshoe with a rounded profile, above or below the slit, behind the lips."""
    x = np.linspace(-0.80, 0.80, 25) * p.mouth
    front = _lip_z(x, p) - 0.008 - 6.0 * x**2
    turn = np.arange(8) * np.pi / 4
    profile = np.stack([side * (0.0005 + 0.0045 * (1 - np.cos(turn))), 0.0022 * np.sin(turn)], 1)
    places = [np.stack([x, np.full_like(x, p.mouth_y + up), front + ahead], 1) for up, ahead in profile]
    grid = _grid(25, 8) if side > 0 else _grid(25, 8)[:, ::-1]
    return np.stack(places, 1).reshape(-1, 3), grid


def _grid(rows: int, columns: int) -> np.ndarray:
    """Quads of rows × columns vertices, the columns closed to a ring."""
    corner = np.arange(rows - 1)[:, None] * columns
    here, there = np.arange(columns), (np.arange(columns) + 1) % columns
    return np.stack([corner + here, corner + there, corner + columns + there, corner + columns + here], -1).reshape(
        -1, 4
    )
