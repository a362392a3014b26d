"""Start reading here: speech and a head go in, frames come out.

    engine = load_engine()
    clip = engine.animate(waveform, AnimateOptions(fps=30))
    for frame in clip.frames: …

`load_engine` reads the weights once; `Engine.animate` checks everything and then returns a clip whose frames are a
generator. One-shot is the fold of the stream: sound goes through the encoder and the motion network in pieces of a
second, so that memory does not grow with length. Importing this module imports no torch.
"""

import hashlib
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from models.backend import Backend, autoencoders_id
from models.core import (
    PLAIN_TEXTURE,
    SAMPLE_RATE_HZ,
    AnimateOptions,
    Clip,
    CodeSpace,
    CodeStream,
    Frame,
    Mesh,
    StylePivot,
    Waveform,
    frame_count,
)
from models.errors import CheckpointError, OutOfRange, UnknownName, UnsupportedMedia
from models.meshes.record import MeshLimits
from models.performance import LIVE, USUAL, Cadence
from models.styles import parse_style

if TYPE_CHECKING:
    from models.atlas import Anchors
    from models.batching import EngineLoop, FunctionStatistics
    from models.features import SpeechEncoder
    from models.layout import Layout
    from models.live import Live
    from models.mmtalker.network import MMTalkerConfig
    from models.mmtalker.streaming import MMTalkerMotion, SurfaceQuery
    from models.performance import Performance, Pivots
    from models.pivots import StyleBook
    from models.registration.guide import Guide
    from models.relayout import Relayout
    from models.runtime import Runtime
    from models.skin.cabinet import Skins
    from models.template import Head, Report, Template
    from models.templates import TemplateBook
    from models.textalker.codec import CodecHead
    from models.textalker.denoiser import DenoiserConfig
    from models.textalker.encoding import MapEncoders
    from models.textalker.playback import MapQuery
    from models.textalker.streaming import TexTalkerCoding, TexTalkerMotion
    from models.textalker.upsampler import GuidedUpsampler, MapUpsampler
    from models.uploads import Registration, Uploads

log = logging.getLogger(__name__)

ENGINES = ("mmtalker", "textalker")
DEFAULT_WEIGHTS = Path(__file__).parent.parent / "weights"
CHECKPOINTS = (
    "head",
    "speech",
    "mmtalker",
    "textalker-motion",
    "textalker-wrinkle",
    "textalker-upsampler",
    "textalker",
    "styles",
    "shapes",
)
"""What a folder of weights holds."""
NOTHING: Mapping[str, Path] = {}
DEFAULT_LIMITS = MeshLimits()
PLACED = 8
"""Templates at a resolution that are kept in memory."""
MIN_CAPACITY = 2
"""Clips at once where a batch is one: they finish no sooner than in turn, but a short one need not wait for a long one,
nor for a slow reader.
"""


@dataclass(frozen=True)
class Sampling:
    """How TexTalker's windows are drawn: a name of `models.textalker.diffusion.SAMPLERS`, and its steps."""

    name: str = "ancestral"
    steps: int = 40


DEFAULT_SAMPLING = Sampling()


class TemplateInfo(Protocol):
    """What the service tells of a template. Its mesh may have to be read from a file: not in an event loop."""

    @property
    def id(self) -> str:
        """Its name in requests."""
        ...

    @property
    def mesh(self) -> Mesh:
        """The head at rest."""
        ...

    @property
    def vertex_count(self) -> int:
        """Vertices of its mesh."""
        ...

    @property
    def face_count(self) -> int:
        """Faces of its mesh."""
        ...

    @property
    def licence(self) -> str:
        """What it may be used for."""
        ...

    @property
    def region_sizes(self) -> Mapping[str, int]:
        """How many of its vertices belong to the lips, the eyes and the upper face."""
        ...

    @property
    def report(self) -> "Report | None":
        """How it was registered, of a head that came as a file."""
        ...


