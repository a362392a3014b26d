"""Recipe: the styles that are shipped: pivots of actors, each made to show one thing (TexTalker 4.4).

    python -m training styles --corpus build/corpus --weights weights

A pivot is the mean latent of an actor who speaks clips of the corpus. Every style has both parts, so that any of them
can be given as `style`: an actor of a motion style has a middle-aged skin; one of a wrinkle style makes faces that fold
it, by turns if one would smooth what another folds, and only the wrinkles are kept, beside the motion of an actor with
no habit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from tqdm import tqdm

from models.checkpoint import pin
from models.core import StylePivot, Waveform
from models.pivots import save_styles
from models.textalker.codes import RATE_HZ
from models.textalker.encoding import BATCH, MapEncoders, MotionTally, WrinkleTally
from models.textalker.maps import from_network, log_ratio
from training.autoencoder import MapMaker
from training.corpus.build import Speech, animate
from training.corpus.coarticulation import NEUTRAL, MotionStyle
from training.corpus.coarticulation import RATE_HZ as CORPUS_RATE_HZ
from training.corpus.expressions import Habit
from training.corpus.face import FaceRig
from training.corpus.subjects import Subject
from training.corpus.wrinkles import FOLDS, WrinkleField, WrinkleStyle
from training.datasets.corpus import Corpus, CorpusClip, tracks_at

CLIPS = 10
"""Recordings that every actor speaks: about a minute and a half."""
MOMENTS = 400
"""Frames of them whose wrinkles count."""
NOBODY = Subject(
    id="actor",
    held_out=False,
    phenotypes={},
    changes={},
    motion=NEUTRAL,
    jaw_share=0.82,
    smile=0.3,
    asymmetry=0.0,
    brow_gain=0.6,
    blink_interval_s=3.0,
    habit=Habit(),
    wrinkles=WrinkleStyle(),
)
"""No habit, the coarticulation model's own articulation, a middle-aged skin: the style `neutral`."""


@dataclass(frozen=True)
class Actor:
    """A style to be: what it looks like, and what is changed of NOBODY."""

    description: str
    motion: MotionStyle = NEUTRAL
    habits: tuple[Habit, ...] = (NOBODY.habit,)
    wrinkles: WrinkleStyle = NOBODY.wrinkles

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Who acts it: the same person in each habit."""
        return tuple(replace(NOBODY, motion=self.motion, habit=habit, wrinkles=self.wrinkles) for habit in self.habits)


def _skin(old: float, **families: float) -> WrinkleStyle:
    """A skin whose lines are `old` times as deep as they get, some families more or less."""
    depth = {name: families.get(name, old) * fold.depth for name, fold in FOLDS.items()}
    return WrinkleStyle(depth, onset=1.35 - 0.55 * min(old, 1.0), finer=0.4 + 1.2 * min(old, 1.0))


MOTIONS = {
    "neutral": Actor("No habit, plain articulation, a middle-aged skin."),
    "smiling": Actor("Speaks with a smile: corners of the mouth up, cheeks raised.", habits=(Habit({"smile": 0.9}),)),
    "stern": Actor("Brows drawn down and together, eyes narrowed.", habits=(Habit({"anger": 0.9}),)),
    "surprised": Actor("Brows raised, eyes wide.", habits=(Habit({"surprise": 0.9}),)),
    "sad": Actor("Inner brows up, corners of the mouth down.", habits=(Habit({"sadness": 0.9}),)),
    "broad": Actor(
        "Opens and rounds the lips widely, more where the voice is loud.", MotionStyle(1.3, 1.4, 1.0, 0.0, 0.15)
    ),
    "mumbled": Actor("Hardly opens the mouth.", MotionStyle(0.6, 0.6)),
}
WRINKLES = {
    "smooth": Actor("A young skin: hardly a line.", wrinkles=_skin(0.12)),
    "lined": Actor(
        "An old skin: deep lines all over the face.",
        habits=(Habit({"smile": 0.9, "squint": 0.6, "surprise": 1.0}), Habit({"smile": 0.9, "anger": 1.0})),
        wrinkles=_skin(1.6, forehead=2.2, glabella=2.2),
    ),
    "furrowed": Actor(
        "Deep lines across the forehead and between the brows, few elsewhere.",
        habits=(Habit({"surprise": 1.0}), Habit({"anger": 1.0})),
        wrinkles=_skin(0.2, forehead=2.6, glabella=2.6, nose_bridge=1.2),
    ),
    "laugh-lined": Actor(
        "Crow's feet, folds under the eyes and from nose to mouth; a smooth forehead.",
        habits=(Habit({"smile": 1.0, "squint": 0.8}),),
        wrinkles=_skin(0.2, crows_feet=1.8, under_eye=1.4, nasolabial=1.8),
    ),
}
"""Lines that fold in half of a pivot's moments are twice as deep."""


