"""Settings: what the operator decides, read from `TALKER_*` variables of the environment.

docs/settings.md lists them; a test keeps that page and this class in step.
"""

import os
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from models.core import AnimateOptions
from models.meshes.record import MeshLimits

PREFIX = "TALKER_"
CLIENT = frozenset({PREFIX + "SERVER", PREFIX + "API_KEY"})
"""What `talker` commands read that ask a service; they are no settings of one."""
MIB = 2**20


class Settings(BaseSettings):
    """Every setting, its default and its range. An unknown `TALKER_*` variable is refused, with the near matches."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", allow_inf_nan=False)

    host: str = Field(
        default="127.0.0.1", description="Address to listen on. `0.0.0.0` opens the service to the network."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    drain_s: int = Field(
        default=30, ge=0, description="Seconds that running streams get to finish when the process is stopped."
    )
    keys: Path | None = Field(
        default=None,
        description="File of the API keys, which `talker keys` writes; without one nobody is asked for a key.",
    )
    open: bool = Field(
        default=False, description="Whether everybody may use a service that listens beyond this host without keys."
    )
    log_level: Literal["critical", "error", "warning", "info", "debug"] = Field(
        default="info", description="How much is logged."
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="Lines for people, or `json`, an object a line for machines."
    )

    engine: str = Field(
        default="local",
        pattern=r"^(local|ray://(auto|[\w.-]+:\d+))$",
        description="Where networks run: `local` in this process, `ray://HOST:PORT` or `ray://auto` on a Ray cluster.",
    )
    weights: Path = Field(
        default=Path(__file__).resolve().parent.parent / "weights",
        description="Folder of the manifest, the checkpoints and the default template.",
    )
    cache: Path = Field(
        default=Path.home() / ".cache" / "talker",
        description="Folder for what is derived from the weights and can be made again, such as ONNX graphs.",
    )
    styles: Path = Field(
        default=Path.home() / ".local" / "share" / "talker" / "styles",
        description="Folder of the styles that users make.",
    )
    templates: Path = Field(
        default=Path.home() / ".local" / "share" / "talker" / "templates",
        description="Folder of the heads that users register.",
    )
    jobs: Path = Field(
        default=Path.home() / ".local" / "share" / "talker" / "jobs",
        description="Folder of the jobs, their uploads and their results; one process at a time has it.",
    )
    jobs_store: str | None = Field(
        default=None,
        description="Object store of the jobs' results, as a URL such as `s3://bucket/prefix`, instead of the folder; "
        "needs the extra `s3`.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where inference runs; `auto` takes CUDA if it is there."
    )
    threads: int = Field(
        default=0, ge=0, description="CPU threads of one inference; 0 leaves the choice to the runtime."
    )

    sampler_steps: int = Field(
        default=40,
        ge=1,
        le=500,
        description="Steps of TexTalker's sampler for a window of three seconds; more are slower.",
    )

    batch: int = Field(
        default=0,
        ge=0,
        description="Streams whose steps the device runs as one batch; 0 takes 8 on CUDA and 1 on a CPU.",
    )
    concurrency: int = Field(
        default=0,
        ge=0,
        description="Animations, registrations and upsamplings that run at once; each holds its slot to its end. 0 "
        "takes as many as the engine has room for: a batch of them, and 2 at least.",
    )
    queue: int = Field(
        default=16, ge=0, description="Requests that wait for a slot; beyond that the answer is 503 `busy`."
    )
    queue_per_client: int = Field(
        default=8,
        ge=1,
        description="Requests of one client that wait for a slot; beyond that the answer is 429 `too_many_requests`.",
    )
    stall_s: float = Field(
        default=60,
        gt=0,
        description="Seconds that a client may leave the stream unread before it is cut and its slot freed.",
    )
    slow_factor: float = Field(
        default=4,
        gt=0,
        description="How slowly a client may read on: its stream waits for it `TALKER_STALL_S` and so many times the "
        "clip's length in all, or so many times `TALKER_STALL_S` for what is no clip.",
    )

    isolate: bool = Field(
        default=True,
        description="Whether the service decodes audio in processes of their own, which a forged file may crash.",
    )
    live_sessions: int = Field(
        default=1, ge=1, description="Live streams at once, beside the slots; beyond that the answer is 503 `busy`."
    )
    live_ahead_s: float = Field(
        default=10,
        gt=0,
        description="Seconds of sound that a live stream holds before it is animated; then nothing is read.",
    )
    live_idle_s: float = Field(
        default=60, gt=0, description="Seconds without a message after which a live stream is closed."
    )
    live_max_s: float = Field(default=3600, gt=0, description="Longest live stream, in seconds.")
    jobs_concurrency: int = Field(default=1, ge=1, description="Jobs that run at once, in slots that nobody waits for.")
    jobs_per_client: int = Field(
        default=16, ge=1, description="Unfinished jobs of one client; beyond that the answer is 429 `too_many_jobs`."
    )
    jobs_queue: int = Field(
        default=256, ge=1, description="Unfinished jobs in all; beyond that the answer is 503 `busy`."
    )
    jobs_ttl_s: float = Field(
        default=86_400, gt=0, description="Seconds after which a finished job and its result are removed."
    )
    jobs_max_bytes: int = Field(
        default=20 * 1024 * MIB,
        ge=1,
        description="Bytes of all results together; the oldest finished jobs make room for new ones.",
    )

    max_upload_bytes: int = Field(
        default=128 * MIB,
        ge=1,
        description="Largest upload, all files together, in bytes: ten minutes of 48 kHz stereo WAV fit.",
    )
    max_vertices: int = Field(
        default=MeshLimits.max_vertices, ge=1, description="Most vertices of an uploaded mesh file."
    )
    max_triangles: int = Field(
        default=MeshLimits.max_triangles,
        ge=1,
        description="Most triangles of an uploaded mesh file, after its polygons are cut.",
    )
    max_audio_s: float = Field(default=600, gt=0, description="Longest audio, in seconds.")
    max_points: int = Field(
        default=AnimateOptions.MAX_POINTS,
        ge=1,
        description="Most surface points of one frame, `native` resolution included.",
    )
    max_fps: float = Field(default=120, ge=1, le=120, description="Highest frame rate.")
    max_frame_points: int = Field(
        default=120_000_000,
        ge=1,
        description="Largest product of frames times points of one animation.",
    )
    max_frame_texels: int = Field(
        default=6_500_000_000,
        ge=1,
        description="Largest product of frames times texels of one animation, in formats where each frame has its own: "
        "12 s at 4096 and 30 frames per second.",
    )

    @property
    def mesh_limits(self) -> MeshLimits:
        """How large an uploaded mesh file may be."""
        return MeshLimits(
            max_bytes=self.max_upload_bytes, max_vertices=self.max_vertices, max_triangles=self.max_triangles
        )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_variables(cls, values: Any) -> Any:
        known = CLIENT | {PREFIX + name.upper() for name in cls.model_fields}
        for name in sorted(os.environ):
            if name.upper().startswith(PREFIX) and name.upper() not in known:
                near = get_close_matches(name.upper(), known) or sorted(known)
                raise ValueError(f"unknown setting {name} in the environment; did you mean {', '.join(near)}? Unset it")
        return values
