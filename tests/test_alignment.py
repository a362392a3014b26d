"""Forced alignment, on the one clip that comes with the tests: right phones at the right times, and honest scores."""

import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.core import SAMPLE_RATE_HZ, Waveform
from training.corpus.alignment import DOUBTFUL_SCORE, AlignmentError, align, normalise_words, recognise
from training.corpus.phones import ARPABET, SILENCE, VOWELS, Phone
from training.corpus.spelling import spell
from training.datasets.spoken import SpokenClip

CLIP = Path(__file__).parent / "data" / "LJ001-0002.flac"
TRANSCRIPT = "in being comparatively modern."
SOUNDS = "ih n b iy ih ng k ah m p eh r ah t ih v l iy m aa d er n"

needs_pocketsphinx = pytest.mark.usefixtures("pocketsphinx")


@pytest.fixture(name="pocketsphinx")
def has_pocketsphinx() -> None:
    pytest.importorskip("pocketsphinx")


@cache
def clip() -> Waveform:
    return SpokenClip("LJ001-0002", CLIP, "LJ", TRANSCRIPT, True, None, None, "public domain").waveform()


@cache
def aligned() -> tuple[list[Phone], float]:
    return align(clip(), TRANSCRIPT)


def loudness_db(phone: Phone) -> float:
    """Of the middle half of a phone."""
    quarter_s = (phone.end_s - phone.start_s) / 4
    within = slice(*(int(t * SAMPLE_RATE_HZ) for t in (phone.start_s + quarter_s, phone.end_s - quarter_s)))
    return float(10 * np.log10(np.mean(clip().samples[within] ** 2) + 1e-12))


def brightness(phone: Phone) -> float:
    """Share of a phone's power over 700 Hz."""
    sound = clip().samples[int(phone.start_s * SAMPLE_RATE_HZ) : int(phone.end_s * SAMPLE_RATE_HZ)]
    power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
    return float(power[np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE_HZ) > 700].sum() / power.sum())


@needs_pocketsphinx
def test_phones_tile_the_clip():
    phones, _ = aligned()
    assert (phones[0].start_s, phones[-1].end_s) == (0, clip().duration_s)
    assert all(before.end_s == after.start_s for before, after in pairwise(phones))
    assert not any(before.name == after.name == SILENCE for before, after in pairwise(phones))


@needs_pocketsphinx
def test_a_known_transcript_gives_its_phones():
    assert " ".join(phone.name for phone in aligned()[0] if phone.name != SILENCE) == SOUNDS


@needs_pocketsphinx
def test_nasals_lie_where_the_sound_is_dull():
    """A closed mouth hums: of all that is voiced, both m and both n have the least power over 700 Hz."""
    voiced = [phone for phone in aligned()[0] if phone.name in VOWELS | {*"lrmnv", "ng"}]
    assert sorted(phone.name for phone in sorted(voiced, key=brightness)[:4]) == ["m", "m", "n", "n"]


@needs_pocketsphinx
def test_stops_lie_where_the_sound_is_weak():
    """k, p and t are at least 6 dB under every vowel."""
    phones, _ = aligned()
    loudest = max(loudness_db(phone) for phone in phones if phone.name in "kpt")
    assert loudest < min(loudness_db(phone) for phone in phones if phone.name in VOWELS) - 6


@needs_pocketsphinx
def test_a_wrong_transcript_scores_worse_and_is_doubtful():
    _, wrong = align(clip(), "the quick brown fox jumps over the dog")
    assert wrong < DOUBTFUL_SCORE < aligned()[1]


@needs_pocketsphinx
def test_what_was_aligned_before_does_not_matter():
    """The decoder is kept, and learns words and how the last clip sounded; its answers do not change."""
    before = align(clip(), TRANSCRIPT)
    thin = np.diff(clip().samples, 2, prepend=[0, 0]).astype(np.float32)
    align(Waveform(0.2 * thin[8000:]), "some zorblaxian words")
    assert align(clip(), TRANSCRIPT) == before


@needs_pocketsphinx
def test_words_that_noise_cannot_be_are_refused():
    noise = np.random.default_rng(0).normal(0, 0.05, 32000).astype(np.float32)
    with pytest.raises(AlignmentError, match="does not fit"):
        align(Waveform(noise), "some zorblaxian words")


@needs_pocketsphinx
def test_unknown_words_are_spelled():
    phones, _ = align(clip(), "in bing zmodrun")
    assert [phone.name for phone in phones if phone.name != SILENCE][-7:] == spell("zmodrun").lower().split()


@needs_pocketsphinx
@pytest.mark.parametrize("transcript", ["", "  \n", "1984!", "\u4f60\u597d"])
def test_a_transcript_without_words_is_refused(transcript):
    with pytest.raises(AlignmentError, match="no words"):
        align(clip(), transcript)


@needs_pocketsphinx
@pytest.mark.parametrize("samples", [0, 800])
def test_a_clip_too_short_for_its_words_is_refused(samples):
    with pytest.raises(AlignmentError):
        align(Waveform(clip().samples[:samples]), TRANSCRIPT)


@needs_pocketsphinx
def test_words_that_nobody_says_are_doubtful():
    try:
        _, score = align(Waveform(np.zeros(16000, np.float32)), "hello world")
    except AlignmentError:
        return
    assert score < DOUBTFUL_SCORE


@needs_pocketsphinx
def test_most_of_a_clear_voice_is_recognised():
    heard = recognise(clip())
    assert re.fullmatch(r"[a-z' ]+", heard)
    assert len(set(heard.split()) & {"in", "being", "comparatively", "modern"}) >= 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("In being, comparatively MODERN.", ["in", "being", "comparatively", "modern"]),
        ("Don\u2019t -- 'tis o'clock!", ["don't", "'tis", "o'clock"]),
        ("Chapter 12: x", ["chapter", "x"]),
    ],
)
def test_words_are_written_as_the_dictionary_writes_them(text, words):
    assert normalise_words(text) == words


@pytest.mark.parametrize(
    ("word", "sounds"),
    [
        ("bumble", "B AH M B L"),
        ("shipping", "SH IH P IH NG"),
        ("cell", "S EH L"),
        ("quickly", "K W IH K L IY"),
        ("o'mara", "AA M AA R AE"),
        ("wave", "W AE V"),
        ("nation", "N AE SH AH N"),
    ],
)
def test_spelling_follows_its_rules(word, sounds):
    assert spell(word) == sounds


@given(st.text("abcdefghijklmnopqrstuvwxyz'", max_size=12))
def test_any_word_can_be_spelled(word):
    """In phones that exist, and at least one."""
    phones = spell(word).split()
    assert phones
    assert {phone.lower() for phone in phones} <= ARPABET


@given(st.text(max_size=30))
def test_every_word_of_any_transcript_can_be_spelled(text):
    for word in normalise_words(text):
        assert {phone.lower() for phone in spell(word).split()} <= ARPABET
