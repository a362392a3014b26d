"""What the service tells in JSON, and the fields of `POST /animate`: openapi.yaml, as types.

A card may hold more than its type says: a later service adds keys.
"""

from collections.abc import Mapping
from os import PathLike
from typing import Any, BinaryIO, Literal, NotRequired, TypedDict

Upload = str | PathLike[str] | bytes | BinaryIO
"""A path, or what a file holds, or an open file, which is sent from its beginning, and is therefore no pipe."""
Expression = str | Mapping[str, float]
"""A style, a weighted sum such as `calm(0.7)+lively(0.3)`, or the same as a mapping of weights."""

FINAL = ("done", "failed", "cancelled")
"""States that a job does not leave."""


class AnimateFields(TypedDict, total=False):
    """What `animate` and `submit` take besides the audio. What is None, or left out, has the service's default."""

    engine: str | None
    template: str | None
    template_file: Upload | None
    style: Expression | None
    motion_style: Expression | None
    wrinkle_style: Expression | None
    style_file: Upload | None
    neutral_file: Upload | None
    resolution: int | str | None
    fps: float | str | None
    intensity: float | str | None
    seed: int | str | None
    texture: int | str | None
    format: str | None


class StyleCard(TypedDict):
    """A style, shipped or user-made."""

    id: str
    description: str
    motion: bool
    wrinkle: bool
    origin: str
    statistics: dict[str, float]


class TemplateCard(TypedDict):
    """A registered head; `report` tells how it was registered."""

    id: str
    vertices: int
    faces: int
    licence: str
    regions: dict[str, int]
    preview: str
    report: dict[str, Any] | None


class JobCard(TypedDict):
    """How a job stands: progress from 0 to 1, seconds left if they can be told, its place in the queue, and the problem
    of one that failed.
    """

    id: str
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    progress: float
    eta_s: float | None
    position: int | None
    error: NotRequired[dict[str, Any] | None]


class InfoCard(TypedDict):
    """What is running."""

    version: str
    engines: list[str]
    checkpoints: dict[str, str]
    device: str
    providers: list[str]
    limits: dict[str, float]
    formats: list[dict[str, Any]]
