"""Start reading here: speech and a head go in, frames come out.

    engine = load_engine()
    clip = engine.animate(waveform, AnimateOptions(fps=30))
    for frame in clip.frames: …

`load_engine` reads the weights once; `Engine.animate` checks everything and then returns a clip whose frames are a
generator. One-shot is the fold of the stream: sound goes through the encoder and the motion network in pieces of a
second, so that memory does not grow with length. Importing this module imports no torch.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from models.core import SAMPLE_RATE_HZ, AnimateOptions, Clip, Frame, Mesh, Waveform, frame_count
from models.errors import CheckpointError, UnknownName
from models.styles import parse_style

if TYPE_CHECKING:
    from models.features import SpeechEncoder
    from models.mmtalker.streaming import MMTalkerMotion, SurfaceQuery
    from models.runtime import Runtime
    from models.template import Head, Template

ENGINES = ("mmtalker",)
STYLES = ("neutral",)
DEFAULT_WEIGHTS = Path(__file__).parent.parent / "weights"


class TemplateInfo(Protocol):
    """What the service tells of a template."""

    @property
    def id(self) -> str:
        """Its name in requests."""
        ...

    @property
    def mesh(self) -> Mesh:
        """The head at rest."""
        ...

    @property
    def licence(self) -> str:
        """What it may be used for."""
        ...

    @property
    def region_sizes(self) -> Mapping[str, int]:
        """How many of its vertices belong to the lips, the eyes and the upper face."""
        ...


class Engine(Protocol):
    """What the service asks of an engine."""

    @property
    def templates(self) -> Mapping[str, TemplateInfo]:
        """The heads that can be animated, by id."""
        ...

    def check(self, options: AnimateOptions, *, template: str = "default") -> None:
        """Refuse what takes no speech to refuse: UnknownName for an engine, a style or a template that there is not,
        MalformedInput or OutOfRange for a style that is no expression.
        """
        ...

    def animate(self, waveform: Waveform, options: AnimateOptions, *, template: str = "default") -> Clip:
        """Check everything, then return the clip: a refusal is raised here, never from the frames."""
        ...

    def describe(self) -> dict[str, Any]:
        """Engines, checkpoint hashes, device and execution providers."""
        ...

    def warm_up(self) -> None:
        """Run short inferences of every kind, so that no request pays for the first."""
        ...


class LocalEngine:
    """MMTalker in this process. Safe to call from several threads: each clip has a state of its own."""

    def __init__(
        self, head: "Head", encoder: "SpeechEncoder", motion: "MMTalkerMotion", description: Mapping[str, Any]
    ) -> None:
        from models.template import default_template

        self._head, self._encoder, self._motion, self._description = head, encoder, motion, description
        self._templates = {"default": default_template(head)}
        self._surface = lru_cache(maxsize=8)(self._prepare)

    @property
    def templates(self) -> Mapping[str, "Template"]:
        """See `Engine.templates`."""
        return self._templates

    def check(self, options: AnimateOptions, *, template: str = "default") -> None:
        """See `Engine.check`."""
        for kind, name, known in (("engine", options.engine, ENGINES), ("template", template, self._templates)):
            if name not in known:
                raise UnknownName(kind, name, known)
        parse_style(options.style, STYLES)

    def animate(self, waveform: Waveform, options: AnimateOptions, *, template: str = "default") -> Clip:
        """See `Engine.animate`."""
        self.check(options, template=template)
        head, query = self._surface(template, options.resolution)
        return Clip(
            mesh=head.mesh,
            fps=options.fps,
            frame_count=frame_count(waveform.duration_s, options.fps),
            seed=options.seed,
            engine=options.engine,
            checkpoints=self._description["checkpoints"],
            frames=self._frames(waveform, options, head, query),
        )

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        return dict(self._description)

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        silence = Waveform(np.zeros(SAMPLE_RATE_HZ // 2, np.float32))
        for resolution in (None, AnimateOptions.MIN_POINTS):
            list(self.animate(silence, AnimateOptions(resolution=resolution)).frames)

    def _frames(
        self, waveform: Waveform, options: AnimateOptions, head: "Template", query: "SurfaceQuery"
    ) -> Generator[Frame, None, None]:
        from models.mmtalker.blinks import BlinkTrack
        from models.mmtalker.streaming import stream_motion

        lids = BlinkTrack(options.seed)
        for batch in stream_motion(self._encoder, self._motion, waveform, query, lids, options.fps):
            sealed = head.seal.close(batch.offsets, batch.rim_offsets, batch.contact)
            for index, vertices in enumerate(head.place(sealed, options.intensity), batch.first):
                yield Frame(index, index / options.fps, vertices)

    def _prepare(self, template: str, resolution: int | None) -> tuple["Template", "SurfaceQuery"]:
        """A template at a resolution, and where the decoder must be asked for it."""
        from models.mmtalker.sampling import sample_surface, sample_template

        head = self._templates[template]
        if resolution is not None:
            head = sample_template(
                head, self._head, sample_surface(self._head.atlas, self._motion.log_density, resolution)
            )
        return head, self._motion.query(head.anchors, self._head.rim_anchors)


@dataclass(frozen=True, eq=False)
class Networks:
    """What a folder of weights holds, and the sha256 of each checkpoint, by name."""

    head: "Head"
    encoder: "SpeechEncoder"
    motion: "MMTalkerMotion"
    checkpoints: Mapping[str, str]


def open_networks(folder: Path, runtime: "Runtime", checkpoint: Path | None = None) -> Networks:
    """The networks of a folder of weights, with another MMTalker checkpoint if one is given.

    CheckpointError for weights that are missing, damaged or do not fit each other.
    """
    from models.checkpoint import pinned_file
    from models.features import open_encoder
    from models.mmtalker.network import load_mmtalker
    from models.mmtalker.streaming import MMTalkerMotion
    from models.template import load_head

    files = {name: pinned_file(folder, name) for name in ("head", "speech", "mmtalker")}
    digests = {name: digest for name, (_, digest) in files.items()}
    head = load_head(files["head"][0])
    network = load_mmtalker(checkpoint or files["mmtalker"][0], head.atlas)
    config = network.config
    encoder = open_encoder(config.encoder, files["speech"][0], runtime)
    if config.encoder_sha256 not in ("", digests["speech"]) or encoder.width != config.features:
        raise CheckpointError(
            f"{checkpoint or files['mmtalker'][0]} was trained on another speech encoder than {config.encoder} of "
            f"{folder}: take that one, or train anew"
        )
    return Networks(head, encoder, MMTalkerMotion(network, head.atlas, runtime), digests)


def load_engine(
    weights: Path | None = None, cache: Path | None = None, device: str = "auto", threads: int = 0
) -> LocalEngine:
    """The engine over a folder of weights; the first start exports them to ONNX into `cache`, which takes seconds.

    `threads` 0 leaves their number to the runtime. CheckpointError for weights that are missing, damaged or do not
    fit each other, OutOfRange for a device that there is not.
    """
    from models.runtime import open_runtime

    runtime = open_runtime(device, cache or Path.home() / ".cache" / "talker", threads)
    networks = open_networks(weights or DEFAULT_WEIGHTS, runtime)
    description = {
        "engines": list(ENGINES),
        "checkpoints": dict(networks.checkpoints),
        "device": str(runtime.device),
        "providers": runtime.providers,
    }
    return LocalEngine(networks.head, networks.encoder, networks.motion, description)
