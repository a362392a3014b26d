"""Slots: how many animations run at once, how many may wait, and who is next."""

import math
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from anyio import CancelScope, CapacityLimiter, Event, create_task_group, current_time
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from models.errors import Busy, TooMany
from service.traces import tracer

RECENT = 32
"""Holders of whom is known how long they held their slot."""
FIRST_HOLD_S = 5.0
"""How long a slot is taken to be held before the first was given back."""
RETRY_AFTER_S = (1, 120)
"""The soonest and the latest that a client is told to come again."""


@dataclass(eq=False)
class _Place:
    """Somebody who waits, or holds a slot since `since_s`."""

    client: str
    since_s: float
    granted: Event = field(default_factory=Event)


class Slots:
    """`concurrency` animations run, `queue` requests more wait, the next is refused.

    A slot that frees up goes to the next client in turn, and to that client's oldest request: who sends many delays
    none but their own. One client may have `share` of the waiting places. All is done in one event loop.
    """

    def __init__(self, concurrency: int, queue: int, share: int) -> None:
        self.concurrency, self._queue, self._share = concurrency, queue, share
        self.workers = CapacityLimiter(max(concurrency, 1))
        """Threads of those that hold a slot, apart from those that read uploads."""
        self.observe_wait: Callable[[float], None] = lambda seconds: None
        """Told how long each holder has waited."""
        self._lines = dict[str, deque[_Place]]()
        self._holds_s = deque[float](maxlen=RECENT)
        self.held = 0
        """How many hold a slot."""

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return sum(map(len, self._lines.values()))

    @property
    def spare(self) -> bool:
        """Whether a slot is free and nobody waits for it."""
        return self.held < self.concurrency and not self._lines

    @property
    def longest_wait_s(self) -> float:
        """How long the oldest of those that wait has waited; 0 where nobody does."""
        return max((current_time() - line[0].since_s for line in self._lines.values()), default=0.0)

    @property
    def retry_after_s(self) -> int:
        """When there may be room: the time that recent holders took, for everybody who waits."""
        hold_s = sum(self._holds_s) / len(self._holds_s) if self._holds_s else FIRST_HOLD_S
        soonest, latest = RETRY_AFTER_S
        return math.ceil(min(max(hold_s * (self.waiting + 1) / max(self.concurrency, 1), soonest), latest))

    def resize(self, concurrency: int) -> None:
        """Let so many run from now on; those that run go on."""
        self.concurrency = concurrency
        self.workers.total_tokens = max(concurrency, 1)
        self._grant()

    def check(self, client: str) -> None:
        """Refuse who would have to wait where there is no room: TooMany if that is the client's doing, else Busy."""
        if self.held < self.concurrency:
            return
        if (own := len(self._lines.get(client, ()))) >= self._share:
            raise TooMany(
                f"{own} of your requests wait already, wanted at most {self._share}: send the next when one is done",
                retry_after_s=self.retry_after_s,
            )
        if self.waiting >= self._queue:
            raise Busy(
                f"every slot is taken and {self.waiting} requests wait; try again later",
                retry_after_s=self.retry_after_s,
            )

    @asynccontextmanager
    async def hold(self, client: str, receive: Receive) -> AsyncIterator[None]:
        """Wait for a slot, hold it, free it. `receive` is the ASGI channel of a request whose body has been read.

        Raises what `check` does, and ClientDisconnect when the client leaves while it waits.
        """
        self.check(client)
        place = _Place(client, current_time())
        self._lines.setdefault(client, deque()).append(place)
        self._grant()
        try:
            with tracer.start_as_current_span("queue"):
                await _until_granted(place, receive)
            yield
        finally:
            self._leave(place)

    def _grant(self) -> None:
        """Give the slots that are free to those whose turn it is."""
        while self._lines and self.held < self.concurrency:
            client = next(iter(self._lines))
            line = self._lines.pop(client)
            place = line.popleft()
            if line:
                self._lines[client] = line  # behind all other clients
            now = current_time()
            self.observe_wait(now - place.since_s)
            self.held, place.since_s = self.held + 1, now
            place.granted.set()

    def _leave(self, place: _Place) -> None:
        if place.granted.is_set():
            self.held -= 1
            self._holds_s.append(current_time() - place.since_s)
            self._grant()
            return
        line = self._lines[place.client]
        line.remove(place)
        if not line:
            del self._lines[place.client]


async def _until_granted(place: _Place, receive: Receive) -> None:
    """ClientDisconnect when the client leaves before."""
    if place.granted.is_set():
        return
    async with create_task_group() as group:
        group.start_soon(_cancel_on_disconnect, receive, group.cancel_scope)
        await place.granted.wait()
        group.cancel_scope.cancel()
    if not place.granted.is_set():
        raise ClientDisconnect


async def _cancel_on_disconnect(receive: Receive, scope: CancelScope) -> None:
    await disconnect(receive)
    scope.cancel()


async def disconnect(receive: Receive) -> None:
    """Return when the client of a request whose body has been read has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
