"""What crosses the wire: the forms, and the JSON answers."""

from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from models.core import AnimateOptions
from models.engine import ENGINES
from service.encoders import ENCODERS
from service.fields import (
    Decimal,
    File,
    ImageSize,
    Mix,
    OptionalFile,
    OptionalJson,
    OptionalText,
    Resolution,
    Texture,
    Whole,
)


class Asked(Protocol):
    """Who asks for an animation, by whatever way it came."""

    engine: str
    style: str
    motion_style: str | None
    wrinkle_style: str | None
    resolution: int | None
    fps: float
    intensity: float
    seed: int
    texture: int | None


def options_of(asked: Asked) -> AnimateOptions:
    """What the engine is asked for: `style` is what a half has that is not named."""
    return AnimateOptions(
        engine=asked.engine,
        resolution=asked.resolution,
        fps=asked.fps,
        intensity=asked.intensity,
        seed=asked.seed,
        motion_style=asked.style if asked.motion_style is None else asked.motion_style,
        wrinkle_style=asked.style if asked.wrinkle_style is None else asked.wrinkle_style,
        texture=asked.texture,
    )


class AnimateForm(BaseModel):
    """The fields of `POST /animate`; any other is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    audio: File = Field(
        description="Speech: wav, flac, mp3, ogg/opus, m4a/aac or webm; any rate, any channels (mixed down).",
    )
    engine: str = Field(
        default="mmtalker",
        description="Which method animates.",
        json_schema_extra={"enum": list(ENGINES)},
    )
    template: str = Field(
        default="default", description="Id of a registered head, see `GET /templates`.", examples=["default"]
    )
    template_file: OptionalFile = Field(
        default=None,
        description="A head of your own for this request, overriding `template`, which together with it is 422: OBJ, "
        "PLY or GLB, as `POST /templates` takes it. `codes` has none.",
    )
    style: str = Field(
        default="neutral",
        description="How the speech is acted: the name of a style, a weighted sum such as `calm(0.7)+lively(0.3)` "
        '(weights are normalised), or the same in JSON, `{"calm": 0.7, "lively": 0.3}`.',
        examples=["neutral"],
    )
    motion_style: OptionalText = Field(
        default=None, description="The style of the motion alone, overriding `style`.", examples=[""]
    )
    wrinkle_style: OptionalText = Field(
        default=None,
        description="The style of the wrinkles alone, overriding `style`; mmtalker makes none: 422.",
        examples=[""],
    )
    style_file: OptionalFile = Field(
        default=None,
        description="A style of your own, overriding `style`, which together with it is 422, as are `motion_style` and "
        "`wrinkle_style`: a stored pivot (`GET /styles/{id}/pivot`), or an example sequence as `POST "
        "/styles/{id}/pivot` takes it.",
    )
    neutral_file: OptionalFile = Field(
        default=None,
        description="The texture of the head at rest, overriding the head's own, and what guides wrinkles above 1024: "
        "PNG or JPEG of 8 bits a channel, square, 64 to 8192 pixels, laid out as the head's uvs are.",
    )
    resolution: Resolution = Field(
        default="native",
        validate_default=True,
        description="`native` keeps the head's own vertices, order and faces; a number asks for exactly that many "
        "surface points, with Delaunay faces.",
        examples=["native", 5000],
    )
    fps: Decimal = Field(
        default=30.0,
        ge=1,
        le=120,
        allow_inf_nan=False,
        description="Frames per second; frame k is at k / fps.",
        examples=[30],
    )
    intensity: Decimal = Field(
        default=1.0,
        ge=0,
        le=2,
        allow_inf_nan=False,
        description="Scales the motion; 0 is the head at rest.",
        examples=[1],
    )
    seed: Whole = Field(
        default=0, ge=0, le=2**63 - 1, description="The same request and seed give the same bytes.", examples=[0]
    )
    texture: Texture = Field(
        default="none",
        validate_default=True,
        description="Size of the wrinkle textures, which textalker makes; with mmtalker any size is 422. Above 1024 "
        "they are upsampled, guided by the texture at rest, and `codes` has none.",
        examples=["none"],
    )
    format: str = Field(
        default="glb",
        description="What the animation is written as. Without it `Accept` chooses, and `*/*` is `glb`. `bundle` needs "
        "a `texture`, `codes` the engine textalker.",
        json_schema_extra={"enum": list(ENCODERS)},
    )

    def options(self) -> AnimateOptions:
        """What the engine is asked for."""
        return options_of(self)


class TemplateForm(BaseModel):
    """The fields of `POST /templates`; any other is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mesh: File = Field(
        description="A head as OBJ, PLY or GLB: any topology, unit and up axis. Its vertices, their order, faces and "
        "uvs are kept."
    )
    name: OptionalText = Field(
        default=None,
        description="Its id: lower-case letters, digits, - and _; at most 64. Without it `head-` and 12 hex digits of "
        "what came.",
        examples=["my-head"],
    )
    texture: OptionalFile = Field(
        default=None,
        description="The texture at rest, overriding the mesh file's own: PNG or JPEG of 8 bits a channel, at most "
        "8192 pixels, laid out as the mesh's uvs are.",
    )
    landmarks: OptionalJson = Field(
        default=None,
        description="Where places of the face are, overriding what is found: a JSON object of names to `[x, y, z]` in "
        "the file's units and axes, see docs/heads.md.",
        examples=[""],
    )


