"""Start reading here: a mesh file goes in, a template comes out."""

from collections.abc import Callable, Mapping

from models.meshes.record import MeshFile
from models.template import Head, Template

VERSION = 1
"""Of the method: what an older one has registered is registered anew."""
Landmarks = Mapping[str, tuple[float, float, float]]
"""Places in the file's units and axes, by names of LANDMARKS."""


def register(
    file: MeshFile,
    head: Head,
    *,
    id: str,
    landmarks: Landmarks | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Template:
    """Place a head on the atlas: its mesh in metres, +Y up and +Z forward, with `source`, `form` and `report`.

    OutOfRange, by code: `not_a_head` with the reasons, `mouth_sealed` when the lips are one closed surface,
    `several_heads`. `progress` is told each step.
    """
    raise NotImplementedError
