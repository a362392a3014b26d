"""Phones of recorded speech, by pocketsphinx: forced alignment to a transcript, or its own decoding without one.

pocketsphinx 5 (BSD) carries its acoustic model and dictionary in its wheel. Two passes, since the first sets the
cepstral mean; wide beams; words that the dictionary lacks are spelled by rule. Boundaries come 8 ms early and are
shifted.
"""

import re
from functools import cache
from typing import Any

import numpy as np

from models.core import Waveform
from models.errors import TalkerError
from training.corpus.phones import Phone
from training.corpus.spelling import spell

BIAS_S = 0.008
"""How early pocketsphinx' boundaries are."""
FRAME_S = 0.01
SILENCE = 1e-4
"""Peak under which there is no sound to align to."""
DOUBTFUL_SCORE = -35.0
"""Mean frame score of an alignment under which its transcript is to be distrusted."""
PAUSES = {"SIL", "+NSN+", "+SPN+", "+BREATH+", "+COUGH+", "+NOISE+", "+SMACK+", "+UH+", "+UM+"}


class AlignmentError(TalkerError):
    """Speech and transcript that cannot be brought together."""

    code = "alignment"


def align(waveform: Waveform, transcript: str) -> tuple[list[Phone], float]:
    """Phones of a clip whose words are known, and the mean frame score. AlignmentError if they do not fit."""
    words = normalise_words(transcript)
    if not words:
        raise AlignmentError(f"no words in the transcript {transcript[:60]!r}; wanted what is said")
    if not len(waveform.samples) or np.abs(waveform.samples).max() < SILENCE:
        raise AlignmentError("nothing is to be heard; wanted speech: check the recording")
    decoder = _aligner()
    decoder.reinit_feat()  # or it would begin with the cepstral mean of the clip before
    for word in words:
        if decoder.lookup_word(word) is None:
            decoder.add_word(word, spell(word), True)
    try:
        entries = _decode_phones(decoder, waveform, words)
    except RuntimeError as error:  # pocketsphinx' own, of clips that are shorter than their words
        _aligner.cache_clear()  # it may be left in the middle of an utterance
        raise _misfit(transcript) from error
    if not entries:
        raise _misfit(transcript)
    score = sum(entry[3] for entry in entries) / max(1, sum(entry[2] for entry in entries))
    return _tile([entry[:3] for entry in entries], waveform.duration_s), score


def _decode_phones(decoder: Any, waveform: Waveform, words: list[str]) -> list[tuple[str, int, int, int]]:
    """Name, first frame, length and score of each phone; none if the words do not fit."""
    decoder.set_align_text(" ".join(words))
    _decode(decoder, waveform)
    if decoder.hyp() is None:
        return []
    decoder.set_alignment()
    _decode(decoder, waveform)
    return [(phone.name, phone.start, phone.duration, phone.score) for phone in decoder.get_alignment().phones()]


def _misfit(transcript: str) -> AlignmentError:
    return AlignmentError(f"the transcript {transcript[:60]!r} does not fit the speech; check the text")


def recognise(waveform: Waveform) -> str:
    """What pocketsphinx hears, as words: about a third of them are wrong, most of their sounds are right."""
    decoder = _recogniser()
    decoder.reinit_feat()
    for _ in range(2):
        _decode(decoder, waveform)
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


def normalise_words(transcript: str) -> list[str]:
    """Lower-case words as the dictionary writes them."""
    return re.findall(r"[a-z]+(?:'[a-z]+)*|'[a-z]+", transcript.lower().replace("\u2019", "'"))


@cache
def _aligner() -> Any:
    from pocketsphinx import Decoder

    return Decoder(
        lm=None, cmn="batch", beam=1e-120, pbeam=1e-120, wbeam=1e-100, bestpath=False, dither=False, loglevel="FATAL"
    )


@cache
def _recogniser() -> Any:
    from pocketsphinx import Decoder

    return Decoder(cmn="batch", dither=False, loglevel="FATAL")


def _decode(decoder: Any, waveform: Waveform) -> None:
    decoder.start_utt()
    decoder.process_raw((waveform.samples * 32767).astype(np.int16).tobytes(), full_utt=True)
    decoder.end_utt()


def _tile(entries: list[tuple[str, int, int]], duration_s: float) -> list[Phone]:
    """Phones from 0 to the clip's end; noises are pauses, neighbouring pauses one."""
    phones: list[Phone] = []
    for name, start, length in [*entries, ("SIL", entries[-1][1] + entries[-1][2], 0)]:
        name = "sil" if name in PAUSES else name.lower()
        end_s = duration_s if not length else min(duration_s, (start + length) * FRAME_S + BIAS_S)
        start_s = phones[-1].end_s if phones else 0.0
        if end_s <= start_s:
            continue
        if phones and name == phones[-1].name == "sil":
            start_s = phones.pop().start_s
        phones.append(Phone(name, start_s, end_s))
    return phones
