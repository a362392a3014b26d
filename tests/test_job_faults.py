"""Jobs when things go wrong: the process is killed or stopped, the disk is full, the ledger is locked, the store is
gone. Nothing that was accepted is lost, and what fails says why.
"""

import errno
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from conftest import WAIT_S, FakeEngine, wait_until, wav
from fastapi.testclient import TestClient

from service.app import create_app
from service.jobs.desk import MAX_ATTEMPTS
from service.jobs.results import FolderResults
from service.settings import Settings

FILES = {"audio": ("speech.wav", wav())}
FORM = {"format": "npz-stream"}
ROOT = Path(__file__).parents[1]


@contextmanager
def ready(settings: Settings, engine: FakeEngine) -> Iterator[TestClient]:
    """A client of a service whose engine is warm; what a test leaves held is let go."""
    with TestClient(create_app(settings, engine), raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client
        engine.gate.set()


def submit(client: Any, seconds: float = 0.2, **fields: str) -> str:
    response = client.post("/jobs", data=FORM | fields, files={"audio": ("speech.wav", wav(seconds, 8000))})
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def card(client: Any, id: str) -> dict[str, Any]:
    return dict(client.get(f"/jobs/{id}").json())


def finish(client: Any, id: str) -> dict[str, Any]:
    wait_until(lambda: card(client, id)["state"] in ("done", "failed"))
    return card(client, id)


def left(folder: Path) -> set[str]:
    return {path.name for name in ("inbox", "drafts", "results") for path in (folder / name).iterdir()}


class Process:
    """tests/job_server.py."""

    def __init__(self, jobs: Path, frame_s: float) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        environment = os.environ | {"TALKER_JOBS": str(jobs), "PYTHONPATH": str(ROOT), "TALKER_DRAIN_S": "5"}
        command = [sys.executable, "-W", "error", ROOT / "tests" / "job_server.py", str(port), str(frame_s)]
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S)
        wait_until(self._is_ready, 120)

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.process.stderr and self.process.stderr.read()
        try:
            return self.client.get("/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    def end(self, number: signal.Signals) -> int:
        """Its exit status after the signal."""
        self.process.send_signal(number)
        status = self.process.wait(WAIT_S)
        self.client.close()
        if self.process.stderr:
            self.process.stderr.close()
        return status


@contextmanager
def process(jobs: Path, frame_s: float = 0.0) -> Iterator[Process]:
    server = Process(jobs, frame_s)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end(signal.SIGKILL)


def running(server: Process, id: str) -> bool:
    job = card(server.client, id)
    return bool(job["state"] == "running" and job["progress"] > 0)


@pytest.mark.parametrize(
    ("number", "status", "attempts"), [(signal.SIGKILL, -signal.SIGKILL, 2), (signal.SIGTERM, 0, 1)]
)
def test_a_process_that_ends_in_the_middle_makes_its_jobs_when_it_starts_again(
    tmp_path: Path, number: signal.Signals, status: int, attempts: int
) -> None:
    """Killed, it counts as an attempt; stopped, it does not. Both results are /animate's, and nothing else is left."""
    with process(tmp_path, frame_s=0.1) as server:
        first = submit(server.client, 1.0, seed="7")
        wait_until(lambda: running(server, first))
        second = submit(server.client)
        assert server.end(number) == status
    assert {first, second} <= left(tmp_path)
    with process(tmp_path) as server:
        done = [finish(server.client, id) for id in (first, second)]
        assert [(job["state"], job["attempts"]) for job in done] == [("done", attempts), ("done", 1)]
        answer = server.client.post(
            "/animate", data=FORM | {"seed": "7"}, files={"audio": ("speech.wav", wav(1.0, 8000))}
        )
        assert server.client.get(f"/jobs/{first}/result").content == answer.content
        wait_until(lambda: left(tmp_path) == {first, second})
        server.end(signal.SIGTERM)


def test_a_job_that_kills_the_process_each_time_fails(tmp_path: Path, engine: FakeEngine) -> None:
    """And says so. What a dying process half wrote is deleted."""
    settings = Settings(jobs=tmp_path)
    with ready(settings, engine) as client:
        engine.hold_at = 0
        running, waiting = submit(client), submit(client)
        wait_until(engine.held.is_set)
        client.app.state.worker.stop()
        client.app.state.worker.desk.ledger.hand_back(running)
        engine.gate.set()
    engine.hold_at = None
    with closing(sqlite3.connect(tmp_path / "jobs.sqlite", isolation_level=None)) as ledger:
        ledger.execute("UPDATE jobs SET state = 'running', attempts = ? WHERE id = ?", (MAX_ATTEMPTS, running))
    (tmp_path / "inbox" / "0123.part").mkdir()
    (tmp_path / "drafts" / running).write_bytes(b"half")
    with ready(settings, engine) as client:
        error = finish(client, running)["error"]
        assert (error["status"], error["code"]) == (500, "worker_died")
        assert f"died {MAX_ATTEMPTS} times" in error["detail"]
        assert finish(client, waiting)["state"] == "done"
        wait_until(lambda: left(tmp_path) == {waiting})


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("written", ["starlette.datastructures.UploadFile.write", "shutil.copyfileobj", "os.fsync"])
def test_a_disk_that_is_full_when_a_job_comes_refuses_it(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    """While its upload is received, copied or synced: 503, when to come again, and nothing half accepted."""
    with ready(Settings(jobs=tmp_path), engine) as client:
        with monkeypatch.context() as patch:
            patch.setattr(written, full)
            response = client.post("/jobs", files=FILES)
        assert (response.status_code, response.json()["code"]) == (503, "storage_full")
        assert int(response.headers["retry-after"]) > 0
        assert client.get("/jobs").json() == []
        assert left(tmp_path) == set()
        assert finish(client, submit(client))["state"] == "done"


def test_a_disk_that_is_full_when_a_result_is_written_fails_the_job(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ready(Settings(jobs=tmp_path), engine) as client:
        engine.hold_at = 3
        id = submit(client)
        wait_until(engine.held.is_set)
        monkeypatch.setattr("os.fsync", full)
        engine.gate.set()
        job = finish(client, id)
        assert (job["state"], job["error"]["status"], job["error"]["code"]) == ("failed", 503, "storage_full")
        wait_until(lambda: left(tmp_path) == set())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_small_disk(small_disk: Path, engine: FakeEngine) -> None:
    """An upload that does not fit is refused, a result that does not fails its job, and what fits is made."""
    with ready(Settings(jobs=small_disk), engine) as client:
        upload = {"audio": ("speech.wav", wav(60, 16_000))}
        response = client.post("/jobs", files=upload)
        assert (response.status_code, response.json()["code"]) == (503, "storage_full")
        assert left(small_disk) == set()
        large = submit(client, 30, fps="120")
        assert finish(client, large)["error"]["code"] == "storage_full"
        wait_until(lambda: left(small_disk) == set())
        assert finish(client, submit(client))["state"] == "done"


@contextmanager
def locked(jobs: Path) -> Iterator[None]:
    """Another process holds the ledger."""
    with closing(sqlite3.connect(jobs / "jobs.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_a_locked_ledger_is_busy_and_loses_nothing(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that ends meanwhile is written down once that is possible; one that comes meanwhile is refused whole."""
    monkeypatch.setattr("service.jobs.worker.RETRY_S", 0.05)
    monkeypatch.setattr("service.jobs.desk.BUSY_TIMEOUT_S", 0.05)
    with ready(Settings(jobs=tmp_path), engine) as client:
        engine.hold_at = 3
        id = submit(client)
        wait_until(engine.held.is_set)
        with locked(tmp_path):
            engine.gate.set()
            wait_until(engine.closed.is_set)
            for refused in (client.post("/jobs", files=FILES), client.delete(f"/jobs/{id}")):
                assert (refused.status_code, refused.json()["code"]) == (503, "storage_busy")
                assert int(refused.headers["retry-after"]) > 0
            wait_until((tmp_path / "results" / id).exists)
            assert card(client, id)["state"] == "running"
            assert left(tmp_path) == {id}
        assert finish(client, id)["state"] == "done"
        assert [job["id"] for job in client.get("/jobs").json()] == [id]


def test_a_store_that_comes_back_is_tried_again_and_one_that_does_not_fails_the_job(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With results in an object store: as long as attempts are left."""
    put = pytest.importorskip("obstore").put
    lost = pytest.importorskip("obstore.exceptions").GenericError("no route to host")
    answers: list[Callable[..., Any]] = []

    def flaky(*arguments: Any) -> Any:
        return answers.pop(0)(*arguments)

    def lose(*_: object) -> None:
        raise lost

    monkeypatch.setattr("obstore.put", flaky)
    monkeypatch.setattr("service.jobs.objects.RETRY_AFTER_S", 0.05)
    with ready(Settings(jobs=tmp_path / "jobs", jobs_store=f"file://{tmp_path}/bucket"), engine) as client:
        answers[:] = [lose, put]
        job = finish(client, id := submit(client))
        assert (job["state"], job["attempts"]) == ("done", 2)
        answer = client.post("/animate", data=FORM, files={"audio": ("speech.wav", wav(0.2, 8000))})
        assert client.get(f"/jobs/{id}/result").content == answer.content
        part = client.get(f"/jobs/{id}/result", headers={"Range": "bytes=-9"})
        assert (part.status_code, part.content) == (206, answer.content[-9:])
        answers[:] = [lose] * MAX_ATTEMPTS
        job = finish(client, submit(client))
        assert (job["state"], job["error"]["code"]) == ("failed", "storage_unreachable")
        client.delete(f"/jobs/{id}")
        wait_until(lambda: list((tmp_path / "bucket").iterdir()) == [])


def test_a_store_that_is_none_ends_the_server(tmp_path: Path, engine: FakeEngine) -> None:
    app = create_app(Settings(jobs=tmp_path, jobs_store="ftp://host"), engine)
    with TestClient(app):
        assert "TALKER_JOBS_STORE = 'ftp://host'" in str(app.state.runtime.failure)


def test_a_store_without_its_package_ends_the_server(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "service.jobs.objects", raising=False)
    monkeypatch.setitem(sys.modules, "obstore", None)
    app = create_app(Settings(jobs=tmp_path, jobs_store="memory:///"), engine)
    with TestClient(app):
        assert "pip install 'talker[s3]'" in str(app.state.runtime.failure)


def test_a_result_that_is_removed_while_it_is_asked_for_is_unknown(
    tmp_path: Path, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ready(Settings(jobs=tmp_path), engine) as client:
        id = submit(client)
        finish(client, id)
        desk, read = client.app.state.worker.desk, FolderResults.read

        def read_too_late(results: FolderResults, id: str, start: int, stop: int) -> Iterator[bytes]:
            desk.remove(desk.look_up(id))
            return read(results, id, start, stop)

        monkeypatch.setattr(FolderResults, "read", read_too_late)
        response = client.get(f"/jobs/{id}/result")
        assert (response.status_code, response.json()["code"]) == (404, "unknown_job")
