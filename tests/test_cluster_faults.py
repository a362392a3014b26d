"""A cluster whose machines fail: what was admitted is answered whole, and not much later."""

import os
import shutil
import signal
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import wait_until, wav
from fastapi.testclient import TestClient
from namespaces import HEAD, NETWORK, Cluster, Machine
from tiny_engine import write_weights

from service.app import create_app
from service.settings import Settings

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.name != "posix" or os.geteuid() != 0 or shutil.which("ip") is None or find_spec("ray") is None,
        reason="needs root, iproute2 and Ray",
    ),
]

PORT, WORKERS, CLIENTS = 9150, 2, 4
SPEECH_S = 8.0
ADDRESS, SCRIPT = f"{NETWORK}{HEAD}:6379", str(Path(__file__).with_name("slow_replicas.py"))
LATE_S = 6.0
"""How much later than the slowest without faults an answer may come."""


def post(url: str, body: bytes, boundary: str) -> tuple[int, bytes]:
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=120) as response:
        return response.status, response.read()


def form(speech: bytes, **fields: str) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n' for k, v in fields.items()]
    parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="audio"; filename="speech.wav"\r\n\r\n')
    return "".join(parts).encode() + speech + f"\r\n--{boundary}--\r\n".encode(), boundary


@dataclass
class Load:
    """Clients that ask one request after the other, until they are stopped."""

    url: str
    stopped: threading.Event = field(default_factory=threading.Event)
    answers: list[tuple[float, int, bytes]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        body, boundary = form(wav(SPEECH_S), format="npz-stream")

        def ask() -> None:
            while not self.stopped.is_set():
                started = time.monotonic()
                try:
                    status, data = post(self.url, body, boundary)
                except (OSError, HTTPException) as error:  # refused, or cut
                    self.failures.append(error)
                else:
                    self.answers.append((time.monotonic() - started, status, data))

        self.threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
        for thread in self.threads:
            thread.start()

    def end(self) -> None:
        self.stopped.set()
        for thread in self.threads:
            thread.join(120)

    @property
    def slowest_s(self) -> float:
        return max(seconds for seconds, _, _ in self.answers)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cluster")
    write_weights(folder / "weights")
    return folder


@pytest.fixture(scope="module")
def reference(folder: Path) -> bytes:
    """The answer of a service in this process. It fills the cache that the replicas share."""
    own = {name: folder / name for name in ("weights", "cache", "styles", "templates")}
    with TestClient(create_app(Settings(**own, device="cpu", threads=1))) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200, 120)
        speech = {"audio": ("speech.wav", wav(SPEECH_S))}
        return client.post("/animate", files=speech, data={"format": "npz-stream"}).content


@pytest.fixture(scope="module")
def cluster(folder: Path, reference: bytes) -> Iterator[Cluster]:
    weights, cache, cluster = folder / "weights", folder / "cache", Cluster(folder, WORKERS)
    try:
        cluster.gather()
        deploying = cluster.start(cluster.head, "python", SCRIPT, ADDRESS, str(weights), str(cache), str(WORKERS))
        assert deploying.wait(240) == 0, cluster.log(cluster.head).read_text()[-3000:]
        cluster.start(
            cluster.edge,
            *("python", "-c", "from service.cli import main; main()", "serve"),
            *("--host", cluster.edge.address, "--port", str(PORT)),
            TALKER_ENGINE=f"ray://{ADDRESS}",
            TALKER_WEIGHTS=str(weights),
            TALKER_CACHE=str(cache),
            TALKER_STYLES=str(folder / "styles"),
            TALKER_TEMPLATES=str(folder / "templates"),
            TALKER_JOBS=str(folder / "jobs"),
            TALKER_OPEN="true",
            TALKER_CONCURRENCY="0",
            TALKER_QUEUE="16",
        )
        wait_until(lambda: ready(cluster), 120)
        yield cluster
    finally:
        cluster.close()


def url(cluster: Cluster, path: str) -> str:
    return f"http://{cluster.edge.address}:{PORT}{path}"


def ready(cluster: Cluster) -> bool:
    try:
        with urllib.request.urlopen(url(cluster, "/health/ready"), timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.fixture(scope="module")
def usual(cluster: Cluster) -> Load:
    """Answers without faults: the bytes that all others must have, and how long they take."""
    load = Load(url(cluster, "/animate"))
    wait_until(lambda: len(load.answers) >= 2 * CLIENTS, 120)
    load.end()
    assert load.failures == []
    return load


def test_a_cluster_answers_what_one_process_does(usual: Load, reference: bytes) -> None:
    assert {data for _, _, data in usual.answers} == {reference}


def whole(cluster: Cluster) -> bool:
    """Whether every machine has a replica, and all of them are ready."""
    if not all(machine.running("ServeReplica") for machine in cluster.workers):
        return False
    counting = cluster.start(cluster.head, "python", SCRIPT, ADDRESS)
    return counting.wait(60) == WORKERS


def losses(cluster: Cluster) -> int:
    """Windows that the edge has lost so far, as it logs them."""
    return cluster.log(cluster.edge).read_text().count("Window lost a replica")


def kill_replica(machine: Machine) -> None:
    for pid in machine.running("ServeReplica"):
        os.kill(pid, signal.SIGKILL)


def replace(cluster: Cluster, machine: Machine) -> None:
    """Another machine in place of one that failed."""
    machine.mend()
    machine.boot()
    cluster.join_worker(machine)


def mend_cut(cluster: Cluster, machine: Machine) -> None:
    machine.kill()
    replace(cluster, machine)


FAULTS: dict[str, tuple[Callable[[Machine], None], Callable[[Cluster, Machine], None]]] = {
    "a replica is killed": (kill_replica, lambda cluster, machine: None),
    "a machine dies": (Machine.kill, replace),
    "a machine is cut off": (Machine.cut, mend_cut),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_request_is_lost_when(cluster: Cluster, usual: Load, fault: str, capsys: pytest.CaptureFixture) -> None:
    strike, mend = FAULTS[fault]
    machine = cluster.workers[-1]
    load = Load(url(cluster, "/animate"))
    wait_until(lambda: load.answers, 60)
    time.sleep(usual.slowest_s / 3)  # clients ask in step: by now all of them are in the middle of a clip
    before, lost = len(load.answers), losses(cluster)
    strike(machine)
    wait_until(lambda: len(load.answers) >= before + 3 * CLIENTS, 120)
    load.end()
    with capsys.disabled():
        late_s = load.slowest_s - usual.slowest_s
        print(f"\n{fault}: {losses(cluster) - lost} windows were lost, {len(load.answers)} answers came, ", end="")
        print(f"{len(load.failures)} did not; slowest {late_s:+.1f} s of {usual.slowest_s:.1f} s")
    mend(cluster, machine)
    assert losses(cluster) > lost, "the fault struck while nothing ran there: it shows nothing"
    assert load.failures == []
    assert {status for _, status, _ in load.answers} == {200}
    assert {data for _, _, data in load.answers} == {usual.answers[0][2]}
    assert load.slowest_s < usual.slowest_s + LATE_S
    wait_until(lambda: whole(cluster), 120)
