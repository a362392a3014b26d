"""Many speakers of synthetic English, with the times of their phones: what the compact weights learn speech from.

Three synthesizers (espeak-ng, flite, festival) and a disguise that shifts formants and pitch give more than a hundred
speakers that a listener would tell apart. The same seed gives the same corpus in a fresh process on one machine;
another version of a synthesizer gives another.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import parselmouth
from jaxtyping import Float32
from parselmouth.praat import call, run

from models.core import SAMPLE_RATE_HZ
from models.errors import MalformedInput, OutOfRange
from training.corpus import espeak, festival, flite
from training.corpus.espeak import EspeakVoice
from training.corpus.festival import FestivalVoice
from training.corpus.flite import FliteVoice
from training.corpus.phones import Phone
from training.corpus.text import sentences
from training.corpus.utterance import SynthesizerError, Utterance, Voice

__all__ = [
    "DisguisedVoice",
    "Phone",
    "SynthesizerError",
    "Utterance",
    "Voice",
    "disguise",
    "draw_voice",
    "speak_corpus",
]

_PITCH_FLOOR_HZ, _PITCH_CEILING_HZ = 60.0, 500.0


@dataclass(frozen=True)
class DisguisedVoice:
    """A voice made another speaker's by `disguise`."""

    voice: Voice
    formant_ratio: float
    pitch_ratio: float

    def speak(self, text: str) -> Utterance:
        """Say `text` in disguise."""
        return disguise(self.voice.speak(text), self.formant_ratio, self.pitch_ratio)


def disguise(utterance: Utterance, formant_ratio: float, pitch_ratio: float) -> Utterance:
    """The same words at the same times from a shorter (ratios over 1) or longer throat: Praat's "Change gender".

    Ratios are 0.5 to 2; else `OutOfRange`. A whisper or a silence is refused as `MalformedInput`.
    """
    for name, ratio in (("formant_ratio", formant_ratio), ("pitch_ratio", pitch_ratio)):
        if not 0.5 <= ratio <= 2:
            raise OutOfRange(f"{name} = {ratio}; wanted 0.5 to 2", field=name)
    sound = parselmouth.Sound(utterance.samples.astype(np.float64), SAMPLE_RATE_HZ)
    pitch = sound.to_pitch(None, _PITCH_FLOOR_HZ, _PITCH_CEILING_HZ)
    median_hz = call(pitch, "Get quantile", 0, 0, 0.5, "Hertz")
    if math.isnan(median_hz):
        raise MalformedInput(f"{utterance.text!r} by {utterance.voice} has no voiced sound; a disguise needs one")
    # Unvoiced sounds are rebuilt from random pieces: seeded, the same disguise gives the same samples.
    run("random_initializeWithSeedUnsafelyButPredictably (1)")
    changed = call((sound, pitch), "Change gender", formant_ratio, pitch_ratio * median_hz, 1.0, 1.0)
    samples = _fit(changed.values[0], utterance.samples.size)
    name = f"{utterance.voice} disguised {formant_ratio:.3f} {pitch_ratio:.3f}"
    return replace(utterance, samples=samples, voice=name)


def _fit(samples: np.ndarray, size: int) -> Float32[np.ndarray, " samples"]:
    """Exactly `size` samples, turned down where they would clip. Praat rounds the length to a sample or so."""
    fitted = np.zeros(size, np.float32)
    fitted[: samples.size] = samples[:size] / max(1.0, np.abs(samples).max())
    return fitted


def draw_voice(rng: np.random.Generator) -> Voice:
    """A random speaker: 40 % espeak-ng, 40 % flite, 20 % festival, of each three in four in disguise."""
    draws: tuple[Callable[[np.random.Generator], Voice], ...] = (_draw_espeak, _draw_flite, _draw_festival)
    voice = draws[rng.choice(3, p=[0.4, 0.4, 0.2])](rng)
    if rng.random() < 0.25:
        return voice
    formant_ratio = float(rng.uniform(0.86, 1.2))
    # Women's formants lie about 1.17 times men's and their pitch 1.7 times: 1.17 to the power 3.5. Half of that, and
    # some scatter, as the voices are of both sexes to begin with.
    pitch_ratio = float(np.clip(formant_ratio**2 * np.exp(rng.normal(0, 0.12)), 0.6, 1.8))
    return DisguisedVoice(voice, formant_ratio, pitch_ratio)


def _draw_espeak(rng: np.random.Generator) -> EspeakVoice:
    return EspeakVoice(
        accent=str(rng.choice(espeak.ACCENTS)),
        variant=str(rng.choice(espeak.VARIANTS)),
        rate_wpm=int(rng.integers(130, 211)),
        pitch=int(rng.integers(30, 71)),
        pitch_range=int(rng.integers(30, 81)),
    )


def _draw_flite(rng: np.random.Generator) -> FliteVoice:
    return FliteVoice(str(rng.choice(flite.SPEAKERS)), round(rng.uniform(0.85, 1.25), 2))


def _draw_festival(rng: np.random.Generator) -> FestivalVoice:
    speaker = str(rng.choice(list(festival.PACKAGE_OF)))
    return FestivalVoice(speaker, round(rng.uniform(0.85, 1.25), 2) if speaker in festival.STRETCHABLE else 1.0)


def speak_corpus(seed: int, seconds: float) -> Iterator[Utterance]:
    """Utterances, each by a speaker drawn anew, until they last `seconds` together.

    Raises `SynthesizerError` where a synthesizer is not installed.
    """
    rng = np.random.default_rng(seed)
    spoken_s = 0.0
    for text in sentences(seed):
        if spoken_s >= seconds:
            return
        utterance = draw_voice(rng).speak(text)
        spoken_s += utterance.duration_s
        yield utterance
