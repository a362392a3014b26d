"""What the lips do: never negative, closed where they must be, and otherwise the published formula."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_phones import speech, tiled

from training.corpus.coarticulation import NEUTRAL, RATE_HZ, MotionStyle, envelope, labial_gate, mouth_curves
from training.corpus.phones import GESTURES, VISEME_OF, VOWELS, Phone, Viseme, segments

CONTACT = 0.03
"""An opening up to this is contact: 0.4 mm, where 1 is 13 mm."""
MONOPHTHONGS = sorted(VOWELS & VISEME_OF.keys())
TAPS = range(-12, 13)

STYLES = st.builds(
    MotionStyle,
    open_gain=st.floats(0.6, 1.3),
    round_gain=st.floats(0.6, 1.4),
    tau_scale=st.floats(0.8, 1.25),
    lead_s=st.floats(0.0, 0.02),
    loudness_gain=st.floats(0.0, 0.25),
)


def samples(phones: list[Phone]) -> int:
    return round(phones[-1].end_s * RATE_HZ)


def loudness(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(0, 1.5, count)


def smoothed(curve: list[float], sigma_s: float) -> list[float]:
    """A Gaussian over the curve, which is mirrored at its ends."""
    sigma = sigma_s * RATE_HZ
    reach = int(4 * sigma + 0.5)
    kernel = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(-reach, reach + 1)]
    padded = np.pad(curve, reach, mode="symmetric")
    return (np.convolve(padded, kernel, mode="valid") / sum(kernel)).tolist()


def published(phones: list[Phone], count: int) -> tuple[list[float], list[float]]:
    """The metric's oracle as its definition says it, sample by sample: opening and rounding."""
    parts = segments(phones)

    def blend(channel: str, ahead: float, t: float) -> float:
        weighted = total = 0.0
        for part in parts:
            gesture = getattr(GESTURES[part.viseme], channel)
            quarter = (part.end_s - part.start_s) / 4
            if t < part.start_s + quarter:
                distance = (part.start_s + quarter - t) / (ahead * gesture.tau_s)
            else:
                distance = max(0.0, t - (part.end_s - quarter)) / (0.9 * gesture.tau_s)
            dominance = gesture.strength * math.exp(-distance)
            weighted, total = weighted + dominance * gesture.target, total + dominance
        return weighted / total

    def gate(viseme: Viseme, t: float) -> float:
        firmest = 0.0
        for part in parts:
            if part.viseme is viseme:
                length = part.end_s - part.start_s
                begin, end = part.start_s + 0.15 * length, part.start_s + 0.75 * length
                away = (begin - t) / 0.07 if t < begin else max(0.0, t - end) / 0.06
                firmest = max(firmest, 0.5 + 0.5 * math.cos(math.pi * min(away, 1.0)))
        return firmest

    times = [k / RATE_HZ for k in range(count)]
    opening = [max(0.0, value) for value in smoothed([blend("open", 1.1, t) for t in times], 0.018)]
    for viseme, target in ((Viseme.PBM, 0.0), (Viseme.FV, 0.12)):
        gates = smoothed([gate(viseme, t) for t in times], 0.008)
        opening = [o + g * min(0.0, target - o) for o, g in zip(opening, gates, strict=True)]
    return opening, smoothed([blend("round", 1.3, t) for t in times], 0.027)


@given(speech(), STYLES, st.floats(0.0, 1.0))
def test_openings_are_never_negative_and_contact_is_a_share(phones, style, gain):
    """Whatever is said, however, and however much of it is loudness."""
    style = replace(style, loudness_gain=gain)
    curves = mouth_curves(phones, samples(phones), style, loudness(samples(phones)))
    assert curves.open.shape == curves.round.shape == curves.contact.shape == (samples(phones),)
    assert np.isfinite(curves.round).all()
    assert curves.open.min() > -1e-12
    assert -1e-9 <= curves.contact.min() <= curves.contact.max() <= 1 + 1e-9


