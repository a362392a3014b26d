"""What a face does beside speaking: an expression that a subject wears by habit, and others that come and go.

A habit is half of a motion style, beside the way of articulating. It breathes with the voice, so that part of it can be
heard; the episodes are chance.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from scipy.special import expit

from training.corpus.coarticulation import RATE_HZ, Curve

EXPRESSIONS: Mapping[str, Mapping[str, float]] = {
    "smile": {"mouthSmile": 0.55, "cheekSquint": 0.5, "mouthDimple": 0.2, "eyeSquint": 0.15},
    "sadness": {"mouthFrown": 0.6, "browInnerUp": 0.7, "mouthShrugLower": 0.3},
    "anger": {"browDown": 0.9, "eyeSquint": 0.35, "noseSneer": 0.3},
    "surprise": {"browInnerUp": 0.8, "browOuterUp": 0.85, "eyeWide": 0.55},
    "disgust": {"noseSneer": 0.75, "browDown": 0.4, "mouthUpperUp": 0.12, "cheekSquint": 0.2},
    "squint": {"eyeSquint": 0.8, "cheekSquint": 0.5, "browDown": 0.25},
}
"""Actions of each expression at full strength; those that come in pairs by their common name."""
UNPAIRED = ("browInnerUp", "mouthShrugLower")
BREATH_S = 0.8
"""Time in which a habit follows the voice."""


@dataclass(frozen=True)
class Habit:
    """How strongly a subject wears each expression while speaking, and how many episodes a minute it has."""

    levels: Mapping[str, float] = field(default_factory=dict)
    episodes_per_minute: float = 0.0


def draw_habit(random: np.random.Generator) -> Habit:
    """One habitual expression or two, or, for every fourth subject, none."""
    count = int(random.choice(3, p=[0.25, 0.5, 0.25]))
    chosen = random.choice(sorted(EXPRESSIONS), count, replace=False)
    levels = {str(name): float(random.uniform(0.25, 0.9) / max(1, count) ** 0.5) for name in chosen}
    return Habit(levels, float(random.uniform(2, 8)))


def expression_track(
    habit: Habit, loudness: Curve, blinks: Curve, asymmetry: float, random: np.random.Generator
) -> dict[str, Float[np.ndarray, " samples"]]:
    """Weights by action at RATE_HZ. Eyes that blink neither squint nor widen."""
    count = len(loudness)
    strengths = {name: level * _breath(loudness, random) for name, level in habit.levels.items()}
    for name, episode in _episodes(count, habit.episodes_per_minute, random):
        strengths[name] = np.maximum(strengths.get(name, np.zeros(count)), episode)
    tracks: dict[str, np.ndarray] = {}
    for name, strength in strengths.items():
        for action, share in EXPRESSIONS[name].items():
            for side, track in on_sides(action, strength * share, asymmetry).items():
                awake = 1 - blinks if action in ("eyeSquint", "eyeWide", "cheekSquint") else 1
                tracks[side] = np.asarray(tracks.get(side, 0) + track * awake)
    return {action: np.clip(track, 0, 1) for action, track in tracks.items()}


def on_sides(action: str, track: Curve | float, asymmetry: float) -> dict[str, Curve | float]:
    """A track of an action as ARKit has it: of the middle, or of both sides."""
    return {action: track} if action in UNPAIRED else both_sides(action, track, asymmetry)


def both_sides(action: str, track: Curve | float, asymmetry: float) -> dict[str, Curve | float]:
    """A track of a paired action, stronger on the left by `asymmetry` and weaker on the right."""
    return {f"{action}Left": (1 + asymmetry) * track, f"{action}Right": (1 - asymmetry) * track}


def _breath(loudness: Curve, random: np.random.Generator) -> Curve:
    """About 1: more where the voice is loud, and a slow wander of its own."""
    heard = gaussian_filter1d(np.clip(loudness, -1.5, 1.5), BREATH_S / 2 * RATE_HZ, mode="nearest")
    wander = gaussian_filter1d(random.standard_normal(len(loudness) + 1), 1.5 * RATE_HZ, mode="nearest")[1:]
    return np.asarray(np.clip(0.95 + 0.35 * heard + 0.12 * wander / max(wander.std(), 1e-9), 0.2, 1.6))


def _episodes(count: int, per_minute: float, random: np.random.Generator) -> list[tuple[str, Curve]]:
    """Expressions that rise in 0.3 s, stay for about a second, and fall in half a second."""
    time_s, names, episodes = np.arange(count) / RATE_HZ, sorted(EXPRESSIONS), []
    for start_s in random.uniform(0, count / RATE_HZ, random.poisson(per_minute * count / RATE_HZ / 60)):
        hold_s, height = random.uniform(0.4, 1.8), random.uniform(0.3, 0.9)
        up, down = expit((time_s - start_s) / 0.07), expit((time_s - start_s - 0.3 - hold_s) / 0.1)
        episodes.append((names[int(random.integers(len(names)))], height * np.clip(up - down, 0, 1)))
    return episodes
