"""Non-rigid iterative closest points: the fitted head drawn onto the surface, smoothly (after Amberg et al. 2007)."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.sparse import csc_matrix, diags
from scipy.sparse.linalg import splu

from models.registration.cloud import Cloud, Points, vertex_normals
from models.registration.matching import match, match_back
from models.registration.shapes import Pins, Skin
from models.surface import vertex_neighbours

STIFFNESS = (3.0, 1.0, 0.3, 0.1, 0.03)
"""What bending counts against matches, stage by stage."""
ROUNDS = 4
REACH_M = 0.008
HOLD = 1e-4
"""What staying where it is counts for a vertex."""
PINNED = 50.0
"""What a pin counts here against what it counted in the fit."""
FRONT = 0.3
"""What the places that the head's vertices are nearest to count against the surface's own vertices."""


def draw_onto(
    head: Points, skin: Skin, cloud: Cloud, pins: Callable[[Points], Pins], stiffness: Sequence[float] = STIFFNESS
) -> Points:
    """The head (N, 3) with its skin drawn onto a surface; what hangs on the skin moves along, what does not stays.

    Matches move vertices across the surface alone: along it they go only where the others take them.
    """
    count = len(head)
    neighbours = vertex_neighbours(skin.faces, count)
    degree = np.maximum(np.asarray(neighbours.sum(1)).ravel(), 1)
    laplacian = diags(np.ones(count)) - diags(1 / degree) @ neighbours
    bending = (laplacian.T @ laplacian).tocsc()
    moved = head
    for stiff in stiffness:
        for _ in range(ROUNDS):
            moved = head + _round(head, moved, skin, cloud, pins(moved), stiff * bending)
    return moved


def _round(head: Points, moved: Points, skin: Skin, cloud: Cloud, held: Pins, bending: csc_matrix) -> Points:
    """Offsets from the head that solve for one round's matches."""
    mass, aim, own = np.zeros(len(head)), moved - head, skin.vertices
    found = match(moved[own], vertex_normals(moved, skin.faces)[own], cloud, REACH_M)
    mass[own] = FRONT * found.weights
    aim[own] += _across(found.points - moved[own], found.normals)
    back = match_back(moved, skin.faces, own, skin.weights, cloud, REACH_M)
    weights = back.match.weights / max(float(back.match.weights.max()), 1e-12)
    wanted = back.at @ (moved - head) + _across(back.match.points - back.at @ moved, back.match.normals)
    strong = PINNED * held.weights.max(1, initial=0)
    system = diags(mass + HOLD) + back.at.T @ diags(weights) @ back.at + held.at.T @ diags(strong) @ held.at + bending
    right = mass[:, None] * aim + back.at.T @ (weights[:, None] * wanted)
    right += held.at.T @ (strong[:, None] * (held.points - held.at @ head))
    return np.asarray(splu(csc_matrix(system)).solve(right))


def _across(away: Points, normals: Points) -> Points:
    return np.asarray((away * normals).sum(1, keepdims=True) * normals)
