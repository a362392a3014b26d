# ruff: noqa: RUF001 - IPA has letters that look like others
import ctypes.util
import difflib
import hashlib
import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import islice
from math import pi

import numpy as np
import parselmouth
import pocketsphinx
import pytest

from models.core import SAMPLE_RATE_HZ
from models.errors import MalformedInput, OutOfRange, UnknownName
from training.corpus import espeak, festival, flite
from training.corpus.espeak import EspeakVoice, Onset, marks_of, with_stress
from training.corpus.festival import FestivalVoice
from training.corpus.flite import FliteVoice, radio_mark
from training.corpus.phones import ARPABET, VOWELS, Phone
from training.corpus.text import WORDS, sentences
from training.corpus.utterance import Mark, SynthesizerError, Utterance, Voice, check_sentence, resample, tile
from training.corpus.voices import DisguisedVoice, disguise, draw_voice, speak_corpus

HAS_ESPEAK = ctypes.util.find_library("espeak-ng") is not None
HAS_FLITE = ctypes.util.find_library("flite") is not None
HAS_FESTIVAL = shutil.which("festival") is not None
needs_espeak = pytest.mark.skipif(not HAS_ESPEAK, reason="espeak-ng is not installed (Debian: libespeak-ng1)")
needs_flite = pytest.mark.skipif(not HAS_FLITE, reason="flite is not installed (Debian: libflite1)")
needs_festival = pytest.mark.skipif(not HAS_FESTIVAL, reason="festival is not installed (Debian: festival)")
needs_all = pytest.mark.skipif(not (HAS_ESPEAK and HAS_FLITE and HAS_FESTIVAL), reason="a synthesizer is not installed")

EVERY_ENGINE = [
    pytest.param(EspeakVoice("en-us", "f2"), marks=needs_espeak, id="espeak"),
    pytest.param(FliteVoice("slt"), marks=needs_flite, id="flite"),
    pytest.param(FestivalVoice("kal_diphone"), marks=needs_festival, id="festival"),
]


def tone(frequency_hz: float, seconds: float, rate_hz: int = SAMPLE_RATE_HZ) -> np.ndarray:
    return np.sin(2 * pi * frequency_hz * np.arange(round(seconds * rate_hz)) / rate_hz).astype(np.float32)


def names(marks: list[Mark]) -> list[str]:
    return [mark.name for mark in marks]


@pytest.mark.parametrize(
    "arguments",
    [("ax", 0, 1), ("aa", 1, 1), ("aa", -1, 1), ("aa", 0, 1, 3), ("b", 0, 1, 1)],
    ids=["not one of the 39", "no time", "before the start", "no such stress", "stress on a consonant"],
)
def test_a_phone_that_cannot_be_is_refused(arguments):
    with pytest.raises(MalformedInput):
        Phone(*arguments)


@pytest.mark.parametrize(
    "phones",
    [
        (),
        (Phone("aa", 0.1, 1.0),),
        (Phone("aa", 0.0, 0.9),),
        (Phone("aa", 0.0, 0.4), Phone("b", 0.5, 1.0)),
        (Phone("aa", 0.0, 0.6), Phone("b", 0.5, 1.0)),
    ],
    ids=["none", "late start", "early end", "gap", "overlap"],
)
def test_phones_that_do_not_tile_the_clip_are_refused(phones):
    with pytest.raises(MalformedInput, match="tile"):
        Utterance(np.zeros(SAMPLE_RATE_HZ, np.float32), phones, "a", "nobody")


@pytest.mark.parametrize("samples", [np.zeros(16), np.zeros((16, 2), np.float32), np.full(16, np.nan, np.float32)])
def test_samples_that_are_not_finite_mono_float32_are_refused(samples):
    with pytest.raises(MalformedInput, match="float32"):
        Utterance(samples, (Phone("aa", 0.0, 0.001),), "a", "nobody")


def test_marks_become_phones_that_tile_the_clip():
    """Silences merge, marks without length vanish, what is past the end is cut, and consonants carry no stress."""
    marks = [Mark("sil", 0.1), Mark("sil", 0.2), Mark("b", 0.3, 1), Mark("d", 0.3), Mark("aa", 0.9, 1), Mark("t", 1.2)]
    assert tile(marks, 1.0) == (
        Phone("sil", 0.0, 0.2), Phone("b", 0.2, 0.3), Phone("aa", 0.3, 0.9, 1), Phone("t", 0.9, 1.0),
    )  # fmt: skip


