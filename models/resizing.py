"""Images of any numbers at another size."""

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image

Box = tuple[float, float, float, float]


def resize_planes(
    image: Float[np.ndarray, "own_rows own_columns channels"],
    rows: int,
    columns: int,
    way: Image.Resampling,
    box: Box | None = None,
) -> Float32[np.ndarray, "rows columns channels"]:
    """Each channel resized in float32; `box` is what of the image counts: left, top, right, bottom."""
    planes = np.moveaxis(image, 2, 0).astype(np.float32, order="C")
    return np.stack([np.asarray(Image.fromarray(plane).resize((columns, rows), way, box)) for plane in planes], 2)
