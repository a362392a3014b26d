"""A service over a fake engine: a small head, cheap frames, and every way to misbehave."""

import io
import math
import os
import threading
import time
import wave
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from models.core import (
    SAMPLE_RATE_HZ,
    AnimateOptions,
    Clip,
    CodeBatch,
    Codes,
    CodeSpace,
    CodeStream,
    Frame,
    Mesh,
    StylePivot,
    Waveform,
    check_id,
    frame_count,
)
from models.engine import ENGINES, TemplateInfo
from models.errors import Conflict, MalformedInput, OutOfRange, Protected, UnknownName, UnsupportedMedia
from models.lips import LipSeal
from models.live import Live, check_live
from models.meshes.record import MeshLimits
from models.performance import Pivots, Step
from models.puppet import MotionBatch, Puppet
from models.styles import parse_style
from models.template import Component, Report
from models.textalker.codec import CodecHead
from models.textalker.playback import MapQuery
from models.uploads import read_landmarks

if TYPE_CHECKING:  # tests of models and training do without the service
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from service.settings import Settings

os.environ.setdefault("TALKER_ISOLATE", "false")  # a worker for each app of each test takes its time

WAIT_S = 20.0
"""How long a test waits for what must happen; only a failure waits that long."""


def grid_mesh(rows: int = 7, columns: int = 7) -> Mesh:
    """A flat patch of rows × columns vertices, one uv each."""
    v, u = np.mgrid[0 : 1 : rows * 1j, 0 : 1 : columns * 1j].reshape(2, -1).astype(np.float32)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1, 1)
    quads = corner + np.array([0, 1, columns + 1, columns])
    faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.int32)
    return Mesh(
        vertices=np.stack([u, v, np.zeros_like(u)], axis=1) * np.float32(0.1),
        faces=faces,
        uvs=np.stack([u, v], axis=1),
        uv_faces=faces,
    )


@dataclass(frozen=True)
class FakeTemplate:
    id: str
    mesh: Mesh
    licence: str = "CC0-1.0"
    report: Report | None = None
    region_sizes: Mapping[str, int] = field(default_factory=lambda: {"lips": 9, "eyes": 4, "upper_face": 14})

    @property
    def vertex_count(self) -> int:
        return len(self.mesh.vertices)

    @property
    def face_count(self) -> int:
        return len(self.mesh.faces)


FAKE_REPORT = Report(
    0.8, 0.3, 0.01, "+Z", "-Y", (Component("skin", 49, 72),), 3, {"nose_tip": (0.0, 1.0, 2.5)}, ("no teeth",)
)


def fake_style(id: str, origin: str = "shipped", value: float = 0.0) -> StylePivot:
    """A style of both parts, all of whose latents are `value`."""
    latents = np.full(4, value, np.float32)
    return StylePivot(id, f"{id}, for tests", origin, {"opening_mm": 1.5}, latents, latents)


class FakeState(NamedTuple):
    style: float
    samples: int
    frame: int


@dataclass(frozen=True)
class FakePerformance:
    """models.performance.Performance: a frame is there when its sound is; calm is a centimetre off."""

    vertices: int
    fps: float
    latency_s: float = 0.0

    def start(self, pivots: Pivots) -> FakeState:
        return FakeState(float(pivots.motion[0]), 0, 0)

    def restyle(self, state: FakeState, pivots: Pivots) -> FakeState:
        return state._replace(style=float(pivots.motion[0]))

    def step(self, state: FakeState, samples: np.ndarray, duration_s: float | None) -> Step[FakeState]:
        heard = state.samples + len(samples)
        done = frame_count(heard / SAMPLE_RATE_HZ if duration_s is None else duration_s, self.fps)
        times = np.arange(state.frame, done) / self.fps
        moved = 0.001 * np.sin(1 + np.arange(state.frame, done)) + 0.01 * state.style
        offsets = np.tile(moved.astype(np.float32)[:, None, None], (1, self.vertices, 3))
        if len(times):
            yield MotionBatch(state.frame, times.astype(np.float32), offsets, offsets[:, :0], offsets[:, 0, 0])
        return FakeState(state.style, heard, done)


