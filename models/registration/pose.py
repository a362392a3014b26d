"""How a head lies in space: the similarity that brings the canonical head onto it, whatever its axes and its size.

Many rotations are tried at once, each improved by a few rounds of iterative closest points in both directions (Besl and
McKay 1992, with Umeyama's scale); the best survive to the next, longer stage.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from models.registration.cloud import Points, unit
from models.surface import face_areas

Transforms = Float[np.ndarray, "tries 3 3"]

STAGES = ((100, 6, 24), (200, 8, 5), (500, 12, 2))
"""Points a side, rounds, and how many tries are left after it."""
TRIES = 200
ENDS = 60
"""Rotations that are tried at each end, beside the 24."""
SIZES = (0.65, 0.4, 0.2)
"""Of a head at an end, against the whole."""
SCALES = (0.05, 5.0)
"""Of a head against the target, between which it is looked for."""
WELL = 0.5
"""Score of a pose over which no other is looked for."""
SIGMA = 0.35
"""Of the canonical head's radius: distance at which a pair counts little, in the first stage; half as much in each
next."""
TURN = 0.5
"""Radii that count as much as normals at a right angle, over the root of two."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """x → scale · turn x + shift."""

    scale: float
    turn: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, " 3"]

    def apply(self, points: Points) -> Points:
        """Points (…, 3), moved."""
        return np.asarray(self.scale * points @ self.turn.T + self.shift)

    def undo(self, points: Points) -> Points:
        """The inverse."""
        return np.asarray((points - self.shift) @ self.turn / self.scale)

    def after(self, other: "Similarity") -> "Similarity":
        """This one after another."""
        return Similarity(self.scale * other.scale, self.turn @ other.turn, self.apply(other.shift))


class Oriented(NamedTuple):
    """Points (P, 3) and their unit normals."""

    points: Points
    normals: Points


def spread(vertices: Points, faces: np.ndarray, weight: np.ndarray, count: int, seed: int = 0) -> Oriented:
    """`count` points drawn over faces by area times `weight`, with the faces' normals. Deterministic."""
    share = np.cumsum(face_areas(vertices, faces) * weight)
    random = np.random.default_rng(seed)
    face = np.searchsorted(share, (np.arange(count) + random.random(count)) / count * share[-1], side="right")
    corners = vertices[faces[np.minimum(face, len(faces) - 1)]]
    place = random.random((count, 2))
    place = np.where(place.sum(1, keepdims=True) > 1, 1 - place, place)
    points = corners[:, 0] + np.einsum("pk,pkd->pd", place, corners[:, 1:] - corners[:, :1])
    return Oriented(points, unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])))


def similarity(
    before: Float[np.ndarray, "tries points 3"], after: Float[np.ndarray, "tries points 3"], weights: np.ndarray
) -> tuple[np.ndarray, Transforms, np.ndarray]:
    """Scale (H,), turn (H, 3, 3) and shift (H, 3) that bring points nearest to others (Umeyama 1991)."""
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-12)
    middle, other = (np.einsum("hp,hpd->hd", weights, points) for points in (before, after))
    away, aim = before - middle[:, None], after - other[:, None]
    left, stretch, right = np.linalg.svd(np.einsum("hp,hpi,hpj->hij", weights, aim, away))
    flip = np.sign(np.linalg.det(left @ right))
    left[:, :, 2] *= flip[:, None]
    stretch[:, 2] *= flip
    turn = left @ right
    scale = stretch.sum(1) / np.maximum(np.einsum("hp,hpd,hpd->h", weights, away, away), 1e-12)
    return scale, turn, other - scale[:, None] * np.einsum("hij,hj->hi", turn, middle)


def rotations(count: int) -> Transforms:
    """The 24 that permute axes, then others spread evenly (super-Fibonacci, Alexa 2022)."""
    s = np.arange(count) + 0.5
    r, rest = np.sqrt(s / count), np.sqrt(1 - s / count)
    alpha, beta = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    even = Rotation.from_quat(
        np.stack([r * np.sin(alpha), r * np.cos(alpha), rest * np.sin(beta), rest * np.cos(beta)], 1)
    )
    return np.concatenate([Rotation.create_group("O").as_matrix(), even.as_matrix()])


class Pose(NamedTuple):
    """A similarity from the canonical head to another, and how well it fits: 0 to 1."""

    similarity: Similarity
    score: float


def find_poses(canonical: Oriented, target: Oriented) -> list[Pose]:
    """The best ways to bring the canonical head onto another, best first.

    Both are clouds of some thousand points; the target's in any units and axes. Where none fits well, the head may be
    the end of something longer, such as a bust, and is looked for there.
    """
    own, other = _normalised(canonical), _normalised(target)
    inner = Similarity(1 / own.scale, np.eye(3), -own.shift / own.scale)
    outer = Similarity(other.scale, np.eye(3), other.shift)
    head, aim = (
        Oriented(frame.undo(cloud.points), cloud.normals) for frame, cloud in ((own, canonical), (other, target))
    )
    search = _Search(head, aim)
    found = search.run(_starts())
    if found[0][1] < WELL:
        found = sorted(found + search.run(_ends(aim.points)), key=lambda pair: -pair[1])
    return [Pose(outer.after(one).after(inner), score) for one, score in found]


