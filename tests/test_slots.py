"""Slots: who runs, who waits, who is next, and who is told to come again."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import TaskGroup
from conftest import FakeEngine
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient
from starlette.requests import ClientDisconnect
from starlette.types import Message

from models.errors import Busy, TooMany
from service.client import client_of
from service.slots import FIRST_HOLD_S, RETRY_AFTER_S, Slots

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def stay() -> Message:
    """The channel of a client that does not leave."""
    await anyio.sleep_forever()
    raise AssertionError


class Crowd:
    """Clients at the slots: who was let in, in order; each holds its slot until it is told to leave."""

    def __init__(self, slots: Slots, group: TaskGroup) -> None:
        self.slots, self._group = slots, group
        self.let_in: list[str] = []
        self.refused: list[tuple[str, type[Exception]]] = []
        self._leave = dict[str, anyio.Event]()

    async def come(self, name: str, receive: Callable[[], Awaitable[Message]] = stay) -> None:
        """`ann2` is the second request of ann."""
        self._leave[name] = anyio.Event()
        self._group.start_soon(self._hold, name, receive)
        await anyio.wait_all_tasks_blocked()

    async def leave(self, name: str) -> None:
        self._leave[name].set()
        await anyio.wait_all_tasks_blocked()

    async def _hold(self, name: str, receive: Callable[[], Awaitable[Message]]) -> None:
        try:
            async with self.slots.hold(name.rstrip("0123456789"), receive):
                self.let_in.append(name)
                await self._leave[name].wait()
        except (Busy, ClientDisconnect) as error:
            self.refused.append((name, type(error)))


@asynccontextmanager
async def crowd(concurrency: int = 1, queue: int = 9, share: int = 9) -> AsyncIterator[Crowd]:
    async with anyio.create_task_group() as group:
        yield Crowd(Slots(concurrency, queue, share), group)
        group.cancel_scope.cancel()


async def test_as_many_run_as_there_are_slots() -> None:
    async with crowd(concurrency=2) as people:
        for name in ("ann", "bob", "cat"):
            await people.come(name)
        assert people.let_in == ["ann", "bob"]
        assert (people.slots.held, people.slots.waiting) == (2, 1)
        await people.leave("bob")
        assert people.let_in == ["ann", "bob", "cat"]
        assert (people.slots.held, people.slots.waiting) == (2, 0)


async def test_clients_take_turns_and_each_is_served_in_order() -> None:
    """Ann, who came first with four, does not keep the others waiting for all of hers."""
    order = ["ann1", "ann2", "ann3", "ann4", "bob1", "bob2", "cat1"]
    async with crowd() as people:
        for name in order:
            await people.come(name)
        for _ in order:
            await people.leave(people.let_in[-1])
    assert people.let_in == ["ann1", "ann2", "bob1", "cat1", "ann3", "bob2", "ann4"]


async def test_a_full_queue_refuses_whoever_comes() -> None:
    async with crowd(queue=1) as people:
        for name in ("ann", "bob", "cat"):
            await people.come(name)
        assert people.refused == [("cat", Busy)]
        with pytest.raises(Busy, match="every slot is taken and 1 requests wait; try again later") as refusal:
            people.slots.check("dan")
        assert refusal.type is Busy


async def test_one_client_cannot_fill_the_queue() -> None:
    """What runs does not count; others find room."""
    async with crowd(share=2) as people:
        for name in ("ann1", "ann2", "ann3", "ann4", "bob1"):
            await people.come(name)
        assert people.refused == [("ann4", TooMany)]
        assert people.slots.waiting == 3
        with pytest.raises(TooMany, match="2 of your requests wait already, wanted at most 2: send the next when"):
            people.slots.check("ann")


async def test_without_a_queue_only_free_slots_are_given() -> None:
    async with crowd(queue=0) as people:
        await people.come("ann")
        await people.come("bob")
        assert (people.let_in, people.refused) == (["ann"], [("bob", Busy)])


async def test_a_client_that_leaves_while_it_waits_gives_its_place_up() -> None:
    gone = anyio.Event()

    async def leaves() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async with crowd() as people:
        await people.come("ann")
        await people.come("bob", leaves)
        await people.come("cat")
        gone.set()
        await anyio.wait_all_tasks_blocked()
        assert people.refused == [("bob", ClientDisconnect)]
        assert people.slots.waiting == 1
        await people.leave("ann")
        assert people.let_in == ["ann", "cat"]


async def test_a_waiter_that_is_cancelled_gives_its_place_up() -> None:
    """A job that is called off is no client that leaves."""
    async with crowd() as people:
        await people.come("ann")
        with anyio.move_on_after(0):
            async with people.slots.hold("bob", stay):
                raise AssertionError
        assert (people.slots.held, people.slots.waiting) == (1, 0)


async def test_a_slot_granted_to_a_waiter_that_is_cancelled_at_that_moment_is_not_lost() -> None:
    async with crowd() as people:
        await people.come("ann")
        async with anyio.create_task_group() as group:
            group.start_soon(people._hold, "bob", stay)
            people._leave["bob"] = anyio.Event()
            await anyio.wait_all_tasks_blocked()
            people._leave["ann"].set()
            await anyio.sleep(0)
            group.cancel_scope.cancel()
        assert people.slots.held == 0
        await people.come("cat")
        assert people.let_in[-1] == "cat"


async def test_a_holder_that_fails_frees_its_slot() -> None:
    slots = Slots(1, 0, 1)
    with pytest.raises(ZeroDivisionError):
        async with slots.hold("ann", stay):
            raise ZeroDivisionError
    assert slots.held == 0


async def test_more_slots_are_given_at_once_and_fewer_as_they_free_up() -> None:
    async with crowd() as people:
        for name in ("ann", "bob", "cat"):
            await people.come(name)
        people.slots.resize(2)
        await anyio.wait_all_tasks_blocked()
        assert (people.let_in, people.slots.workers.total_tokens) == (["ann", "bob"], 2)
        people.slots.resize(1)
        await people.leave("ann")
        assert people.let_in == ["ann", "bob"]
        await people.leave("bob")
        assert people.let_in == ["ann", "bob", "cat"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("service.slots.current_time", lambda: now[0])
    return now


@pytest.mark.parametrize(
    ("hold_s", "waiting", "concurrency", "told_s"),
    [(10, 2, 1, 30), (10, 2, 2, 15), (0.01, 0, 1, RETRY_AFTER_S[0]), (999, 2, 1, RETRY_AFTER_S[1]), (1.2, 0, 1, 2)],
)
async def test_who_is_refused_is_told_when_there_may_be_room(
    clock: list[float], hold_s: float, waiting: int, concurrency: int, told_s: int
) -> None:
    """Recent holders' mean, for everybody who waits and the next, over the slots; from a second to two minutes."""
    async with crowd(concurrency, queue=waiting) as people:
        for share in (0.5, 1.5):
            await people.come("first")
            clock[0] += share * hold_s
            await people.leave("first")
        for k in range(concurrency + waiting):
            await people.come(f"ann{k}")
        with pytest.raises(Busy) as refusal:
            people.slots.check("bob")
        assert refusal.value.retry_after_s == told_s


