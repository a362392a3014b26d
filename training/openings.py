"""The openings of MakeHuman's skin: the lips' inner rim with the field that seals them, and the rims of the eyelids."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from models.lips import UPPER_SHARE, LipSeal, column_gaps, seal_field
from models.surface import boundary_loops, edge_distance

Positions = Float[np.ndarray, "vertices 3"]
LIP_REACH_M = {"upper": 0.016, "lower": 0.022}
"""How far from the rim closing the lips moves the skin."""


def lip_rim(vertices: Positions, skin: Int[np.ndarray, "faces 3"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rim's vertices, and its upper and lower arc as indices into them, corner to corner, x increasing."""
    loop = next(
        loop
        for loop in boundary_loops(skin)
        if np.ptp(vertices[loop, 0]) < 0.05 and abs(vertices[loop, 0].mean()) < 1e-3
    )
    start = int(np.argmin(vertices[loop, 0]))
    loop = np.roll(loop, -start)
    turn = int(np.argmax(vertices[loop, 0]))
    one, other = loop[: turn + 1], np.append(loop[turn:], loop[0])[::-1]
    if vertices[one, 1].mean() < vertices[other, 1].mean():
        one, other = other, one
    rim = np.concatenate([one, other[1:-1]])
    upper = np.arange(len(one))
    lower = np.concatenate([[0], len(one) + np.arange(len(other) - 2), [len(one) - 1]])
    return rim, upper, lower


def lip_seal(
    vertices: Positions,
    skin: Int[np.ndarray, "faces 3"],
    faces: Int[np.ndarray, "faces 3"],
    rim: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
) -> LipSeal:
    x = vertices[:, 0]
    columns, gaps = column_gaps(x[rim], upper, lower)
    distance = {
        name: edge_distance(vertices, faces, rim[arc[1:-1]]) for name, arc in (("upper", upper), ("lower", lower))
    }
    fade = {name: np.clip(1 - (distance[name] / LIP_REACH_M[name]) ** 2, 0, 1) ** 2 for name in distance}
    is_upper = distance["upper"] < distance["lower"]
    strength = np.where(is_upper, UPPER_SHARE * fade["upper"], (UPPER_SHARE - 1) * fade["lower"])
    strength[rim[[upper[0], upper[-1]]]] = 0
    return LipSeal(gaps, seal_field(x, columns, strength))


def eye_rims(vertices: Positions, skin: np.ndarray) -> Iterator[np.ndarray]:
    """The rims of the eyelids among the boundary loops of the skin's faces."""
    return (loop for loop in boundary_loops(skin) if abs(vertices[loop, 0].mean()) > 0.01)
