"""The shapes that heads have, a mean and modes of identities; and the fit of one of them to a surface."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy.sparse import csr_matrix, vstack
from scipy.spatial.transform import Rotation

from models.errors import CheckpointError
from models.registration.cloud import Cloud, Faces, Points, vertex_normals
from models.registration.matching import Match, match, match_back
from models.template import Head


@dataclass(frozen=True, eq=False)
class HeadShapes:
    """Identities of the canonical topology: mean (N, 3) and modes (K, N, 3), of which normal numbers make a head."""

    mean: Float32[np.ndarray, "vertices 3"]
    modes: Float32[np.ndarray, "modes vertices 3"]


def load_shapes(path: Path, head: Head) -> HeadShapes:
    """Read what `python -m training shapes` wrote. CheckpointError if the file is not that, or of another head."""
    from models.checkpoint import read_header, read_tensors

    header, tensors = read_header(path), read_tensors(path)
    if header.kind != "shapes" or set(tensors) != {"mean", "modes"}:
        raise CheckpointError(f"{path} holds a {header.kind}; wanted shapes: python -m training shapes writes them")
    if header.config.get("head") != head.fingerprint:
        raise CheckpointError(f"{path} holds shapes of another head: run python -m training shapes")
    return HeadShapes(*(tensors[name].float().numpy() for name in ("mean", "modes")))


class Pins(NamedTuple):
    """Where places on the canonical head must come to: at (K, N) reads its vertices there; points (K, 3); and the
    weight of each number (K, 3), where the skin's all together is about 1.
    """

    at: csr_matrix
    points: Points
    weights: Float[np.ndarray, "pins 3"]

    @staticmethod
    def none(count: int) -> "Pins":
        """No pins on a head of `count` vertices."""
        return Pins(csr_matrix((0, count)), np.zeros((0, 3)), np.zeros((0, 3)))

    def joined(self, *others: "Pins") -> "Pins":
        """These and others."""
        at, points, weights = zip(self, *others, strict=True)
        return Pins(vstack(at).tocsr(), np.concatenate(points), np.concatenate(weights))


@dataclass(frozen=True)
class Stage:
    """A part of the fit: rounds, modes in use, how far a match may be, the weight of a match along the surface against
    across it, and the ridge: the distance of matches, root mean square over the skin, that weighs as much as one
    standard deviation of a mode.
    """

    rounds: int
    modes: int
    reach_m: float
    along: float
    ridge_m: float


STAGES = (
    Stage(10, 10, 0.030, 0.3, 1e-3),
    Stage(10, 40, 0.020, 0.1, 3e-4),
    Stage(12, 120, 0.015, 0.05, 1e-4),
    Stage(10, 120, 0.008, 0.01, 3e-5),
    Stage(14, 120, 0.006, 0.01, 6e-6),
)
FRONT = 0.1
"""What places that the head's vertices are nearest to count, once the surface's own vertices are looked for, too."""
USUAL, STIFFER = 2.0, 1.6
"""Root mean square of the modes' numbers over which a head is unlike the shapes, and what its ridge then grows by in a
round."""
UNLIKE = 10.0
"""How much it has grown in the end for a head that is unlike them: 69-fold on one of no relation to them, 7-fold at
most on one of theirs, where few vertices tell little."""


@dataclass(frozen=True, eq=False)
class Skin:
    """What of the canonical head is matched: its faces (F, 3), the skin's vertices, and what each of those counts, all
    together 1.
    """

    faces: Faces
    vertices: Int[np.ndarray, " skin"]
    weights: Float[np.ndarray, " skin"]


class _Fit(NamedTuple):
    """A head of the shapes: its numbers (K,), and the similarity that it was moved by."""

    numbers: Float[np.ndarray, " modes"]
    scale: float
    turn: Float[np.ndarray, "3 3"]
    shift: Float[np.ndarray, " 3"]


def fit_shape(
    shapes: HeadShapes,
    skin: Skin,
    cloud: Cloud,
    pins: Callable[[Points, int], Pins],
    progress: Callable[[str], None] = lambda _: None,
    stages: Sequence[Stage] = STAGES,
) -> tuple[Points, bool]:
    """The head (N, 3) of the shapes that comes nearest to a surface that lies about where the canonical head does, and
    whether the surface is unlike all of them.

    Point to plane (Chen and Medioni 1992) in both directions, turn, scale and shift of the whole head included. pins
    are asked for in each stage, given the head so far and the stage's number.
    """
    fit, stiff = _Fit(np.zeros(len(shapes.modes)), 1.0, np.eye(3), np.zeros(3)), 1.0
    head = _head(shapes, fit)
    for number, stage in enumerate(stages):
        progress(f"fitting the shapes of heads, stage {number + 1} of {len(stages)}")
        held = pins(head, number)
        for _ in range(stage.rounds):
            basis = _basis(shapes, fit, head, stage.modes)
            system, right = _equations(basis, head, skin, cloud, stage, both=stage.modes == len(shapes.modes))
            own, heavy = _read(held.at, basis).reshape(len(basis), -1), held.weights.ravel()
            system += (own * heavy) @ own.T
            right += (own * heavy) @ (held.points - held.at @ head).ravel()
            fit = _step(fit, system, right, stiff * stage.ridge_m**2)
            head = _head(shapes, fit)
            if (fit.numbers**2).mean() > USUAL**2:
                stiff *= STIFFER
    return head, stiff > UNLIKE


def _head(shapes: HeadShapes, fit: _Fit) -> Points:
    shape = shapes.mean.astype(np.float64) + np.tensordot(fit.numbers, shapes.modes.astype(np.float64), 1)
    return np.asarray(fit.scale * shape @ fit.turn.T + fit.shift)


def _basis(shapes: HeadShapes, fit: _Fit, head: Points, modes: int) -> Float[np.ndarray, "moves vertices 3"]:
    """How the vertices move with small turns about the three axes, scale, shifts, and the first modes."""
    away = head - fit.shift
    turns = np.stack([np.cross(axis, away) for axis in np.eye(3)])
    shifts = np.eye(3)[:, None].repeat(len(away), 1)
    return np.concatenate([turns, away[None], shifts, fit.scale * shapes.modes[:modes].astype(np.float64) @ fit.turn.T])


def _equations(
    basis: np.ndarray, head: Points, skin: Skin, cloud: Cloud, stage: Stage, *, both: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of what brings the skin onto the surface, and, for `both`, the surface's vertices onto it."""
    own = skin.vertices
    found = match(head[own], vertex_normals(head, skin.faces)[own], cloud, stage.reach_m)
    found = found._replace(weights=found.weights * skin.weights)
    system, right = _normal(basis[:, own], found, head[own], stage.along)
    if not both:
        return system, right
    back = match_back(head, skin.faces, own, skin.weights, cloud, stage.reach_m)
    more = _normal(_read(back.at, basis), back.match, back.at @ head, stage.along)
    return FRONT * system + more[0], FRONT * right + more[1]


