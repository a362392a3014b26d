"""GLB (glTF 2.0, binary): one animated file, or one file a frame."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np

from models.core import Clip, Frame
from service.encoders.archive import Archive
from service.encoders.base import FrameEncoder
from service.encoders.container import GlbDocument
from service.encoders.morphs import Morphs, compress
from service.encoders.spool import OffsetSpool
from service.encoders.surface import split_seams


class GlbEncoder(FrameEncoder):
    """One file: the mesh at rest, at most 64 morph targets, and one animation channel that weighs them."""

    name = "glb"
    media_type = "model/gltf-binary"
    extension = ".glb"
    needs_whole_clip = True

    def __init__(self) -> None:
        self._held = ExitStack()

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Open the spool."""
        self._clip = clip
        self._spool = self._held.enter_context(closing(OffsetSpool(len(clip.mesh.vertices))))
        yield from ()

    def frame(self, frame: Frame) -> Iterator[bytes]:
        """Spool the frame's offsets from rest."""
        self._spool.append(frame.vertices - self._clip.mesh.vertices)
        yield b""

    def end(self) -> Iterator[bytes]:
        """Compress, then yield the file."""
        morphs = yield from compress(self._spool)
        self.close()
        yield from _animated(self._clip, morphs).chunks()

    def close(self) -> None:
        """Delete the spool."""
        self._held.close()


class GlbSequenceEncoder(FrameEncoder):
    """A zip of static files, `frame_000000.glb` and so on, each complete: a GLB cannot share its texture."""

    name = "glb-sequence"
    media_type = "application/zip"
    extension = ".zip"
    needs_whole_clip = False

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Split the mesh at its seams, once for all frames."""
        self._clip = clip
        self._surface = split_seams(clip.mesh)
        self._archive = Archive()
        yield from ()

    def frame(self, frame: Frame) -> Iterator[bytes]:
        """Yield one entry: positions and normals of this frame."""
        document = GlbDocument(_extras(self._clip) | {"frame": frame.index, "time_s": frame.time_s})
        document.add_mesh(self._surface, frame.vertices)
        yield self._archive.add_stored(f"frame_{frame.index:06d}.glb", b"".join(document.chunks()))

    def end(self) -> Iterator[bytes]:
        """Yield the zip's directory."""
        yield self._archive.finish()


def _animated(clip: Clip, morphs: Morphs) -> GlbDocument:
    surface = split_seams(clip.mesh)
    # Rounded up: the figure must hold.
    document = GlbDocument({"max_error_mm": math.ceil(morphs.max_error_mm * 1e6) / 1e6} | _extras(clip))
    mesh = document.add_mesh(surface, clip.mesh.vertices)
    targets = [{"POSITION": document.add_positions(target[surface.corners])} for target in morphs.targets]
    mesh["primitives"][0]["targets"] = targets
    mesh["weights"] = [0] * len(targets)
    mesh["extras"] = {"targetNames": ["constant", *(f"motion_{index:02d}" for index in range(1, len(targets)))]}
    times = (np.arange(clip.frame_count) / clip.fps).astype(np.float32)
    sampler = {
        "input": document.add_accessor(times, bounds=True),
        "output": document.add_accessor(morphs.weights.ravel()),
        "interpolation": "LINEAR",
    }
    channel = {"sampler": 0, "target": {"node": 0, "path": "weights"}}
    document.root["animations"] = [{"name": "speech", "samplers": [sampler], "channels": [channel]}]
    return document


def _extras(clip: Clip) -> dict[str, Any]:
    return {
        "fps": clip.fps,
        "frames": clip.frame_count,
        "seed": clip.seed,
        "engine": clip.engine,
        "checkpoints": dict(clip.checkpoints),
    }
