"""Speech whose phones are known to the sample: what every synthesizer of the corpus returns.

Phones carry the 39 names of ARPAbet as pocketsphinx's dictionary writes them, in lower case and without stress marks,
or `sil`. They tile the clip: the first starts at 0, each starts where the one before ends, the last ends with the clip.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, Self

import numpy as np
from jaxtyping import Float32
from scipy.signal import resample_poly

from models.core import SAMPLE_RATE_HZ
from models.errors import MalformedInput, TalkerError
from training.corpus.phones import SILENCE, VOWELS, Phone


class SynthesizerError(TalkerError):
    """A speech synthesizer, or a voice of it, is missing or has failed."""

    code = "synthesizer"

    @classmethod
    def missing(cls, what: str, package: str) -> Self:
        """`what` was not found, and is in Debian's `package`."""
        return cls(f"{what} was not found; synthetic speech needs it; install Debian's package {package}")


@dataclass(frozen=True, eq=False)
class Utterance:
    """A spoken sentence: mono samples at 16 kHz within -1..1, the phones that tile it, its text, and who speaks."""

    samples: Float32[np.ndarray, " samples"] = field(repr=False)
    phones: tuple[Phone, ...] = field(repr=False)
    text: str
    voice: str

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32 or not np.isfinite(self.samples).all():
            raise MalformedInput(f"samples {self.samples.shape} {self.samples.dtype}; wanted (n,) float32, finite")
        if not self.phones or self.phones[0].start_s != 0 or self.phones[-1].end_s != self.duration_s:
            raise MalformedInput(
                f"phones that do not span 0 to {self.duration_s} s, the clip; pass them through `tile`"
            )
        for before, after in pairwise(self.phones):
            if before.end_s != after.start_s:
                raise MalformedInput(f"{before} and {after} leave a gap or overlap; pass the phones through `tile`")

    @property
    def duration_s(self) -> float:
        """Seconds of sound."""
        return self.samples.size / SAMPLE_RATE_HZ


class Voice(Protocol):
    """One speaker of one synthesizer."""

    def speak(self, text: str) -> Utterance:
        """Say one English sentence, which `check_sentence` accepts. Raises `SynthesizerError` where that fails."""
        ...


def check_sentence(text: str) -> None:
    """Refuse, as `MalformedInput`, what is not printable ASCII with a letter or digit: some synthesizers die of it."""
    if not (text.isascii() and text.isprintable() and any(map(str.isalnum, text))):
        raise MalformedInput(f"{text!r} is not printable ASCII with words; spell it out in English", field="text")


@dataclass(frozen=True)
class Mark:
    """What a synthesizer reports: this phone ends here."""

    name: str
    end_s: float
    stress: int | None = None


def tile(marks: Iterable[Mark], duration_s: float) -> tuple[Phone, ...]:
    """Phones from 0 to `duration_s`: marks past the end are cut, what is left after the last is silence.

    Marks that last no time vanish, and neighbouring silences become one. Raises `MalformedInput` for an unknown name.
    """
    phones: list[Phone] = []
    for mark in (*marks, Mark(SILENCE, duration_s)):
        start_s = phones[-1].end_s if phones else 0.0
        end_s = min(mark.end_s, duration_s)
        if end_s <= start_s:
            continue
        if phones and mark.name == phones[-1].name == SILENCE:
            start_s = phones.pop().start_s
        phones.append(Phone(mark.name, start_s, end_s, mark.stress if mark.name in VOWELS else None))
    return tuple(phones)


def resample(samples: np.ndarray, rate_hz: int) -> Float32[np.ndarray, " samples"]:
    """(n,) at `rate_hz`, 16-bit integers or floats within -1..1, to 16 kHz float32, turned down where it would clip."""
    scale = 1 / 32768 if samples.dtype == np.int16 else 1.0
    common = math.gcd(rate_hz, SAMPLE_RATE_HZ)
    wave = resample_poly(samples * scale, SAMPLE_RATE_HZ // common, rate_hz // common)
    return np.asarray(wave / max(1.0, np.abs(wave).max(initial=0.0)), dtype=np.float32)
