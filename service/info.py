"""`GET /info`: what is running, and what it will not do."""

from importlib.metadata import version

from fastapi import APIRouter

from service.contract import problem_responses
from service.encoders import ENCODERS
from service.runtime import CurrentRuntime, WarmEngine
from service.schemas import Format, Info, Limits

router = APIRouter(tags=["operations"])


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
