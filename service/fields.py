"""Types of the fields that clients send: how each is written, and what is refused."""

import json
import re
from typing import Annotated, Any

from fastapi import UploadFile
from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError
from starlette.datastructures import UploadFile as FormFile

from models.core import AnimateOptions


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


def _chosen_file(value: Any) -> Any:
    """A file field that nobody filled in is sent empty: as text, or as a file without a name."""
    unnamed = isinstance(value, FormFile) and not value.filename and not value.size
    return None if value is None or value == "" or unnamed else _check_file(value)


def _json_bytes(value: Any) -> Any:
    """Both ways of sending JSON; of a file as much as no limit allows."""
    if isinstance(value, str):
        return value.encode() or None
    chosen = _chosen_file(value)
    return None if chosen is None else chosen.file.read(MAX_JSON_BYTES + 1)


def _one_of(sizes: tuple[int, ...], wanted: str) -> AfterValidator:
    """A size that is one of some; `wanted` says so."""

    def check(size: int) -> int:
        if size not in sizes:
            raise PydanticCustomError("texture_size", wanted)
        return size

    return AfterValidator(check)


def _listed(sizes: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, sizes[:-1]))} or {sizes[-1]}"


def _as_text(value: Any) -> Any:
    """A mix in JSON may be an object: parse_style reads it as text."""
    return json.dumps(value) if isinstance(value, dict) else value


def _drop_default(schema: dict[str, Any]) -> None:
    """A form cannot carry null, so that an absent field has no default to show."""
    del schema["default"]


MAX_JSON_BYTES = 64 * 1024
TEXTURES = (512, 1024, 2048, 4096, 8192)
"""Sizes that wrinkle textures come in."""
TEXTURES_WANTED = f"none, {_listed(TEXTURES)}"

IMAGE_SIZES = TEXTURES[1:]
"""Sizes that wrinkle maps and textures are upsampled to."""
IMAGE_SIZES_WANTED = _listed(IMAGE_SIZES)

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
Texture = Annotated[
    Annotated[int, _one_of(TEXTURES, TEXTURES_WANTED), _written(WHOLE, TEXTURES_WANTED)] | None,
    _named_none("none"),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "const": "none"}, {"type": "integer", "enum": list(TEXTURES)}]},
    ),
]
ImageSize = Annotated[
    int,
    _one_of(IMAGE_SIZES, IMAGE_SIZES_WANTED),
    _written(WHOLE, IMAGE_SIZES_WANTED),
    WithJsonSchema({"type": "integer", "enum": list(IMAGE_SIZES)}),
]
OptionalText = Annotated[str | SkipJsonSchema[None], _named_none(""), Field(json_schema_extra=_drop_default)]
"""Left out or empty, as browsers send a field that nobody filled in, it is None."""
File = Annotated[UploadFile, BeforeValidator(_check_file)]
OptionalFile = Annotated[
    UploadFile | SkipJsonSchema[None], BeforeValidator(_chosen_file), Field(json_schema_extra=_drop_default)
]
OptionalJson = Annotated[
    bytes | SkipJsonSchema[None],
    BeforeValidator(_json_bytes),
    WithJsonSchema({"type": "string", "contentMediaType": "application/json"}),
    Field(json_schema_extra=_drop_default),
]
"""Text, or a file, of JSON that is checked elsewhere."""
WEIGHTS_SCHEMA = {"type": "object", "additionalProperties": {"type": "number", "minimum": 0}}
Mix = Annotated[
    str | None,
    BeforeValidator(_as_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, WEIGHTS_SCHEMA, {"type": "null"}]}),
]
"""A style expression, which JSON may also say as an object."""
