"""The fine relief of skin, in closed form: sums of waves in space.

They know nothing of charts, so no seam shows, and a texel sees each wave as its own box blurs it: a wave of wavenumber
k under a box of variance b is lower by exp(−k² b / 2). So an image is about the average of a larger one.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32

from models.texels import Surface, Texels

GRAIN_MM, GRAIN_WAVES = (0.9, 2.2), 24
"""Wavelengths of the skin's grain, and of how many it is made."""
MOTTLE_WAVES = 24
FURROW_MM, FURROW_WAVES = ((0.35, 0.5), (0.6, 0.9)), 10
"""Wavelengths of the waves between which the finer and the coarser furrows run."""
FURROW_WIDTH, FURROW_FADE_MM = 0.45, 0.25
"""Half breadth of a furrow, of the waves' deviation; and the wavelength that fades like one as texels grow."""
LIP_MM, LIP_BREADTH, LIP_FAN = {1.3: 1.0, 0.5: 0.5}, 0.13, 0.35
"""How far apart the lips' furrows run, and how deep; deviation of one, of that distance; and how far they fan out."""
KEPT = 32
"""How many sets of waves are kept, and of how many it is kept how high each face sees them, 1 MB each."""

Values = Float32[np.ndarray, " texels"]


@dataclass(frozen=True, eq=False)
class Waves:
    """Plane waves: wavevectors (n, 3) in radians per metre, and phases (n,)."""

    vectors: Float[np.ndarray, "waves 3"]
    phases: Float[np.ndarray, " waves"]


def draw_grain(texels: Texels, seed: int) -> Values:
    """The skin's grain, of unit deviation before texels blur it."""
    return _sum(texels, _band(seed, GRAIN_MM, GRAIN_WAVES), blurred=True) * np.float32(np.sqrt(2 / GRAIN_WAVES))


def mottle(texels: Texels, seed: int, scale_m: float) -> Values:
    """Smooth noise of about unit deviation: waves of about `scale_m` and longer."""
    return _sum(texels, _long(seed, scale_m), blurred=True) * np.float32(np.sqrt(2 / MOTTLE_WAVES))


def furrows(texels: Texels, seed: int) -> Values:
    """The net of furrows between which skin is raised: 0 on average, about 1 in the bottom of one."""
    total = np.zeros(len(texels.index), np.float32)
    for number, band in enumerate(FURROW_MM):
        noise = _sum(texels, _band(seed + number, band, FURROW_WAVES), blurred=False)
        noise *= np.float32(np.sqrt(2 / FURROW_WAVES) / FURROW_WIDTH)
        # where the noise is 0 a furrow runs; of Gaussian noise this is the mean
        total += np.exp(-(noise**2)) - (1 + 2 / FURROW_WIDTH**2) ** -0.5
    return total * fade(texels, FURROW_FADE_MM)


def lip_furrows(texels: Texels, middle: tuple[float, float]) -> Values:
    """The lips' upright furrows, wavering: 0 on average, about 1 in the bottom of the deepest.

    middle: half the mouth's breadth and its height, metres; the furrows fan out from it.
    """
    x, y, _ = texels.xyz
    away = np.abs(y - middle[1])
    fan = x * (1 - LIP_FAN * np.clip(away / 0.01, 0, 1) * np.abs(x) / middle[0])
    total = np.zeros(len(x), np.float32)
    for number, (apart_mm, depth) in enumerate(LIP_MM.items()):
        waver = 0.16 * mottle(texels, 20 + number, 0.006) + 0.03 * mottle(texels, 30 + number, 0.0018)
        place = 1e3 * fan / apart_mm + waver
        cell = np.round(place).astype(int)
        depths = np.random.default_rng(number).uniform(0.3, 1, 256).astype(np.float32)
        deep = depths[cell % 256] * (1 + 0.3 * mottle(texels, 40, 0.004))
        bottom = np.exp(-(((place - cell.astype(np.float32)) / LIP_BREADTH) ** 2) / 2)
        total += depth * (deep * bottom - 0.65 * float(np.sqrt(2 * np.pi)) * LIP_BREADTH)
    return total * fade(texels, FURROW_FADE_MM)


def fade(texels: Texels, wavelength_mm: float) -> Values:
    """How much of a wave of this length, in whichever direction of the skin, the texels show, 0..1."""
    return texels.spread(_faded(texels.surface, wavelength_mm))


@lru_cache(KEPT)
def _faded(surface: Surface, wavelength_mm: float) -> Float32[np.ndarray, " faces"]:
    variance = (surface.extent**2).sum((1, 2)) / 24  # the mean of both axes
    return np.exp(-((2e3 * np.pi / wavelength_mm) ** 2) * variance / 2).astype(np.float32)


@lru_cache(KEPT)
def _band(seed: int, wavelengths_mm: tuple[float, float], count: int) -> Waves:
    random = np.random.default_rng(seed)
    directions = random.standard_normal((count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    vectors = 2e3 * np.pi / random.uniform(*wavelengths_mm, (count, 1)) * directions
    return Waves(vectors, random.uniform(0, 2 * np.pi, count))


@lru_cache(KEPT)
def _long(seed: int, scale_m: float) -> Waves:
    random = np.random.default_rng(seed)
    vectors = random.standard_normal((MOTTLE_WAVES, 3)) * 2 * np.pi / scale_m
    return Waves(vectors, random.uniform(0, 2 * np.pi, MOTTLE_WAVES))


@lru_cache(KEPT)
def _heights(surface: Surface, waves: Waves) -> Float32[np.ndarray, "waves faces"]:
    """How high each face's texels see each wave, 0..1."""
    return np.stack([np.exp(-surface.variance(vector) / 2).astype(np.float32) for vector in waves.vectors])


def _sum(texels: Texels, waves: Waves, *, blurred: bool) -> Values:
    """Σ sin(k · position + phase). In single precision, and one product after the other, so that a texel's value does
    not depend on how many are asked for.
    """
    x, y, z = texels.xyz
    total, wave, part = np.zeros((3, len(x)), np.float32)
    heights = _heights(texels.surface, waves) if blurred else None
    for number, (vector, phase) in enumerate(zip(waves.vectors, waves.phases, strict=True)):
        kx, ky, kz = vector.astype(np.float32)
        np.multiply(x, kx, out=wave)
        for along, k in ((y, ky), (z, kz)):
            wave += np.multiply(along, k, out=part)
        wave += np.float32(phase)
        np.sin(wave, out=wave)
        if heights is not None:
            wave *= heights[number].take(texels.face, mode="clip", out=part)
        total += wave
    return total
