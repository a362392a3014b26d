"""Landmarks: places of the canonical head that have names, and users' own."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from models.surface import boundary_loops
from models.template import Head

Landmarks = Mapping[str, tuple[float, float, float]]
"""Places in a file's units and axes, by names of LANDMARKS."""

LANDMARKS = (
    "mouth_right", "mouth_left", "lip_upper", "lip_lower", "nose_tip", "chin",
    "eye_right_outer", "eye_right_inner", "eye_left_inner", "eye_left_outer",
)  # fmt: skip
"""Corners of the mouth, the inner edge of both lips in the middle, the tips of nose and chin, corners of the eyes.
Right is the head's own."""


def canonical_landmarks(head: Head) -> dict[str, int]:
    """The canonical head's vertex at each landmark."""
    rest, rim = head.atlas.vertices, head.rim
    found = {"mouth_right": rim[rest[rim, 0].argmin()], "mouth_left": rim[rest[rim, 0].argmax()]}
    for name, arc in zip(("lip_upper", "lip_lower"), lip_arcs(head), strict=True):
        found[name] = arc[np.abs(rest[arc, 0]).argmin()]
    skin = head.part("skin")
    middle = skin[np.abs(rest[skin, 0]) < 1e-3]
    found["nose_tip"] = middle[rest[middle, 2].argmax()]
    below = middle[(rest[middle, 1] < rest[rim, 1].mean() - 0.02) & (rest[middle, 1] > rest[rim, 1].mean() - 0.06)]
    found["chin"] = below[rest[below, 2].argmax()]
    for side, loop in zip(("right", "left"), lid_rims(head), strict=True):
        ends = loop[[rest[loop, 0].argmin(), rest[loop, 0].argmax()]]
        outer, inner = ends if side == "right" else ends[::-1]
        found |= {f"eye_{side}_outer": outer, f"eye_{side}_inner": inner}
    return {name: int(found[name]) for name in LANDMARKS}


def lip_arcs(head: Head) -> tuple[Int[np.ndarray, " upper"], Int[np.ndarray, " lower"]]:
    """The rim's vertices on the upper and on the lower lip, without the corners."""
    signs = head.seal.field[head.rim].sum(1)
    strength = np.asarray(signs).ravel()
    return head.rim[strength > 0], head.rim[strength < 0]


def lid_rims(head: Head) -> tuple[Int[np.ndarray, " right"], Int[np.ndarray, " left"]]:
    """The rims of the right and the left eye's lids, as loops of vertices."""
    rest = head.atlas.vertices
    mouth = rest[head.rim].mean(0)
    loops = [loop for loop in boundary_loops(head.faces_of("skin")) if rest[loop, 1].mean() > mouth[1] + 0.02]
    right, left = sorted(loops, key=lambda loop: float(rest[loop, 0].mean()))
    return right, left