class FakeEngine:
    """models.engine.Engine, made to misbehave.

    Wrinkles are as deep as the wrinkle style's share of calm, and leave the texels of the upper half alone. An example
    is the word `example` and the value of its latents. Upsampled, every map is neutral. It raises `failure` at the
    frame, or the strip, `fail_at`; at `hold_at` it sets `held` and waits for `gate`.
    """

    def __init__(self) -> None:
        self.mesh = grid_mesh()
        self.styles: dict[str, StylePivot] = {"neutral": fake_style("neutral"), "calm": fake_style("calm", value=1.0)}
        self.pivots: list[StylePivot | None] = []
        self.fail_at: int | None = None
        self.failure: Exception = RuntimeError("a secret of the engine")
        self.hold_at: int | None = None
        self.held = threading.Event()
        self.gate = threading.Event()
        self.warm = threading.Event()
        self.warm.set()
        self.calls: list[tuple[Waveform, AnimateOptions]] = []
        self.made_templates: dict[str, FakeTemplate] = {}
        self.registered: list[tuple[str | None, bytes | None, bytes | None, MeshLimits]] = []
        self.animated: list[str] = []
        self.made = 0
        self.capacity = 1
        self.closed = threading.Event()
        self.capacity = 1
        self.shut = threading.Event()

    @property
    def templates(self) -> Mapping[str, FakeTemplate]:
        return {"default": FakeTemplate("default", self.mesh), **self.made_templates}

    def check(
        self, options: AnimateOptions, *, template: str | TemplateInfo = "default", pivot: StylePivot | None = None
    ) -> None:
        if isinstance(template, str) and template not in self.templates:
            raise UnknownName("template", template, self.templates)
        for name in ("motion_style", "wrinkle_style"):
            parse_style(getattr(options, name), self.styles, field=name)

    def animate(
        self,
        waveform: Waveform,
        options: AnimateOptions,
        *,
        template: str | TemplateInfo = "default",
        pivot: StylePivot | None = None,
        neutral: bytes | None = None,
    ) -> Clip:
        self.check(options, template=template, pivot=pivot)
        self.calls.append((waveform, options))
        self.animated.append(template if isinstance(template, str) else template.id)
        self.pivots.append(pivot)
        count = frame_count(waveform.duration_s, options.fps)
        mesh = (self.templates[template] if isinstance(template, str) else template).mesh
        return Clip(
            mesh=mesh if neutral is None else replace(mesh, base_color_png=neutral),
            fps=options.fps,
            frame_count=count,
            seed=options.seed,
            engine=options.engine,
            checkpoints={"mmtalker": "0" * 64},
            frames=self._frames(count, options, mesh),
            texture=options.texture,
            styles={"motion": options.motion_style, "wrinkle": options.wrinkle_style},
            codes=self._codes(waveform, options, str(template)) if options.engine == "textalker" else None,
        )

    def _codes(self, waveform: Waveform, options: AnimateOptions, template: str) -> CodeStream:
        """Codes by seed, of maps of 2 × 2 of 8 entries."""
        moments, parts = frame_count(waveform.duration_s, 30), ("motion", "wrinkle")[: 2 if options.texture else 1]
        random = np.random.default_rng(options.seed)
        codes = [random.integers(0, 8, (moments, 2, 2)).astype(np.uint16) for _ in parts]
        contact = random.random(moments, np.float32)
        batches = (
            CodeBatch(k, contact[k : k + 1], Codes(*(part[k : k + 1] for part in codes), *[None] * (2 - len(codes))))
            for k in range(moments)
        )
        spaces = {part: CodeSpace(f"textalker-{part}", 8, 2) for part in parts}
        return CodeStream(moments, spaces, template, options.resolution, options.intensity, batches)

    def generator(self, checkpoint: str) -> Path:
        if checkpoint != "textalker-motion":
            raise UnknownName("checkpoint", checkpoint, ["textalker-motion"])
        return Path(__file__)

    def codec_head(self, template: str, resolution: int | None) -> CodecHead:
        self.check(AnimateOptions(resolution=resolution), template=template)
        vertices = len(self.mesh.vertices)
        seal = LipSeal(np.zeros((1, 2), np.float32), csr_matrix((vertices, 1), dtype=np.float32))
        puppet = Puppet(self.mesh, np.tile(np.eye(3, dtype=np.float32), (vertices, 1, 1)), seal)
        query = MapQuery(csr_matrix((vertices + 2, 16), dtype=np.float32), vertices)
        return CodecHead(template, resolution, {"head": "0" * 64}, puppet, query, np.ones((4, 4), bool))

    def read_style(self, file: BinaryIO, id: str = "upload") -> StylePivot:
        kind, _, value = file.read().decode().partition(" ")
        if kind == "cube":
            raise MalformedInput("an example of 8 vertices; wanted 49: send this head", code="other_topology")
        if kind != "example":
            raise UnsupportedMedia("no example; wanted one: send it", code="not_example")
        return fake_style(id, "upload", float(value))

    def store_style(self, pivot: StylePivot) -> bytes:
        latents = pivot.wrinkle if pivot.motion is None else pivot.motion
        assert latents is not None
        return f"example {latents[0]}".encode()

    def add_style(self, pivot: StylePivot) -> None:
        if pivot.id in self.styles:
            raise Conflict(f"there is a style {pivot.id} already; choose another id", field="id")
        self.styles[pivot.id] = pivot

    def mix_style(self, id: str, motion: str | None, wrinkle: str | None, description: str) -> StylePivot:
        latents = [
            None if text is None else self._mixed(text, name)
            for name, text in (("motion", motion), ("wrinkle", wrinkle))
        ]
        style = StylePivot(id, description, "mix", {}, *latents)
        self.add_style(style)
        return style

    def remove_style(self, id: str) -> None:
        if id not in self.styles:
            raise UnknownName("style", id, self.styles, field="id")
        if self.styles[id].origin == "shipped":
            raise Protected(f"{id} was shipped; only user-made styles can be removed", field="id")
        del self.styles[id]

    def _mixed(self, expression: str, field: str) -> np.ndarray:
        shares = parse_style(expression, self.styles, field=field)
        return sum(np.float32(share) * self.styles[id].motion for id, share in shares.items())

    def live(
        self,
        options: AnimateOptions,
        *,
        template: str | TemplateInfo = "default",
        pivot: StylePivot | None = None,
        rate_hz: int = SAMPLE_RATE_HZ,
    ) -> Live:
        check_live(options, rate_hz)
        self.check(options, template=template, pivot=pivot)
        mesh = (self.templates[template] if isinstance(template, str) else template).mesh

        def pose(batch: MotionBatch) -> Iterator[Frame]:
            for index, moved in enumerate(batch.offsets, batch.first):
                self._misbehave(index)
                self.made += 1
                yield Frame(index, index / options.fps, mesh.vertices + np.float32(options.intensity) * moved)

        def pivots(wanted: AnimateOptions) -> Pivots:
            shares = parse_style(wanted.motion_style, self.styles, field="motion_style")
            return Pivots(np.float32([shares.get("calm", 0.0)]), None)

        return Live(mesh, options, FakePerformance(len(mesh.vertices), options.fps), pose, pivots, rate_hz)

    def _frames(self, count: int, options: AnimateOptions, mesh: Mesh) -> Iterator[Frame]:
        try:
            for index in range(count):
                self._misbehave(index)
                offset = np.float32(0.001 * options.intensity * math.sin(index))
                self.made += 1
                wrinkles = self._wrinkles(index, options) if options.texture else None
                yield Frame(index, index / options.fps, mesh.vertices + offset, wrinkles)
        finally:
            self.closed.set()

    def register(
        self,
        file: BinaryIO,
        *,
        id: str | None = None,
        landmarks: bytes | None = None,
        texture: bytes | None = None,
        limits: MeshLimits,
        progress: Callable[[str], None] = lambda _: None,
    ) -> FakeTemplate:
        """A mesh is the word `head` and how many times as large as the default one; `closed` and `cube` are others."""
        kind, _, size = file.read(1000).decode("latin-1").partition(" ")
        if kind == "closed":
            raise OutOfRange("the lips are one closed surface; open them", field="mesh", code="mouth_sealed")
        if kind != "head":
            raise UnsupportedMedia("no mesh; wanted OBJ, PLY or GLB: send one", field="mesh", code="not_a_mesh")
        if texture is not None and not texture.startswith(b"\x89PNG"):
            raise UnsupportedMedia("no picture; wanted PNG: send one", field="texture", code="bad_texture")
        if landmarks is not None:
            read_landmarks(landmarks, ("nose_tip",))
        self.registered.append((id, landmarks, texture, limits))
        self.steps = 0
        while self.hold_at is not None and not self.gate.is_set():
            self.held.set()
            self.steps += 1
            progress("waiting")
            time.sleep(0.005)
        if self.fail_at is not None:
            raise self.failure
        mesh = replace(self.mesh, vertices=self.mesh.vertices * np.float32(size))
        return FakeTemplate(id or f"head-{len(size):012x}", mesh, "unknown", FAKE_REPORT)

    def check_free(self, id: str) -> None:
        check_id("template", id, field="name")
        if id in self.templates:
            raise Conflict(f"there is a template {id} already; choose another name", field="name")

    def add_template(self, template: TemplateInfo) -> None:
        self.check_free(template.id)
        assert isinstance(template, FakeTemplate)
        self.made_templates[template.id] = template

    def remove_template(self, id: str) -> None:
        if id == "default":
            raise Protected("template default was shipped; it stays", field="template", code="shipped_template")
        del self.made_templates[id]

    def preview(self, template: str | TemplateInfo) -> bytes:
        return b"\x89PNG of " + str(template).encode()

    def upsample(self, wrinkles: np.ndarray, size: int, guide: np.ndarray | None = None) -> Iterator[np.ndarray]:
        return self._strips(size)

    def _strips(self, size: int) -> Iterator[np.ndarray]:
        try:
            for index in range(size // 64):
                self._misbehave(index)
                self.made += 1
                yield np.zeros((64, size, 3), np.float32)
        finally:
            self.closed.set()

    def _misbehave(self, index: int) -> None:
        if index == self.hold_at:
            self.held.set()
            assert self.gate.wait(WAIT_S)
        if index == self.fail_at:
            raise self.failure

    def _wrinkles(self, index: int, options: AnimateOptions) -> np.ndarray:
        """(16, 16, 3): two folds, each at its own pace."""
        depth = 0.1 + 0.3 * parse_style(options.wrinkle_style, self.styles).get("calm", 0.0)
        maps = np.zeros((16, 16, 3))
        maps[9] = -depth * abs(math.sin(index)) * np.array([0.5, 0.8, 1.0])
        maps[13, 4:12] = -depth * abs(math.cos(0.7 * index))
        return maps.astype(np.float16)

    def describe(self) -> dict[str, Any]:
        return {
            "engines": list(ENGINES),
            "checkpoints": {"mmtalker": "0" * 64},
            "device": "cpu",
            "providers": ["CPUExecutionProvider"],
        }

    def device_memory(self) -> Mapping[str, float]:
        return {"device_memory_used_bytes": 5e9}

    def warm_up(self) -> None:
        assert self.warm.wait(WAIT_S)

    def statistics(self) -> Mapping[str, Any]:
        return {}

    def close(self) -> None:
        self.shut.set()


def wav(seconds: float = 0.2, rate_hz: int = 16_000) -> bytes:
    """A quiet tone as a WAV file."""
    samples = (3000 * np.sin(np.arange(round(seconds * rate_hz)) * 0.1)).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(samples.tobytes())
    return file.getvalue()


def wait_until(condition: Any, seconds: float = WAIT_S) -> None:
    """Return once `condition()` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.005)


@pytest.fixture(scope="session", autouse=True)
def _jobs_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test touches the jobs of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TALKER_JOBS", str(tmp_path_factory.mktemp("jobs")))
        yield


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def settings() -> "Settings":
    from service.settings import Settings

    return Settings(port=0, concurrency=1, queue=1, log_level="warning")


@pytest.fixture
def app(settings: "Settings", engine: FakeEngine) -> "FastAPI":
    from service.app import create_app

    return create_app(settings, engine)


@pytest.fixture
def client(app: "FastAPI") -> Iterator["TestClient"]:
    """A client of a service that is ready; a failure is a response, as it is for a real client."""
    from fastapi.testclient import TestClient

    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client
