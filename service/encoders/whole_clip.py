"""What the formats that need the whole clip share: its spools, and its motion as one animated GLB."""

import math
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from typing import Any

import numpy as np

from models.core import Clip, Frame
from service.encoders.base import FrameEncoder
from service.encoders.container import GlbDocument
from service.encoders.morphs import Morphs, compress
from service.encoders.spool import OffsetSpool
from service.encoders.surface import split_seams
from service.encoders.textures import base_color, composer_of
from service.encoders.wrinkle_basis import BasisFit, WrinkleBasis


class WholeClip:
    """The frames of a clip, spooled: offsets, and wrinkle maps where it has textures."""

    def __init__(self, clip: Clip) -> None:
        self.clip = clip
        self._held = ExitStack()
        self._offsets = self._held.enter_context(closing(OffsetSpool(len(clip.mesh.vertices))))
        self._wrinkles = None
        if clip.texture is not None:
            self._wrinkles = self._held.enter_context(
                closing(BasisFit(clip.mesh.base_color_png, clip.texture, clip.enlarger))
            )

    def append(self, frame: Frame) -> None:
        """Spool one more frame."""
        self._offsets.append(frame.vertices - self.clip.mesh.vertices)
        if self._wrinkles is not None:
            assert frame.wrinkles is not None
            self._wrinkles.append(frame.wrinkles)

    def compress(self) -> Generator[bytes, None, tuple[Morphs, WrinkleBasis | None]]:
        """Find morph targets and wrinkle textures; yields empty chunks all the while, where it may be closed."""
        morphs = yield from compress(self._offsets)
        return morphs, None if self._wrinkles is None else (yield from self._wrinkles.fit())

    def close(self) -> None:
        """Delete the spools."""
        self._held.close()


class WholeClipEncoder(FrameEncoder):
    """A format that spools its frames and writes all in `end`, which subclasses have."""

    needs_whole_clip = True
    texel_bytes = 0.0
    repeats_neutral = False

    def __init__(self) -> None:
        self._held = ExitStack()

    def begin(self, clip: Clip) -> Iterator[bytes]:
        """Open the spools."""
        self._whole = self._held.enter_context(closing(WholeClip(clip)))
        yield from ()

    def frame(self, frame: Frame) -> Iterator[bytes]:
        """Spool the frame."""
        self._whole.append(frame)
        yield b""

    def close(self) -> None:
        """Delete the spools."""
        self._held.close()


def animated_document(clip: Clip, morphs: Morphs) -> GlbDocument:
    """The mesh at rest, its morph targets and the animation that weighs them; with textures, the neutral one."""
    surface = split_seams(clip.mesh)
    # Rounded up: the figure must hold.
    document = GlbDocument({"max_error_mm": math.ceil(morphs.max_error_mm * 1e6) / 1e6} | clip_facts(clip))
    composer = composer_of(clip)
    mesh = document.add_mesh(surface, clip.mesh.vertices, composer.neutral() if composer else base_color(clip.mesh))
    targets = [{"POSITION": document.add_positions(target[surface.corners])} for target in morphs.targets]
    for primitive in mesh["primitives"]:
        primitive["targets"] = targets
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


def clip_facts(clip: Clip) -> dict[str, Any]:
    """What made a clip, for a file that tells it."""
    return {
        "fps": clip.fps,
        "frames": clip.frame_count,
        "seed": clip.seed,
        "engine": clip.engine,
        "checkpoints": dict(clip.checkpoints),
    }
