"""Wrinkles laid out as a template's texture is. Nothing here needs torch."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float32, UInt8

from models.core import Enlarger
from models.layout import Layout


class Relayout:
    """What `enlarger` makes, or the engine's own maps of `own` texels, in a template's layout: a `models.core.Enlarger`
    as well.
    """

    def __init__(self, layout: Layout, enlarger: Enlarger | None, own: int) -> None:
        self.large, self._layout, self._enlarger = enlarger.large if enlarger else own, layout, enlarger

    def image(self, wrinkles: Float[np.ndarray, "own own 3"]) -> Float32[np.ndarray, "large large 3"]:
        """See `models.core.Enlarger.image`; still on the atlas."""
        return self._enlarger.image(wrinkles) if self._enlarger else wrinkles.astype(np.float32)

    def rows(
        self, image: Float32[np.ndarray, "large large 3"], size: int
    ) -> Iterator[Float32[np.ndarray, "rows size 3"]]:
        """See `models.core.Enlarger.rows`; in the template's layout."""
        return self._layout.rows(image, size)

    def on_atlas(self, texture: UInt8[np.ndarray, "n n 3"]) -> UInt8[np.ndarray, "n n 3"]:
        """See `models.core.Enlarger.on_atlas`."""
        return self._layout.to_atlas(texture, len(texture))
