"""What crosses the wire: the form of `POST /animate`, and the JSON answers."""

import re
from typing import Annotated, Any, Literal

from fastapi import UploadFile
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError
from starlette.datastructures import UploadFile as FormFile

from models.core import AnimateOptions
from models.engine import ENGINES
from service.encoders import ENCODERS


def _named_none(name: str) -> BeforeValidator:
    """The word `name` in a form stands for None."""
    return BeforeValidator(lambda value: None if value == name else value)


def _written(pattern: str, wanted: str) -> BeforeValidator:
    """A number in a form is written as `pattern` says; pydantic alone takes 1_000, and 500.0 for a whole one."""

    def check(value: Any) -> Any:
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            raise PydanticCustomError("number_written", wanted)
        return value

    return BeforeValidator(check)


def _check_file(value: Any) -> Any:
    if not isinstance(value, FormFile):
        raise PydanticCustomError("file_type", "Input should be a file")
    return value


def _drop_default(schema: dict[str, Any]) -> None:
    """A form cannot carry null, so that an absent field has no default to show."""
    del schema["default"]


MIN_POINTS, MAX_POINTS = AnimateOptions.MIN_POINTS, AnimateOptions.MAX_POINTS
POINTS_SCHEMA = {"type": "integer", "minimum": MIN_POINTS, "maximum": MAX_POINTS}

WHOLE, DECIMAL = r"[+-]?[0-9]+", r"[^_]*"
Decimal = Annotated[float, _written(DECIMAL, "a number")]
Whole = Annotated[int, _written(WHOLE, "a whole number")]
Points = Annotated[
    int,
    Field(ge=MIN_POINTS, le=MAX_POINTS),
    _written(WHOLE, f"native, or a whole number, {MIN_POINTS} to {MAX_POINTS}"),
]
Resolution = Annotated[
    Points | None,
    _named_none("native"),
    WithJsonSchema({"anyOf": [{"type": "string", "const": "native"}, POINTS_SCHEMA]}),
]
Texture = Annotated[int | None, _named_none("none"), WithJsonSchema({"type": "string", "enum": ["none"]})]
OptionalText = Annotated[str | SkipJsonSchema[None], _named_none(""), Field(json_schema_extra=_drop_default)]
"""Left out or empty, as browsers send a field that nobody filled in, it is None."""


class AnimateForm(BaseModel):
    """The fields of `POST /animate`; any other is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    audio: Annotated[UploadFile, BeforeValidator(_check_file)] = Field(
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
        description="Size of the wrinkle textures; mmtalker makes none: any size is 422.",
        examples=["none"],
    )
    format: str = Field(
        default="glb",
        description="What the animation is written as. Without it `Accept` chooses, and `*/*` is `glb`.",
        json_schema_extra={"enum": list(ENCODERS)},
    )

    def options(self) -> AnimateOptions:
        """What the engine is asked for."""
        return AnimateOptions(
            engine=self.engine,
            resolution=self.resolution,
            fps=self.fps,
            intensity=self.intensity,
            seed=self.seed,
            style=self.style if self.motion_style is None else self.motion_style,
        )


class TemplateCard(BaseModel):
    """A registered head."""

    id: str = Field(examples=["default"])
    vertices: int = Field(description="Vertices at `native` resolution.", examples=[5838])
    faces: int = Field(examples=[11_348])
    licence: str = Field(description="SPDX expression of the head's licence.", examples=["CC0-1.0 AND Apache-2.0"])
    regions: dict[str, int] = Field(
        description="Vertices by region.", examples=[{"lips": 271, "eyes": 464, "upper_face": 1115}]
    )


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
    max_audio_s: float
    max_points: int
    max_fps: float
    max_frame_points: int = Field(description="Largest product of frames times points.")


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
