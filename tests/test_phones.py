"""The viseme table is the published one, and phones become visemes without a gap."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.compact_encoder import CompactConfig
from training.corpus.phones import (
    ARPABET,
    DIPHTHONGS,
    GESTURES,
    PHONES,
    SILENCE,
    VISEME_OF,
    VOWELS,
    Phone,
    Viseme,
    segments,
)

NAMES = sorted(ARPABET | {SILENCE})


def tiled(*spoken: tuple[str, float]) -> list[Phone]:
    """Phones one after the other, from their names and lengths in seconds."""
    phones: list[Phone] = []
    for name, length_s in spoken:
        start_s = phones[-1].end_s if phones else 0.0
        phones.append(Phone(name, start_s, start_s + length_s))
    return phones


def speech(names: list[str] = NAMES, most: int = 12) -> st.SearchStrategy[list[Phone]]:
    """Any phones after one another, 30 to 250 ms long."""
    each = st.tuples(st.sampled_from(names), st.floats(0.03, 0.25))
    return st.lists(each, min_size=1, max_size=most).map(lambda spoken: tiled(*spoken))


@pytest.mark.parametrize(
    ("viseme", "opening", "rounding"),
    [
        (Viseme.SIL, (0.03, 0.55, 0.050), (0.0, 0.25, 0.066)),
        (Viseme.PBM, (0.0, 1.6, 0.033), (0.0, 0.10, 0.044)),
        (Viseme.FV, (0.06, 1.5, 0.033), (-0.05, 0.30, 0.038)),
        (Viseme.AA, (0.90, 1.2, 0.047), (-0.05, 0.60, 0.050)),
        (Viseme.IY, (0.30, 1.0, 0.044), (-0.60, 0.90, 0.055)),
        (Viseme.UW, (0.22, 1.1, 0.047), (1.0, 1.2, 0.077)),
    ],
)
def test_gestures_are_as_published(viseme, opening, rounding):
    """Target, strength and seconds of the opening and of the rounding, as in the corpus' table."""
    gesture = GESTURES[viseme]
    assert (gesture.open.target, gesture.open.strength, gesture.open.tau_s) == pytest.approx(opening)
    assert (gesture.round.target, gesture.round.strength, gesture.round.tau_s) == pytest.approx(rounding)


def test_every_viseme_has_a_gesture_and_a_phone():
    assert GESTURES.keys() == set(Viseme) == set(VISEME_OF.values())


def test_every_phone_is_one_viseme_or_a_diphthong():
    assert ARPABET | {SILENCE} <= VISEME_OF.keys() | DIPHTHONGS.keys()
    assert not VISEME_OF.keys() & DIPHTHONGS.keys()


def test_diphthongs_are_vowels_and_their_shares_are_whole():
    assert DIPHTHONGS.keys() <= VOWELS
    for parts in DIPHTHONGS.values():
        assert sum(share for _, share in parts) == pytest.approx(1)


def test_the_speech_encoder_has_a_logit_for_every_phone_and_viseme():
    assert len(set(PHONES)) == len(PHONES) <= CompactConfig().phones
    assert len(Viseme) == CompactConfig().visemes


@given(speech())
def test_segments_tile_what_the_phones_tile(phones):
    parts = segments(phones)
    assert parts[0].start_s == phones[0].start_s
    assert parts[-1].end_s == phones[-1].end_s
    assert all(before.end_s == after.start_s for before, after in pairwise(parts))
    assert len(parts) == sum(2 if phone.name in DIPHTHONGS else 1 for phone in phones)


@pytest.mark.parametrize(
    ("name", "first", "second", "turn_s"),
    [
        ("ay", Viseme.AA, Viseme.IY, 1.18),
        ("aw", Viseme.AA, Viseme.UW, 1.18),
        ("oy", Viseme.OW, Viseme.IY, 1.18),
        ("ow", Viseme.OW, Viseme.UW, 1.18),
        ("ey", Viseme.EH, Viseme.IY, 1.15),
    ],
)
def test_a_diphthong_glides_where_the_table_says(name, first, second, turn_s):
    """0.6 of the way for ay, aw, oy and ow, half way for ey."""
    (before, after) = segments([Phone(name, 1.0, 1.3)])
    assert (before.viseme, before.start_s, after.viseme, after.end_s) == (first, 1.0, second, 1.3)
    assert before.end_s == after.start_s == pytest.approx(turn_s)


def test_a_plain_phone_is_one_segment():
    assert segments([Phone("m", 0.5, 0.6)]) == [(Viseme.PBM, 0.5, 0.6, "m")]
