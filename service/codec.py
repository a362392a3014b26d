"""`/codec`: what clients decode `codes` with. The generators are the graphs that run here."""

import hashlib
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from models.errors import TooLarge
from models.textalker.codec import codec_head_bytes
from service.contract import NOT_MODIFIED, headers, problem_responses
from service.entity import unless_held
from service.fields import Resolution
from service.runtime import CurrentRuntime, HeldSlot, WarmEngine

router = APIRouter(prefix="/codec", tags=["codec"])

ONNX_TYPE, NPZ_TYPE = "application/octet-stream", "application/zip"
CACHED = headers("ETag", "Cache-Control")
ONNX = {"description": "An ONNX graph.", "headers": CACHED, "content": {ONNX_TYPE: {}}}
NPZ = {"description": "A numpy archive.", "headers": CACHED, "content": {NPZ_TYPE: {}}}


async def _allowed(runtime: CurrentRuntime, resolution: Annotated[Resolution, Path(examples=["native"])]) -> int | None:
    if (resolution or 0) > runtime.settings.max_points:
        raise TooLarge(
            f"resolution = {resolution:,}; the limit is {runtime.settings.max_points:,}: ask for less",
            field="resolution",
        )
    return resolution


@router.get(
    "/{checkpoint}.onnx",
    summary="What decodes the codes of a checkpoint",
    response_class=Response,
    responses={200: ONNX, 304: NOT_MODIFIED, **problem_responses(404, 503)},
)
def generator(
    request: Request, engine: WarmEngine, checkpoint: Annotated[str, Path(examples=["textalker-motion"])]
) -> Response:
    """The generator as a graph of its own: codebook entries by number, and the maps that the decoder makes of them."""
    return _answer(request, engine.generator(checkpoint).read_bytes(), ONNX_TYPE)


@router.get(
    "/{template}/{resolution}.npz",
    summary="What codes need of a head",
    response_class=Response,
    responses={200: NPZ, 304: NOT_MODIFIED, **problem_responses(404, 413, 422, 503)},
)
def codec_head(
    request: Request,
    engine: WarmEngine,
    template: Annotated[str, Path(examples=["default"])],
    resolution: Annotated[int | None, Depends(_allowed)],
    _slot: HeldSlot,
) -> Response:
    """The mesh of a head at a resolution, where it reads motion maps, and how its lips seal: docs/formats.md."""
    return _answer(request, codec_head_bytes(engine.codec_head(template, resolution)), NPZ_TYPE)


def _answer(request: Request, content: bytes, media_type: str) -> Response:
    return unless_held(request, content, media_type, f'"{hashlib.sha256(content).hexdigest()}"', {})
