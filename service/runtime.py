"""What the running process shares between requests."""

from typing import Annotated

from fastapi import Depends, Request

from models.engine import Engine
from service.problems import NotReady
from service.settings import Settings
from service.slots import Slots

RETRY_AFTER_S = 2.0


class Runtime:
    """Settings, slots, and the engine once it is warm."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.slots = Slots(settings.concurrency, settings.queue)
        self.warm_engine: Engine | None = None
        self.failure: Exception | None = None
        """Why the engine does not start: the server stops when it sees it."""

    @property
    def engine(self) -> Engine:
        """The engine, warmed up; raises NotReady until it is."""
        if self.warm_engine is None:
            raise NotReady("the engine is still warming up; try again in a moment", retry_after_s=RETRY_AFTER_S)
        return self.warm_engine


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


async def _engine(request: Request) -> Engine:
    return (await _runtime(request)).engine


CurrentRuntime = Annotated[Runtime, Depends(_runtime)]
WarmEngine = Annotated[Engine, Depends(_engine)]
