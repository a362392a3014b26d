"""Textures: the neutral one, and each frame's from its wrinkle map.

texture = neutral · exp(log ratio), in sRGB values (TexTalker 4.2).
"""

from dataclasses import dataclass
from io import BytesIO

import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image

from models.core import Clip, Mesh

PLAIN = (231, 231, 231)
"""Base colour of a head without a texture: the grey that `glb` gives it, 0.8 in linear light, in sRGB values."""
QUALITY = 95


@dataclass(frozen=True, eq=False)
class Picture:
    """An encoded image and its media type."""

    data: bytes
    media_type: str


def base_color(mesh: Mesh) -> Picture | None:
    """The texture of a mesh as it came, if it has one."""
    return None if mesh.base_color_png is None else Picture(mesh.base_color_png, "image/png")


class TextureComposer:
    """Textures of one clip: (size, size), row 0 at the top of the atlas.

    Where a wrinkle map is 0 for two of its own texels around, the texture is the neutral one, value for value.
    """

    def __init__(self, base_color_png: bytes | None, size: int) -> None:
        self.size = size
        self.base = _base_color(base_color_png, size)
        self._base = self.base.astype(np.float32)

    def neutral(self) -> Picture:
        """The neutral texture as PNG."""
        return png(self.base)

    def log_ratio(self, wrinkles: Float[np.ndarray, "own own 3"]) -> Float32[np.ndarray, "size size 3"]:
        """A wrinkle map at the size of the textures, bicubic."""
        return resize(wrinkles, self.size)

    def compose(self, wrinkles: Float[np.ndarray, "own own 3"]) -> UInt8[np.ndarray, "size size 3"]:
        """The texture of a frame."""
        ratio = self.log_ratio(wrinkles)
        np.exp(ratio, out=ratio)
        ratio *= self._base
        np.rint(ratio, out=ratio)
        return np.clip(ratio, 0, 255, out=ratio).astype(np.uint8)

    def picture(self, wrinkles: Float[np.ndarray, "own own 3"]) -> Picture:
        """The texture of a frame as JPEG, without chroma subsampling: wrinkles are redder than skin."""
        file = BytesIO()
        Image.fromarray(self.compose(wrinkles)).save(file, "jpeg", quality=QUALITY, subsampling=0)
        return Picture(file.getvalue(), "image/jpeg")


def composer_of(clip: Clip) -> TextureComposer | None:
    """What makes a clip's textures, if it has any."""
    return TextureComposer(clip.mesh.base_color_png, clip.texture) if clip.texture else None


def resize(image: Float[np.ndarray, "own own channels"], size: int) -> Float32[np.ndarray, "size size channels"]:
    """An image at another size, bicubic, in float32; at its own size it is the same, value for value."""
    planes = [
        np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BICUBIC))
        for plane in np.moveaxis(image, 2, 0).astype(np.float32, order="C")
    ]
    return np.stack(planes, axis=2)


def png(image: UInt8[np.ndarray, "size size 3"]) -> Picture:
    """An image as PNG, at zlib's fastest level."""
    file = BytesIO()
    Image.fromarray(image).save(file, "png", compress_level=1)
    return Picture(file.getvalue(), "image/png")


def _base_color(base_color_png: bytes | None, size: int) -> UInt8[np.ndarray, "size size 3"]:
    if base_color_png is None:
        return np.full((size, size, 3), PLAIN, np.uint8)
    with Image.open(BytesIO(base_color_png)) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.LANCZOS))
