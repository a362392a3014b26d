"""The networks of a cluster, as an engine on the edge sees them."""

import hashlib
from collections.abc import Generator as Making
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Generic, Literal, TypeVar
from uuid import uuid4

import numpy as np
import torch
from jaxtyping import Bool, Float32

from models.atlas import Anchors
from models.backend import Backend, Skinner
from models.batching import FunctionStatistics
from models.cluster.ahead import read_ahead
from models.cluster.asker import Asker
from models.cluster.calls import (
    Describe,
    Enlarge,
    Generator,
    Held,
    Latency,
    MeanLatents,
    ReadMaps,
    Register,
    Take,
    Window,
)
from models.core import AnimateOptions, CodeBatch, CodeSpace, StylePivot, Waveform
from models.errors import UnknownName
from models.examples import check_topology, read_example
from models.files import whole_file
from models.meshes import MeshFile
from models.performance import USUAL, Cadence, Pivots, Stepwise
from models.puppet import MotionBatch
from models.registration.landmarks import Landmarks
from models.registration.register import Progress
from models.template import Head, Template
from models.textalker.playback import MapQuery
from models.textalker.upsampler import Guide, LogRatio, Maps, MapUpsampler, UpsamplerConfig
from models.uploads import Registration

Batch = TypeVar("Batch")

AHEAD = 8
"""Batches of a clip that are made before they are read, beside those of one window: up to 16 frames each."""


class AnchorQuery:
    """Anchors, and a name by which replicas remember them."""

    def __init__(self, anchors: Anchors) -> None:
        self.anchors = anchors
        self.key = hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in anchors)).hexdigest()[:32]


NOWHERE = AnchorQuery(Anchors(np.zeros(0, np.int32), np.zeros((0, 3), np.float32)))
"""Of codes, which no head is asked for."""


class ClusterNetworks(Backend):
    """Networks of replicas."""

    def __init__(self, asker: Asker, head: Head, skins: Skinner, cache: Path) -> None:
        self._asker, self._cache = asker, cache
        self.head, self.skins, self.facts = head, skins, asker.ask(Describe())
        self.checkpoints: Mapping[str, str] = self.facts.checkpoints
        self.upsampler = _ClusterUpsampler(self.facts.upsampler, asker)

    @property
    def capacity(self) -> int:
        """See `Backend.capacity`."""
        return self._asker.replicas.capacity

    def statistics(self) -> Mapping[str, FunctionStatistics]:
        """See `Backend.statistics`. Nothing runs here."""
        return {}

    @property
    def log_density(self) -> Float32[np.ndarray, " vertices"]:
        """See `Backend.log_density`."""
        return self.facts.log_density

    @property
    def spaces(self) -> Mapping[str, CodeSpace]:
        """See `Backend.spaces`."""
        return self.facts.spaces

    @property
    def skin_texels(self) -> Bool[np.ndarray, "size size"]:
        """See `Backend.skin_texels`."""
        return self.facts.skin_texels

    @property
    def registration(self) -> Registration:
        """See `Backend.registration`. Files are read here; surfaces are fitted there, in one call without steps."""

        def register(file: MeshFile, *, id: str, landmarks: Landmarks | None, progress: Progress) -> Template:
            progress("fitting it on the cluster")
            return self._asker.ask(Register(file, id, landmarks))

        return Registration(register, shapes=self.checkpoints["shapes"])

    def query(self, anchors: Anchors) -> AnchorQuery:
        """See `Backend.query`."""
        return AnchorQuery(anchors)

    def map_query(self, query: AnchorQuery) -> MapQuery:
        """See `Backend.map_query`."""
        return self._asker.ask(ReadMaps(query.anchors))

    def performance(
        self, options: AnimateOptions, query: AnchorQuery, cadence: Cadence = USUAL
    ) -> "Windows[MotionBatch]":
        """See `Backend.performance`."""
        return Windows(self._asker, self._take("frames", options, query, cadence))

    def coding(self, options: AnimateOptions) -> "Windows[CodeBatch]":
        """See `Backend.coding`."""
        return Windows(self._asker, self._take("codes", options, NOWHERE))

    def perform(
        self, performance: Stepwise[Any, Batch], pivots: Pivots, waveform: Waveform
    ) -> Making[Batch, None, None]:
        """See `Backend.perform`: a replica makes what comes next while this is read."""
        return read_ahead(super().perform(performance, pivots, waveform), AHEAD)

    def generator(self, checkpoint: str) -> Path:
        """See `Backend.generator`. Fetched once, and kept in the cache."""
        known = [space.checkpoint for space in self.spaces.values()]
        if checkpoint not in known:
            raise UnknownName("checkpoint", checkpoint, known)
        path = self._cache / "codec" / f"{checkpoint}-{self.facts.weights}.onnx"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as file:
                file.write(self._asker.ask(Generator(checkpoint)))
        return path

    def pivot_of(self, file: BinaryIO, template: Template, id: str) -> StylePivot:
        """See `Backend.pivot_of`. The file is read here."""
        return self._asker.ask(MeanLatents(check_topology(read_example(file), template), id))

    def close(self) -> None:
        """See `Backend.close`. Clips that are not finished raise EngineLost."""
        self._asker.close()

    def _take(
        self,
        kind: Literal["frames", "codes"],
        options: AnimateOptions,
        query: AnchorQuery,
        cadence: Cadence = USUAL,
    ) -> Take:
        return Take(uuid4().hex, self.facts.weights, kind, options, cadence, query.key, query.anchors)


@dataclass(frozen=True, eq=False)
class Windows(Generic[Batch]):
    """A clip whose steps are computed by whoever is there, see `models.performance.Stepwise`."""

    asker: Asker
    take: Take

    @cached_property
    def latency_s(self) -> float:
        """See `Performance.latency_s`: of the networks; the cluster's own time comes on top."""
        return self.asker.ask(Latency(self.take))

    def start(self, pivots: Pivots) -> Held:
        """See `Stepwise.start`. The first window's replica does the rest."""
        return Held(0, None, pivots)

    def restyle(self, state: Held, pivots: Pivots) -> Held:
        """See `Stepwise.restyle`. The next window's replica does it."""
        return state._replace(pivots=pivots, restyled=True)

    def step(
        self, state: Held, samples: Float32[np.ndarray, " samples"], duration_s: float | None
    ) -> Making[Batch, None, Held]:
        """See `Stepwise.step`. EngineLost when no replica answers."""
        batches, state = self.asker.ask(Window(self.take, state, samples, duration_s))
        yield from batches
        return state


class _ClusterUpsampler(MapUpsampler):
    """All of an upsampler but its network."""

    def __init__(self, config: UpsamplerConfig, asker: Asker) -> None:
        self.config, self._asker = config, asker

    def enlarge(self, wrinkles: LogRatio, guide: Guide | None = None) -> Maps:
        """See `MapUpsampler.enlarge`."""
        self._check(wrinkles, guide)
        return torch.from_numpy(self._asker.ask(Enlarge(wrinkles, guide)))