class UpsampleForm(BaseModel):
    """The fields of `POST /upsample`; any other is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    map: OptionalFile = Field(
        default=None,
        description="A wrinkle map, in which 128 is neutral: docs/formats.md. Instead of `texture` and `neutral`; like "
        "them PNG or JPEG of 8 bits a channel, square, 64 to 8192 pixels.",
    )
    texture: OptionalFile = Field(default=None, description="A frame's texture, with `neutral`, at the same size.")
    neutral: OptionalFile = Field(default=None, description="The texture of the face at rest.")
    guide: OptionalFile = Field(
        default=None,
        description="A texture of the face at rest that tells where its skin creases, of 256 pixels or more. Without "
        "it `neutral` is the guide, and a `map` has none.",
    )
    size: ImageSize = Field(description="Pixels along the side of what comes back.", examples=[1024])


class ExampleForm(BaseModel):
    """The field of `POST /styles/{id}/pivot`; any other is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    example: File = Field(
        description="Somebody in motion, on the vertices of the default head: an animated GLB as `glb` writes it, a "
        "zip of GLBs or of OBJs with textures, an `npz-stream`, an .npz with `vertices` (T, V, 3), or a stored pivot; "
        "docs/formats.md has the details.",
    )


class StyleMix(BaseModel):
    """A style to store, mixed from those that exist: its motion, its wrinkles, or both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(
        description="Its name: lower-case letters, digits, - and _; at most 64.", examples=["calm-furrowed"]
    )
    motion: Mix = Field(default=None, description="Expression for the motion.", examples=["calm(0.7)+neutral(0.3)"])
    wrinkle: Mix = Field(default=None, description="Expression for the wrinkles.", examples=["neutral"])
    description: str = Field(default="", max_length=500, description="What it looks like.", examples=[""])


class StyleCard(BaseModel):
    """A style, shipped or user-made."""

    id: str = Field(examples=["neutral"])
    description: str = Field(description="What it looks like.")
    motion: bool = Field(description="Whether it has a motion style.")
    wrinkle: bool = Field(description="Whether it has a wrinkle style.")
    origin: str = Field(description="Where it comes from.", examples=["shipped"])
    statistics: dict[str, float] = Field(description="What was measured of it.")


class ComponentCard(BaseModel):
    """A connected piece of an uploaded mesh."""

    model_config = ConfigDict(from_attributes=True)

    kind: str = Field(description="What it was taken for.", examples=["skin"])
    vertices: int
    faces: int


class ReportCard(BaseModel):
    """How an uploaded head was registered. Errors are medians, in millimetres at the size of the default head."""

    model_config = ConfigDict(from_attributes=True)

    registration_error_mm: float = Field(
        description="Distance between the head's face and the canonical head that was fitted to it."
    )
    lips_error_mm: float = Field(description="The same within a centimetre of the lips.")
    unit_m: float = Field(description="Metres that one unit of the file was taken for.", examples=[0.01])
    up_axis: str = Field(description="Which of the file's axes points up.", examples=["+Y"])
    forward_axis: str = Field(description="Which of the file's axes the face looks along.", examples=["+Z"])
    components: list[ComponentCard] = Field(description="The mesh's connected pieces.")
    holes: int = Field(description="Boundary loops of the skin, such as the neck's and those of open eyes.")
    landmarks: dict[str, tuple[float, float, float]] = Field(
        description="Where landmarks were found, or given, in the file's units and axes."
    )
    warnings: list[str] = Field(description="What may be wrong, in words.")


class TemplateCard(BaseModel):
    """A registered head."""

    id: str = Field(examples=["default"])
    vertices: int = Field(description="Vertices at `native` resolution.", examples=[5838])
    faces: int = Field(examples=[11_348])
    licence: str = Field(description="SPDX expression of the head's licence.", examples=["CC0-1.0 AND Apache-2.0"])
    regions: dict[str, int] = Field(
        description="Vertices by region.", examples=[{"lips": 271, "eyes": 464, "upper_face": 1115}]
    )
    preview: str = Field(description="The path of its picture.", examples=["/templates/default/preview.png"])
    report: ReportCard | None = Field(description="How it was registered; null of the default head.")


class Format(BaseModel):
    """What an animation can be written as."""

    name: str = Field(description="Value of the field `format`.", examples=["glb"])
    media_type: str = Field(description="Value of `Accept` and of `Content-Type`.", examples=["model/gltf-binary"])
    extension: str = Field(examples=[".glb"])
    needs_whole_clip: bool = Field(description="Whether the first byte waits for the last frame.")


class Limits(BaseModel):
    """What is refused with 413, with the number and the limit."""

    model_config = ConfigDict(from_attributes=True)

    max_upload_bytes: int
    max_vertices: int = Field(description="Of an uploaded mesh.")
    max_triangles: int = Field(description="Of an uploaded mesh.")
    max_audio_s: float
    max_points: int
    max_fps: float
    max_frame_points: int = Field(description="Largest product of frames times points.")
    max_frame_texels: int = Field(description="Largest product of frames times texels, where each frame has its own.")


class Info(BaseModel):
    """What is running; the engine may add more."""

    model_config = ConfigDict(extra="allow")

    version: str = Field(examples=["0.1.0"])
    engines: list[str] = Field(examples=[["mmtalker"]])
    checkpoints: dict[str, str] = Field(description="sha256 of each checkpoint, by name.")
    device: str = Field(examples=["cpu"])
    providers: list[str] = Field(description="Execution providers of the inference session.")
    limits: Limits
    formats: list[Format]


class Health(BaseModel):
    """The probe has passed; a probe that has not is a problem."""

    status: Literal["live", "ready"]
