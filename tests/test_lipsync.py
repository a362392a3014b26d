"""The lip-sync metric: full marks for the oracle, none for mouths that do not close, move or follow the sound."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d
from test_face import sentence
from test_phones import tiled

from training.corpus.coarticulation import RATE_HZ
from training.corpus.phones import Phone
from training.lipsync import CONTACT_MM, LipTrack, bootstrap, loudness_track, oracle_track, score

OPENING_MM = 13.0


def oracle() -> list[LipTrack]:
    """Twelve clips of four speakers who do what the coarticulation model says."""
    clips = [sentence(seed) for seed in range(12)]
    return [oracle_track(f"S{k % 4}", phones, round(phones[-1].end_s * RATE_HZ)) for k, phones in enumerate(clips)]


def changed(opening) -> list[LipTrack]:
    """The oracle with an opening of its own, in mm: a function of the true opening."""
    return [LipTrack.from_mm(t.speaker, opening(OPENING_MM * t.opening), t.rounding, t.phones) for t in oracle()]


def dip(depth: float, phones: list[Phone]) -> LipTrack:
    """An opening of 1, but for one dip of 40 ms about 0.5 s."""
    opening = np.ones(round(phones[-1].end_s * RATE_HZ))
    opening[48:53] = depth
    return LipTrack("S0", opening, np.zeros_like(opening), phones)


def test_the_oracle_is_the_ceiling():
    result = score(oracle())
    assert result.bcr == 1
    assert result.sel > 0.85
    assert result.vcc > 0.7
    assert result.rnd > 2
    assert result.lag_ms == 0
    assert result.r0 == pytest.approx(1)
    assert min(result.bilabials, result.linguals) > 20


def test_the_scale_of_a_mouth_does_not_count():
    scaled = [replace(track, opening=7.5 * track.opening, rounding=3 * track.rounding) for track in oracle()]
    assert asdict(score(scaled)) == pytest.approx(asdict(score(oracle())))


def test_millimetres_give_what_the_curves_give():
    result, wanted = score(changed(lambda mm: mm)), score(oracle())
    assert (result.sel, result.vcc, result.lag_ms) == pytest.approx((wanted.sel, wanted.vcc, 0), abs=0.02)


def test_a_mouth_held_open_scores_nothing():
    result = score(changed(lambda mm: np.maximum(mm, 0.6 * OPENING_MM)))
    assert (result.bcr, result.sel) == (0, 0)


def test_a_mouth_that_never_closes_is_not_rescued_by_its_scale():
    """6 mm wider throughout: every move is there, contact is not."""
    result = score(changed(lambda mm: mm + 6))
    assert (result.bcr, result.sel) == (0, 0)
    assert result.r0 == pytest.approx(1)


@pytest.mark.parametrize("level_mm", [0.0, 8.0])
def test_a_static_mouth_scores_nothing(level_mm):
    """One that ranges over less than 2 mm, open or shut."""
    tracks = changed(lambda mm: level_mm + 0.1 * mm)
    still = [replace(track, rounding=np.zeros_like(track.rounding)) for track in tracks]
    result = score(still)
    assert (result.bcr, result.far, result.sel, result.vcc, result.rnd, result.r0) == (0, 0, 0, 0, 0, 0)


def test_a_static_mouth_is_neither_early_nor_late():
    assert score(changed(lambda mm: 0 * mm)).lag_ms == 0


def test_a_mouth_that_opens_once_scores_no_more_than_the_oracle():
    """Shut for 97 % of a clip."""
    phones = tiled(("sil", 5.0), ("m", 0.1), ("aa", 0.3), ("sil", 4.6))
    opening = np.zeros(1000)
    opening[515:545] = 6.0
    assert score([LipTrack.from_mm("S0", opening, np.zeros(1000), phones)]).vcc <= 1.5


def test_random_openings_score_about_nothing():
    random = np.random.default_rng(0)
    tracks = []
    for track in oracle() * 4:
        wander = gaussian_filter1d(random.standard_normal(len(track.opening)), 4)
        opening = OPENING_MM * np.clip(0.4 + wander, 0, None)
        tracks.append(LipTrack.from_mm(track.speaker, opening, random.permutation(track.rounding), track.phones))
    result = score(tracks)
    assert abs(result.sel) < 0.12
    assert abs(result.vcc) < 0.12
    assert abs(result.rnd) < 0.25
    assert abs(result.r0) < 0.1


@pytest.mark.parametrize("late_ms", [-40, 50])
def test_a_delay_shows_in_the_lag(late_ms):
    """Positive where the lips are late."""
    late = [replace(track, opening=np.roll(track.opening, late_ms // 10)) for track in oracle()]
    assert score(late).lag_ms == late_ms
    assert score(late).r0 < 0.95


@pytest.mark.parametrize(("depth", "bcr"), [(0.0, 1), (0.19, 1), (0.21, 0)])
def test_lips_close_below_a_fifth_of_their_opening(depth, bcr):
    phones = [Phone("aa", 0, 0.46), Phone("m", 0.46, 0.54), Phone("aa", 0.54, 1.0)]
    result = score([dip(depth, phones)])
    assert (result.bcr, result.bilabials) == (bcr, 1)


@pytest.mark.parametrize(("middle_s", "bcr"), [(0.43, 1), (0.42, 0), (0.57, 1), (0.58, 0)])
def test_lips_close_within_50_ms_of_the_middle(middle_s, bcr):
    phones = [Phone("aa", 0, middle_s - 0.04), Phone("b", middle_s - 0.04, middle_s + 0.04), Phone("aa", 0.9, 1.0)]
    assert score([dip(0.0, phones)]).bcr == bcr


def test_lips_that_stay_closed_do_not_close():
    """A closure is followed, or preceded, by an opening within 200 ms."""
    phones = tiled(("sil", 0.5), ("m", 0.1), ("sil", 0.4), ("aa", 1.0))
    opening = np.repeat([0.0, 1.0], 100)
    assert score([LipTrack("S0", opening, np.zeros(200), phones)]).bcr == 0


@pytest.mark.parametrize(
    ("before", "linguals"),
    [
        ([("aa", 0.5)], 1),
        ([("m", 0.1), ("aa", 0.06)], 0),
        ([("m", 0.1), ("aa", 0.10)], 1),
        ([("v", 0.1), ("aa", 0.06)], 0),
        ([("sil", 0.1), ("aa", 0.05)], 0),
        ([("sil", 0.1), ("aa", 0.07)], 1),
    ],
    ids=["alone", "90 ms after m", "130 ms after m", "90 ms after v", "80 ms after silence", "100 ms after silence"],
)
def test_false_alarms_are_sought_away_from_labials_and_silence(before, linguals):
    """More than 120 ms from the one and 100 ms from the other, to the middle of the t."""
    phones = tiled(*before, ("t", 0.061), ("aa", 0.5))
    count = round(phones[-1].end_s * RATE_HZ)
    result = score([LipTrack("S0", np.ones(count), np.zeros(count), phones)])
    assert (result.linguals, result.far) == (linguals, 0)


def test_a_closure_on_a_t_is_a_false_alarm():
    phones = [Phone("aa", 0, 0.46), Phone("t", 0.46, 0.54), Phone("aa", 0.54, 1.0)]
    assert score([dip(0.0, phones)]).sel == -1


@pytest.mark.parametrize(("opening_mm", "kept_mm"), [(0.3, 0.0), (CONTACT_MM, 0.0), (0.51, 0.51), (7.0, 7.0)])
def test_half_a_millimetre_is_contact(opening_mm, kept_mm):
    track = LipTrack.from_mm("S0", np.array([opening_mm, 10.0]), np.zeros(2), [])
    assert track.opening[0] == kept_mm


def test_opening_is_relative_to_its_95th_percentile_and_never_shifted():
    track = LipTrack("S0", np.linspace(4, 24, 101), np.zeros(101), [])
    assert track.normalised[[0, 95]] == pytest.approx([4 / 23, 1])


def test_intervals_hold_the_score_and_are_the_same_with_the_same_seed():
    tracks = oracle()
    for track in tracks[::3]:
        track.opening[:] = np.roll(track.opening, 37)
    intervals, result = bootstrap(tracks, rounds=20), score(tracks)
    assert bootstrap(tracks[:3], rounds=3) == bootstrap(tracks[:3], rounds=3)
    for name, (low, high) in intervals.items():
        assert low < getattr(result, name) < high


def test_intervals_are_of_speakers():
    """Of two, one of whom never opens the mouth: a draw has both, or one of them twice; by clips it would rarely."""
    tracks = [replace(track, speaker=f"S{k % 2}") for k, track in enumerate(oracle()[:6])]
    for track in tracks[::2]:
        track.opening[:] = 1.0
    low, high = bootstrap(tracks, rounds=20)["sel"]
    assert low == 0
    assert high > 0.85


def test_loudness_opens_the_floor_and_cannot_round_it():
    samples = np.repeat([0.0, 0.001, 0.3], 16000) * np.random.default_rng(0).standard_normal(48000)
    track = loudness_track("S0", samples, [], 16000)
    assert len(track.opening) == 300
    assert (track.opening[20:80].max(), track.opening[120:180].max()) == pytest.approx((0, 0), abs=1e-3)
    assert track.opening[220:280].min() > 0.5
    assert not track.rounding.any()
