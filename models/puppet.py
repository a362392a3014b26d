"""From displacements of the canonical surface to frames: lips sealed, turned and scaled as a head is, added to it.

The last stage of every engine, and of every decoder: nothing here needs torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float16, Float32

from models.core import Frame, Mesh
from models.lips import LipSeal


class MotionBatch(NamedTuple):
    """Consecutive frames from number `first` on: times, and displacements of points and of the lips' rim in metres;
    contact 0..1; log-ratios on the atlas, of an engine that makes wrinkles and was asked for them.
    """

    first: int
    time_s: Float32[np.ndarray, " frames"]
    offsets: Float32[np.ndarray, "frames points 3"]
    rim_offsets: Float32[np.ndarray, "frames rim 3"]
    contact: Float32[np.ndarray, " frames"]
    wrinkles: Float16[np.ndarray, "frames size size 3"] | None = None


@dataclass(frozen=True, eq=False)
class Puppet:
    """A mesh and how it moves: maps (V, 3, 3) take canonical offsets to this head's, seal closes its lips."""

    mesh: Mesh
    maps: Float32[np.ndarray, "vertices 3 3"]
    seal: LipSeal

    def place(
        self, offsets: Float32[np.ndarray, "frames vertices 3"], intensity: float = 1.0
    ) -> Float32[np.ndarray, "frames vertices 3"]:
        """Vertices from canonical offsets: turned, scaled, and added to the head at rest. Zero offsets are the head."""
        return np.asarray(self.mesh.vertices + np.float32(intensity) * np.einsum("vij,tvj->tvi", self.maps, offsets))

    def pose(self, batch: MotionBatch, fps: float, intensity: float) -> Iterator[Frame]:
        """The frames of a batch, motion and wrinkles `intensity` times as strong."""
        sealed = self.seal.close(batch.offsets, batch.rim_offsets, batch.contact)
        for k, vertices in enumerate(self.place(sealed, intensity)):
            wrinkles = None if batch.wrinkles is None else np.float16(intensity) * batch.wrinkles[k]
            yield Frame(batch.first + k, (batch.first + k) / fps, vertices, wrinkles)
