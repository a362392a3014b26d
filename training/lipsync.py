"""The lip-sync metric: does the mouth close on p, b, m, open on vowels and round on rounded ones, in time?

It needs no ground-truth motion: lips that speak real recordings are judged by the recordings' phones. Opening is a
distance, and 0 is contact: it is never shifted by a clip's own minimum, so a mouth that never closes scores nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d

from training.corpus.coarticulation import RATE_HZ, Curve, mouth_curves
from training.corpus.phones import Phone

BILABIAL = frozenset("pbm")
LABIAL = ("p", "b", "m", "f", "v")
OPEN_VOWELS = ("aa", "ae", "ao", "ah", "ay", "aw")
ROUND = ("uw", "ow", "w", "uh", "oy")
SPREAD = ("iy", "ih", "y", "ey")
LINGUAL = frozenset("tdnkgszl")
"""Consonants that leave the lips open: a closure there is a false alarm."""

CONTACT_MM = 0.5
"""An opening up to this counts as contact."""
STATIC_MM = 2.0
"""A clip whose opening ranges over less than this does not speak."""
CLOSED, RISE = 0.2, 0.15
"""Normalised opening under which the lips count as closed, and how much they must open around it."""


@dataclass(frozen=True, eq=False)
class LipTrack:
    """One clip's lips at 100 Hz: inner opening (0 is contact), rounding (larger is rounder), and its phones."""

    speaker: str
    opening: Curve
    rounding: Curve
    phones: Sequence[Phone]

    @staticmethod
    def from_mm(speaker: str, opening_mm: Curve, rounding_mm: Curve, phones: Sequence[Phone]) -> "LipTrack":
        """A track measured on a surface: contact counts as 0, a static mouth as shut."""
        opening = np.where(opening_mm <= CONTACT_MM, 0.0, opening_mm)
        if np.ptp(opening) < STATIC_MM:
            opening = np.zeros_like(opening)
        return LipTrack(speaker, opening, rounding_mm, phones)

    @property
    def normalised(self) -> Curve:
        """Opening over its own 95th percentile; over its maximum where that is 0, since the mouth is mostly shut."""
        return self.opening / (float(np.percentile(self.opening, 95)) or float(self.opening.max()) or 1.0)


@dataclass(frozen=True)
class LipSync:
    """The figures. bcr, far, sel = bcr - far: shares; vcc: normalised opening; rnd: standard deviations."""

    bcr: float
    far: float
    sel: float
    vcc: float
    rnd: float
    lag_ms: float
    r0: float
    bilabials: int
    linguals: int


def score(tracks: Sequence[LipTrack]) -> LipSync:
    """The metric over clips.

    bcr: share of p, b, m at which the lips close (normalised opening under 0.2 within 50 ms, with a rise over 0.15
    within 200 ms); far: the same for t d n k g s z l away from labials and silence; vcc: opening at open vowels less
    that at labials, each the mean over phones of the phone's mean; rnd: rounding at round less that at spread vowels;
    lag and r0: cross-correlation of the opening with the coarticulation oracle's, by clip, averaged.
    """
    return _combine([_Tally.of(track) for track in tracks])


def bootstrap(tracks: Sequence[LipTrack], rounds: int = 500, seed: int = 0) -> dict[str, tuple[float, float]]:
    """95 % intervals of sel, vcc and rnd: speakers drawn with replacement, and within each its clips."""
    random = np.random.default_rng(seed)
    by_speaker: dict[str, list[_Tally]] = {}
    for track in tracks:
        by_speaker.setdefault(track.speaker, []).append(_Tally.of(track))
    speakers = sorted(by_speaker)
    draws = []
    for _ in range(rounds):
        chosen = [by_speaker[speakers[k]] for k in random.integers(len(speakers), size=len(speakers))]
        draws.append(_combine([clips[k] for clips in chosen for k in random.integers(len(clips), size=len(clips))]))
    return {
        name: tuple(np.percentile([getattr(draw, name) for draw in draws], (2.5, 97.5)).tolist())
        for name in ("sel", "vcc", "rnd")
    }


def oracle_track(speaker: str, phones: Sequence[Phone], count: int) -> LipTrack:
    """What the coarticulation model would do, knowing the phones: the metric's ceiling."""
    curves = mouth_curves(phones, count)
    return LipTrack(speaker, curves.open, curves.round, phones)