def test_time_after_the_last_mark_is_silence():
    assert tile([Mark("aa", 0.5, 0)], 1.0) == (Phone("aa", 0.0, 0.5, 0), Phone("sil", 0.5, 1.0))


def test_a_tone_is_the_same_tone_after_resampling():
    resampled = resample((0.5 * tone(440, 1.0, 22050) * 32767).astype(np.int16), 22050)
    assert resampled.dtype == np.float32
    assert resampled.shape == (SAMPLE_RATE_HZ,)
    middle = slice(1000, -1000)
    np.testing.assert_allclose(resampled[middle], 0.5 * tone(440, 1.0)[middle], atol=1e-3)


def test_resampling_turns_down_what_would_clip():
    square = np.where(tone(100, 0.5, 32000) > 0, 32767, -32768).astype(np.int16)
    assert np.abs(resample(square, 32000)).max() <= 1


@pytest.mark.parametrize("text", ["", "...", "caf\u00e9", "two\nlines"])
def test_what_synthesizers_die_of_is_refused(text):
    with pytest.raises(MalformedInput, match="spell it out"):
        check_sentence(text)


def test_a_voiceless_stop_is_given_the_quiet_before_its_burst():
    wave = tone(200, 0.3)
    wave[1600:2400] = 0  # 100 to 150 ms
    phones = tile(marks_of([Onset("a", 0.0), Onset("p", 0.15), Onset("iː", 0.2)], wave), 0.3)
    assert [phone.name for phone in phones] == ["ae", "p", "iy"]
    assert phones[1].start_s == pytest.approx(0.1, abs=0.004)
    assert phones[2].start_s == 0.2


def test_a_voiced_stop_stays_where_it_is():
    wave = tone(200, 0.3)
    wave[1600:2400] = 0
    phones = tile(marks_of([Onset("a", 0.0), Onset("b", 0.15)], wave), 0.3)
    assert phones[1].start_s == 0.15


def test_a_nameless_sound_is_a_pause_where_it_is_quiet_and_a_glide_where_it_is_not():
    onsets = [Onset("i", 0.0), Onset("", 0.1), Onset("oʊ", 0.2)]
    assert names(marks_of(onsets, tone(200, 0.3))) == ["sil", "iy", "ow"]
    wave = tone(200, 0.3)
    wave[1600:3200] = 0
    assert names(marks_of(onsets, wave)) == ["sil", "iy", "sil", "ow"]


def test_a_name_of_two_phones_is_halved_and_the_second_is_unstressed():
    marks = marks_of([Onset("iə", 0.0, 1), Onset("ɑːɹ", 0.2, 2)], tone(200, 0.4))
    assert marks[1:] == [Mark("iy", 0.1, 1), Mark("ah", 0.2, 0), Mark("aa", pytest.approx(0.3), 2), Mark("r", 0.4, 0)]


def test_a_sound_that_is_not_in_the_table_is_refused():
    with pytest.raises(UnknownName, match="ʘ"):
        marks_of([Onset("ʘ", 0.0)], tone(200, 0.1))


def test_stress_marks_are_dealt_out_to_onsets():
    onsets = [Onset("ə", 0.0), Onset("b", 0.1), Onset("aʊ", 0.2), Onset("", 0.3), Onset("t", 0.4)]
    assert [onset.stress for onset in with_stress(onsets, "ɐ_b_ˈaʊ_t")] == [None] * 5  # ɐ is not what was said
    assert [onset.stress for onset in with_stress(onsets, "ə_b_ˈaʊ t")] == [0, 0, 1, None, 0]


def test_espeaks_table_names_all_phones_and_no_others():
    assert {phone for phones in espeak.ARPABET_OF.values() for phone in phones} == ARPABET | {"sil"}


def test_a_radio_phone_that_is_not_in_the_table_is_refused():
    assert radio_mark("ax", 0.5, "0") == Mark("ah", 0.5, 0)
    with pytest.raises(UnknownName, match="qq"):
        radio_mark("qq", 0.5, "0")


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: EspeakVoice("en-mars"), UnknownName),
        (lambda: EspeakVoice(variant="whisper"), UnknownName),
        (lambda: EspeakVoice(rate_wpm=20), OutOfRange),
        (lambda: EspeakVoice(pitch=100), OutOfRange),
        (lambda: FliteVoice("hal"), UnknownName),
        (lambda: FliteVoice(stretch=3), OutOfRange),
        (lambda: FestivalVoice("hal"), UnknownName),
        (lambda: FestivalVoice(stretch=0.1), OutOfRange),
        (lambda: FestivalVoice("cmu_us_slt_arctic_hts", 1.2), OutOfRange),
    ],
)
def test_a_voice_that_cannot_be_is_refused(make, error):
    with pytest.raises(error):
        make()


