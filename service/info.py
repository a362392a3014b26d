"""`GET /info` and `GET /metrics`: what is running, what it will not do, and how it fares."""

from importlib.metadata import version

from fastapi import APIRouter, Response

from service.contract import METRICS, problem_responses
from service.encoders import ENCODERS
from service.metrics import MEDIA_TYPE
from service.runtime import CurrentRuntime, WarmEngine
from service.schemas import Format, Info, Limits

router = APIRouter(tags=["operations"])


@router.get(
    "/metrics",
    summary="Numbers for Prometheus",
    response_class=Response,
    responses={200: METRICS, **problem_responses()},
)
async def metrics(runtime: CurrentRuntime) -> Response:
    """Requests, the queue, frames and how fast they come, memory: docs/operations.md lists them."""
    return Response(runtime.metrics.render(), media_type=MEDIA_TYPE)


@router.get("/info", summary="Version, engines, checkpoints, device, limits, formats", responses=problem_responses(503))
async def info(runtime: CurrentRuntime, engine: WarmEngine) -> Info:
    """What is running; 503 until the engine is warm."""
    return Info(
        version=version("talker"),
        limits=Limits.model_validate(runtime.settings),
        formats=[
            Format(
                name=encoder.name,
                media_type=encoder.media_type,
                extension=encoder.extension,
                needs_whole_clip=encoder.needs_whole_clip,
            )
            for encoder in ENCODERS.values()
        ],
        **engine.describe(),
    )