@given(speech(most=4), st.sampled_from("pbm"), st.floats(0.03, 0.2), speech(most=4), STYLES)
def test_p_b_m_close_the_lips_for_any_neighbours_and_any_style(before, labial, length_s, after, style):
    """From 15 % to 75 % of their segment, as the style leads them."""
    spoken = [(phone.name, phone.end_s - phone.start_s) for phone in before]
    spoken += [(labial, length_s), *((phone.name, phone.end_s - phone.start_s) for phone in after)]
    phones = tiled(*spoken)
    phone = phones[len(before)]
    curves = mouth_curves(phones, samples(phones), style, loudness(samples(phones)))
    share = (np.arange(samples(phones)) / RATE_HZ + style.lead_s - phone.start_s) / length_s
    core = (share >= 0.15) & (share <= 0.75)
    assert (curves.open[core] < CONTACT).all()
    assert (curves.contact[core] > 0.95).all()


@given(speech(most=4), st.sampled_from("fv"), st.floats(0.05, 0.2), speech(most=4))
def test_f_v_bring_the_lip_to_the_teeth(before, labial, length_s, after):
    spoken = [(phone.name, phone.end_s - phone.start_s) for phone in before]
    spoken += [(labial, length_s), *((phone.name, phone.end_s - phone.start_s) for phone in after)]
    phones = tiled(*spoken)
    phone = phones[len(before)]
    opening = mouth_curves(phones, samples(phones)).open
    assert opening[round((phone.start_s + 0.45 * length_s) * RATE_HZ)] < 0.12 + CONTACT


@pytest.mark.parametrize("vowel", MONOPHTHONGS)
def test_a_vowel_alone_reaches_its_target(vowel):
    curves = mouth_curves([Phone(vowel, 0.0, 0.5)], 50)
    gesture = GESTURES[VISEME_OF[vowel]]
    assert curves.open == pytest.approx(np.full(50, gesture.open.target), abs=1e-3)
    assert curves.round == pytest.approx(np.full(50, gesture.round.target), abs=1e-3)


def test_a_long_diphthong_reaches_both_of_its_targets():
    """ow: round and half open, then pursed."""
    curves = mouth_curves([Phone("ow", 0.0, 1.0)], 100)
    assert (curves.open[15], curves.round[15]) == pytest.approx((0.55, 0.75), abs=0.02)
    assert (curves.open[90], curves.round[90]) == pytest.approx((0.22, 1.0), abs=0.02)


@pytest.mark.parametrize("vowel", MONOPHTHONGS)
def test_silence_relaxes_the_lips(vowel):
    """Within 300 ms of its beginning, to within a tenth of the way."""
    curves = mouth_curves(tiled((vowel, 0.3), ("sil", 0.8)), 110)
    assert curves.open[60:] == pytest.approx(np.full(50, 0.03), abs=0.1)
    assert curves.round[60:] == pytest.approx(np.zeros(50), abs=0.1)


@pytest.mark.parametrize("curve", ["open", "round"])
def test_anticipation_reaches_further_than_carry_over(curve):
    """Between silences of one length, at every distance from a vowel: its pull before it exceeds its pull after it."""
    phones = tiled(("sil", 0.6), ("uw" if curve == "round" else "aa", 0.2), ("sil", 0.6))
    values = getattr(mouth_curves(phones, 140), curve)
    before, after = values[20:58], values[82:120][::-1]
    assert (before > after).all()


def test_rounding_is_anticipated_more_than_opening():
    """By 1.3 against 1.1: where the ratio of dominances falls to 1 / e is that much further away."""
    phones = tiled(("sil", 0.6), ("uw", 0.2), ("sil", 0.6))
    curves = mouth_curves(phones, 140)
    assert curves.round[45] / curves.round[94] > curves.open[45] / curves.open[94] > 1


@given(speech())
def test_the_neutral_style_is_the_published_formula(phones):
    count = samples(phones)
    opening, rounding = published(phones, count)
    curves = mouth_curves(phones, count)
    assert curves.open == pytest.approx(opening, abs=1e-3)
    assert curves.round == pytest.approx(rounding, abs=1e-3)


