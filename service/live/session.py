"""One live stream: a task that listens, one that animates, one that shows, and two short queues between them."""

import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
from anyio import CancelScope, CapacityLimiter, Event, create_task_group, move_on_after, to_thread
from jaxtyping import Float32
from starlette.websockets import WebSocket

from models.core import Frame
from models.errors import InputError, MalformedInput, TooLarge
from models.live import Live
from service.encoders.frames import chunk, ending
from service.live.messages import End, Interrupt, Order, StyleChange, read_order, read_sound
from service.live.pacing import SoundClock
from service.live.sessions import stopping
from service.settings import Settings
from service.stream import ClientLeft

PIECE_S = 0.2
"""Sound that is animated at a time: an interrupt, and a client that leaves, waits for no more."""
LEAD_S = 1.0
"""How far frames may be ahead of those that are sent."""

Result = TypeVar("Result")


class Idle(InputError):
    """A client that says nothing."""

    code = "idle"


class Stalled(InputError):
    """A client that does not read."""

    code = "stalled"


class Sound(NamedTuple):
    """Samples, and when they came."""

    samples: Float32[np.ndarray, " samples"]
    came_s: float


@dataclass(frozen=True)
class Limits:
    """What one stream may take."""

    ahead_s: float
    idle_s: float
    max_s: float
    stall_s: float

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """The operator's."""
        return cls(settings.live_ahead_s, settings.live_idle_s, settings.live_max_s, settings.stall_s)


