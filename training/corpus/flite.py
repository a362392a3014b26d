"""Speech from flite (Debian's libflite1), through its C API: four American and Scottish speakers.

Flite's own durations are the truth: its waveform is generated from them.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Int16

from models.core import SAMPLE_RATE_HZ
from models.errors import OutOfRange, UnknownName
from training.corpus.phones import ARPABET, SILENCE
from training.corpus.utterance import Mark, SynthesizerError, Utterance, check_sentence, resample, tile

SPEAKERS = ("awb", "kal16", "rms", "slt")
"""Debian's English voices; `kal` is kal16 at 8 kHz, and awb_time knows only the time of day."""

ARPABET_OF = {phone: phone for phone in ARPABET} | {"pau": SILENCE, "ssil": SILENCE, "brth": SILENCE, "h#": SILENCE}
ARPABET_OF |= {"ax": "ah", "axr": "er", "dx": "t", "nx": "n", "hv": "hh", "el": "l", "em": "m", "en": "n"}
"""Phones of the radio phone set, which flite and festival share, by their names in ARPAbet."""


@dataclass(frozen=True)
class FliteVoice:
    """One of SPEAKERS; `stretch` lengthens every phone, 0.5 to 2."""

    speaker: str = "slt"
    stretch: float = 1.0

    def __post_init__(self) -> None:
        if self.speaker not in SPEAKERS:
            raise UnknownName("speaker", self.speaker, SPEAKERS)
        if not 0.5 <= self.stretch <= 2:
            raise OutOfRange(f"stretch = {self.stretch}; wanted 0.5 to 2", field="stretch")

    @property
    def name(self) -> str:
        """Who speaks, for `Utterance.voice`."""
        return f"flite:{self.speaker}:{self.stretch:g}"

    def speak(self, text: str) -> Utterance:
        """Say `text`."""
        check_sentence(text)
        samples, rate_hz, marks = _library().synthesize(text, self)
        wave = resample(samples, rate_hz)
        return Utterance(wave, tile(marks, wave.size / SAMPLE_RATE_HZ), text, self.name)


def radio_mark(name: str, end_s: float, stress: str) -> Mark:
    """A segment of flite or festival as a mark. Raises `UnknownName` for a phone without a name in ARPAbet."""
    if name not in ARPABET_OF:
        raise UnknownName("radio phone", name, ARPABET_OF)
    return Mark(ARPABET_OF[name], end_s, int(stress))


class _Wave(ctypes.Structure):
    """cst_wave."""

    _fields_ = [
        ("type", ctypes.c_char_p),
        ("rate_hz", ctypes.c_int),
        ("size", ctypes.c_int),
        ("channels", ctypes.c_int),
        ("samples", ctypes.POINTER(ctypes.c_int16)),
    ]


class _Voice(ctypes.Structure):
    """The head of cst_voice."""

    _fields_ = [("name", ctypes.c_char_p), ("features", ctypes.c_void_p)]


_PROTOTYPES = {
    "flite_synth_text": (ctypes.c_void_p, ctypes.c_char_p, ctypes.POINTER(_Voice)),
    "utt_wave": (ctypes.POINTER(_Wave), ctypes.c_void_p),
    "utt_relation": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p),
    "relation_head": (ctypes.c_void_p, ctypes.c_void_p),
    "item_next": (ctypes.c_void_p, ctypes.c_void_p),
    "ffeature_string": (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_char_p),
    "ffeature_float": (ctypes.c_float, ctypes.c_void_p, ctypes.c_char_p),
    "feat_set_float": (None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_float),
    "delete_utterance": (None, ctypes.c_void_p),
}


class _Library:
    """libflite and its voices."""

    def __init__(self) -> None:
        self._c = _load("libflite.so.1")
        for name, (result, *arguments) in _PROTOTYPES.items():
            function = getattr(self._c, name)
            function.restype, function.argtypes = result, arguments
        self._c.flite_init()
        for library in ("libflite_cmulex.so.1", "libflite_usenglish.so.1"):
            _load(library)
        self._voices = {speaker: self._register(speaker) for speaker in SPEAKERS}
        self._libc = ctypes.CDLL(None)

    @staticmethod
    def _register(speaker: str) -> Any:
        register = getattr(_load(f"libflite_cmu_us_{speaker}.so.1"), f"register_cmu_us_{speaker}")
        register.restype, register.argtypes = ctypes.POINTER(_Voice), [ctypes.c_char_p]
        return register(None)

    def synthesize(self, text: str, voice: FliteVoice) -> tuple[Int16[np.ndarray, " samples"], int, list[Mark]]:
        """Samples, their rate, and the ends of phones."""
        flite_voice = self._voices[voice.speaker]
        self._c.feat_set_float(flite_voice.contents.features, b"duration_stretch", voice.stretch)
        self._libc.srand(1)  # the vocoder's noise: without it, no sentence is ever said twice the same
        utterance = self._c.flite_synth_text(text.encode(), flite_voice)
        try:
            wave = self._c.utt_wave(utterance).contents
            samples = np.ctypeslib.as_array(wave.samples, (wave.size,)).copy()
            return samples, wave.rate_hz, list(self._marks(utterance))
        finally:
            self._c.delete_utterance(utterance)

    def _marks(self, utterance: int) -> Iterator[Mark]:
        item = self._c.relation_head(self._c.utt_relation(utterance, b"Segment"))
        while item:
            name, stress = (
                self._c.ffeature_string(item, feature).decode()
                for feature in (b"name", b"R:SylStructure.parent.stress")
            )
            yield radio_mark(name, self._c.ffeature_float(item, b"end"), stress)
            item = self._c.item_next(item)


def _load(library: str) -> ctypes.CDLL:
    try:
        # flite's libraries find each other's symbols in the process
        return ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise SynthesizerError.missing(library, "libflite1") from error


@cache
def _library() -> _Library:
    return _Library()
