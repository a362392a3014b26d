"""The neutral texture of the canonical head: procedural, deterministic, of any size, in strips.

    NeutralSkin(head).rows(8192)

Relief, pores and hairs lie on the head in millimetres, so that they are physical and show no chart's edge; a larger
image shows more of them, and averages to a smaller one. The grain is that of `training.corpus.wrinkles`: what skin
takes more of the shade when it is squeezed shows a little at rest, too, which is what a texture can tell an upsampler
of wrinkles.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, UInt8
from PIL import Image

from models.checkpoint import pinned_file
from models.errors import OutOfRange
from models.skin.complexion import FLUSH, HAIR, LIPS, Colors, Complexion, Points, Values, mix, rgb, tinted
from models.skin.marks import Marks, draw, grow, scatter
from models.skin.parts import paint_part
from models.skin.relief import draw_grain, fade, furrows, lip_furrows, mottle
from models.template import Head, load_head
from models.texels import Surface, Texels, chart_texels

SIZES = (64, 16384)
STRIP = 64
"""Rows that are painted at a time."""
BLOCK = 1 << 15
"""Texels whose colours are made at a time: few enough that what is made on the way stays in a core's own cache."""
GRAIN = 0.15
"""How strong the grain is: `WrinkleStyle.grain`."""
GRAIN_AT_REST = 0.14
"""Log-ratio of a unit of grain at rest, of its strength."""
FURROW, LIP_FURROW = 0.04, 0.15
"""Log-ratio in the bottom of a furrow, of skin and of the lips' red."""
PORES_PER_MM2, PORES_APART_M = 1.6, 0.00038
PORE_M, PORE_DEPTH = (0.00006, 0.00013), (0.08, 0.26)
"""Deviations of pores: a visible pore measures 0.1 to 0.3 mm; and log-ratios in their middles."""
FRECKLES_PER_MM2, FRECKLE_M = 0.035, (0.0003, 0.0009)
HAIRS_PER_MM2, HAIR_M = 2.4, 0.000045
"""Of the brows; half the breadth of a hair."""
PORE_TINT, FRECKLE_TINT = rgb(0.8, 1.0, 1.05), rgb(0.5, 1.0, 1.25)

Paint = Callable[[Texels], Colors]
Image3 = Float32[np.ndarray, "rows columns 3"]


