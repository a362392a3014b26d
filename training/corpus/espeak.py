"""Speech from espeak-ng (Debian's libespeak-ng1), through its C API: eight accents of English, many speakers.

espeak-ng reports the start of each phone to the sample, by its name in IPA. Three things differ from what the corpus
wants, and are mended here: a voiceless stop is reported at its burst, so the closure before it is given back to it;
a name such as `ɑːɹ` or `əl` is two phones; pauses and the glide in `radio` have no name at all.
"""

# ruff: noqa: RUF001 - IPA has letters that look like others

import ctypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count, pairwise, takewhile
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int16
from scipy.ndimage import uniform_filter1d

from models.core import SAMPLE_RATE_HZ
from models.errors import OutOfRange, UnknownName
from training.corpus.phones import SILENCE
from training.corpus.utterance import Mark, SynthesizerError, Utterance, check_sentence, resample, tile

ACCENTS = (
    "en", "en-us", "en-us-nyc", "en-029",
    "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd",
)  # fmt: skip
"""`en` is British."""
VARIANTS = (
    *("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5"),
    *("Alex", "Andy", "Annie", "belinda", "benjamin", "Denis", "Diogo", "ed", "edward", "Gene", "Hugo", "Jacky"),
    *("linda", "Mario", "Michael", "Mike", "norbert", "quincy", "rob", "shelby", "steph", "travis", "victor"),
)

_IPA_OF = {
    "aa": "aː a: aa ɑː ɑə ɒ", "ae": "a æ", "ah": "ə ɐ ʌ əh", "ao": "ɔ ɔː o oə ɔə", "aw": "aʊ æʊ ʌʉ", "ay": "aɪ",
    "eh": "ɛ eə ɛə", "er": "ɚ ɜ ɜː əɪ ʌɹ əɹ", "ey": "eː eɪ", "ih": "ɪ ᵻ e", "iy": "i iː iːː ei eiei",
    "ow": "oː oʊ əʊ ʌʊ", "oy": "ɔɪ oɪ", "uh": "ʊ", "uw": "uː ʉ ʉː əu",
    "b": "b", "ch": "tʃ", "d": "d", "dh": "ð", "f": "f", "g": "ɡ", "hh": "h", "jh": "dʒ", "k": "k x", "l": "l ɬ",
    "m": "m", "n": "n", "ng": "ŋ", "p": "p", "r": "r ɹ", "s": "s", "sh": "ʃ", "t": "t t̪ ɾ ʔ", "th": "θ", "v": "v",
    "w": "w ʍ", "y": "j", "z": "z", "zh": "ʒ",
    "aa r": "ɑːɹ", "ao r": "ɔːɹ oːɹ", "eh r": "ɛɹ", "ih r": "ɪɹ", "uh r": "ʊɹ ʉɹ",
    "aa n": "ɑ̃", "ao n": "ɔ̃", "ay ah": "aɪə", "ay er": "aɪɚ", "iy ah": "iə", "uh ah": "ʊə", "ah l": "əl", "ah n": "n̩",
}  # fmt: skip
ARPABET_OF = {SILENCE: (SILENCE,)} | {
    ipa: tuple(phones.split()) for phones, spelled in _IPA_OF.items() for ipa in spelled.split()
}

_NAMELESS = ("", "ʲ")
"""What espeak-ng calls pauses, and the glide between the vowels of `radio`."""
_QUIET = 0.05
"""Of the clip's loudest moment, over 5 ms: closures and pauses lie below it, glides above."""
_WINDOW = SAMPLE_RATE_HZ // 200
_STAMPED_AT_BURST = frozenset(("p", "t", "k", "tʃ", "t̪"))
_REST_S = 0.2
"""Silence put before and after what espeak-ng says, which has none; the other synthesizers leave as much."""
_CLOSURE_S = 0.07
"""The longest closure looked for ahead of a burst."""


class Onset(NamedTuple):
    """A phone as espeak-ng names it, and where it starts."""

    ipa: str
    start_s: float
    stress: int | None = None


