"""What an engine computes with: networks in this process (`models.engine.Networks`), or those of a cluster.

An engine knows heads, styles and clips; a backend knows networks, and of a head only the anchors that it is asked at.
So heads, styles and speech stay where the engine is, and a cluster's machines need to know nothing of any user.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

import numpy as np
from jaxtyping import Bool, Float32
from PIL import Image

from models.core import AnimateOptions, CodeBatch, CodeSpace, StylePivot, Waveform
from models.performance import USUAL, Cadence, Performance, Pivots, Stepwise, perform

if TYPE_CHECKING:
    from models.atlas import Anchors
    from models.batching import FunctionStatistics
    from models.layout import Layout
    from models.relayout import Relayout
    from models.template import Head, Template
    from models.textalker.playback import MapQuery
    from models.textalker.upsampler import GuidedUpsampler, MapUpsampler
    from models.uploads import Registration

Batch = TypeVar("Batch")


class Skinner(Protocol):
    """Who paints the canonical head's texture at rest."""

    def png(self, size: int) -> bytes:
        """The texture, encoded."""
        ...


class Backend(ABC):
    """Networks, wherever they are. Safe to use from several threads."""

    head: "Head"
    upsampler: "MapUpsampler"
    skins: Skinner
    checkpoints: Mapping[str, str]
    """sha256 of each checkpoint, by name."""

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many clips at once it makes best, right now; 0 where nothing runs."""

    @abstractmethod
    def statistics(self) -> "Mapping[str, FunctionStatistics]":
        """What has run so far on the device of this process, by function."""

    @abstractmethod
    def close(self) -> None:
        """Run nothing any more."""

    @property
    @abstractmethod
    def log_density(self) -> Float32[np.ndarray, " vertices"]:
        """How densely a surface is sampled (MMTalker III-B), at the atlas' vertices."""

    @property
    @abstractmethod
    def spaces(self) -> Mapping[str, CodeSpace]:
        """What codes are numbers of, by part."""

    @property
    @abstractmethod
    def skin_texels(self) -> Bool[np.ndarray, "size size"]:
        """Texels that may wrinkle."""

    @property
    @abstractmethod
    def registration(self) -> "Registration":
        """How heads that come as files become templates."""

    @abstractmethod
    def query(self, anchors: "Anchors") -> Any:
        """Prepare to ask for motion at anchors, once per template and resolution; what `performance` takes."""

    @abstractmethod
    def map_query(self, query: Any) -> "MapQuery":
        """Where motion maps are read for a query."""

    @abstractmethod
    def performance(self, options: AnimateOptions, query: Any, cadence: Cadence = USUAL) -> Performance[Any]:
        """The engine of the options, at a query's anchors. TexTalker has one cadence, its windows'."""

    @abstractmethod
    def coding(self, options: AnimateOptions) -> Stepwise[Any, CodeBatch]:
        """TexTalker up to its codes."""

    def perform(
        self, performance: Stepwise[Any, Batch], pivots: Pivots, waveform: Waveform
    ) -> Generator[Batch, None, None]:
        """All batches of a clip."""
        return perform(performance, performance.start(pivots), waveform)

    @abstractmethod
    def generator(self, checkpoint: str) -> Path:
        """The ONNX file of what decodes the codes of a checkpoint. UnknownName for one that has no codes."""

    @abstractmethod
    def pivot_of(self, file: BinaryIO, template: "Template", id: str) -> StylePivot:
        """The mean latents of an example sequence (Eq. 5). Raises what `read_example` and `check_topology` do."""

    @property
    def autoencoders(self) -> str:
        """Names the spaces that latents and pivots lie in."""
        return autoencoders_id(self.checkpoints)

    @cached_property
    def own_upsampler(self) -> "GuidedUpsampler":
        """What enlarges wrinkles of the default head, guided by the skin that is painted for it."""
        return self.guided(self.skins.png(self.upsampler.config.large), None)

    def guided(self, neutral: bytes | None, layout: "Layout | None") -> "GuidedUpsampler":
        """What enlarges wrinkles, guided by an encoded texture if there is one, which may have a layout of its own."""
        from models.textalker.upsampler import GuidedUpsampler, guide_of

        if neutral is None:
            return GuidedUpsampler(self.upsampler, None)
        large = self.upsampler.config.large
        with Image.open(BytesIO(neutral)) as image:
            texture = np.asarray(image.convert("RGB"))
        texture = texture if layout is None else layout.to_atlas(texture, large)
        return GuidedUpsampler(self.upsampler, guide_of(texture, large))

    def relaid(self, layout: "Layout", upsampler: "GuidedUpsampler | None") -> "Relayout":
        """What lays wrinkles, enlarged or not, out as a template's texture is."""
        from models.relayout import Relayout

        return Relayout(layout, upsampler, self.upsampler.config.size)


def autoencoders_id(checkpoints: Mapping[str, str]) -> str:
    """Names a pair of auto-encoders by their sha256."""
    return f"{checkpoints['textalker-motion'][:16]}-{checkpoints['textalker-wrinkle'][:16]}"