class Engine(Protocol):
    """What the service asks of an engine. A `pivot` is a style of one request, instead of the options' expressions; a
    `template` that is no id is a head of one request, as `register` gave it.
    """

    @property
    def templates(self) -> Mapping[str, TemplateInfo]:
        """The heads that can be animated, by id."""
        ...

    @property
    def styles(self) -> Mapping[str, StylePivot]:
        """The styles that expressions can name, by id: shipped ones and users' own."""
        ...

    def check(
        self, options: AnimateOptions, *, template: str | TemplateInfo = "default", pivot: StylePivot | None = None
    ) -> None:
        """Refuse what takes no speech to refuse: UnknownName for an engine, a style or a template that there is not,
        MalformedInput or OutOfRange for a style that is no expression, OutOfRange for a pivot without the part that
        the engine needs, or textures of an engine that makes none.
        """
        ...

    def animate(
        self,
        waveform: Waveform,
        options: AnimateOptions,
        *,
        template: str | TemplateInfo = "default",
        pivot: StylePivot | None = None,
        neutral: bytes | None = None,
    ) -> Clip:
        """Check everything, then return the clip: a refusal is raised here, never from the frames.

        neutral: the head's texture at rest as PNG, square and 8-bit RGB, instead of the template's own.
        """
        ...

    def live(
        self,
        options: AnimateOptions,
        *,
        template: str | TemplateInfo = "default",
        pivot: StylePivot | None = None,
        rate_hz: int = SAMPLE_RATE_HZ,
    ) -> "Live":
        """A performance of sound that is still to come, at `rate_hz`. Refuses what `check` does, and OutOfRange for
        textures, which are not made live, and for a rate beyond `models.live`'s.
        """
        ...

    def generator(self, checkpoint: str) -> Path:
        """The ONNX file of what decodes the codes of a checkpoint. UnknownName for one that has no codes."""
        ...

    def codec_head(self, template: str, resolution: int | None) -> "CodecHead":
        """What a decoder of codes needs of a template at a resolution. UnknownName, OutOfRange."""
        ...

    def register(
        self,
        file: BinaryIO,
        *,
        id: str | None = None,
        landmarks: bytes | None = None,
        texture: bytes | None = None,
        limits: MeshLimits = DEFAULT_LIMITS,
        progress: Callable[[str], None] = lambda _: None,
    ) -> TemplateInfo:
        """A mesh file of a head as a template, which is not kept; without an id it is named by its content.

        landmarks: a JSON object of names to places in the file's units and axes. texture: the head's at rest, encoded,
        as its uvs are laid out. Takes seconds, or nothing where the same was registered before. `progress` is told
        each step; what it raises ends the work. Refuses what `models.uploads.Uploads.template` does.
        """
        ...

    def check_free(self, id: str) -> None:
        """Refuse the name of a new template: OutOfRange for what is no id, Conflict for one that is taken."""
        ...

    def add_template(self, template: TemplateInfo) -> None:
        """Keep what `register` gave. Refuses what `check_free` does, and TooLarge if there are too many."""
        ...

    def remove_template(self, id: str) -> None:
        """Forget a user's template. UnknownName if there is none, Protected for the shipped one."""
        ...

    def preview(self, template: str | TemplateInfo) -> bytes:
        """A picture of the head at rest, as PNG. UnknownName."""
        ...

    def read_style(self, file: BinaryIO, id: str = "upload") -> StylePivot:
        """A stored pivot, or the mean latents of an example sequence on the default template, under a new id.

        UnsupportedMedia, MalformedInput or TooLarge for a file that is neither.
        """
        ...

    def store_style(self, pivot: StylePivot) -> bytes:
        """A pivot as a file, which `read_style` takes."""
        ...

    def add_style(self, pivot: StylePivot) -> None:
        """Keep a style. Conflict if its id is taken."""
        ...

    def mix_style(self, id: str, motion: str | None, wrinkle: str | None, description: str = "") -> StylePivot:
        """Keep a mix of styles as one. Refuses what `check` does of expressions, and Conflict."""
        ...

    def remove_style(self, id: str) -> None:
        """Forget a user's style. UnknownName if there is none, Protected for a shipped one."""
        ...

    def upsample(
        self, wrinkles: Float[np.ndarray, "own own 3"], size: int, guide: UInt8[np.ndarray, "any any 3"] | None = None
    ) -> Iterator[Float32[np.ndarray, "rows size 3"]]:
        """A wrinkle map of log-ratios, of any size, at `size`: strips of rows from the top, as `upsample_map` gives
        them. `guide` is a neutral texture (sRGB). Checked at once: OutOfRange for a size that cannot be had.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Engines, checkpoint hashes, device and execution providers."""
        ...

    def device_memory(self) -> Mapping[str, float]:
        """On a GPU `device_memory_used_bytes`, by whomever, and `device_memory_bytes`; cheap."""
        ...

    def warm_up(self) -> None:
        """Run short animations of every kind, so that no request pays for the first."""
        ...

    @property
    def capacity(self) -> int:
        """How many clips at once it makes best, right now; more at once finish no sooner. 0 where nothing runs."""
        ...

    def statistics(self) -> "Mapping[str, FunctionStatistics]":
        """What has run so far on the device of this process, by function."""
        ...

    def close(self) -> None:
        """Free the device, or leave the cluster. Clips that are not finished raise EngineClosed or EngineLost. Closing
        twice is closing.
        """
        ...