def loudness_track(
    speaker: str, samples: Float[np.ndarray, " samples"], phones: Sequence[Phone], rate_hz: int
) -> LipTrack:
    """A jaw driven by loudness alone, over 30 dB: the metric's floor. It cannot round."""
    hop = rate_hz // RATE_HZ
    power = np.convolve(samples.astype(np.float64) ** 2, np.ones(3 * hop) / (3 * hop), mode="same")[::hop]
    level_db = 10 * np.log10(power + 1e-12)
    opening = gaussian_filter1d(np.clip(1 + (level_db - np.percentile(level_db, 95)) / 30, 0, None), 2)
    return LipTrack(speaker, opening, np.zeros_like(opening), phones)


@dataclass(frozen=True, eq=False)
class _Tally:
    """What one clip adds to the figures: per phone, opening and rounding at its middle."""

    closures: list[bool]
    alarms: list[bool]
    heights: Mapping[str, list[float]]
    roundings: Mapping[str, list[float]]
    rounding: Curve
    lag_ms: float
    r0: float

    @staticmethod
    def of(track: LipTrack) -> "_Tally":
        lag_ms, r0 = _against_oracle(track)
        return _Tally(
            [_closes(track, phone) for phone in track.phones if phone.name in BILABIAL],
            [_closes(track, phone) for phone in _clear_linguals(track.phones)],
            _values_at(track.phones, track.normalised),
            _values_at(track.phones, track.rounding),
            track.rounding,
            lag_ms,
            r0,
        )


def _combine(tallies: Sequence[_Tally]) -> LipSync:
    closures = [closed for tally in tallies for closed in tally.closures]
    alarms = [closed for tally in tallies for closed in tally.alarms]
    heights, roundings = _merge([t.heights for t in tallies]), _merge([t.roundings for t in tallies])
    deviation = float(np.std(np.concatenate([tally.rounding for tally in tallies])))
    bcr, far = _mean(closures), _mean(alarms)
    return LipSync(
        bcr=bcr,
        far=far,
        sel=bcr - far,
        vcc=_mean([_mean(heights[name]) for name in OPEN_VOWELS if name in heights])
        - _mean([_mean(heights[name]) for name in LABIAL if name in heights]),
        rnd=(_pooled(roundings, ROUND) - _pooled(roundings, SPREAD)) / max(deviation, 1e-9),
        lag_ms=_mean([tally.lag_ms for tally in tallies]),
        r0=_mean([tally.r0 for tally in tallies]),
        bilabials=len(closures),
        linguals=len(alarms),
    )


def _closes(track: LipTrack, phone: Phone) -> bool:
    middle, opening = round(phone.middle_s * RATE_HZ), track.normalised
    near = opening[max(0, middle - 5) : middle + 6]
    around = opening[max(0, middle - 20) : middle + 21]
    return bool(near.size and near.min() < CLOSED and around.max() - near.min() > RISE)


def _clear_linguals(phones: Sequence[Phone]) -> Iterable[Phone]:
    """t d n k g s z l more than 120 ms from p b m f v and 100 ms from silence."""
    for phone in phones:
        if phone.name in LINGUAL:
            near = (
                other
                for other in phones
                if other.start_s < phone.middle_s + 0.12 and other.end_s > phone.middle_s - 0.12
            )
            quiet = (
                other for other in phones if other.start_s < phone.middle_s + 0.1 and other.end_s > phone.middle_s - 0.1
            )
            if not any(other.name in LABIAL for other in near) and not any(other.name == "sil" for other in quiet):
                yield phone


def _values_at(phones: Sequence[Phone], curve: Curve) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for phone in phones:
        values.setdefault(phone.name, []).append(float(curve[min(round(phone.middle_s * RATE_HZ), len(curve) - 1)]))
    return values


def _merge(parts: Sequence[Mapping[str, list[float]]]) -> dict[str, list[float]]:
    merged: dict[str, list[float]] = {}
    for part in parts:
        for name, values in part.items():
            merged.setdefault(name, []).extend(values)
    return merged


def _pooled(values: dict[str, list[float]], names: Sequence[str]) -> float:
    return _mean([value for name in names for value in values.get(name, ())])


def _against_oracle(track: LipTrack, reach: int = 15) -> tuple[float, float]:
    """Lag (ms; positive where the track is late) of the largest correlation within ±150 ms, and correlation at 0."""
    oracle = oracle_track(track.speaker, track.phones, len(track.opening)).opening
    lags = sorted(range(-reach, reach + 1), key=abs)  # of equal correlations, the least lag's counts
    correlations = [_correlation(np.roll(track.opening, -lag), oracle) for lag in lags]
    return lags[int(np.argmax(correlations))] * 1000 / RATE_HZ, correlations[0]


def _correlation(a: Curve, b: Curve) -> float:
    deviation = np.std(a) * np.std(b)
    return float(np.mean((a - a.mean()) * (b - b.mean())) / deviation) if deviation > 0 else 0.0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
