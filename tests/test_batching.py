"""The engine loop: what waits together runs as one, and gives what it would have given alone."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WAIT_S, wait_until
from tiny import TORCH, WEIGHTS
from tiny_engine import tiny_styles, write_weights
from torch import Tensor

from models.audio import AudioLimits, decode_audio
from models.batching import Axes, EngineLoop, Function
from models.core import AnimateOptions, Clip, Waveform
from models.engine import LocalEngine, load_engine, open_networks
from models.errors import EngineClosed
from models.pivots import StyleBook
from models.runtime import open_runtime

VOICE = Path(__file__).parent / "data" / "LJ001-0002.flac"
SUM = Axes((0, 1), (1, 0))
"""Of `add`: rows lie across in its second input and in its first output."""


class Recorder:
    """A function of a loop that can be held, and what it was given."""

    def __init__(self, loop: EngineLoop, axes: Axes | None = SUM, name: str = "add") -> None:
        self.shapes: list[tuple[torch.Size, ...]] = []
        self.threads: set[str] = set()
        self.ran: list[str] = []
        """Names of what ran, in order; recorders may share the list."""
        self.failure: Exception | None = None
        self.held, self.gate = threading.Event(), threading.Event()
        self.gate.set()
        self._name = name
        self.call: Function = loop.function(name, self._add, axes)

    def _add(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        self.held.set()
        assert self.gate.wait(WAIT_S)
        self.shapes.append((x.shape, y.shape))
        self.ran.append(self._name)
        self.threads.add(threading.current_thread().name)
        if self.failure is not None:
            raise self.failure
        return (x + y.T).T, 2 * x


@pytest.fixture
def loop() -> Iterator[EngineLoop]:
    loop = EngineLoop(3)
    yield loop
    loop.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def some(value: float) -> tuple[Tensor, Tensor]:
    """Inputs of one call: (1, 2) and (2, 1)."""
    return torch.full((1, 2), value), torch.full((2, 1), 10 * value)


def gathered(
    loop: EngineLoop, pool: ThreadPoolExecutor, first: Recorder, calls: list[Callable[[], object]]
) -> list[Future[object]]:
    """Calls that wait, in order, behind one that holds the device."""
    first.gate.clear()
    results = [pool.submit(first.call, *some(0))]
    assert first.held.wait(WAIT_S)
    for k, call in enumerate(calls):
        results.append(pool.submit(call))
        wait_until(lambda k=k: len(loop._waiting) == k + 1)
    first.gate.set()
    return results


def test_what_waits_together_runs_as_one_and_everybody_gets_their_own(loop, pool) -> None:
    add = Recorder(loop)
    results = gathered(loop, pool, add, [lambda v=v: add.call(*some(v)) for v in (1, 2, 3, 4)])
    for value, result in enumerate(results):
        total, double = result.result(WAIT_S)
        assert total.tolist() == [[11 * value], [11 * value]]
        assert double.tolist() == [[2 * value, 2 * value]]
    assert add.shapes == [((3, 2), (2, 3))] * 3
    assert add.threads == {"engine"}


def test_what_a_call_keeps_holds_nothing_of_the_others(loop) -> None:
    """States go over the wire: a view would take its whole batch along."""
    for tensor in Recorder(loop).call(*some(1)):
        assert tensor.is_contiguous()
        assert tensor.untyped_storage().nbytes() == tensor.nbytes


def test_a_function_without_axes_runs_one_by_one(loop, pool) -> None:
    """As one whose inputs are shared or unlike must."""
    add = Recorder(loop, axes=None)
    results = gathered(loop, pool, add, [lambda v=v: add.call(*some(v)) for v in (1, 2)])
    assert [result.result(WAIT_S)[1].tolist() for result in results] == [[[0, 0]], [[2, 2]], [[4, 4]]]
    assert add.shapes == [((1, 2), (2, 1))] * 3


def test_the_oldest_call_is_next_whatever_could_be_batched(loop, pool) -> None:
    """Others of its function overtake with it; those of another function wait their turn."""
    add, other = Recorder(loop), Recorder(loop, name="other")
    other.ran = add.ran
    calls = [lambda function=function: function.call(*some(1)) for function in (other, add, other, add)]
    for result in gathered(loop, pool, add, calls):
        result.result(WAIT_S)
    assert add.ran == ["add", "other", "add"]


def test_a_failure_is_that_of_the_calls_that_ran_with_it(loop, pool) -> None:
    """The loop goes on."""
    add, bad = Recorder(loop), Recorder(loop, name="bad")
    bad.failure = ZeroDivisionError("a bad day")
    calls = [lambda: bad.call(*some(1)), lambda: add.call(*some(1)), lambda: bad.call(*some(2))]
    results = gathered(loop, pool, add, calls)
    for k in (1, 3):
        with pytest.raises(ZeroDivisionError, match="a bad day"):
            results[k].result(WAIT_S)
    assert results[2].result(WAIT_S)[1].tolist() == [[2, 2]]
    assert len(bad.shapes) == 1


def test_a_closed_loop_refuses_what_waits_and_what_comes_and_ends_its_thread(loop, pool) -> None:
    """What runs is finished."""
    add = Recorder(loop)
    add.gate.clear()
    runs = pool.submit(add.call, *some(1))
    assert add.held.wait(WAIT_S)
    waits = pool.submit(add.call, *some(2))
    wait_until(lambda: len(loop._waiting) == 1)
    closing = pool.submit(loop.close)
    with pytest.raises(EngineClosed, match="the engine is closed; wanted one that is open: open another"):
        waits.result(WAIT_S)
    assert not closing.done()
    add.gate.set()
    assert runs.result(WAIT_S)[1].tolist() == [[2, 2]]
    closing.result(WAIT_S)
    with pytest.raises(EngineClosed):
        add.call(*some(3))
    assert not loop._thread.is_alive()
    loop.close()


def test_a_loop_without_calls_has_no_thread(loop) -> None:
    loop.close()
    assert loop._thread is None


def test_a_loop_counts_what_it_runs(loop, pool) -> None:
    add = Recorder(loop)
    for result in gathered(loop, pool, add, [lambda: add.call(*some(1))] * 3):
        result.result(WAIT_S)
    (statistics,) = loop.statistics().values()
    assert (statistics.calls, statistics.batches, statistics.calls_per_batch) == (4, 2, 2)
    assert statistics.seconds > 0


@pytest.mark.parametrize(("device", "wanted", "batch"), [("cpu", 0, 1), ("cpu", 5, 5), ("cuda", 0, 8), ("cuda", 2, 2)])
def test_the_device_chooses_how_many_run_as_one(tmp_path, monkeypatch, device, wanted, batch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert open_runtime(device, tmp_path, batch=wanted).loop.batch == batch


def clips(engine: LocalEngine, waveform: Waveform) -> list[Callable[[], Clip]]:
    """Takes of both engines, no two alike."""
    wanted = [
        AnimateOptions(seed=1),
        AnimateOptions(seed=2, fps=25),
        AnimateOptions(resolution=AnimateOptions.MIN_POINTS),
        AnimateOptions(engine="textalker", seed=3),
        AnimateOptions(engine="textalker", seed=4, texture=512),
    ]
    return [lambda options=options: engine.animate(waveform, options) for options in wanted]


def frames_of(start: Callable[[], Clip]) -> list[tuple[bytes, bytes]]:
    return [
        (frame.vertices.tobytes(), b"" if frame.wrinkles is None else frame.wrinkles.tobytes())
        for frame in start().frames
    ]


def check_parallel_is_serial(engine: LocalEngine, waveform: Waveform) -> None:
    takes = clips(engine, waveform)
    serial = [frames_of(take) for take in takes]
    assert len(set(map(str, serial))) == len(takes)
    with ThreadPoolExecutor(len(takes)) as pool:
        parallel = list(pool.map(frames_of, takes))
    assert parallel == serial


def words(seconds: float) -> Waveform:
    sound = decode_audio(VOICE.read_bytes(), AudioLimits(10**7, 60)).samples
    return Waveform(sound[: round(seconds * Waveform.rate_hz)])


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the graphs lie that batches of any size have in common."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("batch", [1, 3])
def test_parallel_takes_are_serial_ones_byte_for_byte(tiny_weights, cache, batch) -> None:
    """By onnxruntime; with three in a batch, every batch is padded to three."""
    engine = load_engine(tiny_weights, cache, device="cpu", threads=1, batch=batch)
    check_parallel_is_serial(engine, words(1.3))
    most = max(statistics.calls_per_batch for statistics in engine.statistics().values())
    assert most == 1 if batch == 1 else most > 1
    engine.close()


def test_parallel_takes_of_the_shipped_networks_are_serial_ones(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Graphs are exported once, also where several processes run tests."""
    cache = tmp_path_factory.getbasetemp().parent / "cache"
    engine = load_engine(WEIGHTS, cache, device="cpu", threads=1)
    check_parallel_is_serial(engine, words(0.4))
    engine.close()


