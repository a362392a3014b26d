"""What replicas are asked. A call carries all that its answer depends on, so that it may be asked again, of any."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Float32

from models.atlas import Anchors
from models.cluster.packing import pack, unpack
from models.core import AnimateOptions, CodeSpace, StylePivot
from models.engine import Networks, Query
from models.errors import EngineLost
from models.examples import Example
from models.meshes import MeshFile
from models.performance import Cadence, Performance, Pivots, Stepwise, run
from models.registration.landmarks import Landmarks
from models.template import Template, default_template
from models.textalker.playback import MapQuery
from models.textalker.upsampler import UpsamplerConfig

Answer_co = TypeVar("Answer_co", covariant=True)


class Host(Protocol):
    """The replica, as calls see it."""

    @property
    def networks(self) -> Networks:
        """What it computes with."""
        ...

    @property
    def facts(self) -> "Facts":
        """What it is."""
        ...

    def query(self, key: str, anchors: Anchors) -> Query:
        """What networks are asked with at anchors, of which key is a name."""
        ...


class Call(Protocol[Answer_co]):
    """A question. Questions and answers can be pickled."""

    deadline_s: ClassVar[float]
    """Seconds that a replica may take once it has begun."""

    def answer(self, host: Host) -> Answer_co:
        """Depends on the call and the weights alone. Refusals are TalkerErrors."""
        ...


@dataclass(frozen=True, eq=False)
class Facts:
    """What a replica has. weights names its checkpoints, its sampler and its code: replicas of one name agree."""

    weights: str
    checkpoints: dict[str, str]
    device: str
    providers: list[str]
    log_density: Float32[np.ndarray, " vertices"]
    spaces: dict[str, CodeSpace]
    skin_texels: Bool[np.ndarray, "size size"]
    upsampler: UpsamplerConfig


@dataclass(frozen=True)
class Describe:
    """What the replica has."""

    deadline_s: ClassVar[float] = 30

    def answer(self, host: Host) -> Facts:
        """See `Call.answer`."""
        return host.facts


@dataclass(frozen=True, eq=False)
class Take:
    """What all windows of a clip have in common: weights names the networks that began it, and key its anchors.

    Anchors travel with every window: they are less than the state, and a hundredth of the frames.
    """

    request: str
    weights: str
    kind: Literal["frames", "codes"]
    options: AnimateOptions
    cadence: Cadence
    key: str
    anchors: Anchors

    def performance(self, host: Host) -> Performance[Any]:
        """What makes its frames, on a replica."""
        return host.networks.performance(self.options, host.query(self.key, self.anchors), self.cadence)


class Held(NamedTuple):
    """Where a clip stands: windows made, the state after them, packed, None before the first; and the style of the
    next one, which is another than the state's if it is `restyled`.
    """

    made: int
    state: bytes | None
    pivots: Pivots
    restyled: bool = False


@dataclass(frozen=True, eq=False)
class Window:
    """One step of a performance: see `models.performance.Stepwise.step`."""

    deadline_s: ClassVar[float] = 60

    take: Take
    held: Held
    samples: Float32[np.ndarray, " samples"]
    duration_s: float | None

    def answer(self, host: Host) -> tuple[list[Any], Held]:
        """Batches, and where the clip stands after them. EngineLost on a replica of other weights."""
        if self.take.weights != host.facts.weights:
            raise EngineLost(
                f"a replica has weights {host.facts.weights}; wanted {self.take.weights}: ask another", retry_after_s=1
            )
        stepwise = self._stepwise(host)
        if self.held.state is None:
            state = stepwise.start(self.held.pivots)
        else:
            state = unpack(self.held.state)
            if self.held.restyled:
                state = stepwise.restyle(state, self.held.pivots)
        batches, state = run(stepwise.step(state, self.samples, self.duration_s))
        return batches, Held(self.held.made + 1, pack(state), self.held.pivots)

    def _stepwise(self, host: Host) -> Stepwise[Any, Any]:
        if self.take.kind == "codes":
            return host.networks.coding(self.take.options)
        return self.take.performance(host)


@dataclass(frozen=True, eq=False)
class Latency:
    """See `models.performance.Performance.latency_s`."""

    deadline_s: ClassVar[float] = 60

    take: Take

    def answer(self, host: Host) -> float:
        """See `Call.answer`."""
        return self.take.performance(host).latency_s


@dataclass(frozen=True, eq=False)
class ReadMaps:
    """Where motion maps are read at anchors."""

    deadline_s: ClassVar[float] = 60

    anchors: Anchors

    def answer(self, host: Host) -> MapQuery:
        """See `Call.answer`."""
        return host.networks.query(self.anchors).maps


@dataclass(frozen=True)
class Generator:
    """The ONNX file of what decodes the codes of a checkpoint."""

    deadline_s: ClassVar[float] = 120

    checkpoint: str

    def answer(self, host: Host) -> bytes:
        """See `Call.answer`."""
        return host.networks.generator(self.checkpoint).read_bytes()


@dataclass(frozen=True, eq=False)
class Enlarge:
    """A wrinkle map at the upsampler's own size: see `models.textalker.upsampler.MapUpsampler.enlarge`."""

    deadline_s: ClassVar[float] = 120

    wrinkles: Float32[np.ndarray, "own own 3"]
    guide: Float32[np.ndarray, "large large"] | None

    def answer(self, host: Host) -> Float[np.ndarray, "1 3 large large"]:
        """See `Call.answer`."""
        return host.networks.upsampler.enlarge(self.wrinkles, self.guide).numpy()


@dataclass(frozen=True, eq=False)
class Register:
    """A mesh as a template: see `models.uploads.Register`."""

    deadline_s: ClassVar[float] = 600

    file: MeshFile
    id: str
    landmarks: Landmarks | None

    def answer(self, host: Host) -> Template:
        """Refuses what `models.registration.register.register` does."""
        register = host.networks.registration.register
        return register(self.file, id=self.id, landmarks=self.landmarks, progress=lambda _: None)


@dataclass(frozen=True, eq=False)
class MeanLatents:
    """The pivot of an example on the default template."""

    deadline_s: ClassVar[float] = 600

    example: Example
    id: str

    def answer(self, host: Host) -> StylePivot:
        """Refuses, as MalformedInput, what only decoding an example's textures shows."""
        networks = host.networks
        return networks.encoders.pivot(self.example, default_template(networks.head), self.id)
