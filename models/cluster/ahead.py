"""Reading ahead: what comes next is made while what came is read, in a thread of its own."""

from collections.abc import Generator
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TypeVar

Item = TypeVar("Item")


def read_ahead(items: Generator[Item, None, None], count: int) -> Generator[Item, None, None]:
    """The items, at most `count` of them made before they are asked for.

    Nothing is made before the first is asked for. What making raises is raised in its place. Closed, it lets an item
    that is being made be finished and dropped, and does not wait for that.
    """
    room, made, closed = Semaphore(count), SimpleQueue[Item | _End](), Event()

    def make() -> None:
        failure: BaseException | None = None
        try:
            for item in items:
                room.acquire()
                if closed.is_set():
                    return
                made.put(item)
        except BaseException as error:
            failure = error
        finally:
            items.close()
            made.put(_End(failure))

    Thread(target=copy_context().run, args=(make,), name="talker-ahead", daemon=True).start()
    try:
        while not isinstance(item := made.get(), _End):
            room.release()
            yield item
    finally:
        closed.set()
        room.release()
    if item.failure is not None:
        raise item.failure


class _End:
    def __init__(self, failure: BaseException | None) -> None:
        self.failure = failure
