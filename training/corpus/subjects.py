"""The corpus' cast: synthetic subjects, each with a head and a way of speaking of its own."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from training.corpus.coarticulation import MotionStyle
from training.corpus.expressions import Habit, draw_habit
from training.corpus.wrinkles import WrinkleStyle, draw_wrinkle_style

COUNT = 32
HELD_OUT = 4
"""The last subjects of the cast are never trained on."""
SHAPE_CHANGES = (
    "chin-bones-incr", "chin-height-incr", "chin-prominent-incr", "chin-width-incr", "forehead-nubian-incr",
    "forehead-scale-vert-incr", "forehead-temple-incr", "head-fat-incr", "head-scale-depth-incr",
    "head-scale-horiz-incr",
    "mouth-cupidsbow-incr", "mouth-lowerlip-height-incr", "mouth-lowerlip-volume-incr", "mouth-scale-horiz-incr",
    "mouth-trans-up", "mouth-upperlip-height-incr", "mouth-upperlip-volume-incr", "nose-hump-incr", "nose-point-up",
    "nose-scale-depth-incr", "nose-scale-horiz-incr", "nose-scale-vert-incr", "nose-volume-incr", "nose-width3-incr",
)  # fmt: skip
"""anny's local changes that tell faces apart; they go both ways."""


@dataclass(frozen=True)
class Subject:
    """A head (anny's phenotypes and local changes), a motion style, and a wrinkle style that does not depend on it."""

    id: str
    held_out: bool
    phenotypes: Mapping[str, float]
    changes: Mapping[str, float]
    motion: MotionStyle
    jaw_share: float
    """How much of an opening the jaw does; the lips do most of the rest."""
    smile: float
    """How much of a spread is a smile rather than a stretch."""
    asymmetry: float
    """How much stronger the left side moves; negative for the right."""
    brow_gain: float
    blink_interval_s: float
    habit: Habit
    """The expression that it wears."""
    wrinkles: WrinkleStyle


def draw_subjects(seed: int = 0, count: int = COUNT, held_out: int = HELD_OUT) -> tuple[Subject, ...]:
    """The cast, deterministic by seed."""
    return tuple(_draw_subject([seed, k], f"S{k:02d}", k >= count - held_out) for k in range(count))


def _draw_subject(seed: list[int], name: str, held_out: bool) -> Subject:
    random = np.random.default_rng(seed)
    origin = random.dirichlet([0.7, 0.7, 0.7])
    phenotypes = {
        "gender": float(random.beta(0.6, 0.6)),
        "age": float(random.uniform(0.5, 0.95)),
        "muscle": float(random.uniform(0.3, 0.8)),
        "weight": float(random.uniform(0.25, 0.85)),
        **{key: float(share) for key, share in zip(("african", "asian", "caucasian"), origin, strict=True)},
    }
    chosen = random.choice(len(SHAPE_CHANGES), 8, replace=False)
    changes = {SHAPE_CHANGES[k]: float(random.uniform(-0.6, 0.6)) for k in chosen}
    motion = MotionStyle(
        open_gain=float(random.uniform(0.6, 1.3)),
        round_gain=float(random.uniform(0.6, 1.4)),
        tau_scale=float(random.uniform(0.8, 1.25)),
        lead_s=float(random.uniform(0.0, 0.02)),
        loudness_gain=float(random.uniform(0.0, 0.15)),
    )
    return Subject(
        id=name,
        held_out=held_out,
        phenotypes=phenotypes,
        changes=changes,
        motion=motion,
        jaw_share=float(random.uniform(0.7, 0.95)),
        smile=float(random.uniform(0.0, 0.6)),
        asymmetry=float(random.normal(0, 0.06)),
        brow_gain=float(random.uniform(0.3, 1.0)),
        blink_interval_s=float(3.0 * np.exp(random.normal(0, 0.3))),
        habit=draw_habit(np.random.default_rng([*seed, 1])),
        wrinkles=draw_wrinkle_style(np.random.default_rng([*seed, 2]), phenotypes["age"]),
    )