def _normalised(cloud: Oriented) -> Similarity:
    """From a cloud about 0 of radius 1 to this one."""
    middle = cloud.points.mean(0)
    return Similarity(float(np.sqrt(((cloud.points - middle) ** 2).sum(1).mean())), np.eye(3), middle)


class Tries(NamedTuple):
    """Similarities: scale (H,), turn (H, 3, 3), shift (H, 3)."""

    scale: Float[np.ndarray, " tries"]
    turn: Transforms
    shift: Float[np.ndarray, "tries 3"]


def _starts() -> Tries:
    turn = rotations(TRIES)
    return Tries(np.ones(len(turn)), turn, np.zeros((len(turn), 3)))


def _ends(points: Points) -> Tries:
    """Smaller heads at the ends of a cloud along its axes and its principal ones."""
    principal = np.linalg.svd(points - points.mean(0), full_matrices=False)[2]
    turn = rotations(ENDS)
    scale, shift = [], []
    for along in (*np.eye(3), *principal):
        for way in (along, -along):
            height = points @ way
            for size in SIZES:
                end = points[height > height.max() - 1.5 * size].mean(0)
                scale.append(size)
                shift.append(end)
    many = len(scale)
    every = np.repeat(np.arange(many), len(turn))
    return Tries(np.array(scale)[every], np.tile(turn, (many, 1, 1)), np.array(shift)[every])


class _Search:
    """Improves many tries at once; holds the trees of both clouds."""

    def __init__(self, head: Oriented, aim: Oriented) -> None:
        self._clouds = head, aim
        self._trees = [cKDTree(np.c_[cloud.points, TURN * cloud.normals]) for cloud in (head, aim)]

    def run(self, tries: Tries) -> list[tuple[Similarity, float]]:
        """The best of some tries after all STAGES, best first."""
        sigma = SIGMA
        for count, rounds, left in STAGES:
            if len(tries.scale) > 3 * TRIES:
                tries, score = self._improved(tries, 50, 3, sigma)
                tries = Tries(*(part[np.argsort(-score)[:TRIES]] for part in tries))
            tries, score = self._improved(tries, count, rounds, sigma)
            best = np.argsort(-score)[:left]
            tries, score = Tries(*(part[best] for part in tries)), score[best]
            sigma /= 2
        found = (Similarity(float(scale), turn, shift) for scale, turn, shift in zip(*tries, strict=True))
        return list(zip(found, score.tolist(), strict=True))

    def _improved(self, tries: Tries, count: int, rounds: int, sigma: float) -> tuple[Tries, np.ndarray]:
        head, aim = (Oriented(*(part[:: max(len(part) // count, 1)] for part in cloud)) for cloud in self._clouds)
        for _ in range(rounds):
            there = self._there(head, tries, sigma)
            back = self._back(aim, tries, sigma)
            before, after, weights = (np.concatenate(pair, 1) for pair in zip(there, back, strict=True))
            score = 0.7 * there[2].mean(1) + 0.3 * back[2].mean(1)
            scale, turn, shift = similarity(before, after, weights)
            tries = Tries(scale.clip(*SCALES), turn, shift)
        return tries, score

    def _there(self, head: Oriented, tries: Tries, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Points of the head, where they are nearest to the target, and how well they match."""
        scale, turn, shift = tries
        moved = scale[:, None, None] * np.einsum("pd,hed->hpe", head.points, turn) + shift[:, None]
        turned = np.einsum("pd,hed->hpe", head.normals, turn)
        points, cosine = self._nearest(1, moved, turned)
        away = np.linalg.norm(moved - points, axis=2) / scale[:, None]
        return np.broadcast_to(head.points, moved.shape), points, np.exp(-((away / sigma) ** 2)) * cosine

    def _back(self, aim: Oriented, tries: Tries, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The head's points that some of the target are nearest to, those, and how well they match."""
        scale, turn, shift = tries
        moved = np.einsum("hpd,hde->hpe", aim.points - shift[:, None], turn) / scale[:, None, None]
        points, cosine = self._nearest(0, moved, np.einsum("pd,hde->hpe", aim.normals, turn))
        away = np.linalg.norm(moved - points, axis=2)
        return points, np.broadcast_to(aim.points, moved.shape), np.exp(-((away / sigma) ** 2)) * cosine

    def _nearest(self, which: int, points: np.ndarray, normals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        _, found = self._trees[which].query(np.concatenate([points, TURN * normals], 2).reshape(-1, 6), workers=-1)
        cloud, found = self._clouds[which], found.reshape(points.shape[:2])
        return cloud.points[found], (normals * cloud.normals[found]).sum(2).clip(0)
