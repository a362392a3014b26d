"""`POST /upsample`: a wrinkle map, or a texture, at up to 8192²."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from typing import Annotated, BinaryIO, TypeVar

import numpy as np
from anyio import to_thread
from fastapi import APIRouter, Depends, Request
from jaxtyping import Float32, UInt8
from PIL import Image
from starlette.responses import StreamingResponse

from models.engine import Engine
from models.errors import MalformedInput, OutOfRange, blaming
from models.examples.pictures import texture_ratio
from models.pictures import PictureLimits, decode_picture, picture_size
from models.textalker.maps import levels_ratio, map_levels
from service.contract import UPSAMPLE_BODY, UPSAMPLED, problem_responses
from service.encoders.textures import shade
from service.fields import IMAGE_SIZES
from service.form import open_form
from service.formats import accepted
from service.pictures import PICTURES, PictureFormat
from service.problems import validated
from service.runtime import Client, CurrentRuntime, HeldSlot, WarmEngine
from service.schemas import UpsampleForm
from service.stream import ChunkStream, attachment

router = APIRouter(tags=["upsample"])

LARGEST = max(IMAGE_SIZES)
LIMITS = {
    "map": PictureLimits(LARGEST, 64),
    "texture": PictureLimits(LARGEST, 64),
    "neutral": PictureLimits(LARGEST, 64),
    "guide": PictureLimits(LARGEST, 256),
}

Picture = UInt8[np.ndarray, "own own 3"]
Read = TypeVar("Read")
Ratios = Iterator[Float32[np.ndarray, "rows size 3"]]
Strips = Generator[UInt8[np.ndarray, "rows size 3"], None, None]


async def _accepted(request: Request) -> str:
    return accepted(request.headers.get("accept"), {media_type: media_type for media_type in PICTURES})


async def _checked_form(request: Request, runtime: CurrentRuntime, client: Client) -> AsyncIterator[UpsampleForm]:
    """The form with its fields checked; uploads stay open until the endpoint returns."""
    runtime.slots.check(client)
    async with open_form(request, max_upload_bytes=runtime.settings.max_upload_bytes, field="map") as fields:
        form = validated(UpsampleForm, fields)
        check_combination(form)
        yield form


@router.post(
    "/upsample",
    summary="A wrinkle map or a texture, larger",
    response_class=StreamingResponse,
    responses={200: UPSAMPLED, **problem_responses(406, 413, 415, 422, 429, 503)},
    openapi_extra={"requestBody": UPSAMPLE_BODY},
)
async def upsample(
    runtime: CurrentRuntime,
    engine: WarmEngine,
    media_type: Annotated[str, Depends(_accepted)],
    form: Annotated[UpsampleForm, Depends(_checked_form, scope="function")],
    _slot: HeldSlot,
) -> ChunkStream:
    """Enlarge a `map`, or a `texture` of a frame together with the `neutral` one, to `size`.

    What the picture shows already stays; finer wrinkles are the network's, guided by the skin at rest. Where no wrinkle
    is, a map stays neutral and a texture is the neutral one, enlarged.
    """
    workers = runtime.slots.workers
    strips = await to_thread.run_sync(start_upsampling, engine, form, limiter=workers)
    picture, upload = PICTURES[media_type], form.map or form.texture
    assert upload is not None
    return ChunkStream(
        partial(_chunks, picture, form.size, strips),
        media_type=media_type,
        headers={"Content-Disposition": attachment(upload.filename or "", picture.extension)},
        pace=runtime.pace,
        workers=workers,
    )


def check_combination(form: UpsampleForm) -> None:
    """Refuse anything but a map alone, or a texture with its neutral one."""
    given = [name for name in ("map", "texture", "neutral") if getattr(form, name) is not None]
    if given not in (["map"], ["texture", "neutral"]):
        missing = {"texture": "neutral", "neutral": "texture"}
        raise OutOfRange(
            f"{' and '.join(given) or 'no picture'} came; wanted a map, or texture and neutral: send those alone",
            field=missing[given[0]] if len(given) == 1 else "map",
            code="impossible_combination",
        )


def start_upsampling(engine: Engine, form: UpsampleForm) -> Strips:
    """Decode the pictures and start the engine; for a worker thread. Raises every refusal that is left.

    Of what came, 9 bytes a pixel are held at most for a map, 13 for a texture with its neutral one, and 3 for a guide:
    1.1 GB where all have 8192². What the network takes and a strip come on top.
    """
    pictures = read_pictures(form)
    if form.map is not None:
        return _levels(engine.upsample(levels_ratio(pictures["map"]), form.size, pictures.get("guide")))
    neutral = pictures["neutral"]
    ratio = texture_ratio(pictures["texture"], neutral)
    return _shaded(engine.upsample(ratio, form.size, pictures.get("guide", neutral)), neutral, form.size)


def read_pictures(form: UpsampleForm) -> dict[str, Picture]:
    """The pictures that came, by field; every header is checked before the first is decoded."""
    files = {name: upload.file for name in LIMITS if (upload := getattr(form, name)) is not None}
    sizes = {name: _read(picture_size, name, file) for name, file in files.items()}
    if sizes.get("texture") != sizes.get("neutral"):
        raise MalformedInput(
            f"texture is {sizes['texture']} pixels wide, neutral {sizes['neutral']}; send both at one size",
            field="texture",
            code="bad_texture",
        )
    return {name: _read(decode_picture, name, file) for name, file in files.items()}


def _read(read: Callable[[BinaryIO, PictureLimits], Read], name: str, file: BinaryIO) -> Read:
    with blaming(name):
        return read(file, LIMITS[name])


def _chunks(picture: PictureFormat, size: int, strips: Strips) -> Generator[bytes, None, None]:
    with closing(strips):  # or they would be held as long as the response is
        yield from picture.chunks(size, strips)


def _levels(ratios: Ratios) -> Strips:
    for ratio in ratios:
        yield map_levels(ratio)


def _shaded(ratios: Ratios, neutral: Picture, size: int) -> Strips:
    """Strips of a texture: the neutral one, enlarged by Lanczos, times exp(log ratio)."""
    image, own, top = Image.fromarray(neutral), len(neutral), 0
    for ratio in ratios:
        end = top + len(ratio)
        box = (0, top * own / size, own, end * own / size)
        below = image.resize((size, len(ratio)), Image.Resampling.LANCZOS, box)
        yield shade(np.asarray(below), ratio)
        top = end
