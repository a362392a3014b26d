"""The ledger of jobs: what it promises when the process dies, when others hold the file, and who comes next."""

import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from models.errors import Busy, TooMany
from service.jobs.ledger import Ledger
from service.jobs.record import QUEUED, Job

ROOM = {"per_client": 9, "queue": 99}
JOB = Job("a", "me", "r", QUEUED, 1.0, "model/gltf-binary", "a.glb")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "jobs.sqlite", 0.05)
    yield ledger
    ledger.close()


def add(ledger: Ledger, ids: str, client: str, created_s: float = 0.0) -> None:
    for index, id in enumerate(ids):
        ledger.add(replace(JOB, id=id, client=client, created_s=created_s + index), **ROOM)


def test_what_it_was_told_is_there_for_the_next_process(tmp_path: Path, ledger: Ledger) -> None:
    ledger.add(JOB, **ROOM)
    assert ledger.start("a")
    assert ledger.finish("a", 3, "abc")
    again = Ledger(tmp_path / "jobs.sqlite", 1.0)
    assert again.job("a") == ledger.job("a")
    assert again.finished() == again.jobs_of("me") == [ledger.job("a")]
    again.close()


def test_a_state_follows_from_the_one_before_alone(ledger: Ledger) -> None:
    """Whoever comes too late, changes nothing."""
    ledger.add(JOB, **ROOM)
    assert not ledger.finish("a", 3, "abc")
    assert not ledger.retry("a")
    assert ledger.start("a")
    assert not ledger.start("a")
    ledger.remove("a")
    assert not ledger.finish("a", 3, "abc")
    assert not ledger.fail("a", "{}")
    assert ledger.jobs_of("me") == ledger.running() == []
    assert [job.id for job in ledger.removed()] == ["a"]
    ledger.forget("a")
    assert ledger.job("a") is None


def test_an_attempt_counts_unless_it_is_handed_back(ledger: Ledger) -> None:
    ledger.add(JOB, **ROOM)
    counts = []
    for end in (ledger.retry, ledger.hand_back, ledger.retry):
        ledger.start("a")
        end("a")
        counts.append(ledger.job("a").attempts)
    assert counts == [1, 1, 2]


def test_clients_take_turns(ledger: Ledger) -> None:
    """However many jobs one of them sent, and however early."""
    add(ledger, "abc", "early")
    add(ledger, "xy", "late", 10.0)
    order = []
    while queue := ledger.queue():
        ledger.start(queue[0])
        ledger.finish(queue[0], 1, "")
        order.append(queue[0])
    assert "".join(order) == "axbyc"


def test_the_queue_tells_the_order_ahead(ledger: Ledger) -> None:
    add(ledger, "abc", "early")
    add(ledger, "xy", "late", 10.0)
    assert "".join(ledger.queue()) == "axbyc"


def test_a_client_over_its_quota_and_a_full_queue_are_refused(ledger: Ledger) -> None:
    """Finished jobs do not count."""
    add(ledger, "ab", "me")
    with pytest.raises(TooMany, match="2 of your jobs"):
        ledger.add(replace(JOB, id="c"), per_client=2, queue=9)
    with pytest.raises(Busy, match="2 jobs"):
        ledger.add(replace(JOB, id="c", client="you"), per_client=2, queue=2)
    assert ledger.job("c") is None
    ledger.start("a")
    ledger.fail("a", "{}")
    ledger.add(replace(JOB, id="c"), per_client=2, queue=2)


def test_a_locked_file_is_busy_and_nothing_is_changed(tmp_path: Path, ledger: Ledger) -> None:
    ledger.add(JOB, **ROOM)
    other = sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Busy, match="locked") as refused:
        ledger.start("a")
    assert refused.value.code == "storage_busy"
    assert refused.value.retry_after_s > 0
    with pytest.raises(Busy, match="locked"):
        ledger.add(replace(JOB, id="b"), **ROOM)
    assert ledger.job("a") == JOB  # readers are not kept out
    other.execute("ROLLBACK")
    other.close()
    assert ledger.job("b") is None
    assert ledger.start("a")


def test_a_full_disk_is_refused_as_one(ledger: Ledger) -> None:
    """As SQLite sees it: the file may not grow."""
    (pages,) = ledger._database.execute("PRAGMA page_count").fetchone()
    ledger._database.execute(f"PRAGMA max_page_count = {pages + 6}")
    with pytest.raises(Busy, match="disk is full") as refused:
        add(ledger, "abcdefghi", "x" * 4000)
    assert refused.value.code == "storage_full"
    assert ledger.queue()
