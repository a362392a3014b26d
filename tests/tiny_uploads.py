"""A registration without geometry: the tiny head, enlarged, with all that a registered template has."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from io import BytesIO
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from scipy.sparse import csr_matrix
from tiny import tiny_head

from models.core import Mesh, Source
from models.errors import InputError, OutOfRange, UnsupportedMedia
from models.meshes.record import MeshFile, MeshLimits
from models.template import Component, Form, Head, Report, Template, default_template
from models.uploads import Registration


def picture(width: int, height: int, seed: int = 0) -> bytes:
    """Noise, as PNG."""
    file = BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(file, "png")
    return file.getvalue()


def mesh_file(head: Head, size: float, uvs: bool = True, texture: bytes | None = None) -> MeshFile:
    """The head's surface as a file holds it: in hundredths of a metre, +Z up, quads where two triangles follow."""
    atlas, count = head.atlas, len(head.atlas.faces)
    x, y, z = 100 * size * atlas.vertices.T
    return MeshFile(
        format="obj",
        vertices=np.stack([x, -z, y], 1).astype(np.float32),
        faces=atlas.faces,
        polygon=np.arange(count, dtype=np.int32),
        uvs=atlas.uvs if uvs else None,
        uv_faces=atlas.uv_faces if uvs else None,
        material=np.zeros(count, np.int32),
        materials=("skin",),
        texture=texture,
        textured=0 if texture else None,
    )


@dataclass
class FakeRegistration:
    """Reads the words `head` and a size, and registers the head as its own; every id that it did is in `registered`.

    The seal is parted, and the eye has no counterpart on the canonical head.
    """

    head: Head = field(default_factory=tiny_head)
    uvs: bool = True
    texture: bytes | None = None
    refusal: InputError | None = None
    registered: list[str] = field(default_factory=list)
    landmarks: list[Any] = field(default_factory=list)

    @property
    def ways(self) -> Registration:
        return Registration(self.register, self.read, ("nose_tip", "chin"), 1)

    def read(self, file: BinaryIO, limits: MeshLimits) -> MeshFile:
        kind, _, size = file.read().decode().partition(" ")
        if kind == "cube":
            raise UnsupportedMedia("no mesh; wanted one: send it", code="not_a_mesh")
        return mesh_file(self.head, float(size or 0), self.uvs, self.texture)

    def register(
        self,
        file: MeshFile,
        *,
        id: str,
        landmarks: Mapping[str, Any] | None,
        progress: Callable[[str], None],
    ) -> Template:
        progress("registering")
        if not file.vertices.any():
            raise OutOfRange("closed lips; open them", code="mouth_sealed")
        if self.refusal is not None:
            raise self.refusal
        self.registered.append(id)
        self.landmarks += [landmarks] if landmarks is not None else []
        return self.template(id, file)

    def template(self, id: str, file: MeshFile | None = None) -> Template:
        """The head as a registered template."""
        file = file or mesh_file(self.head, 1.25)
        own, atlas = default_template(self.head), self.head.atlas
        turn = np.array([[100, 0, 0], [0, 0, -100], [0, 100, 0]], np.float32)
        source = Source(file.vertices, turn, file.polygon, file.material, file.materials)
        vertices = (file.vertices @ np.linalg.inv(turn).T).astype(np.float32)
        scale = np.float32(np.ptp(vertices[:, 0]) / np.ptp(atlas.vertices[:, 0]))
        uvs = atlas.uvs if file.uvs is None else file.uvs * np.float32([-1, 1]) + np.float32([1, 0])
        mesh = Mesh(vertices, file.faces, uvs.astype(np.float32), atlas.uv_faces, None, source)
        parted = np.random.default_rng(0).uniform(-0.002, 0, (len(own.seal.gaps), 3)).astype(np.float32)
        maps = own.maps * scale
        form = Form(vertices + np.float32(1e-4), maps, atlas.chart == 0)
        landmarks = {"nose_tip": (0.1, 1 / 3, -1e-7)}
        skin = Component("skin", len(vertices), len(file.faces))
        report = Report(0.1 + 0.2, 0.7, 0.01, "+Z", "-Y", (skin,), 3, landmarks, ("no eyes",))
        seal = replace(own.seal, parted=parted)
        return replace(own, id=id, mesh=mesh, maps=maps, seal=seal, licence="unknown", form=form, report=report)


def same_template(one: Any, other: Any) -> bool:
    """Every field of two records, numbers and types bit for bit."""
    if isinstance(one, csr_matrix):
        return one.shape == other.shape and all(
            same_template(getattr(one, part), getattr(other, part)) for part in ("data", "indices", "indptr")
        )
    if isinstance(one, np.ndarray):
        return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    if is_dataclass(one):
        return type(one) is type(other) and all(
            same_template(getattr(one, each.name), getattr(other, each.name)) for each in fields(one)
        )
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(same_template(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same_template, one, other))
    return type(one) is type(other) and bool(one == other)
