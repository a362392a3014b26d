"""Reading GLB (glTF 2.0, binary) that strangers send: one mesh, its morph animation, its base-colour picture.

The mesh may have several primitives, one for each material, if they share their positions and morph targets.

Nothing outside the file is opened. Node transforms are left aside: positions are the mesh's own.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from models.container import Container
from models.errors import SHOWN, TooLarge, refusing_damage

MAX_TARGETS = 256


@dataclass(frozen=True, eq=False)
class Animation:
    """A mesh at rest, neutral (W, 3), and its places (T, W, 3) at the times (T,) of its keys, in seconds."""

    neutral: Float32[np.ndarray, "positions 3"]
    positions: Float32[np.ndarray, "keys positions 3"]
    times_s: Float32[np.ndarray, " keys"]


@dataclass(frozen=True, eq=False)
class Glb:
    """A file taken apart. Every method refuses, as MalformedInput, what glTF does not allow, and accessors that are
    sparse, or not float32.
    """

    container: Container

    @classmethod
    def parse(cls, data: bytes) -> "Glb":
        """Take a file apart; references to other files are refused, whether they are used or not."""
        with _reading():
            return cls(Container.parse(data))

    @property
    def fps(self) -> float | None:
        """What the file's own `asset.extras` says."""
        with _reading():
            fps = self.container.root["asset"].get("extras", {}).get("fps")
            return None if fps is None else float(fps)

    @property
    def wrinkles(self) -> dict[str, Any]:
        """What `asset.extras` says of the wrinkles' basis; empty without one."""
        with _reading():
            return dict(self.container.root["asset"].get("extras", {}).get("wrinkles", {}))

    @property
    def positions(self) -> Float32[np.ndarray, "positions 3"]:
        """The mesh at rest: metres, copies at uv seams included."""
        with _reading():
            return self._rows(self._primitives[0]["attributes"]["POSITION"], "VEC3")

    def picture(self) -> bytes | None:
        """The encoded base-colour texture of the first material that has one."""
        with _reading():
            numbers = [primitive["material"] for primitive in self._primitives if "material" in primitive]
            images = [self.container.base_color(number) for number in numbers]
            return next((self.container.image(image) for image in images if image is not None), None)

    def image(self, index: int) -> bytes:
        """An encoded image."""
        with _reading():
            return self.container.image(index)

    def animation(self, max_points: int) -> Animation:
        """Play the only channel that weighs morph targets, at its keys.

        TooLarge when keys or targets times positions are over `max_points`.
        """
        with _reading():
            rest, targets = self.positions, self._primitives[0].get("targets", [])
            times, weights = self._weights(len(targets))
            if len(targets) > MAX_TARGETS or (len(times) + len(targets)) * len(rest) > max_points:
                raise TooLarge(
                    f"an animation of {len(times):,} keys, {len(targets)} morph targets and {len(rest):,} positions; "
                    f"the limit is {MAX_TARGETS} targets, and {max_points:,} positions of all together: shorten it"
                )
            shapes = np.empty((len(targets), len(rest), 3), np.float32)
            for shape, target in zip(shapes, targets, strict=True):
                shape[:] = self._rows(target["POSITION"], "VEC3")
            moved = rest.ravel() + weights @ shapes.reshape(len(targets), -1)
        return Animation(rest, moved.reshape(-1, *rest.shape), times)

    @property
    def _primitives(self) -> list[dict[str, Any]]:
        (mesh,) = self.container.root["meshes"]
        first, *others = mesh["primitives"]
        shared = [(one["attributes"]["POSITION"], one.get("targets", [])) for one in (first, *others)]
        if any(other != shared[0] for other in shared):
            raise ValueError("primitives of other positions or morph targets")
        return [dict(first), *map(dict, others)]

    def _weights(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Times (T,) and weights (T, count)."""
        pairs = [
            (animation, entry) for animation in self.container.root["animations"] for entry in animation["channels"]
        ]
        ((animation, channel),) = [pair for pair in pairs if pair[1]["target"]["path"] == "weights"]
        sampler = animation["samplers"][channel["sampler"]]
        if sampler.get("interpolation", "LINEAR") not in ("LINEAR", "STEP"):
            raise ValueError(f"interpolation {str(sampler['interpolation'])[:SHOWN]}; wanted LINEAR")
        times = self._rows(sampler["input"], "SCALAR").ravel()
        if not (np.diff(times) > 0).all():
            raise ValueError("keys whose times do not rise")
        return times, self._rows(sampler["output"], "SCALAR").reshape(len(times), count)

    def _rows(self, index: int, kind: str) -> np.ndarray:
        return self.container.array(index, kind)


def _reading() -> AbstractContextManager[None]:
    return refusing_damage(
        "a GLB",
        "one mesh, whose primitives share positions and morph targets, and one animation of their weights, all "
        "float32: export it so",
        code="damaged_glb",
    )
