"""The corpus as latents, for TexTalker's diffusion: each frame through both auto-encoders, once.

    python -m training latents --corpus build/corpus --minutes 60 --out build/latents

A folder of `motion.npy` and `wrinkle.npy` (frames, latents), or of `joint.npy`, as float16, and `latents.json`: the
clips, where their frames begin, and the auto-encoders. Every twelfth clip of a subject is kept for the test of unseen
sequences.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float, Float16, Float32, Float64
from tqdm import tqdm

from models.core import SAMPLE_RATE_HZ, frame_count
from models.errors import MalformedInput
from models.textalker.codes import RATE_HZ
from models.textalker.encoding import BATCH
from training.autoencoder import MapMaker
from training.corpus.face import FaceRig
from training.corpus.wrinkles import WrinkleField
from training.datasets.corpus import Corpus, CorpusClip, tracks_at

TESTED_EVERY = 12


class Encoders(Protocol):
    """What makes latents of maps: two auto-encoders, or the joint one of an ablation."""

    parts: tuple[str, ...]
    wrinkle_size: int

    @property
    def motion_size(self) -> int:
        """Texels along the side of a motion map."""
        ...

    def encode_maps(
        self, motion: Float32[np.ndarray, "frames 3 size size"], wrinkles: Float32[np.ndarray, "frames 3 size size"]
    ) -> tuple[Float32[np.ndarray, "frames latents"], ...]:
        """Latents of each of `parts`."""
        ...


@dataclass(frozen=True)
class EncodedClip:
    """Which clip, whose, where its frames begin and how many there are, and whether it is kept for the test."""

    id: str
    subject: str
    start: int
    count: int
    tested: bool


@dataclass(frozen=True)
class Latents:
    """A folder of latents. MalformedInput if it holds none."""

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "latents.json").is_file():
            raise MalformedInput(f"no latents in {self.folder}; make them: python -m training latents")

    @cached_property
    def description(self) -> dict[str, Any]:
        """What latents.json says."""
        return dict(json.loads((self.folder / "latents.json").read_text()))

    @cached_property
    def clips(self) -> tuple[EncodedClip, ...]:
        """All clips, in the corpus' order."""
        return tuple(EncodedClip(**entry) for entry in self.description["clips"])

    @property
    def parts(self) -> tuple[str, ...]:
        """What there are latents of: motion and wrinkles, or both as one."""
        return tuple(self.description["parts"])

    def part(self, name: str) -> Float16[np.ndarray, "frames latents"]:
        """All frames' latents of motion or wrinkles, mapped from the disk."""
        return np.asarray(np.load(self.folder / f"{name}.npy", mmap_mode="r"))

    def pivots(self, name: str) -> Mapping[str, Float32[np.ndarray, " latents"]]:
        """Each subject's mean latents, over the clips that are not kept for the test."""
        rows = self.part(name)
        return means_by_subject(
            (clip.subject, rows[clip.start : clip.start + clip.count].sum(0, dtype=np.float64), clip.count)
            for clip in self.clips
            if not clip.tested
        )


def means_by_subject(
    sums: Iterable[tuple[str, Float64[np.ndarray, " latents"], int]],
) -> dict[str, Float32[np.ndarray, " latents"]]:
    """Each subject's mean, from its sums of latents and of how many each is."""
    totals, counts = dict[str, np.ndarray](), dict[str, int]()
    for subject, own, count in sums:
        totals[subject] = totals.get(subject, 0) + own
        counts[subject] = counts.get(subject, 0) + count
    return {subject: np.asarray(total / counts[subject], np.float32) for subject, total in totals.items()}


def frames_of(clip: CorpusClip) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Action weights, contact and closure of the lids at TexTalker's 30 frames a second."""
    count = frame_count(len(clip.samples) / SAMPLE_RATE_HZ, RATE_HZ)
    weights, contact, lids = tracks_at(np.arange(count) / RATE_HZ, clip.weights, clip.contact, clip.blinks)
    return weights, contact, lids


def encode_clip(
    maker: MapMaker, encoders: Encoders, weights: np.ndarray, contact: np.ndarray, field: int
) -> Iterator[tuple[Float32[np.ndarray, "frames latents"], ...]]:
    """Latents of a clip's frames, a batch at a time, in the wrinkle style of one of the maker's fields."""
    for start in range(0, len(weights), BATCH):
        own, touch = weights[start : start + BATCH], contact[start : start + BATCH]
        yield encoders.encode_maps(maker.motion(own, touch), maker.wrinkles(own, touch, [field] * len(own)))


