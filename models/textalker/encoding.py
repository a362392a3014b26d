"""From motion and wrinkles to latents, and from an example sequence to a style pivot (TexTalker 4.4, Eq. 5)."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float32

from models.core import StylePivot
from models.graphs import in_batches
from models.runtime import Runtime, on_arrays
from models.template import Head, Template
from models.textalker.autoencoder import Autoencoder
from models.textalker.maps import MotionMaps, to_network, wrinkle_map

if TYPE_CHECKING:
    from models.examples import Example

BATCH = 16
"""Maps that are encoded at a time."""


class MapEncoders:
    """Both encoders, compiled, and the maps that they read."""

    parts: tuple[str, ...] = ("motion", "wrinkle")
    """What `encode_maps` gives latents of."""

    def __init__(self, head: Head, motion: Autoencoder, wrinkle: Autoencoder, runtime: Runtime) -> None:
        self.head, self.wrinkle_size = head, wrinkle.config.size
        self.maps = MotionMaps(head, motion.config.size)
        self._run = {
            part: on_arrays(
                runtime.compile(
                    f"textalker-{part}-encoder",
                    network.encoder,
                    (torch.zeros(BATCH, 3, network.config.size, network.config.size),),
                )
            )
            for part, network in (("motion", motion), ("wrinkle", wrinkle))
        }

    def motion(self, offsets: Float[np.ndarray, "frames vertices 3"]) -> Float32[np.ndarray, "frames latents"]:
        """Latents of canonical offsets, in metres."""
        return self.encode("motion", self.maps.rasterise(offsets).transpose(0, 3, 1, 2))

    def wrinkles(self, log_ratios: Float[np.ndarray, "frames size size 3"]) -> Float32[np.ndarray, "frames latents"]:
        """Latents of log-ratios on the atlas."""
        return self.encode("wrinkle", to_network(wrinkle_map(log_ratios)).transpose(0, 3, 1, 2))

    @property
    def motion_size(self) -> int:
        """Texels along the side of a motion map."""
        return self.maps.size

    def encode_maps(
        self, motion: Float32[np.ndarray, "frames 3 size size"], wrinkles: Float32[np.ndarray, "frames 3 size size"]
    ) -> tuple[Float32[np.ndarray, "frames latents"], ...]:
        """Latents of each of `parts`, of maps as networks see them."""
        return self.encode("motion", motion), self.encode("wrinkle", wrinkles)

    def encode(
        self, part: str, images: Float32[np.ndarray, "frames 3 size size"]
    ) -> Float32[np.ndarray, "frames latents"]:
        """Latents of maps as networks see them, BATCH at a time."""
        return in_batches(self._run[part], images, BATCH).reshape(len(images), -1)

    def pivot(self, example: "Example", template: Template, id: str) -> StylePivot:
        """p = the mean of an example's latents, motion and, where it has textures, wrinkles; and what it looks like.

        The example's frames are of `template`'s topology.
        """
        rest = template.mesh.vertices if example.neutral is None else example.neutral
        motion, tally = _Mean(), MotionTally(self.head)
        for start in range(0, len(example.vertices), BATCH):
            offsets = template.canonical(example.vertices[start : start + BATCH] - rest)
            motion.add(self.motion(offsets))
            tally.add(offsets)
        statistics, wrinkle = dict(tally.statistics()), None
        if example.textured:
            mean, look = _Mean(), WrinkleTally(self.head, self.wrinkle_size)
            for ratios in _batches(example.log_ratios(self.wrinkle_size)):
                mean.add(self.wrinkles(ratios))
                look.add(ratios)
            wrinkle, statistics = mean.value(), statistics | dict(look.statistics())
        return StylePivot(id, "", "mean latents of an example", statistics, motion.value(), wrinkle)


class _Mean:
    """Of rows that come in batches, summed in float64."""

    def __init__(self) -> None:
        self.total: np.ndarray | float = 0.0
        self.count = 0

    def add(self, rows: Float[np.ndarray, "rows width"]) -> None:
        self.total, self.count = self.total + rows.sum(0, dtype=np.float64), self.count + len(rows)

    def value(self) -> Float32[np.ndarray, " width"]:
        return np.asarray(self.total / self.count, np.float32)


class MotionTally:
    """What a motion looks like, in millimetres: how the lips open and spread, how corners and brows lie."""

    def __init__(self, head: Head) -> None:
        self._head, self._rows = head, list[np.ndarray]()
        rest = head.atlas.vertices
        eyes = rest[head.regions["eyes"], 1].mean()
        upper = head.regions["upper_face"]
        self._brows = upper[(rest[upper, 1] > eyes + 0.012) & (rest[upper, 1] < eyes + 0.035)]
        across = rest[head.rim, 0]
        self._corners = head.rim[[int(across.argmin()), int(across.argmax())]]

    def add(self, offsets: Float32[np.ndarray, "frames vertices 3"]) -> None:
        """Count frames, in order."""
        rest, (right, left) = self._head.atlas.vertices, self._corners
        opening = self._head.seal.opening(offsets[:, self._head.rim]).mean(1)
        width = np.linalg.norm(rest[left] + offsets[:, left] - rest[right] - offsets[:, right], axis=1)
        width -= np.linalg.norm(rest[left] - rest[right])
        lift, brows = offsets[:, self._corners, 1].mean(1), offsets[:, self._brows, 1].mean(1)
        self._rows.append(1e3 * np.stack([opening, width, lift, brows], 1))

    def statistics(self) -> Mapping[str, float]:
        """Means over the frames, and the deviation of the opening."""
        rows = np.concatenate(self._rows)
        names = ("lip_opening_mm", "mouth_widening_mm", "corner_lift_mm", "brow_lift_mm")
        means = {name: float(value) for name, value in zip(names, rows.mean(0), strict=True)}
        return means | {"lip_opening_deviation_mm": float(rows[:, 0].std())}


class WrinkleTally:
    """What wrinkles look like: the mean size of the log-ratio on the face and in its regions, and the deepest lines."""

    def __init__(self, head: Head, size: int) -> None:
        raster = head.atlas.rasterise(size)
        self._masks = {}
        for region, members in head.regions.items():
            inside = np.zeros((len(head.atlas.vertices), 1))
            inside[members] = 1
            self._masks[region] = (head.atlas.paint(inside, raster)[..., 0] > 0.5) & raster.covered
        self._face = np.logical_or.reduce(list(self._masks.values()))
        self._sums, self._deepest, self._count = dict.fromkeys(("face", *self._masks), 0.0), 0.0, 0

    def add(self, log_ratios: Float32[np.ndarray, "frames size size 3"]) -> None:
        """Count frames."""
        size = np.abs(log_ratios).mean(3)
        for name, mask in (("face", self._face), *self._masks.items()):
            self._sums[name] += float(size[:, mask].mean(1).sum())
        self._deepest += float(np.percentile(-log_ratios.mean(3)[:, self._face], 99.5, axis=1).sum())
        self._count += len(log_ratios)

    def statistics(self) -> Mapping[str, float]:
        """Means over the frames; `wrinkle_deepest` is the darkening that one face texel in 200 exceeds."""
        means = {f"wrinkle_{name}": total / self._count for name, total in self._sums.items()}
        return means | {"wrinkle_deepest": self._deepest / self._count}


def _batches(maps: Iterator[np.ndarray]) -> Iterator[Float32[np.ndarray, "frames size size 3"]]:
    held: list[np.ndarray] = []
    for image in maps:
        held.append(image)
        if len(held) == BATCH:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)
