"""The openings of MakeHuman's skin, mouth and eyes: their rims, and the fields that close them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from models.lips import LipSeal, column_gaps, seal_field
from models.surface import boundary_loops, edge_distance

Positions = Float[np.ndarray, "vertices 3"]
Faces = Int[np.ndarray, "faces 3"]


@dataclass(frozen=True, eq=False)
class Opening:
    """A slit: its rim's vertices, and its upper and lower edge as indices into them, corner to corner, x increasing."""

    rim: Int[np.ndarray, " rim"]
    upper: Int[np.ndarray, " arc"]
    lower: Int[np.ndarray, " arc"]


@dataclass(frozen=True)
class Reach:
    """How far from the rim closing moves the skin, in metres, and how much of a gap the upper edge closes.

    Towards the corners closing fades over the outer share `corner` of the half width.
    """

    upper: float
    lower: float
    upper_share: float
    corner: float


def mouth_opening(vertices: Positions, skin: Faces) -> Opening:
    """The inner rim of the lips."""
    loops = boundary_loops(skin)
    return _opening(
        vertices, next(loop for loop in loops if np.ptp(vertices[loop, 0]) < 0.05 and _centre(vertices, loop) < 1e-3)
    )


def eye_openings(vertices: Positions, skin: Faces) -> Iterator[Opening]:
    """The rims of the eyelids, right eye first."""
    eyes = [loop for loop in boundary_loops(skin) if _centre(vertices, loop) > 0.01]
    for loop in sorted(eyes, key=lambda loop: float(vertices[loop, 0].mean())):
        yield _opening(vertices, loop)


def closing_field(vertices: Positions, skin: Faces, faces: Faces, opening: Opening, reach: Reach) -> LipSeal:
    """What closes an opening. `skin` are the faces that the rim bounds, `faces` all that are moved along."""
    x, rim = vertices[:, 0], opening.rim
    corners = np.sort(x[rim[opening.upper[[0, -1]]]])
    inner = np.abs(x - corners.mean()) / (np.ptp(corners) / 2)
    columns, gaps = column_gaps(x[rim], opening.upper, opening.lower)
    kept = np.abs(columns - corners.mean()) < (1 - reach.corner) * np.ptp(corners) / 2
    strength = np.zeros(len(vertices))
    near = np.full(len(vertices), np.inf)
    for arc, length, share in (
        (opening.upper, reach.upper, reach.upper_share),
        (opening.lower, reach.lower, reach.upper_share - 1),
    ):
        distance = edge_distance(vertices, faces, rim[arc[1:-1]])
        nearer = distance < near
        strength[nearer] = share * np.clip(1 - (distance[nearer] / length) ** 2, 0, 1) ** 2
        near = np.minimum(near, distance)
    outer = np.clip((inner - 1 + reach.corner) / reach.corner, 0, 1)
    return LipSeal(gaps[kept], seal_field(x, columns[kept], strength * (1 - outer**2 * (3 - 2 * outer))))


def close_fully(positions: Positions, opening: Opening, seal: LipSeal) -> Positions:
    """Positions with the opening shut: they go through the seal as if they were offsets."""
    moved = positions[None].astype(np.float32)
    return np.asarray(seal.close(moved, moved[:, opening.rim], np.ones(1, np.float32))[0], dtype=np.float64)


def _centre(vertices: Positions, loop: Int[np.ndarray, " loop"]) -> float:
    return abs(float(vertices[loop, 0].mean()))


def _opening(vertices: Positions, loop: Int[np.ndarray, " loop"]) -> Opening:
    loop = np.roll(loop, -int(np.argmin(vertices[loop, 0])))
    turn = int(np.argmax(vertices[loop, 0]))
    one, other = loop[: turn + 1], np.append(loop[turn:], loop[0])[::-1]
    if vertices[one, 1].mean() < vertices[other, 1].mean():
        one, other = other, one
    rim = np.concatenate([one, other[1:-1]])
    lower = np.concatenate([[0], len(one) + np.arange(len(other) - 2), [len(one) - 1]])
    return Opening(rim, np.arange(len(one)), lower)
