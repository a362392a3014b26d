"""What texels see of a line: Gaussians, blurred by the texel in closed form.

A Gaussian of deviation s under a box of variance b is about a Gaussian of variance s² + b, lower by s / √(s² + b).
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from models.texels import Texels
from training.corpus.lines import Line

VALLEY, VALLEY_WIDTH = 0.45, 2.6
"""The soft valley about a line's core: its share of the depth, and its deviation, of the core's."""
SHOULDER, SHOULDER_PLACE, SHOULDER_WIDTH = 0.2, 4.0, 1.8
"""A line's light shoulders: their height, place and deviation, of the core's depth and deviation."""
REACH = SHOULDER_PLACE + 3 * SHOULDER_WIDTH
MARGIN_M = 0.001
"""Added to the reach of a line, for texels that blur it."""

Values = Float[np.ndarray, " points"]


class Entries(NamedTuple):
    """A sparse matrix' entries: texel and knot, as indices, and value."""

    texel: Int[np.ndarray, " entries"]
    knot: Int[np.ndarray, " entries"]
    value: Float[np.ndarray, " entries"]


def draw_line(line: Line, texels: Texels) -> Entries:
    """How dark each texel is of a line, fully folded at one knot; between two knots it is linear.

    Skin that faces away from the line, as a lip from the other, sees none of it.
    """
    reach = REACH * float(line.sigma_m.max()) + MARGIN_M
    low, high = line.points.min(0) - reach, line.points.max(0) + reach
    start, stop = np.searchsorted(texels.position[:, 1], [low[1], high[1]])
    level = texels.position[start:stop]
    near = start + np.flatnonzero(((level > low) & (level < high)).all(1))
    distance, nearest = cKDTree(line.points).query(texels.position[near], distance_upper_bound=reach)
    near, nearest = near[np.isfinite(distance)], nearest[np.isfinite(distance)]
    away, across = texels.position[near] - line.points[nearest], line.across[nearest]
    inner = np.clip(nearest, 1, len(line.points) - 2)
    tangent = (line.points[inner + 1] - line.points[inner - 1]) / 2
    step = (away * tangent).sum(1) / (tangent**2).sum(1)
    place = np.clip(nearest + step, 0, len(line.points) - 1)
    facing = np.clip(2 * (texels.surface.normal[texels.face[near]] * line.normals[nearest]).sum(1), 0, 1)
    blur = _variance(texels, near, across)
    sigma, depth = (np.interp(place, np.arange(len(line.points)), part) for part in (line.sigma_m, line.depth))
    value = depth * facing * profile((away * across).sum(1), sigma, blur, line.lean)
    left = np.clip(np.searchsorted(line.knots, place, side="right") - 1, 0, len(line.knots) - 2)
    share = (place - line.knots[left]) / (line.knots[left + 1] - line.knots[left])
    both = np.concatenate([value * (1 - share), value * share])
    return Entries(np.concatenate([near, near]), np.concatenate([left, left + 1]), both)


def profile(across: Values, sigma: Values, blur: Values, lean: float) -> Values:
    """A dark core and valley (positive) between two light shoulders, at distances across a line.

    sigma: deviation of the core; blur: a texel's own variance across the line; lean: how much more of the shoulders is
    on the positive side, -1..1.
    """
    core = (1 - VALLEY) * _gaussian(across, sigma, blur) + VALLEY * _gaussian(across, VALLEY_WIDTH * sigma, blur)
    left = (1 + lean) * _gaussian(across - SHOULDER_PLACE * sigma, SHOULDER_WIDTH * sigma, blur)
    right = (1 - lean) * _gaussian(across + SHOULDER_PLACE * sigma, SHOULDER_WIDTH * sigma, blur)
    return core - SHOULDER * (left + right) / 2


def _variance(texels: Texels, chosen: Int[np.ndarray, " chosen"], direction: Float[np.ndarray, "chosen 3"]) -> Values:
    """Variance of a texel's own box along a direction of each: a twelfth of the square of its width."""
    extent = texels.surface.extent[texels.face[chosen]]
    x, y, z = direction.T
    width = x[:, None] * extent[:, 0] + y[:, None] * extent[:, 1] + z[:, None] * extent[:, 2]
    return (width**2).sum(1) / 12


def _gaussian(away: Values, sigma: Values, blur: Values) -> Values:
    variance = sigma**2 + blur
    return np.asarray(sigma / np.sqrt(variance) * np.exp(-(away**2) / (2 * variance)))
