"""How well heads are registered: variants of known truth go in, and both ways of moving them are compared.

    python -m training evaluate registration --heads 25

Distances and motion are judged in the true head's metres, in the file's pose: the registered anchor of a vertex is
looked up on the true head, and what the registered template does to the file is undone by the turn that made the file.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32
from scipy.sparse import csr_matrix

from models.atlas import Anchors
from models.errors import OutOfRange
from models.puppet import Puppet
from models.registration.guide import Guide
from models.registration.register import register
from models.surface import edge_distance
from models.template import Head, Template
from training.corpus.coarticulation import RATE_HZ, Curve, mouth_curves
from training.corpus.expressions import both_sides
from training.corpus.face import ACTIONS, FaceRig, firmness, speech_weights
from training.corpus.phones import Phone
from training.corpus.subjects import draw_subjects
from training.variants.catalogue import VARIANTS, Variant, make_variant

FACE_BACK, FACE_LOW, FACE_HIGH = 0.02, 0.045, 0.065
"""The face is skin no further behind the lids, below the lips' rim and above the lids on the canonical head, in metres:
from the chin to the forehead, without ears and scalp."""
DRAWN = 0.04
"""Share of a gap that a vertex closes from which it belongs to a lip: a tenth of what the upper lip's rim does."""
ON_LIP = 0.010
"""Distance along edges from the rim up to which a vertex belongs to a lip, on the outside and the inside."""
SENTENCE = (
    "sil .1 b .07 aa .13 b .08 m .07 uw .12 v .08 z .09 ah .06 w .08 ao .13 r .06 m .08 "
    "p .09 iy .14 f .09 ae .13 s .1 t .06 er .1 ow .14 sh .1 ey .13 m .08 sil .15"
)  # fmt: skip
"""Phones and their seconds: bilabials, rounded, spread and open vowels one after the other."""
SIDED_POSES = ("mouthSmile", "mouthStretch", "mouthLowerDown", "mouthUpperUp", "eyeBlink", "mouthPress")
EVERY = 4
"""Samples of the sentence between those that are compared."""


class Performance(NamedTuple):
    """Canonical offsets (T, N, 3) in metres, not sealed, and how far the lips are, 0..1."""

    offsets: Float32[np.ndarray, "frames vertices 3"]
    contact: Float32[np.ndarray, " frames"]


@dataclass(frozen=True)
class Score:
    """One head. Distances in millimetres between where a vertex was registered and where it belongs: medians and 95th
    percentiles. lip_error is the RMS error of the lips' motion over its RMS. Of a head that was refused there is only
    the reason.
    """

    head: str
    vertices: int
    seconds: float
    refused: str | None = None
    face_mm: float | None = None
    face_95_mm: float | None = None
    lips_mm: float | None = None
    lips_95_mm: float | None = None
    lip_error: float | None = None
    wrong_lip: int | None = None
    reported_mm: float | None = None
    """What registration itself says of the face."""


def registration_report(
    guide: Guide, rig: FaceRig, heads: int, names: Sequence[str] = tuple(VARIANTS)
) -> dict[str, Any]:
    """Scores of `heads` variants, each of another identity, and their medians and worst."""
    acted = perform(rig)
    scores = [judge(guide, variant, acted) for variant in draw_variants(guide.head, heads, names)]
    rows = [{name: value for name, value in asdict(score).items() if value is not None} for score in scores]
    found = [score for score in scores if score.refused is None]
    summary: dict[str, Any] = {"heads": heads, "refused": heads - len(found)}
    for name in ("face_mm", "lips_mm", "lip_error", "wrong_lip", "seconds"):
        if values := [getattr(score, name) for score in found]:
            summary[name] = {"median": float(np.median(values)), "worst": float(max(values))}
    return {"summary": summary, "heads": rows}


def draw_variants(head: Head, count: int, names: Sequence[str]) -> Iterator[Variant]:
    """Kinds in turn, identities and turns by number."""
    for number in range(count):
        yield make_variant(head, names[number % len(names)], number)


