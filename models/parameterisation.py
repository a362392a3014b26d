"""Surface → plane: least-squares conformal maps (Lévy et al. 2002), flips mended, centres magnified."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.linalg import splu

from models.surface import boundary_mask, vertex_neighbours

Plane = Float[np.ndarray, "vertices 2"]
Faces = Int[np.ndarray, "faces 3"]


def lscm(
    vertices: Float[np.ndarray, "vertices 3"], faces: Faces, pins: Sequence[int], positions: Float[np.ndarray, "pins 2"]
) -> Plane:
    """The conformal map of a disc-like surface (holes allowed) with two or more vertices pinned to the plane.

    Minimises Σ area · |∂f/∂z̄|² over all triangles. Every vertex must belong to a face. Scale follows the pins.
    """
    flat = _unfold(vertices[faces])
    edges = np.roll(flat, -2, 1) - np.roll(flat, -1, 1)  # opposite each corner, as complex numbers
    area = np.abs(np.imag(np.conj(flat[:, 1] - flat[:, 0]) * (flat[:, 2] - flat[:, 0]))) / 2
    weights = edges / np.sqrt(2 * np.maximum(area, 1e-18))[:, None]
    rows = np.repeat(np.arange(len(faces)), 3)
    conformal = coo_matrix((weights.ravel(), (rows, faces.ravel())), (len(faces), len(vertices))).tocsc()
    free = np.setdiff1d(np.arange(len(vertices)), pins)
    target = positions[:, 0] + 1j * positions[:, 1]
    result = np.zeros(len(vertices), complex)
    result[list(pins)] = target
    system = conformal[:, free]
    right = -(system.conj().T @ (conformal[:, list(pins)] @ target))
    result[free] = splu((system.conj().T @ system).tocsc()).solve(right)
    return np.stack([result.real, result.imag], 1)


def signed_areas(plane: Plane, faces: Faces) -> Float[np.ndarray, " faces"]:
    """Signed area of every triangle; a flipped one is negative."""
    a, b, c = (plane[faces[:, k]] for k in range(3))
    return 0.5 * ((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]))


def mend_flips(plane: Plane, faces: Faces, *, rings: int = 2, rounds: int = 200, floor: float = 0.0) -> Plane:
    """Relax the neighbourhood of flipped triangles until none is left.

    Vertices within `rings` edges of a flipped triangle move to the mean of their neighbours (Tutte's map of the patch);
    patches grow where that is not enough. Boundary vertices of the surface stay. Triangles of an area under `floor`
    count as flipped. ValueError if `rounds` do not suffice.
    """
    plane = plane.copy()
    neighbours = vertex_neighbours(faces, len(plane))
    degree = neighbours @ np.ones(len(plane))
    fixed = boundary_mask(faces, len(plane))
    for attempt in range(rounds):
        flipped = signed_areas(plane, faces) <= floor
        if not flipped.any():
            return plane
        active = np.zeros(len(plane), bool)
        active[faces[flipped]] = True
        for _ in range(rings + attempt // 20):
            active = active | (neighbours @ active > 0)
        active &= ~fixed
        means = (neighbours @ plane) / np.maximum(degree, 1)[:, None]
        plane[active] = 0.5 * plane[active] + 0.5 * means[active]
    raise ValueError(
        f"{int(flipped.sum())} triangles are still flipped after {rounds} rounds; cut the surface differently"
    )


def magnify(plane: Plane, centre: Float[np.ndarray, " 2"], radii: Float[np.ndarray, " 2"], gain: float) -> Plane:
    """Enlarge what lies around `centre`, within an ellipse of `radii`, by up to 1 + gain; outside nothing moves.

    The radius r (1 at the ellipse) becomes r · (1 + gain · (1 - r²)²) / (1 + gain · (1 - r²)² · r), monotone for
    gain ≤ 2, so that nothing folds over.
    """
    away = (plane - centre) / radii
    r = np.minimum(np.linalg.norm(away, axis=1, keepdims=True), 1)
    bump = gain * (1 - r**2) ** 2
    return np.asarray(centre + away * radii * (1 + bump) / (1 + bump * r))


def _unfold(corners: Float[np.ndarray, "faces 3 3"]) -> Float[np.ndarray, "faces 3"]:
    """Each triangle in its own plane, corners as complex numbers."""
    along = corners[:, 1] - corners[:, 0]
    length = np.linalg.norm(along, axis=1)
    x_axis = along / np.maximum(length, 1e-18)[:, None]
    to_third = corners[:, 2] - corners[:, 0]
    x = (to_third * x_axis).sum(1)
    y = np.linalg.norm(to_third - x[:, None] * x_axis, axis=1)
    return np.stack([np.zeros_like(length), length, x + 1j * y], 1)
