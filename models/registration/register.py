"""Start reading here: a mesh file goes in, a template comes out.

The canonical head is brought onto the file's largest piece: first by turn, scale and shift (`pose`), then as one of the
shapes that heads have (`shapes`), then drawn onto the surface (`nonrigid`). Where a vertex of the file lies on the
canonical head is then where it is nearest (`placing`), and what moves there moves it (`form`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_matrix

from models.errors import OutOfRange
from models.meshes.record import MeshFile
from models.registration.building import build_template
from models.registration.cloud import Cloud, Faces, Points, vertex_normals
from models.registration.guide import Guide
from models.registration.holds import Holds, eyeballs, find_openings
from models.registration.landmarks import Landmarks
from models.registration.matching import match
from models.registration.mouth import Slit, find_slit
from models.registration.nonrigid import draw_onto
from models.registration.pieces import Piece, Welded, signed_volume, split, weld
from models.registration.placing import place_pieces
from models.registration.pose import Pose, Similarity, find_poses, similarity, spread
from models.registration.shapes import STAGES, Pins, fit_shape
from models.template import Template

VERSION = 2
"""Of the method: what an older one has registered is registered anew."""
Progress = Callable[[str], None]

CANDIDATES = 2
"""Pieces that may be the skin: the largest."""
LARGE = 0.25
"""Of the largest piece's area: a smaller one is not the skin, nor another head."""
POINTS = 6000
FOR_POSE = 4
"""Landmarks that tell how a head lies; of fewer, its shape does."""
GIVEN = 0.2
"""Weight of a user's landmark in the fit."""
LEAST_VERTICES = 100
"""Of a piece that may be a face: a tenth of what the coarsest heads have, so that a few triangles cost nothing."""
LEAST_SCORE, SURE_SCORE = 0.2, 0.42
"""Score of a pose under which there is no head, and over which there is one whatever else is missing. Faces without the
back of the head have 0.31 at least, heads on shoulders 0.29; a ball 0.32 and a cube 0.24, which have no mouth; a hand
and a body 0.14.
"""
DOUBT, MOST_DOUBT = 0.8, 3
"""Score of other poses, over the best, that are looked at closely, and how many."""
DIFFERENT_RAD, DIFFERENT_SIZE, COUNTERPART_M = 0.35, 0.25, 0.006
"""Angle, or logarithm of sizes, between poses that are not the same; and how near a face's counterpart is."""
FEWEST = 4
"""Vertices along a lip; where both have fewer, they do not tell which is which. A head of MakeHuman's with three along
each was 4 mm off, two of its vertices on the wrong lip; evenly remeshed to 2,000 vertices, heads have five or more."""
SECOND, APART_M = 0.85, 0.15
"""Score of another pose, over the best, at which it is a second head, and how far that lies away."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """The canonical head on a surface. pose takes the canonical head's metres to the file's units; all else is in
    those metres: points (W, 3) are the welded vertices, surface the skin, drawn (N, 3) the canonical head on it.
    """

    pose: Similarity
    piece: Piece
    points: Points
    surface: Cloud
    drawn: Points
    slit: Slit


def register(
    file: MeshFile, guide: Guide, *, id: str, landmarks: Landmarks | None = None, progress: Progress = lambda _: None
) -> Template:
    """Place a head on the atlas: its mesh in metres, +Y up and +Z forward, with `source`, `form` and `report`.

    The texture at rest is left to the caller. OutOfRange, by code: `not_a_head` with the reasons, `mouth_sealed` when
    the lips are one closed surface, `mouth_too_coarse` when they have too few vertices, `several_heads`. `progress` is
    told each step; what it raises is passed on.
    """
    given = dict(landmarks or {})
    welded = weld(file.vertices.astype(np.float64), file.faces)
    pieces = split(welded)
    if not pieces:
        raise _no_head("its faces have no area")
    if (most := max(len(piece.vertices) for piece in pieces)) < LEAST_VERTICES:
        raise _no_head(f"its pieces have up to {most} vertices, and a face {LEAST_VERTICES} at the least")
    progress(f"{len(file.vertices):,} vertices in {len(pieces)} pieces; looking for how the head lies")
    welded, piece, pose = _locate(welded, pieces, guide, given)
    fitted = _fit(welded, pieces, piece, pose, guide, given, progress)
    progress("placing its vertices")
    placed = place_pieces(guide, fitted.drawn, fitted.points, welded.faces, pieces, piece)
    progress("building the template")
    return build_template(file, welded, pieces, fitted, placed, guide, id)


def _locate(welded: Welded, pieces: list[Piece], guide: Guide, given: Landmarks) -> tuple[Welded, Piece, Pose]:
    """The piece that is the skin, how it lies, and all with their faces outwards."""
    found: list[tuple[Pose, Piece, Welded]] = []
    for piece in pieces[:CANDIDATES]:
        if piece.area >= LARGE * pieces[0].area:
            inward = signed_volume(welded.vertices, welded.faces[piece.faces]) < 0
            turned = welded._replace(faces=welded.faces[:, ::-1]) if inward else welded
            found.append((_pose(turned, piece, guide, given), piece, turned))
    pose, piece, turned = max(found, key=lambda one: one[0].score)
    for other, _, _ in found:
        away = np.linalg.norm(pose.similarity.undo(other.similarity.apply(guide.mouth[None])) - guide.mouth)
        if other.score > SECOND * pose.score and away > APART_M:
            raise OutOfRange(
                "two pieces that look like heads; wanted one head: send them one by one", code="several_heads"
            )
    if pose.score < LEAST_SCORE:
        raise _no_head(f"no turn or size of it looks like a head (score {pose.score:.2f} of 1)")
    return turned, piece, pose


def _pose(welded: Welded, piece: Piece, guide: Guide, given: Landmarks) -> Pose:
    if len(given) >= FOR_POSE:
        names = sorted(given)
        places = np.array([given[name] for name in names])
        own = guide.rest[[guide.landmarks[name] for name in names]]
        scale, turn, shift = (part[0] for part in similarity(own[None], places[None], np.ones((1, len(names)))))
        return Pose(Similarity(float(scale), turn, shift), 1.0)
    faces = welded.faces[piece.faces]
    found = find_poses(guide.cloud, spread(welded.vertices, faces, np.ones(len(faces)), POINTS))
    different = [pose for k, pose in enumerate(found) if not any(_alike(pose, other) for other in found[:k])]
    likely = [pose for pose in different if pose.score > DOUBT * found[0].score][:MOST_DOUBT]
    return max(likely, key=lambda pose: _likeness(pose, welded, faces, guide)) if len(likely) > 1 else found[0]


def _alike(pose: Pose, other: Pose) -> bool:
    between, (own, its) = (
        pose.similarity.turn.T @ other.similarity.turn,
        (one.similarity.scale for one in (pose, other)),
    )
    return bool(np.trace(between) > 1 + 2 * np.cos(DIFFERENT_RAD) and abs(np.log(own / its)) < DIFFERENT_SIZE)


def _likeness(pose: Pose, welded: Welded, faces: Faces, guide: Guide) -> float:
    """How much of the face has a counterpart once the first stages of the fit are done."""
    surface = Cloud(pose.similarity.undo(welded.vertices), faces)
    none = Pins.none(len(guide.rest))
    head, _ = fit_shape(guide.shapes, guide.matched, surface, lambda *_: none, stages=STAGES[:2])
    normals = vertex_normals(head, guide.surface)[guide.face]
    return float(match(head[guide.face], normals, surface, COUNTERPART_M).weights.mean())


def _fit(
    welded: Welded,
    pieces: list[Piece],
    piece: Piece,
    pose: Pose,
    guide: Guide,
    given: Landmarks,
    progress: Progress,
) -> Fitted:
    points = pose.similarity.undo(welded.vertices)
    surface = Cloud(points, welded.faces[piece.faces])
    balls = eyeballs([points[other.vertices] for other in pieces if other is not piece])
    holds = Holds(guide, balls, _pins(guide, pose.similarity, given))
    shape, unlike = fit_shape(guide.shapes, guide.matched, surface, holds.of_fit, progress)
    if unlike:
        progress("it is unlike them: fitting it by its mouth and eyes")
        holds = replace(holds, openings=find_openings(guide, surface, shape, balls))
        shape, _ = fit_shape(guide.shapes, guide.matched, surface, holds.of_fit, progress)
    progress("drawing the canonical head onto it")
    drawn = draw_onto(shape, guide.matched, surface, holds.of_drawing)
    slit = find_slit(surface, drawn[guide.head.rim].mean(0))
    if slit is None and unlike and pose.score < SURE_SCORE:
        raise _no_head(f"it has no mouth, and little of it is like a head (score {pose.score:.2f} of 1)")
    return Fitted(pose.similarity, piece, points, surface, drawn, _usable(slit, surface))


def _usable(slit: Slit | None, surface: Cloud) -> Slit:
    if slit is None:
        raise OutOfRange(
            "a head whose mouth is one closed surface; wanted lips with an edge between them: cut the mouth open along "
            "the lips, and part them by a hair where two vertices lie in one place",
            code="mouth_sealed",
        )
    upper, lower = slit.vertex_counts(surface.faces)
    if max(upper, lower) < FEWEST:
        raise OutOfRange(
            f"a head with {upper} vertices along its upper lip and {lower} along the lower; wanted {FEWEST} or more "
            "along one, better ten along each: send it with finer triangles at the mouth",
            code="mouth_too_coarse",
        )
    return slit


def _pins(guide: Guide, pose: Similarity, given: Landmarks) -> Pins:
    """Users' landmarks."""
    names = sorted(given)
    corners = ([1.0] * len(names), (range(len(names)), [guide.landmarks[name] for name in names]))
    points = np.array([given[name] for name in names], float).reshape(-1, 3)
    return Pins(csr_matrix(corners, (len(names), len(guide.rest))), pose.undo(points), np.full((len(names), 3), GIVEN))


def _no_head(reason: str) -> OutOfRange:
    return OutOfRange(
        f"a mesh that is no head: {reason}; wanted a head with a face, alone or on shoulders: send that, or landmarks "
        "that tell where it is",
        code="not_a_head",
    )