def judge(guide: Guide, variant: Variant, acted: Performance) -> Score:
    """Register a variant and compare."""
    head, label, count = guide.head, f"{variant.name} {variant.seed}", len(variant.file.vertices)
    start = time.perf_counter()
    try:
        template = register(variant.file, guide, id=variant.name)
    except OutOfRange as error:
        return Score(label, count, time.perf_counter() - start, refused=f"{error.code}: {error}")
    seconds = time.perf_counter() - start
    face, lips = on_face(head, variant), on_lips(head, variant)
    distance = distances_mm(head, variant, template)
    off, motion = lip_motion(head, variant, template, acted)
    return Score(
        head=label,
        vertices=count,
        seconds=round(seconds, 2),
        face_mm=_rounded(np.median(distance[face])),
        face_95_mm=_rounded(np.percentile(distance[face], 95)),
        lips_mm=_rounded(np.median(distance[lips])),
        lips_95_mm=_rounded(np.percentile(distance[lips], 95)),
        lip_error=_rounded(off / motion),
        wrong_lip=len(wrong_lip(head, variant, template)),
        reported_mm=None if template.report is None else _rounded(template.report.registration_error_mm),
    )


def distances_mm(head: Head, variant: Variant, template: Template) -> Float[np.ndarray, " vertices"]:
    """How far each vertex of the file lies from where it was registered, on the true head; infinite for added ones."""
    true = variant.truth.mesh.vertices.astype(np.float64)
    away = np.linalg.norm(head.atlas.interpolate(true, template.anchors) - variant.metres(), axis=1)
    return np.where(variant.known, 1e3 * away, np.inf)


def on_face(head: Head, variant: Variant) -> Bool[np.ndarray, " vertices"]:
    """Which of the file's vertices belong to the skin of the face."""
    rest, skin = head.atlas.vertices.astype(np.float64), head.charts.index("skin")
    lids, rim = rest[head.regions["eyes"]], rest[head.rim]
    place = head.atlas.interpolate(rest, variant.anchors)
    inside = (place[:, 2] > lids[:, 2].min() - FACE_BACK) & (place[:, 1] > rim[:, 1].min() - FACE_LOW)
    inside &= place[:, 1] < lids[:, 1].max() + FACE_HIGH
    return np.asarray(inside & variant.known & (head.atlas.chart[variant.anchors.face] == skin))


def on_lips(head: Head, variant: Variant) -> Bool[np.ndarray, " vertices"]:
    """Which of the file's vertices belong to the region `lips`."""
    member = np.zeros(len(head.atlas.vertices))
    member[head.regions["lips"]] = 1
    skin = head.atlas.chart[variant.anchors.face] == head.charts.index("skin")
    return np.asarray((head.atlas.interpolate(member, variant.anchors) > 0.5) & variant.known & skin)


def lip_motion(head: Head, variant: Variant, template: Template, acted: Performance) -> tuple[float, float]:
    """RMS error of the lips' motion, and RMS of the true motion, in metres."""
    lips = np.flatnonzero(on_lips(head, variant))
    back = np.linalg.inv(variant.turn).T
    moved = _part(template, lips).place(_sealed(head, template, _at(template.anchors, lips), lips, acted))
    assert template.mesh.source is not None
    away = (moved - template.mesh.vertices[lips]) @ (template.mesh.source.turn.T @ back)
    truth = variant.truth
    true = truth.place(truth.seal.close(acted.offsets, acted.offsets[:, head.rim], acted.contact)) - truth.mesh.vertices
    true = _evaluate(head, true, _at(variant.anchors, lips))
    return float(np.sqrt(((away - true) ** 2).sum(2).mean())), float(np.sqrt((true**2).sum(2).mean()))


