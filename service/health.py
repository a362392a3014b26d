"""`/health`: the probes of an orchestrator."""

from fastapi import APIRouter

from service.contract import problem_responses
from service.runtime import CurrentRuntime, WarmEngine
from service.schemas import Health

router = APIRouter(prefix="/health", tags=["operations"])


@router.get("/live", summary="The process answers", responses=problem_responses())
async def live() -> Health:
    """200 as soon as the process answers."""
    return Health(status="live")


@router.get("/ready", summary="The engine is warm", responses=problem_responses(503))
async def ready(runtime: CurrentRuntime, engine: WarmEngine) -> Health:
    """200 once a warm-up inference has passed, 503 `not_ready` until then and `draining` once the service stops."""
    runtime.drain.check()
    return Health(status="ready")