def test_the_formula_of_two_phones_with_its_numbers():
    """Half a quarter into an aa after iy, unsmoothed: (D_iy · 0.30 + D_aa · 0.90) / (D_iy + D_aa).

    iy's core ended 0.15 s ago, τ = 0.9 · 44 ms; aa's begins in 0.05 s, τ = 1.1 · 47 ms.
    """
    d_iy, d_aa = 1.0 * math.exp(-0.15 / 0.0396), 1.2 * math.exp(-0.05 / 0.0517)
    wanted = (0.30 * d_iy + 0.90 * d_aa) / (d_iy + d_aa)
    curves = mouth_curves(tiled(("iy", 0.4), ("aa", 0.4)), 80)
    assert curves.open[45] == pytest.approx(wanted, abs=0.01)


def test_gains_scale_openings_and_rounding():
    phones = tiled(("uw", 0.2), ("aa", 0.2), ("iy", 0.2), ("sil", 0.2))
    plain = mouth_curves(phones, 80)
    strong = mouth_curves(phones, 80, replace(NEUTRAL, open_gain=1.25, round_gain=0.5))
    assert strong.open == pytest.approx(1.25 * plain.open)
    assert strong.round == pytest.approx(0.5 * plain.round)


def test_lips_that_lead_are_as_early_as_the_style_says():
    phones = tiled(("sil", 0.3), ("aa", 0.2), ("m", 0.1), ("uw", 0.2), ("sil", 0.4))
    plain, early = mouth_curves(phones, 120), mouth_curves(phones, 120, replace(NEUTRAL, lead_s=0.03))
    assert early.open[20:100] == pytest.approx(plain.open[23:103], abs=1e-6)
    assert early.contact[20:100] == pytest.approx(plain.contact[23:103], abs=1e-6)


def test_longer_time_constants_reach_further():
    phones = tiled(("sil", 0.5), ("uw", 0.2), ("sil", 0.5))
    slow, quick = (mouth_curves(phones, 120, replace(NEUTRAL, tau_scale=scale)).round for scale in (1.25, 0.8))
    assert (slow[20:42] > quick[20:42]).all()
    assert (slow[78:100] > quick[78:100]).all()


@pytest.mark.parametrize(("level", "wanted"), [(1.0, 1.2), (-1.0, 0.8), (4.0, 1.3), (-4.0, 0.7)])
def test_loud_speech_opens_wider(level, wanted):
    """By the gain for each standard deviation, up to 1.5 of them."""
    phones, style = [Phone("aa", 0.0, 0.5)], replace(NEUTRAL, loudness_gain=0.2)
    curves = mouth_curves(phones, 50, style, np.full(50, level))
    assert curves.open == pytest.approx(wanted * mouth_curves(phones, 50).open)


def test_loudness_changes_nothing_without_a_gain():
    phones = tiled(("aa", 0.2), ("m", 0.1), ("uw", 0.2))
    assert np.array_equal(mouth_curves(phones, 50, NEUTRAL, loudness(50)).open, mouth_curves(phones, 50).open)


def test_a_labial_holds_from_15_to_75_percent_closing_in_70_ms_and_opening_in_60():
    """Of a segment from 1.0 to 1.2 s; half way in the middle of either slope; of other segments nothing."""
    parts = segments([Phone("aa", 0.5, 1.0), Phone("m", 1.0, 1.2), Phone("f", 1.2, 1.4)])
    time_s = np.arange(200) / RATE_HZ
    gate = labial_gate(parts, time_s, Viseme.PBM)
    assert (gate[104:115] > 0.98).all()
    assert gate[time_s < 0.93].max() < 1e-6
    assert gate[time_s > 1.24].max() < 1e-6
    assert np.interp([1.03 - 0.035, 1.15 + 0.03], time_s, gate) == pytest.approx([0.5, 0.5], abs=0.02)


@given(speech())
def test_envelopes_are_shares_of_the_whole(phones):
    parts, time_s = segments(phones), np.arange(samples(phones)) / RATE_HZ
    each = [envelope(parts, time_s, viseme) for viseme in Viseme]
    assert min(share.min() for share in each) >= 0
    assert sum(each) == pytest.approx(np.ones(len(time_s)), abs=1e-3)