@dataclass(frozen=True, eq=False)
class _Placed:
    """A template at a resolution, and what a backend is asked with for it."""

    head: "Template"
    query: Any
    layout: "Layout | None"
    """Of its textures, where that is not the atlas."""


class LocalEngine:
    """Both methods, over networks in this process or elsewhere. Safe to call from several threads: each clip has a
    state of its own.
    """

    def __init__(
        self,
        networks: Backend,
        book: "StyleBook",
        description: Mapping[str, Any],
        *,
        templates: "TemplateBook | None" = None,
        uploads: "Uploads | None" = None,
    ) -> None:
        """Without a book of templates, or uploads that remember, users' heads last as long as the process."""
        from models.template import default_template
        from models.templates import TemplateBook
        from models.uploads import Uploads

        self._networks, self._book, self._description = networks, book, description
        self._templates = templates or TemplateBook([default_template(networks.head)])
        self._uploads = uploads or Uploads(networks.head, None, networks.registration)
        self._placed = lru_cache(PLACED)(self._place)
        self._previews = WeakKeyDictionary["Template", bytes]()
        self._drawing = Lock()

    @property
    def templates(self) -> Mapping[str, TemplateInfo]:
        """See `Engine.templates`."""
        return self._templates

    @property
    def styles(self) -> Mapping[str, StylePivot]:
        """See `Engine.styles`."""
        return self._book

    def check(
        self, options: AnimateOptions, *, template: str | TemplateInfo = "default", pivot: StylePivot | None = None
    ) -> None:
        """See `Engine.check`."""
        self._resolve(options, template, pivot)

    def _resolve(self, options: AnimateOptions, template: str | TemplateInfo, pivot: StylePivot | None) -> "Pivots":
        """Refuse what `check` does; the pivots that are left."""
        if options.engine not in ENGINES:
            raise UnknownName("engine", options.engine, ENGINES)
        if isinstance(template, str) and template not in self._templates:
            raise UnknownName("template", template, self._templates)
        if options.texture is not None and options.engine != "textalker":
            raise OutOfRange(
                f"texture = {options.texture} with engine = {options.engine}, which makes no wrinkles; leave it out",
                field="texture",
                code="impossible_combination",
            )
        return self._pivots(options, pivot)

    def animate(
        self,
        waveform: Waveform,
        options: AnimateOptions,
        *,
        template: str | TemplateInfo = "default",
        pivot: StylePivot | None = None,
        neutral: bytes | None = None,
    ) -> Clip:
        """See `Engine.animate`. The skin of a large texture is painted when it is first asked for."""
        pivots = self._resolve(options, template, pivot)
        placed = self._placement(template, options.resolution)
        mesh, enlarger = self._textured(placed, options.texture, neutral)
        return Clip(
            mesh=mesh,
            fps=options.fps,
            frame_count=frame_count(waveform.duration_s, options.fps),
            seed=options.seed,
            engine=options.engine,
            checkpoints=self._description["checkpoints"],
            frames=self._frames(waveform, options, placed, pivots),
            texture=options.texture,
            styles=_styles_of(options, pivot),
            codes=self._codes(waveform, options, placed.head.id, pivots) if options.engine == "textalker" else None,
            enlarger=enlarger,
        )

    def _textured(
        self, placed: _Placed, texture: int | None, neutral: bytes | None
    ) -> "tuple[Mesh, GuidedUpsampler | Relayout | None]":
        """The mesh with its texture at rest, and what makes textures of its wrinkles where that is not plain."""
        networks, mesh, upsampler = self._networks, placed.head.mesh, None
        if texture is not None and texture > PLAIN_TEXTURE:
            own = neutral is not None or placed.layout is not None
            if own or mesh.base_color_png != networks.head.base_color_png:
                upsampler = networks.guided(neutral or mesh.base_color_png, placed.layout)
            else:
                upsampler, neutral = networks.own_upsampler, networks.skins.png(texture)
        if neutral is not None:
            mesh = replace(mesh, base_color_png=neutral)
        if texture is None or placed.layout is None:
            return mesh, upsampler
        return mesh, networks.relaid(placed.layout, upsampler)

    def live(
        self,
        options: AnimateOptions,
        *,
        template: str | TemplateInfo = "default",
        pivot: StylePivot | None = None,
        rate_hz: int = SAMPLE_RATE_HZ,
    ) -> "Live":
        """See `Engine.live`. MMTalker's grid is finer than a clip's, and compiled when it is first asked for."""
        from models.live import Live, check_live

        check_live(options, rate_hz)
        self.check(options, template=template, pivot=pivot)
        placed = self._placement(template, options.resolution)
        performance = self._networks.performance(options, placed.query, LIVE)
        return Live(
            placed.head.mesh,
            options,
            performance,
            lambda batch: placed.head.pose(batch, options.fps, options.intensity),
            lambda wanted: self._resolve(wanted, template, pivot),
            rate_hz,
        )

    def generator(self, checkpoint: str) -> Path:
        """See `Engine.generator`."""
        return self._networks.generator(checkpoint)

    def codec_head(self, template: str, resolution: int | None) -> "CodecHead":
        """See `Engine.codec_head`."""
        from models.textalker.codec import MADE_OF, CodecHead

        placed = self._placement(template, AnimateOptions(resolution=resolution).resolution)
        checkpoints = {name: self._networks.checkpoints[name] for name in MADE_OF}
        maps, skin = self._networks.map_query(placed.query), self._networks.skin_texels
        return CodecHead(template, resolution, checkpoints, placed.head, maps, skin, placed.layout)

    def register(
        self,
        file: BinaryIO,
        *,
        id: str | None = None,
        landmarks: bytes | None = None,
        texture: bytes | None = None,
        limits: MeshLimits = DEFAULT_LIMITS,
        progress: Callable[[str], None] = lambda _: None,
    ) -> "Template":
        """See `Engine.register`. Steps are logged, too."""
        from models.uploads import Upload

        def tell(step: str) -> None:
            log.info("registering %s: %s", id or "a head", step)
            progress(step)

        return self._uploads.template(Upload(file, texture, landmarks), limits, id=id, progress=tell)

    def check_free(self, id: str) -> None:
        """See `Engine.check_free`."""
        self._templates.check_free(id)

    def add_template(self, template: TemplateInfo) -> None:
        """See `Engine.add_template`."""
        self._templates.add(self._opened(template))

    def remove_template(self, id: str) -> None:
        """See `Engine.remove_template`."""
        self._templates.remove(id)
        self._placed.cache_clear()

    def preview(self, template: str | TemplateInfo) -> bytes:
        """See `Engine.preview`. Drawn one at a time, and kept as long as the template is in memory."""
        from models.preview import preview

        head = self._opened(template)
        with self._drawing:
            if head not in self._previews:
                self._previews[head] = preview(head)
            return self._previews[head]

    def read_style(self, file: BinaryIO, id: str = "upload") -> StylePivot:
        """See `Engine.read_style`."""
        from models.pivots import read_pivot

        try:
            pivot = read_pivot(file, self._networks.autoencoders)
        except UnsupportedMedia as error:
            if error.code != "not_a_pivot":
                raise
            return self._networks.pivot_of(file, self._templates.open("default"), id)
        self._book.check(pivot)
        return replace(pivot, id=id)

    def store_style(self, pivot: StylePivot) -> bytes:
        """See `Engine.store_style`."""
        from models.pivots import pivot_bytes

        return pivot_bytes(pivot, self._networks.autoencoders)

    def add_style(self, pivot: StylePivot) -> None:
        """See `Engine.add_style`."""
        self._book.add(pivot)

    def mix_style(self, id: str, motion: str | None, wrinkle: str | None, description: str = "") -> StylePivot:
        """See `Engine.mix_style`."""
        return self._book.add_mix(id, motion, wrinkle, description)

    def remove_style(self, id: str) -> None:
        """See `Engine.remove_style`."""
        self._book.remove(id)

    def upsample(
        self, wrinkles: Float[np.ndarray, "own own 3"], size: int, guide: UInt8[np.ndarray, "any any 3"] | None = None
    ) -> Iterator[Float32[np.ndarray, "rows size 3"]]:
        """See `Engine.upsample`."""
        from models.textalker.detail import upsample_map

        return upsample_map(self._networks.upsampler, wrinkles, size, guide)

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        return dict(self._description)

    def device_memory(self) -> Mapping[str, float]:
        """See `Engine.device_memory`."""
        if not str(self._description.get("device")).startswith("cuda"):
            return {}
        import torch

        free, total = torch.cuda.mem_get_info()
        return {"device_memory_used_bytes": total - free, "device_memory_bytes": total}

    def warm_up(self) -> None:
        """See `Engine.warm_up`."""
        silence = Waveform(np.zeros(SAMPLE_RATE_HZ // 2, np.float32))
        wanted = (
            AnimateOptions(),
            AnimateOptions(resolution=AnimateOptions.MIN_POINTS),
            AnimateOptions(engine="textalker", texture=512),
        )
        for options in wanted:
            list(self.animate(silence, options).frames)

    @property
    def capacity(self) -> int:
        """See `Engine.capacity`."""
        return self._networks.capacity

    def statistics(self) -> "Mapping[str, FunctionStatistics]":
        """See `Engine.statistics`."""
        return self._networks.statistics()

    def close(self) -> None:
        """See `Engine.close`."""
        self._networks.close()

    def _frames(
        self, waveform: Waveform, options: AnimateOptions, placed: _Placed, pivots: "Pivots"
    ) -> Generator[Frame, None, None]:
        performance = self._networks.performance(options, placed.query)
        with closing(self._networks.perform(performance, pivots, waveform)) as batches:
            for batch in batches:
                yield from placed.head.pose(batch, options.fps, options.intensity)

    def _codes(self, waveform: Waveform, options: AnimateOptions, template: str, pivots: "Pivots") -> CodeStream:
        from models.textalker.codes import RATE_HZ

        networks = self._networks
        spaces = dict(networks.spaces)
        if options.texture is None:
            del spaces["wrinkle"]
        return CodeStream(
            moments=frame_count(waveform.duration_s, RATE_HZ),
            spaces=spaces,
            template=template,
            resolution=options.resolution,
            intensity=options.intensity,
            batches=networks.perform(networks.coding(options), pivots, waveform),
        )

    def _pivots(self, options: AnimateOptions, pivot: StylePivot | None) -> "Pivots":
        """p_f, and p_w if there are to be textures; a wrinkle style must be known in any case."""
        from models.performance import Pivots

        if pivot is None:
            motion = self._book.mix(options.motion_style, "motion")
            if options.texture is None:
                parse_style(options.wrinkle_style, self._book, field="wrinkle_style")
                return Pivots(motion, None)
            return Pivots(motion, self._book.mix(options.wrinkle_style, "wrinkle"))
        if pivot.motion is None or (options.texture is not None and pivot.wrinkle is None):
            missing = "motion" if pivot.motion is None else "wrinkles"
            raise OutOfRange(
                f"style_file holds no {missing}, which this request needs; send an example that has them",
                field="style_file",
                code="impossible_combination",
            )
        return Pivots(pivot.motion, None if options.texture is None else pivot.wrinkle)

    def _opened(self, template: str | TemplateInfo) -> "Template":
        """The template with all its numbers; one that is no id came from `register`."""
        from models.template import Template

        if isinstance(template, str):
            return self._templates.open(template)
        assert isinstance(template, Template), "a head of one request is what `register` gave"
        return template

    def _placement(self, template: str | TemplateInfo, resolution: int | None) -> _Placed:
        """Heads of one request are not kept."""
        place = self._placed if isinstance(template, str) else self._place
        return place(self._opened(template), resolution)

    def _place(self, head: "Template", resolution: int | None) -> _Placed:
        from models.layout import layout_of
        from models.mmtalker.sampling import sample_surface, sample_template

        networks = self._networks
        canonical = networks.head
        if resolution is not None:
            kept = None if head.form is None else head.form.kept
            surface = sample_surface(canonical.atlas, networks.log_density, resolution, kept=kept)
            head = sample_template(self._formed(head), canonical, surface)
        return _Placed(head, networks.query(head.anchors), layout_of(head, canonical))

    def _formed(self, head: "Template") -> "Template":
        """What is sampled in place of a template: of one that was registered, its form in its texture."""
        from models.form import form_template, on_atlas

        canonical = self._networks.head
        return head if head.form is None else form_template(head, canonical, on_atlas(head, canonical))


def _styles_of(options: AnimateOptions, pivot: StylePivot | None) -> dict[str, str]:
    """What a clip says of its styles; a one-off pivot is told by its latents."""
    if pivot is None:
        return {"motion": options.motion_style, "wrinkle": options.wrinkle_style}
    parts = (("motion", pivot.motion), ("wrinkle", pivot.wrinkle))
    digests = {
        part: hashlib.sha256(latents.tobytes()).hexdigest()[:16] for part, latents in parts if latents is not None
    }
    return {part: f"{pivot.id} {digest}" for part, digest in digests.items()}


class Query(NamedTuple):
    """Where each engine is asked for motion."""

    surface: "SurfaceQuery"
    maps: "MapQuery"


@dataclass(frozen=True, eq=False)
class Networks(Backend):
    """What a folder of weights holds, and the sha256 of each checkpoint, by name."""

    head: "Head"
    encoder: "SpeechEncoder"
    motion: "MMTalkerMotion"
    textalker: "TexTalkerMotion"
    encoders: "MapEncoders"
    upsampler: "MapUpsampler"
    skins: "Skins"
    shapes: Path
    checkpoints: Mapping[str, str]
    loop: "EngineLoop | None" = None
    """What the networks were compiled for."""

    @cached_property
    def _live(self) -> "Networks":
        """The same with an MMTalker on the grid of live streams, compiled when the first one comes."""
        return replace(self, encoder=self.encoder.on_grid(LIVE.block), motion=self.motion.at(LIVE))

    @cached_property
    def guide(self) -> "Guide":
        """What heads that come as files are registered by; read when the first one comes. CheckpointError for shapes
        that are none, or of another head.
        """
        from models.registration.guide import Guide
        from models.registration.shapes import load_shapes

        return Guide(self.head, load_shapes(self.shapes, self.head))

    @property
    def registration(self) -> "Registration":
        """How heads that come as files become templates."""
        from models.uploads import registration_by

        return registration_by(lambda: self.guide, self.checkpoints["shapes"])

    @property
    def capacity(self) -> int:
        """See `Backend.capacity`: as many as fill a batch; on a CPU, MIN_CAPACITY."""
        return max(MIN_CAPACITY, 0 if self.loop is None else self.loop.batch)

    def statistics(self) -> "Mapping[str, FunctionStatistics]":
        """See `Backend.statistics`."""
        return {} if self.loop is None else self.loop.statistics()

    def close(self) -> None:
        """See `Backend.close`."""
        if self.loop is not None:
            self.loop.close()

    @property
    def log_density(self) -> Float32[np.ndarray, " vertices"]:
        """See `Backend.log_density`."""
        return self.motion.log_density

    @property
    def spaces(self) -> Mapping[str, CodeSpace]:
        """See `Backend.spaces`."""
        return {part: coder.space for part, coder in self.textalker.decoders.coders.items()}

    @property
    def skin_texels(self) -> Bool[np.ndarray, "size size"]:
        """See `Backend.skin_texels`."""
        return self.textalker.decoders.skin

    def query(self, anchors: "Anchors") -> Query:
        """See `Backend.query`."""
        rim = self.head.rim_anchors
        return Query(self.motion.query(anchors, rim), self.textalker.query(anchors, rim))

    def map_query(self, query: Query) -> "MapQuery":
        """See `Backend.map_query`."""
        return query.maps

    def performance(self, options: AnimateOptions, query: Query, cadence: Cadence = USUAL) -> "Performance[Any]":
        """See `Backend.performance`."""
        from models.mmtalker.blinks import BlinkTrack
        from models.mmtalker.streaming import MMTalkerPerformance
        from models.textalker.streaming import TexTalkerPerformance

        if options.engine == "mmtalker":
            networks, lids = self._live if cadence == LIVE else self, BlinkTrack(options.seed)
            return MMTalkerPerformance(networks.encoder, networks.motion, query.surface, lids, options.fps)
        return TexTalkerPerformance(self.coding(options), query.maps, options.fps)

    def coding(self, options: AnimateOptions) -> "TexTalkerCoding":
        """See `Backend.coding`."""
        from models.mmtalker.blinks import BlinkTrack
        from models.textalker.streaming import TexTalkerCoding

        return TexTalkerCoding(self.encoder, self.textalker, BlinkTrack(options.seed), options.seed)

    def generator(self, checkpoint: str) -> Path:
        """See `Backend.generator`."""
        coders = {coder.space.checkpoint: coder for coder in self.textalker.decoders.coders.values()}
        if checkpoint not in coders:
            raise UnknownName("checkpoint", checkpoint, coders)
        return coders[checkpoint].file

    def pivot_of(self, file: BinaryIO, template: "Template", id: str) -> StylePivot:
        """See `Backend.pivot_of`."""
        from models.examples import check_topology, read_example

        return self.encoders.pivot(check_topology(read_example(file), template), template, id)


def open_networks(
    folder: Path, runtime: "Runtime", sampling: Sampling = DEFAULT_SAMPLING, replaced: Mapping[str, Path] = NOTHING
) -> Networks:
    """The networks of a folder of weights; `replaced` gives other files for some of CHECKPOINTS.

    CheckpointError for weights that are missing, damaged or do not fit each other.
    """
    from models.checkpoint import file_sha256, pinned_file
    from models.features import open_encoder
    from models.mmtalker.network import load_mmtalker
    from models.mmtalker.streaming import MMTalkerMotion
    from models.skin.cabinet import Skins
    from models.template import load_head
    from models.textalker.autoencoder import load_autoencoder
    from models.textalker.decoding import PairDecoders
    from models.textalker.denoiser import load_denoiser
    from models.textalker.encoding import MapEncoders
    from models.textalker.streaming import TexTalkerMotion
    from models.textalker.upsampler import MapUpsampler, load_upsampler

    pinned = {name: pinned_file(folder, name) for name in CHECKPOINTS if name not in replaced}
    files = {name: path for name, (path, _) in pinned.items()} | dict(replaced)
    for path in replaced.values():
        if not path.is_file():
            raise CheckpointError(f"{path} is missing; give a run that has saved something")
    digests = {name: pinned[name][1] if name in pinned else file_sha256(files[name]) for name in CHECKPOINTS}
    head = load_head(files["head"])
    mmtalker, denoiser = load_mmtalker(files["mmtalker"], head.atlas), load_denoiser(files["textalker"])
    parts = {
        part: load_autoencoder(files[f"textalker-{part}"], part, head.atlas.fingerprint)
        for part in ("motion", "wrinkle")
    }
    upsampler = load_upsampler(files["textalker-upsampler"], head.atlas.fingerprint)
    if upsampler.config.size != parts["wrinkle"].config.size:
        raise CheckpointError(
            f"{files['textalker-upsampler']} enlarges maps of {upsampler.config.size} texels; the wrinkle auto-encoder "
            f"makes {parts['wrinkle'].config.size}: train it again"
        )
    encoder = open_encoder(mmtalker.config.encoder, files["speech"], runtime)
    latents = parts["motion"].config.latents
    for name, other in _misfits(mmtalker.config, denoiser.config, digests, encoder.width, latents):
        raise CheckpointError(f"{files[name]} was trained on {other} than {folder} holds: take that, or train anew")
    return Networks(
        head,
        encoder,
        MMTalkerMotion(mmtalker, head.atlas, runtime),
        TexTalkerMotion(
            head,
            denoiser,
            PairDecoders(head, parts["motion"], parts["wrinkle"], runtime, digests),
            runtime,
            sampling.name,
            sampling.steps,
        ),
        MapEncoders(head, parts["motion"], parts["wrinkle"], runtime),
        MapUpsampler(upsampler, runtime),
        Skins(head, runtime.cache, runtime.threads),
        files["shapes"],
        digests,
        runtime.loop,
    )


def _misfits(
    mmtalker: "MMTalkerConfig", denoiser: "DenoiserConfig", digests: Mapping[str, str], features: int, latents: int
) -> Iterator[tuple[str, str]]:
    """Which of the two was trained on other checkpoints than these, and on what other."""
    for name, config in (("mmtalker", mmtalker), ("textalker", denoiser)):
        same = (config.encoder, config.features) == (mmtalker.encoder, features)
        if not same or config.encoder_sha256 not in ("", digests["speech"]):
            yield name, "another speech encoder"
    if mmtalker.pivot != latents or mmtalker.autoencoder_sha256 not in ("", digests["textalker-motion"]):
        yield "mmtalker", "another auto-encoder"
    if denoiser.autoencoders not in ("", autoencoders_id(digests)):
        yield "textalker", "other auto-encoders"


def load_engine(
    weights: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    threads: int = 0,
    *,
    batch: int = 0,
    styles: Path | None = None,
    templates: Path | None = None,
    sampling: Sampling = DEFAULT_SAMPLING,
) -> LocalEngine:
    """The engine over a folder of weights; the first start exports them to ONNX into `cache`, which takes seconds,
    unless the folder has them in `graphs`.

    `threads` 0 leaves their number to the runtime, `batch` 0 leaves it to the device how many clips' steps run as one.
    `styles` and `templates` are where users' styles and heads are kept; without these folders they are gone with the
    process. CheckpointError for weights that are missing, damaged or do not fit each other, OutOfRange for a device
    that there is not.
    """
    from models.checkpoint import pinned_file
    from models.pivots import StyleBook, load_styles
    from models.runtime import open_runtime
    from models.template import default_template
    from models.templates import TemplateBook
    from models.uploads import Uploads

    folder = weights or DEFAULT_WEIGHTS
    runtime = open_runtime(device, cache or Path.home() / ".cache" / "talker", threads, batch, folder / "graphs")
    networks = open_networks(folder, runtime, sampling)
    shipped = load_styles(pinned_file(folder, "styles")[0], networks.autoencoders)
    description = {
        "engines": list(ENGINES),
        "checkpoints": dict(networks.checkpoints),
        "device": str(runtime.device),
        "providers": runtime.providers,
    }
    uploads = Uploads(networks.head, runtime.cache / "registrations", networks.registration)
    return LocalEngine(
        networks,
        StyleBook(shipped, styles, networks.autoencoders),
        description,
        templates=TemplateBook([default_template(networks.head)], templates, uploads.origin),
        uploads=uploads,
    )
