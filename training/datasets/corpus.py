"""Reading the corpus that `training.corpus.build` writes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from models.checkpoint import read_tensors
from models.errors import MalformedInput
from models.template import Head
from training.corpus.coarticulation import RATE_HZ, MotionStyle
from training.corpus.expressions import Habit
from training.corpus.face import FaceRig, load_rig
from training.corpus.phones import Phone
from training.corpus.subjects import Subject
from training.corpus.wrinkles import WrinkleStyle


@dataclass(frozen=True, eq=False)
class CorpusClip:
    """One clip: who speaks, the sound, its phones, and action weights, contact and blinks at 100 Hz."""

    id: str
    subject: str
    recorded: bool
    samples: Float32[np.ndarray, " samples"]
    phones: tuple[Phone, ...]
    weights: Float32[np.ndarray, "frames actions"]
    contact: Float32[np.ndarray, " frames"]
    blinks: Float32[np.ndarray, " frames"]


def tracks_at(
    time_s: Float[np.ndarray, " times"], *tracks: Float32[np.ndarray, "samples ..."]
) -> tuple[Float32[np.ndarray, "times ..."], ...]:
    """Tracks of 100 Hz and one length at any times, linearly, held at their ends."""
    position = np.clip(time_s * RATE_HZ, 0, len(tracks[0]) - 1)
    low = np.minimum(position.astype(int), len(tracks[0]) - 2)
    share = (position - low).astype(np.float32)

    def at(track: np.ndarray) -> np.ndarray:
        weight = share.reshape(-1, *[1] * (track.ndim - 1))
        return np.asarray((1 - weight) * track[low] + weight * track[low + 1])

    return tuple(map(at, tracks))


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk. MalformedInput if the folder holds none."""

    folder: Path

    def __post_init__(self) -> None:
        if not (self.folder / "corpus.json").is_file():
            raise MalformedInput(f"no corpus in {self.folder}; make one: python -m training corpus --out {self.folder}")

    @cached_property
    def description(self) -> dict[str, Any]:
        """What corpus.json says."""
        return dict(json.loads((self.folder / "corpus.json").read_text()))

    @cached_property
    def subjects(self) -> tuple[Subject, ...]:
        """The cast."""
        kinds = {"motion": MotionStyle, "habit": Habit, "wrinkles": WrinkleStyle}
        return tuple(
            Subject(**{**entry, **{name: kind(**entry[name]) for name, kind in kinds.items()}})
            for entry in self.description["subjects"]
        )

    @cached_property
    def shapes(self) -> dict[str, Float32[np.ndarray, "vertices 3"]]:
        """Each subject's vertices on the canonical topology."""
        return {name: tensor.numpy() for name, tensor in read_tensors(self.folder / "shapes.safetensors").items()}

    def rig(self, head: Head) -> FaceRig:
        """What the action weights move."""
        return load_rig(self.folder / "rig.safetensors", head)

    def clips(self, *, held_out: bool) -> Iterator[CorpusClip]:
        """Clips of the subjects that are, or are not, held out, in order."""
        wanted = {subject.id for subject in self.subjects if subject.held_out is held_out}
        for record in self.description["clips"]:
            if record["subject"] in wanted:
                yield self._read(record)

    def _read(self, record: dict[str, Any]) -> CorpusClip:
        with np.load(self.folder / "clips" / f"{record['id']}.npz") as arrays:
            times = arrays["phone_times"].astype(float).tolist()
            phones = zip(arrays["phone_names"].tolist(), times, strict=True)
            return CorpusClip(
                id=record["id"],
                subject=record["subject"],
                recorded=record["origin"].startswith("recorded"),
                samples=arrays["samples"].astype(np.float32) / 32767,
                phones=tuple(Phone(name, start_s, end_s) for name, (start_s, end_s) in phones),
                weights=arrays["weights"].astype(np.float32),
                contact=arrays["contact"].astype(np.float32),
                blinks=arrays["blinks"].astype(np.float32),
            )