def wrong_lip(head: Head, variant: Variant, template: Template) -> np.ndarray:
    """Vertices that belong to one lip and were registered on the other."""
    near, side = lip_sides(head)
    belongs, became = (head.atlas.interpolate(side, anchors) for anchors in (variant.anchors, template.anchors))
    upon = variant.known & (head.atlas.interpolate(near, variant.anchors) < ON_LIP) & (abs(belongs) > DRAWN)
    return np.flatnonzero(upon & (became * np.sign(belongs) < -DRAWN))


def lip_sides(head: Head) -> tuple[Float[np.ndarray, " vertices"], Float[np.ndarray, " vertices"]]:
    """Of each canonical vertex: its distance along edges from the rim of the lips, and what of a gap the seal has it
    close: above 0 as part of the upper lip, below as part of the lower; little about the corners, where they are one.
    """
    near = edge_distance(head.atlas.vertices.astype(np.float64), head.atlas.faces, head.rim)
    return near, np.asarray(head.seal.field.sum(1)).ravel()


@cache
def sentence() -> tuple[Phone, ...]:
    """The phones of SENTENCE."""
    parts = SENTENCE.split()
    lengths = [float(length) for length in parts[1::2]]
    spans = zip(parts[::2], lengths, np.cumsum(lengths).tolist(), strict=True)
    return tuple(Phone(name, end_s - length_s, end_s) for name, length_s, end_s in spans)


def perform(rig: FaceRig) -> Performance:
    """Poses that tell the lips apart, then a spoken sentence, every EVERY samples of it."""
    subject, phones = draw_subjects()[0], sentence()
    curves = mouth_curves(phones, int(phones[-1].end_s * RATE_HZ))
    speech = speech_weights(curves, phones, subject, rig.gaps_mm)[::EVERY]
    weights = np.concatenate([_poses(), speech])
    pressed = np.arange(len(weights) - len(speech)) == len(weights) - len(speech) - 1
    contact = np.concatenate([pressed, firmness(curves.contact[::EVERY])]).astype(np.float32)
    return Performance(rig.offsets(weights, np.zeros(len(weights))), contact)


def _poses() -> Float[np.ndarray, "poses actions"]:
    """Single actions at some strengths; the last one presses the lips together."""
    poses: list[Mapping[str, Curve | float]] = [
        {"jawOpen": 0.3},
        {"jawOpen": 1.0},
        {"jawOpen": 0.5, "mouthPucker": 0.5},
        {"mouthFunnel": 0.8},
        {"mouthPucker": 0.8},
        *(both_sides(name, 0.8, 0.0) for name in SIDED_POSES),
    ]
    weights = np.zeros((len(poses), len(ACTIONS)))
    for row, pose in zip(weights, poses, strict=True):
        for name, strength in pose.items():
            row[ACTIONS.index(name)] = strength
    return weights


def _sealed(head: Head, template: Template, at: Anchors, members: np.ndarray, acted: Performance) -> np.ndarray:
    """Offsets at some anchors, the lips sealed as the template seals them."""
    seal = replace(template.seal, field=csr_matrix(template.seal.field)[members])
    return seal.close(_evaluate(head, acted.offsets, at), acted.offsets[:, head.rim], acted.contact)


def _part(template: Template, members: np.ndarray) -> Puppet:
    """Some of a template's vertices, to be placed."""
    mesh = replace(template.mesh, vertices=template.mesh.vertices[members], faces=template.mesh.faces[:0],
                   uv_faces=template.mesh.uv_faces[:0], source=None)  # fmt: skip
    return Puppet(mesh, template.maps[members], template.seal)


def _at(anchors: Anchors, members: np.ndarray) -> Anchors:
    return Anchors(anchors.face[members], anchors.weights[members])


def _evaluate(head: Head, values: np.ndarray, anchors: Anchors) -> Float32[np.ndarray, "frames points 3"]:
    corners = head.atlas.faces[anchors.face]
    return np.einsum("pk,tpkc->tpc", anchors.weights, values[:, corners]).astype(np.float32)


def _rounded(value: Any) -> float:
    return round(float(value), 3)