class NeutralSkin:
    """A head's texture at rest. seed: where its grain lies; grain: how strong that is."""

    def __init__(self, head: Head, seed: int = 0, grain: float = GRAIN) -> None:
        self._head, self._seed, self._grain = head, seed, grain
        self._complexion = Complexion(head)
        random = np.random.default_rng(0x5C1)
        self._pores = self._draw_pores(random)
        self._freckles = self._draw_freckles(random)
        self._brows = self._draw_brows(random)
        with Image.open(BytesIO(head.base_color_png)) as image:
            self._small = image.convert("RGB")

    def rows(self, size: int, strip: int = STRIP, workers: int = 1) -> Iterator[UInt8[np.ndarray, "rows size 3"]]:
        """The texture, sRGB, strip by strip from the top; the same whatever their height, and however many threads
        paint. OutOfRange for sizes outside SIZES.

        About 220 bytes are held for each texel of a strip that is being painted, one by each worker, beside 40 MB for
        marks and tables.
        """
        check_size(size)
        strips = [slice(start, min(start + strip, size)) for start in range(0, size, strip)]
        if workers == 1:
            return (self.window(size, rows, slice(0, size)) for rows in strips)
        return self._together(size, strips, workers)

    def _together(self, size: int, strips: Sequence[slice], workers: int) -> Iterator[UInt8[np.ndarray, "rows size 3"]]:
        """Strips in their order, from several threads that are at most a strip each ahead of who reads them."""
        Surface.of(self._head, size)  # once, not in every thread
        with ThreadPoolExecutor(workers, "skin") as pool:
            waiting = deque[Future[UInt8[np.ndarray, "rows size 3"]]]()
            try:
                for rows in strips:
                    waiting.append(pool.submit(self.window, size, rows, slice(0, size)))
                    if len(waiting) > workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()

    def window(self, size: int, rows: slice, columns: slice) -> UInt8[np.ndarray, "rows columns 3"]:
        """Some rows and columns of the texture."""
        surface = Surface.of(self._head, size)
        marks = [draw(each, surface, size, rows, columns) for each in (self._pores, self._freckles, self._brows)]
        image, covered = paint(self._head, size, rows, lambda texels: self._skin(texels, *marks), columns)
        scale = self._small.width / size
        box = columns.start * scale, rows.start * scale, columns.stop * scale, rows.stop * scale
        result = np.array(self._small.resize(covered.shape[::-1], Image.Resampling.BILINEAR, box))
        for channel in range(3):
            np.copyto(result[..., channel], np.round(np.clip(image[..., channel], 0, 255)), "unsafe", where=covered)
        return result

    def _skin(self, texels: Texels, pores: np.ndarray, freckles: np.ndarray, brows: np.ndarray) -> Colors:
        looks, (x, y, _) = self._complexion, texels.xyz
        pore, freckle, hair = (image.ravel().take(texels.index) for image in (pores, freckles, brows))
        ear = np.clip((np.abs(x) - 0.068) / 0.008, 0, 1) * np.exp(-(((y - looks.eye_y + 0.02) / 0.028) ** 2))
        color = mix(looks.color(texels), FLUSH, 0.25 * ear + 0.05 * np.clip(mottle(texels, 6, 0.008), 0, 2))
        red, lashes, stubble = looks.red(texels), looks.lash_line(texels), looks.stubble(texels.xyz.T)
        depth = -GRAIN_AT_REST * self._grain * draw_grain(texels, self._seed)
        if (stubble < 1).any():
            depth += FURROW * self._bare(texels, stubble) * furrows(texels, 11)
        if red.any():
            color = mix(color, LIPS * 0.86, red * np.clip(0.12 * mottle(texels, 7, 0.004), 0, 0.3))
            depth = depth * (1 - red) + LIP_FURROW * red * lip_furrows(texels, looks.middle)
        color *= np.exp(-(tinted(pore, PORE_TINT) + tinted(freckle, FRECKLE_TINT) + depth[:, None]))
        if lashes.any():
            color = mix(color, HAIR * 0.5, lashes * (1 + 0.25 * mottle(texels, 8, 0.0007)))
        color = mix(color, HAIR, 0.92 * (1 - np.exp(-hair)))
        if stubble.any():
            haze = 1 + 0.3 * mottle(texels, 4, 0.0009) * fade(texels, 0.6)
            color = mix(color, HAIR, 0.72 * stubble * haze)
        return color

    def _bare(self, texels: Texels, stubble: Values) -> Values:
        """How far furrows show: less where hair is short, and on the lids, whose skin is thin."""
        lids = np.exp(-((self._complexion.from_lids(texels) / 0.004) ** 2))
        return np.asarray((1 - 0.6 * lids) * (1 - stubble))

    def _draw_pores(self, random: np.random.Generator) -> Marks:
        places = scatter(self._head, PORES_PER_MM2, self._porous, random, PORES_APART_M)
        large = self._porous(places.position) * random.uniform(0.5, 1, len(places.face))
        sigma_m, depth = (low + (high - low) * large for low, high in (PORE_M, PORE_DEPTH))
        return Marks(places.face, places.uv, sigma_m, depth)

    def _porous(self, position: Points) -> Values:
        """How many and how large pores are, 0..1: most on the nose, then on cheeks and forehead; none on the lips."""
        looks, (x, y, z) = self._complexion, position.T
        nose = np.exp(-(np.hypot(x / 0.016, (y - looks.nose[1] - 0.008) / 0.02) ** 2))
        cheeks = 0.75 * np.exp(-(np.hypot((np.abs(x) - 0.03) / 0.02, (y - looks.nose[1] + 0.002) / 0.022) ** 2))
        forehead = 0.5 * np.exp(-(np.hypot(x / 0.05, (y - looks.eye_y - 0.055) / 0.025) ** 2))
        chin = 0.45 * np.exp(-(np.hypot(x / 0.022, (y - looks.middle[1] + 0.03) / 0.016) ** 2))
        mouth = np.hypot(x / (1.25 * looks.middle[0]), (y - looks.middle[1]) / 0.0125)
        eyes = np.hypot((np.abs(x) - 0.032) / 0.019, (y - looks.eye_y) / 0.012)
        away = np.clip(4 * (mouth - 1), 0, 1) * np.clip(2 * (eyes - 1), 0, 1) * np.clip((z - 0.03) / 0.03, 0, 1)
        return np.asarray(np.maximum.reduce([nose, cheeks, forehead, chin, np.full(len(x), 0.2)]) * away)

    def _draw_freckles(self, random: np.random.Generator) -> Marks:
        places = scatter(self._head, FRECKLES_PER_MM2, self._freckled, random)
        count = len(places.face)
        return Marks(places.face, places.uv, random.uniform(*FRECKLE_M, count), random.gamma(2.0, 0.025, count))

    def _freckled(self, position: Points) -> Values:
        looks, (x, y, z) = self._complexion, position.T
        middle = np.exp(-(np.hypot((np.abs(x) - 0.025) / 0.03, (y - looks.nose[1] - 0.008) / 0.018) ** 2))
        return np.asarray((0.12 + 0.88 * middle) * np.clip((z - 0.02) / 0.03, 0, 1))

    def _draw_brows(self, random: np.random.Generator) -> Marks:
        looks = self._complexion
        roots = scatter(self._head, HAIRS_PER_MM2, looks.brow, random)
        along, count = np.clip(looks.along_brow(roots.position), 0, 1), len(roots.face)
        rise = np.radians(68 - 80 * along**0.6 + random.normal(0, 9, count))
        side, bend = np.sign(roots.position[:, 0]), np.radians(random.normal(26, 8, count))

        def heading(share: float) -> Points:
            angle = rise - share * bend
            return np.stack([side * np.cos(angle), np.sin(angle), np.zeros(count)], 1)

        length_m = (0.0082 - 0.003 * along) * random.uniform(0.65, 1.1, count)
        return grow(self._head, roots, heading, length_m, HAIR_M)


