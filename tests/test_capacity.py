"""A service lets as many animations run as its engine has room for, and says so where there is none."""

from collections.abc import Iterator

import anyio
import pytest
from conftest import FakeEngine, wait_until, wav
from fastapi import FastAPI
from fastapi.testclient import TestClient

from models.errors import Busy
from service.app import create_app
from service.settings import Settings
from service.slots import Slots


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine()
    engine.capacity = 3
    return engine


@pytest.fixture
def app(engine: FakeEngine) -> Iterator[FastAPI]:
    return create_app(Settings(concurrency=0, queue=0, log_level="warning"), engine)


def slots_of(client: TestClient) -> Slots:
    return client.app.state.runtime.slots


def free(client: TestClient) -> int:
    return slots_of(client).concurrency - slots_of(client).held


def test_slots_follow_the_engine(client: TestClient, engine: FakeEngine) -> None:
    for capacity in (3, 5, 2):
        engine.capacity = capacity
        wait_until(lambda capacity=capacity: free(client) == capacity)


def test_without_room_the_answer_is_503(client: TestClient, engine: FakeEngine) -> None:
    engine.capacity = 0
    response = client.post("/animate", files={"audio": wav()})
    assert (response.status_code, response.json()["code"]) == (503, "engine_lost")
    assert int(response.headers["Retry-After"]) > 0
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 200
    engine.capacity = 1
    assert client.get("/health/ready").status_code == 200


def test_those_that_run_go_on_when_there_is_less_room() -> None:
    async def never() -> dict[str, str]:
        await anyio.sleep_forever()
        raise AssertionError

    async def main() -> None:
        slots = Slots(2, 0, 1)
        async with slots.hold("mia", never):
            async with slots.hold("mia", never):
                slots.resize(1)
            with pytest.raises(Busy):
                slots.check("mia")
        slots.check("mia")
        async with slots.hold("mia", never):
            with pytest.raises(Busy):
                slots.check("mia")

    anyio.run(main)
