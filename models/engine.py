"""Start reading here: speech and a head go in, frames come out.

`load_engine` reads the weights once; `Engine.animate` checks everything and then returns a clip whose frames are a
generator. This module imports no torch: the networks are imported when an engine is loaded.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from models.core import AnimateOptions, Clip, Mesh, Waveform


class TemplateInfo(Protocol):
    """What the service tells of a template."""

    id: str
    mesh: Mesh
    licence: str
    regions: Mapping[str, int]
    """Vertex counts by region: lips, eyes, upper_face."""


class Engine(Protocol):
    """What the service asks of an engine."""

    @property
    def templates(self) -> Mapping[str, TemplateInfo]: ...

    def animate(self, waveform: Waveform, options: AnimateOptions, *, template: str = "default") -> Clip:
        """Check everything, then return the clip: a refusal is raised here, never from the frames."""
        ...

    def describe(self) -> dict[str, Any]:
        """Engines, checkpoint hashes, device and execution providers, for /info."""
        ...

    def warm_up(self) -> None:
        """Run one short inference, so that the first request does not pay for it."""
        ...
