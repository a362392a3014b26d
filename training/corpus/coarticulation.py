"""Phones → what the lips do: Cohen & Massaro's dominance model with hard labial contact.

`F(t) = Σ D_i(t) T_i / Σ D_i(t)`, where `D_i = a_i · exp(-distance to the middle half of segment i / τ_i)`, with τ
longer ahead of a segment than behind it (anticipation). p, b, m then pull the opening to contact and f, v to the teeth,
whatever their neighbours want. The neutral style is the oracle of the lip-sync metric.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from training.corpus.phones import GESTURES, Dominance, Phone, Segment, Viseme, segments

RATE_HZ = 100
"""Samples of a curve per second."""

Curve = Float[np.ndarray, " samples"]


@dataclass(frozen=True)
class MotionStyle:
    """How one subject speaks. The default is nobody in particular: the metric's oracle."""

    open_gain: float = 1.0
    round_gain: float = 1.0
    tau_scale: float = 1.0
    lead_s: float = 0.0
    """How early the lips are, ahead of the sound."""
    loudness_gain: float = 0.0
    """How much wider the mouth opens where the voice is loud: 0.25 is a quarter wider per standard deviation."""


NEUTRAL = MotionStyle()


@dataclass(frozen=True, eq=False)
class Curves:
    """The mouth over time, at RATE_HZ: opening (0 contact, about 1 widest), rounding (-1..1), labial contact (0..1)."""

    open: Curve
    round: Curve
    contact: Curve


def mouth_curves(
    phones: Sequence[Phone], count: int, style: MotionStyle = NEUTRAL, loudness: Curve | None = None
) -> Curves:
    """Curves of `count` samples for aligned phones; `loudness` is in standard deviations about its mean."""
    time_s = np.arange(count) / RATE_HZ + style.lead_s
    parts = segments(list(phones))
    aperture = _dominance(parts, time_s, "open", 0.9 * style.tau_scale, 1.1 * style.tau_scale)
    rounding = _dominance(parts, time_s, "round", 0.9 * style.tau_scale, 1.3 * style.tau_scale)
    aperture = gaussian_filter1d(aperture, 0.018 * RATE_HZ) * style.open_gain
    rounding = gaussian_filter1d(rounding, 0.027 * RATE_HZ) * style.round_gain
    if loudness is not None:
        aperture *= 1 + style.loudness_gain * np.clip(loudness, -1.5, 1.5)
    contact = labial_gate(parts, time_s, Viseme.PBM)
    aperture = _pull(np.maximum(aperture, 0), contact, 0.0)
    aperture = _pull(aperture, labial_gate(parts, time_s, Viseme.FV), 0.12)
    return Curves(aperture, rounding, contact)


def labial_gate(parts: Sequence[Segment], time_s: Curve, viseme: Viseme) -> Curve:
    """How firmly `viseme` holds the lips: 1 from 15 % to 75 % of its segments, closing in 70 ms, opening in 60 ms."""
    gate = np.zeros_like(time_s)
    for part in parts:
        if part.viseme is viseme:
            length_s = part.end_s - part.start_s
            before = (part.start_s + 0.15 * length_s - time_s) / 0.07
            after = (time_s - part.start_s - 0.75 * length_s) / 0.06
            gate = np.maximum(gate, 0.5 + 0.5 * np.cos(np.pi * np.clip(np.maximum(before, after), 0, 1)))
    return np.asarray(gaussian_filter1d(gate, 0.008 * RATE_HZ))


def envelope(parts: Sequence[Segment], time_s: Curve, *visemes: Viseme) -> Curve:
    """How much the mouth belongs to `visemes` at each time: their share of all dominance, 0..1."""
    own, total = np.zeros_like(time_s), np.full_like(time_s, 1e-6)
    for part in parts:
        dominance = _segment_dominance(part, GESTURES[part.viseme].open, time_s, 0.9, 1.1)
        own += dominance * (part.viseme in visemes)
        total += dominance
    return np.asarray(gaussian_filter1d(own / total, 0.018 * RATE_HZ))


def _dominance(parts: Sequence[Segment], time_s: Curve, channel: str, behind: float, ahead: float) -> Curve:
    weighted, total = np.zeros_like(time_s), np.full_like(time_s, 1e-6)
    for part in parts:
        gesture = getattr(GESTURES[part.viseme], channel)
        dominance = _segment_dominance(part, gesture, time_s, behind, ahead)
        weighted += dominance * gesture.target
        total += dominance
    return np.asarray(weighted / total)


def _segment_dominance(part: Segment, gesture: Dominance, time_s: Curve, behind: float, ahead: float) -> Curve:
    quarter_s = (part.end_s - part.start_s) / 4
    early = np.maximum(part.start_s + quarter_s - time_s, 0) / (gesture.tau_s * ahead)
    late = np.maximum(time_s - part.end_s + quarter_s, 0) / (gesture.tau_s * behind)
    return np.asarray(gesture.strength * np.exp(-early - late))


def _pull(aperture: Curve, gate: Curve, target: float) -> Curve:
    return np.where(aperture > target, aperture + gate * (target - aperture), aperture)
