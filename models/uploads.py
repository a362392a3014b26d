"""Heads that come as files: checked, read, registered to the atlas, and dressed in their texture; each but once."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Protocol

from models.core import check_id
from models.errors import SHOWN, InputError, MalformedInput, OutOfRange, TooLarge, blaming
from models.layout import LARGEST, SMALLEST
from models.meshes import MeshFile, MeshLimits, read_mesh
from models.pictures import PictureLimits, decode_squared
from models.png import PNG_LEVEL, png_chunks
from models.registration.guide import Guide
from models.registration.landmarks import LANDMARKS, Landmarks
from models.registration.register import VERSION, Progress, register
from models.registrations import Registrations
from models.template import Head, Template
from models.template_file import Origin

TEXTURE = PictureLimits(LARGEST, SMALLEST)
MAX_LANDMARK_BYTES = 64 << 10
BLOCK = 1 << 20


class Register(Protocol):
    """`models.registration.register.register` by some guide."""

    def __call__(self, file: MeshFile, *, id: str, landmarks: Landmarks | None, progress: Progress) -> Template:
        """The file as a template."""
        ...


@dataclass(frozen=True)
class Registration:
    """How files become templates; tests put simpler ways in place of these."""

    register: Register
    read: Callable[[BinaryIO, MeshLimits], MeshFile] = read_mesh
    landmarks: tuple[str, ...] = LANDMARKS
    version: int = VERSION
    shapes: str = ""
    """sha256 of what heads are fitted with."""


def registration_by(guide: Callable[[], Guide], shapes: str) -> Registration:
    """The real ways, by a guide that is asked for when a head comes, and the sha256 of its shapes."""

    def register_by_guide(file: MeshFile, *, id: str, landmarks: Landmarks | None, progress: Progress) -> Template:
        return register(file, guide(), id=id, landmarks=landmarks, progress=progress)

    return Registration(register_by_guide, shapes=shapes)


@dataclass(frozen=True, eq=False)
class Upload:
    """What came: a mesh file, perhaps with an encoded texture at rest and with landmarks as JSON."""

    mesh: BinaryIO
    texture: bytes | None = None
    landmarks: bytes | None = None


class Uploads:
    """Makes templates of uploads. What was made is kept in `folder`, and not made again; without one it is."""

    def __init__(self, head: Head, folder: Path | None, registration: Registration) -> None:
        self._registration = registration
        self.origin = Origin.of(head, registration.version)
        self._made = Registrations(folder, self.origin)

    def template(
        self, upload: Upload, limits: MeshLimits, *, id: str | None = None, progress: Progress = lambda _: None
    ) -> Template:
        """The upload as a template of an id; without one it is named by its content.

        OutOfRange for an id that is none; for landmarks MalformedInput, or OutOfRange for an unknown name; what
        `read_mesh`, `register` and `decode_squared` refuse; and OutOfRange for a texture of a mesh without uvs.
        Refusals name the field, `mesh`, `texture` or `landmarks`. `progress` is told each step, and may raise.
        """
        if id is not None:
            check_id("template", id, field="name")
        landmarks = None if upload.landmarks is None else read_landmarks(upload.landmarks, self._registration.landmarks)
        content = _content(upload, landmarks)
        id = id or f"head-{content[:12]}"

        def make() -> Template:
            progress("reading the file")
            with blaming("mesh"):
                file = self._registration.read(upload.mesh, limits)
            progress("reading its texture")
            picture = _base_color(file, upload.texture)
            with _blaming_mesh():
                template = self._registration.register(file, id=id, landmarks=landmarks, progress=progress)
            return replace(template, mesh=replace(template.mesh, base_color_png=picture))

        made_of = f"{content} {self.origin} {self._registration.shapes} {limits}"
        entry = hashlib.sha256(made_of.encode()).hexdigest()
        return replace(self._made.get(entry, make), id=id)


def read_landmarks(data: bytes, names: tuple[str, ...]) -> Landmarks:
    """Places by name, of a JSON object of some of `names` to three finite numbers each.

    Every refusal names the field `landmarks`: TooLarge, MalformedInput for what is no such object, OutOfRange for
    another name or none.
    """
    with blaming("landmarks"):
        if len(data) > MAX_LANDMARK_BYTES:
            raise TooLarge(f"landmarks of {len(data):,} bytes; the limit is {MAX_LANDMARK_BYTES:,}: send less")
        try:
            places = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise MalformedInput(
                f"landmarks that are no JSON ({str(error)[:SHOWN]}); wanted an object such as "
                f'{{"{names[0]}": [0, 1.6, 0.1]}}: send one'
            ) from error
        if not isinstance(places, dict):
            raise MalformedInput("landmarks that are no JSON object; wanted one of names to places: send that")
        if not places or (unknown := sorted(places.keys() - set(names))):
            came = f"the landmark {unknown[0][:SHOWN]!r}" if places else "no landmark"
            raise OutOfRange(f"{came}; wanted some of {', '.join(names)}: name those", code="unknown_landmark")
        return {name: _place(name, place) for name, place in places.items()}


def _place(name: str, place: object) -> tuple[float, float, float]:
    numbers = place if isinstance(place, list) else []
    if len(numbers) != 3 or not all(type(number) in (int, float) for number in numbers):
        raise MalformedInput(f"landmark {name} is {str(place)[:SHOWN]}; wanted three numbers, x, y and z of the file")
    try:
        x, y, z = map(float, numbers)
    except OverflowError:
        x = y = z = math.inf
    if not all(map(math.isfinite, (x, y, z))):
        raise MalformedInput(f"landmark {name} is not finite; wanted three finite numbers", code="not_finite")
    return x, y, z


def _base_color(file: MeshFile, texture: bytes | None) -> bytes | None:
    """The texture that came with the mesh, else the mesh file's own, as a square PNG; None where there is neither."""
    if texture is not None and file.uvs is None:
        raise OutOfRange(
            "a texture for a mesh without uvs, which has no place for it; leave it out, or send a mesh with uvs",
            field="texture",
            code="impossible_combination",
        )
    picture, field = (file.texture, "mesh") if texture is None else (texture, "texture")
    if picture is None or file.uvs is None:
        return None
    with blaming(field):
        image = decode_squared(BytesIO(picture), TEXTURE)
    return b"".join(png_chunks(len(image), [image], PNG_LEVEL))


@contextmanager
def _blaming_mesh() -> Iterator[None]:
    """A refusal within names the mesh, unless it names landmarks."""
    try:
        yield
    except InputError as error:
        error.field = error.field if error.field == "landmarks" else "mesh"
        raise


def _content(upload: Upload, landmarks: Landmarks | None) -> str:
    """sha256 of all that came; the same landmarks are the same however they are written."""
    upload.mesh.seek(0)
    mesh = hashlib.sha256()
    while block := upload.mesh.read(BLOCK):
        mesh.update(block)
    upload.mesh.seek(0)
    texture = None if upload.texture is None else hashlib.sha256(upload.texture).hexdigest()
    return hashlib.sha256(json.dumps([mesh.hexdigest(), texture, landmarks], sort_keys=True).encode()).hexdigest()