@dataclass(frozen=True)
class EspeakVoice:
    """An accent and a variant (the speaker), with rate in words a minute, pitch and its range from 0 to 99."""

    accent: str = "en-us"
    variant: str = "m1"
    rate_wpm: int = 175
    pitch: int = 50
    pitch_range: int = 50

    def __post_init__(self) -> None:
        for kind, name, known in (("accent", self.accent, ACCENTS), ("variant", self.variant, VARIANTS)):
            if name not in known:
                raise UnknownName(kind, name, known)
        for name, low, high in (("rate_wpm", 80, 450), ("pitch", 0, 99), ("pitch_range", 0, 99)):
            if not low <= getattr(self, name) <= high:
                raise OutOfRange(f"{name} = {getattr(self, name)}; wanted {low} to {high}", field=name)

    @property
    def name(self) -> str:
        """Who speaks, for `Utterance.voice`."""
        return f"espeak:{self.accent}+{self.variant}:{self.rate_wpm}:{self.pitch}:{self.pitch_range}"

    def speak(self, text: str) -> Utterance:
        """Say `text`.

        The library carries the phase of its oscillator from sentence to sentence, so samples repeat exactly only in a
        fresh process that says the same sentences in the same order. Not for two threads at once.
        """
        check_sentence(text)
        library = _library()
        library.select(self)
        samples, onsets = library.synthesize(text)
        rest = np.zeros(round(_REST_S * library.rate_hz), np.int16)
        wave = resample(np.concatenate([rest, samples, rest]), library.rate_hz)
        onsets = [onset._replace(start_s=onset.start_s + rest.size / library.rate_hz) for onset in onsets]
        marks = marks_of(with_stress(onsets, library.spell(text)), wave)
        return Utterance(wave, tile(marks, wave.size / SAMPLE_RATE_HZ), text, self.name)


def with_stress(onsets: Sequence[Onset], spelled: str) -> list[Onset]:
    """Onsets with the stress marks of `spelled`, the text in IPA with a symbol an onset; as they were if it differs."""
    symbols = [symbol for symbol in re.split(r"[_ ʲ]+", spelled) if symbol]
    named = [onset.ipa for onset in onsets if onset.ipa not in _NAMELESS]
    if [symbol.lstrip("ˈˌ") for symbol in symbols] != named:
        return list(onsets)
    stresses = iter([{"ˈ": 1, "ˌ": 2}.get(symbol[0], 0) for symbol in symbols])
    return [onset if onset.ipa in _NAMELESS else onset._replace(stress=next(stresses)) for onset in onsets]


def marks_of(onsets: Sequence[Onset], wave: Float32[np.ndarray, " samples"]) -> list[Mark]:
    """ARPAbet phones of the 16 kHz wave. Raises `UnknownName` for a phone without a name in ARPAbet."""
    energy = uniform_filter1d(np.square(wave, dtype=np.float64), _WINDOW)
    quiet = energy < _QUIET**2 * energy.max()
    onsets = _with_closures(_without_glides(onsets, quiet), quiet)
    marks: list[Mark] = []
    for onset, end_s in zip(
        onsets, [*(after.start_s for after in onsets[1:]), wave.size / SAMPLE_RATE_HZ], strict=True
    ):
        phones = ARPABET_OF.get(onset.ipa)
        if phones is None:
            raise UnknownName("espeak-ng phone", onset.ipa, ARPABET_OF)
        for place, phone in enumerate(phones, start=1):
            until_s = onset.start_s + (end_s - onset.start_s) * place / len(phones)
            marks.append(Mark(phone, until_s, onset.stress if place == 1 or onset.stress is None else 0))
    return marks


def _without_glides(onsets: Sequence[Onset], quiet: np.ndarray) -> list[Onset]:
    """Nameless onsets become silence where they are quiet; elsewhere they are part of the vowel before them."""
    kept = [Onset(SILENCE, 0.0)]
    for onset, after in pairwise([*onsets, Onset("", quiet.size / SAMPLE_RATE_HZ)]):
        middle = int((onset.start_s + after.start_s) / 2 * SAMPLE_RATE_HZ)
        if onset.ipa not in _NAMELESS:
            kept.append(onset)
        elif quiet[middle]:
            kept.append(Onset(SILENCE, onset.start_s))
    return kept


