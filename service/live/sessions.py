"""How many live streams there are, and how they end with the process."""

from collections.abc import Iterator
from contextlib import contextmanager

from anyio import CapacityLimiter, Event, move_on_after

from models.errors import Busy

RETRY_AFTER_S = 10.0
GOODBYE_S = 5.0
"""How long a stopping process waits for its live streams to say so."""


class Stopping(Busy):
    """The process is being stopped; another one may be there in a moment."""

    code = "shutting_down"


class LiveSessions:
    """At most `limit` at once, each with a thread of its own to work in."""

    def __init__(self, limit: int) -> None:
        self._limit, self._count = limit, 0
        self.threads = CapacityLimiter(limit)
        self.stopping, self._left = Event(), Event()

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place until the exit. Busy when all are taken, Stopping when no more are given."""
        if self.stopping.is_set():
            raise stopping()
        if self._count == self._limit:
            raise Busy(
                f"there are {self._count} live streams, which is the limit; try again later",
                retry_after_s=RETRY_AFTER_S,
            )
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._left.set()

    async def close(self) -> None:
        """Have all of them say goodbye; returns when they have, or have had the time to."""
        self.stopping.set()
        if self._count:
            self._left = Event()
            with move_on_after(GOODBYE_S):
                await self._left.wait()


def stopping() -> Stopping:
    """The refusal."""
    return Stopping("the service is being stopped; connect again in a moment", retry_after_s=RETRY_AFTER_S)
