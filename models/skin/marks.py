"""Small round marks on skin, and hairs, which are rows of them: where they lie, and how texels see them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.spatial import cKDTree

from models.atlas import Atlas
from models.surface import face_areas
from models.template import Head
from models.texels import Surface

REACH = 3.0
"""Deviations of a mark that are drawn."""
WIDEST = 96.0
"""Texels that a mark reaches at most: charts may stretch a face as far as they like."""
PIECE = 1 << 21
"""Texels of marks that are drawn at a time."""

Points = Float[np.ndarray, "points 3"]
Values = Float[np.ndarray, " points"]


class Marks(NamedTuple):
    """Gaussians on the skin, round on its surface: face and uv of each centre, deviation in metres, and amount."""

    face: Int[np.ndarray, " marks"]
    uv: Float[np.ndarray, "marks 2"]
    sigma_m: Float[np.ndarray, " marks"]
    amount: Float[np.ndarray, " marks"]


class Places(NamedTuple):
    """Points of the skin: face, uv, and position in metres."""

    face: Int[np.ndarray, " points"]
    uv: Float[np.ndarray, "points 2"]
    position: Points


def scatter(
    head: Head, per_mm2: float, density: Callable[[Points], Values], random: np.random.Generator, apart_m: float = 0.0
) -> Places:
    """Random places of the skin, `per_mm2` · density (0..1) of them to a square millimetre.

    Of those nearer to one another than `apart_m` one is left.
    """
    atlas = head.atlas
    skin = np.flatnonzero(atlas.chart == head.charts.index("skin"))
    corners = atlas.vertices.astype(float)[atlas.faces[skin]]
    area = face_areas(atlas.vertices.astype(float), atlas.faces[skin])
    own = np.repeat(np.arange(len(skin)), random.poisson(1e6 * area * per_mm2))
    weights = random.dirichlet(np.ones(3), len(own))
    position = np.einsum("pk,pkd->pd", weights, corners[own])
    kept = random.random(len(own)) < density(position)
    if apart_m:
        near = cKDTree(position[kept]).query_pairs(apart_m, output_type="ndarray")
        crowded = np.zeros(int(kept.sum()), bool)
        crowded[near[:, 1]] = True
        kept[np.flatnonzero(kept)[crowded]] = False
    uv = np.einsum("pk,pkd->pd", weights, atlas.corners[skin[own]])
    return Places(skin[own[kept]], uv[kept], position[kept])


def grow(
    head: Head, roots: Places, heading: Callable[[float], Points], length_m: Values, breadth_m: float, steps: int = 16
) -> Marks:
    """Hairs on the skin from their roots: rows of marks that thin out towards the tip.

    heading: unit directions (roots, 3) at a share of the hairs' length; what of them points off the skin is ignored.
    """
    axes, uv, path = _axes(head.atlas), roots.uv, [roots.uv]
    for step in range(steps):
        face = roots.face if step == 0 else head.atlas.locate(uv).face
        way = heading(step / steps) * (length_m / steps)[:, None]
        uv = np.clip(uv + np.einsum("pij,pj->pi", axes[face], way), 0, 1)
        path.append(uv)
    count = int(np.ceil(length_m.max() / (0.8 * breadth_m)))
    share = np.linspace(0, 1, count)
    place = np.minimum((share * steps).astype(int), steps - 1)
    stack, within = np.stack(path), (share * steps - place)[:, None, None]
    points = ((1 - within) * stack[place] + within * stack[place + 1]).reshape(-1, 2)
    taper = np.repeat(np.sqrt(1 - 0.85 * share), len(uv))
    return Marks(head.atlas.locate(points).face, points, breadth_m * taper, 0.45 * taper)


def draw(marks: Marks, surface: Surface, size: int, rows: slice, columns: slice) -> Float32[np.ndarray, "rows columns"]:
    """The sum of the marks in a window of an image, each as high as its amount, lower where texels blur it."""
    first, last = np.array([columns.start, rows.start]), np.array([columns.stop, rows.stop])
    width, height = last - first
    image = np.zeros(height * width)
    centre = np.stack([marks.uv[:, 0], 1 - marks.uv[:, 1]], 1) * size - 0.5
    near = np.flatnonzero(((centre > first - WIDEST) & (centre < last + WIDEST)).all(1))
    if not len(near):
        return image.reshape(height, width).astype(np.float32)
    centre, amount = centre[near], marks.amount[near]
    spread, peak = _seen(surface.extent[marks.face[near]], marks.sigma_m[near])
    reach = np.minimum(REACH * np.sqrt(spread[:, [0, 1], [0, 1]]), WIDEST)
    low = np.ceil(centre - reach).clip(first, last).astype(int)
    extent = np.maximum(np.floor(centre + reach).clip(first - 1, last - 1).astype(int) - low + 1, 0)
    count, sharp = extent.prod(1), np.linalg.inv(spread)
    whole = np.cumsum(count)
    for part in np.split(np.arange(len(near)), np.searchsorted(whole, np.arange(PIECE, whole[-1], PIECE))):
        mark = np.repeat(part, count[part])
        within = np.arange(len(mark)) - np.repeat(np.cumsum(count[part]) - count[part], count[part])
        place = low[mark] + np.stack([within % extent[mark, 0], within // extent[mark, 0]], 1)
        across, down = (place - centre[mark]).T
        p, q, r = sharp[mark, 0, 0], sharp[mark, 0, 1], sharp[mark, 1, 1]
        value = (peak * amount)[mark] * np.exp(-(p * across**2 + 2 * q * across * down + r * down**2) / 2)
        column, row = (place - first).T
        image += np.bincount(row * width + column, value, len(image))
    return image.reshape(height, width).astype(np.float32)


def _seen(extent: Float[np.ndarray, "marks 3 2"], sigma_m: Values) -> tuple[np.ndarray, Values]:
    """Covariance (marks, 2, 2) of a round mark in texels, their own box included, and how high its middle is left."""
    metric = extent.transpose(0, 2, 1) @ extent + 1e-20 * np.eye(2)
    own = sigma_m[:, None, None] ** 2 * np.linalg.inv(metric)
    spread = own + np.eye(2) / 12
    return spread, np.sqrt(np.linalg.det(own) / np.linalg.det(spread))


def _axes(atlas: Atlas) -> Float[np.ndarray, "faces 2 3"]:
    """What takes a way in space, in metres, to the way on the atlas that follows it."""
    corners = atlas.vertices.astype(float)[atlas.faces]
    ways, sides = corners[:, 1:] - corners[:, :1], atlas.corners[:, 1:] - atlas.corners[:, :1]
    return np.asarray(sides.transpose(0, 2, 1) @ np.linalg.pinv(ways.transpose(0, 2, 1)))