def _with_closures(onsets: Sequence[Onset], quiet: np.ndarray) -> list[Onset]:
    """Voiceless stops and affricates start where the quiet before their burst starts."""
    moved = [onsets[0]]
    for before, onset in pairwise(onsets):
        if onset.ipa in _STAMPED_AT_BURST:
            earliest = round(max(onset.start_s - _CLOSURE_S, (before.start_s + onset.start_s) / 2) * SAMPLE_RATE_HZ)
            ahead_of_burst = quiet[earliest : round(onset.start_s * SAMPLE_RATE_HZ) - _WINDOW // 2]
            loud = np.flatnonzero(~ahead_of_burst)
            closure = ahead_of_burst.size - (int(loud[-1]) + 1 if loud.size else 0)
            if closure:
                onset = onset._replace(start_s=onset.start_s - (closure + _WINDOW // 2) / SAMPLE_RATE_HZ)
        moved.append(onset)
    return moved


class _Name(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("pointer", ctypes.c_char_p), ("ipa", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("type", "message", "text_position", "length", "time_ms", "sample")),
        ("user_data", ctypes.c_void_p),
        ("id", _Name),
    ]


_Receive = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int16), ctypes.c_int, ctypes.POINTER(_Event))


class _Library:
    """libespeak-ng, started in synchronous mode: `espeak_Synth` returns when the callback has had everything."""

    SYNCHRONOUS = 2
    PHONEME_EVENTS_IN_IPA = 1 | 2
    RATE, PITCH, RANGE = 1, 3, 4
    UTF_8 = 1
    PHONEME_EVENT = 7
    IPA_PARTED_BY_UNDERSCORES = 2 | ord("_") << 8

    def __init__(self) -> None:
        try:
            self._c = ctypes.CDLL("libespeak-ng.so.1")
        except OSError as error:
            raise SynthesizerError.missing("libespeak-ng.so.1", "libespeak-ng1") from error
        self.rate_hz: int = self._c.espeak_Initialize(self.SYNCHRONOUS, 0, None, self.PHONEME_EVENTS_IN_IPA)
        if self.rate_hz <= 0:
            raise SynthesizerError.missing("espeak-ng's data", "espeak-ng-data")
        self._c.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._blocks: list[np.ndarray] = []
        self._phones: list[tuple[bytes, int]] = []
        self._callback = _Receive(self._receive)
        self._c.espeak_SetSynthCallback(self._callback)

    def select(self, voice: EspeakVoice) -> None:
        """Set voice, rate, pitch. The rate is set even to its default: without that, sentences of one voice differ."""
        if self._c.espeak_SetVoiceByName(f"{voice.accent}+{voice.variant}".encode()):
            raise SynthesizerError.missing(f"espeak-ng's voice {voice.accent}+{voice.variant}", "espeak-ng-data")
        for parameter, value in (
            (self.RATE, voice.rate_wpm),
            (self.PITCH, voice.pitch),
            (self.RANGE, voice.pitch_range),
        ):
            self._c.espeak_SetParameter(parameter, value, 0)

    def synthesize(self, text: str) -> tuple[Int16[np.ndarray, " samples"], list[Onset]]:
        """Samples at `rate_hz`, and the onsets of phones and pauses."""
        self._blocks, self._phones = [np.zeros(0, np.int16)], []
        data = text.encode()
        self._c.espeak_Synth(data, len(data) + 1, 0, 0, 0, self.UTF_8, None, None)
        onsets = [Onset(ipa.decode(), sample / self.rate_hz) for ipa, sample in self._phones]
        return np.concatenate(self._blocks), onsets

    def spell(self, text: str) -> str:
        """The text in IPA with stress marks, symbols parted by `_`."""
        data = ctypes.create_string_buffer(text.encode())
        rest = ctypes.c_void_p(ctypes.addressof(data))
        clauses = []
        while rest.value:
            clause = self._c.espeak_TextToPhonemes(ctypes.byref(rest), self.UTF_8, self.IPA_PARTED_BY_UNDERSCORES)
            clauses.append(clause.decode())
        return " ".join(clauses)

    def _receive(self, samples: Any, size: int, events: Any) -> int:
        """Keep a block of samples and its events, and check nothing: what a callback raises is lost."""
        if samples and size:
            self._blocks.append(np.ctypeslib.as_array(samples, (size,)).copy())
        for event in takewhile(lambda event: event.type, map(events.__getitem__, count())):
            if event.type == self.PHONEME_EVENT:
                self._phones.append((event.id.ipa, event.sample))
        return 0


@cache
def _library() -> _Library:
    return _Library()
