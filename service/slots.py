"""Slots: how many animations run at once, and how many may wait."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from anyio import CancelScope, Semaphore, WouldBlock, create_task_group
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from models.errors import Busy

RETRY_AFTER_S = 5.0


class Slots:
    """`concurrency` animations run, `queue` more wait in order of arrival, the next is refused."""

    def __init__(self, concurrency: int, queue: int) -> None:
        self._free = Semaphore(concurrency)
        self._concurrency, self._owed = concurrency, 0
        self._queue = queue

    def resize(self, concurrency: int) -> None:
        """Let so many run from now on; those that run go on."""
        grown, self._concurrency = concurrency - self._concurrency, concurrency
        for _ in range(grown):
            self._release()
        for _ in range(-grown):
            try:
                self._free.acquire_nowait()
            except WouldBlock:
                self._owed += 1

    def _release(self) -> None:
        if self._owed:
            self._owed -= 1
        else:
            self._free.release()

    @property
    def waiting(self) -> int:
        """How many wait for a slot."""
        return self._free.statistics().tasks_waiting

    @property
    def spare(self) -> bool:
        """Whether a slot is free and nobody waits for it."""
        return self._free.value > 0 and self.waiting == 0

    def check(self) -> None:
        """Raise Busy if the queue is full."""
        if self._free.value == 0 and self.waiting >= self._queue:
            raise Busy(
                f"every slot is taken and {self.waiting} requests wait; try again later", retry_after_s=RETRY_AFTER_S
            )

    @asynccontextmanager
    async def hold(self, receive: Receive) -> AsyncIterator[None]:
        """Wait for a slot, hold it, free it. `receive` is the ASGI channel of a request whose body has been read.

        Raises Busy when the queue is full, ClientDisconnect when the client leaves while it waits.
        """
        self.check()
        await self._wait(receive)
        try:
            yield
        finally:
            self._release()

    async def _wait(self, receive: Receive) -> None:
        acquired = False
        async with create_task_group() as group:
            group.start_soon(_cancel_on_disconnect, receive, group.cancel_scope)
            await self._free.acquire()
            acquired = True
            group.cancel_scope.cancel()
        if not acquired:
            raise ClientDisconnect


async def _cancel_on_disconnect(receive: Receive, scope: CancelScope) -> None:
    await disconnect(receive)
    scope.cancel()


async def disconnect(receive: Receive) -> None:
    """Return when the client of a request whose body has been read has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
