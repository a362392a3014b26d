"""Whether motion style and wrinkle style reach each other, and whether mixes go from one style to the other.

    python -m training evaluate styles tests/data/LJ001-0002.flac

Everything is measured on what the engine gives: vertices in millimetres, and log-ratios of textures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float16, Float32
from tqdm import tqdm

from models.core import AnimateOptions, Waveform
from models.engine import Engine

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the second style in a mix of two."""
TEXTURE = 512


@dataclass(frozen=True, eq=False)
class Take:
    """One clip in one pair of styles: vertices in metres, and log-ratios."""

    vertices: Float32[np.ndarray, "frames vertices 3"]
    wrinkles: Float16[np.ndarray, "frames size size 3"]

    def moved_mm(self, other: "Take") -> Float32[np.ndarray, "frames vertices"]:
        """How far each vertex is from where it is in another take."""
        return np.asarray(1e3 * np.linalg.norm(self.vertices - other.vertices, axis=2), np.float32)

    def changed(self, other: "Take") -> Float32[np.ndarray, "frames size size 3"]:
        """How much each texel's log-ratio differs from another take's."""
        return np.abs(self.wrinkles.astype(np.float32) - other.wrinkles)


def style_report(engine: Engine, waveform: Waveform, styles: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """What changing one half of a style does to either half of the face, for styles one after the other; and how far
    mixes of each two are from the first.
    """

    def take(motion: str, wrinkle: str) -> Take:
        options = AnimateOptions(
            engine="textalker", motion_style=motion, wrinkle_style=wrinkle, seed=seed, texture=TEXTURE
        )
        frames = list(engine.animate(waveform, options).frames)
        wrinkles = [frame.wrinkles for frame in frames if frame.wrinkles is not None]
        return Take(np.stack([frame.vertices for frame in frames]), np.stack(wrinkles))

    motions, skins, mixes = [], [], []
    for one, other in tqdm(list(pairwise(styles)), desc="styles", dynamic_ncols=True):
        base = take(one, one)
        motions.append({"from": one, "to": other} | _difference(base, take(other, one)))
        skins.append({"from": one, "to": other} | _difference(base, take(one, other)))
        takes = [take(expression, expression) for expression in _mixes(one, other)]
        mixes.append({"from": one, "to": other} | _way(takes))
    return {"motion_style": motions, "wrinkle_style": skins, "mixes": mixes, "shares": SHARES}


def _mixes(one: str, other: str) -> list[str]:
    return [f"{one}({1 - share})+{other}({share})" for share in SHARES]


def _difference(one: Take, other: Take) -> dict[str, float]:
    moved, changed = one.moved_mm(other), one.changed(other)
    return {
        "vertices_max_mm": float(moved.max()),
        "vertices_rms_mm": float(np.sqrt(np.square(moved).mean())),
        "maps_max": float(changed.max()),
        "maps_rms": float(np.sqrt(np.square(changed).mean())),
    }


def _way(takes: Sequence[Take]) -> dict[str, Any]:
    """Distances of the takes from the first, and whether none falls."""
    vertices = [_difference(takes[0], take)["vertices_rms_mm"] for take in takes]
    maps = [_difference(takes[0], take)["maps_rms"] for take in takes]
    rising = all(before <= after for way in (vertices, maps) for before, after in pairwise(way))
    return {"vertices_rms_mm": vertices, "maps_rms": maps, "rising": rising}