def check_size(size: int) -> None:
    """OutOfRange for sizes outside SIZES."""
    low, high = SIZES
    if not low <= size <= high:
        raise OutOfRange(f"a skin of {size} texels; wanted {low} to {high}", field="size")


def open_skin(weights: Path) -> NeutralSkin:
    """The skin of the head in a folder of weights. CheckpointError if it is missing or damaged."""
    return NeutralSkin(load_head(pinned_file(weights, "head")[0]))


def paint(
    head: Head, size: int, rows: slice, skin: Paint, columns: slice | None = None
) -> tuple[Image3, Bool[np.ndarray, "rows columns"]]:
    """Colours of a window's texels, 0..255 and beyond, and which of them any chart covers. `skin` paints skin."""
    columns = columns or slice(0, size)
    shape = rows.stop - rows.start, columns.stop - columns.start
    image, covered = np.zeros((3, shape[0] * shape[1]), np.float32), np.zeros(shape[0] * shape[1], bool)
    for chart, texels in chart_texels(head, size, rows, columns).items():
        for start in range(0, len(texels.index), BLOCK):
            part = texels.of(slice(start, start + BLOCK))
            color = skin(part) if chart == "skin" else paint_part(head, chart, part)
            for channel in range(3):
                image[channel, part.index] = color[:, channel]
        covered[texels.index] = True
    return image.reshape(3, *shape).transpose(1, 2, 0), covered.reshape(shape)