def shipped_skins() -> list[WrinkleStyle]:
    """The skins of all actors, which the auto-encoder of wrinkles should know."""
    skins = [actor.wrinkles for actor in (MOTIONS | WRINKLES).values()]
    return [skin for k, skin in enumerate(skins) if skin not in skins[:k]]


def act(
    speech: Sequence[CorpusClip], subjects: Sequence[Subject], rig: FaceRig
) -> Iterator[tuple[Float32[np.ndarray, "frames actions"], Float32[np.ndarray, " frames"]]]:
    """Action weights and contact of clips that subjects speak by turns, at 30 frames a second."""
    for number, clip in enumerate(speech):
        own = Speech(clip.id, "", Waveform(clip.samples), list(clip.phones))
        arrays = animate(own, subjects[number % len(subjects)], rig, np.random.default_rng([number, 0xAC7]))
        tracks = [arrays[name].astype(np.float32) for name in ("weights", "contact")]
        time_s = np.arange(int(len(tracks[0]) / CORPUS_RATE_HZ * RATE_HZ)) / RATE_HZ
        weights, contact = tracks_at(time_s, *tracks)
        yield weights, contact


def make_styles(corpus: Corpus, rig: FaceRig, encoders: MapEncoders) -> list[StylePivot]:
    """All shipped styles, with what they look like, measured."""
    speech = list(islice((clip for clip in corpus.clips(held_out=False) if clip.recorded), CLIPS))
    actors = MOTIONS | WRINKLES
    maker = MapMaker(
        rig,
        encoders.maps.size,
        encoders.wrinkle_size,
        [WrinkleField(rig.head, actor.wrinkles) for actor in actors.values()],
    )
    pivots, neutral = list[StylePivot](), dict[str, np.ndarray]()
    for field, (name, actor) in enumerate(tqdm(actors.items(), desc="styles", dynamic_ncols=True)):
        tracks = list(act(speech, actor.subjects, rig))
        spoken = tuple(np.concatenate(column) for column in zip(*tracks, strict=True))
        motion, look = _motion(maker, encoders, *spoken) if name in MOTIONS else (neutral["motion"], {})
        wrinkle, skin = _wrinkles(maker, encoders, field, *_some(*spoken))
        origin = f"{'motion' if name in MOTIONS else 'skin'} of a synthetic actor"
        pivots.append(StylePivot(name, actor.description, origin, {**look, **skin}, motion, wrinkle))
        neutral.setdefault("motion", motion)
    return pivots


def _motion(
    maker: MapMaker, encoders: MapEncoders, weights: np.ndarray, contact: np.ndarray
) -> tuple[np.ndarray, Mapping[str, float]]:
    tally, rows = MotionTally(encoders.head), []
    for start in range(0, len(weights), BATCH):
        own = slice(start, start + BATCH)
        rows.append(encoders.encode("motion", maker.motion(weights[own], contact[own])))
        tally.add(maker.rig.offsets(weights[own], contact[own]))
    return _mean(rows), tally.statistics()


def _wrinkles(
    maker: MapMaker, encoders: MapEncoders, field: int, weights: np.ndarray, contact: np.ndarray
) -> tuple[np.ndarray, Mapping[str, float]]:
    tally, rows = WrinkleTally(encoders.head, encoders.wrinkle_size), []
    for start in range(0, len(weights), BATCH):
        own = slice(start, start + BATCH)
        maps = maker.wrinkles(weights[own], contact[own], [field] * len(weights[own]))
        rows.append(encoders.encode("wrinkle", maps))
        tally.add(log_ratio(from_network(maps.transpose(0, 2, 3, 1))))
    return _mean(rows), tally.statistics()


def _some(weights: np.ndarray, contact: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    every = max(1, len(weights) // MOMENTS)
    return weights[::every], contact[::every]


def _mean(rows: Sequence[np.ndarray]) -> Float32[np.ndarray, " latents"]:
    return np.concatenate(rows).mean(0, dtype=np.float64).astype(np.float32)


def write_styles(folder: Path, pivots: Sequence[StylePivot], autoencoders: str) -> Path:
    """Write `styles.safetensors` into a folder of weights, pinned."""
    path = folder / "styles.safetensors"
    save_styles(path, pivots, autoencoders)
    pin(folder, "styles", path)
    return path
