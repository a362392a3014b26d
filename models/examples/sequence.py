"""An example sequence, whatever file it came in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Float32

from models.core import Mesh
from models.errors import MalformedInput
from models.examples.pictures import resize_map

if TYPE_CHECKING:
    from models.engine import TemplateInfo

MAX_RATIO = 1.5
"""Wrinkle maps are cut at ± this: a texture 4.5 times as bright, or as dark, as the neutral one."""
MIN_FRAMES = 2


@dataclass(frozen=True)
class ExampleLimits:
    """What one example may cost: bytes as sent and once unpacked, frames, and frames times vertices."""

    max_bytes: int = 128 << 20
    max_unpacked_bytes: int = 1 << 30
    max_frames: int = 1800
    max_points: int = 20_000_000


@dataclass(frozen=True, eq=False)
class Example:
    """A sequence of T >= 2 frames.

    vertices (T, V, 3) in the units of the file; fps if the file says; neutral (V, 3), the same head at rest, if the
    file holds it; wrinkles, T maps (S, S, 3) of the natural logarithm of texture over neutral texture, if there are
    textures. With `seams`, copies of vertices at uv seams may follow the vertices, as in a GLB.
    """

    vertices: Float32[np.ndarray, "frames vertices 3"]
    fps: float | None = None
    neutral: Float32[np.ndarray, "vertices 3"] | None = None
    wrinkles: Sequence[Float[np.ndarray, "size size 3"]] | None = None
    seams: bool = False

    def __post_init__(self) -> None:
        shape = self.vertices.shape
        if len(shape) != 3 or shape[2] != 3 or shape[0] < MIN_FRAMES or shape[1] == 0:
            raise MalformedInput(
                f"an example with vertices of shape {shape}; wanted (frames, vertices, 3), {MIN_FRAMES} frames or more"
            )
        if self.neutral is not None and self.neutral.shape != shape[1:]:
            raise MalformedInput(f"a neutral head of shape {self.neutral.shape}; wanted {shape[1:]}, as its frames")
        if not all(np.isfinite(points).all() for points in (self.vertices, self.rest)):
            raise MalformedInput("an example with vertices that are not finite; export it anew", code="not_finite")
        if self.fps is not None and not 0 < self.fps < 1e4:
            raise MalformedInput(f"an example of {self.fps} frames a second; wanted more than 0, and finite")
        if self.wrinkles is not None and len(self.wrinkles) != shape[0]:
            raise MalformedInput(f"{len(self.wrinkles)} textures for {shape[0]} frames; wanted one a frame")

    @property
    def rest(self) -> Float32[np.ndarray, "vertices 3"]:
        """The neutral head, or else the first frame."""
        return self.vertices[0] if self.neutral is None else self.neutral

    @property
    def textured(self) -> bool:
        """Whether it says anything of wrinkles."""
        return self.wrinkles is not None

    def log_ratios(self, size: int) -> Iterator[Float32[np.ndarray, "size size 3"]]:
        """Wrinkle maps (size, size, 3), one a frame, cut at ± MAX_RATIO; none without textures.

        They come one by one, because a minute of them takes gigabytes. Refuses, as MalformedInput, maps that are not
        square or not finite, and what only decoding a texture shows.
        """
        for ratios in self.wrinkles or ():
            if ratios.ndim != 3 or ratios.shape != (len(ratios), len(ratios), 3) or not ratios.size:
                raise MalformedInput(
                    f"a wrinkle map of shape {ratios.shape}; wanted (size, size, 3)", code="bad_texture"
                )
            if not np.isfinite(ratios).all():
                raise MalformedInput("an example with wrinkle maps that are not finite", code="not_finite")
            yield resize_map(np.clip(ratios, -MAX_RATIO, MAX_RATIO), size)


def check_topology(example: Example, template: "TemplateInfo") -> Example:
    """The example on the vertices of a template, copies at seams dropped.

    MalformedInput (other_topology) for another number of vertices, or for others: where the
    template's edges are not about as long, against the whole, as they are on the template.
    """
    mesh = template.mesh
    count, came = len(mesh.vertices), example.vertices.shape[1]
    copied = example.seams and came > count and _repeats(example.rest[:count], example.rest[count:])
    if not (came == count or copied):
        raise MalformedInput(
            f"an example of {came:,} vertices; wanted the head's {count:,}, in its order: animate that head",
            code="other_topology",
        )
    change = _edge_share(example.rest[:count], mesh) / _edge_share(mesh.vertices, mesh)
    if not 0.5 < change < 2:
        raise MalformedInput(
            f"an example whose edges are {change:.2g} times as long as the head's; wanted its vertices in its order: "
            "export them without sorting or merging",
            code="other_topology",
        )
    neutral = None if example.neutral is None else example.neutral[:count]
    return replace(example, vertices=example.vertices[:, :count], neutral=neutral, seams=False)


def _repeats(own: np.ndarray, copies: np.ndarray) -> bool:
    """Whether each of `copies` (n, 3) lies exactly at one of `own`."""
    places = {place.tobytes() for place in own}
    return all(place.tobytes() in places for place in copies)


def _edge_share(vertices: np.ndarray, mesh: Mesh) -> float:
    """The mean length of the mesh's edges over the diagonal of the vertices' box."""
    corners = vertices[mesh.faces].astype(np.float64)
    edges = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2)
    return float(edges.mean() / max(np.linalg.norm(np.ptp(vertices.astype(np.float64), axis=0)), 1e-12))
