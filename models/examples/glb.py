"""Reading GLB (glTF 2.0, binary) that strangers send: one mesh, its morph animation, its base-colour picture.

Nothing outside the file is opened. Node transforms are left aside: positions are the mesh's own.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from models.errors import SHOWN, MalformedInput, TooLarge
from models.examples.archive import parse_json

MAGIC = b"glTF"
MAX_TARGETS = 256
_HEADER = struct.Struct("<4sII")
_CHUNK = struct.Struct("<I4s")
_FLOAT32 = 5126
_WIDTHS = {"SCALAR": 1, "VEC3": 3}


@dataclass(frozen=True, eq=False)
class Animation:
    """A mesh at rest, neutral (W, 3), and its places (T, W, 3) at the times (T,) of its keys, in seconds."""

    neutral: Float32[np.ndarray, "positions 3"]
    positions: Float32[np.ndarray, "keys positions 3"]
    times_s: Float32[np.ndarray, " keys"]


@dataclass(frozen=True, eq=False)
class Glb:
    """A file taken apart: its JSON and its buffer. Every method refuses, as MalformedInput, what glTF does not allow,
    and accessors that are sparse, interleaved, or not float32.
    """

    root: dict[str, Any]
    binary: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Glb":
        """Take a file apart; references to other files are refused, whether they are used or not."""
        with _reading():
            magic, version, length = _HEADER.unpack_from(data)
            size, kind = _CHUNK.unpack_from(data, _HEADER.size)
            begin = _HEADER.size + _CHUNK.size
            if (magic, version, length, kind) != (MAGIC, 2, len(data), b"JSON"):
                raise ValueError(f"version {version}, length {length:,} of {len(data):,}, first chunk {kind!r}")
            root = parse_json(data[begin : begin + size], "a GLB's JSON")
            for entry in [*root.get("buffers", ()), *root.get("images", ())]:
                if "uri" in entry:
                    raise MalformedInput(
                        f"a GLB that refers to {str(entry['uri'])[:SHOWN]!r}; wanted one that is whole: embed it",
                        code="external_reference",
                    )
            return cls(root, data[begin + size + _CHUNK.size :])

    @property
    def fps(self) -> float | None:
        """What the file's own `asset.extras` says."""
        with _reading():
            fps = self.root["asset"].get("extras", {}).get("fps")
            return None if fps is None else float(fps)

    @property
    def wrinkles(self) -> dict[str, Any]:
        """What `asset.extras` says of the wrinkles' basis; empty without one."""
        with _reading():
            return dict(self.root["asset"].get("extras", {}).get("wrinkles", {}))

    @property
    def positions(self) -> Float32[np.ndarray, "positions 3"]:
        """The mesh at rest: metres, copies at uv seams included."""
        with _reading():
            return self._rows(self._primitive["attributes"]["POSITION"], "VEC3")

    def picture(self) -> bytes | None:
        """The encoded base-colour texture, if the mesh has one."""
        with _reading():
            if (material := self._primitive.get("material")) is None:
                return None
            surface = self.root["materials"][material].get("pbrMetallicRoughness", {})
            if "baseColorTexture" not in surface:
                return None
            texture = self.root["textures"][surface["baseColorTexture"]["index"]]
            return self.image(texture["source"])

    def image(self, index: int) -> bytes:
        """An encoded image."""
        with _reading():
            return self._view(self.root["images"][index]["bufferView"])

    def animation(self, max_points: int) -> Animation:
        """Play the only channel that weighs morph targets, at its keys.

        TooLarge when keys or targets times positions are over `max_points`.
        """
        with _reading():
            rest, targets = self.positions, self._primitive.get("targets", [])
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
    def _primitive(self) -> dict[str, Any]:
        (mesh,) = self.root["meshes"]
        (primitive,) = mesh["primitives"]
        return dict(primitive)

    def _weights(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Times (T,) and weights (T, count)."""
        pairs = [(animation, entry) for animation in self.root["animations"] for entry in animation["channels"]]
        ((animation, channel),) = [pair for pair in pairs if pair[1]["target"]["path"] == "weights"]
        sampler = animation["samplers"][channel["sampler"]]
        if sampler.get("interpolation", "LINEAR") not in ("LINEAR", "STEP"):
            raise ValueError(f"interpolation {str(sampler['interpolation'])[:SHOWN]}; wanted LINEAR")
        times = self._rows(sampler["input"], "SCALAR").ravel()
        if not (np.diff(times) > 0).all():
            raise ValueError("keys whose times do not rise")
        return times, self._rows(sampler["output"], "SCALAR").reshape(len(times), count)

    def _rows(self, index: int, kind: str) -> np.ndarray:
        accessor = self.root["accessors"][index]
        view = self.root["bufferViews"][accessor["bufferView"]]
        width, count, start = _WIDTHS[kind], int(accessor["count"]), int(accessor.get("byteOffset", 0))
        if (accessor["type"], accessor["componentType"]) != (kind, _FLOAT32) or "sparse" in accessor:
            raise ValueError(f"accessor {index} is sparse, or not {kind} of float32")
        if view.get("byteStride", 4 * width) != 4 * width or min(count, start) < 0:
            raise ValueError(f"accessor {index} is interleaved, or has a negative size")
        return np.frombuffer(self._view(accessor["bufferView"]), np.float32, count * width, start).reshape(-1, width)

    def _view(self, index: int) -> bytes:
        view = self.root["bufferViews"][index]
        start, size = int(view.get("byteOffset", 0)), int(view["byteLength"])
        if view["buffer"] != 0 or min(start, size) < 0 or start + size > len(self.binary):
            raise ValueError(f"buffer view {index} reaches outside the file")
        return self.binary[start : start + size]


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever a forged file trips over is a damaged file."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError, struct.error) as error:
        raise MalformedInput(
            f"a GLB that cannot be read ({str(error)[:SHOWN] or 'damaged'}); wanted one mesh of one primitive, with "
            "morph targets and one animation of their weights, all float32: export it so",
            code="damaged_glb",
        ) from error
