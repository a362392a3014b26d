"""Decoding behind a wall: what a file does to the decoder, it does to nothing else."""

import io
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import WAIT_S, FakeEngine, wait_until, wav
from fastapi.testclient import TestClient
from ill_decoder import decode as ill_behaved

import models.errors
from models.audio import AudioLimits, decode_audio
from models.core import Waveform
from models.errors import InputError, MalformedInput, TalkerError, TooLarge, UnknownName, UnsupportedMedia
from service.app import create_app
from service.isolation import Isolation
from service.settings import Settings

LIMITS = AudioLimits(10_000_000, 60)
VOICE = Path(__file__).parent / "data" / "LJ001-0002.flac"


@pytest.fixture
def isolation() -> Iterator[Isolation]:
    isolation = Isolation(LIMITS.max_seconds, ill_behaved, patience_s=0)
    yield isolation
    isolation.close()


def decode(isolation: Isolation, content: bytes, limits: AudioLimits = LIMITS) -> Waveform:
    """As Starlette holds what was uploaded: in memory, up to a size."""
    with tempfile.SpooledTemporaryFile(max_size=1 << 20) as file:
        file.write(content)
        file.seek(0)
        return isolation.decode(file, limits)


@pytest.mark.parametrize("content", [wav(), VOICE.read_bytes(), wav(2.0, 48_000)], ids=["short", "flac", "48 kHz"])
def test_what_is_decoded_behind_the_wall_is_what_is_decoded_before_it(isolation: Isolation, content: bytes) -> None:
    there, here = decode(isolation, content), decode_audio(content, LIMITS)
    assert there.samples.tobytes() == here.samples.tobytes()
    assert there.source_s == here.source_s
    assert there.samples.flags.writeable


@pytest.mark.parametrize(
    ("content", "limits"),
    [(b"no sound", LIMITS), (b"", LIMITS), (wav(2.0), AudioLimits(10**7, 1)), (wav(), AudioLimits(9, 9))],
)
def test_a_refusal_is_the_same_behind_the_wall(isolation: Isolation, content: bytes, limits: AudioLimits) -> None:
    with pytest.raises(InputError) as here:
        decode_audio(io.BytesIO(content), limits)
    with pytest.raises(InputError) as there:
        decode(isolation, content, limits)
    assert type(there.value) is type(here.value)
    for name in ("args", "field", "code"):
        assert getattr(there.value, name) == getattr(here.value, name)


@pytest.mark.parametrize(
    "what", [b"segfault", b"abort   ", b"raise   ", b"hang    ", b"memory  ", b"write   ", b"alter   ", b"lie     "]
)
def test_a_file_that_the_decoder_breaks_on_is_refused_and_the_next_one_decodes(
    isolation: Isolation, what: bytes
) -> None:
    """Whether it crashes, hangs, eats memory, writes where it should not, or says what cannot be."""
    with pytest.raises(UnsupportedMedia) as refusal:
        decode(isolation, what)
    assert (refusal.value.code, refusal.value.field) == ("decoder_failed", "audio")
    assert decode(isolation, wav()).samples.size == 3200


def test_a_worker_is_used_again_and_replaced_when_it_is_gone(isolation: Isolation) -> None:
    isolation.warm_up()
    (first,) = isolation._idle
    decode(isolation, wav())
    with pytest.raises(UnsupportedMedia):
        decode(isolation, b"no sound")
    assert list(isolation._idle) == [first]
    os.kill(first.process.pid, signal.SIGKILL)
    wait_until(lambda: not first.process.is_alive())
    assert decode(isolation, wav()).samples.size == 3200
    assert len(isolation._idle) == 1


def test_several_decode_at_once(isolation: Isolation) -> None:
    """A file that hangs holds up nobody else."""
    results: list[int] = []

    def attempt(content: bytes) -> None:
        try:
            results.append(decode(isolation, content).samples.size)
        except UnsupportedMedia:
            results.append(-1)

    threads = [threading.Thread(target=attempt, args=(content,)) for content in (b"hang    ", wav(), wav(1.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert sorted(results[:2]) == [3200, 16_000]
    assert results[2:] == [-1]


def test_the_service_lives_on(monkeypatch: pytest.MonkeyPatch, engine: FakeEngine) -> None:
    """415, and the next request works."""
    monkeypatch.setattr("service.runtime.Isolation", lambda seconds: Isolation(seconds, ill_behaved, patience_s=-25))
    with TestClient(create_app(Settings(isolate=True), engine)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        for what in (b"segfault", b"hang    "):
            response = client.post("/animate", files={"audio": what})
            assert (response.status_code, response.json()["code"]) == (415, "decoder_failed")
            assert client.post("/animate", files={"audio": wav()}).status_code == 200


def test_workers_die_with_the_service(tmp_path: Path) -> None:
    """Even one that hangs, when the service is killed without a warning."""
    program = (
        "import sys, threading; sys.path.insert(0, 'tests')\n"
        "from test_isolation import Isolation, decode, ill_behaved\n"
        "isolation = Isolation(60, ill_behaved, patience_s=1000)\n"
        "isolation.warm_up(); isolation.warm_up()\n"
        "print(*(worker.process.pid for worker in isolation._idle), flush=True)\n"
        "decode(isolation, b'hang    ')\n"
    )
    root = Path(__file__).parents[1]
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=root) as process:
        assert process.stdout is not None
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(0.2)
        process.kill()
    wait_until(lambda: not any(map(runs, workers)))


def runs(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def classes(root: type[TalkerError]) -> Iterator[type[TalkerError]]:
    """Those of the core; what only services and clients raise crosses no process."""
    yield root
    for cls in root.__subclasses__():
        if cls.__module__ == models.errors.__name__:
            yield from classes(cls)


@pytest.mark.parametrize("cls", sorted(classes(TalkerError), key=lambda cls: cls.__name__))
def test_every_error_can_be_pickled(cls: type[TalkerError]) -> None:
    if cls is UnknownName:
        error: TalkerError = UnknownName("style", "clam", ["neutral", "calm"], field="style")
    elif issubclass(cls, models.errors.Busy):
        error = cls("full; try again", retry_after_s=5.0)
    else:
        error = cls("a; b; c", field="audio", code="rare")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.__dict__) == (cls, str(error), error.__dict__)


def test_the_refusals_of_the_decoder_are_those_that_cross() -> None:
    from service.isolation import REFUSALS

    assert set(REFUSALS.values()) == {MalformedInput, TooLarge, UnsupportedMedia}
