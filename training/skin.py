"""A small base colour for the default head: skin, lips, brows, eyes, teeth, tongue, all of it smooth.

`models.skin` paints the same face at sizes that show its pores and hairs.
"""

import io

import numpy as np
from PIL import Image

from models.atlas import continue_outside
from models.skin.complexion import HAIR, Colors, Complexion, mix
from models.skin.neutral import STRIP, paint
from models.skin.relief import mottle
from models.template import Head
from models.texels import Texels


def base_color_png(head: Head, size: int = 512) -> bytes:
    """The base colour as PNG, deterministic. Painted at four times the size, then reduced."""
    complexion = Complexion(head)
    strips = [slice(start, start + STRIP) for start in range(0, 4 * size, STRIP)]
    painted = [paint(head, 4 * size, rows, lambda texels: _smooth(complexion, texels)) for rows in strips]
    image, covered = (np.concatenate(parts) for parts in zip(*painted, strict=True))
    image = np.clip(continue_outside(image, covered), 0, 255).astype(np.uint8)
    small = Image.fromarray(image).resize((size, size), Image.Resampling.BOX)
    buffer = io.BytesIO()
    small.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _smooth(complexion: Complexion, texels: Texels) -> Colors:
    """Skin whose hairs are a haze."""
    color = complexion.color(texels) * (1 + 0.012 * mottle(texels, 1, 0.002))[:, None]
    color = mix(color, HAIR * 0.5, complexion.lash_line(texels))
    color = mix(color, HAIR, 0.9 * complexion.brow(texels.position) * (0.78 + 0.2 * mottle(texels, 3, 0.0015)))
    return mix(color, HAIR, 0.72 * complexion.stubble(texels.position) * (1 + 0.08 * mottle(texels, 4, 0.001)))
