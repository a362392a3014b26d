"""The lines of a face: where skin folds, drawn by families on the unrolled face and laid onto the head.

Every family is a few strokes through waypoints beside the landmarks; each subject's are moved, bent, broken, branched
and accompanied by finer ones, by the seed of their wrinkle style.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import CubicSpline

from training.corpus.canvas import Canvas, Drawing, Landmarks
from training.corpus.strain import Points

STEP_MM = 0.4
"""Between the points of a line."""
KNOT_MM = 9.0
"""Between the places along a line whose strain is asked; its depth is linear between them."""
LONG_MM = 40.0
"""From this length on a line has its full number of branches and of finer lines."""

Values = Float[np.ndarray, " points"]


class Stroke(NamedTuple):
    """A line as it is meant: waypoints (m, 2) in millimetres on the canvas; how strong and how wide it is, of its
    family's; `lean`, -1..1: how much more the skin on the left of its direction swells than that on its right.
    """

    waypoints: Drawing
    strength: float = 1.0
    width: float = 1.0
    lean: float = 0.0


@dataclass(frozen=True, eq=False)
class Line:
    """A line on the skin: points (n, 3), unit normals and unit directions across it (n, 3), metres along it (n,),
    relative depth (n,), the deviation of its core in metres (n,), and where along it strain is asked (k,), as indices.
    """

    family: str
    points: Points
    normals: Points
    across: Points
    along_m: Values
    depth: Values
    sigma_m: Values
    lean: float
    knots: Int[np.ndarray, " knots"]


class Manner(NamedTuple):
    """How a subject's lines are drawn: the deviation of waypoints and the wobble in millimetres; how many finer lines
    come with each; how often a line branches; the deviation of a core in millimetres.
    """

    jitter_mm: float
    wobble_mm: float
    finer: float
    branching: float
    width_mm: float


def draw_lines(canvas: Canvas, manner: Manner, seed: int) -> list[Line]:
    """Every line of a face, family by family, deterministic by seed."""
    lines = []
    for number, (family, draw) in enumerate(FAMILIES.items()):
        random = np.random.default_rng([seed, number])
        for stroke in draw(canvas.landmarks, random):
            lines += [_lay(canvas, family, variant, manner, random) for variant in _variants(stroke, manner, random)]
    return [line for line in lines if line is not None]


def _forehead(marks: Landmarks, random: np.random.Generator) -> Iterator[Stroke]:
    up, count = marks.inner_eye.up, int(random.integers(3, 6))
    for height in np.linspace(34, 60, count) + random.normal(0, 0.8, count):
        reach = random.uniform(40, 54) - 0.3 * (height - 34)
        ends = reach * (1 + random.normal(0, 0.08, 2))
        shape = np.array([[-ends[0], -1.0], [-0.5 * reach, 2.5], [0, 0.5], [0.5 * reach, 2.5], [ends[1], -1.0]])
        yield Stroke(shape + np.array([random.normal(0, 2), up + height]), random.uniform(0.7, 1.0))


def _glabella(marks: Landmarks, random: np.random.Generator) -> Iterator[Stroke]:
    up = marks.inner_eye.up
    for side in (-1, 1):
        foot = random.uniform(5, 7.5)
        shape = np.array([[foot, up + 9], [foot + 0.3, up + 18], [foot + 2.5, up + random.uniform(27, 33)]])
        yield Stroke(shape * [side, 1], random.uniform(0.7, 1.0), 1.4)
        yield Stroke((shape + np.array([6, 4])) * [side, 1], 0.45)
    yield Stroke(np.array([[0.6, up + 13], [0, up + 25]]), random.uniform(0, 0.5))


def _crows_feet(marks: Landmarks, random: np.random.Generator) -> Iterator[Stroke]:
    for side in (-1, 1):
        angles = np.linspace(-48, 40, int(random.integers(4, 7)))
        for angle in np.radians(angles + random.normal(0, 4, len(angles))):
            ray, bend = np.array([np.cos(angle), np.sin(angle)]), np.array([0, -1.2 * np.sign(angle)])
            length = random.uniform(13, 23) * (1 - 0.3 * abs(angle))
            start = np.array([1.0, 0.5]) + 5.5 * ray
            shape = np.array([start, start + 0.5 * length * ray, start + length * ray + bend])
            yield Stroke((shape + np.array(marks.outer_eye)) * [side, 1], random.uniform(0.6, 1.0))


def _under_eye(marks: Landmarks, random: np.random.Generator) -> Iterator[Stroke]:
    inner, outer = np.array(marks.inner_eye), np.array(marks.outer_eye)
    for side in (-1, 1):
        for drop, strength in ((5.5, 0.7), (8.0, 0.5), (11.0, 0.8), (14.5, 0.4)):
            begin, end = random.uniform([0.0, 0.6], [0.25, 1.05])
            share = np.linspace(begin, end, 4)
            sag = drop * np.sin(np.pi * np.clip(0.12 + 0.76 * share, 0, 1)) ** 0.8
            shape = inner + share[:, None] * (outer - inner) - np.stack([np.zeros(4), sag], 1)
            yield Stroke(shape * [side, 1], strength, 0.9)
        trough = inner + np.array([[-1, -5], [4, -12], [12, -17.5], [19, -20]])
        yield Stroke(trough * [side, 1], 0.5, 2.2)


def _nasolabial(marks: Landmarks, random: np.random.Generator) -> Iterator[Stroke]:
    corner, up = marks.mouth.across, marks.mouth.up
    for side in (-1, 1):
        wing, end = [18, marks.nose.up + 3], [corner + 9.5, up - 4.0 - random.uniform(0, 3)]
        cheek = np.array([[corner + 1.5, up + 24], [corner + 7.0, up + 14], [corner + 9.5, up + 4]])
        yield Stroke(np.array([wing, *cheek, end]) * [side, 1], 1.0, 2.4, 0.8 * side)
        yield Stroke((cheek + np.array([5.5, -2])) * [side, 1], 0.35, 1.2, 0.4 * side)
        down = np.array([[corner + 3.5, up - 4], [corner + 5.0, up - 11], [corner + 4.5, up - 22]])
        yield Stroke(down * [side, 1], 0.3, 2.2, 0.5 * side)


def _nose_bridge(marks: Landmarks, random: np.random.Generator) -> Iterator[Stroke]:
    up = marks.inner_eye.up
    for height in (1.0, 5.0, 8.5):
        reach = random.uniform(5, 8.5)
        yield Stroke(np.array([[-reach, up + height - 1], [0, up + height], [reach, up + height - 1]]), 0.8)
    for side in (-1, 1):
        for k in range(3):
            shape = np.array([[6.0 + 1.2 * k, up - 3.0 - 3.4 * k], [10.5 + 1.4 * k, up - 9.0 - 3.2 * k]])
            yield Stroke(shape * [side, 1], random.uniform(0.6, 1.0))


def _lip_creases(marks: Landmarks, random: np.random.Generator) -> Iterator[Stroke]:
    for upward, count in ((1, 17), (-1, 15)):
        places = np.linspace(-17, 17, count) + random.normal(0, 0.7, count)
        for across in places:
            near, far = np.sort(random.uniform([1.5, 6.5], [4.5, 15.0 if upward > 0 else 12.0]))
            lean = 0.16 * across + random.normal(0, 0.5)
            shape = np.array([[across, upward * near], [across + lean, upward * far]]) + np.array(marks.lips)
            yield Stroke(shape, random.uniform(0.3, 0.9), 0.7)


def _chin(marks: Landmarks, random: np.random.Generator) -> Iterator[Stroke]:
    up = marks.lips.up
    crease = np.array([[-15, up - 18.5], [-7, up - 15.8], [0, up - 15.2], [7, up - 15.8], [15, up - 18.5]])
    yield Stroke(crease, 1.0, 2.2, -0.6)
    for _ in range(40):
        centre = np.array([random.uniform(-14, 14), up - 25.5 + random.uniform(-8, 8)])
        angle, half = random.uniform(0, np.pi), random.uniform(1.5, 3.0)
        ray = half * np.array([np.cos(angle), np.sin(angle)])
        yield Stroke(np.stack([centre - ray, centre + ray]), random.uniform(0.15, 0.4))


def _neck(marks: Landmarks, random: np.random.Generator) -> Iterator[Stroke]:
    for height in (6.0, 12.0, 17.5):
        reach = random.uniform(40, 60)
        shape = np.array([[-reach, height + 4], [-0.4 * reach, height], [0.4 * reach, height], [reach, height + 4]])
        yield Stroke(shape, random.uniform(0.5, 1.0), 1.6)


FAMILIES: Mapping[str, Callable[[Landmarks, np.random.Generator], Iterator[Stroke]]] = {
    "forehead": _forehead,
    "glabella": _glabella,
    "crows_feet": _crows_feet,
    "under_eye": _under_eye,
    "nasolabial": _nasolabial,
    "nose_bridge": _nose_bridge,
    "lip_creases": _lip_creases,
    "chin": _chin,
    "neck": _neck,
}
"""How each family is drawn. Their order is part of what a seed means."""


def _variants(stroke: Stroke, manner: Manner, random: np.random.Generator) -> Iterator[Stroke]:
    """The stroke as this subject has it, with branches and with finer lines beside it."""
    jittered = stroke.waypoints + random.normal(0, manner.jitter_mm, stroke.waypoints.shape)
    yield stroke._replace(waypoints=jittered)
    whole = jittered[-1] - jittered[0]
    length = float(np.linalg.norm(whole))
    if length < 8:
        return
    across = np.array([-whole[1], whole[0]]) / length
    for _ in range(random.poisson(manner.finer * min(length / LONG_MM, 1))):
        shift = random.choice([-1, 1]) * random.uniform(1.3, 3.2)
        begin, end = random.uniform([0.0, 0.5], [0.5, 1.0])
        part = _interpolate(jittered, np.linspace(begin, end, 4)) + shift * across
        yield Stroke(part, stroke.strength * random.uniform(0.15, 0.4), 0.7 * min(stroke.width, 1))
    if random.random() < manner.branching * min(length / LONG_MM, 1):
        start, turn = random.uniform(0.25, 0.75), np.radians(random.choice([-1, 1]) * random.uniform(10, 24))
        root, ahead = _interpolate(jittered, np.array([start, start + 0.05]))
        ray = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ (ahead - root)
        ray *= min(random.uniform(4, 9), 0.5 * length) / np.linalg.norm(ray)
        branch = root + np.outer([0, 1], ray)
        yield Stroke(branch, 0.5 * stroke.strength, 0.8 * min(stroke.width, 1))


def _lay(canvas: Canvas, family: str, stroke: Stroke, manner: Manner, random: np.random.Generator) -> Line | None:
    """The stroke on the skin; None where there is none, or hardly any."""
    length = float(np.linalg.norm(np.diff(stroke.waypoints, axis=0), axis=1).sum())
    share = np.linspace(0, 1, max(int(length / STEP_MM), 4) + 1)
    drawing = _interpolate(stroke.waypoints, share)
    tangent = np.gradient(drawing, axis=0)
    tangent /= np.maximum(np.linalg.norm(tangent, axis=1, keepdims=True), 1e-9)
    wobble = manner.wobble_mm * min(length / 12, 1) * _noise(share * length, 9.0, random)
    drawing = drawing + wobble[:, None] * np.stack([-tangent[:, 1], tangent[:, 0]], 1)
    points, normals = canvas.lift(drawing)
    if len(points) < 4:
        return None
    direction = np.gradient(points, axis=0)
    across = np.cross(normals, direction)
    across /= np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-12)
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    breaks = np.clip(0.85 + 0.25 * _noise(1e3 * along, 7.0, random), 0.3, 1)
    depth = stroke.strength * np.sin(np.pi * along / along[-1]).clip(0) ** 0.7 * breaks
    sigma = 1e-3 * manner.width_mm * stroke.width * (0.6 + 0.4 * depth / max(depth.max(), 1e-9))
    knots = np.linspace(0, len(points) - 1, max(round(1e3 * along[-1] / KNOT_MM), 1) + 1).round().astype(int)
    return Line(family, points, normals, across, along, depth, sigma, stroke.lean, knots)


def _interpolate(waypoints: Drawing, share: Values) -> Drawing:
    """A smooth curve through waypoints at shares of their length, 0..1."""
    place = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(waypoints, axis=0), axis=1))])
    if len(waypoints) == 2:
        return waypoints[0] + share[:, None] * (waypoints[1] - waypoints[0])
    return np.asarray(CubicSpline(place, waypoints, bc_type="natural")(share * place[-1]))


def _noise(place_mm: Values, wave_mm: float, random: np.random.Generator) -> Values:
    """Smooth noise of unit deviation along a line: waves of about `wave_mm` and longer."""
    waves, phases = random.uniform(0.15, 1, 6) / wave_mm, random.uniform(0, 2 * np.pi, 6)
    return np.asarray(np.sin(2 * np.pi * place_mm[:, None] * waves + phases).sum(1) / np.sqrt(3))