def test_before_anybody_held_a_slot_a_guess_is_told() -> None:
    assert Slots(1, 0, 1).retry_after_s == FIRST_HOLD_S


async def test_waits_are_told(clock: list[float]) -> None:
    waits: list[float] = []
    async with crowd() as people:
        people.slots.observe_wait = waits.append
        assert people.slots.longest_wait_s == 0
        await people.come("ann")
        await people.come("bob")
        clock[0] += 3
        await people.come("cat")
        clock[0] += 1
        assert people.slots.longest_wait_s == 4
        await people.leave("ann")
        assert people.slots.longest_wait_s == 1
        assert waits == [0, 4]


def test_clients_are_told_apart_by_key_or_by_address() -> None:
    peer = ("10.0.0.7", 4711)
    assert client_of({"client": peer, "state": {"client": "studio"}}) == "studio"
    assert client_of({"client": peer, "state": {}}) == client_of({"client": peer}) == "10.0.0.7"
    assert client_of({"client": None}) == "local"


def test_a_client_over_its_share_is_429_and_told_when_to_come_again(app: FastAPI, client: TestClient) -> None:
    """Before the upload is read: the body is no form."""
    asked: list[str] = []

    def check(client: str) -> None:
        asked.append(client)
        raise TooMany("8 of your requests wait already", retry_after_s=7)

    app.state.runtime.slots.check = check
    answer = client.post("/animate", content=b"anything", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
    assert answer.headers["Retry-After"] == "7"
    assert asked == ["testclient"]


def test_a_slot_is_held_for_whom_the_middleware_names(app: FastAPI, engine: FakeEngine) -> None:
    held: list[str] = []
    slots = app.state.runtime.slots
    hold = slots.hold
    slots.hold = lambda client, receive: (held.append(client), hold(client, receive))[1]

    @app.middleware("http")
    async def name(request: Request, call_next: Callable[[Request], Awaitable]) -> object:
        request.state.client = "studio"
        return await call_next(request)

    with TestClient(app) as client:
        while client.get("/health/ready").status_code != 200:
            pass
        client.post("/animate", files={"audio": b"no sound"})
    assert held == ["studio"]
