"""What clients of `/live` say: a hello, sound, and orders."""

import json
from dataclasses import replace
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float32
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from models.core import SAMPLE_RATE_HZ, AnimateOptions
from models.errors import SHOWN, MalformedInput, refusing_damage
from service.fields import Decimal, Mix, Resolution, Texture, Whole
from service.problems import validated
from service.schemas import options_of

Expression = Annotated[str, BeforeValidator(lambda value: json.dumps(value) if isinstance(value, dict) else value)]


class Message(BaseModel):
    """JSON of a text message; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LiveHello(Message):
    """The first message. What the fields of `POST /animate` are called means the same."""

    type: Literal["hello"] = "hello"
    engine: str = "mmtalker"
    template: str = "default"
    style: Expression = "neutral"
    motion_style: Mix = None
    wrinkle_style: Mix = None
    resolution: Resolution = None
    fps: Decimal = Field(default=30.0, ge=1, le=120)
    intensity: Decimal = Field(default=1.0, ge=0, le=2)
    seed: Whole = Field(default=0, ge=0, le=2**63 - 1)
    texture: Texture = None
    sample_rate: Whole = SAMPLE_RATE_HZ
    delivery: Literal["paced", "burst"] = "paced"

    def options(self) -> AnimateOptions:
        """What the engine is asked for."""
        return options_of(self)


class StyleChange(Message):
    """Go on in another style: `style` is both halves, the others are one; a half that is not named stays."""

    type: Literal["style"]
    style: Mix = None
    motion_style: Mix = None
    wrinkle_style: Mix = None

    def applied(self, options: AnimateOptions) -> AnimateOptions:
        """The options in the new style."""
        motion, wrinkle = self.motion_style or self.style, self.wrinkle_style or self.style
        return replace(
            options,
            motion_style=options.motion_style if motion is None else motion,
            wrinkle_style=options.wrinkle_style if wrinkle is None else wrinkle,
        )


class Interrupt(Message):
    """Forget what is queued."""

    type: Literal["interrupt"]


class End(Message):
    """Nothing more comes."""

    type: Literal["end"]


Order: TypeAlias = StyleChange | Interrupt | End
ORDERS: dict[str, type[Order]] = {"style": StyleChange, "interrupt": Interrupt, "end": End}


def read_hello(text: str) -> LiveHello:
    """The first message. MalformedInput or OutOfRange."""
    return validated(LiveHello, _fields(text))


def read_order(text: str) -> Order:
    """A later message. MalformedInput."""
    fields = _fields(text)
    kind = fields.get("type")
    if not isinstance(kind, str) or kind not in ORDERS:
        raise MalformedInput(
            f"a message of type {str(kind)[:SHOWN]!r}; wanted {', '.join(ORDERS)}, or sound as a binary message",
            field="type",
        )
    return validated(ORDERS[kind], fields)


def read_sound(data: bytes) -> Float32[np.ndarray, " samples"]:
    """16-bit little-endian samples as floats, as a WAV file's are read. MalformedInput for half a sample."""
    if len(data) % 2:
        raise MalformedInput(f"{len(data)} bytes of sound; wanted 16-bit samples, two bytes each: send whole ones")
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)


def _fields(text: str) -> dict[str, Any]:
    with refusing_damage("a text message", "a JSON object", code="malformed"):
        fields = json.loads(text)
    if not isinstance(fields, dict):
        raise MalformedInput(f"{text[:SHOWN]} came; wanted a JSON object: send one")
    return fields
