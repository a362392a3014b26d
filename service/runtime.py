"""What the running process shares between requests."""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Annotated

from anyio import sleep
from fastapi import Depends, Request

import models.engine
from models.audio import decode_audio
from models.engine import Engine, Sampling
from models.errors import EngineLost
from service.client import client_of
from service.drain import Drain
from service.isolation import Decode, Isolation
from service.live.sessions import LiveSessions
from service.metrics import Metrics
from service.problems import NotReady
from service.settings import Settings
from service.slots import Slots
from service.stream import Pace

RETRY_AFTER_S = 2.0
FOLLOW_S = 1.0


def open_engine(settings: Settings) -> Engine:
    """The engine that the settings ask for; takes seconds, and more on the first start."""
    if settings.engine != "local":
        from models.cluster.edge import open_cluster

        return open_cluster(
            settings.engine,
            settings.weights,
            settings.cache,
            styles=settings.styles,
            templates=settings.templates,
        )
    return models.engine.load_engine(
        weights=settings.weights,
        cache=settings.cache,
        styles=settings.styles,
        templates=settings.templates,
        device=settings.device,
        threads=settings.threads,
        batch=settings.batch,
        sampling=Sampling(steps=settings.sampler_steps),
    )


class Runtime:
    """Settings, slots, live streams, and the engine once it is warm."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.slots = Slots(settings.concurrency or 1, settings.queue, settings.queue_per_client)
        self.pace = Pace(settings.stall_s, settings.slow_factor)
        self.isolation = Isolation(settings.max_audio_s) if settings.isolate else None
        self.live = LiveSessions(settings.live_sessions)
        self.drain = Drain()
        self.metrics = Metrics()
        self.warm_engine: Engine | None = None
        self.failure: Exception | None = None
        """Why the engine does not start: the server stops when it sees it."""
        self._watch()

    def _watch(self) -> None:
        """Show in the metrics what is known here."""
        self.slots.observe_wait = self.metrics.queue_seconds.observe
        watch = self.metrics.watch
        watch("slots", "Animations that may run at once", lambda: self.slots.concurrency)
        watch("slots_held", "Animations that run", lambda: self.slots.held)
        watch("queue_depth", "Requests that wait for a slot", lambda: self.slots.waiting)
        watch("requests_under_way", "Requests that are being answered", lambda: self.drain.under_way)
        watch("ready", "1 where the engine is warm, and the service is not stopping", lambda: self.ready)
        watch("live_sessions", "Live streams", lambda: self.live.count)
        self.metrics.watch_all("engine", "As the engine measures it", self._device_memory)
        for what in ("calls", "batches", "seconds"):
            words = f"{what} of the device, by the function that ran"
            self.metrics.watch_by(f"device_{what}", words.capitalize(), "function", partial(self._device, what))

    def _device_memory(self) -> Mapping[str, float]:
        return {} if self.warm_engine is None else self.warm_engine.device_memory()

    def _device(self, what: str) -> Mapping[str, float]:
        ran = {} if self.warm_engine is None else self.warm_engine.statistics()
        return {name: float(getattr(figures, what)) for name, figures in ran.items()}

    @property
    def ready(self) -> bool:
        """Whether new requests are taken."""
        return self.warm_engine is not None and not self.drain.started

    def open(self, engine: Engine) -> None:
        """Serve with an engine that is warm."""
        self.slots.resize(self.settings.concurrency or engine.capacity)
        self.warm_engine = engine

    @property
    def decode(self) -> Decode:
        """What decodes the audio of requests."""
        decode = decode_audio if self.isolation is None else self.isolation.decode
        return self.metrics.stage("decode")(decode)

    @property
    def engine(self) -> Engine:
        """The engine, warmed up; raises NotReady until it is."""
        if self.warm_engine is None:
            raise NotReady("the engine is still warming up; try again in a moment", retry_after_s=RETRY_AFTER_S)
        if self.warm_engine.capacity == 0:
            raise EngineLost("no machine of the cluster is there; try again in a moment", retry_after_s=RETRY_AFTER_S)
        return self.warm_engine

    async def follow(self) -> None:
        """Let as many animations run as the engine has room for, where the operator does not say how many."""
        while not self.settings.concurrency:
            if self.warm_engine is not None:
                self.slots.resize(self.warm_engine.capacity)
            await sleep(FOLLOW_S)


async def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


async def _engine(request: Request) -> Engine:
    return (await _runtime(request)).engine


async def _held_slot(request: Request) -> AsyncIterator[None]:
    async with (await _runtime(request)).slots.hold(client_of(request.scope), request.receive):
        yield


async def _asking(request: Request) -> str:
    return client_of(request.scope)


CurrentRuntime = Annotated[Runtime, Depends(_runtime)]
WarmEngine = Annotated[Engine, Depends(_engine)]
Client = Annotated[str, Depends(_asking)]
HeldSlot = Annotated[None, Depends(_held_slot)]
"""A slot, held until the response has been sent or cut; ask for it after the form, which must have been read."""