def _normal(basis: np.ndarray, found: Match, points: Points, along: float) -> tuple[np.ndarray, np.ndarray]:
    """Normal equations of what brings points where they belong: across the surface, and `along` times as much along."""
    mass, gap = found.weights / max(found.weights.sum(), 1e-12), found.points - points
    across = np.einsum("mpd,pd->mp", basis, found.normals)
    flat, heavy = basis.reshape(len(basis), -1), np.repeat(mass * along, 3)
    system = (across * mass) @ across.T + (flat * heavy) @ flat.T
    return system, (across * mass) @ (gap * found.normals).sum(1) + (flat * heavy) @ gap.ravel()


def _step(fit: _Fit, system: np.ndarray, right: np.ndarray, ridge: float) -> _Fit:
    used = len(right) - 7
    now, held = (
        np.concatenate([np.zeros(7), fit.numbers[:used]]),
        np.concatenate([np.full(7, 1e-9), np.full(used, ridge)]),
    )
    step = np.linalg.solve(system + np.diag(held), right - held * now)
    numbers = fit.numbers.copy()
    numbers[:used] += step[7:]
    turn = Rotation.from_rotvec(step[:3]).as_matrix() @ fit.turn
    return _Fit(numbers, float(fit.scale * np.exp(step[3])), turn, fit.shift + step[4:7])


def _read(at: csr_matrix, basis: np.ndarray) -> np.ndarray:
    """A basis (K, N, 3) at places (K, P, 3)."""
    moves, vertices, _ = basis.shape
    flat = at @ np.ascontiguousarray(basis.transpose(1, 0, 2)).reshape(vertices, -1)
    return np.asarray(flat.reshape(-1, moves, 3).transpose(1, 0, 2))