def encode_corpus(
    corpus: Corpus, rig: FaceRig, encoders: Encoders, minutes: float, folder: Path, autoencoders: str
) -> Latents:
    """Encode clips of the subjects that are not held out, spread over the corpus, until there are `minutes`.

    MalformedInput, before anything is written, if that is not a single clip.
    """
    if not (chosen := choose_clips(corpus, minutes)):
        raise MalformedInput(f"no clip of over a second for {minutes:g} minutes of {corpus.folder}; ask for more")
    subjects = [subject for subject in corpus.subjects if not subject.held_out]
    number = {subject.id: k for k, subject in enumerate(subjects)}
    fields = [WrinkleField(rig.head, subject.wrinkles) for subject in subjects]
    maker = MapMaker(rig, encoders.motion_size, encoders.wrinkle_size, fields)
    total = sum(clip.count for clip in chosen)
    folder.mkdir(parents=True, exist_ok=True)
    names = {clip.id: clip for clip in chosen}
    rows: dict[str, np.ndarray] = {}
    bar = tqdm(total=total, desc="latents", unit="frame", dynamic_ncols=True)
    for clip in corpus.clips(held_out=False):
        if (entry := names.get(clip.id)) is None:
            continue
        weights, contact, _ = frames_of(clip)
        place = entry.start
        for parts in encode_clip(maker, encoders, weights, contact, number[clip.subject]):
            for name, latents in zip(encoders.parts, parts, strict=True):
                if name not in rows:
                    shape = (total, latents.shape[1])
                    rows[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, shape)
                rows[name][place : place + len(latents)] = latents
            place += len(parts[0])
            bar.update(len(parts[0]))
    bar.close()
    for part in rows.values():
        part.flush()  # type: ignore[attr-defined]
    description = {"autoencoders": autoencoders, "parts": encoders.parts, "clips": [vars(clip) for clip in chosen]}
    (folder / "latents.json").write_text(json.dumps(description, indent=1) + "\n")
    return Latents(folder)


def choose_clips(corpus: Corpus, minutes: float) -> list[EncodedClip]:
    """Clips of over a second by those who are not held out: every n-th, so that they add up to about `minutes`."""
    seen = {subject.id for subject in corpus.subjects if not subject.held_out}
    records = [r for r in corpus.description["clips"] if r["subject"] in seen and r["seconds"] > 1.0]
    share = min(1.0, minutes * 60 / max(1e-9, sum(record["seconds"] for record in records)))
    picked = [r for k, r in enumerate(records) if int((k + 1) * share) > int(k * share)]
    clips, start, spoken = list[EncodedClip](), 0, dict[str, int]()
    for record in picked:
        count = frame_count(_samples(corpus, record["id"]) / SAMPLE_RATE_HZ, RATE_HZ)
        spoken[record["subject"]] = turn = spoken.get(record["subject"], 0) + 1
        clips.append(EncodedClip(record["id"], record["subject"], start, count, turn % TESTED_EVERY == 0))
        start += count
    return clips


def _samples(corpus: Corpus, clip: str) -> int:
    with np.load(corpus.folder / "clips" / f"{clip}.npz") as arrays:
        return len(arrays["samples"])


def lip_reading(
    latents: Float[np.ndarray, "frames latents"], rim_mm: Float[np.ndarray, "frames coordinates"], ridge: float = 1e-2
) -> Float32[np.ndarray, "coordinates latents"]:
    """The linear map that reads the rim of the lips from a motion latent best (ridge regression about the means)."""
    x = latents.astype(np.float64) - latents.mean(0, dtype=np.float64)
    y = rim_mm - rim_mm.mean(0)
    gram = x @ x.T
    gram[np.diag_indices(len(gram))] += ridge * np.trace(gram) / len(gram)
    return np.asarray((x.T @ np.linalg.solve(gram, y)).T, np.float32)


def draw_rows(clips: Sequence[EncodedClip], count: int, seed: int = 0) -> list[tuple[EncodedClip, int]]:
    """Some frames of some clips, spread evenly: a clip and a frame of it."""
    ends = np.cumsum([clip.count for clip in clips])
    picked = np.sort(np.random.default_rng(seed).choice(ends[-1], min(count, int(ends[-1])), replace=False))
    owner = np.searchsorted(ends, picked, side="right")
    return [(clips[k], int(row - ends[k] + clips[k].count)) for k, row in zip(owner, picked, strict=True)]