class Session:
    """A stream after its header. All but `Live` runs in the event loop, so that queues need no locks."""

    def __init__(
        self, socket: WebSocket, live: Live, *, paced: bool, limits: Limits, threads: CapacityLimiter, stop: Event
    ) -> None:
        self._socket, self._live, self._limits, self._threads, self._stop = socket, live, limits, threads, stop
        self._clock = SoundClock(live.latency_s) if paced else None
        self._orders: deque[Sound | Order] = deque()
        self._shows: deque[Frame | dict[str, Any] | End] = deque()
        self._shown: Frame | None = None
        self._time_s = 0.0
        self._bell = Event()
        self._failure: Exception | None = None

    async def run(self) -> None:
        """Until the end that the client asks for. Raises what went wrong, ClientLeft among it."""
        with move_on_after(self._limits.max_s) as limit:
            async with create_task_group() as group:
                for work in (self._listen, self._animate, self._watch):
                    group.start_soon(self._guard, work, group.cancel_scope)
                await self._guard(self._show, group.cancel_scope)
                group.cancel_scope.cancel()
        if limit.cancelled_caught:
            raise TooLarge(f"the stream has lasted {self._limits.max_s:g} s, which is the limit; connect again")
        if self._failure is not None:
            raise self._failure

    async def _guard(self, work: Callable[[], Awaitable[None]], scope: CancelScope) -> None:
        """The first failure ends all."""
        try:
            await work()
        except Exception as error:
            self._failure = self._failure or error
            scope.cancel()

    async def _listen(self) -> None:
        """Read what the client says, until its end; while much is unheard, nothing, so that it has to wait."""
        ended = False
        while True:
            await self._until(lambda: self._unheard_s < self._limits.ahead_s)
            order = await self._receive()
            if ended:
                raise MalformedInput("a message after the end; wanted none: connect again for more")
            if isinstance(order, Interrupt):
                self._orders = deque(kept for kept in self._orders if not isinstance(kept, Sound))
                self._shows = deque(kept for kept in self._shows if not isinstance(kept, Frame))
            ended = isinstance(order, End)
            self._orders.extend(self._cut(order) if isinstance(order, Sound) else [order])
            self._ring()

    async def _receive(self) -> Sound | Order:
        with move_on_after(self._limits.idle_s) as wait:
            message = await self._socket.receive()
        if wait.cancelled_caught:
            raise Idle(
                f"no message for {self._limits.idle_s:g} s; an empty binary one keeps a stream that has nothing to say"
            )
        if message["type"] == "websocket.disconnect":
            raise ClientLeft
        if message.get("text") is not None:
            return read_order(message["text"])
        return Sound(read_sound(message["bytes"]), time.monotonic())

    def _cut(self, sound: Sound) -> list[Sound]:
        size = max(round(PIECE_S * self._live.rate_hz), 1)
        return [
            sound._replace(samples=sound.samples[start : start + size]) for start in range(0, len(sound.samples), size)
        ]

    @property
    def _unheard_s(self) -> float:
        return sum(len(order.samples) for order in self._orders if isinstance(order, Sound)) / self._live.rate_hz

    async def _animate(self) -> None:
        """Carry out what came, in order; sound only while the frames are not far ahead."""
        order: Sound | Order | None = None
        while not isinstance(order, End):
            await self._until(lambda: bool(self._orders) and (self._has_room or not isinstance(self._orders[0], Sound)))
            order = self._orders.popleft()
            self._ring()
            match order:
                case Sound():
                    await self._speak(order)
                case StyleChange():
                    await self._restyle(order)
                case Interrupt():
                    await self._interrupt()
                case End():
                    self._shows.extend([*await self._work(self._live.finish), order])
            self._ring()

    @property
    def _has_room(self) -> bool:
        return len(self._shows) < max(LEAD_S * self._live.options.fps, 1)

    async def _speak(self, sound: Sound) -> None:
        if self._clock is not None:
            self._clock = self._clock.heard(sound.came_s, self._time_s)
        self._time_s += len(sound.samples) / self._live.rate_hz
        self._shows.extend(await self._work(lambda: self._live.feed(sound.samples)))

    async def _restyle(self, change: StyleChange) -> None:
        options = change.applied(self._live.options)
        await self._work(lambda: self._live.restyle(options))
        self._tell("style", motion_style=options.motion_style, wrinkle_style=options.wrinkle_style)

    async def _interrupt(self) -> None:
        """Whatever a step under way has added is dropped, too."""
        self._shows = deque(kept for kept in self._shows if not isinstance(kept, Frame))
        shown = self._shown
        back = await self._work(lambda: self._live.interrupt(shown))
        self._time_s = self._live.frame / self._live.options.fps
        if self._clock is not None and back:
            self._clock = self._clock.resumed(time.monotonic(), back[0].time_s)
        self._tell("interrupted")
        self._shows.extend(back)

    def _tell(self, event: str, **more: str) -> None:
        """Say when what was asked for counts: from the next frame that is made."""
        frame = self._live.frame
        self._shows.append({"type": event, "frame": frame, "time_s": frame / self._live.options.fps, **more})

    async def _show(self) -> None:
        """Send what there is, frames when they are due, until the end has been sent."""
        while True:
            await self._until(lambda: bool(self._shows))
            if await self._is_early(self._shows[0]):
                continue
            show = self._shows.popleft()
            self._ring()
            match show:
                case Frame():
                    self._shown = show
                    await self._send(self._socket.send_bytes(chunk(self._live.mesh, show)))
                case End():
                    await self._send(self._socket.send_bytes(ending(self._live.frame)))
                    return
                case event:
                    await self._send(self._socket.send_json(event))

    async def _is_early(self, show: Frame | dict[str, Any] | End) -> bool:
        """Whether it was not yet due: then something has happened, or it is due now."""
        if self._clock is None or not isinstance(show, Frame):
            return False
        wait_s = self._clock.due_s(show.time_s) - time.monotonic()
        if wait_s <= 0:
            return False
        with move_on_after(wait_s):
            await self._bell.wait()
        return True

    async def _send(self, sending: Awaitable[None]) -> None:
        with move_on_after(self._limits.stall_s) as wait:
            await sending
        if wait.cancelled_caught:
            raise Stalled(f"nothing was read for {self._limits.stall_s:g} s; read on, or ask for fewer points")

    async def _watch(self) -> None:
        await self._stop.wait()
        raise stopping()

    async def _work(self, step: Callable[[], Result]) -> Result:
        return await to_thread.run_sync(step, limiter=self._threads)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._bell.wait()

    def _ring(self) -> None:
        """Something has changed: whoever waits looks again."""
        self._bell.set()
        self._bell = Event()