@pytest.fixture
def in_torch(tiny_weights) -> Iterator[Callable[[str, int], LocalEngine]]:
    """Engines over the tiny networks that export nothing, whose loops are closed at the end."""
    loops: list[EngineLoop] = []

    def opened(device: str, batch: int) -> LocalEngine:
        loops.append(EngineLoop(batch))
        networks = open_networks(tiny_weights, replace(TORCH, device=torch.device(device), loop=loops[-1]))
        book = StyleBook(tiny_styles(), None, networks.autoencoders)
        return LocalEngine(networks, book, {"checkpoints": {}})

    yield opened
    for loop in loops:
        loop.close()


def test_a_take_of_a_closed_engine_ends(in_torch) -> None:
    engine = in_torch("cpu", 1)
    waveform = Waveform(np.zeros(10 * Waveform.rate_hz, np.float32))
    frames = engine.animate(waveform, AnimateOptions()).frames
    next(frames)
    engine.close()
    with pytest.raises(EngineClosed):
        list(frames)


def test_torch_takes_several_at_once_too(in_torch) -> None:
    """As a GPU does, to a hundredth of a millimetre; parallel takes are serial ones."""
    check_close(in_torch("cpu", 4), words(1.3))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_parallel_takes_on_a_gpu_are_serial_ones(in_torch) -> None:
    check_close(in_torch("cuda", 8), words(1.3))


def check_close(engine: LocalEngine, waveform: Waveform) -> None:
    takes = clips(engine, waveform)
    serial = [np.stack([frame.vertices for frame in take().frames]) for take in takes]
    with ThreadPoolExecutor(len(takes)) as pool:
        parallel = list(pool.map(lambda take: np.stack([frame.vertices for frame in take().frames]), takes))
    for one, other in zip(serial, parallel, strict=True):
        assert np.abs(one - other).max() < 1e-5
    assert max(statistics.calls_per_batch for statistics in engine.statistics().values()) > 1