def absent(*_, **__):
    raise OSError("no such library")


@pytest.mark.parametrize(
    ("module", "package"), [(espeak, "libespeak-ng1"), (flite, "libflite1")], ids=["espeak", "flite"]
)
def test_a_missing_library_is_named_with_its_package(module, package, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(SynthesizerError, match=package):
        module._library.__wrapped__()


def test_a_missing_festival_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(SynthesizerError, match="package festival"):
        festival._process.__wrapped__()


@needs_festival
def test_a_missing_festival_voice_is_named_with_its_package(monkeypatch):
    monkeypatch.setitem(festival.PACKAGE_OF, "bdl", "festvox-bdl")
    with pytest.raises(SynthesizerError, match="festvox-bdl"):
        FestivalVoice("bdl").speak("Hello.")


@needs_festival
def test_after_festival_dies_the_next_sentence_starts_another():
    FestivalVoice().speak("Hello.")
    festival._process()._process.kill()
    with pytest.raises(SynthesizerError, match="festival ended"):
        FestivalVoice().speak("Hello.")
    assert FestivalVoice().speak("Hello.").duration_s > 0.3


@needs_festival
def test_festival_says_quotes_and_backslashes():
    assert FestivalVoice().speak('"Who," he asked, "is \\ this?"').duration_s > 0.8


@pytest.mark.parametrize("voice", EVERY_ENGINE)
def test_the_sounds_of_a_sentence_are_those_it_is_made_of(voice: Voice):
    said = [phone for phone in voice.speak("Bob may move five shoes.").phones if phone.name != "sil"]
    assert [phone.name for phone in said] == [
        "b",
        "aa",
        "b",
        "m",
        "ey",
        "m",
        "uw",
        "v",
        "f",
        "ay",
        "v",
        "sh",
        "uw",
        "z",
    ]
    assert [phone.stress for phone in said if phone.name == "ay"] == [1]


@pytest.mark.parametrize("voice", EVERY_ENGINE)
def test_a_clip_begins_and_ends_in_silence_and_its_pauses_are_quiet(voice: Voice):
    utterance = voice.speak("Before we go, Pam, take the map.")
    assert utterance.phones[0].name == utterance.phones[-1].name == "sil"
    loudness = {
        name: np.sqrt(np.mean(np.concatenate([
            utterance.samples[round(phone.start_s * SAMPLE_RATE_HZ) : round(phone.end_s * SAMPLE_RATE_HZ)]
            for phone in utterance.phones if (phone.name == "sil") == (name == "sil")
        ]) ** 2)) for name in ("sil", "speech")
    }  # fmt: skip
    assert loudness["sil"] < 0.1 * loudness["speech"]


@pytest.mark.parametrize("voice", EVERY_ENGINE)
def test_boundaries_agree_with_a_forced_alignment(voice: Voice):
    """Half of all boundaries lie within 20 ms of where pocketsphinx puts them, and there is no lag."""
    spoken = [voice.speak(text) for text in islice(sentences(1), 40) if 25 < len(text) < 60][:6]
    differences = np.concatenate([alignment_differences_s(utterance) for utterance in spoken])
    assert differences.size > 100
    assert np.median(np.abs(differences)) < 0.02
    assert abs(np.median(differences)) < 0.015


def alignment_differences_s(utterance: Utterance) -> np.ndarray:
    """pocketsphinx minus the synthesizer, at the boundaries between phones that both found side by side."""
    decoder = pocketsphinx.Decoder(
        lm=None, cmn="batch", beam=1e-120, pbeam=1e-120, wbeam=1e-100, bestpath=False, loglevel="FATAL"
    )
    decoder.set_align_text(" ".join(re.findall(r"[a-z']+", utterance.text.lower())))
    samples = (utterance.samples * 32767).astype(np.int16).tobytes()
    for prepare in (lambda: None, decoder.set_alignment):  # words first, then their phones
        prepare()
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
    # Its frames are 10 ms; it is 8 ms early.
    aligned = [(phone.name.lower(), phone.start * 0.01 + 0.008) for word in decoder.get_alignment() for phone in word]
    blocks = difflib.SequenceMatcher(
        None, [name for name, _ in aligned], [phone.name for phone in utterance.phones], autojunk=False
    ).get_matching_blocks()
    return np.array([
        aligned[block.a + place][1] - utterance.phones[block.b + place].start_s
        for block in blocks for place in range(1, block.size)
    ])  # fmt: skip


@needs_espeak
@pytest.mark.parametrize("accent", espeak.ACCENTS)
def test_every_accent_says_every_word_with_sounds_that_have_a_name(accent):
    vocabulary = sorted({word for kind in WORDS.values() for word in kind})
    said = [EspeakVoice(accent, rate_wpm=300).speak(" ".join(vocabulary[i::20])) for i in range(20)]
    phones = [phone for utterance in said for phone in utterance.phones]
    dropped = {"en-029": {"dh", "th"}, "en-gb-x-gbcwmd": {"hh"}}.get(accent, set())
    assert {phone.name for phone in phones} >= ARPABET - dropped
    stresses = [phone.stress for phone in phones if phone.name in VOWELS]
    assert stresses.count(None) < 0.1 * len(stresses)
    assert stresses.count(1) > 0.3 * len(stresses)


@needs_espeak
@pytest.mark.parametrize("variant", espeak.VARIANTS)
def test_every_variant_speaks(variant):
    utterance = EspeakVoice("en-us", variant).speak("Thick fog, a yellow jug.")
    assert np.abs(utterance.samples).max() > 0.05
    assert sum(phone.name != "sil" for phone in utterance.phones) == 14


@pytest.mark.parametrize(
    "voice",
    [
        *(pytest.param(FliteVoice(speaker), marks=needs_flite) for speaker in flite.SPEAKERS),
        *(pytest.param(FestivalVoice(speaker), marks=needs_festival) for speaker in festival.PACKAGE_OF),
    ],
    ids=[*flite.SPEAKERS, *festival.PACKAGE_OF],
)
def test_flite_and_festival_say_a_sentence_twice_the_same(voice: Voice):
    first = voice.speak("The judge took a big purple boat.")
    voice.speak("Another one.")
    again = voice.speak("The judge took a big purple boat.")
    np.testing.assert_array_equal(first.samples, again.samples)
    assert first.phones == again.phones


@pytest.mark.parametrize(
    ("slow", "fast"),
    [
        pytest.param(EspeakVoice(rate_wpm=130), EspeakVoice(rate_wpm=210), marks=needs_espeak, id="espeak"),
        pytest.param(FliteVoice(stretch=1.3), FliteVoice(stretch=0.8), marks=needs_flite, id="flite"),
        pytest.param(FestivalVoice(stretch=1.3), FestivalVoice(stretch=0.8), marks=needs_festival, id="festival"),
    ],
)
def test_rate_and_stretch_change_how_long_a_sentence_lasts(slow: Voice, fast: Voice):
    assert slow.speak("The whale will wave.").duration_s > 1.2 * fast.speak("The whale will wave.").duration_s


def buzz(pitch_hz: float) -> Utterance:
    """A second of a vowel: harmonics under formants at 700, 1200 and 2500 Hz."""
    harmonics = pitch_hz * np.arange(1, int(7000 / pitch_hz))
    level = sum(1 / (1 + ((harmonics - formant) / 100) ** 2) for formant in (700, 1200, 2500))
    wave = sum(weight * tone(frequency, 1.0) for weight, frequency in zip(level, harmonics, strict=True))
    return Utterance((0.5 * wave / np.abs(wave).max()).astype(np.float32), (Phone("aa", 0.0, 1.0),), "ah", "buzz")


def median_pitch_hz(utterance: Utterance) -> float:
    pitch = parselmouth.Sound(utterance.samples.astype(float), SAMPLE_RATE_HZ).to_pitch()
    return float(np.median([hz for hz in pitch.selected_array["frequency"] if hz > 0]))


def centroid_hz(utterance: Utterance) -> float:
    power = np.abs(np.fft.rfft(utterance.samples)) ** 2
    return float(power @ np.fft.rfftfreq(utterance.samples.size, 1 / SAMPLE_RATE_HZ) / power.sum())


@pytest.mark.parametrize(("formant_ratio", "pitch_ratio"), [(1.15, 1.2), (0.85, 0.8), (1.2, 1.0), (1.0, 1.4)])
def test_a_disguise_moves_pitch_and_formants_by_its_ratios_and_keeps_times(formant_ratio, pitch_ratio):
    plain = buzz(120)
    disguised = disguise(plain, formant_ratio, pitch_ratio)
    assert disguised.phones == plain.phones
    assert disguised.samples.shape == plain.samples.shape
    assert disguised.voice != plain.voice
    assert median_pitch_hz(disguised) == pytest.approx(120 * pitch_ratio, rel=0.01)
    assert centroid_hz(disguised) == pytest.approx(formant_ratio * centroid_hz(plain), rel=0.03)


def test_a_disguise_moves_no_sound_in_time():
    """A vowel between silences stays where it was, to a few milliseconds."""
    wave = buzz(120).samples.copy()
    wave[:4800] = 0
    wave[11200:] = 0
    phones = (Phone("sil", 0.0, 0.3), Phone("aa", 0.3, 0.7), Phone("sil", 0.7, 1.0))
    disguised = disguise(Utterance(wave, phones, "ah", "buzz"), 0.9, 1.3)
    loud = np.flatnonzero(np.abs(disguised.samples) > 0.1 * np.abs(disguised.samples).max())
    assert loud[0] / SAMPLE_RATE_HZ == pytest.approx(0.3, abs=0.012)
    assert loud[-1] / SAMPLE_RATE_HZ == pytest.approx(0.7, abs=0.012)


def test_a_disguise_of_noise_repeats_sample_for_sample():
    """Praat rebuilds unvoiced sounds from random pieces."""
    wave = buzz(120).samples.copy()
    wave[8000:] = np.random.default_rng(0).normal(0, 0.1, 8000)
    hiss = Utterance(wave, (Phone("aa", 0.0, 0.5), Phone("s", 0.5, 1.0)), "as", "hiss")
    np.testing.assert_array_equal(disguise(hiss, 1.1, 1.2).samples, disguise(hiss, 1.1, 1.2).samples)


def test_what_has_no_voice_cannot_be_disguised():
    silence = Utterance(np.zeros(SAMPLE_RATE_HZ, np.float32), (Phone("sil", 0.0, 1.0),), "", "nobody")
    with pytest.raises(MalformedInput, match="no voiced sound"):
        disguise(silence, 1.1, 1.1)


@pytest.mark.parametrize("ratios", [(0.1, 1.0), (1.0, 3.0), (float("nan"), 1.0)])
def test_a_disguise_nobody_could_wear_is_refused(ratios):
    with pytest.raises(OutOfRange, match="wanted 0"):
        disguise(buzz(120), *ratios)


def test_voices_are_drawn_forty_forty_twenty_and_three_in_four_in_disguise():
    rng = np.random.default_rng(0)
    drawn = [draw_voice(rng) for _ in range(3000)]
    kinds = Counter(type(voice.voice if isinstance(voice, DisguisedVoice) else voice) for voice in drawn)
    for kind, share in ((EspeakVoice, 0.4), (FliteVoice, 0.4), (FestivalVoice, 0.2)):
        assert kinds[kind] / 3000 == pytest.approx(share, abs=0.03)
    assert sum(isinstance(voice, DisguisedVoice) for voice in drawn) / 3000 == pytest.approx(0.75, abs=0.03)
    assert len(set(drawn)) > 2500


def test_the_same_seed_draws_the_same_voices():
    first, again = (
        [draw_voice(rng) for _ in range(50)] for rng in (np.random.default_rng(7), np.random.default_rng(7))
    )
    assert first == again


@needs_all
def test_the_corpus_lasts_as_long_as_asked_and_hardly_longer():
    spoken = list(speak_corpus(0, 20))
    assert sum(utterance.duration_s for utterance in spoken) >= 20
    assert sum(utterance.duration_s for utterance in spoken[:-1]) < 20


@needs_all
def test_the_same_seed_gives_the_same_corpus_in_a_fresh_process():
    program = (
        "import hashlib; from training.corpus.voices import speak_corpus; digest = hashlib.sha256()\n"
        "for utterance in speak_corpus(1, 15): digest.update(utterance.samples.tobytes())\n"
        "print(digest.hexdigest())"
    )
    digests = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout for _ in range(2)
    ]
    assert digests[0] == digests[1]
    assert len(digests[0].strip()) == hashlib.sha256().digest_size * 2
